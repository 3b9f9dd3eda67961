"""Tables read through Ibis: Parquet and DuckDB files, data frames, PostgreSQL. Columns are cast to text on the spot.

Nothing is written to an owner's database: files are opened read-only, PostgreSQL in read-only transactions.
"""

# ruff: noqa: S608  (SQL is put together here from our own names and from what Ibis compiles)

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from federation.errors import ChaotianError
from gateway.datasets.csv_files import MAX_BYTES, read_csv
from gateway.datasets.faults import Progress

if TYPE_CHECKING:
    from gateway.datasets.sources import Source

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 600
_CHUNK = 100_000
SETTINGS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}
# Of libpq's parameters those that may stand in an address; passwords come from elsewhere, `options` is ours.
_ALLOWED = {
    "host",
    "port",
    "user",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "channel_binding",
}


class OwnersTable:
    """A table of the owner's, as an Ibis expression.

    Args:
        name: for errors.
        table: the Ibis table.
        backend: the Ibis backend it lives in, `duckdb` or `postgres`.
    """

    def __init__(self, name: str, table: Any, backend: Any) -> None:
        self.name, self.table, self._backend = name, table, backend

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return list(self.table.columns)

    def change(self, compute: Callable[[Any], Any]) -> None:
        """Put what `compute` makes of the table in its place; computed where the rows lie, once it is read."""
        with _errors(self.name):
            self.table = compute(self.table)

    def read(self, target: Any, columns: Sequence[str], keys: Sequence[str], raw: str, progress: Progress) -> None:
        """Make the table `raw` of `place` and `c0`, `c1`, … (text) in the DuckDB connection `target`.

        Args:
            columns: names to read, `c0` first.
            keys: columns to sort the rows of a server by, so that a row number means something.
        """
        import ibis

        remote = self._backend.name == "postgres"
        ordered = self.table.order_by([self.table[name] for name in keys]) if remote else self.table
        picked = ordered.select(**{f"c{i}": _as_text(ordered[name]) for i, name in enumerate(columns)})
        progress(0.1, "reading the table")
        if remote:
            self._copy(target, str(ibis.to_sql(picked, dialect="postgres")), len(columns), raw)
        else:
            query = str(ibis.to_sql(picked, dialect="duckdb"))
            with _errors(self.name):
                target.register("incoming_rows", self._backend.con.sql(query).to_arrow_reader(_CHUNK))
                target.execute(f"CREATE TEMP TABLE {raw} AS SELECT row_number() OVER () AS place, * FROM incoming_rows")
                target.unregister("incoming_rows")
        progress(1.0, "read the table")

    def _copy(self, target: Any, query: str, width: int, raw: str) -> None:
        """By way of COPY and a private file: a tenth of the time of fetching rows."""
        folder = Path(tempfile.mkdtemp(prefix="chaotian-"))
        path = folder / "table.csv"
        try:
            with _errors(self.name):
                size = 0
                copying = f"COPY ({query}) TO STDOUT WITH (FORMAT csv)"
                with self._backend.con.cursor() as cursor, path.open("wb") as out, cursor.copy(copying) as copy:
                    for block in copy:
                        size += len(block)
                        if size > MAX_BYTES:
                            raise ChaotianError("OVERSIZED", f"{self.name} holds more than {MAX_BYTES >> 30} GiB")
                        out.write(block)
            read_csv(target, path, self.name, width, raw, header=False)
        finally:
            path.unlink(missing_ok=True)
            folder.rmdir()


def be_quiet(connection: Any) -> None:
    """Switch DuckDB's own progress bar off, which would write over ours."""
    import duckdb

    # Refused in a notebook without ipywidgets, where there cannot be one anyway.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")


@contextmanager
def open_table(source: Source) -> Iterator[OwnersTable]:
    """Give the table that `source` names, for as long as the connection lives.

    Raises:
        ChaotianError: DATA_SOURCE where it is not there, not readable or does not answer.
    """
    if source.kind == "postgresql":
        with _postgresql(source) as table:
            yield table
    elif source.kind == "frame":
        with _memory(source) as table:
            yield table
    else:
        with _file(source) as table:
            yield table


