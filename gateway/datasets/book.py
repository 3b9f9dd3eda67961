"""The datasets of a node: names, their current snapshots, and what jobs read from them."""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.primitives.encoding import canonical_json, parse_canonical_json
from gateway.datasets.faults import Progress, Report, no_progress
from gateway.datasets.schema import Schema
from gateway.datasets.sources import Source, as_source
from gateway.datasets.values import FILE, ValueStore
from gateway.storage.base import Database
from gateway.storage.tables.datasets import dataset_snapshots, dataset_split, dataset_versions, datasets

if TYPE_CHECKING:
    from pandas import DataFrame

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})@([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Version:
    """One snapshot under its lasting name `DATASET@NUMBER`."""

    name: str
    snapshot: str
    rows: int
    as_of: str
    source: str
    added: int


@dataclass(frozen=True)
class Dataset:
    """A dataset as a job binds to it.

    Args:
        name: what the owner calls it.
        snapshot: id of its current content, 64 hex digits.
        schema: what its columns mean.
        rows: number of rows.
        as_of: day the data speak of, or empty.
        source: name of the file or table it came from.
        added: seconds since the epoch, UTC.
    """

    name: str
    snapshot: str
    schema: Schema
    rows: int
    as_of: str
    source: str
    added: int

    @property
    def schema_digest(self) -> str:
        """SHA-256 of the schema, 64 hex digits."""
        return self.schema.digest

    def document(self) -> dict[str, Any]:
        """Return the dataset as JSON, without any value."""
        return {
            "name": self.name,
            "snapshot": self.snapshot,
            "schema_digest": self.schema_digest,
            "rows": self.rows,
            "as_of": self.as_of,
            "source": self.source,
            "added": self.added,
            "columns": len(self.schema.columns),
        }


class DatasetBook:
    """Datasets of one home; the names in SQL, the values in DuckDB.

    Args:
        database: the home's database, migrated.
        home: the home folder; values are in its `data.duckdb`.
    """

    def __init__(self, database: Database, home: Path) -> None:
        self._database = database
        self._values = ValueStore(home / FILE)
        self._split: bytes | None = None

    def add(
        self, name: str, source: Source | Path, schema: Schema, *, now: int, progress: Progress = no_progress
    ) -> Dataset:
        """Read a source into a new snapshot and point `name` to it. Earlier snapshots stay as they are.

        Raises:
            ChaotianError: USAGE for a name that is none; DATA_* for the source's faults.
        """
        _check_name(name)
        # Values first: a crash before the row in SQL leaves a table that nothing points to, never the reverse.
        snapshot, rows = self._values.add(source, schema, progress)
        return self._point(name, snapshot, schema, rows, as_source(source).name, now)

    def derive(self, name: str, schema: Schema, make: Callable[[Any], Any], source: str, *, now: int) -> Dataset:
        """Point `name` to a snapshot that is computed of others; see `ValueStore.derive`.

        Args:
            source: what it was computed of, in a few words.
        """
        _check_name(name)
        snapshot, rows = self._values.derive(schema, make)
        return self._point(name, snapshot, schema, rows, source, now)

    def _point(self, name: str, snapshot: str, schema: Schema, rows: int, source: str, now: int) -> Dataset:
        with self._database.begin() as connection:
            known = connection.execute(
                select(dataset_snapshots.c.snapshot).where(dataset_snapshots.c.snapshot == snapshot)
            ).first()
            if known is None:
                connection.execute(
                    insert(dataset_snapshots).values(
                        snapshot=snapshot,
                        schema_digest=schema.digest,
                        schema_document=canonical_json(schema.document()),
                        rows=rows,
                        as_of=schema.as_of,
                        source=source[:255],
                        added=now,
                    )
                )
            last = connection.execute(
                select(dataset_versions.c.number, dataset_versions.c.snapshot)
                .where(dataset_versions.c.name == name)
                .order_by(dataset_versions.c.number.desc())
                .limit(1)
            ).first()
            if last is None or last.snapshot != snapshot:
                number = 1 if last is None else int(last.number) + 1
                connection.execute(
                    insert(dataset_versions).values(name=name, number=number, snapshot=snapshot, added=now)
                )
            changed = connection.execute(
                update(datasets).where(datasets.c.name == name).values(snapshot=snapshot, changed=now)
            )
            if not changed.rowcount:
                connection.execute(insert(datasets).values(name=name, snapshot=snapshot, changed=now))
        return self.get(name)

    @staticmethod
    def check(source: Source | Path, schema: Schema, progress: Progress = no_progress) -> Report:
        """Check a source against a schema without keeping anything; return all that is wrong with it."""
        return ValueStore.check(source, schema, progress)

    def all(self) -> list[Dataset]:
        """Return all datasets, by name."""
        with self._database.read() as connection:
            rows = connection.execute(_JOINED.order_by(datasets.c.name)).all()
        return [_dataset(row) for row in rows]

    def get(self, name: str) -> Dataset:
        """Return the dataset `name`, or its earlier snapshot `NAME@NUMBER`; NOT_FOUND where there is none."""
        version = _VERSION.fullmatch(name)
        with self._database.read() as connection:
            if version:
                where = (dataset_versions.c.name == version[1]) & (dataset_versions.c.number == int(version[2]))
                row = connection.execute(_VERSIONS.where(where)).first()
            else:
                row = connection.execute(_JOINED.where(datasets.c.name == name)).first()
        if row is None:
            raise ChaotianError("NOT_FOUND", f"there is no dataset {name[:64]}", hint="See `chaotian data list`.")
        return _dataset(row)

    def versions(self, name: str) -> list[Version]:
        """Return all snapshots `name` has pointed to, the latest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                _VERSIONS.where(dataset_versions.c.name == name).order_by(dataset_versions.c.number.desc())
            ).all()
        return [
            Version(f"{row.name}@{row.number}", row.snapshot, int(row.rows), row.as_of, row.source, int(row.since))
            for row in rows
        ]

    def snapshot_schema(self, snapshot: str) -> Schema:
        """Return the schema of a snapshot, current or earlier; NOT_FOUND where it is unknown."""
        with self._database.read() as connection:
            row = connection.execute(
                select(dataset_snapshots.c.schema_document).where(dataset_snapshots.c.snapshot == snapshot)
            ).first()
        if row is None:
            raise ChaotianError("NOT_FOUND", f"there is no snapshot {snapshot[:64]}")
        return Schema.from_document(parse_canonical_json(bytes(row[0])))

    def load(self, name: str, columns: Sequence[str], *, snapshot: str = "") -> Frame:
        """Return identifiers and `columns` of a dataset, in the order of the identifiers.

        Args:
            columns: names in the schema.
            snapshot: the snapshot a job is bound to; the current one where empty.

        Raises:
            ChaotianError: NOT_FOUND, DATA_COLUMN.
        """
        wanted = snapshot or self.get(name).snapshot
        return self._values.load(wanted, self.snapshot_schema(wanted), columns)

    def load_for_job(self, name: str, columns: Sequence[str], *, snapshot: str = "") -> Frame:
        """Do what `load` does, with pseudonyms in place of the identifiers: what jobs work on."""
        frame = self.load(name, columns, snapshot=snapshot)
        return Frame(self.pseudonyms(frame.ids), frame.columns)

    def pseudonyms(self, ids: Sequence[str]) -> list[str]:
        """Return what stands for each identifier in jobs: 32 hex digits under a secret of this home.

        Which rows a job holds out follows from the job's seed and these. By the identifiers themselves, who can list
        them could search for a seed that holds out one firm of a group, and read its outcome from two totals.
        """
        key = self._split_key()
        return [hashlib.blake2b(name.encode(), key=key, digest_size=16).hexdigest() for name in ids]

    def _split_key(self) -> bytes:
        if self._split is None:
            query = select(dataset_split.c.key)
            with self._database.read() as connection:
                self._split = connection.execute(query).scalar_one_or_none()
        if self._split is None:
            with self._database.begin() as connection:
                self._split = connection.execute(query).scalar_one_or_none()
                if self._split is None:
                    self._split = secrets.token_bytes(32)
                    connection.execute(insert(dataset_split).values(id=1, key=self._split))
        return self._split

    def read(self, name: str, columns: Sequence[str] = ()) -> DataFrame:
        """Return the rows of a dataset, or of `NAME@NUMBER`, for its owner: the identifier, then `columns` (or all).

        Raises:
            ChaotianError: NOT_FOUND, DATA_COLUMN.
        """
        dataset = self.get(name)
        wanted = list(columns) or [column.name for column in dataset.schema.columns]
        return self._values.read(dataset.snapshot, dataset.schema, wanted)

    def last_period(self, dataset: Dataset) -> datetime.date:
        """Return the first day of the last month of a ledger."""
        return self._values.last_period(dataset.snapshot, dataset.schema)

    def summary(self, name: str) -> list[dict[str, Any]]:
        """Return the columns of a dataset with their numbers of missing and different values, for the owner."""
        dataset = self.get(name)
        return self._values.summary(dataset.snapshot, dataset.schema)


_JOINED = select(datasets.c.name, dataset_snapshots).join(
    dataset_snapshots, datasets.c.snapshot == dataset_snapshots.c.snapshot
)
_VERSIONS = select(
    dataset_versions.c.name, dataset_versions.c.number, dataset_versions.c.added.label("since"), dataset_snapshots
).join(dataset_snapshots, dataset_versions.c.snapshot == dataset_snapshots.c.snapshot)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ChaotianError("USAGE", "a dataset's name has 1 to 64 letters, digits, dots, hyphens and underscores")


def _dataset(row: Any) -> Dataset:
    return Dataset(
        name=row.name,
        snapshot=row.snapshot,
        schema=Schema.from_document(parse_canonical_json(bytes(row.schema_document))),
        rows=int(row.rows),
        as_of=row.as_of,
        source=row.source,
        added=int(row.added),
    )
