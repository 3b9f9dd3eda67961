"""One job at one member while it runs: the secure sum over the accepted rows, in a thread of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection

from federation.errors import Blame, ChaotianError
from federation.learning.fedavg import FedAvg
from federation.learning.frame import Feature
from federation.learning.model import Model
from federation.primitives.encoding import digest, parse_canonical_json
from federation.primitives.entropy import Entropy
from federation.primitives.signing import Signer, Verifier
from federation.rounds.client_app import guard_mod, make_client_app, run_client_app, timing_mod
from federation.rounds.flower import from_bytes, job_context, node_number, to_bytes
from federation.secure_sum.member import MemberJob
from federation.secure_sum.program import JobView
from federation.secure_sum.terms import Terms
from gateway.audit.events import Event, EventType
from gateway.datasets.book import DatasetBook
from gateway.datasets.schema import Schema
from gateway.grants.book import GrantBook
from gateway.grants.decision import UseRequest
from gateway.jobs import arrays
from gateway.jobs.data import (
    DatasetHistory,
    Gates,
    GrantGate,
    Requester,
    as_bound,
    check_dates,
    entering,
    model_of,
    resolve,
    use_request,
)
from gateway.jobs.document import JobDocument, dataset_name
from gateway.jobs.markers import Gate, Log, SqlMarkers
from gateway.jobs.models import ModelStore
from gateway.jobs.papers import ACCEPTANCE, Acceptance, Binding, open_paper, verify_proposal
from gateway.jobs.plan import Inputs, JobProgram
from gateway.jobs.position import PositionFile
from gateway.jobs.stage import REPLY, REQUEST, open_stage, seal_stage
from gateway.jobs.store import ACCEPT, JobRow, JobStore
from gateway.storage.base import Database

KEY_SECONDS = 1.0  # how long the coordinator's key is not looked up again: six stages of a round take milliseconds
MAX_REFUSALS = 500  # leaves of one run of a job: who asks for nonsense all day must not fill the log
OWN_ROSTER_CHANGES = 1  # losses within a job that the owner proposed over its own data


class Peers(Protocol):
    """The peer book, as far as jobs use it."""

    def approved(self) -> Mapping[str, Verifier]:
        """Return the identity keys of all members that count, this one included."""
        ...

    def approved_in(self, connection: Connection) -> Mapping[str, Verifier]:
        """Return the same as the caller's transaction sees it."""
        ...

    def coordinator(self) -> Verifier:
        """Return the platform's identity key."""
        ...


@dataclass(frozen=True)
class Home:
    """What a running job needs of its node."""

    space: str
    member: str
    platform: str
    signer: Signer
    peers: Peers
    database: Database
    store: JobStore
    log: Log
    grants: GrantBook
    datasets: DatasetBook
    models: ModelStore
    folder: Path
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    entropy: Entropy
    logger: logging.Logger
    requester: Callable[[JobDocument], Requester]


