"""The two durable commits of a member and round, and the release ledger, on SQL.

Each marker is one transaction: grant, ledger and log leaf are in it or it did not happen, and the caller sends
nothing before it has committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from federation.errors import ChaotianError
from federation.primitives.signing import Verifier
from federation.secure_sum.terms import Terms
from gateway.audit.events import Event, EventType
from gateway.jobs.ledger import Earlier, Release, check_release, class_of
from gateway.jobs.store import JobStore
from gateway.storage.base import Database
from gateway.storage.hot import Hot
from gateway.storage.tables.jobs import job_answers, job_releases

ATTEMPTS = 5  # at a ledger that other jobs extend at the same time

# What every round asks, built once: building a statement takes longer than running it.
_ATTEMPT = Hot(
    select(job_answers.c.attempt).where(
        job_answers.c.job == bindparam("job"), job_answers.c.round == bindparam("round")
    )
)
_ANSWER = Hot(insert(job_answers), ("job", "round", "attempt", "position", "answered"))
_RELEASED = Hot(
    select(job_releases.c.round, job_releases.c.purpose, job_releases.c.members)
    .where(job_releases.c.job == bindparam("job"), job_releases.c.part == 0)
    .order_by(job_releases.c.round)
)
_PAST = (
    select(
        job_releases.c.job,
        job_releases.c.operation,
        job_releases.c.columns,
        job_releases.c.members,
        job_releases.c.snapshot,
        job_releases.c.selection,
        job_releases.c.exact,
    )
    .where(
        job_releases.c.dataset == bindparam("dataset"),
        job_releases.c.operation.in_(bindparam("operations", expanding=True)),
        job_releases.c.job != bindparam("job"),
    )
    .distinct()
)
_RELEASE = Hot(
    insert(job_releases).inline(), tuple(column.name for column in job_releases.columns if column.name != "id")
)


@dataclass(frozen=True)
class Rows:
    """The rows of this node that enter a total, by name: nothing of them is kept in the ledger.

    Args:
        dataset: id of the dataset, stable while its rows change.
        snapshot: id of the content it had, 64 hex digits.
        selection: which of its rows enter, e.g. what is held out, as canonical JSON; empty: all of them.
    """

    dataset: str
    snapshot: str
    selection: str


ALL_ROWS = ""
Pair = tuple[Rows, Rows, frozenset[str]]  # earlier rows, those at hand, and the columns they are compared in


class History(Protocol):
    """How many rows differ between two selections of this node's rows."""

    def changed(self, before: Rows, after: Rows, columns: frozenset[str]) -> int:
        """Return how many rows were added, removed or changed in `columns`.

        Raises:
            ChaotianError: RELEASE_DIFFERENCE where that cannot be told any more.
        """
        ...


class Log(Protocol):
    """The audit log, as far as markers use it."""

    def append(self, connection: Connection, event: Event) -> int:
        """Add one leaf in the caller's transaction."""
        ...


