"""The usual kind of XLSX sheet as CSV, many times faster than cell by cell.

A sheet is XML whose rows spreadsheets and libraries all write in one narrow form. Here DuckDB takes that form apart
with string functions, many rows at once, and proves for every cell that it has it. Anything else in a sheet (an error
value, a time of day, rich text, another order of attributes) and the whole sheet is left to `spreadsheets`, which knows
all of XLSX. What both ways read is the same, by test. The form: ECMA-376 part 1, 18.3.1 (rows and cells), 18.4 (texts).
"""

# ruff: noqa: S608  (SQL is put together here from our own names and whole numbers only)

from __future__ import annotations

import re
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gateway.datasets.faults import Progress
from gateway.datasets.tables import SETTINGS

MAX_STRINGS = 1 << 30  # bytes of the table of texts: it is held in memory
MAX_COLUMNS = 120
MAX_ROWS = 1 << 20  # of a sheet, by the format
_GAP = 1 << 16  # blank rows of a batch that are filled in here: each costs memory in every column
_BATCH = 24 << 20  # bytes of XML that are taken apart at once
_READ = 4 << 20
_WORKERS = 2  # threads: DuckDB spreads so few rows over one alone
_HEAD = 1 << 20  # bytes before the first row
_TEXT = '<t(?: xml:space="preserve")?>[^<>]*</t>|<t ?/>'
_STRING = f"<si>(?:{_TEXT})|<si ?/>"
_ROW = r'<row r="[0-9]{1,7}"[^<>]*>'
# Without > in texts, what ends in "> stands in the cell's own tag: kinds and styles can be told by looking for them.
_CELL = (
    'r="[A-Z]{1,2}[0-9]{1,7}"(?: s="[0-9]{1,6}")?(?: t="(?:n|s|b|str|inlineStr)")?'
    "(?: ?/>|>(?:<f[^<>]*>[^<>]*</f>|<f[^<>]*/>)?(?:<v>[^<>]*</v>|<v ?/>)?</c>"
    f"|><is>(?:{_TEXT})</is></c>)"
)
_NUMBER = "-?[0-9]+(?:[.][0-9]+)?(?:[eE][-+]?[0-9]+)?"
_ERRORS = "('#N/A', '#REF!', '#VALUE!', '#DIV/0!', '#NAME?', '#NUM!', '#NULL!')"
_FIRST_DAY, _LAST_DAY = 61, 2_958_465  # before, 1900 is a leap year for some; after, years have five digits


class Unusual(Exception):  # noqa: N818  (no error: the other way is taken)
    """The sheet is not of the form that is read here."""


def quick_csv(path: Path, sheet: str, copy: Path, progress: Progress) -> bool:
    """Write one sheet to `copy` as CSV, as `spreadsheets` would; return False where it is not of the usual form.

    Args:
        sheet: its name; the only one where empty.
        copy: in a private folder.
    """
    import duckdb
    import pyarrow

    try:
        with closing(zipfile.ZipFile(path)) as archive:
            book = _open(archive, sheet)
            config = {**SETTINGS, "temp_directory": str(copy.parent / "spill")}
            with duckdb.connect(":memory:", config=config) as connection, copy.open("wb") as out:
                progress(0.0, "reading the texts of the workbook")
                texts = _strings(connection, archive, book["strings"])
                _Sheet(connection, book, texts, out).write(archive, progress)
        return True
    except (Unusual, pyarrow.ArrowException, duckdb.Error, zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        return False  # whatever is wrong with it, the other way says so, by row


def _open(archive: zipfile.ZipFile, sheet: str) -> dict[str, Any]:
    """Return the part of the sheet and of the texts, the styles that are days, and day 0."""
    from openpyxl.reader.excel import ExcelReader
    from openpyxl.xml.constants import SHARED_STRINGS

    class Outline(ExcelReader):
        """All of the workbook but its cells and texts."""

        def read_strings(self) -> None:
            found = self.package.find(SHARED_STRINGS)
            self.strings = found.PartName[1:] if found is not None else ""

        def read_worksheets(self) -> None:
            self.sheets = [
                (found.name, rel.target)
                for found, rel in self.parser.find_sheets()
                if rel.target in self.valid_files and "chartsheet" not in rel.Type
            ]

    try:
        reader = Outline(archive.filename, read_only=True, data_only=True, keep_links=False)
        try:
            reader.read()
        finally:
            reader.archive.close()
        parts = [part for title, part in reader.sheets if sheet in ("", title)]
        times = set(reader.wb._timedelta_formats)
        days = set(reader.wb._date_formats) - times
        epoch = reader.wb.epoch.date()
    except Exception:  # openpyxl raises whatever its parsers do
        raise Unusual from None
    if len(parts) != 1:
        raise Unusual
    return {"sheet": parts[0], "strings": reader.strings, "days": days, "times": times, "epoch": epoch}


def _plain(text: str) -> str:
    """Return the SQL expression of `text` without XML's five escapes; the ampersand's last."""
    for escape, meant in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "''"), ("amp", "&")):
        text = f"replace({text}, '&{escape};', '{meant}')"
    return text


