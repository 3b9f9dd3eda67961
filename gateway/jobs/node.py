"""Federated jobs at a node: papers in and out, its owner's decisions, and the running of what was accepted.

The platform carries papers and asks for stages. Everything is decided here: on the node's own directory and
approvals, its own copy of the papers, its own grants and rows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json, unpack, unpack_views
from federation.primitives.entropy import Entropy
from federation.primitives.signing import Signer, Verifier
from gateway.audit.events import Event, EventType
from gateway.datasets.book import DatasetBook
from gateway.grants.book import GrantBook
from gateway.grants.decision import UseRequest
from gateway.jobs import states
from gateway.jobs.arrays import TAG
from gateway.jobs.data import (
    DatasetHistory,
    Requester,
    check_dates,
    entering,
    model_of,
    resolve,
)
from gateway.jobs.document import JobDocument, from_toml
from gateway.jobs.granting import Granting
from gateway.jobs.lookups import lookups_of
from gateway.jobs.member import (
    Home,
    Peers,
    RunningJob,
    check_bindings,
    check_proposal,
    make_program,
    verified_acceptances,
)
from gateway.jobs.models import ModelStore
from gateway.jobs.papers import (
    ACCEPTANCE,
    CANCELLATION,
    CONSENT,
    Acceptance,
    Binding,
    Bundle,
    Cancellation,
    Consent,
    body_of,
    open_paper,
    propose,
    proposed,
    verify_proposal,
)
from gateway.jobs.preview import preview
from gateway.jobs.stage import REQUEST
from gateway.jobs.store import ACCEPT, CANCEL, JobRow, JobStore
from gateway.jobs.store import CONSENT as CONSENTS
from gateway.storage.base import Database

PLATFORM = "platform"
ASK_SECONDS = 20.0
WATCH_SECONDS = 0.4  # between two looks at the platform's progress, for people
MAX_RUNNING = 16

# Errors whose text names members, papers, models or apps and nothing of the rows: they may be told to the platform.
NAMES_ONLY = frozenset({"APP_UNKNOWN", "MODEL_MISSING", "NOT_ACCEPTED", "NOT_APPROVED", "SIGNATURE", "WRONG_TERMS"})


class Link(Protocol):
    """The connection to the platform, as far as jobs use it."""

    async def request(self, kind: str, payload: bytes, *, stream: str = "control", deadline: float) -> bytes:
        """Ask the platform."""
        ...

    def on(self, kind: str, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer the platform's requests of a kind."""
        ...


class Directory(Peers, Protocol):
    """The peer book with its listings: member → entry with role and identity key, approved or not."""

    def listings(self) -> Mapping[str, Any]:
        """Return all listings."""
        ...


class Identity(Protocol):
    """Who this node is."""

    @property
    def space(self) -> str: ...
    @property
    def member(self) -> str: ...
    @property
    def signer(self) -> Signer: ...


class AuditLog(Protocol):
    """The log, as far as jobs use it."""

    def append(self, connection: Any, event: Event) -> int:
        """Add one leaf in the caller's transaction."""
        ...


