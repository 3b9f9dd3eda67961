"""From a file or a table of a database to a table in DuckDB with the schema's types, or a report of its faults.

Rows are counted as a spreadsheet shows them: the header line of a CSV or a sheet is row 1, the first row of data row 2;
in Parquet files, data frames and tables the first row is row 1 (of a table, in the order of the identifier). Values
are never quoted in errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.errors import ChaotianError
from gateway.datasets.checks import Checker
from gateway.datasets.csv_files import as_utf8, csv_header, header_line, read_csv
from gateway.datasets.faults import Progress, Report, no_progress
from gateway.datasets.schema import Schema

if TYPE_CHECKING:
    from pandas import DataFrame

RAW = "raw_rows"
DUCKDB_SUFFIXES = (".duckdb", ".ddb", ".db")


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Args:
        where: path of a file, or `postgresql://user@host:port/database`; what to call a `frame`.
        table: of a database, with its schema where it has one: `lending.loans`.
        sheet: of a spreadsheet; the only one where empty.
        password: of a database; libpq's own ways (PGPASSWORD, PGPASSFILE) where empty.
        compute: what to read in place of a Parquet file or a table: takes its Ibis table, returns one that is computed
            where the rows lie.
        frame: rows in memory, a pandas DataFrame; its index is not read.
    """

    where: str
    table: str = ""
    sheet: str = ""
    password: str = field(default="", repr=False)
    compute: Callable[[Any], Any] | None = field(default=None, repr=False, compare=False)
    frame: DataFrame | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.where)

    @property
    def kind(self) -> str:
        """One of `csv`, `xlsx`, `parquet`, `duckdb`, `postgresql`, `frame`."""
        if self.frame is not None:
            return "frame"
        if self.where.startswith(("postgresql://", "postgres://")):
            return "postgresql"
        suffix = self.path.suffix.lower()
        if suffix == ".parquet":
            return "parquet"
        if suffix in DUCKDB_SUFFIXES:
            return "duckdb"
        return "xlsx" if suffix in (".xlsx", ".xlsm") or _magic(self.path) == b"PK\x03\x04" else "csv"

    @property
    def name(self) -> str:
        """What errors and lists call it: without host, user or password."""
        if self.kind == "postgresql":
            return self.table
        if self.kind == "frame":
            return self.where
        return f"{self.path.name}/{self.table}" if self.table else self.path.name


def as_source(source: Source | Path | str) -> Source:
    """Return `source` as a Source."""
    return source if isinstance(source, Source) else Source(str(source))


def load_source(
    connection: Any,
    source: Source | Path,
    schema: Schema,
    target: str,
    *,
    order: str = "",
    progress: Progress = no_progress,
    refuse: Callable[[Report], None] = Report.refuse,
) -> int:
    """Read `source` into the new table `target` of a DuckDB connection; return its number of rows.

    The table has the columns `_id` (text), then `c0`, `c1`, … for the schema's in order (double, bigint, text or date),
    and is sorted by `_id` and period, or with `order="place"` as the source is. The source's names are not used in SQL,
    which takes `Amount` and `amount` for the same.

    Raises:
        ChaotianError: DATA_* for the first fault.
    """
    given = as_source(source)
    try:
        checker, report = _checked(connection, given, schema, progress)
        refuse(report)
        checker.typed(target, order or row_order(schema))
        return report.rows
    finally:
        connection.execute(f"DROP TABLE IF EXISTS {RAW}")


def check_source(connection: Any, source: Source | Path, schema: Schema, progress: Progress = no_progress) -> Report:
    """Check all of `source` and return every kind of fault in it.

    Raises:
        ChaotianError: DATA_SOURCE or DATA_COLUMN where it cannot be read as a table at all.
    """
    try:
        return _checked(connection, as_source(source), schema, progress)[1]
    finally:
        connection.execute(f"DROP TABLE IF EXISTS {RAW}")


def row_order(schema: Schema) -> str:
    """Return the columns that the rows of a stored table are sorted by: they name a row."""
    return f"_id, c{schema.index(schema.period)}" if schema.period else "_id"


def header_of(source: Source | Path) -> list[str]:
    """Return the column names of a file; DATA_SOURCE or DATA_COLUMN where it has none."""
    given = as_source(source)
    if given.kind == "csv":
        return csv_header(given.path)
    if given.kind == "xlsx":
        from gateway.datasets.spreadsheets import as_csv

        with as_csv(given.path, given.sheet) as plain:
            return header_line(plain, given.name)
    from gateway.datasets.tables import open_table

    with open_table(given) as table:
        return table.header


def _checked(connection: Any, source: Source, schema: Schema, progress: Progress) -> tuple[Checker, Report]:
    def reading(share: float, what: str) -> None:
        progress(0.4 * share, what)

    def checking(share: float, what: str) -> None:
        progress(0.4 + 0.6 * share, what)

    header = _read(connection, source, schema, reading)
    rows = int(connection.execute(f"SELECT count(*) FROM {RAW}").fetchone()[0])  # noqa: S608  (our own name)
    if not rows:
        raise ChaotianError("DATA_SOURCE", f"{source.name} has a header but no rows")
    checker = Checker(connection, RAW, schema, {name: f"c{i}" for i, name in enumerate(header)})
    checker.run(checking)
    return checker, Report(source.name, rows, tuple(checker.faults), tuple(checker.warnings))


def _read(connection: Any, source: Source, schema: Schema, progress: Progress) -> list[str]:
    """Make the table RAW of `place` and `c0`, `c1`, … (text) and return the names of the latter."""
    kind = source.kind
    if source.compute and kind in ("csv", "xlsx"):
        raise ChaotianError("USAGE", f"{source.name} is no table", hint="Add it first: `chaotian data add`.")
    if kind in ("csv", "xlsx"):
        from gateway.datasets.spreadsheets import as_csv

        opened = as_csv(source.path, source.sheet, progress) if kind == "xlsx" else as_utf8(source.path, progress)
        with opened as plain:
            header = header_line(plain, source.name)
            _check_header(header, schema, source.name)
            read_csv(connection, plain, source.name, len(header), RAW)
        return header
    from gateway.datasets.tables import open_table

    with open_table(source) as table:
        if source.compute:
            table.change(source.compute)
        _check_header(table.header, schema, source.name)
        needed = [schema.id, *(column.name for column in schema.columns)]
        table.read(connection, needed, [schema.id, *([schema.period] if schema.period else [])], RAW, progress)
    return needed


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except (OSError, ValueError):  # not a file name
        return b""


def _check_header(header: Sequence[str], schema: Schema, source: str) -> None:
    for index, name in enumerate(header, 1):
        if not name.strip():
            raise ChaotianError("DATA_COLUMN", f"{source}: column number {index} has no name")
        if name in header[: index - 1]:
            raise ChaotianError("DATA_COLUMN", f"{source}: column {name[:120]} stands in the header twice")
    needed = [schema.id, *(column.name for column in schema.columns)]
    for name in needed:
        if name not in header:
            near = next((h for h in header if h.strip().lower() == name.strip().lower()), None)
            hint = f"The file has {near!r}: names must be equal, spaces and capitals included." if near else ""
            raise ChaotianError("DATA_COLUMN", f"{source}: column {name} is missing in the header", hint=hint)
    other = [name for name in header if name not in needed]
    if other and not schema.ignore_other:
        raise ChaotianError(
            "DATA_COLUMN",
            f"{source}: column {other[0][:120]} is not in the schema",
            hint='Describe it in the schema, or set other_columns = "ignore" there.',
        )