def _between(text: str) -> str:
    """Return the SQL expression of what stands between <t> and </t>."""
    return f"split_part(split_part(substr({text}, strpos({text}, '<t')), '>', 2), '<', 1)"


def _check_head(head: bytes) -> None:
    declared = re.match(rb'\s*<\?xml[^>]*encoding=["\']([^"\']+)', head)
    if b"<!" in head or (declared and declared[1].lower() != b"utf-8") or b"<?xml" in head[5:]:
        raise Unusual


def _one(connection: Any, query: str) -> Any:
    """Return the one row of a query."""
    return connection.sql(query).fetchall()[0]


def _split(block: bytes, end: str) -> Any:
    """Return what stands before each `end` as an Arrow table of i (0, 1, …) and x; the rest is dropped."""
    import pyarrow
    import pyarrow.compute

    whole = pyarrow.array([block], type=pyarrow.large_binary()).cast(pyarrow.large_string())  # UTF-8, or an error
    parts = pyarrow.compute.split_pattern(whole, end).flatten()[:-1]
    return pyarrow.table({"i": np.arange(len(parts)), "x": parts})


def _strings(connection: Any, archive: zipfile.ZipFile, part: str) -> Any:
    """Return the table of texts as an Arrow array."""
    import pyarrow

    none = pyarrow.array([], type=pyarrow.large_string())
    if not part:
        return none
    if archive.getinfo(part).file_size > MAX_STRINGS:
        raise Unusual
    data = archive.read(part)
    start, end = data.find(b"<si>"), data.rfind(b"</si>") + len(b"</si>")
    if start < 0:
        if b"<si" in data:
            raise Unusual
        return none
    head = data[:start]
    _check_head(head)
    if not re.search(rb"<sst [^<>]*>\s*\Z", head) or not re.fullmatch(rb"\s*</sst>\s*", data[end:]):
        raise Unusual
    if b"\r" in data[start:end]:
        raise Unusual
    pieces = _split(data[start:end], "</si>")
    del data
    connection.register("incoming", pieces)
    wrong = _one(
        connection,
        f"SELECT count(*) FROM incoming WHERE NOT regexp_full_match(x, '{_STRING}') OR contains(x, '&#') "
        f"OR contains(x, 'x005F_') OR {_between('x')} IN {_ERRORS}",
    )[0]
    if wrong:
        raise Unusual
    texts = connection.sql(f"SELECT {_plain(_between('x'))} AS text FROM incoming ORDER BY i").to_arrow_table()
    connection.unregister("incoming")
    return texts["text"].combine_chunks().cast(pyarrow.large_string())


@dataclass(frozen=True)
class _Cells:
    """What some rows hold: number of the first and of the last row, and of each cell row, column (from 1) and text."""

    first: int
    last: int
    numbers: NDArray[np.int64]
    places: NDArray[np.int64]
    texts: Any