class NodeJobs:
    """All jobs of one node.

    Args:
        identity: who this node is.
        peers: its own directory and approvals.
        link: the connection to the platform.
        database, log, grants, datasets, models: of the home.
        folder: where positions of running jobs are kept, HOME/jobs.
        clock: seconds since the epoch, UTC.
        monotonic: seconds, for durations.
        entropy: source of randomness.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        peers: Directory,
        link: Link,
        database: Database,
        log: AuditLog,
        grants: GrantBook,
        datasets: DatasetBook,
        models: ModelStore,
        folder: Path,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        entropy: Entropy,
        logger: logging.Logger,
    ) -> None:
        self.store = JobStore(database, clock)
        self._identity, self._peers, self._link, self._database = identity, peers, link, database
        self._log, self._grants, self._datasets, self._models = log, grants, datasets, models
        self._clock, self._entropy, self._logger = clock, entropy, logger
        self._running: dict[str, RunningJob] = {}
        self._home = Home(
            space=identity.space,
            member=identity.member,
            platform=PLATFORM,
            signer=identity.signer,
            peers=peers,
            database=database,
            store=self.store,
            log=log,
            grants=grants,
            datasets=datasets,
            models=models,
            folder=folder,
            clock=clock,
            monotonic=monotonic,
            entropy=entropy,
            logger=logger,
            requester=self._requester,
        )

        self._granting = Granting(self._home)

    @property
    def member(self) -> str:
        """This node's member."""
        return self._identity.member

    def register(self) -> None:
        """Register the handlers for the platform's requests."""
        self._link.on("job.bundle", self.on_bundle)
        self._link.on("job.position", self.on_position)
        self._link.on("job.stage", self.on_stage)
        self._link.on("job.arrays", self.on_arrays)

    async def start(self) -> None:
        """Nothing to start: running jobs are built when the platform asks for their first stage."""

    async def stop(self) -> None:
        """Forget what is running; its position is on disk."""
        for running in list(self._running.values()):
            running.close()
        self._running.clear()

    # --- keys ------------------------------------------------------------------------------------------------

    def _key(self, member: str) -> Verifier:
        """Return the identity key of a member from this node's own directory, approved or not."""
        if member == PLATFORM:
            return self._peers.coordinator()
        listing = self._peers.listings().get(member)
        if listing is None:
            raise ChaotianError("NOT_FOUND", f"{member} is not in this node's directory", member=member)
        key = listing.entry.identity_key
        return key if isinstance(key, Verifier) else Verifier(key)

    def _requester(self, document: JobDocument) -> Requester:
        if document.proposer == PLATFORM:
            return Requester(PLATFORM, PLATFORM, self._peers.coordinator().fingerprint.hex())
        listing = self._peers.listings().get(document.proposer)
        if listing is None:
            raise ChaotianError("NOT_FOUND", f"{document.proposer} is not in this node's directory")
        return Requester(document.proposer, listing.entry.role, self._key(document.proposer).fingerprint.hex())

    # --- asked by the platform -------------------------------------------------------------------------------

    async def on_bundle(self, payload: bytes) -> bytes:
        """Take the papers of a job; answer with what the platform lacks: this member's own acceptance and consent."""
        bundle = Bundle.decode(payload)
        job = await asyncio.to_thread(self._take_bundle, bundle)
        running = self._running.get(job)
        if running is not None and bundle.state in states.ENDED:
            # Behind whatever the job is still doing: its last result may be at hand.
            await asyncio.get_running_loop().run_in_executor(running.executor, self._platform_ended, job, bundle)
        elif bundle.state in states.ENDED:
            await asyncio.to_thread(self._platform_ended, job, bundle)
        return await asyncio.to_thread(self._own_papers, job, bundle)

    def _take_bundle(self, bundle: Bundle) -> str:
        """Verify and store the papers of a bundle; a paper that does not verify is left out and reported."""
        document, faults = self._take_proposal(bundle.proposal), []
        job = document.id
        with self._database.begin() as connection:
            if not self.store.known(connection, job):
                self.store.check_room(connection)
            if self.store.add(connection, bundle.proposal):
                self._append(connection, EventType.JOB_PROPOSED, document, {"proposer": document.proposer})
        for kind, papers, check in (
            (ACCEPT, bundle.acceptances, self._check_acceptance),
            (CONSENTS, bundle.consents, self._check_consent),
        ):
            for member, paper in papers.items():
                if member == self.member:
                    continue  # this node's own words are its own copy: an older one that comes back says nothing
                try:
                    check(document, member, paper)
                except ChaotianError as error:
                    faults.append(error)
                    continue
                with self._database.begin() as connection:
                    self.store.put(connection, job, kind, member, paper)
        if bundle.cancellation:
            self._take_cancellation(document, bundle.cancellation)
        elif bundle.state == states.RUNNING and self.store.get(job).state == states.ACCEPTED:
            with self._database.begin() as connection:
                self.store.follow(connection, job, "start")
                self._append(connection, EventType.JOB_STARTED, document, {})
        if faults:
            self._logger.warning("job %s: %d papers left out: %s", job[:12], len(faults), faults[0])
            raise faults[0]
        return job

    def _take_proposal(self, paper: bytes) -> JobDocument:
        document = proposed(paper)
        verify_proposal(paper, self._key(document.proposer))
        if document.space != self._identity.space or self.member not in {*document.concerned, document.proposer}:
            raise ChaotianError("NOT_PERMITTED", "the job does not concern this member")
        return document

    def _check_acceptance(self, document: JobDocument, member: str, paper: bytes) -> None:
        acceptance = Acceptance.decode(open_paper(ACCEPTANCE, paper, self._key(member), member))
        named = (acceptance.space, acceptance.job, acceptance.member)
        if named != (document.space, document.id, member) or member not in document.members:
            raise ChaotianError("WRONG_TERMS", f"the acceptance of {member} is for something else", member=member)
        check_bindings(document, acceptance)

    def _check_consent(self, document: JobDocument, member: str, paper: bytes) -> None:
        consent = Consent.decode(open_paper(CONSENT, paper, self._key(member), member))
        named = (consent.space, consent.job, consent.member)
        if named != (document.space, document.id, member) or member not in document.concerned:
            raise ChaotianError("WRONG_TERMS", f"the consent of {member} is for something else", member=member)

    def _take_cancellation(self, document: JobDocument, paper: bytes) -> None:
        member = Cancellation.decode(body_of(CANCELLATION, paper)).member
        cancellation = Cancellation.decode(open_paper(CANCELLATION, paper, self._key(member), member))
        if (cancellation.space, cancellation.job) != (document.space, document.id):
            raise ChaotianError("WRONG_TERMS", "the cancellation is for another job", member=member)
        if member not in {*document.members, document.proposer, PLATFORM}:
            raise ChaotianError("NOT_PERMITTED", f"{member} may not cancel this job", member=member)
        self._cancelled(document, member, paper)

    def _cancelled(self, document: JobDocument, member: str, paper: bytes) -> None:
        job = document.id
        if self.store.get(job).state not in states.OPEN:
            return
        with self._database.begin() as connection:
            self.store.put(connection, job, CANCEL, member, paper)
            self.store.follow(connection, job, "cancel", code="CANCELLED", detail=f"by {member}")
            self._append(connection, EventType.JOB_CANCELLED, document, {"by": member})
        self._drop(job)

    def _platform_ended(self, job: str, bundle: Bundle) -> None:
        """Take the platform's word that the job is over, where this member has not seen its end itself."""
        try:
            self._take_end(job, bundle)
        finally:
            self._drop(job)

    def _take_end(self, job: str, bundle: Bundle) -> None:
        row = self.store.get(job)
        if row.state not in states.OPEN or bundle.state == states.CANCELLED:
            return
        if row.state == states.PROPOSED:
            with self._database.begin() as connection:
                self.store.follow(connection, job, "cancel", code=bundle.code or "CANCELLED", detail="it ended without")
            return
        code = bundle.code if bundle.state == states.FAILED and bundle.code else "LOST"
        running = self._running.get(job)
        detail = ""
        if running is not None and running.last_error is not None:
            detail = running.last_error.detail
            code = running.last_error.code if code == "LOST" else code
        self._fail(row, ChaotianError(code, detail))

    def _own_papers(self, job: str, bundle: Bundle) -> bytes:
        """Return this member's own papers where the platform's copy is not the newest one."""
        acceptance = self.store.papers(job, ACCEPT).get(self.member, b"")
        consent = self.store.papers(job, CONSENTS).get(self.member, b"")
        missing = {
            "acceptance": acceptance.hex() if acceptance != bundle.acceptances.get(self.member, b"") else "",
            "consent": consent.hex() if consent != bundle.consents.get(self.member, b"") else "",
        }
        return canonical_json(missing)

    async def on_position(self, payload: bytes) -> bytes:
        """Answer where this member stands in a job, building it where it does not run yet."""
        request = parse_canonical_json(payload, limit=1024)
        if not isinstance(request, dict) or set(request) != {"job"} or not isinstance(request["job"], str):
            raise ChaotianError("MALFORMED", "expected the id of a job")
        running = await self._runner(request["job"])
        return canonical_json(await self._ask(running, running.position))

    async def on_stage(self, payload: bytes) -> bytes:
        """Answer one stage of a round, in the job's own thread."""
        try:
            job = unpack(REQUEST, payload, 3)[0].decode("ascii")
        except UnicodeDecodeError:
            raise ChaotianError("MALFORMED", "an envelope names its job in ASCII") from None
        running = await self._runner(job)
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(running.executor, running.stage, payload)
        if running.over:
            running.executor.submit(running.end)
        return reply

    async def on_arrays(self, payload: bytes) -> bytes:
        """Take what a `fedavg` job offers before a round, in the job's own thread."""
        try:
            job = bytes(unpack_views(TAG, payload, 3)[0]).decode("ascii")
        except UnicodeDecodeError:
            raise ChaotianError("MALFORMED", "an envelope names its job in ASCII") from None
        running = await self._runner(job)
        reply: bytes = await self._ask(running, running.arrays, payload)
        if running.over:
            running.executor.submit(running.end)
        return reply

    async def _ask(self, running: RunningJob, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do something in the job's own thread; of what goes wrong there, texts that may speak of rows stay here."""
        try:
            return await asyncio.get_running_loop().run_in_executor(running.executor, work, *arguments)
        except ChaotianError as error:
            self._home.logger.warning("job %s: %s", running.job[:12], error)
            if error.code in NAMES_ONLY:
                raise
            raise ChaotianError(error.code, member=error.member) from None

    async def _runner(self, job: str) -> RunningJob:
        running = self._running.get(job)
        if running is None:
            await asyncio.to_thread(self._check_runnable, job)
            await asyncio.to_thread(self._drop_ended)
            if len(self._running) >= MAX_RUNNING and job not in self._running:
                raise ChaotianError("BACKPRESSURE", f"{MAX_RUNNING} jobs run at this node already")
            running = self._running.setdefault(job, RunningJob(self._home, job, self._ended))
        return running

    def _drop_ended(self) -> None:
        """Make room where the platform never said that a job is over."""
        if len(self._running) >= MAX_RUNNING:
            for job in list(self._running):
                if self.store.get(job).state in states.ENDED:
                    self._drop(job)

    def _check_runnable(self, job: str) -> None:
        row = self.store.get(job)
        if row.state == states.CANCELLED:
            raise ChaotianError("CANCELLED", "this job was cancelled")
        if row.state in states.ENDED:
            raise ChaotianError("LOST", f"this job is {row.state} at this member")
        if row.state == states.PROPOSED:
            raise ChaotianError("NOT_ACCEPTED", "this member has not accepted the job", member=self.member)

    # --- the end of a job (worker thread) ----------------------------------------------------------------------

    def _ended(self, running: RunningJob, failure: ChaotianError | None) -> None:
        row = self.store.get(running.job)
        if row.state not in states.OPEN:
            return
        try:
            if failure is not None:
                self._fail(row, failure)
            else:
                self._finish(row, running)
        except ChaotianError as error:
            self._logger.error("job %s: its end could not be stored: %s", row.id[:12], error)
            raise

    def _finish(self, row: JobRow, running: RunningJob) -> None:
        """Keep what the job gave, with the figures on the own rows that stay here, and close it."""
        assert running.program is not None
        assert running.member is not None
        seconds = self._home.monotonic() - running.began
        outcome = row.document.plan.outcome(running.program, row.id)
        result: dict[str, Any] = {
            "kind": row.document.kind,
            "rounds": running.member.round - 1,
            "seconds": round(seconds, 3),
            "bytes": {"sent": running.sent, "received": running.received},
            "roster": json.loads(running.member.snapshot())["last_roster"],
        }
        finished: dict[str, Any] = {"rounds": result["rounds"]}
        if outcome.model is not None:
            result["model"] = self._models.save(outcome.model)
            result["holdout"] = dict(outcome.own)
            result["training"] = dict(outcome.model.document["training"])
        if outcome.arrays and outcome.result is not None:
            result["arrays"] = self._models.save_arrays(str(outcome.result["arrays"]), outcome.arrays)
        if outcome.result is not None:
            result["result"], result["own"] = dict(outcome.result), dict(outcome.own)
            finished["result"] = hashlib.sha256(canonical_json(result["result"])).hexdigest()
        with self._database.begin() as connection:
            self._to_running(connection, row)
            self.store.follow(connection, row.id, "finish")
            self.store.set(connection, row.id, result=json.dumps(result))
            if outcome.model is not None:
                self._append(connection, EventType.MODEL_STORED, row.document, {"model": result["model"]})
            self._append(connection, EventType.JOB_FINISHED, row.document, finished)
        running.forget_position()  # the answers stay until the platform says that it has them

    def _fail(self, row: JobRow, failure: ChaotianError) -> None:
        with self._database.begin() as connection:
            self._to_running(connection, row)
            self.store.follow(connection, row.id, "fail", code=failure.code, detail=failure.detail)
            self._append(connection, EventType.JOB_FAILED, row.document, {"code": failure.code})

    def _to_running(self, connection: Any, row: JobRow) -> None:
        """A member that the news of the start has not reached may see the end first."""
        if row.state == states.ACCEPTED:
            self.store.follow(connection, row.id, "start")

    def _drop(self, job: str) -> None:
        running = self._running.pop(job, None)
        if running is not None:
            running.close()
            running.forget_position()

    def _append(self, connection: Any, kind: EventType, document: JobDocument, payload: dict[str, Any]) -> None:
        values = {"job": document.id, **payload}
        self._log.append(
            connection, Event(kind, document.concerned, exchange=bytes.fromhex(document.id), payload=values)
        )

    # --- asked by the owner ------------------------------------------------------------------------------------

    async def propose(self, text: str) -> dict[str, Any]:
        """Propose the job written in TOML; the platform hands it to everybody concerned."""
        document = await asyncio.to_thread(
            from_toml,
            text.encode(),
            space=self._identity.space,
            proposer=self.member,
            nonce=self._entropy.bytes(16).hex(),
            created=int(self._clock()),
            lookups=lookups_of(self._datasets, self._models, self.store),
        )
        paper = propose(document, self._identity.signer)
        await self._link.request("job.propose", paper, deadline=ASK_SECONDS)
        await asyncio.to_thread(self._store_own, document, paper)
        return {"id": document.id, "state": states.PROPOSED, "members": list(document.members)}

    def _store_own(self, document: JobDocument, paper: bytes) -> None:
        with self._database.begin() as connection:
            if self.store.add(connection, paper):
                self._append(connection, EventType.JOB_PROPOSED, document, {"proposer": self.member})

    async def fetch(self) -> bool:
        """Ask the platform for the papers of all jobs that concern this member; return whether it answered."""
        try:
            await self._link.request("job.fetch", b"", deadline=5.0)
        except ChaotianError:
            return False
        return True

    def show(self, prefix: str) -> dict[str, Any]:
        """Return a job with what would leave this node, and what still stands in its way."""
        row = self.store.find(prefix)
        document = row.document
        out = row.summary() | {
            "title": document.plan.title,
            "document": document.document(),
            "detail": row.detail,
            "accepted": sorted(self.store.papers(row.id, ACCEPT)),
            "consented": sorted(self.store.papers(row.id, CONSENTS)),
            "grant": "",
            "obstacles": [],
        }
        if self.member not in document.members:
            return out
        obstacles = []
        out["leaves"], out["columns"] = None, []
        try:
            self._show_data(document, out)
        except ChaotianError as error:
            obstacles.append(error)
        for check in (self._check_approved, self._granting.first):
            try:
                out["grant"] = check(row) or out["grant"]
            except ChaotianError as error:
                if error.code not in [known.code for known in obstacles]:
                    obstacles.append(error)
        out["obstacles"] = [{"code": e.code, "detail": e.detail, "hint": e.hint} for e in obstacles]
        return out

    def _show_data(self, document: JobDocument, out: dict[str, Any]) -> None:
        """Put into `out` which columns are read of which data, and what would leave."""
        model = model_of(document, self._models)
        out["columns"] = [feature.document() for feature in document.plan.features(model)]
        datasets = [resolve(self._datasets, source) for source in document.sources]
        out["dataset"] = datasets[0].document()
        out["datasets"] = [dataset.document() for dataset in datasets]
        program = make_program(document, self._datasets, model, [dataset.snapshot for dataset in datasets])
        out["leaves"] = preview(document, program.layout(), model)

    def _check_approved(self, row: JobRow) -> str:
        approved = self._peers.approved()
        needed = [*row.document.members, row.document.proposer]
        missing = sorted({name for name in needed if name not in approved and name != PLATFORM})
        if missing:
            raise ChaotianError(
                "NOT_APPROVED", f"not approved by this node's owner: {', '.join(missing)}", member=missing[0]
            )
        check_proposal(row, approved, self._peers.coordinator(), PLATFORM)
        return ""

    def requests_of(self, prefix: str) -> list[UseRequest]:
        """Return what each operation of a job asks of this node's grant; for `grant explain`."""
        row = self.store.find(prefix)
        return self._granting.requests(row, resolve(self._datasets, row.document.dataset))

    async def accept(self, prefix: str, *, exposure_consent: bool = False, grant: str = "") -> dict[str, Any]:
        """Accept a job: signed, bound to the present rows of the dataset and to a grant; sent to the platform."""
        row, paper = await asyncio.to_thread(self._accept, prefix, exposure_consent, grant)
        return await self._tell("job.accept", row.id, paper)

    def _accept(self, prefix: str, exposure_consent: bool, grant: str) -> tuple[JobRow, bytes]:
        row = self.store.find(prefix)
        document = row.document
        if self.member not in document.members:
            raise ChaotianError("NOT_PERMITTED", "this member does not take part", hint="See `chaotian job consent`.")
        states.follow(row.state, "accept")
        self._check_approved(row)
        model = model_of(document, self._models)
        datasets = [resolve(self._datasets, source) for source in document.sources]
        data = tuple(
            Binding(dataset.name, dataset.snapshot, self._granting.choose(row, dataset, grant)) for dataset in datasets
        )
        # What would stop the job in its middle stops it now.
        make_program(document, self._datasets, model, [dataset.snapshot for dataset in datasets])
        columns = document.plan.columns(model)
        check_dates(entering(document, data), DatasetHistory(self._datasets), columns, document.min_rows)
        acceptance = Acceptance(
            space=document.space,
            job=row.id,
            member=self.member,
            data=data,
            exposure_consent=exposure_consent,
            accepted=int(self._clock()),
        )
        paper = acceptance.sign(self._identity.signer)
        with self._database.begin() as connection:
            self.store.put(connection, row.id, ACCEPT, self.member, paper)
            self.store.follow(connection, row.id, "accept")
            payload = {"data": [vars(binding) for binding in data], "exposure_consent": exposure_consent}
            self._append(connection, EventType.JOB_ACCEPTED, document, payload)
            if exposure_consent:
                self._append(connection, EventType.EXPOSURE_CONSENTED, document, {})
        return row, paper

    async def consent(self, prefix: str) -> dict[str, Any]:
        """Consent to being exposed by a job's results beside earlier ones."""
        row, paper = await asyncio.to_thread(self._consent, prefix)
        return await self._tell("job.consent", row.id, paper)

    def _consent(self, prefix: str) -> tuple[JobRow, bytes]:
        row = self.store.find(prefix)
        if self.member not in row.document.concerned:
            raise ChaotianError("NOT_PERMITTED", "this member is not concerned by the job")
        if row.state not in states.OPEN:
            raise ChaotianError("JOB_STATE", f"the job is {row.state}")
        paper = Consent(row.document.space, row.id, self.member, int(self._clock())).sign(self._identity.signer)
        with self._database.begin() as connection:
            self.store.put(connection, row.id, CONSENTS, self.member, paper)
            self._append(connection, EventType.EXPOSURE_CONSENTED, row.document, {})
        return row, paper

    async def cancel(self, prefix: str) -> dict[str, Any]:
        """End a job for everybody; this node answers nothing of it any more, even where the platform is away."""
        row = await asyncio.to_thread(self.store.find, prefix)
        states.follow(row.state, "cancel")
        paper = Cancellation(row.document.space, row.id, self.member, int(self._clock())).sign(self._identity.signer)
        await asyncio.to_thread(self._cancelled, row.document, self.member, paper)
        return await self._tell("job.cancel", row.id, paper)

    async def start_job(self, prefix: str, kind: str = "job.start") -> dict[str, Any]:
        """Ask the platform to start (or resume) a job this member proposed."""
        row = await asyncio.to_thread(self.store.find, prefix)
        await self._link.request(kind, canonical_json({"job": row.id}), deadline=60.0)
        return {"id": row.id, "state": states.RUNNING}

    async def _tell(self, kind: str, job: str, paper: bytes) -> dict[str, Any]:
        """Send a paper to the platform; where it is away, it gets the paper when it next asks for bundles."""
        delivered = True
        try:
            await self._link.request(kind, paper, deadline=ASK_SECONDS)
        except ChaotianError as error:
            if error.code not in ("PLATFORM_UNREACHABLE", "DEADLINE", "BACKPRESSURE"):
                raise
            delivered = False
        row = await asyncio.to_thread(self.store.get, job)
        return {"id": job, "state": row.state, "delivered": delivered}

    async def progress(self, prefix: str) -> dict[str, Any]:
        """Return the platform's progress of a job beside this node's own state of it."""
        row = await asyncio.to_thread(self.store.find, prefix)
        data = await self._link.request("job.progress", canonical_json({"job": row.id}), deadline=ASK_SECONDS)
        try:
            seen = json.loads(data)
            if not isinstance(seen, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise ChaotianError("MALFORMED", "the platform answered with something else than progress") from None
        row = await asyncio.to_thread(self.store.get, row.id)
        return {**seen, "own": {"state": row.state, "code": row.code, "detail": row.detail}}

    def result(self, prefix: str) -> dict[str, Any]:
        """Return what a finished job brought this member.

        Raises:
            ChaotianError: JOB_STATE while there is none, the job's own code where it failed.
        """
        row = self.store.find(prefix)
        if row.state in (states.FAILED, states.CANCELLED):
            raise ChaotianError(row.code or "CANCELLED", row.detail)
        if row.result is None:
            raise ChaotianError("JOB_STATE", f"the job is {row.state}: there is no result yet")
        return {"id": row.id, "state": row.state, **row.result}

    def arrays(self, prefix: str) -> bytes:
        """Return the trained arrays of a finished `fedavg` job as an .npz file.

        Raises:
            ChaotianError: as `result`; NOT_FOUND where the job has none.
        """
        found = self.result(prefix)
        if "arrays" not in found:
            raise ChaotianError("NOT_FOUND", "the job trained no arrays")
        return self._models.arrays(str(found["result"]["arrays"]))

    def check_papers(self, prefix: str) -> None:
        """Raise what would keep a job from running here: unapproved members, missing or wrong acceptances."""
        row = self.store.find(prefix)
        verified_acceptances(row, self.store.papers(row.id, ACCEPT), self._peers.approved())
