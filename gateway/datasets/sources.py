"""From a file to a table in DuckDB with the schema's types, or a coded error that names file, row and column.

Rows are counted as a spreadsheet shows them: the header line of a CSV is row 1, the first row of data row 2; in a
Parquet file the first row is row 1. Values are never quoted in errors.
"""

# ruff: noqa: S608  (SQL is put together here from our own names and from `quoted` and `text_literal` text only)

from __future__ import annotations

import codecs
import csv
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from federation.errors import ChaotianError
from gateway.datasets.schema import ColumnSchema, Schema

MAX_BYTES = 8 << 30  # of an unpacked source
MAX_HEADER = 1 << 20
_BLOCK = 1 << 20
RAW = "raw_rows"
_EXACT = 2**53


def load_source(connection: Any, path: Path, schema: Schema, target: str, *, order: str = "_id") -> int:
    """Read the file `path` into the new table `target` of a DuckDB connection; return its number of rows.

    The table has the columns `_id` (text), then `c0`, `c1`, … for the schema's in order (double, bigint or text), and
    is sorted by `_id`, or with `order="place"` as the file is. The file's names are not used in SQL, which takes
    `Amount` and `amount` for the same.

    Raises:
        ChaotianError: DATA_SOURCE, DATA_COLUMN, DATA_TYPE, DATA_MISSING or DATA_DUPLICATE.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _load_parquet(connection, path, schema, target, order)
        return _load_csv(connection, path, schema, target, order)
    finally:
        connection.execute(f"DROP TABLE IF EXISTS {RAW}")


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(value: str) -> str:
    """Return `value` as an SQL text literal."""
    return "'" + value.replace("'", "''") + "'"


def header_of(path: Path) -> list[str]:
    """Return the column names of a file; DATA_SOURCE or DATA_COLUMN where it has none."""
    if path.suffix.lower() != ".parquet":
        with _as_utf8(path) as plain:
            return _header(plain, path)
    import duckdb

    with duckdb.connect(":memory:") as connection:
        return _parquet_header(connection, path)


# --- CSV ------------------------------------------------------------------------------------------------------------


def _load_csv(connection: Any, path: Path, schema: Schema, target: str, order: str) -> int:
    import duckdb

    with _as_utf8(path) as plain:
        header = _header(plain, path)
        _check_header(header, schema, path)
        columns = "{" + ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(header))) + "}"
        try:
            connection.execute(
                f"CREATE TEMP TABLE {RAW} AS SELECT row_number() OVER () + 1 AS place, * FROM read_csv("
                f"{text_literal(str(plain))}, columns={columns}, header=true, delim=',', quote='\"', escape='\"', "
                "auto_detect=false, all_varchar=true, null_padding=false, strict_mode=true, parallel=false, "
                "encoding='utf-8', nullstr='', max_line_size=4194304)"
            )
        except duckdb.Error as error:
            raise _csv_error(str(error), path) from None
    sources = {name: f"c{i}" for i, name in enumerate(header)}
    return _typed(connection, path, schema, target, sources, order)


def _csv_error(text: str, path: Path) -> ChaotianError:
    """Return the reader's complaint without what it quotes of the file."""
    line = re.search(r"CSV Error on Line: (\d+)", text)
    where = f"{path.name}, row {line.group(1)}" if line else path.name
    lower = text.lower()
    if "expected number of columns" in lower:
        return ChaotianError("DATA_SOURCE", f"{where}: it does not have as many fields as the header")
    if "quote" in lower:
        return ChaotianError("DATA_SOURCE", f"{where}: a quoted field does not end")
    if "line size" in lower or "maximum" in lower:
        return ChaotianError("DATA_SOURCE", f"{where}: the row is longer than 4 MiB")
    if "no space left" in lower:
        return ChaotianError("STORAGE", "the disk is full")
    return ChaotianError("DATA_SOURCE", f"{where}: it is not a CSV file with commas and one header line")