@contextmanager
def _memory(source: Source) -> Iterator[OwnersTable]:
    import ibis

    rows = _arrow(source)
    with _errors(source.name):
        backend = ibis.duckdb.connect(":memory:", **SETTINGS)
        be_quiet(backend.con)
    try:
        with _errors(source.name, "a column has a type that is not known here"):
            backend.con.register("frame", rows)
        yield OwnersTable(source.name, backend.table("frame"), backend)
    finally:
        backend.disconnect()


def _arrow(source: Source) -> Any:
    """Return a data frame as an Arrow table, column by column, so that an error can name the column."""
    import pandas
    import pyarrow

    frame = source.frame
    if not isinstance(frame, pandas.DataFrame):
        raise ChaotianError("USAGE", f"{source.name} is a {type(frame).__name__}, a pandas DataFrame is expected")
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names):
        raise ChaotianError("DATA_COLUMN", f"{source.name}: the names of columns are texts")
    if not names:
        raise ChaotianError("DATA_COLUMN", f"{source.name} has no columns")
    if len({name.lower() for name in names}) < len(names):  # DuckDB takes them for the same
        twin = next(name for i, name in enumerate(names) if name.lower() in {n.lower() for n in names[:i]})
        raise ChaotianError("DATA_COLUMN", f"{source.name}: column {twin[:120]} is there twice (capitals do not count)")
    arrays = []
    for name in names:
        column = frame[name]
        if isinstance(column.dtype, pandas.PeriodDtype):  # a month as people write it
            column = column.astype("string")
        try:
            array = pyarrow.Array.from_pandas(column)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
            raise ChaotianError(
                "DATA_TYPE",
                f"{source.name}, column {name[:120]}: it mixes values of several types",
                hint="Make it all numbers or all text, as with .astype(str).",
            ) from None
        if pyarrow.types.is_float16(array.type):  # unknown to DuckDB
            array = array.cast(pyarrow.float32())
        arrays.append(array)
    return pyarrow.table(arrays, names=names)


@contextmanager
def _file(source: Source) -> Iterator[OwnersTable]:
    import ibis

    path = source.path
    if not path.is_file():
        raise ChaotianError("DATA_SOURCE", f"{path} is not there, or not a file")
    if any(letter in str(path) for letter in "*?["):
        raise ChaotianError("DATA_SOURCE", f"{path} has one of * ? [ in its name", hint="Rename the file.")
    database = source.kind == "duckdb"
    if database and not source.table:
        raise ChaotianError("USAGE", f"{path.name} is a database", hint="Name its table with --table.")
    settings = dict(SETTINGS)
    if database:
        settings["enable_external_access"] = "false"  # a view of the file's must not reach out
    with _errors(path.name):
        backend = ibis.duckdb.connect(str(path) if database else ":memory:", read_only=database, **settings)
        be_quiet(backend.con)
    try:
        with _errors(path.name):
            table = _named(backend, source.table) if database else backend.read_parquet(str(path))
        yield OwnersTable(source.name, table, backend)
    finally:
        backend.disconnect()


@contextmanager
def _postgresql(source: Source) -> Iterator[OwnersTable]:
    import ibis

    if not source.table:
        raise ChaotianError("USAGE", "the source is a database", hint="Name its table with --table.")
    with _errors(source.table):
        backend = ibis.postgres.connect(
            **_parameters(source),
            connect_timeout=CONNECT_SECONDS,
            application_name="chaotian",
            options=f"-c statement_timeout={1000 * STATEMENT_SECONDS} -c default_transaction_read_only=on "
            "-c client_encoding=UTF8 -c datestyle=ISO -c extra_float_digits=1",
        )
    try:
        with _errors(source.table):
            table = _named(backend, source.table)
        yield OwnersTable(source.name, table, backend)
    finally:
        backend.disconnect()


