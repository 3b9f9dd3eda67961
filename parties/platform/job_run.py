"""One run of one job at the platform: a Flower `ServerApp` with `PhaseStrategy` over the grid, in a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.primitives.signing import Signer, Verifier
from federation.rounds.flower import Context, Grid, ServerApp, federation_number, job_context, node_number
from federation.rounds.strategy import Phase, PhaseStrategy
from federation.secure_sum.coordinator import CoordinatorRound, RoundOutcome, RoundPlan, Send
from federation.secure_sum.terms import MIN_ROSTER, Field, Layout
from gateway.jobs.document import JobDocument
from gateway.jobs.progress import Progress
from gateway.transport.grid import NodeStreamGrid, drain
from parties.platform.runs import Run, RunStore

PLATFORM = "platform"
POSITION_SECONDS = 120.0  # a member loads its rows before it can say where it stands
AWAY = ("PEER_UNREACHABLE", "DEADLINE", "LOST", "BACKPRESSURE")


class Requests(Protocol):
    """The hub, as far as runs use it."""

    async def request(
        self, member: str, kind: str, payload: bytes, *, stream: str = "control", deadline: float
    ) -> bytes:
        """Ask a member."""
        ...


@dataclass(frozen=True)
class Position:
    """Where a member says it stands."""

    round: int
    state_hash: str
    layout: str
    operation: str
    done: bool
    code: str

    @classmethod
    def decode(cls, data: bytes, member: str) -> Position:
        """Return the position in a member's reply; anything else is MALFORMED."""
        document = parse_canonical_json(data)
        kinds = {"round": int, "state_hash": str, "layout": str, "operation": str, "done": bool, "code": str}
        if not isinstance(document, dict) or set(document) != set(kinds):
            raise ChaotianError("MALFORMED", "expected a position in the job", member=member)
        if any(type(document[name]) is not kind for name, kind in kinds.items()):
            raise ChaotianError("MALFORMED", "expected a position in the job", member=member)
        return cls(**document)


def majority(positions: Mapping[str, Position], least: int) -> tuple[Position, tuple[str, ...]]:
    """Return the furthest position held by at least `least` members, and who holds it.

    Further rounds win: a round that was released is behind everybody who took part in it, and whoever did not is out.

    Raises:
        ChaotianError: STATE_MISMATCH where no position is held by enough members.
    """
    groups: dict[Position, list[str]] = {}
    for name, position in positions.items():
        groups.setdefault(position, []).append(name)
    enough = [(position, names) for position, names in groups.items() if len(names) >= least]
    if not enough:
        raise ChaotianError("STATE_MISMATCH", "too few members stand at the same place of the job to go on")
    position, names = max(enough, key=lambda entry: (entry[0].round, len(entry[1])))
    return position, tuple(sorted(names))


