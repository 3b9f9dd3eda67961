"""CSV files, plain or in gzip, in UTF-8 (with or without a byte-order mark) or GB18030, as rows of text in DuckDB."""

# ruff: noqa: S608  (SQL is put together here from our own names and from `text_literal` text only)

from __future__ import annotations

import codecs
import csv
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from federation.errors import ChaotianError
from gateway.datasets.checks import text_literal
from gateway.datasets.faults import Progress, no_progress

MAX_BYTES = 8 << 30  # of an unpacked source
MAX_HEADER = 1 << 20
_BLOCK = 1 << 20


def csv_header(path: Path) -> list[str]:
    """Return the names in the header line; DATA_SOURCE or DATA_COLUMN where there is none."""
    with as_utf8(path) as plain:
        return header_line(plain, path.name)


def read_csv(connection: Any, plain: Path, name: str, width: int, table: str, *, header: bool = True) -> None:
    """Make the table `table` of `place` and `c0`, `c1`, … (text, NULL for nothing) from a file in UTF-8.

    Args:
        name: of the source, for errors.
        width: number of columns.
        header: whether the first line is a header; data then begin in row 2.
    """
    import duckdb

    columns = "{" + ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width)) + "}"
    try:
        connection.execute(
            f"CREATE TEMP TABLE {table} AS SELECT row_number() OVER () + {int(header)} AS place, * FROM read_csv("
            f"{text_literal(str(plain))}, columns={columns}, header={'true' if header else 'false'}, delim=',', "
            "quote='\"', escape='\"', auto_detect=false, all_varchar=true, null_padding=false, strict_mode=true, "
            "parallel=false, encoding='utf-8', nullstr='', max_line_size=4194304)"
        )
    except duckdb.Error as error:
        raise _csv_error(str(error), name) from None


def _csv_error(text: str, name: str) -> ChaotianError:
    """Return the reader's complaint without what it quotes of the file."""
    line = re.search(r"CSV Error on Line: (\d+)", text)
    where = f"{name}, row {line.group(1)}" if line else name
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
def as_utf8(path: Path, progress: Progress = no_progress) -> Iterator[Path]:
    """Give the file as UTF-8 without a byte-order mark: itself, or a private copy that is removed afterwards."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except ValueError:
        raise ChaotianError("DATA_SOURCE", "the source is not a file name") from None
    except OSError as error:
        raise ChaotianError("DATA_SOURCE", f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    folder = Path(tempfile.mkdtemp(prefix="chaotian-"))  # mode 0700
    copy = folder / "source.csv"
    try:
        for encoding in ("utf-8-sig", "gb18030"):
            if _transcode(path, copy, encoding, progress, packed=magic[:2] == b"\x1f\x8b"):
                yield copy
                return
        raise ChaotianError("DATA_SOURCE", f"{path.name} is neither UTF-8 nor GB18030 text")
    finally:
        copy.unlink(missing_ok=True)
        folder.rmdir()


def _transcode(path: Path, copy: Path, encoding: str, progress: Progress, *, packed: bool) -> bool:
    """Write `path` to `copy` in UTF-8; say whether all of it is text in `encoding`."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    total = quotes = 0
    try:
        with path.open("rb") as file, copy.open("wb") as out:
            size = max(os.fstat(file.fileno()).st_size, 1)
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
                progress(min(file.tell() / size, 1.0), "reading the file")
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


def header_line(plain: Path, name: str) -> list[str]:
    """Return the names in the first line of a file in UTF-8; DATA_SOURCE or DATA_COLUMN where there is none."""
    with plain.open(encoding="utf-8", newline="") as file:
        start = file.read(MAX_HEADER)
    try:
        header = next(csv.reader(start.splitlines(keepends=True), strict=True), [])
    except csv.Error:
        raise ChaotianError("DATA_COLUMN", f"{name}, row 1: the header line cannot be read") from None
    if not header or not any(header):
        raise ChaotianError("DATA_SOURCE", f"{name} is empty: it needs a header line")
    return header