class Gate(Protocol):
    """The grant this member computes under, as far as markers use it. Both raise to refuse."""

    def charge(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Decide on a masked input and reserve its quota, in the caller's transaction."""
        ...

    def confirm(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Decide again, before shares leave, that the grant still stands."""
        ...


class SqlMarkers:
    """Markers of one member over all its jobs; safe to share between threads.

    Args:
        member: this member.
        database, store, log: of the home.
        gate: of the job's grant.
        rows: the rows that enter the totals of the job at hand; those of two dates where it compares them.
        history: compares them with those of earlier releases.
        columns: of the dataset, that enter a round of the given operation.
        max_roster_changes: as the grant allows.
        exact: whether no privacy budget bounds what the job's totals show.
        approved: the keys of all members that this node's owner approves, as a transaction sees them.
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
        rows: tuple[Rows, ...],
        history: History,
        columns: Callable[[], tuple[str, ...]],
        max_roster_changes: int,
        approved: Callable[[Connection], Mapping[str, Verifier]],
        clock: Callable[[], float],
        exact: bool = True,
    ) -> None:
        self._member, self._database, self._store, self._log = member, database, store, log
        self._gate, self._rows, self._columns, self._clock = gate, rows, columns, clock
        self._max_roster_changes, self._exact = max_roster_changes, exact
        self._history, self._approved = history, approved
        self._known: dict[str, tuple[dict[int, int], set[int]]] = {}
        self._changed: dict[Pair, int] = {}

    # --- reading -------------------------------------------------------------------------------------------

    def last_attempt(self, job: str, round_: int) -> int:
        """Return the highest attempt of the round that was ever answered, 0 for none."""
        return self._marks(job)[0].get(round_, 0)

    def _marks(self, job: str) -> tuple[dict[int, int], set[int]]:
        """Return the attempts answered by round, and the rounds released: read once, kept up with each commit.

        One process writes a job's markers, and the transactions below look at the tables themselves again.
        """
        if job not in self._known:
            a, r = job_answers.c, job_releases.c
            with self._database.read() as connection:
                answers = connection.execute(select(a.round, a.attempt).where(a.job == job)).all()
                releases = connection.execute(select(r.round).where(r.job == job)).scalars()
                self._known[job] = ({row.round: row.attempt for row in answers}, set(releases))
        return self._known[job]

    @staticmethod
    def _last_attempt(connection: Connection, job: str, round_: int) -> int:
        row = _ATTEMPT.first(connection, {"job": job, "round": round_})
        return row.attempt if row is not None else 0

    def spent(self, job: str, round_: int) -> bool:
        """Whether the round has been released, whatever the attempt."""
        return round_ in self._marks(job)[1]

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
            self._store.check_open(connection, terms.job)
            last = self._last_attempt(connection, terms.job, terms.round)
            if terms.attempt <= last:
                raise ChaotianError("LOST", f"attempt {last} of round {terms.round} was answered already")
            self._gate.charge(connection, terms, self._own_rounds(connection, terms))
            values = {"attempt": terms.attempt, "position": state, "answered": self._clock()}
            if last:
                key = (job_answers.c.job == terms.job) & (job_answers.c.round == terms.round)
                connection.execute(update(job_answers).where(key).values(**values))
            else:
                _ANSWER.all(connection, {"job": terms.job, "round": terms.round, **values})
            self._log.append(connection, self._event(EventType.ROUND_ANSWERED, terms))
        self._marks(terms.job)[0][terms.round] = terms.attempt

    def released(self, terms: Terms) -> None:
        """Record the round as spent, check and extend the release ledger, write the leaf.

        Raises:
            ChaotianError: ROUND_SPENT, RELEASE_DIFFERENCE, ROSTER_CHANGES, CANCELLED, the grant's refusal; STORAGE;
                NOT_APPROVED where a member of the roster was revoked, or its approval taken back, meanwhile.
        """
        columns, members = frozenset(self._columns()), frozenset(terms.members)
        releases = [
            (own, Release(terms.job, own.dataset, terms.operation, columns, members, self._exact)) for own in self._rows
        ]
        for _ in range(ATTEMPTS):
            try:
                missing = self._release(terms, releases)
            except IntegrityError:
                raise ChaotianError("ROUND_SPENT", f"round {terms.round} was released already") from None
            if not missing:
                self._marks(terms.job)[1].add(terms.round)
                return
            # Comparing rows takes long: it is done between two transactions, once a job and earlier release.
            for rows, own, common in missing:
                self._changed[rows, own, common] = self._history.changed(rows, own, common)
        raise ChaotianError("STORAGE", "the release ledger changed too often meanwhile")

    def _release(self, terms: Terms, releases: Sequence[tuple[Rows, Release]]) -> set[Pair]:
        """Check and write in one transaction; return what has to be compared first, where nothing was written."""
        with self._database.begin() as connection:
            self._store.check_open(connection, terms.job)
            keys = self._approved(connection)
            for name, fingerprint in terms.roster:
                if name not in keys or keys[name].fingerprint != fingerprint:
                    raise ChaotianError("NOT_APPROVED", f"{name} does not count for this node any more", member=name)
            changes = self._own_rounds(connection, terms)
            if changes > self._max_roster_changes:
                raise ChaotianError("ROSTER_CHANGES", f"at most {self._max_roster_changes} changes are allowed")
            self._gate.confirm(connection, terms, changes)
            pasts = [(own, release, self._past(connection, own, release)) for own, release in releases]
            missing = {pair for _, _, past in pasts for _, pair in past} - set(self._changed)
            if missing:
                return missing
            for part, (own, release, past) in enumerate(pasts):
                # Consents are papers to be verified: they are read where the rule may ask for one.
                asked = any(release.exposes(old, terms.min_members) for old, _ in past)
                check_release(
                    release,
                    [Earlier(old, self._changed[pair]) for old, pair in past],
                    min_members=terms.min_members,
                    min_rows=terms.min_rows,
                    consents=self._store.consenting(connection, terms.job, keys) if asked else (),
                )
                self._write(connection, terms, release, own, part)
            self._log.append(connection, self._event(EventType.ROUND_RELEASED, terms))
        return set()

    # --- within the transaction ----------------------------------------------------------------------------

    @staticmethod
    def _own_rounds(connection: Connection, terms: Terms) -> int:
        """Return how often the roster changed over the job's released rounds and this one, as they are on disk.

        Raises:
            ChaotianError: ROUND_SPENT where this round is one of them.
        """
        released = _RELEASED.all(connection, {"job": terms.job})
        if any((row.round, row.purpose) == (terms.round, terms.purpose) for row in released):
            raise ChaotianError("ROUND_SPENT", f"round {terms.round} was released already")
        rosters = [row.members for row in released] + [json.dumps(list(terms.members))]
        return sum(1 for before, after in pairwise(rosters) if before != after)

    @staticmethod
    def _past(connection: Connection, own: Rows, release: Release) -> list[tuple[Release, Pair]]:
        """Return the earlier releases that the rule compares with `release`, and which rows have to be compared.

        Those of one operation are compared as they entered; of different ones without regard to what they hold out,
        which is many rows by its share and tells a profile of all rows from a scorecard of most.
        """
        operations = sorted(class_of(release.operation))
        asked = {"dataset": release.dataset, "operations": operations, "job": release.job}
        past = []
        for row in connection.execute(_PAST, asked).all():
            columns, members = frozenset(json.loads(row.columns)), frozenset(json.loads(row.members))
            old = Release(row.job, release.dataset, row.operation, columns, members, row.exact)
            if release.compares_with(old):
                before, after = Rows(release.dataset, row.snapshot, row.selection), own
                if row.operation != release.operation:
                    before, after = replace(before, selection=ALL_ROWS), replace(after, selection=ALL_ROWS)
                past.append((old, (before, after, release.columns & columns)))
        return past

    def _write(self, connection: Connection, terms: Terms, release: Release, own: Rows, part: int) -> None:
        _RELEASE.all(
            connection,
            {
                "job": terms.job,
                "round": terms.round,
                "purpose": terms.purpose,
                "part": part,
                "attempt": terms.attempt,
                "dataset": release.dataset,
                "operation": terms.operation,
                "columns": json.dumps(sorted(release.columns)),
                "members": json.dumps(list(terms.members)),
                "snapshot": own.snapshot,
                "selection": own.selection,
                "exact": release.exact,
                "terms": terms.hash(),
                "released": self._clock(),
            },
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
