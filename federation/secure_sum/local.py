"""All members and the coordinator in one process, over the production state machines: for the lab, tests and benches.

Signatures, sealing and masks are as over the network; what is missing is the network and the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy
from federation.primitives.signing import Signer, Verifier
from federation.secure_sum.coordinator import CoordinatorRound, RoundOutcome, RoundPlan, Send
from federation.secure_sum.member import MemberJob
from federation.secure_sum.program import JobView, Program
from federation.secure_sum.terms import Noise, Terms


@dataclass
class MemoryMarkers:
    """Markers in memory: the rules of the durable ones, without their durability."""

    attempts: dict[tuple[str, int], int] = field(default_factory=dict)
    rounds: set[tuple[str, int, str]] = field(default_factory=set)
    snapshots: list[bytes] = field(default_factory=list)

    def answered(self, terms: Terms, state: bytes) -> None:
        """Record the attempt; the newest snapshot replaces the one before."""
        self.attempts[terms.job, terms.round] = terms.attempt
        self.snapshots[:] = [state]

    def released(self, terms: Terms) -> None:
        """Record the round as spent, once."""
        key = (terms.job, terms.round, terms.purpose)
        if key in self.rounds:
            raise ChaotianError("ROUND_SPENT", f"round {terms.round} was released already")
        self.rounds.add(key)

    def last_attempt(self, job: str, round_: int) -> int:
        """Return the highest attempt answered."""
        return self.attempts.get((job, round_), 0)

    def spent(self, job: str, round_: int) -> bool:
        """Whether the round was released."""
        return any(key[:2] == (job, round_) for key in self.rounds)


class MemoryJournal:
    """A journal in memory."""

    record: bytes | None = None

    def save(self, record: bytes) -> None:
        """Keep the record."""
        self.record = record

    def clear(self) -> None:
        """Drop the record."""
        self.record = None


@dataclass
class LocalFederation:
    """Members and a coordinator that share a process.

    Args:
        programs: one program a member, by member name.
        entropy: source of randomness for all of them.
        job: the job's name in terms.
    """

    programs: Mapping[str, Program]
    entropy: Entropy
    job: str = "local"
    space: str = "lab"
    purpose: str = "lab"
    result_to: str = "members"
    verified: bool = True
    noise: Noise | None = None
    min_members: int = 3
    min_rows: int = 30
    max_roster_changes: int = 1
    platform: Signer = field(init=False)
    signers: dict[str, Signer] = field(init=False)
    keys: dict[str, Verifier] = field(init=False)
    members: dict[str, MemberJob] = field(init=False)
    markers: dict[str, MemoryMarkers] = field(init=False)
    journal: MemoryJournal = field(init=False)
    sent: dict[str, int] = field(init=False)
    received: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        names = sorted(self.programs)
        self.platform = Signer(self.entropy.bytes(32))
        self.signers = {name: Signer(self.entropy.bytes(32)) for name in names}
        self.keys = {name: signer.verifier for name, signer in self.signers.items()}
        self.markers = {name: MemoryMarkers() for name in names}
        self.members = {name: self.member(name) for name in names}
        self.journal = MemoryJournal()
        self.sent, self.received = dict.fromkeys(names, 0), dict.fromkeys(names, 0)

    def view(self, name: str) -> JobView:
        """Return what a member knows of the job."""
        return JobView(
            space=self.space,
            job=self.job,
            purpose=self.purpose,
            members=self.keys,
            coordinator=self.platform.verifier,
            min_members=self.min_members,
            min_rows=self.min_rows,
            result_to=self.result_to,
            grants={name: f"grant-{name}" for name in self.keys},
            max_roster_changes=self.max_roster_changes,
            unverified=not self.verified,
            noise=self.noise,
        )

    def member(self, name: str) -> MemberJob:
        """Return a fresh `MemberJob` of `name`, as after a restart."""
        return MemberJob(
            member=name,
            view=self.view(name),
            signer=self.signers[name],
            program=self.programs[name],
            markers=self.markers[name],
            entropy=self.entropy,
        )

    def plan(self, round_: int, members: Iterable[str]) -> RoundPlan:
        """Return the plan of a round from where the first of `members` stands."""
        names = tuple(sorted(members))
        program = self.programs[names[0]]
        return RoundPlan(
            space=self.space,
            job=self.job,
            round=round_,
            operation=program.operation,
            purpose=self.purpose,
            layout=program.layout(),
            state_hash=self.members[names[0]].state_hash(),
            members=names,
            min_members=self.min_members,
            min_rows=self.min_rows,
            grants={name: f"grant-{name}" for name in names},
            result_to=self.result_to,
            verified=self.verified,
            noise=self.noise,
        )

    def coordinator(self, plan: RoundPlan) -> CoordinatorRound:
        """Return a coordinator for one round."""
        return CoordinatorRound(plan, signer=self.platform, members=self.keys, journal=self.journal)

    def deliver(self, round_: CoordinatorRound, send: Send) -> list[Send]:
        """Carry one request to its member and the reply back."""
        self.received[send.member] += len(send.request)
        try:
            reply = self.members[send.member].handle(send.stage, send.request)
        except ChaotianError as error:
            return round_.refused(send.member, send.attempt, send.stage, error)
        self.sent[send.member] += len(reply)
        return round_.reply(send.member, send.attempt, send.stage, reply)

    def run_round(self, plan: RoundPlan, *, lose: Callable[[Send], bool] = lambda send: False) -> RoundOutcome:
        """Run one round to its end; a request for which `lose` says true is a lost member."""
        round_ = self.coordinator(plan)
        queue = round_.begin()
        while queue and round_.outcome is None:
            send = queue.pop(0)
            if lose(send):
                queue += round_.lost(send.member, send.attempt, "PEER_UNREACHABLE")
            else:
                queue += self.deliver(round_, send)
        assert round_.outcome is not None
        return round_.outcome


def run_in_process(
    programs: Mapping[str, Program],
    *,
    entropy: Entropy,
    max_rounds: int = 100,
    lose: Callable[[int, Send], bool] = lambda round_, send: False,
    on_round: Callable[[int, RoundOutcome], None] = lambda round_, outcome: None,
) -> tuple[LocalFederation, list[RoundOutcome]]:
    """Run the programs' job to its end.

    Returns:
        The federation, and the outcome of every round.

    Raises:
        ChaotianError: the code the job ended with, where it did not end well.
    """
    federation = LocalFederation(programs, entropy)
    return federation, run_rounds(federation, max_rounds=max_rounds, lose=lose, on_round=on_round)


def run_rounds(
    federation: LocalFederation,
    *,
    max_rounds: int = 100,
    lose: Callable[[int, Send], bool] = lambda round_, send: False,
    on_round: Callable[[int, RoundOutcome], None] = lambda round_, outcome: None,
) -> list[RoundOutcome]:
    """Run the job of a federation to its end; return the outcome of every round.

    Raises:
        ChaotianError: the code the job ended with, where it did not end well.
    """
    members: tuple[str, ...] = tuple(sorted(federation.programs))
    outcomes: list[RoundOutcome] = []
    for round_ in range(1, max_rounds + 1):
        outcome = federation.run_round(
            federation.plan(round_, members),
            lose=lambda send, number=round_: lose(number, send),  # type: ignore[misc]
        )
        outcomes.append(outcome)
        on_round(round_, outcome)
        members = outcome.survivors
        if outcome.error:
            for name in members:
                if federation.members[name].failure is not None:
                    raise federation.members[name].failure  # type: ignore[misc]
            raise ChaotianError(outcome.error)
        if outcome.progress == "done":
            return outcomes
    raise ChaotianError("NOT_CONVERGED", f"the job took more than {max_rounds} rounds")
