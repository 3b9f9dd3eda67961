"""The values of snapshots: one DuckDB file in the home, one table a snapshot, written once."""

# ruff: noqa: S608  (SQL is put together here from our own names only; snapshot ids are checked to be hex)

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from gateway.datasets.schema import Schema
from gateway.datasets.sources import load_source
from gateway.storage.files import make_private_directory

FILE = "data.duckdb"
BUSY_SECONDS = 30.0
_FETCH = 50_000


class ValueStore:
    """Values at rest. DuckDB lets one process write at a time, so the file is open only while it is used.

    Args:
        path: the DuckDB file.
        busy_seconds: how long to wait for another process.
        sleep, monotonic: for tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float = BUSY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._busy, self._sleep, self._monotonic = path, busy_seconds, sleep, monotonic

    def add(self, source: Path, schema: Schema) -> tuple[str, int]:
        """Read `source`, check it and keep it; return (snapshot id, rows). The same content has the same id.

        Raises:
            ChaotianError: DATA_* for the file's faults, STORAGE for ours.
        """
        with self._open(write=True) as connection:
            connection.execute("DROP TABLE IF EXISTS incoming")
            try:
                rows = load_source(connection, source, schema, "incoming")
                snapshot = _content_id(connection, "incoming", schema)
                connection.execute("BEGIN")
                connection.execute(f"DROP TABLE IF EXISTS {_table(snapshot)}")
                connection.execute(f"ALTER TABLE incoming RENAME TO {_table(snapshot)}")
                connection.execute("COMMIT")
                connection.execute("CHECKPOINT")
            finally:
                connection.execute("DROP TABLE IF EXISTS incoming")
        return snapshot, rows

    @staticmethod
    def check(source: Path, schema: Schema) -> int:
        """Read and check `source` without keeping it; return its number of rows."""
        with _errors(), _connect(":memory:", read_only=False) as connection:
            return load_source(connection, source, schema, "incoming")

    def load(self, snapshot: str, schema: Schema, columns: Sequence[str]) -> Frame:
        """Return `columns` of a snapshot, sorted by identifier: float64 (NaN: missing) or text (empty: missing)."""
        places = {name: schema.index(name) for name in dict.fromkeys(columns)}
        with self._open(write=False) as connection:
            return _frame(connection, _table(snapshot), schema, places, " ORDER BY _id")

    def summary(self, snapshot: str, schema: Schema) -> list[dict[str, Any]]:
        """Return per column the number of missing and of different values: for the owner's eyes only."""
        with self._open(write=False) as connection:
            out = []
            for place, column in enumerate(schema.columns):
                found = connection.execute(
                    f"SELECT count(*) - count(c{place}), count(DISTINCT c{place}) FROM {_table(snapshot)}"
                ).fetchone()
                out.append({**column.document(), "absent": int(found[0]), "different": int(found[1])})
        return out

    @contextmanager
    def _open(self, *, write: bool) -> Iterator[Any]:
        import duckdb

        if not write and not self._path.exists():
            raise ChaotianError("NOT_FOUND", "this home has no data yet", hint="Add some: `chaotian data add`.")
        make_private_directory(self._path.parent)
        end = self._monotonic() + self._busy
        while True:
            try:
                # Connecting in read-only mode lets several processes read at once.
                connection = duckdb.connect(str(self._path), read_only=not write, config=_CONFIG)
                break
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                # Another process writes, or another thread of this one has the file open the other way: wait.
                busy = "lock" in str(error).lower() or isinstance(error, duckdb.ConnectionException)
                if not busy or self._monotonic() >= end:
                    raise ChaotianError("STORAGE", "the data file is in use by another process, or damaged") from None
                self._sleep(0.05)
            except duckdb.Error:
                raise ChaotianError("STORAGE", "the data file cannot be opened") from None
        try:
            if write:
                os.chmod(self._path, 0o600)  # noqa: PTH101
            with _errors():
                yield connection
        finally:
            connection.close()


def read_frame(source: Path, schema: Schema) -> Frame:
    """Return the rows of a file in its own order, checked against `schema`, without keeping them.

    Raises:
        ChaotianError: DATA_*.
    """
    with _errors(), _connect(":memory:", read_only=False) as connection:
        load_source(connection, source, schema, "incoming", order="place")
        places = {column.name: place for place, column in enumerate(schema.columns)}
        return _frame(connection, "incoming", schema, places, "")


def _frame(connection: Any, table: str, schema: Schema, places: Mapping[str, int], order: str) -> Frame:
    picked = ", ".join(["_id", *(f"c{place}" for place in places.values())])
    data = connection.execute(f"SELECT {picked} FROM {table}{order}").fetchnumpy()
    ids = [str(value) for value in data["_id"].tolist()]
    out: dict[str, Any] = {}
    for name, place in places.items():
        column = data[f"c{place}"]
        if schema.columns[place].type == "category":
            values = np.ma.filled(column.astype(object), "") if np.ma.isMaskedArray(column) else column
            out[name] = np.array(["" if value is None else str(value) for value in values.tolist()], dtype=object)
        else:
            out[name] = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    return Frame(ids, out)


# A data file must not reach out: no extension is fetched or loaded, whatever a query names.
_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}


@contextmanager
def _connect(path: str, *, read_only: bool) -> Iterator[Any]:
    import duckdb

    connection = duckdb.connect(path, read_only=read_only, config=_CONFIG)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _errors() -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        text = str(error).lower()
        if "does not exist" in text:
            raise ChaotianError("NOT_FOUND", "this snapshot is not in the data file") from None
        reason = "the disk is full" if "no space" in text else "the database refused the statement"
        raise ChaotianError("STORAGE", f"the data could not be read or written: {reason}") from None


def _table(snapshot: str) -> str:
    if len(snapshot) != 64 or not set(snapshot) <= set("0123456789abcdef"):
        raise ChaotianError("NOT_FOUND", "a snapshot id has 64 hex digits")
    return f"snapshot_{snapshot}"


def _content_id(connection: Any, table: str, schema: Schema) -> str:
    """Return SHA-256 over schema, day and all values, rows in order of their identifiers."""
    # Length before text, '-' for a missing value: two different rows never give the same bytes.
    parts = [_framed("_id"), *(_framed(f"c{place}") for place in range(len(schema.columns)))]
    hashed = hashlib.sha256(b"chaotian/snapshot/v1\x00" + f"{schema.digest} {schema.as_of}\n".encode())
    cursor = connection.execute(f"SELECT sha256({' || '.join(parts)}) FROM {table} ORDER BY _id")
    while rows := cursor.fetchmany(_FETCH):
        hashed.update("".join(row[0] for row in rows).encode())
    return hashed.hexdigest()


def _framed(expression: str) -> str:
    text = f"CAST({expression} AS VARCHAR)"
    return f"CASE WHEN {expression} IS NULL THEN '-' ELSE strlen({text}) || ':' || {text} END"