class _Sheet:
    """Rows of one sheet on their way to CSV.

    Args:
        book: of `_open`.
        texts: of `_strings`.
        out: the CSV.
    """

    def __init__(self, connection: Any, book: dict[str, Any], texts: Any, out: IO[bytes]) -> None:
        self._connection, self._texts, self._out = connection, texts, out
        self._part, self._epoch = book["sheet"], book["epoch"]
        self._days, self._times = book["days"], book["times"]
        self._width = 0
        self._seen = 0  # number of the last row that was read
        self._written = 0  # and of the last one that was written: blank rows wait for one that is not

    def write(self, archive: zipfile.ZipFile, progress: Progress) -> None:
        """Write all rows."""
        size = max(archive.getinfo(self._part).file_size, 1)
        waiting: deque[tuple[Future[_Cells], int]] = deque()
        with archive.open(self._part) as source, ThreadPoolExecutor(_WORKERS) as pool:
            for block, done in _batches(source):
                waiting.append((pool.submit(self._read, block), done))
                if len(waiting) > _WORKERS:
                    self._take(*waiting.popleft(), size, progress)
            while waiting:
                self._take(*waiting.popleft(), size, progress)
        if not self._width:
            raise Unusual

    def _take(self, coming: Future[_Cells], done: int, size: int, progress: Progress) -> None:
        cells = coming.result()
        if cells.first <= self._seen:
            raise Unusual
        self._seen = cells.last
        self._rows(cells.numbers, cells.places, cells.texts)
        progress(min(done / size, 1.0), "reading the sheet")

    def _read(self, block: bytes) -> _Cells:
        """Take some rows apart; safe to run in several threads."""
        with self._connection.cursor() as connection:
            connection.register("incoming", _split(block, "</row>"))
            connection.execute(
                "CREATE TEMP TABLE lines AS "
                "SELECT i, TRY_CAST(regexp_extract(x, '^<row r=\"([0-9]+)\"', 1) AS INT) AS number, "
                "string_split(x, '<c ') AS parts FROM "
                r"(SELECT i, regexp_replace(x, '^\s*(?:<row [^<>]*/>\s*)*', '') AS x FROM incoming)"
            )
            wrong = _one(
                connection,
                f"SELECT count(*) FROM lines WHERE number IS NULL OR NOT regexp_full_match(parts[1], '{_ROW}')",
            )[0]
            if wrong:
                raise Unusual
            numbers = connection.sql("SELECT number FROM lines ORDER BY i").fetchnumpy()["number"]
            if (numbers[1:] <= numbers[:-1]).any():
                raise Unusual
            return _Cells(int(numbers[0]), int(numbers[-1]), *self._cells(connection))

    def _cells(self, connection: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], Any]:
        """Return number, place (column, from 1) and text of all cells that hold something, in any order."""
        import pyarrow
        import pyarrow.compute

        epoch: date = self._epoch
        timed = _any_style(self._times)
        cells = connection.sql(
            f"""
            WITH apart AS (SELECT number || '"' AS tail, number, unnest(parts[2:]) AS cell FROM lines),
            kinds AS (
                SELECT number, cell,
                regexp_full_match(cell, '{_CELL}') AND NOT contains(cell, '&#') AND NOT contains(cell, chr(13))
                AND (NOT contains(cell, '<f') OR NOT contains(split_part(cell, '<f', 2), ' s="')) AS fits,
                CASE WHEN starts_with(substr(cell, 5), tail) THEN ascii(substr(cell, 4, 1)) - 64
                WHEN starts_with(substr(cell, 6), tail)
                THEN (ascii(substr(cell, 4, 1)) - 64) * 26 + ascii(substr(cell, 5, 1)) - 64 ELSE 1000 END AS place,
                CASE WHEN contains(cell, ' t="s">') THEN 's' WHEN contains(cell, ' t="inlineStr">') THEN 'i'
                WHEN contains(cell, ' t="str">') THEN 't' WHEN contains(cell, ' t="b">') THEN 'b' ELSE 'n' END AS kind
                FROM apart
            ),
            holding AS (
                SELECT *, CASE kind WHEN 'i' THEN {_between("cell")}
                ELSE split_part(split_part(cell, '<v>', 2), '<', 1) END AS held FROM kinds
            ),
            numbered AS (
                SELECT *, CASE WHEN kind = 'n' AND regexp_full_match(held, '{_NUMBER}')
                THEN TRY_CAST(held AS DOUBLE) END AS amount FROM holding
            ),
            told AS (
                SELECT number, place, fits, CASE WHEN kind = 's' THEN TRY_CAST(held AS BIGINT) END AS shared,
                CASE
                    WHEN kind = 's' THEN NULL
                    WHEN kind IN ('i', 't') THEN {_plain("held")}
                    WHEN kind = 'b' THEN CASE WHEN held IN ('0', '1') THEN held END
                    WHEN {_any_style(self._days | self._times)} THEN
                        CASE WHEN NOT {timed} AND amount BETWEEN {_FIRST_DAY} AND {_LAST_DAY} AND amount = floor(amount)
                        THEN CAST(DATE '{epoch.isoformat()}' + CAST(amount AS INT) AS VARCHAR) END
                    WHEN amount <> floor(amount) THEN CAST(amount AS VARCHAR)
                    WHEN abs(amount) < 1e15 THEN CAST(CAST(amount AS BIGINT) AS VARCHAR)
                    WHEN isfinite(amount) THEN format('{{:.2E}}', amount)
                END AS text
                FROM numbered WHERE held <> '' OR NOT fits
            )
            SELECT CAST(number AS BIGINT) AS number, CAST(place AS BIGINT) AS place, text, shared,
            coalesce(fits AND (shared IS NOT NULL OR text NOT IN {_ERRORS}), false) AS fits FROM told
            """
        ).to_arrow_table()
        if not pyarrow.compute.all(cells["fits"], min_count=0).as_py():
            raise Unusual
        texts = pyarrow.compute.coalesce(
            cells["text"].cast(pyarrow.large_string()), self._texts.take(cells["shared"].combine_chunks())
        ).combine_chunks()
        numbers, places = cells["number"].to_numpy(), cells["place"].to_numpy()
        order = np.sort(numbers * (MAX_COLUMNS + 1) + places)
        if (places > MAX_COLUMNS).any() or (order[1:] == order[:-1]).any():
            raise Unusual  # a place is named twice
        filled = pyarrow.compute.not_equal(texts, "").to_numpy(zero_copy_only=False)
        return numbers[filled], places[filled], texts.filter(pyarrow.array(filled))

    def _rows(self, numbers: NDArray[np.int64], places: NDArray[np.int64], texts: Any) -> None:
        """Write the rows of a batch, and the blank ones before them."""
        import pyarrow
        import pyarrow.csv

        if not len(numbers):
            return  # blank rows are written once there is one that is not
        if not self._width:
            header = places[numbers == 1]
            if not len(header):
                raise Unusual
            self._width = int(header.max())
        if places.max() > self._width:
            raise Unusual
        first, last = self._written + 1, int(numbers.max())
        if last - first + 1 > len(np.unique(numbers)) + _GAP:
            raise Unusual
        columns = []
        for place in range(1, self._width + 1):
            at = np.flatnonzero(places == place)
            picked = np.full(last - first + 1, -1, dtype=np.int64)
            picked[numbers[at] - first] = at
            columns.append(texts.take(pyarrow.array(picked, mask=picked < 0)))
        table = pyarrow.table(columns, names=[f"c{place}" for place in range(self._width)])
        pyarrow.csv.write_csv(table, self._out, pyarrow.csv.WriteOptions(include_header=False))
        self._written = last