@contextmanager
def _as_utf8(path: Path) -> Iterator[Path]:
    """Give the file as UTF-8 without a byte-order mark: itself, or a private copy that is removed afterwards."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ChaotianError("DATA_SOURCE", f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    if magic[:2] == b"PK":
        raise ChaotianError("DATA_SOURCE", f"{path.name} is an Excel or zip file", hint="Save it as CSV (UTF-8).")
    folder = Path(tempfile.mkdtemp(prefix="chaotian-"))  # mode 0700
    copy = folder / "source.csv"
    try:
        for encoding in ("utf-8-sig", "gb18030"):
            if _transcode(path, copy, encoding, packed=magic[:2] == b"\x1f\x8b"):
                yield copy
                return
        raise ChaotianError("DATA_SOURCE", f"{path.name} is neither UTF-8 nor GB18030 text")
    finally:
        copy.unlink(missing_ok=True)
        folder.rmdir()


def _transcode(path: Path, copy: Path, encoding: str, *, packed: bool) -> bool:
    """Write `path` to `copy` in UTF-8; say whether all of it is text in `encoding`."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    total = quotes = 0
    try:
        with path.open("rb") as file, copy.open("wb") as out:
            source: IO[bytes] = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
            while True:
                block = source.read(_BLOCK)
                total += len(block)
                if total > MAX_BYTES:
                    raise ChaotianError("OVERSIZED", f"{path.name} holds more than {MAX_BYTES >> 30} GiB")
                text = decoder.decode(block, final=not block)
                if "\x00" in text:
                    raise ChaotianError("DATA_SOURCE", f"{path.name} is not a text file (it holds zero bytes)")
                quotes += text.count('"')
                out.write(text.encode())
                if not block:
                    break
        if quotes % 2:
            # The reader below would drop everything after a quote that does not end, without a word.
            raise _open_quote(copy, path)
        return True
    except UnicodeDecodeError:
        return False
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ChaotianError("DATA_SOURCE", f"{path.name} is a damaged or cut gzip file") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ChaotianError("DATA_SOURCE", f"{path.name} cannot be read or copied: {reason}") from None


def _open_quote(plain: Path, path: Path) -> ChaotianError:
    """Return the error for a file with an odd number of quotation marks, with the row where its last record begins."""
    row = 0
    with plain.open(encoding="utf-8", newline="") as file:
        try:
            for _ in csv.reader(file):
                row += 1
        except csv.Error:  # a field longer than the csv module takes: the one that does not end
            row += 1
    return ChaotianError("DATA_SOURCE", f"{path.name}: a quotation mark is not closed, at the latest in row {row}")


def _header(plain: Path, path: Path) -> list[str]:
    with plain.open(encoding="utf-8", newline="") as file:
        start = file.read(MAX_HEADER)
    try:
        header = next(csv.reader(start.splitlines(keepends=True), strict=True), [])
    except csv.Error:
        raise ChaotianError("DATA_COLUMN", f"{path.name}, row 1: the header line cannot be read") from None
    if not header or not any(header):
        raise ChaotianError("DATA_SOURCE", f"{path.name} is empty: it needs a header line")
    return header


def _check_header(header: Sequence[str], schema: Schema, path: Path) -> None:
    for index, name in enumerate(header, 1):
        if not name.strip():
            raise ChaotianError("DATA_COLUMN", f"{path.name}: column number {index} has no name")
        if name in header[: index - 1]:
            raise ChaotianError("DATA_COLUMN", f"{path.name}: column {name[:120]} stands in the header twice")
    needed = [schema.id, *(column.name for column in schema.columns)]
    for name in needed:
        if name not in header:
            near = next((h for h in header if h.strip().lower() == name.strip().lower()), None)
            hint = f"The file has {near!r}: names must be equal, spaces and capitals included." if near else ""
            raise ChaotianError("DATA_COLUMN", f"{path.name}: column {name} is missing in the header", hint=hint)
    other = [name for name in header if name not in needed]
    if other and not schema.ignore_other:
        raise ChaotianError(
            "DATA_COLUMN",
            f"{path.name}: column {other[0][:120]} is not in the schema",
            hint='Describe it in the schema, or set other_columns = "ignore" there.',
        )


# --- Parquet --------------------------------------------------------------------------------------------------------