def _parameters(source: Source) -> Mapping[str, Any]:
    """Return the connection's parameters from the address; USAGE where it holds a password or what is not known."""
    try:
        url = urlsplit(source.where)
        port = url.port
        rest = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
    except ValueError:
        raise ChaotianError("USAGE", "the address is not one, as postgresql://user@host:5432/database") from None
    if url.password is not None or "password" in rest:
        raise ChaotianError(
            "USAGE",
            "the address holds a password, which others can see in the list of processes",
            hint="Leave it out; set PGPASSWORD or PGPASSFILE, or give --password-file.",
        )
    unknown = sorted(set(rest) - _ALLOWED)
    if unknown:
        raise ChaotianError("USAGE", f"the address has the parameter {unknown[0][:40]}, which is not allowed")
    out: dict[str, Any] = {"host": url.hostname or None, "user": unquote(url.username) if url.username else None}
    named = rest.pop("dbname", None)
    out["database"] = unquote(url.path.lstrip("/")) or named
    given = rest.pop("port", "")
    if given and not given.isdigit():
        raise ChaotianError("USAGE", "the port of the address is not a number")
    out["port"] = port or int(given or 5432)
    if "host" in rest:  # a folder, for a socket of this machine
        out["host"] = rest.pop("host")
    if "user" in rest:
        out["user"] = rest.pop("user")
    return {**out, **rest, **({"password": source.password} if source.password else {})}


def _named(backend: Any, name: str) -> Any:
    schema, _, table = name.rpartition(".")
    return backend.table(table, database=schema) if schema else backend.table(table)


def _as_text(column: Any) -> Any:
    import ibis

    kind = column.type()
    if kind.is_boolean():
        return ibis.cases((column, "1"), (~column, "0"))  # PostgreSQL casts no boolean to a bigint
    if kind.is_binary() or kind.is_nested() or kind.is_geospatial():
        raise ChaotianError("DATA_TYPE", f"column {column.get_name()[:120]} holds neither text, numbers nor days")
    text = column.cast("string")
    if kind.is_timestamp() and kind.timezone is None:
        # Written as a day where it is one: times at midnight would take the slow way through every check.
        day = column.date()
        return ibis.cases((column == day.cast(kind), day.cast("string")), else_=text)
    return text


@contextmanager
def _errors(name: str, unreadable: str = "it is not a Parquet or DuckDB file that can be read") -> Iterator[None]:
    """Turn whatever a driver raises into DATA_SOURCE; its own text may hold addresses, statements and values."""
    import duckdb
    import psycopg
    from ibis.common.exceptions import IbisError, TableNotFound

    def refuse(why: str, hint: str = "") -> ChaotianError:
        return ChaotianError("DATA_SOURCE", f"{name}: {why}", hint=hint)

    try:
        yield
    except TableNotFound:
        raise refuse("there is no such table", "Name it with --table, as SCHEMA.TABLE.") from None
    except psycopg.errors.QueryCanceled:
        raise refuse(f"the database did not answer within {STATEMENT_SECONDS} seconds") from None
    except psycopg.errors.InsufficientPrivilege:
        raise refuse("this user may not read the table") from None
    except psycopg.OperationalError as error:
        text = str(error).lower()
        if "password" in text:
            hint = "Set PGPASSWORD or PGPASSFILE, or give --password-file."
            raise refuse("the database did not accept user and password", hint) from None
        reason = "in time" if "timeout" in text else "at this address"
        raise refuse(f"the database cannot be reached {reason}, or refuses the connection") from None
    except psycopg.Error:
        raise refuse("the database refused to read the table") from None
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise refuse("another program has this database open for writing") from None
        raise refuse(unreadable) from None
    except (duckdb.Error, IbisError):
        raise refuse(unreadable) from None
    except OSError as error:
        raise refuse(f"it cannot be read or copied: {os.strerror(error.errno or 0)}") from None
