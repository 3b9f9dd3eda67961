"""XLSX workbooks as CSV in UTF-8, cell by cell, so that they go the way of every other file."""

from __future__ import annotations

import csv
import datetime
import math
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from federation.errors import ChaotianError
from gateway.datasets.faults import Progress, no_progress
from gateway.datasets.quick_sheets import quick_csv

MAX_UNPACKED = 4 << 30  # of all parts of a workbook
MAX_RATIO = 500  # a part that is packed tighter than this is no spreadsheet
MAX_ROWS = 1 << 20  # of a sheet, by the format
_DIGITS = 10**15  # a spreadsheet keeps 15 digits of a number
_MIDNIGHT = datetime.time()


@contextmanager
def as_csv(path: Path, sheet: str = "", progress: Progress = no_progress) -> Iterator[Path]:
    """Give one sheet as a private CSV file in UTF-8 that is removed afterwards; row numbers are the sheet's.

    Numbers of more than 15 digits, which a spreadsheet has rounded, are written as 9.15E+17 for the checks to find.

    Raises:
        ChaotianError: DATA_SOURCE where it is no workbook, OVERSIZED where it unpacks to too much.
    """
    folder = Path(tempfile.mkdtemp(prefix="chaotian-"))  # mode 0700
    copy = folder / "sheet.csv"
    try:
        _fill(path, sheet, copy, progress)
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(path: Path, sheet: str, copy: Path, progress: Progress) -> None:
    _check_archive(path)
    try:
        if not quick_csv(path, sheet, copy, progress):
            with _workbook(path) as book:
                _write(_sheet(book, path, sheet), copy, path, progress)
    except OSError as error:
        raise ChaotianError("STORAGE", f"{path.name} cannot be copied: {os.strerror(error.errno or 0)}") from None


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            encrypted = any(part.flag_bits & 1 for part in parts)
            total = sum(part.file_size for part in parts)
            bomb = any(part.file_size > MAX_RATIO * max(part.compress_size, 1) + (1 << 20) for part in parts)
    except OSError as error:
        raise ChaotianError("DATA_SOURCE", f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        raise _not_excel(path) from None
    if encrypted:
        raise ChaotianError("DATA_SOURCE", f"{path.name} is protected by a password", hint="Save it without one.")
    if total > MAX_UNPACKED or bomb:
        raise ChaotianError("OVERSIZED", f"{path.name} unpacks to more than a workbook of its size can hold")


@contextmanager
def _workbook(path: Path) -> Iterator[Any]:
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # styles and extensions that do not matter here
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        except Exception:  # openpyxl raises whatever its parsers do
            raise _not_excel(path) from None
        try:
            yield book
        finally:
            book.close()


def _sheet(book: Any, path: Path, sheet: str) -> Any:
    names = [worksheet.title for worksheet in book.worksheets]
    if sheet:
        if sheet not in names:
            raise ChaotianError("DATA_SOURCE", f"{path.name} has no sheet {sheet[:64]}", hint=_choose(names))
        return book.worksheets[names.index(sheet)]
    if len(names) != 1:
        raise ChaotianError("DATA_SOURCE", f"{path.name} has {len(names)} sheets", hint=_choose(names))
    return book.worksheets[0]


def _choose(names: list[str]) -> str:
    return f"Name one with --sheet: {', '.join(name[:64] for name in names[:20])}."


def _write(sheet: Any, copy: Path, path: Path, progress: Progress) -> None:
    total = sheet.max_row or MAX_ROWS
    sheet.reset_dimensions()  # what a workbook says of its own size is often wrong: good enough for a progress bar
    width = blank = 0
    with copy.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        for number, row in enumerate(_rows(sheet, path), 1):
            if number > MAX_ROWS:
                raise ChaotianError("OVERSIZED", f"{path.name} has more than {MAX_ROWS} rows")
            cells = [_text(cell, path, number) for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if not width:
                if not cells:
                    raise ChaotianError("DATA_SOURCE", f"{path.name}: the first row is empty: it needs a header line")
                width = len(cells)
                writer.writerow(cells)
                continue
            if len(cells) > width:
                raise ChaotianError(
                    "DATA_SOURCE", f"{path.name}, row {number}: a cell beside the columns of the header"
                )
            if not cells:
                blank += 1  # at the end of a sheet: nothing; between rows: rows of missing values
                continue
            writer.writerows([[""] * width] * blank)
            blank = 0
            cells += [""] * (width - len(cells))
            writer.writerow(cells)
            if number % 2000 == 0:
                progress(min(number / total, 1.0), "reading the sheet")
    if not width:
        raise ChaotianError("DATA_SOURCE", f"{path.name} is empty: it needs a header line")


def _rows(sheet: Any, path: Path) -> Iterable[Any]:
    try:
        yield from sheet.iter_rows(values_only=True)
    except MemoryError:
        raise
    except Exception:  # a damaged part is found only when it is read
        raise _not_excel(path) from None


def _text(cell: Any, path: Path, row: int) -> str:
    """Return a cell as the text that a person would have typed into a CSV file."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, int | float):
        if isinstance(cell, float) and not math.isfinite(cell):
            return str(cell)
        if abs(cell) >= _DIGITS and cell == int(cell):
            return f"{cell:.2E}"
        return str(int(cell)) if cell == int(cell) else repr(cell)
    if isinstance(cell, datetime.datetime):
        return cell.date().isoformat() if cell.time() == _MIDNIGHT else cell.isoformat(sep=" ")
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    text = str(cell)
    if text in ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"):
        raise ChaotianError("DATA_TYPE", f"{path.name}, row {row}: a cell shows an error of the spreadsheet")
    if "\x00" in text:
        raise ChaotianError("DATA_SOURCE", f"{path.name}, row {row}: a cell holds a zero byte")
    return text


def _not_excel(path: Path) -> ChaotianError:
    return ChaotianError("DATA_SOURCE", f"{path.name} is not an Excel workbook (.xlsx) that can be read")