class OwnerGate:
    """Stands in for a grant where the owner of the data proposed the job itself: it has asked itself already."""

    def charge(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Permit."""

    def confirm(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Permit."""


def own_grant(document: JobDocument, member: str) -> str:
    """Return what stands for a grant id where a member proposed the job over its own data: 64 hex digits."""
    return digest("chaotian/own-data/v1", [document.id.encode(), member.encode()]).hex()


def check_types(features: Sequence[Feature], schema: Schema) -> None:
    """Check that a job takes numbers for numbers and categories for categories.

    Levels that look like numbers could be summed as such in a second job, and small levels told apart by that.

    Raises:
        ChaotianError: DATA_TYPE naming the column; DATA_COLUMN.
    """
    for feature in features:
        kind = schema.columns[schema.index(feature.name)].type
        if (kind == "category") != (feature.type == "category"):
            detail = f"column {feature.name} is {kind} here, the job takes it as {feature.type}"
            raise ChaotianError("DATA_TYPE", detail)


def make_program(
    document: JobDocument, datasets: DatasetBook, model: Model | None, snapshots: Sequence[str]
) -> JobProgram:
    """Return the job's program over this member's rows.

    Args:
        model: the one that the job names; see `data.model_of`.
        snapshots: of the datasets in `document.sources`.

    Raises:
        ChaotianError: DATA_* naming the column, NOT_FOUND for the dataset, OVERFLOW, NOT_FINITE.
    """
    plan = document.plan
    columns = list(plan.columns(model))
    frames = []
    for source, snapshot in zip(document.sources, snapshots, strict=True):
        check_types(plan.features(model), datasets.snapshot_schema(snapshot))
        frames.append(datasets.load_for_job(dataset_name(source), columns, snapshot=snapshot))
    test = None
    if document.test:
        held = resolve(datasets, document.test)
        test = datasets.load(held.name, columns, snapshot=held.snapshot)
    return plan.program(Inputs(tuple(frames), members=len(document.members), test=test, model=model))


def check_proposal(row: JobRow, approved: Mapping[str, Verifier], coordinator: Verifier, platform: str) -> None:
    """Check that the proposer signed the job with the key this node approved, whatever key was listed when it came.

    Raises:
        ChaotianError: NOT_APPROVED naming the proposer; SIGNATURE.
    """
    proposer = row.document.proposer
    if proposer != platform and proposer not in approved:
        raise ChaotianError("NOT_APPROVED", f"not approved by this node's owner: {proposer}", member=proposer)
    verify_proposal(row.proposal, coordinator if proposer == platform else approved[proposer])


def verified_acceptances(
    row: JobRow, papers: Mapping[str, bytes], approved: Mapping[str, Verifier]
) -> dict[str, Acceptance]:
    """Return the acceptances of all members of a job, each verified under the key that this node approved.

    Raises:
        ChaotianError: NOT_APPROVED or NOT_ACCEPTED naming the members; SIGNATURE.
    """
    members = row.document.members
    strangers = [name for name in members if name not in approved]
    if strangers:
        raise ChaotianError(
            "NOT_APPROVED", f"not approved by this node's owner: {', '.join(strangers)}", member=strangers[0]
        )
    missing = [name for name in members if name not in papers]
    if missing:
        raise ChaotianError("NOT_ACCEPTED", f"not accepted yet by: {', '.join(missing)}", member=missing[0])
    out = {}
    for name in members:
        acceptance = Acceptance.decode(open_paper(ACCEPTANCE, papers[name], approved[name], name))
        if (acceptance.space, acceptance.job, acceptance.member) != (row.document.space, row.id, name):
            raise ChaotianError("WRONG_TERMS", f"the acceptance of {name} is for something else", member=name)
        check_bindings(row.document, acceptance)
        out[name] = acceptance
    return out


def check_bindings(document: JobDocument, acceptance: Acceptance) -> None:
    """Check that an acceptance is bound to the datasets of the job, in their order; WRONG_TERMS naming the member."""
    if [binding.dataset for binding in acceptance.data] != [dataset_name(source) for source in document.sources]:
        name = acceptance.member
        raise ChaotianError("WRONG_TERMS", f"the acceptance of {name} is for other datasets", member=name)


class RunningJob:
    """One job of this member from its first stage to its end. All work is done in `executor`, one thing at a time.

    Args:
        home: the node.
        job: the job's id.
        ended: called in the worker thread when the job is done or has failed here.
    """

    def __init__(self, home: Home, job: str, ended: Callable[[RunningJob, ChaotianError | None], None]) -> None:
        self.home, self.job = home, job
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"job-{job[:8]}")
        self.began = home.monotonic()
        self.timings: dict[str, float] = {}
        self.sent = self.received = 0
        self.last_error: ChaotianError | None = None
        self.member: MemberJob | None = None
        self.program: JobProgram | None = None
        self._ended = ended
        self._finished = False
        self._refusals = 0
        self._key: Verifier | None = None
        self._key_until = 0.0
        self._markers: SqlMarkers | None = None
        self._positions = PositionFile(home.folder, job)
        timing = timing_mod(home.monotonic, self._timed)
        self._app = make_client_app(self._handle, mods=[guard_mod(), timing])
        self._context = job_context(job, node_number(home.member))

    def __repr__(self) -> str:
        return f"RunningJob({self.job[:12]})"

    # --- questions of the platform (worker thread) -----------------------------------------------------------

    def position(self) -> dict[str, Any]:
        """Return where this member stands in the job: nothing but what every round's status says.

        Raises:
            ChaotianError: why the job cannot run here.
        """
        member, program = self._ready()
        failed = member.failure.code if member.failure else ""
        more = not failed and not program.done()
        return {
            "round": member.round,
            "state_hash": member.state_hash().hex(),
            "layout": program.layout().encode().decode() if more else "",
            "operation": program.operation if more else "",
            "done": program.done(),
            "code": failed,
        }

    def stage(self, envelope: bytes) -> bytes:
        """Answer one stage request in its envelope; a refusal is an answer too.

        Raises:
            ChaotianError: where the envelope itself is wrong; then nothing was looked at.
        """
        home = self.home
        job, body = open_stage(REQUEST, home.space, home.platform, home.member, envelope, self._coordinator())
        if job != self.job:
            raise ChaotianError("MALFORMED", "an envelope names another job")
        reply = to_bytes(run_client_app(self._app, from_bytes(body), self._context))
        self.received, self.sent = self.received + len(envelope), self.sent + len(reply)
        return seal_stage(REPLY, home.space, job, home.member, home.platform, reply, home.signer)

    def arrays(self, envelope: bytes) -> bytes:
        """Take what is offered before a round of a `fedavg` job; return what is needed and where this member stands.

        Raises:
            ChaotianError: WRONG_ARRAYS for arrays that this member would never train on; LOST; MALFORMED.
        """
        home = self.home
        job, body = open_stage(arrays.TAG, home.space, home.platform, home.member, envelope, self._coordinator())
        if job != self.job:
            raise ChaotianError("MALFORMED", "an envelope names another job")
        self.received += len(envelope)
        try:
            member, program = self._ready()
            if not isinstance(program, FedAvg):
                raise ChaotianError("MALFORMED", "this job takes no arrays")
            needs, moved = arrays.take(program, body)
            if moved:
                member.moved()
                self._save_arrays(program)
        except ChaotianError as error:
            self._refused("arrays", error)
            raise
        return arrays.answer(needs, self.position())

    def _coordinator(self) -> Verifier:
        """Return the platform's identity key, from the directory as it was a moment ago at most."""
        now = self.home.monotonic()
        if self._key is None or now >= self._key_until:
            self._key, self._key_until = self.home.peers.coordinator(), now + KEY_SECONDS
        return self._key

    @property
    def over(self) -> bool:
        """Whether the job has come to its end here, and nobody has been told yet."""
        member = self.member
        if member is None or self._finished:
            return False
        awaiting = isinstance(self.program, FedAvg) and self.program.awaiting  # the last arrays are still to come
        return member.failure is not None or (member.program.done() and not awaiting)

    def end(self) -> None:
        """End the job here where the last result ended it: what need not hold up a reply."""
        member = self.member
        if member is not None and self.over:
            self._finished = True
            self._ended(self, member.failure)

    def close(self) -> None:
        """Forget everything private; no stage is answered any more."""
        self.member = self.program = self._markers = None
        self.executor.shutdown(wait=False, cancel_futures=True)

    # --- inside ----------------------------------------------------------------------------------------------

    def _timed(self, job: str, stage: str, seconds: float, received: int, sent: int, code: str) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + seconds

    def _handle(self, job: str, stage: str, request: bytes) -> bytes:
        if job != self.job:
            raise ChaotianError("MALFORMED", "a stage message names another job than its envelope")
        try:
            member, _ = self._ready()
            reply = member.handle(stage, request)
        except ChaotianError as error:
            self._refused(stage, error)
            raise
        except Exception as error:
            # Only its kind is written down: the text of a foreign exception may quote values.
            self.home.logger.error("job %s stage %s: unforeseen %s", job[:12], stage, type(error).__name__)
            raise ChaotianError("INTERNAL") from None
        if stage == "result" and not self._finished:
            self._save_position(member.round, member.snapshot())
            if isinstance(self.program, FedAvg):
                self._save_arrays(self.program)
        return reply

    def _refused(self, stage: str, error: ChaotianError) -> None:
        self.last_error = error
        self.home.logger.warning("job %s stage %s refused: %s", self.job[:12], stage, error)
        if error.blame not in (Blame.POLICY, Blame.INTEGRITY) or self._refusals >= MAX_REFUSALS:
            return
        self._refusals += 1
        payload = {"job": self.job, "stage": stage, "code": error.code, "member": error.member}
        try:
            with self.home.database.begin() as connection:
                self.home.log.append(connection, Event(EventType.ROUND_REFUSED, payload=payload))
        except ChaotianError as failed:
            self.home.logger.warning("a refusal could not be logged: %s", failed)

    def _ready(self) -> tuple[MemberJob, JobProgram]:
        if self.member is None or self.program is None:
            self._build()
        assert self.member is not None
        assert self.program is not None
        return self.member, self.program

    def _build(self) -> None:
        """Build the member's side from what this node itself knows: own directory, approvals, papers, rows."""
        home = self.home
        row = home.store.get(self.job)
        document = row.document
        approved = home.peers.approved()
        check_proposal(row, approved, home.peers.coordinator(), home.platform)
        acceptances = verified_acceptances(row, home.store.papers(self.job, ACCEPT), approved)
        own = acceptances[home.member]
        model = model_of(document, home.models)
        rows, history = entering(document, own.data), DatasetHistory(home.datasets)
        read = document.plan.columns(model)
        check_dates(rows, history, read, document.min_rows)
        program = make_program(document, home.datasets, model, [binding.snapshot for binding in own.data])
        if all(binding.grant == own_grant(document, home.member) for binding in own.data):
            gate: Gate = OwnerGate()
            changes, bounded = OWN_ROSTER_CHANGES, True
        else:
            gate = Gates([self._gate(document, binding, program, read) for binding in own.data])
            changes = min(self._max_roster_changes(document, binding.grant) for binding in own.data)
            bounded = all(self._has_budget(binding.grant) for binding in own.data)
        markers = SqlMarkers(
            member=home.member,
            database=home.database,
            store=home.store,
            log=home.log,
            gate=gate,
            rows=rows,
            history=history,
            columns=lambda: program.columns,
            max_roster_changes=changes,
            # Noise that no budget counts may be next to none.
            exact=document.plan.loss(len(document.members)) is None or not bounded,
            approved=home.peers.approved_in,
            clock=home.clock,
        )
        view = JobView(
            space=document.space,
            job=self.job,
            purpose=document.purpose,
            members={name: approved[name] for name in document.members},
            coordinator=home.peers.coordinator(),
            min_members=document.min_members,
            min_rows=document.min_rows,
            result_to=document.result_to,
            grants={name: acceptance.grant for name, acceptance in acceptances.items()},
            max_roster_changes=changes,
            unverified=not document.plan.verified(document.result_to),
            noise=document.plan.noise(len(document.members)),
        )
        member = MemberJob(
            member=home.member, view=view, signer=home.signer, program=program, markers=markers, entropy=home.entropy
        )
        position = self._latest_position(markers)
        if position is not None:
            member.restore(position)
            if isinstance(program, FedAvg):
                program.resume(self._read_arrays())
        self.member, self.program, self._markers = member, program, markers

    def _gate(self, document: JobDocument, binding: Binding, program: JobProgram, read: Sequence[str]) -> GrantGate:
        """Return what decides each round under one grant; what is the same in every round is put together once."""
        first = use_request(
            document,
            as_bound(self.home.datasets, binding.dataset, binding.snapshot),
            self.home.member,
            self.home.requester(document),
            operation=program.operation,
            columns=program.columns,
            round_=1,
            members=document.members,
            roster_changes=0,
            read=read,
        )

        def request(terms: Terms, roster_changes: int) -> UseRequest:
            return replace(
                first,
                operation=terms.operation,
                columns=program.columns,
                round=terms.round,
                members=terms.members,
                roster_changes=roster_changes,
            )

        return GrantGate(self.home.grants, binding.grant, request)

    def _has_budget(self, grant: str) -> bool:
        with self.home.database.read() as connection:
            return self.home.grants.find(connection, grant).grant.budget is not None

    def _max_roster_changes(self, document: JobDocument, grant: str) -> int:
        """Return how many losses the grant allows in this job: the fewest that any of its operations may have.

        Raises:
            ChaotianError: GRANT_DENIED where it does not cover one of them: better now than in the middle of the job.
        """
        with self.home.database.read() as connection:
            found = self.home.grants.find(connection, grant).grant
        clauses = {operation: found.operation(operation) for operation in document.plan.operations()}
        missing = [operation for operation, clause in clauses.items() if clause is None]
        if missing:
            raise ChaotianError("GRANT_DENIED", f"ops.op: the grant does not cover {', '.join(missing)}")
        return min(clause.max_roster_changes for clause in clauses.values() if clause is not None)

    # --- position on disk ------------------------------------------------------------------------------------

    @property
    def arrays_file(self) -> Path:
        """Where the arrays of a `fedavg` job are kept beside the position, which holds their hash."""
        return self.home.folder / f"{self.job}.arrays"

    def _save_arrays(self, program: FedAvg) -> None:
        temporary = self.arrays_file.with_suffix(".arrays.new")
        try:
            self.home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(program.checkpoint())
            temporary.replace(self.arrays_file)
        except OSError as error:
            self.home.logger.warning("job %s: arrays not written (%s)", self.job[:12], os.strerror(error.errno or 0))

    def _read_arrays(self) -> bytes:
        """Return the arrays on file, nothing where there are none."""
        try:
            return self.arrays_file.read_bytes()
        except OSError:
            return b""

    def _save_position(self, round_: int, snapshot: bytes) -> None:
        """Keep the position without waiting for the disk: the next first marker makes it durable.

        Should it be lost or old, the member starts from the position of the last answered round; should it be
        wrong, its hash is not what the terms say and it is refused.
        """
        try:
            self._positions.save(round_, snapshot)
        except OSError as error:
            self.home.logger.warning("job %s: position not written (%s)", self.job[:12], os.strerror(error.errno or 0))

    def _latest_position(self, markers: SqlMarkers) -> bytes | None:
        """Return the newest of the positions on file and that of the last first marker."""
        kept = markers.position(self.job)
        found = [data for data in self._positions.load() if _round_of(data) > 0]
        return max(found if kept is None else [*found, kept], key=_round_of, default=None)

    def forget_position(self) -> None:
        """Delete the position on file, and the arrays beside it."""
        self._positions.forget()
        self.arrays_file.unlink(missing_ok=True)


def _round_of(position: bytes) -> int:
    try:
        round_ = parse_canonical_json(position, limit=64 << 20)["round"]
        return round_ if type(round_) is int else 0
    except (ChaotianError, TypeError, KeyError):
        return 0
