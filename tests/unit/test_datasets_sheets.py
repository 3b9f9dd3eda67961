"""The quick way through a workbook reads what the thorough way reads, or leaves the sheet to it."""

from __future__ import annotations

import csv
import datetime
import zipfile
from pathlib import Path

import openpyxl
import pytest
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from federation.errors import ChaotianError
from gateway.datasets import quick_sheets, spreadsheets
from gateway.datasets.faults import no_progress

HEADER = ["loan", "amount", "opened", "name"]
DAY = datetime.date(2024, 12, 31)
NUMBERS = [
    0,
    1,
    -5,
    0.1,
    -0.25,
    1e-7,
    123456.789,
    1 / 3,
    25000.0,
    999999999999999,
    10**15,
    915000000000000000,
    1e300,
    -0.0,
]


def plain(rows=5):
    return [HEADER, *([f"L{i}", 100.5 * i, DAY, "甲 & <乙> \"丙\" 'd'"] for i in range(rows))]


USUAL = {
    "plain": plain(),
    "numbers": [["a", "b"], *([str(i), number] for i, number in enumerate(NUMBERS))],
    "missing values": [HEADER, ["1", None, DAY, None], [None, 2, None, "x"], ["3", None, None, "y"]],
    "blank rows between": [HEADER, ["1", 2, DAY, "x"], [], [None] * 4, ["2", 3, DAY, "y"]],
    "blank rows at the end": [*plain(2), [], ["", None, None, ""]],
    "yes and no": [["a", "b"], ["x", True], ["y", False]],
    "texts": [
        ["a", "b"],
        [" spaces ", "two\nlines"],
        ["0012", "=not(a) formula"[1:]],
        ["9.15E+17", "tab\there"],
        ["é", "𠮷"],
    ],
    "names of columns alone": [HEADER],
    "many columns": [[f"c{i}" for i in range(60)], [float(i) for i in range(60)]],
    "old and late days": [["a", "b"], ["x", datetime.date(1900, 3, 1)], ["y", datetime.date(9999, 12, 31)]],
}
UNUSUAL = {
    "times of day": [HEADER, ["1", 2, datetime.datetime.combine(DAY, datetime.time(12, 30)), "x"]],
    "before the leap day that was none": [HEADER, ["1", 2, datetime.date(1900, 1, 5), "x"]],
    "an error value": [*plain(2), ["9", "#DIV/0!", DAY, "x"]],
    "an error as text": [["a", "b"], ["#N/A", "x"]],
    "rich text": [HEADER, ["1", 2, DAY, CellRichText("a ", TextBlock(InlineFont(b=True), "b"))]],
    "a cell beside the header": [["a", "b"], ["x", 1], ["y", 2, 3]],
    "no header": [[None, None], ["x", 1]],
    "very many columns": [[f"c{i}" for i in range(200)], [float(i) for i in range(200)]],
}


def workbook(path: Path, rows, *, epoch=None, write_only=False) -> Path:
    book = openpyxl.Workbook(write_only=write_only)
    sheet = book.create_sheet("rows") if write_only else book.active
    if epoch is not None:
        book.epoch = epoch
    for row in rows:
        sheet.append(row)
    book.save(path)
    return path


def outcome(path: Path, sheet: str = ""):
    """Return the rows of the CSV, or the error."""
    try:
        with spreadsheets.as_csv(path, sheet) as copy, copy.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    except ChaotianError as error:
        return error.code, error.detail, error.hint


def both(path: Path, monkeypatch, sheet: str = ""):
    """Return whether the quick way read the sheet, and the outcomes with and without it."""
    taken = []

    def watched(*given):
        taken.append(quick_sheets.quick_csv(*given))
        return taken[-1]

    monkeypatch.setattr(spreadsheets, "quick_csv", watched)
    quick = outcome(path, sheet)
    monkeypatch.setattr(spreadsheets, "quick_csv", lambda *_: False)
    return taken == [True], quick, outcome(path, sheet)


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("write_only", [False, True], ids=["shared texts", "texts in the cells"])
def test_the_quick_way_reads_the_same(name, write_only, tmp_path, monkeypatch) -> None:
    path = workbook(tmp_path / "book.xlsx", USUAL[name], write_only=write_only)
    quick, with_it, without_it = both(path, monkeypatch)
    assert quick and with_it == without_it and isinstance(with_it, list)


