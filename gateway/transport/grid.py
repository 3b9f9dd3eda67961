"""A Flower `Grid` over the streams of the nodes: one call of `send_and_receive` is one round of the secure sum.

The round's pure state machine runs in the thread of Flower's `ServerApp`; the event loop of the hub only carries
bytes. A stage begins the moment the last reply of the one before it is there: nothing polls and nothing sleeps.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from federation.errors import ChaotianError
from federation.primitives.signing import Signer, Verifier
from federation.rounds.flower import (
    Grid,
    Message,
    Part,
    RecordDict,
    Run,
    empty_run,
    federation_number,
    from_bytes,
    node_number,
    read_reply,
    stage_message,
    status_message,
    to_bytes,
)
from federation.rounds.strategy import Phase
from federation.secure_sum.coordinator import CoordinatorRound, RoundOutcome, Send
from gateway.jobs.progress import Progress
from gateway.jobs.stage import REPLY, REQUEST, open_stage, seal_stage

STAGE_KIND = "job.stage"
BULK_BYTES = 512 << 10
BYTES_A_PEER = 4096  # what the stages with sealed parcels carry for each member of the roster
SLACK = 10.0  # seconds beyond a stage's deadline after which the hub itself is taken for stuck


class Requests(Protocol):
    """What the grid needs of the hub."""

    async def request(
        self, member: str, kind: str, payload: bytes, *, stream: str = "control", deadline: float
    ) -> bytes:
        """Ask a member; raises ChaotianError when no answer came."""
        ...


class Rounds(Protocol):
    """Where rounds come from and go to: the coordinator of the platform."""

    def members(self) -> tuple[str, ...]:
        """Return who takes part in the next round."""
        ...

    def open(self, round_: int) -> tuple[CoordinatorRound, list[Send]]:
        """Return a round that has begun, or one that goes on at `unmask` after a crash, and its first requests."""
        ...

    def closed(self, round_: int, outcome: RoundOutcome) -> None:
        """Take a round's outcome, before the strategy sees its status."""
        ...


@dataclass(frozen=True)
class _Answer:
    """What came back for one request: a reply's bytes, or why there is none."""

    round: int
    send: Send
    asked: Message
    data: bytes
    error: ChaotianError | None


