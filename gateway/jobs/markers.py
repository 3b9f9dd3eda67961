"""The two durable commits of a member and round, and the release ledger, on SQL.

Each marker is one transaction: grant, ledger and log leaf are in it or it did not happen, and the caller sends
nothing before it has committed.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from federation.errors import ChaotianError
from federation.secure_sum.terms import Terms
from gateway.audit.events import Event, EventType
from gateway.jobs.ledger import Earlier, Release, check_release
from gateway.jobs.store import JobStore
from gateway.storage.base import Database
from gateway.storage.tables.jobs import job_answers, job_releases, job_snapshots

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Rows:
    """The rows of this node that enter a total.

    Args:
        dataset: id of the dataset, stable while its rows change.
        digests: one 16-byte digest a row, sorted and joined.
    """

    dataset: str
    digests: bytes

    @classmethod
    def of(cls, dataset: str, digests: list[bytes]) -> Rows:
        """Return rows from digests of at least 16 bytes each."""
        return cls(dataset, b"".join(sorted(digest[:DIGEST_BYTES] for digest in digests)))

    @property
    def id(self) -> str:
        """SHA-256 of the digests, 64 hex digits."""
        return hashlib.sha256(self.digests).hexdigest()

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.digests) // DIGEST_BYTES


def rows_changed(before: bytes, after: bytes) -> int:
    """Return how many rows were added, removed or changed between two sets of digests.

    A changed row is one digest gone and one come, so that the larger of both counts is the smallest number of rows
    that explains the difference: the cautious one, as few changed rows are what is refused.
    """
    if before == after:
        return 0
    split = DIGEST_BYTES
    old = {before[i : i + split] for i in range(0, len(before), split)}
    new = {after[i : i + split] for i in range(0, len(after), split)}
    return max(len(new - old), len(old - new), 1)


class Log(Protocol):
    """The audit log, as far as markers use it."""

    def append(self, connection: Connection, event: Event) -> int:
        """Add one leaf in the caller's transaction."""
        ...


class Gate(Protocol):
    """The grant this member computes under, as far as markers use it. Both raise to refuse."""

    def charge(self, connection: Connection, terms: Terms) -> None:
        """Decide on a masked input and reserve its quota, in the caller's transaction."""
        ...

    def confirm(self, connection: Connection, terms: Terms) -> None:
        """Decide again, before shares leave, that the grant still stands."""
        ...


