"""What a job reads of this node: accepted snapshots, the rows that enter, a model, the grants that decide a round."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sqlalchemy import Connection

from federation.errors import ChaotianError
from federation.learning.model import Model
from federation.secure_sum.terms import Terms
from gateway.datasets.book import Dataset, DatasetBook
from gateway.datasets.digests import Digests, row_digests, rows_changed
from gateway.grants.book import GrantBook
from gateway.grants.decision import UseRequest
from gateway.jobs.document import JobDocument
from gateway.jobs.markers import Gate, Rows
from gateway.jobs.models import ModelStore
from gateway.jobs.papers import Binding
from gateway.jobs.plan import select


def resolve(datasets: DatasetBook, source: str) -> Dataset:
    """Return the dataset that a job names: NAME as it is now, NAME@NUMBER, or NAME@DAY, its latest one of that day.

    Raises:
        ChaotianError: NOT_FOUND.
    """
    name, _, which = source.partition("@")
    if "-" not in which:
        return datasets.get(source)
    for version in datasets.versions(name):
        if version.as_of == which:
            return datasets.get(version.name)
    raise ChaotianError(
        "NOT_FOUND",
        f"there is no snapshot of {name} as of {which}",
        hint="Add the rows of that day: `chaotian data add` with as_of in the schema; see `chaotian data show`.",
    )


def as_bound(datasets: DatasetBook, name: str, snapshot: str) -> Dataset:
    """Return a dataset with the day of the snapshot that a job is bound to, and the schema it has now.

    Schema and grades are those of today: an owner that restricts them stops what was accepted before.
    """
    days = [version.as_of for version in datasets.versions(name) if version.snapshot == snapshot]
    return replace(datasets.get(name), snapshot=snapshot, as_of=days[0] if days else "")


def entering(document: JobDocument, data: Sequence[Binding]) -> tuple[Rows, ...]:
    """Return the rows that enter the totals of a job, of each snapshot that was accepted."""
    selected = document.plan.selection()
    return tuple(Rows(binding.dataset, binding.snapshot, selected) for binding in data)


def model_of(document: JobDocument, models: ModelStore) -> Model | None:
    """Return the model that a job names, or None where it names none.

    Raises:
        ChaotianError: MODEL_MISSING where this node does not hold it.
    """
    version = document.plan.model
    if not version:
        return None
    try:
        return models.get(version)
    except ChaotianError as error:
        if error.code != "NOT_FOUND":
            raise
        raise ChaotianError("MODEL_MISSING", f"the job names the model {version[:12]}, which is not here") from None


class DatasetHistory:
    """Compares the rows of two releases value by value, from the snapshots that the node keeps.

    Args:
        datasets: of the home.
    """

    def __init__(self, datasets: DatasetBook) -> None:
        self._datasets = datasets
        self._key = os.urandom(32)  # digests live as long as this process

    def changed(self, before: Rows, after: Rows, columns: frozenset[str]) -> int:
        """Return how many rows changed, in that of `columns` in which the fewest did; see `rows_changed`.

        Raises:
            ChaotianError: RELEASE_DIFFERENCE where an earlier snapshot is no longer there to compare with.
        """
        if before == after:
            return 0
        names = sorted(columns)
        try:
            return rows_changed(self._digests(before, names), self._digests(after, names))
        except ChaotianError as error:
            if error.code not in ("NOT_FOUND", "DATA_COLUMN"):
                raise
            raise ChaotianError(
                "RELEASE_DIFFERENCE", "the rows of an earlier release can no longer be compared with those at hand"
            ) from None

    def _digests(self, rows: Rows, names: Sequence[str]) -> Iterator[Digests]:
        frame = self._datasets.load_for_job(rows.dataset, names, snapshot=rows.snapshot)
        return row_digests(frame, names, select(frame, rows.selection), self._key)


def check_dates(rows: Sequence[Rows], history: DatasetHistory, columns: Sequence[str], min_rows: int) -> None:
    """Refuse two dates whose totals, released together, would show few rows as their difference.

    Raises:
        ChaotianError: RELEASE_DIFFERENCE.
    """
    for before, after in pairwise(rows):
        changed = history.changed(before, after, frozenset(columns))
        if 0 < changed < min_rows:
            raise ChaotianError(
                "RELEASE_DIFFERENCE",
                f"between the two dates {changed} rows changed here; the difference of the two totals would show them "
                f"(at least {min_rows} are needed)",
                hint="Choose dates that lie further apart.",
            )


def as_of_seconds(day: str) -> float | None:
    """Return the beginning of a day (YYYY-MM-DD, UTC) in seconds since the epoch, or None for none."""
    if not day:
        return None
    return datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC).timestamp()


@dataclass(frozen=True)
class Requester:
    """Who proposed a job, as this node's own directory knows it: name, role, fingerprint of its key (hex)."""

    name: str
    role: str
    key: str


def use_request(
    document: JobDocument,
    dataset: Dataset,
    owner: str,
    requester: Requester,
    *,
    operation: str,
    columns: tuple[str, ...],
    round_: int,
    members: tuple[str, ...],
    roster_changes: int,
    read: Collection[str],
) -> UseRequest:
    """Return what a round asks of a grant.

    Args:
        columns: that enter the round.
        read: all columns that the job reads, whose highest grade counts.
    """
    grades = [column.grade for column in dataset.schema.columns if column.name in read]
    return UseRequest(
        space=document.space,
        owner=owner,
        requester=requester.name,
        requester_key=requester.key,
        requester_role=requester.role,
        dataset=dataset.name,
        schema=dataset.schema_digest,
        grade=max(grades, default=5),
        as_of=as_of_seconds(dataset.as_of),
        columns=columns,
        purpose=document.purpose,
        operation=operation,
        job=document.id,
        round=round_,
        result_to=document.result_to,
        min_members=document.min_members,
        min_rows=document.min_rows,
        members=members,
        roster_changes=roster_changes,
        loss=document.plan.loss(len(document.members)),
    )


class GrantGate:
    """Decides each round of one job under one grant, from the node's own copy.

    Args:
        book: the node's grants.
        grant: id of the grant.
        request: what a round asks, from its terms and the roster changes so far.
    """

    def __init__(self, book: GrantBook, grant: str, request: Callable[[Terms, int], UseRequest]) -> None:
        self._book, self._grant, self._request = book, grant, request

    def charge(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Decide and reserve one round of the quota; raises the first denial."""
        self._book.charge(connection, self._grant, self._request(terms, roster_changes))

    def confirm(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Decide again before shares leave: a revocation in between still counts."""
        self._book.decide(connection, self._grant, self._request(terms, roster_changes)).check()


class Gates:
    """Several grants that must all hold, e.g. for the datasets of two dates."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = gates

    def charge(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Decide and reserve under every grant; raises the first denial."""
        for gate in self._gates:
            gate.charge(connection, terms, roster_changes)

    def confirm(self, connection: Connection, terms: Terms, roster_changes: int) -> None:
        """Decide again under every grant."""
        for gate in self._gates:
            gate.confirm(connection, terms, roster_changes)