def _load_parquet(connection: Any, path: Path, schema: Schema, target: str, order: str) -> int:
    import duckdb

    header = _parquet_header(connection, path)
    _check_header(header, schema, path)
    source = f"read_parquet({text_literal(str(path))})"
    try:
        sources = {name: f"c{i}" for i, name in enumerate(header)}
        picked = ", ".join(
            f"CAST({quoted(name)} AS VARCHAR) AS {sources[name]}"
            for name in [schema.id, *(column.name for column in schema.columns)]
        )
        connection.execute(f"CREATE TEMP TABLE {RAW} AS SELECT row_number() OVER () AS place, {picked} FROM {source}")
    except duckdb.Error:
        raise ChaotianError("DATA_SOURCE", f"{path.name} is not a Parquet file that can be read") from None
    return _typed(connection, path, schema, target, sources, order)


def _parquet_header(connection: Any, path: Path) -> list[str]:
    import duckdb

    if not path.is_file():
        raise ChaotianError("DATA_SOURCE", f"{path} is not there, or not a file")
    if any(letter in str(path) for letter in "*?["):
        raise ChaotianError("DATA_SOURCE", f"{path} has one of * ? [ in its name", hint="Rename the file.")
    try:
        query = f"DESCRIBE SELECT * FROM read_parquet({text_literal(str(path))})"
        return [str(row[0]) for row in connection.execute(query).fetchall()]
    except duckdb.Error:
        raise ChaotianError("DATA_SOURCE", f"{path.name} is not a Parquet file that can be read") from None


# --- types ----------------------------------------------------------------------------------------------------------


def _typed(connection: Any, path: Path, schema: Schema, target: str, sources: dict[str, str], order: str) -> int:
    identifier = sources[schema.id]

    def refuse(code: str, condition: str, name: str, what: str) -> None:
        found = connection.execute(f"SELECT min(place), count(*) FROM {RAW} WHERE {condition}").fetchone()
        if found[1]:
            more = f" (and {found[1] - 1} more rows)" if found[1] > 1 else ""
            raise ChaotianError(code, f"{path.name}, row {found[0]}, column {name}: {what}{more}")

    rows = int(connection.execute(f"SELECT count(*) FROM {RAW}").fetchone()[0])
    if not rows:
        raise ChaotianError("DATA_SOURCE", f"{path.name} has a header but no rows")
    refuse("DATA_MISSING", f"{identifier} IS NULL OR trim({identifier}) = ''", schema.id, "the identifier is missing")
    twice = connection.execute(
        f"SELECT min(place), max(place) FROM {RAW} GROUP BY {identifier} HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    ).fetchone()
    if twice:
        raise ChaotianError(
            "DATA_DUPLICATE", f"{path.name}, rows {twice[0]} and {twice[1]}, column {schema.id}: the same identifier"
        )
    picked = [f"{identifier} AS _id"]
    for index, column in enumerate(schema.columns):
        picked.append(f"{_checked(column, sources[column.name], schema, refuse)} AS c{index}")
    connection.execute(f"CREATE TABLE {target} AS SELECT {', '.join(picked)} FROM {RAW} ORDER BY {order}")
    return rows


def _checked(column: ColumnSchema, source: str, schema: Schema, refuse: Any) -> str:
    """Refuse what does not fit the column's type; return the expression of the typed value."""
    name, blank = column.name, f"({source} IS NULL OR trim({source}) = '')"
    if not column.missing:
        refuse("DATA_MISSING", blank, name, "a value is missing")
    if column.type == "category":
        if column.levels:
            levels = ", ".join(text_literal(level) for level in column.levels)
            refuse("DATA_TYPE", f"NOT {blank} AND {source} NOT IN ({levels})", name, "not one of the schema's levels")
        return f"CASE WHEN {blank} THEN NULL ELSE {source} END"
    value = f"TRY_CAST(trim({source}) AS DOUBLE)"
    refuse("DATA_TYPE", f"NOT {blank} AND {value} IS NULL", name, "not a number")
    refuse("DATA_TYPE", f"NOT {blank} AND NOT isfinite({value})", name, "not a finite number")
    if column.type == "integer":
        whole = f"NOT {blank} AND ({value} <> floor({value}) OR abs({value}) > {_EXACT})"
        refuse("DATA_TYPE", whole, name, "not a whole number of at most 2^53")
    if name == schema.label:
        refuse("DATA_TYPE", f"NOT {blank} AND {value} NOT IN (0, 1)", name, "the label is 0 or 1")
    if column.type == "integer":
        return f"CASE WHEN {blank} THEN NULL ELSE CAST({value} AS BIGINT) END"
    return f"CASE WHEN {blank} THEN NULL ELSE {value} END"