class SqlMarkers:
    """Markers of one member over all its jobs; safe to share between threads.

    Args:
        member: this member.
        database, store, log: of the home.
        gate: of the job's grant.
        rows: the rows that enter the totals of the job at hand.
        columns: of the dataset, that enter a round of the given operation.
        max_roster_changes: as the grant allows.
        clock: seconds since the epoch, UTC.
    """

    def __init__(
        self,
        *,
        member: str,
        database: Database,
        store: JobStore,
        log: Log,
        gate: Gate,
        rows: Rows,
        columns: Callable[[], tuple[str, ...]],
        max_roster_changes: int,
        clock: Callable[[], float],
    ) -> None:
        self._member, self._database, self._store, self._log = member, database, store, log
        self._gate, self._rows, self._columns, self._clock = gate, rows, columns, clock
        self._max_roster_changes = max_roster_changes
        self._changed: dict[str, int] = {}
        self._lock = threading.Lock()

    # --- reading -------------------------------------------------------------------------------------------

    def last_attempt(self, job: str, round_: int) -> int:
        """Return the highest attempt of the round that was ever answered, 0 for none."""
        with self._database.read() as connection:
            return self._last_attempt(connection, job, round_)

    @staticmethod
    def _last_attempt(connection: Connection, job: str, round_: int) -> int:
        key = (job_answers.c.job == job) & (job_answers.c.round == round_)
        return connection.execute(select(job_answers.c.attempt).where(key)).scalar_one_or_none() or 0

    def spent(self, job: str, round_: int) -> bool:
        """Whether the round has been released, whatever the attempt."""
        key = (job_releases.c.job == job) & (job_releases.c.round == round_)
        with self._database.read() as connection:
            return connection.execute(select(job_releases.c.id).where(key).limit(1)).first() is not None

    def position(self, job: str) -> bytes | None:
        """Return where the job stood when the latest round was answered, or None before the first."""
        query = select(job_answers.c.position).where(job_answers.c.job == job).order_by(job_answers.c.round.desc())
        with self._database.read() as connection:
            found: bytes | None = connection.execute(query.limit(1)).scalar_one_or_none()
        return found

    def last_released(self, job: str) -> int:
        """Return the highest round released, 0 for none."""
        with self._database.read() as connection:
            query = select(func.max(job_releases.c.round)).where(job_releases.c.job == job)
            return connection.execute(query).scalar_one_or_none() or 0

    # --- the two commits -----------------------------------------------------------------------------------

    def answered(self, terms: Terms, state: bytes) -> None:
        """Record that this attempt is answered, charge the grant, write the leaf.

        Raises:
            ChaotianError: LOST for an attempt that is not above every one answered before; ROUND_SPENT; the grant's
                refusal; STORAGE.
        """
        with self._database.begin() as connection:
            last = self._last_attempt(connection, terms.job, terms.round)
            if terms.attempt <= last:
                raise ChaotianError("LOST", f"attempt {last} of round {terms.round} was answered already")
            self._refuse_spent(connection, terms)
            self._gate.charge(connection, terms)
            values = {"attempt": terms.attempt, "position": state, "answered": self._clock()}
            if last:
                key = (job_answers.c.job == terms.job) & (job_answers.c.round == terms.round)
                connection.execute(update(job_answers).where(key).values(**values))
            else:
                connection.execute(insert(job_answers).values(job=terms.job, round=terms.round, **values))
            self._log.append(connection, self._event(EventType.ROUND_ANSWERED, terms))

    def released(self, terms: Terms) -> None:
        """Record the round as spent, check and extend the release ledger, write the leaf.

        Raises:
            ChaotianError: ROUND_SPENT, RELEASE_DIFFERENCE, ROSTER_CHANGES, the grant's refusal; STORAGE.
        """
        release = Release(
            job=terms.job,
            dataset=self._rows.dataset,
            operation=terms.operation,
            columns=frozenset(self._columns()),
            members=frozenset(terms.members),
        )
        try:
            with self._database.begin() as connection:
                self._refuse_spent(connection, terms)
                self._check_roster(connection, terms)
                self._gate.confirm(connection, terms)
                check_release(
                    release,
                    self._earlier(connection, release),
                    min_members=terms.min_members,
                    min_rows=terms.min_rows,
                    consents=self._store.consenting(connection, terms.job),
                )
                self._write(connection, terms, release)
                self._log.append(connection, self._event(EventType.ROUND_RELEASED, terms))
        except IntegrityError:
            raise ChaotianError("ROUND_SPENT", f"round {terms.round} was released already") from None

    # --- within the transaction ----------------------------------------------------------------------------

    @staticmethod
    def _refuse_spent(connection: Connection, terms: Terms) -> None:
        key = (
            (job_releases.c.job == terms.job)
            & (job_releases.c.round == terms.round)
            & (job_releases.c.purpose == terms.purpose)
        )
        if connection.execute(select(job_releases.c.id).where(key)).first() is not None:
            raise ChaotianError("ROUND_SPENT", f"round {terms.round} was released already")

    def _check_roster(self, connection: Connection, terms: Terms) -> None:
        """Count changes of the roster over the job's released rounds, as they are on disk."""
        query = select(job_releases.c.members).where(job_releases.c.job == terms.job).order_by(job_releases.c.round)
        rosters = [tuple(json.loads(text)) for text in connection.execute(query).scalars()] + [terms.members]
        changes = sum(1 for before, after in pairwise(rosters) if before != after)
        if changes > self._max_roster_changes:
            raise ChaotianError("ROSTER_CHANGES", f"at most {self._max_roster_changes} changes are allowed")

    def _earlier(self, connection: Connection, release: Release) -> list[Earlier]:
        r = job_releases.c
        query = (
            select(r.job, r.columns, r.members, r.snapshot)
            .where((r.dataset == release.dataset) & (r.operation == release.operation) & (r.job != release.job))
            .distinct()
        )
        earlier = []
        for row in connection.execute(query).all():
            past = Release(
                row.job,
                release.dataset,
                release.operation,
                frozenset(json.loads(row.columns)),
                frozenset(json.loads(row.members)),
            )
            if release.compares_with(past):
                earlier.append(Earlier(past, self._rows_changed(connection, row.snapshot)))
        return earlier

    def _rows_changed(self, connection: Connection, snapshot: str) -> int:
        with self._lock:
            if snapshot not in self._changed:
                query = select(job_snapshots.c.digests).where(job_snapshots.c.id == snapshot)
                before = connection.execute(query).scalar_one()
                self._changed[snapshot] = rows_changed(before, self._rows.digests)
            return self._changed[snapshot]

    def _write(self, connection: Connection, terms: Terms, release: Release) -> None:
        known = connection.execute(select(job_snapshots.c.id).where(job_snapshots.c.id == self._rows.id)).first()
        if known is None:
            values = {"id": self._rows.id, "rows": self._rows.count, "digests": self._rows.digests}
            connection.execute(insert(job_snapshots).values(**values))
        connection.execute(
            insert(job_releases).values(
                job=terms.job,
                round=terms.round,
                purpose=terms.purpose,
                attempt=terms.attempt,
                dataset=release.dataset,
                operation=terms.operation,
                columns=json.dumps(sorted(release.columns)),
                members=json.dumps(list(terms.members)),
                snapshot=self._rows.id,
                terms=terms.hash(),
                released=self._clock(),
            )
        )

    def _event(self, kind: EventType, terms: Terms) -> Event:
        return Event(
            kind,
            parties=terms.members,
            grant=dict(terms.grants)[self._member],
            exchange=terms.hash(),
            payload={
                "job": terms.job,
                "round": terms.round,
                "attempt": terms.attempt,
                "operation": terms.operation,
                "purpose": terms.purpose,
                "values": {field.name: field.length for field in terms.layout.fields},
                "bytes": terms.layout.byte_length,
                "result_to": terms.result_to,
            },
        )