class JobRun:
    """One start of a job, until it is done, fails or is cancelled.

    Args:
        document: the job.
        hub, loop: how members are reached.
        signer: the platform's identity key.
        keys: identity keys of the job's members.
        grants: the grant each member accepted under.
        runs: where checkpoints go.
        progress: what is watched.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        document: JobDocument,
        *,
        hub: Requests,
        loop: asyncio.AbstractEventLoop,
        signer: Signer,
        keys: Mapping[str, Verifier],
        grants: Mapping[str, str],
        runs: RunStore,
        progress: Progress,
        now: Callable[[], float],
        logger: logging.Logger,
    ) -> None:
        self.document, self.job = document, document.id
        self.progress = progress
        self._hub, self._loop, self._signer, self._keys, self._grants = hub, loop, signer, keys, grants
        self._runs, self._now, self._logger = runs, now, logger
        self._journal = runs.journal(self.job)
        self._run: Run | None = None
        self._members: tuple[str, ...] = ()
        self._position: Position | None = None
        self._resume: bytes | None = None
        self._grid: NodeStreamGrid | None = None
        self._cancelled = ""

    # --- from outside, on the loop ---------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Find out where the job stands; nothing is released by it.

        Raises:
            ChaotianError: why it cannot start, naming the member where it is one.
        """
        await asyncio.to_thread(self._begin)
        if self._resume is None:
            await self._find_position()

    async def run(self) -> None:
        """Run the prepared job to its end.

        Raises:
            ChaotianError: the code it ended with.
        """
        try:
            await asyncio.to_thread(self._serve)
        finally:
            if self._grid is not None:
                await asyncio.gather(*drain(self._grid), return_exceptions=True)
            self.progress.end()

    def cancel(self, code: str = "CANCELLED") -> None:
        """End the run; safe from any thread."""
        self._cancelled = code
        if self._grid is not None:
            self._grid.cancel(code)

    async def forget(self) -> None:
        """Delete what could finish a round: the job is over."""
        await asyncio.to_thread(self._journal.forget)

    # --- where the job stands ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._run = self._runs.begin(self.job, self.document.members)
        self._members, self._resume = self._run.members, self._run.journal

    async def _find_position(self) -> None:
        """Ask the members where they stand: they derive every step, the checkpoint only says who is still in."""
        payload = canonical_json({"job": self.job})

        async def ask(member: str) -> bytes:
            return await self._hub.request(member, "job.position", payload, deadline=POSITION_SECONDS)

        replies = await asyncio.gather(*(ask(name) for name in self._members), return_exceptions=True)
        positions: dict[str, Position] = {}
        for member, reply in zip(self._members, replies, strict=True):
            try:
                if isinstance(reply, BaseException):
                    raise reply
                positions[member] = Position.decode(reply, member)
            except ChaotianError as error:
                self.note_absent(member, error)
                if error.code not in AWAY and self._run is not None and self._run.phase.round == 0:
                    # Before anything was released a member's reason is everybody's: it needs a person, not a retry.
                    raise ChaotianError(error.code, error.detail, hint=error.hint, member=member) from None
        self.take_positions(positions)

    def note_absent(self, member: str, error: ChaotianError) -> None:
        """Note why a member does not say where it stands."""
        self._logger.warning("job %s: %s cannot take part: %s", self.job[:12], member, error)
        self.progress.losses.append(
            {"round": self.progress.round, "member": member, "attempt": 0, "stage": "position", "code": error.code}
        )

    def take_positions(self, positions: Mapping[str, Position]) -> None:
        """Go on from the furthest position that enough members share.

        Raises:
            ChaotianError: TOO_FEW_MEMBERS, STATE_MISMATCH, or the code that the job ended with there.
        """
        floor = max(MIN_ROSTER, self.document.min_members)
        if len(positions) < floor:
            raise ChaotianError("TOO_FEW_MEMBERS", f"{len(positions)} members can take part, {floor} are needed")
        self._position, self._members = majority(positions, floor)
        if self._position.code:
            raise ChaotianError(self._position.code)

    # --- Flower, in a thread -----------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Run the ServerApp; raises the code the job ended with."""
        first = self._first_phase()
        if first.done:
            return
        grid = self._grid = NodeStreamGrid(rounds=self, **self._grid_settings())
        strategy = PhaseStrategy(
            self.job,
            federation=federation_number(self.document.space),
            source=node_number(PLATFORM),
            max_rounds=self.document.plan.max_rounds,
            checkpoint=self._checkpoint,
            now=self._now,
            first=first,
        )
        app = ServerApp()

        def main(grid: Grid, context: Context) -> None:
            strategy.start(grid=grid, timeout=self._round_seconds)

        self._run_app(app, main, grid)

    def _run_app(self, app: ServerApp, main: Callable[[Grid, Context], None], grid: Grid) -> None:
        app.main()(main)
        if self._cancelled:
            raise ChaotianError(self._cancelled)
        app(grid, job_context(self.job, node_number(PLATFORM)))

    @property
    def _round_seconds(self) -> float:
        """What a round may take: its six stages, a few times over."""
        return 8 * 6 * self.document.stage_seconds

    def _grid_settings(self) -> dict[str, Any]:
        """Return what the grid of any kind of job needs."""
        return {
            "space": self.document.space,
            "job": self.job,
            "loop": self._loop,
            "hub": self._hub,
            "signer": self._signer,
            "platform": PLATFORM,
            "keys": self._keys,
            "stage_seconds": self.document.stage_seconds,
            "progress": self.progress,
            "now": self._now,
        }

    def _first_phase(self) -> Phase:
        assert self._run is not None
        if self._resume is not None or self._position is None:
            return self._run.phase
        position = self._position
        return Phase(position.round - 1, position.state_hash, position.layout, position.done)

    # --- the grid's `Rounds` -------------------------------------------------------------------------------------

    def members(self) -> tuple[str, ...]:
        """Return who takes part in the next round."""
        return self._members

    def open(self, round_: int) -> tuple[CoordinatorRound, list[Send]]:
        """Return the next round, begun; or the one that was in unmask when the platform went down."""
        if self._cancelled:
            raise ChaotianError(self._cancelled)
        record, self._resume = self._resume, None
        if record is not None:
            current = self._round(_placeholder(self.document, round_, self._members, self._grants))
            return current, current.resume(record)
        assert self._run is not None
        assert self._position is not None
        document, position = self.document, self._position
        plan = RoundPlan(
            space=document.space,
            job=self.job,
            round=round_,
            operation=position.operation,
            purpose=document.purpose,
            layout=Layout.decode(position.layout.encode()),
            state_hash=bytes.fromhex(position.state_hash),
            members=self._members,
            min_members=document.min_members,
            min_rows=document.min_rows,
            grants=self._grants,
            result_to=document.result_to,
            verified=document.plan.verified(document.result_to),
            noise=document.plan.noise(len(document.members)),
            first_attempt=self._run.first_attempt,
        )
        current = self._round(plan)
        return current, current.begin()

    def _round(self, plan: RoundPlan) -> CoordinatorRound:
        return CoordinatorRound(plan, signer=self._signer, members=self._keys, journal=self._journal)

    def closed(self, round_: int, outcome: RoundOutcome) -> None:
        """Take over who is left and what comes next."""
        if outcome.error:
            return
        self._members = outcome.survivors
        layout = outcome.layout.encode().decode() if outcome.layout is not None else ""
        self._position = Position(
            round_ + 1, outcome.state_hash.hex(), layout, outcome.operation, outcome.progress == "done", ""
        )

    def _checkpoint(self, phase: Phase) -> None:
        assert self._position is not None
        self._runs.checkpoint(self.job, phase, self._members, self._position.operation)


def _placeholder(document: JobDocument, round_: int, members: tuple[str, ...], grants: Mapping[str, str]) -> RoundPlan:
    """Return the plan of a round that goes on at unmask: its terms are in the journal and no new attempt can follow."""
    return RoundPlan(
        space=document.space,
        job=document.id,
        round=round_,
        operation="resumed",
        purpose=document.purpose,
        layout=Layout(64, (Field("resumed", 1, 0, 1),), len(document.members)),
        state_hash=bytes(32),
        members=members,
        min_members=document.min_members,
        min_rows=document.min_rows,
        grants=grants,
        result_to=document.result_to,
    )