@pytest.mark.parametrize("name", UNUSUAL)
def test_anything_else_is_left_to_the_thorough_way(name, tmp_path, monkeypatch) -> None:
    path = workbook(tmp_path / "book.xlsx", UNUSUAL[name])
    quick, with_it, without_it = both(path, monkeypatch)
    assert not quick and with_it == without_it


def test_days_since_1904(tmp_path, monkeypatch) -> None:
    path = workbook(tmp_path / "book.xlsx", plain(), epoch=CALENDAR_MAC_1904)
    quick, with_it, without_it = both(path, monkeypatch)
    assert quick and with_it == without_it and with_it[1][2] == "2024-12-31"


def test_batches_meet_without_a_seam(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quick_sheets, "_BATCH", 2000)
    monkeypatch.setattr(quick_sheets, "_READ", 700)
    rows = [HEADER]
    for i in range(400):
        rows.append([] if i % 37 == 0 else [f"L{i}", i / 7, DAY + datetime.timedelta(days=i % 5), f"名{i}"])
    path = workbook(tmp_path / "book.xlsx", [*rows, [], []])
    quick, with_it, without_it = both(path, monkeypatch)
    assert quick and with_it == without_it and len(with_it) == 401


CHANGES = {
    "no place in a cell": (' r="B3"', ""),
    "a place twice": ('r="B3"', 'r="A3"'),
    "a place in another row": ('r="B3"', 'r="B4"'),
    "rows out of order": ('<row r="3"', '<row r="2"'),
    "another order of attributes": ('<c r="B3" ', '<c s="0" r="B3" '),
    "a comment": ("</row>", "</row><!-- c -->"),
    "a text that is not there": ("<v>0</v>", "<v>999</v>"),
    "a number that is none": ("<v>100.5</v>", "<v>1OO.5</v>"),
    "a document type": ("<worksheet", '<!DOCTYPE x [<!ENTITY e "1">]><worksheet'),
    "no end": ("</sheetData>", ""),
    "an end too early": ("</row>", ""),
    "another prefix": ("<sheetData>", '<x:sheetData xmlns:x="y">'),
    "a character by number": ("<v>100.5</v>", "<v>&#49;00.5</v>"),
    "a formula": ('t="n"><v>100.5</v>', 't="n"><f>1+A2&gt;" s="</f><v>100.5</v>'),
    "a style that is not there": ('<c r="B3" ', '<c r="B3" s="7777" '),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tampered_sheets_never_read_otherwise(name, tmp_path, monkeypatch) -> None:
    made, path = workbook(tmp_path / "made.xlsx", plain()), tmp_path / "book.xlsx"
    old, new = CHANGES[name]
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.namelist():
            data = source.read(part)
            if part.endswith("sheet1.xml"):
                assert old.encode() in data
                data = data.replace(old.encode(), new.encode(), 1)
            target.writestr(part, data)
    quick, with_it, without_it = both(path, monkeypatch)
    if quick:
        assert with_it == without_it
    else:
        assert with_it == without_it or isinstance(with_it, tuple)


def test_one_of_several_sheets(tmp_path, monkeypatch) -> None:
    book = openpyxl.Workbook()
    book.active.append(["a", "b"])
    second = book.create_sheet("第二")
    for row in plain():
        second.append(row)
    book.save(tmp_path / "book.xlsx")
    quick, with_it, without_it = both(tmp_path / "book.xlsx", monkeypatch, "第二")
    assert quick and with_it == without_it and len(with_it) == 6
    assert both(tmp_path / "book.xlsx", monkeypatch)[1][0] == "DATA_SOURCE"
    assert not quick_sheets.quick_csv(tmp_path / "book.xlsx", "third", tmp_path / "copy.csv", no_progress)
