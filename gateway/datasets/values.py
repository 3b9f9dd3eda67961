"""The values of snapshots: one DuckDB file in the home, one table a snapshot, written once."""

# ruff: noqa: S608  (SQL is put together here from our own names only; snapshot ids are checked to be hex)

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from gateway.datasets.faults import Progress, Report, no_progress
from gateway.datasets.schema import Schema
from gateway.datasets.sources import Source, check_source, load_source, row_order
from gateway.datasets.tables import be_quiet
from gateway.storage.files import make_private_directory

if TYPE_CHECKING:
    from pandas import DataFrame

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

    def add(self, source: Source | Path, schema: Schema, progress: Progress = no_progress) -> tuple[str, int]:
        """Read `source`, check it and keep it; return (snapshot id, rows). The same content has the same id.

        Raises:
            ChaotianError: DATA_* for the source's faults, STORAGE for ours.
        """
        return self._keep(
            schema, lambda connection: load_source(connection, source, schema, "incoming", progress=progress)
        )

    def derive(self, schema: Schema, make: Callable[[Any], Any]) -> tuple[str, int]:
        """Keep what `make` computes of stored tables as a snapshot of its own; return (snapshot id, rows).

        Args:
            schema: of the outcome.
            make: takes a function from (snapshot, schema) to the Ibis table of its values under their own names, and
                returns an Ibis table with the columns of `schema` and its identifier.

        Raises:
            ChaotianError: DATA_* for an outcome that does not fit, STORAGE.
        """

        def fill(connection: Any) -> int:
            import ibis

            backend = ibis.duckdb.from_connection(connection)
            be_quiet(connection)

            def stored(snapshot: str, of: Schema) -> Any:
                return _named(backend.table(_table(snapshot)), of)

            outcome = make(stored)
            named = {f"c{place}": outcome[column.name] for place, column in enumerate(schema.columns)}
            picked = outcome.select(_id=outcome[schema.id], **named)
            query = str(ibis.to_sql(picked, dialect="duckdb"))
            connection.execute(f"CREATE TABLE incoming AS SELECT * FROM ({query}) ORDER BY {row_order(schema)}")
            rows = int(connection.execute("SELECT count(*) FROM incoming").fetchone()[0])
            if not rows:
                raise ChaotianError("DATA_SOURCE", "what was computed has no rows")
            return rows

        return self._keep(schema, fill)

    def _keep(self, schema: Schema, fill: Callable[[Any], int]) -> tuple[str, int]:
        """Let `fill` make the table `incoming` and return its rows; name it by its content."""
        with self._open(write=True) as connection:
            connection.execute("DROP TABLE IF EXISTS incoming")
            try:
                rows = fill(connection)
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
    def check(source: Source | Path, schema: Schema, progress: Progress = no_progress) -> Report:
        """Read and check `source` without keeping it; return all that is wrong with it."""
        with _errors(), _connect(":memory:", read_only=False) as connection:
            return check_source(connection, source, schema, progress)

    def load(self, snapshot: str, schema: Schema, columns: Sequence[str]) -> Frame:
        """Return `columns` of a snapshot, sorted by identifier: float64 (NaN: missing) or text (empty: missing).

        A date is its number of days since 1970-01-01, a month that of months since 1970-01.
        """
        if schema.period:
            raise ChaotianError(
                "DATA_DUPLICATE",
                f"this is a ledger: one identifier has a row for each {schema.period}",
                hint="Compute features from it, one row for each identifier: `chaotian features compute`.",
            )
        places = {name: schema.index(name) for name in dict.fromkeys(columns)}
        with self._open(write=False) as connection:
            return _frame(connection, _table(snapshot), schema, places, " ORDER BY _id")

    def read(self, snapshot: str, schema: Schema, columns: Sequence[str]) -> DataFrame:
        """Return the identifier and `columns` of a snapshot under their own names, in the order it is kept in."""
        with self._open(write=False) as connection:
            return _rows(connection, _table(snapshot), schema, columns, f" ORDER BY {row_order(schema)}")

    def last_period(self, snapshot: str, schema: Schema) -> datetime.date:
        """Return the first day of the last month of a ledger."""
        with self._open(write=False) as connection:
            place = schema.index(schema.period)
            found: datetime.date = connection.execute(f"SELECT max(c{place}) FROM {_table(snapshot)}").fetchone()[0]
            return found

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


def read_frame(
    source: Source | Path,
    schema: Schema,
    *,
    progress: Progress = no_progress,
    refuse: Callable[[Report], None] = Report.refuse,
) -> Frame:
    """Return the rows of a file in its own order, checked against `schema`, without keeping them.

    Args:
        refuse: raises where the report of the check has faults.

    Raises:
        ChaotianError: DATA_*.
    """
    with _errors(), _connect(":memory:", read_only=False) as connection:
        load_source(connection, source, schema, "incoming", order="place", progress=progress, refuse=refuse)
        places = {column.name: place for place, column in enumerate(schema.columns)}
        return _frame(connection, "incoming", schema, places, "")


def compute_rows(
    source: Source | Path, schema: Schema, make: Callable[[Any], Any], columns: Sequence[str]
) -> DataFrame:
    """Return `columns` of what `make` computes of the Ibis table of a source's checked rows, sorted by the first.

    Raises:
        ChaotianError: DATA_*.
    """
    import ibis

    with _errors(), _connect(":memory:", read_only=False) as connection:
        be_quiet(connection)
        load_source(connection, source, schema, "incoming")
        outcome = make(_named(ibis.duckdb.from_connection(connection).table("incoming"), schema))
        picked = outcome.select(**{f"c{place}": outcome[name] for place, name in enumerate(columns)})
        query = str(ibis.to_sql(picked, dialect="duckdb"))
        rows: DataFrame = connection.execute(f"SELECT * FROM ({query}) ORDER BY c0").df()
        return rows.set_axis(list(columns), axis=1)


def _named(table: Any, schema: Schema) -> Any:
    """Return a stored Ibis table under the schema's own names."""
    return table.rename({schema.id: "_id", **{column.name: f"c{i}" for i, column in enumerate(schema.columns)}})


def _rows(connection: Any, table: str, schema: Schema, columns: Sequence[str], order: str) -> DataFrame:
    picked = ", ".join(["_id", *(f"c{schema.index(name)}" for name in columns)])
    rows: DataFrame = connection.execute(f"SELECT {picked} FROM {table}{order}").df()
    return rows.set_axis([schema.id, *columns], axis=1)


def _frame(connection: Any, table: str, schema: Schema, places: Mapping[str, int], order: str) -> Frame:
    picked = ", ".join(["_id", *(_number(schema.columns[place].type, f"c{place}") for place in places.values())])
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


def _number(kind: str, column: str) -> str:
    if kind == "date":
        return f"date_diff('day', DATE '1970-01-01', {column}) AS {column}"
    return f"date_diff('month', DATE '1970-01-01', {column}) AS {column}" if kind == "month" else column


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
    cursor = connection.execute(f"SELECT sha256({' || '.join(parts)}) FROM {table} ORDER BY {row_order(schema)}")
    while rows := cursor.fetchmany(_FETCH):
        hashed.update("".join(row[0] for row in rows).encode())
    return hashed.hexdigest()


def _framed(expression: str) -> str:
    text = f"CAST({expression} AS VARCHAR)"
    return f"CASE WHEN {expression} IS NULL THEN '-' ELSE strlen({text}) || ':' || {text} END"