class NodeStreamGrid(Grid):
    """The grid of one job.

    Args:
        space, job: names that go into envelopes and Flower ids.
        loop: the event loop the hub runs on.
        hub: carries requests to members.
        signer: the platform's identity key.
        platform: the platform's name in envelopes.
        keys: identity keys of the job's members.
        rounds: see `Rounds`.
        stage_seconds: how long a member may take for one stage.
        progress: what is watched.
        now: seconds since the epoch, for the metadata of messages.
    """

    def __init__(
        self,
        *,
        space: str,
        job: str,
        loop: asyncio.AbstractEventLoop,
        hub: Requests,
        signer: Signer,
        platform: str,
        keys: Mapping[str, Verifier],
        rounds: Rounds,
        stage_seconds: float,
        progress: Progress,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._space, self._job, self._loop, self._hub = space, job, loop, hub
        self._signer, self._platform, self._keys, self._rounds = signer, platform, keys, rounds
        self._stage_seconds, self._progress, self._now = stage_seconds, progress, now
        self._federation = federation_number(space)
        self._events: queue.SimpleQueue[_Answer | str] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._run = empty_run(job)

    # --- Flower's Grid -------------------------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """Take over Flower's run object."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run object of this job."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Refused: members are asked for stages of a round and for nothing else."""
        raise ChaotianError("USAGE", "this grid carries rounds only: use send_and_receive")

    def get_node_ids(self) -> Iterable[int]:
        """Return the Flower ids of the members of the next round."""
        return [node_number(name) for name in self._rounds.members()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused: a stage without its round has no meaning."""
        raise ChaotianError("USAGE", "this grid carries rounds only: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused: what single members answered is nobody's to pull."""
        raise ChaotianError("USAGE", "this grid carries rounds only: use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run one round with all its stages and attempts; blocks the calling thread, never the loop.

        Args:
            messages: one message a member, all of one round.
            timeout: seconds for the whole round.

        Returns:
            One message, from the federation's id, that carries the status and nothing of a single member.
        """
        asked = list(messages)
        round_ = self._check(asked)
        outcome = self._drive(round_, time.monotonic() + (3600.0 if timeout is None else timeout))
        self._rounds.closed(round_, outcome)
        layout = outcome.layout.encode().decode() if outcome.layout is not None else ""
        phase = Phase(round_, outcome.state_hash.hex(), layout, outcome.progress == "done", outcome.error)
        target = asked[0].metadata.src_node_id
        return [status_message(self._job, self._federation, target, round_, phase.record(), self._now())]

    def cancel(self, code: str) -> None:
        """End the round at hand with `code`; safe from any thread."""
        self._events.put(code)

    # --- a round -------------------------------------------------------------------------------------------

    def _check(self, asked: list[Message]) -> int:
        groups = {message.metadata.group_id for message in asked}
        targets = sorted(message.metadata.dst_node_id for message in asked)
        if len(groups) != 1 or targets != sorted(self.get_node_ids()) or not (group := groups.pop()).isdecimal():
            raise ChaotianError("USAGE", "a round is asked for by one message for each of its members")
        return int(group)

    def _drive(self, round_: int, deadline: float) -> RoundOutcome:
        current, sends = self._rounds.open(round_)
        terms = current.terms
        if terms is not None:
            fields = {field.name: field.length for field in terms.layout.fields}
            self._progress.begin_round(round_, terms.operation, fields, terms.members)
        self._send_all(current, round_, sends)
        while current.outcome is None:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return self._ended(current, "DEADLINE")
            if isinstance(event, str):
                return self._ended(current, event)
            if event.round != round_:  # so late that its round is over; attempts count anew in every round
                continue
            following = self._feed(current, event)
            if following:
                self._send_all(current, round_, following)
        outcome = current.outcome
        self._note_end(outcome)
        return outcome

    def _ended(self, current: CoordinatorRound, code: str) -> RoundOutcome:
        """Return the outcome of a round that is given up from outside."""
        members = current.terms.members if current.terms else ()
        outcome = RoundOutcome(code, members, members, 0, tuple(current.losses))
        self._note_end(outcome)
        return outcome

    def _note_end(self, outcome: RoundOutcome) -> None:
        losses = [(loss.member, loss.attempt, loss.stage, loss.code) for loss in outcome.losses]
        self._progress.end_round(outcome.attempts, losses, outcome.error)

    def _feed(self, current: CoordinatorRound, answer: _Answer) -> list[Send]:
        """Check who answered, and hand the answer to the round."""
        send = answer.send
        if answer.error is not None:  # the hub's word, unsigned: it can cost the member its place and no more
            self._progress.refused(send.member, answer.error.code)
            return current.lost(send.member, send.attempt, answer.error.code)
        try:
            key = self._keys[send.member]
            job, body = open_stage(REPLY, self._space, send.member, self._platform, answer.data, key)
            if job != self._job:
                raise ChaotianError("MALFORMED", "a reply names another job", member=send.member)
            message = from_bytes(body)
        except ChaotianError as error:
            self._progress.refused(send.member, error.code)
            return current.lost(send.member, send.attempt, error.code)
        try:
            payload = read_reply(answer.asked, message)
        except ChaotianError as error:
            self._progress.refused(send.member, error.code)
            return current.refused(send.member, send.attempt, send.stage, error)
        self._progress.answered(send.member, len(answer.data))
        return current.reply(send.member, send.attempt, send.stage, payload)

    def _send_all(self, current: CoordinatorRound, round_: int, sends: list[Send]) -> None:
        """Put all requests of a stage into envelopes and start them at once on the loop."""
        ready = []
        for send in sends:
            group = f"{round_}.{send.attempt}"
            part = Part(self._job, send.stage, send.request)
            message = stage_message(self._job, self._federation, node_number(send.member), group, part, self._now())
            sealed = seal_stage(
                REQUEST, self._space, self._job, self._platform, send.member, to_bytes(message), self._signer
            )
            self._progress.asked(send.member, send.attempt, send.stage, len(sealed))
            ready.append((send, message, sealed, self._stream(current, send.stage, len(sealed))))
            if len(sealed) > BULK_BYTES:  # megabytes are on their way while the next are put together
                self._loop.call_soon_threadsafe(self._start, round_, ready)
                ready = []
        self._loop.call_soon_threadsafe(self._start, round_, ready)
        self._progress.tell()

    @staticmethod
    def _stream(current: CoordinatorRound, stage: str, size: int) -> str:
        """Replies come back on the request's stream, so that the larger of both decides."""
        terms = current.terms
        if terms is None:
            return "control"
        expected = terms.layout.byte_length if stage == "masked_input" else BYTES_A_PEER * len(terms.roster)
        return "bulk" if max(size, expected) > BULK_BYTES else "control"

    def _start(self, round_: int, ready: list[tuple[Send, Message, bytes, str]]) -> None:
        for send, message, sealed, stream in ready:
            task = self._loop.create_task(self._ask(round_, send, message, sealed, stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, round_: int, send: Send, message: Message, sealed: bytes, stream: str) -> None:
        """Deliver one request; exactly one event comes of it, whatever happens."""
        data, error = b"", None
        try:
            async with asyncio.timeout(self._stage_seconds + SLACK):
                data = await self._hub.request(
                    send.member, STAGE_KIND, sealed, stream=stream, deadline=self._stage_seconds
                )
        except ChaotianError as raised:
            error = raised
        except TimeoutError:
            error = ChaotianError("DEADLINE", member=send.member)
        except asyncio.CancelledError:
            error = ChaotianError("PEER_UNREACHABLE", "the platform is stopping", member=send.member)
            raise
        except Exception:
            error = ChaotianError("INTERNAL", "a stage request could not be sent", member=send.member)
        finally:
            self._events.put(_Answer(round_, send, message, data, error))


def drain(grid: NodeStreamGrid) -> list[asyncio.Task[Any]]:
    """Cancel what is still under way when a job ends, on the loop; return the tasks to be awaited."""
    tasks = list(grid._tasks)
    for task in tasks:
        task.cancel()
    return list(tasks)
