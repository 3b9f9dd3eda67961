"""The datasets of a node: names, their current snapshots, and what jobs read from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.primitives.encoding import canonical_json, parse_canonical_json
from gateway.datasets.schema import Schema
from gateway.datasets.values import FILE, ValueStore
from gateway.storage.base import Database
from gateway.storage.tables.datasets import dataset_snapshots, datasets

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Dataset:
    """A dataset as a job binds to it.

    Args:
        name: what the owner calls it.
        snapshot: id of its current content, 64 hex digits.
        schema: what its columns mean.
        rows: number of rows.
        as_of: day the data speak of, or empty.
        source: name of the file it came from.
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

    def add(self, name: str, source: Path, schema: Schema, *, now: int) -> Dataset:
        """Read a file into a new snapshot and point `name` to it. Earlier snapshots stay as they are.

        Raises:
            ChaotianError: DATA_* for the file's faults; EXISTS where the name stands for other columns.
        """
        if not _NAME.fullmatch(name):
            raise ChaotianError("USAGE", "a dataset's name has 1 to 64 letters, digits, dots, hyphens and underscores")
        # Values first: a crash before the row in SQL leaves a table that nothing points to, never the reverse.
        snapshot, rows = self._values.add(source, schema)
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
                        source=source.name[:255],
                        added=now,
                    )
                )
            changed = connection.execute(
                update(datasets).where(datasets.c.name == name).values(snapshot=snapshot, changed=now)
            )
            if not changed.rowcount:
                connection.execute(insert(datasets).values(name=name, snapshot=snapshot, changed=now))
        return self.get(name)

    @staticmethod
    def check(source: Path, schema: Schema) -> int:
        """Check a file against a schema without keeping anything; return its number of rows."""
        return ValueStore.check(source, schema)

    def all(self) -> list[Dataset]:
        """Return all datasets, by name."""
        with self._database.read() as connection:
            rows = connection.execute(_JOINED.order_by(datasets.c.name)).all()
        return [_dataset(row) for row in rows]

    def get(self, name: str) -> Dataset:
        """Return the dataset `name`; NOT_FOUND where there is none."""
        with self._database.read() as connection:
            row = connection.execute(_JOINED.where(datasets.c.name == name)).first()
        if row is None:
            raise ChaotianError("NOT_FOUND", f"there is no dataset {name[:64]}", hint="See `chaotian data list`.")
        return _dataset(row)

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

    def summary(self, name: str) -> list[dict[str, Any]]:
        """Return the columns of a dataset with their numbers of missing and different values, for the owner."""
        dataset = self.get(name)
        return self._values.summary(dataset.snapshot, dataset.schema)


_JOINED = select(datasets.c.name, dataset_snapshots).join(
    dataset_snapshots, datasets.c.snapshot == dataset_snapshots.c.snapshot
)


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
