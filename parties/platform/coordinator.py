"""Federated jobs at the platform: hands papers round, starts and resumes runs, shows how they go.

It decides nothing about anybody's data: which job may run on what is decided at each node, from papers that members
signed. A platform that withholds or reorders papers can keep a job from starting, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, Protocol

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.primitives.signing import Signer, Verifier
from gateway.jobs import states
from gateway.jobs.document import JobDocument, from_toml
from gateway.jobs.papers import (
    ACCEPTANCE,
    CANCELLATION,
    CONSENT,
    Acceptance,
    Cancellation,
    Consent,
    body_of,
    open_paper,
    propose,
    proposed,
    verify_proposal,
)
from gateway.jobs.progress import Progress
from gateway.jobs.store import ACCEPT, CANCEL, DAY, JobRow, JobStore
from gateway.jobs.store import CONSENT as CONSENTS
from gateway.storage.base import Database
from gateway.transport.ports import Caller, PlatformHandler
from parties.platform.job_run import PLATFORM, JobRun, Requests
from parties.platform.mean_run import MeanRun, trained
from parties.platform.runs import RunStore

ROLES = ("bank",)
PUSH_SECONDS = 20.0
MAX_OPEN = 200  # proposals of one member that have not ended
MAX_A_DAY = 250  # proposals of one member, ended ones included: each is kept, here and at every member it names
MAX_RUNS = 8
RUNS = {"fedavg": MeanRun}  # kinds that are not driven by the members' word alone


class Hub(Requests, Protocol):
    """The hub, as far as jobs use it."""

    def on(self, kind: str, roles: Collection[str], handler: PlatformHandler) -> None:
        """Answer requests of a kind from members of the named roles."""
        ...

    def connected(self) -> Mapping[str, Any]:
        """Return who is connected."""
        ...

    def on_change(self, watcher: Callable[[str, bool], None]) -> None:
        """Call `watcher(member, connected)` on the loop."""
        ...


class Coordinator:
    """All jobs of a space. A service of the platform's runtime.

    Args:
        space: the federation.
        signer: the platform's identity key.
        verifiers: identity keys of all members that are not revoked, read afresh.
        database: of the platform.
        hub: all connections.
        clock: seconds since the epoch, UTC.
        resume: whether jobs that were running when the platform stopped go on by themselves.
        roles: of members that may take part in jobs.
    """

    def __init__(
        self,
        *,
        space: str,
        signer: Signer,
        verifiers: Callable[[], Mapping[str, Verifier]],
        database: Database,
        hub: Hub,
        clock: Callable[[], float],
        logger: logging.Logger,
        resume: bool = True,
        roles: Collection[str] = ROLES,
    ) -> None:
        self.store = JobStore(database, clock)
        self.runs = RunStore(database)
        self._space, self._signer, self._verifiers, self._database = space, signer, verifiers, database
        self._hub, self._clock, self._logger = hub, clock, logger
        self._resume, self._roles = resume, roles
        self._active: dict[str, JobRun] = {}
        self._starting: set[str] = set()
        self._fetching: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed: dict[str, asyncio.Event] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    # --- service -----------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Register the handlers for members' requests."""
        for kind, handler in (
            ("job.propose", self.on_propose),
            ("job.accept", self.on_accept),
            ("job.consent", self.on_consent),
            ("job.cancel", self.on_cancel),
            ("job.start", self.on_start),
            ("job.resume", self.on_start),
            ("job.progress", self.on_progress),
            ("job.fetch", self.on_fetch),
        ):
            self._hub.on(kind, self._roles, handler)
        self._hub.on_change(self._on_change)

    async def start(self) -> None:
        """Take up what was running when the platform stopped."""
        self._loop = asyncio.get_running_loop()
        for row in await asyncio.to_thread(self.store.all):
            if row.state == states.RUNNING:
                await asyncio.to_thread(self._follow, row.id, "interrupt")
            if row.state in (states.RUNNING, states.INTERRUPTED) and self._resume:
                self._spawn(self._resume_later(row.id))

    async def stop(self) -> None:
        """Interrupt what runs: it goes on from its checkpoint at the next start."""
        self._stopping = True
        for run in list(self._active.values()):
            run.cancel("PLATFORM_UNREACHABLE")
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resume_later(self, job: str) -> None:
        """Resume once enough members are back; their nodes reconnect within seconds of a restart."""
        row = await asyncio.to_thread(self.store.get, job)
        members = set(row.document.members)
        event = self._event("connections")
        deadline = time.monotonic() + 30.0
        while not members <= set(self._hub.connected()) and time.monotonic() < deadline:
            event.clear()
            try:
                await asyncio.wait_for(event.wait(), max(0.05, deadline - time.monotonic()))
            except TimeoutError:
                break
        try:
            await self.start_job(job)
        except ChaotianError as error:
            self._logger.warning("job %s was not resumed: %s", job[:12], error)

    def _on_change(self, member: str, connected: bool) -> None:
        self._event("connections").set()
        if connected:
            self._spawn(self._catch_up(member))

    async def on_fetch(self, caller: Caller, payload: bytes) -> bytes:
        """Hand a member the papers of its jobs once more; e.g. after its directory came to know their proposer."""
        if caller.member in self._fetching:  # one at a time: each reads all jobs
            raise ChaotianError("BACKPRESSURE", "the papers are being handed out already")
        self._fetching.add(caller.member)
        try:
            await self._catch_up(caller.member)
        finally:
            self._fetching.discard(caller.member)
        return b""

    async def _catch_up(self, member: str) -> None:
        """Hand a member that comes back the papers of every open job that concerns it, and of those just ended."""
        for row in await asyncio.to_thread(self.store.all):
            recent = row.updated > self._clock() - 7 * 86_400
            if member in _concerned(row.document) and (row.state in states.OPEN or recent):
                await self._push(row.id, [member])

    # --- papers ------------------------------------------------------------------------------------------------

    def _key(self, member: str) -> Verifier:
        if member == PLATFORM:
            return self._signer.verifier
        key = self._verifiers().get(member)
        if key is None:
            raise ChaotianError("NOT_FOUND", f"{member} is no member of this space", member=member)
        return key

    async def on_propose(self, caller: Caller, payload: bytes) -> bytes:
        """Take a member's proposal."""
        job = await asyncio.to_thread(self._take_proposal, payload, caller.member)
        self._spawn(self._push(job))
        return canonical_json({"job": job})

    async def propose(self, text: str) -> dict[str, Any]:
        """Propose a job in the operator's name."""
        document = from_toml(
            text.encode(),
            space=self._space,
            proposer=PLATFORM,
            nonce=os.urandom(16).hex(),
            created=int(self._clock()),
        )
        job = await asyncio.to_thread(self._take_proposal, propose(document, self._signer), PLATFORM)
        self._spawn(self._push(job))
        return {"id": job, "state": states.PROPOSED, "members": list(document.members)}

    def _take_proposal(self, paper: bytes, sender: str) -> str:
        document = proposed(paper)
        if document.proposer != sender or document.space != self._space:
            raise ChaotianError("NOT_PERMITTED", "a proposal is sent by its proposer, in its space")
        verify_proposal(paper, self._key(document.proposer))
        known = self._verifiers()
        strangers = [name for name in document.concerned if name not in known]
        if strangers:
            raise ChaotianError("NOT_FOUND", f"no members of this space: {', '.join(strangers)}", member=strangers[0])
        rows = self.store.all()
        if sum(row.document.proposer == sender and row.state in states.OPEN for row in rows) >= MAX_OPEN:
            raise ChaotianError("BACKPRESSURE", f"{sender} has {MAX_OPEN} open jobs", hint="Cancel some first.")
        since = self._clock() - DAY
        if sum(row.document.proposer == sender and row.created > since for row in rows) >= MAX_A_DAY:
            raise ChaotianError("BACKPRESSURE", f"{sender} has proposed {MAX_A_DAY} jobs within a day")
        with self._database.begin() as connection:
            self.store.add(connection, paper)
        return document.id

    async def on_accept(self, caller: Caller, payload: bytes) -> bytes:
        """Take a member's acceptance; hand it to everybody concerned."""
        acceptance = Acceptance.decode(body_of(ACCEPTANCE, payload))
        await asyncio.to_thread(self._take_acceptance, acceptance, caller.member, payload)
        self._spawn(self._push(acceptance.job))
        return b""

    def _take_acceptance(self, acceptance: Acceptance, sender: str, paper: bytes) -> None:
        row = self.store.get(acceptance.job)
        if acceptance.member != sender or sender not in row.document.members or acceptance.space != self._space:
            raise ChaotianError("NOT_PERMITTED", "an acceptance is sent by the member that gives it")
        open_paper(ACCEPTANCE, paper, self._key(sender), sender)
        if row.state not in (states.PROPOSED, states.ACCEPTED):
            states.follow(row.state, "accept")
        with self._database.begin() as connection:
            self.store.put(connection, row.id, ACCEPT, sender, paper)
            if set(self.store.papers_in(connection, row.id, ACCEPT)) == set(row.document.members):
                self.store.follow(connection, row.id, "accept")
        self._tell(row.id)

    async def on_consent(self, caller: Caller, payload: bytes) -> bytes:
        """Take a member's exposure consent; hand it to everybody concerned."""
        consent = Consent.decode(body_of(CONSENT, payload))
        await asyncio.to_thread(self._take_consent, consent, caller.member, payload)
        self._spawn(self._push(consent.job))
        return b""

    def _take_consent(self, consent: Consent, sender: str, paper: bytes) -> None:
        row = self.store.get(consent.job)
        if consent.member != sender or sender not in row.document.concerned or consent.space != self._space:
            raise ChaotianError("NOT_PERMITTED", "an exposure consent is sent by the member that gives it")
        open_paper(CONSENT, paper, self._key(sender), sender)
        with self._database.begin() as connection:
            self.store.put(connection, row.id, CONSENTS, sender, paper)

    async def on_cancel(self, caller: Caller, payload: bytes) -> bytes:
        """Take a member's cancellation: the job ends for everybody."""
        cancellation = Cancellation.decode(body_of(CANCELLATION, payload))
        await self._cancel(cancellation, caller.member, payload)
        return b""

    async def cancel(self, prefix: str) -> dict[str, Any]:
        """Cancel a job in the operator's name."""
        row = await asyncio.to_thread(self.store.find, prefix)
        cancellation = Cancellation(self._space, row.id, PLATFORM, int(self._clock()))
        await self._cancel(cancellation, PLATFORM, cancellation.sign(self._signer))
        return {"id": row.id, "state": states.CANCELLED}

    async def _cancel(self, cancellation: Cancellation, sender: str, paper: bytes) -> None:
        def take() -> None:
            row = self.store.get(cancellation.job)
            allowed = {*row.document.members, row.document.proposer, PLATFORM}
            if cancellation.member != sender or sender not in allowed or cancellation.space != self._space:
                raise ChaotianError("NOT_PERMITTED", "only the proposer, a member or the operator cancels a job")
            open_paper(CANCELLATION, paper, self._key(sender), sender)
            with self._database.begin() as connection:
                self.store.follow(connection, row.id, "cancel", code="CANCELLED", detail=f"by {sender}")
                self.store.put(connection, row.id, CANCEL, sender, paper)

        await asyncio.to_thread(take)
        run = self._active.get(cancellation.job)
        if run is not None:
            run.cancel()
        self._tell(cancellation.job)
        self._spawn(self._push(cancellation.job))

    async def _push(self, job: str, members: Collection[str] | None = None) -> None:
        """Hand a job's papers to those concerned that are connected, and take what they have and we lack."""
        try:
            row = await asyncio.to_thread(self.store.get, job)
            payload = (await asyncio.to_thread(self.store.bundle, job)).encode()
            wanted = [name for name in (members or _concerned(row.document)) if name in self._hub.connected()]
            await asyncio.gather(*(self._push_to(name, payload) for name in wanted))
        except ChaotianError as error:
            self._logger.warning("job %s: papers not handed round: %s", job[:12], error)

    async def _push_to(self, member: str, payload: bytes) -> None:
        try:
            reply = await self._hub.request(member, "job.bundle", payload, deadline=PUSH_SECONDS)
            missing = parse_canonical_json(reply, limit=64 << 10)
            caller = Caller(member, "", self._space, "")
            for kind, handler in (("acceptance", self.on_accept), ("consent", self.on_consent)):
                if missing.get(kind):
                    await handler(caller, bytes.fromhex(missing[kind]))
        except (ChaotianError, ValueError, AttributeError, TypeError) as error:
            self._logger.warning("papers of a job not taken by %s: %s", member, error)

    # --- runs --------------------------------------------------------------------------------------------------

    async def on_start(self, caller: Caller, payload: bytes) -> bytes:
        """Start or resume a job for the member that proposed it."""
        row = await asyncio.to_thread(self.store.get, _job_of(payload))
        if row.document.proposer != caller.member:
            raise ChaotianError("NOT_PERMITTED", "a job is started by its proposer or by the operator")
        await self.start_job(row.id)
        return b""

    async def start_job(self, prefix: str) -> dict[str, Any]:
        """Start or resume a job; returns once every member stands ready and the first round is under way.

        Raises:
            ChaotianError: why it cannot start; its state is then as before.
        """
        row = await asyncio.to_thread(self.store.find, prefix)
        states.follow(row.state, "start")
        if row.id in self._active or row.id in self._starting:
            raise ChaotianError("JOB_STATE", "the job is running already")
        if len(self._active) + len(self._starting) >= MAX_RUNS:
            raise ChaotianError("BACKPRESSURE", f"{MAX_RUNS} jobs run already")
        self._starting.add(row.id)
        try:
            await self._push(row.id)  # so that every member has every acceptance before it is asked
            run = await asyncio.to_thread(self._make_run, row)
            await run.prepare()
            await asyncio.to_thread(self._follow, row.id, "start")
            self._active[row.id] = run
        finally:
            self._starting.discard(row.id)
        self._spawn(self._push(row.id))
        self._spawn(self._run(run))
        return {"id": row.id, "state": states.RUNNING}

    def _make_run(self, row: JobRow) -> JobRun:
        keys = {name: self._key(name) for name in row.document.members}
        acceptances = self.store.acceptances(row.id)
        loop = self._loop
        assert loop is not None

        event = self._event(row.id)

        def changed() -> None:
            # Waking the loop costs the round's thread its turn: once until a watcher looks again, not at every change.
            if not event.is_set():
                loop.call_soon_threadsafe(event.set)

        return RUNS.get(row.document.kind, JobRun)(
            row.document,
            hub=self._hub,
            loop=loop,
            signer=self._signer,
            keys=keys,
            grants={name: acceptance.grant for name, acceptance in acceptances.items()},
            runs=self.runs,
            progress=Progress(row.id, time.monotonic, changed),
            now=self._clock,
            logger=self._logger,
        )

    async def _run(self, run: JobRun) -> None:
        event, code, detail = "finish", "", ""
        try:
            await run.run()
        except ChaotianError as error:
            event, code, detail = "fail", error.code, error.detail
        except Exception as error:
            # Its text may quote what it worked on: only its kind is written down.
            self._logger.error("job %s: unforeseen %s", run.job[:12], type(error).__name__)
            event, code, detail = "fail", "INTERNAL", ""
        try:
            await asyncio.to_thread(self.runs.save_progress, run.job, run.progress.document())
            row = await asyncio.to_thread(self.store.get, run.job)
            if self._stopping and event == "fail":
                event = "interrupt"
            if row.state == states.RUNNING:
                await asyncio.to_thread(self._follow, run.job, event, code, detail)
            if event != "interrupt":
                await run.forget()
        except ChaotianError as error:
            self._logger.error("job %s: its end could not be stored: %s", run.job[:12], error)
        finally:
            self._active.pop(run.job, None)
            self._tell(run.job)
        if not self._stopping:
            await self._push(run.job)

    def _follow(self, job: str, event: str, code: str = "", detail: str = "") -> None:
        with self._database.begin() as connection:
            self.store.follow(connection, job, event, code=code, detail=detail)

    # --- what can be seen ----------------------------------------------------------------------------------------

    async def on_progress(self, caller: Caller, payload: bytes) -> bytes:
        """Return the progress of a job to a member it concerns."""
        row = await asyncio.to_thread(self.store.get, _job_of(payload))
        if caller.member not in _concerned(row.document):
            raise ChaotianError("NOT_PERMITTED", "the job does not concern this member")
        return json.dumps(await self.progress(row.id)).encode()

    async def progress(self, job: str) -> dict[str, Any]:
        """Return state and progress of a job."""
        row = await asyncio.to_thread(self.store.find, job)
        run = self._active.get(row.id)
        seen = run.progress.document() if run is not None else await asyncio.to_thread(self.runs.progress, row.id)
        connected = self._hub.connected()
        return {
            "id": row.id,
            "state": row.state,
            "code": row.code,
            "detail": row.detail,
            "accepted": sorted(await asyncio.to_thread(self.store.papers, row.id, ACCEPT)),
            "connected": [name for name in row.document.members if name in connected],
            "progress": seen,
        }

    async def watch(self, prefix: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the progress of a job at every change, at most ten times a second, until it ends."""
        row = await asyncio.to_thread(self.store.find, prefix)
        event, known = self._event(row.id), None
        seen: dict[str, Any] = {}
        while True:
            event.clear()
            run = self._active.get(row.id)
            if run is None or run is not known:
                seen = await self.progress(row.id)
            else:  # state and papers stay as they are while a run is on: the database is not asked again
                connected = self._hub.connected()
                here = [name for name in row.document.members if name in connected]
                seen = {**seen, "connected": here, "progress": run.progress.document()}
            known = run
            yield seen
            if seen["state"] in states.ENDED:
                return
            try:
                await asyncio.wait_for(event.wait(), 1.0)
                await asyncio.sleep(0.1)
            except TimeoutError:
                pass

    def show(self, prefix: str) -> dict[str, Any]:
        """Return a job and its papers as the operator may see them."""
        row = self.store.find(prefix)
        return row.summary() | {
            "document": row.document.document(),
            "detail": row.detail,
            "accepted": sorted(self.store.papers(row.id, ACCEPT)),
            "consented": sorted(self.store.papers(row.id, CONSENTS)),
            "obstacles": [],
        }

    def arrays(self, prefix: str) -> bytes:
        """Return the trained arrays of a finished `fedavg` job, which gave them to the platform, as an .npz file.

        Raises:
            ChaotianError: NOT_FOUND for another kind; JOB_STATE while it is not done.
        """
        row = self.store.find(prefix)
        if row.document.kind not in RUNS:
            raise ChaotianError("NOT_FOUND", "the job trained no arrays")
        if row.state != states.DONE:
            raise ChaotianError("JOB_STATE", f"the job is {row.state}: there are no trained arrays")
        return trained(row.document, self.runs.model(row.id))

    def _event(self, name: str) -> asyncio.Event:
        return self._changed.setdefault(name, asyncio.Event())

    def _tell(self, job: str) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell_on_loop, job)

    def _tell_on_loop(self, job: str) -> None:
        self._event(job).set()


def _concerned(document: JobDocument) -> list[str]:
    names = {*document.concerned, document.proposer} - {PLATFORM}
    return sorted(names)


def _job_of(payload: bytes) -> str:
    document = parse_canonical_json(payload, limit=1024)
    if not isinstance(document, dict) or set(document) != {"job"} or not isinstance(document["job"], str):
        raise ChaotianError("MALFORMED", "expected the id of a job")
    return str(document["job"])
