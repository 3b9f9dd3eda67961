"""Members, a coordinator and a bad network on a manual clock; every fault is drawn from a seed.

Nothing of the protocol is replaced: the production state machines run, their memory is lost in a crash, and what
outlives it (markers, journal, the platform's count of attempts) is what the product keeps on disk.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from dataclasses import dataclass, field

from federation.errors import CATALOGUE, ChaotianError
from federation.primitives.signing import Signer
from federation.secure_sum.coordinator import CoordinatorRound, RoundPlan
from federation.secure_sum.local import MemoryJournal, MemoryMarkers
from federation.secure_sum.member import MemberJob
from federation.secure_sum.program import JobView
from federation.secure_sum.terms import state_digest, threshold_for
from tests.support.entropy import SeededEntropy
from tests.support.programs import Adder

KINDS = ("lost", "late", "duplicate", "reorder", "truncate", "forge", "replay")
CRASHES = ("member before", "member after", "marker before", "marker after", "marker full",
           "coordinator", "journal full", "journal before", "journal after", "journal stuck")  # fmt: skip
DEADLINE = 10.0


class Killed(BaseException):
    """The process died here: no code of it runs any further."""


@dataclass(frozen=True)
class Schedule:
    """What goes wrong.

    Args:
        seed: of keys, latencies and of what the faults do.
        members: size of the first roster, 3 to 7.
        rate: probability of a network fault a message.
        crash_rate: probability of a crash or a failing write a delivery.
        single: (number of the delivery, fault) instead of rates; deliveries are counted from 0.
        rounds: rounds the job takes.
        result_to: where totals go.
    """

    seed: int
    members: int = 4
    rate: float = 0.0
    crash_rate: float = 0.0
    single: tuple[int, str] | None = None
    rounds: int = 2
    result_to: str = "members"

    @classmethod
    def drawn(cls, seed: int) -> Schedule:
        """Return the schedule of a seed."""
        rng = random.Random(f"schedule/{seed}")
        members, result_to = rng.choice((3, 4, 4, 4, 5, 6)), rng.choice(("members", "members", "members", "both"))
        if rng.random() < 0.5:
            single = (rng.randrange(12 * members * 2), rng.choice(KINDS + CRASHES))
            return cls(seed, members, single=single, result_to=result_to)
        rates = (0.0, 0.01, 0.03, 0.1)
        return cls(seed, members, rng.choice(rates), rng.choice(rates), rounds=rng.choice((1, 2, 3)),
                   result_to=result_to)  # fmt: skip


@dataclass
class Markers(MemoryMarkers):
    """Durable markers whose writes can fail or be the last thing a process does."""

    trouble: str = ""
    history: list[tuple[str, int, int]] = field(default_factory=list)

    def _write(self, what, terms, write):
        trouble, self.trouble = self.trouble, ""
        if trouble == "marker full":
            raise OSError(28, "No space left on device")
        if trouble == "marker before":
            raise Killed
        write()
        self.history.append((what, terms.round, terms.attempt))
        if trouble == "marker after":
            raise Killed

    def answered(self, terms, state):
        self._write("answered", terms, lambda: MemoryMarkers.answered(self, terms, state))

    def released(self, terms):
        self._write("released", terms, lambda: MemoryMarkers.released(self, terms))


class Journal(MemoryJournal):
    """A durable journal with the same troubles."""

    trouble = ""

    def save(self, record):
        trouble, self.trouble = self.trouble, ""
        if trouble == "journal full":
            raise OSError(28, "No space left on device")
        if trouble == "journal before":
            raise Killed
        super().save(record)
        if trouble == "journal after":
            raise Killed

    def clear(self):
        trouble, self.trouble = self.trouble, ""
        if trouble == "journal stuck":
            raise OSError(30, "Read-only file system")
        super().clear()


class World:
    """One job under one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.rng = schedule, random.Random(f"world/{schedule.seed}")
        self.entropy = SeededEntropy(f"world/{schedule.seed}")
        self.names = tuple("abcdefg"[: schedule.members])
        # Distinct powers: a total says exactly whose values it holds.
        self.values = {name: 3**i for i, name in enumerate(self.names)}
        self.platform = Signer(self.entropy.bytes(32))
        self.signers = {name: Signer(self.entropy.bytes(32)) for name in self.names}
        self.keys = {name: signer.verifier for name, signer in self.signers.items()}
        self.markers = {name: Markers() for name in self.names}
        self.jobs = {name: self._job(name) for name in self.names}
        self.down: set[str] = set()
        self.journal = Journal()
        self.clock, self.events, self.order, self.deliveries = 0.0, [], 0, 0
        self.round_number, self.highest_attempt = 1, defaultdict(int)  # on the platform's disk
        self.seen: dict[str, list[tuple[str, bytes]]] = {name: [] for name in self.names}  # for replays
        self.replies: dict[str, list[bytes]] = {name: [] for name in self.names}
        self.opened: dict[tuple[int, int], set[str]] = defaultdict(set)  # (round, attempt) → whose shares left
        self.rosters: dict[tuple[int, int], tuple[str, ...]] = {}
        self.totals: dict[tuple[str, int], tuple[int, ...]] = {}
        self.results: list[str] = []
        self.error = ""
        self.finished = False

    # --- processes -----------------------------------------------------------------------------------------

    def _job(self, name: str) -> MemberJob:
        view = JobView("s", "j", "p", self.keys, self.platform.verifier, 3, 30, self.schedule.result_to,
                       {n: f"grant-{n}" for n in self.names}, max_roster_changes=3)  # fmt: skip
        program = Adder([self.values[name], -self.values[name] * 0.5], self.schedule.rounds)
        job = MemberJob(member=name, view=view, signer=self.signers[name], program=program,
                        markers=self.markers[name], entropy=self.entropy)  # fmt: skip
        if self.markers[name].snapshots:
            job.restore(self.markers[name].snapshots[-1])
        return job

    def _kill_member(self, name: str) -> None:
        self.down.add(name)
        self.at(self.rng.uniform(0, 2 * DEADLINE), self._start_member, name)

    def _start_member(self, name: str) -> None:
        self.down.discard(name)
        self.jobs[name] = self._job(name)

    def _kill_coordinator(self) -> None:
        self.round = None
        self.at(self.rng.uniform(0, 2), self._start_coordinator)

    def _start_coordinator(self) -> None:
        self.plan = RoundPlan(**{**self.plan.__dict__, "first_attempt": self.highest_attempt[self.round_number] + 1})
        self.round = CoordinatorRound(self.plan, signer=self.platform, members=self.keys, journal=self.journal)
        if self.journal.record is not None:
            try:
                sends = self.round.resume(self.journal.record)
            except ChaotianError as error:
                assert error.code == "STORAGE", error
            else:
                self._send(sends)
                return
        self._guard(self.round.begin)

    def _guard(self, step, *arguments) -> None:
        """Run a step of the coordinator, which may be its last."""
        try:
            sends = step(*arguments)
        except Killed:
            self._kill_coordinator()
            return
        self._send(sends)

    # --- clock and network ---------------------------------------------------------------------------------

    def at(self, delay: float, action, *arguments) -> None:
        """Let `action` happen `delay` seconds from now."""
        self.order += 1
        heapq.heappush(self.events, (self.clock + delay, self.order, action, arguments))

    def _fault(self, kinds: tuple[str, ...], rate: float, number: int) -> str:
        if self.schedule.single is not None:
            at, kind = self.schedule.single
            return kind if number == at and kind in kinds else ""
        return self.rng.choice(kinds) if self.rng.random() < rate else ""

    def _send(self, sends) -> None:
        terms = self.round.terms if self.round else None
        if terms is not None:
            self.rosters[terms.round, terms.attempt] = terms.members
            self.highest_attempt[terms.round] = max(self.highest_attempt[terms.round], terms.attempt)
        for send in sends:
            self.seen[send.member].append((send.stage, send.request))
            self._carry(send.request, self._receive, send, pool=[r for _, r in self.seen[send.member]])
            self.at(DEADLINE, self._deadline, self.round, send)
        self._check_end()

    def _carry(self, data: bytes, arrive, *arguments, pool: list[bytes]) -> None:
        """Carry a message over the bad network to `arrive(…, data)`."""
        number, self.deliveries = self.deliveries, self.deliveries + 1
        kind = self._fault(KINDS, self.schedule.rate, number)
        delay = self.rng.uniform(0.01, 0.1)
        if kind == "lost":
            return
        if kind == "late":
            delay += DEADLINE * self.rng.uniform(0.9, 3)
        elif kind == "reorder":
            delay += self.rng.uniform(0.1, 1)
        elif kind == "truncate":
            data = data[: self.rng.randrange(len(data))]
        elif kind == "forge":
            place = self.rng.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ (1 << self.rng.randrange(8))]) + data[place + 1 :]
        elif kind == "replay" and pool:
            data = self.rng.choice(pool)
        self.at(delay, arrive, *arguments, data, number)
        if kind == "duplicate":
            self.at(delay + self.rng.uniform(0, 3), arrive, *arguments, data, number)

    def _deadline(self, round_, send) -> None:
        if round_ is self.round and round_ is not None and round_.outcome is None and send.member in round_.waiting:
            terms = round_.terms
            if terms is not None and terms.attempt == send.attempt and round_.stage == send.stage:
                self._guard(round_.lost, send.member, send.attempt, "DEADLINE")

    def _receive(self, send, data: bytes, number: int) -> None:
        """A request reaches its member's node."""
        name = send.member
        if name in self.down:
            return
        crash = self._fault(CRASHES, self.schedule.crash_rate, number)
        if crash.startswith("marker"):
            self.markers[name].trouble = crash
        elif crash.startswith("journal"):
            self.journal.trouble = crash
        elif crash == "coordinator":
            self._kill_coordinator()
        elif crash == "member before":
            self._kill_member(name)
            return
        job = self.jobs[name]
        try:
            reply: bytes | ChaotianError = job.handle(send.stage, data)
        except Killed:
            self._kill_member(name)
            return
        except ChaotianError as error:
            assert error.code != "INTERNAL", error.__cause__
            reply = error
        if crash == "member after":
            self._kill_member(name)
        if isinstance(reply, bytes):
            self._witness(job, name, send.stage)
            self.replies[name].append(reply)
            self._carry(reply, self._answer, self.round, send, pool=self.replies[name])
        else:
            self.at(0.05, self._refusal, self.round, send, reply)

    def _answer(self, round_, send, data: bytes, number: int) -> None:
        if round_ is self.round and round_ is not None:
            if self._fault(CRASHES, self.schedule.crash_rate, number) == "coordinator":
                self._kill_coordinator()
                return
            self._guard(round_.reply, send.member, send.attempt, send.stage, data)

    def _refusal(self, round_, send, error: ChaotianError) -> None:
        if round_ is self.round and round_ is not None:
            self._guard(round_.refused, send.member, send.attempt, send.stage, error)

    # --- what must hold ------------------------------------------------------------------------------------

    def _witness(self, job: MemberJob, name: str, stage: str) -> None:
        """Note what left a member, and hold every total against whose values it should have."""
        terms = job._attempt.terms
        if stage == "unmask":
            self.opened[terms.round, terms.attempt].add(name)
        if stage == "result" and (name, terms.round) not in self.totals:
            scale = 1 << 16
            total = sum(self.values[member] for member in terms.members)
            got = job.program.totals[terms.round - 1]
            assert got == [total * scale, -total * scale // 2], (terms.round, terms.members)
            self.totals[name, terms.round] = terms.members

    def check(self) -> None:
        """Check what must hold whatever went wrong."""
        for name, markers in self.markers.items():
            released = [round_ for what, round_, _ in markers.history if what == "released"]
            assert len(released) == len(set(released)), f"{name} released a round twice"
            answered = [(round_, attempt) for what, round_, attempt in markers.history if what == "answered"]
            assert answered == sorted(set(answered)), f"{name} answered an attempt twice or backwards"
            for key in ((r, a) for (r, a), who in self.opened.items() if name in who):
                assert ("released", *key) in markers.history, f"{name} opened shares it did not record"
        decodable = defaultdict(set)
        for (round_, attempt), who in self.opened.items():
            roster = self.rosters[round_, attempt]
            if len(who) >= threshold_for(len(roster)):
                decodable[round_].add(roster)
        assert all(len(rosters) == 1 for rosters in decodable.values()), "two totals of one round can be opened"
        for (name, round_), roster in self.totals.items():
            assert roster in decodable[round_], f"{name} took in a total nobody could open"
        assert self.finished, "the run hangs"
        assert self.error == "" or self.error in CATALOGUE, self.error

    # --- the job -------------------------------------------------------------------------------------------

    def _check_end(self) -> None:
        outcome = self.round.outcome if self.round else None
        if outcome is None or self.finished:
            return
        self.round = None
        if outcome.error or outcome.progress == "done":
            self.error, self.finished = outcome.error, True
            return
        assert outcome.layout is not None
        self.round_number += 1
        self.journal.record = None  # the platform drops a record that the end of a round could not delete
        self.plan = RoundPlan(**{**self.plan.__dict__, "round": self.round_number, "members": outcome.survivors,
                                 "layout": outcome.layout, "state_hash": outcome.state_hash,
                                 "operation": outcome.operation})  # fmt: skip
        self.at(0, self._start_coordinator)

    def run(self) -> str:
        """Run to the end; return the job's error code, empty where it ended well."""
        first = self.jobs[self.names[0]].program
        state, grants = state_digest(first.state()), {n: f"grant-{n}" for n in self.names}
        self.plan = RoundPlan("s", "j", 1, first.operation, "p", first.layout(), state, self.names, 3, 30, grants,
                              self.schedule.result_to)  # fmt: skip
        self.round = None
        self._start_coordinator()
        steps = 0
        while self.events and not self.finished:
            self.clock, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)
            steps += 1
            assert steps < 20_000, "the run never ends"
        self.check()
        return self.error