def _any_style(styles: set[int]) -> str:
    """Return the SQL condition that a cell has one of these styles."""
    return "(" + (" OR ".join(f"contains(cell, ' s=\"{style}\"')" for style in sorted(styles)) or "false") + ")"


def _batches(source: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield many rows of a sheet's XML at once, up to the last one's end tag, with the number of bytes read so far."""
    head = source.read(_HEAD)
    start = head.find(b"<sheetData>")
    if start < 0:
        raise Unusual
    _check_head(head[:start])
    done, buffer, ended = len(head), head[start + len(b"<sheetData>") :], False
    while not ended:
        while len(buffer) < _BATCH and b"</sheetData>" not in buffer[-_READ - 16 :]:
            block = source.read(_READ)
            if not block:
                raise Unusual
            buffer += block
            done += len(block)
        stop = buffer.find(b"</sheetData>")
        ended = stop >= 0
        cut = buffer.rfind(b"</row>", 0, stop if ended else len(buffer)) + len(b"</row>")
        if cut >= len(b"</row>"):
            yield buffer[:cut], done
        elif ended:
            cut = 0
        else:
            raise Unusual  # a row as long as a whole batch
        buffer = buffer[cut:stop] if ended else buffer[cut:]
    if not re.fullmatch(rb"\s*(?:<row [^<>]*/>\s*)*", buffer):
        raise Unusual
