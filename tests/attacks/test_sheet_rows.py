"""A workbook of some kilobytes that says its second row is the ten millionth: it must not take the machine's memory."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import zipfile

import openpyxl
import pytest

from gateway.datasets import quick_sheets

READ = """
import resource, sys
from pathlib import Path
import duckdb, openpyxl, pyarrow, pyarrow.csv, pyarrow.compute
from federation.errors import ChaotianError
from gateway.datasets.spreadsheets import as_csv
status = Path("/proc/self/statm").read_text().split()
resource.setrlimit(resource.RLIMIT_AS, (int(status[0]) * resource.getpagesize() + (768 << 20),) * 2)
try:
    with as_csv(Path(sys.argv[1]), "", lambda *_: None) as copy:
        print("lines", sum(1 for _ in copy.open()))
except ChaotianError as error:
    print(error.code)
"""


def workbook(path, row: int):
    book = openpyxl.Workbook()
    book.active.append([f"c{at}" for at in range(119)])
    book.active["A7"] = 5
    book.save(path / "plain.xlsx")
    with zipfile.ZipFile(path / "plain.xlsx") as plain, zipfile.ZipFile(path / "far.xlsx", "w") as far:
        for name in plain.namelist():
            data = plain.read(name)
            if name.endswith("sheet1.xml"):
                assert b'r="A7"' in data
                data = data.replace(b'r="7"', b'r="%d"' % row).replace(b'r="A7"', b'r="A%d"' % row)
            far.writestr(name, data)
    return path / "far.xlsx"


@pytest.mark.parametrize(("row", "answer"), [(7, "lines 7"), (1 << 20, f"lines {1 << 20}"), (9_999_999, "OVERSIZED")])
def test_a_far_row_takes_no_memory(tmp_path, row, answer):
    command = [sys.executable, "-c", READ, str(workbook(tmp_path, row))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-300:]
    assert done.stdout.strip().startswith(answer), done.stdout


def test_a_row_without_an_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(quick_sheets, "_BATCH", 1 << 16)
    sheet = (
        b'<worksheet><sheetData><row r="1"><c r="A1"><v>' + b"1" * (1 << 18) + b"</v></c></row></sheetData></worksheet>"
    )
    seen = []

    def read():
        try:
            seen.extend(quick_sheets._batches(io.BytesIO(sheet)))
        except quick_sheets.Unusual:
            seen.append("unusual")

    reader = threading.Thread(target=read, daemon=True)
    monkeypatch.setattr(quick_sheets, "_HEAD", 1 << 10)
    monkeypatch.setattr(quick_sheets, "_READ", 1 << 12)
    reader.start()
    reader.join(20)
    assert seen == ["unusual"]
