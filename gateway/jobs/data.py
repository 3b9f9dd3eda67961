"""What a job reads of this node: the accepted snapshot, the rows that enter, the grant each round is held against."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from federation.errors import ChaotianError
from federation.learning.holdout import held_out
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.terms import Terms
from gateway.datasets.book import Dataset, DatasetBook
from gateway.datasets.digests import row_digests, rows_changed
from gateway.grants.book import GrantBook
from gateway.grants.decision import UseRequest
from gateway.jobs.document import JobDocument
from gateway.jobs.markers import Rows


def training_rows(document: JobDocument, snapshot: str) -> Rows:
    """Return the rows that enter the totals of a job: those of the accepted snapshot that are not held out."""
    selection = canonical_json({"holdout": document.holdout, "seed": document.seed}).decode()
    return Rows(document.dataset, snapshot, selection)


class DatasetHistory:
    """Compares the rows of two releases value by value, from the snapshots that the node keeps.

    Args:
        datasets: of the home.
    """

    def __init__(self, datasets: DatasetBook) -> None:
        self._datasets = datasets
        self._key = os.urandom(32)  # digests live as long as this process

    def changed(self, before: Rows, after: Rows, columns: frozenset[str]) -> int:
        """Return how many rows were added, removed or changed in `columns`.

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

    def _digests(self, rows: Rows, names: Sequence[str]) -> NDArray[np.uint64]:
        frame = self._datasets.load(rows.dataset, names, snapshot=rows.snapshot)
        selection = parse_canonical_json(rows.selection.encode())
        mask = ~held_out(frame.ids, selection["seed"], float(selection["holdout"]))
        return row_digests(frame, names, mask, self._key)


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
) -> UseRequest:
    """Return what a round asks of a grant."""
    grades = [column.grade for column in dataset.schema.columns if column.name in set(document.columns)]
    return UseRequest(
        space=document.space,
        owner=owner,
        requester=requester.name,
        requester_key=requester.key,
        requester_role=requester.role,
        dataset=document.dataset,
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
