"""Jobs and their papers on SQL; the same at nodes and at the platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.signing import Verifier
from gateway.jobs import states
from gateway.jobs.document import JobDocument
from gateway.jobs.papers import ACCEPTANCE, Acceptance, Bundle, Consent, body_of, open_paper, proposed
from gateway.jobs.papers import CONSENT as CONSENT_TAG
from gateway.storage.base import Database
from gateway.storage.hot import Hot
from gateway.storage.tables.jobs import job_papers, jobs

ACCEPT, CONSENT, CANCEL = "acceptance", "consent", "cancellation"
MIN_PREFIX = 4
DAY = 86_400.0
MAX_A_DAY, MAX_BYTES_A_DAY = 1_000, 64 << 20  # proposals that a node takes in
_STATE = Hot(select(jobs.c.state).where(jobs.c.id == bindparam("job")))  # asked twice a round


@dataclass(frozen=True)
class JobRow:
    """A job as it is stored."""

    id: str
    proposal: bytes
    state: str
    code: str
    detail: str
    dataset: str
    result: Mapping[str, Any] | None
    created: float
    updated: float
    document: JobDocument

    def summary(self) -> dict[str, Any]:
        """Return what a list shows."""
        document = self.document
        return {
            "id": self.id,
            "kind": document.kind,
            "purpose": document.purpose,
            "proposer": document.proposer,
            "members": list(document.members),
            "state": self.state,
            "code": self.code,
            "created": self.created,
            "updated": self.updated,
        }


class JobStore:
    """All jobs of one home. Papers are put in only after their signatures were checked.

    Args:
        database: of the home.
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def add(self, connection: Connection, proposal: bytes) -> bool:
        """Store a proposal; return whether it is new."""
        document = proposed(proposal)
        known = connection.execute(select(jobs.c.proposal).where(jobs.c.id == document.id)).scalar_one_or_none()
        if known is not None:
            return False
        now = self._clock()
        connection.execute(
            insert(jobs).values(id=document.id, proposal=proposal, state=states.PROPOSED, created=now, updated=now)
        )
        return True

    @staticmethod
    def known(connection: Connection, job: str) -> bool:
        """Return whether the job is stored."""
        return connection.execute(select(jobs.c.id).where(jobs.c.id == job)).first() is not None

    def check_room(self, connection: Connection) -> None:
        """Refuse a further proposal where very many came in a day: they would fill this node's disk and log.

        Raises:
            ChaotianError: BACKPRESSURE.
        """
        query = select(func.count(), func.sum(func.length(jobs.c.proposal))).where(jobs.c.created > self._clock() - DAY)
        count, size = connection.execute(query).one()
        if count >= MAX_A_DAY or (size or 0) >= MAX_BYTES_A_DAY:
            raise ChaotianError("BACKPRESSURE", f"{count} jobs with {size or 0} bytes were proposed within a day")

    def put(self, connection: Connection, job: str, kind: str, member: str, paper: bytes) -> bool:
        """Store a paper in place of an earlier one of its kind and member; return whether anything changed."""
        key = (job_papers.c.job == job) & (job_papers.c.kind == kind) & (job_papers.c.member == member)
        known = connection.execute(select(job_papers.c.paper).where(key)).scalar_one_or_none()
        if known == paper:
            return False
        connection.execute(delete(job_papers).where(key))
        connection.execute(insert(job_papers).values(job=job, kind=kind, member=member, paper=paper))
        return True

    def follow(self, connection: Connection, job: str, event: str, *, code: str = "", detail: str = "") -> str:
        """Move a job by an event of `states.TRANSITIONS`; return the new state."""
        state = connection.execute(select(jobs.c.state).where(jobs.c.id == job)).scalar_one_or_none()
        if state is None:
            raise ChaotianError("NOT_FOUND", "there is no such job here")
        target = states.follow(state, event)
        values = {"state": target, "code": code, "detail": detail, "updated": self._clock()}
        connection.execute(update(jobs).where(jobs.c.id == job).values(**values))
        return target

    def set(self, connection: Connection, job: str, **values: Any) -> None:
        """Set columns of a job."""
        connection.execute(update(jobs).where(jobs.c.id == job).values(updated=self._clock(), **values))

    def get(self, job: str) -> JobRow:
        """Return a job by its whole id; NOT_FOUND otherwise."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job)).one_or_none()
        if row is None:
            raise ChaotianError("NOT_FOUND", "there is no such job here", hint="See `chaotian job list`.")
        return _row(row)

    def find(self, prefix: str) -> JobRow:
        """Return the one job whose id begins with `prefix` (at least 4 hex digits).

        Raises:
            ChaotianError: NOT_FOUND, or USAGE where several begin so.
        """
        if len(prefix) < MIN_PREFIX or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
            raise ChaotianError("USAGE", f"a job is named by at least {MIN_PREFIX} hex digits of its id")
        with self._database.read() as connection:
            rows = connection.execute(select(jobs).where(jobs.c.id.startswith(prefix)).limit(2)).all()
        if not rows:
            raise ChaotianError("NOT_FOUND", "no job here has an id that begins so", hint="See `chaotian job list`.")
        if len(rows) > 1:
            raise ChaotianError("USAGE", "several jobs have an id that begins so: give more digits")
        return _row(rows[0])

    def all(self) -> list[JobRow]:
        """Return every job, newest first."""
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(select(jobs).order_by(jobs.c.created.desc(), jobs.c.id))]

    def papers(self, job: str, kind: str) -> dict[str, bytes]:
        """Return the papers of one kind by member."""
        with self._database.read() as connection:
            return self.papers_in(connection, job, kind)

    @staticmethod
    def papers_in(connection: Connection, job: str, kind: str) -> dict[str, bytes]:
        """Return the papers of one kind by member, within a transaction."""
        query = select(job_papers.c.member, job_papers.c.paper).where(
            (job_papers.c.job == job) & (job_papers.c.kind == kind)
        )
        return {row.member: row.paper for row in connection.execute(query.order_by(job_papers.c.member))}

    def acceptances(self, job: str) -> dict[str, Acceptance]:
        """Return the verified acceptances by member."""
        papers = self.papers(job, ACCEPT)
        return {name: Acceptance.decode(body_of(ACCEPTANCE, paper)) for name, paper in papers.items()}

    def consenting(self, connection: Connection, job: str, keys: Mapping[str, Verifier]) -> frozenset[str]:
        """Return the members that signed an exposure consent for the job, on its own or with their acceptance.

        Args:
            keys: those this node's owner approved. A paper is taken in under whatever key the directory lists at that
                moment, which the platform can change and change back; here only an approved key counts.
        """
        own = set()
        for kind, tag, form in ((CONSENT, CONSENT_TAG, Consent), (ACCEPT, ACCEPTANCE, Acceptance)):
            for member, paper in self.papers_in(connection, job, kind).items():
                if member not in keys:
                    continue
                try:
                    given: Any = form.decode(open_paper(tag, paper, keys[member], member))
                except ChaotianError:
                    continue
                if (given.job, given.member) == (job, member) and getattr(given, "exposure_consent", True):
                    own.add(member)
        return frozenset(own)

    @staticmethod
    def check_open(connection: Connection, job: str) -> None:
        """Refuse what is asked of a job that ended here, within the transaction that would let something out.

        Raises:
            ChaotianError: CANCELLED; LOST for one that is done or has failed.
        """
        row = _STATE.first(connection, {"job": job})
        state = row.state if row is not None else None
        if state == states.CANCELLED:
            raise ChaotianError("CANCELLED", "this job was cancelled")
        if state in states.ENDED:
            raise ChaotianError("LOST", f"this job is {state} at this member")

    def bundle(self, job: str) -> Bundle:
        """Return all papers of a job as one."""
        row = self.get(job)
        cancellations = self.papers(job, CANCEL)
        return Bundle(
            proposal=row.proposal,
            acceptances=self.papers(job, ACCEPT),
            consents=self.papers(job, CONSENT),
            cancellation=next(iter(cancellations.values()), b""),
            state=row.state,
            code=row.code,
        )


def _row(row: Any) -> JobRow:
    return JobRow(
        id=row.id,
        proposal=row.proposal,
        state=row.state,
        code=row.code,
        detail=row.detail,
        dataset=row.dataset,
        result=json.loads(row.result) if row.result else None,
        created=row.created,
        updated=row.updated,
        document=proposed(row.proposal),
    )
