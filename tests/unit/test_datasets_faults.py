"""Every kind of fault is found, counted and named in plain words; never a value. Sources of every kind are read."""

import datetime
import gzip
import io
import json
import zipfile

import duckdb
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.storage.tables  # noqa: F401
from federation.errors import ChaotianError
from gateway.cli.main import run
from gateway.datasets.book import DatasetBook
from gateway.datasets.keys import ALPHABET, check_character, is_credit_code, wrong_check_characters
from gateway.datasets.schema import Schema, parse_schema
from gateway.datasets.sources import Source
from gateway.storage.base import Database, metadata

# Codes that these companies print on their own pages.
KNOWN = ["91330100799655058B", "9144030071526726XG", "914403001922038216"]


def schema(*lines):
    return parse_schema("\n".join(['id = "id"', *lines]).encode())


CODES = schema('[columns.v]\ntype = "category"\nkey = "credit_code"')
DAYS = schema("[columns.v]", 'type = "date"', "range = [2000-01-01, 2030-12-31]")
MONTHS = schema("[columns.v]", 'type = "month"')
NUMBERS = schema("[columns.v]", 'type = "numeric"', "range = [0, 100]", 'missing = "allow"')
WHOLE = schema("[columns.v]", 'type = "integer"')


def check(tmp_path, meaning, values, name="a.csv"):
    path = tmp_path / name
    path.write_text("id,v\n" + "".join(f'{i},"{value}"\n' for i, value in enumerate(values)), encoding="utf-8")
    return DatasetBook.check(path, meaning)


# --- credit codes ---------------------------------------------------------------------------------------------------


def test_known_credit_codes():
    assert all(is_credit_code(code) for code in KNOWN)
    assert not is_credit_code("91330100799655058A") and not is_credit_code("9133010079965505")


@given(st.text(alphabet=ALPHABET, min_size=17, max_size=17), st.integers(0, 16), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_always_found(body, at, other):
    code = body + check_character(body)
    changed = code[:at] + other + code[at + 1 :]
    assert is_credit_code(code) and is_credit_code(changed) == (changed == code)
    assert wrong_check_characters([code, changed]).tolist() == [False, changed != code]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("91330100799655058A", "check digit"),
        ("914403001922038000", "15 digits"),
        ("９１330100799655058B", "full-width"),
        ("9.13E+17", "rounded"),
        ("9.14403E17", "rounded"),
        ("91330100799655058b", "small letters"),
        ("1330100799655058B", "lost"),
        ("9133010079965505", "lost"),
        ("91330100799655058BB", "not 18"),
        ("913301007996550IOB", "I, O, S, V, Z"),
        ("91330100799655058B ", "space"),
        ("914403001922038216.0", "decimal point"),
    ],
)
def test_faults_of_credit_codes(tmp_path, value, words):
    report = check(tmp_path, CODES, [KNOWN[0], value, KNOWN[1], value])
    (fault,) = report.faults
    assert (fault.code, fault.row, fault.column, fault.count) == ("DATA_KEY", 3, "v", 2)
    assert words in fault.what and value not in fault.text(report.source)
    assert "a.csv, row 3, column v: " in fault.text(report.source) and "1 more rows" in fault.text(report.source)


def test_known_codes_pass_and_a_key_may_be_the_identifier(tmp_path):
    assert not check(tmp_path, CODES, KNOWN).faults
    meaning = parse_schema(b'id = "id"\nkey = "credit_code"\n[columns.v]\ntype = "integer"\n')
    path = tmp_path / "b.csv"
    path.write_text(f"id,v\n{KNOWN[0]},1\n91330100799655058A,2\n{KNOWN[2]},3\n")
    assert [(f.column, f.row) for f in DatasetBook.check(path, meaning).faults] == [("id", 3)]


def test_loan_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,v\n0012,1\n13,2\n00014,3\n1.2E+17,4\n15.0,5\n００16,6\n")
    body = '\n[columns.v]\ntype = "integer"\n'
    fixed = parse_schema(f'id = "id"\nkey = "loan_number"\nlength = 4{body}'.encode())
    report = DatasetBook.check(path, fixed)
    words = {fault.row: fault.what for fault in report.faults}
    assert sorted(words) == [3, 4, 5, 6, 7] and "leading zeros are lost" in words[3] and "more than 4" in words[4]
    path.write_text("id,v\n0012,1\n13,2\n")
    loose = DatasetBook.check(path, parse_schema(f'id = "id"\nkey = "loan_number"{body}'.encode()))
    assert not loose.faults and "length = 4" in loose.warnings[0]
    path.write_text("id,v\n9.15E+17,1\n13,2\n")
    plain = DatasetBook.check(path, parse_schema(f'id = "id"{body}'.encode()))
    assert not plain.faults and "rounded" in plain.warnings[0]


# --- days, months, numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        ["2024-12-31", "2024-1-5"],
        ["2024/12/31", "2024/01/05"],
        ["2024.12.31", "2024.1.5"],
        ["20241231", "20240105"],
        ["2024年12月31日", "2024年1月5日"],
        ["2024-12-31 00:00:00", "2024-01-05T00:00"],
    ],
)
def test_one_way_to_write_days_is_fine(tmp_path, values):
    database = Database("sqlite://")
    metadata.create_all(database.engine)
    book = DatasetBook(database, tmp_path / "home")
    path = tmp_path / "a.csv"
    path.write_text("id,v\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)), encoding="utf-8")
    book.add("days", path, DAYS, now=1)
    epoch = datetime.date(1970, 1, 1)
    wanted = [(datetime.date(2024, 12, 31) - epoch).days, (datetime.date(2024, 1, 5) - epoch).days]
    assert book.load("days", ["v"]).columns["v"].tolist() == wanted
    book.add("months", path, MONTHS, now=1)
    assert book.load("months", ["v"]).columns["v"].tolist() == [54 * 12 + 11, 54 * 12]


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("2024/12/31", "DATA_TYPE", "mixed ways"),
        ("20241231", "DATA_TYPE", "mixed ways"),
        ("31/12/2024", "DATA_TYPE", "cannot be told apart"),
        ("45657", "DATA_TYPE", "day number"),
        ("２０２４-１２-３１", "DATA_TYPE", "full-width"),
        ("2024-02-30", "DATA_TYPE", "no such day"),
        ("yesterday", "DATA_TYPE", "not a day"),
        ("1999-12-31", "DATA_DOMAIN", "before"),
        ("2031-01-01", "DATA_DOMAIN", "after"),
        ("", "DATA_MISSING", "missing"),
        ("2024-12-31 10:00", "DATA_TYPE", "not a day"),
    ],
)
def test_faults_of_days(tmp_path, value, code, words):
    (fault,) = check(tmp_path, DAYS, ["2024-12-31", "2024-11-30", value]).faults
    assert (fault.code, fault.row) == (code, 4) and words in fault.what


def test_months(tmp_path):
    for good in (["2024-12", "2024-11"], ["202412", "202411"], ["2024年12月", "2024年1月"], ["2024/12", "2024/1"]):
        assert not check(tmp_path, MONTHS, good).faults
    for bad in ("2024-13", "2024/11", "202411", "Nov"):
        assert check(tmp_path, MONTHS, ["2024-12", "2024-10", bad]).faults[0].row == 4


@pytest.mark.parametrize(
    ("meaning", "value", "code", "words"),
    [
        (NUMBERS, "１２", "DATA_TYPE", "full-width"),
        (NUMBERS, "1,000", "DATA_TYPE", "commas"),
        (NUMBERS, "5%", "DATA_TYPE", "percent"),
        (NUMBERS, "twelve", "DATA_TYPE", "not a number"),
        (NUMBERS, "inf", "DATA_TYPE", "finite"),
        (NUMBERS, "-0.01", "DATA_DOMAIN", "below"),
        (NUMBERS, "100.5", "DATA_DOMAIN", "above"),
        (WHOLE, "9.15E+17", "DATA_TYPE", "rounded"),
        (WHOLE, "1.5", "DATA_TYPE", "whole"),
    ],
)
def test_faults_of_numbers(tmp_path, meaning, value, code, words):
    (fault,) = check(tmp_path, meaning, ["1", "2", value]).faults
    assert (fault.code, fault.row) == (code, 4) and words in fault.what


def test_all_faults_at_once_and_the_first_is_raised(tmp_path):
    report = check(tmp_path, NUMBERS, ["1", "x", "-5", "x", "101"])
    assert [(f.code, f.row, f.count) for f in report.faults] == [
        ("DATA_TYPE", 3, 2), ("DATA_DOMAIN", 4, 1), ("DATA_DOMAIN", 6, 1)]  # fmt: skip
    with pytest.raises(ChaotianError) as caught:
        report.refuse()
    assert caught.value.code == "DATA_TYPE" and "2 more kinds" in caught.value.hint


# --- ledgers and snapshots ------------------------------------------------------------------------------------------


def test_a_ledger_has_one_row_for_each_identifier_and_month(tmp_path):
    database = Database("sqlite://")
    metadata.create_all(database.engine)
    book = DatasetBook(database, tmp_path / "home")
    meaning = schema('period = "month"', '[columns.month]\ntype = "month"', '[columns.v]\ntype = "numeric"')
    path = tmp_path / "ledger.csv"
    path.write_text("id,month,v\na,2024-11,1\na,2024-12,2\nb,2024-12,3\n")
    first = book.add("ledger", path, meaning, now=1)
    path.write_text("id,month,v\nb,2024-12,3\na,2024-12,2\na,2024-11,1\n")
    assert book.add("ledger", path, meaning, now=2).snapshot == first.snapshot
    assert [version.name for version in book.versions("ledger")] == ["ledger@1"]
    assert book.last_period(first) == datetime.date(2024, 12, 1)
    with pytest.raises(ChaotianError) as caught:
        book.load("ledger", ["v"])
    assert caught.value.code == "DATA_DUPLICATE" and "features compute" in caught.value.hint
    path.write_text("id,month,v\na,2024-11,1\nb,2024-12,3\na,2024-11-30,2\n")
    (mixed,) = DatasetBook.check(path, meaning).faults
    assert mixed.row == 4 and "mixed" in mixed.what
    path.write_text("id,month,v\na,2024-11,1\nb,2024-12,3\na,2024-11,2\n")
    (twice,) = DatasetBook.check(path, meaning).faults
    assert (twice.code, twice.row, twice.twin) == ("DATA_DUPLICATE", 2, 4)
    path.write_text("id,month,v\na,2024-10,1\n")
    book.add("ledger", path, meaning, now=3)
    assert [v.name for v in book.versions("ledger")] == ["ledger@2", "ledger@1"]
    assert book.get("ledger@1").snapshot == first.snapshot and book.get("ledger@1").rows == 3
    for name in ("ledger@3", "ledger@0", "ledger@x", "other@1"):
        with pytest.raises(ChaotianError, match="no dataset"):
            book.get(name)


# --- workbooks and databases ----------------------------------------------------------------------------------------


def workbook(path, rows, sheets=1):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for extra in range(1, sheets):
        book.create_sheet(f"more-{extra}")
    book.save(path)
    return path


def test_a_workbook_is_the_same_snapshot_as_its_csv(tmp_path):
    database = Database("sqlite://")
    metadata.create_all(database.engine)
    book = DatasetBook(database, tmp_path / "home")
    meaning = schema(
        '[columns.v]\ntype="numeric"', '[columns.d]\ntype="date"', '[columns."类"]\ntype="category"\nmissing="allow"'
    )
    rows = [["id", "v", "d", "类"], ["01", 1.5, datetime.date(2024, 12, 31), "零售"], [],
            [7, 3, datetime.datetime.fromisoformat("2024-01-05"), None], [], []]  # fmt: skip
    path = tmp_path / "a.csv"
    path.write_text("id,v,d,类\n01,1.5,2024-12-31,零售\n7,3,2024-01-05,\n", encoding="utf-8")
    wanted = book.add("csv", path, meaning, now=1).snapshot
    report = DatasetBook.check(workbook(tmp_path / "gap.xlsx", rows), meaning)
    assert {fault.row for fault in report.faults} == {3}  # an empty row between others is a row of missing values
    whole = workbook(tmp_path / "a.xlsx", [row for row in rows[:4] if row])
    assert book.add("xlsx", whole, meaning, now=1).snapshot == wanted
    assert book.add("again", Source(str(whole), sheet="Sheet"), meaning, now=1).snapshot == wanted


def test_faults_of_workbooks(tmp_path):
    rounded = workbook(tmp_path / "r.xlsx", [["id", "v"], ["a", KNOWN[0]], ["b", 914403001922038216]])
    (fault,) = DatasetBook.check(rounded, CODES).faults
    assert fault.row == 3 and "rounded" in fault.what
    good = [["id", "v"], ["a", 1]]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (64 << 20))
    cases = [
        (Source(str(workbook(tmp_path / "2.xlsx", good, sheets=2))), "DATA_SOURCE", "2 sheets"),
        (Source(str(workbook(tmp_path / "1.xlsx", good)), sheet="none"), "DATA_SOURCE", "no sheet"),
        (Source(str(workbook(tmp_path / "0.xlsx", []))), "DATA_SOURCE", "empty"),
        (Source(str(workbook(tmp_path / "w.xlsx", [*good, ["b", 1, 2]]))), "DATA_SOURCE", "beside"),
        (Source(str(workbook(tmp_path / "e.xlsx", [*good, ["b", "#N/A"]]))), "DATA_TYPE", "row 3"),
        (Source(str(tmp_path / "none.xlsx")), "DATA_SOURCE", "cannot be read"),
    ]
    for name, data in (
        ("cut.xlsx", rounded.read_bytes()[:-200]),
        ("zip.xlsx", b"PK\x03\x04nothing"),
        ("b.xlsx", bomb.getvalue()),
    ):
        (tmp_path / name).write_bytes(data)
        cases.append((Source(str(tmp_path / name)), "OVERSIZED" if name == "b.xlsx" else "DATA_SOURCE", ""))
    for source, code, words in cases:
        with pytest.raises(ChaotianError) as caught:
            DatasetBook.check(source, WHOLE).refuse()
        assert caught.value.code == code and words in caught.value.detail, source


def test_a_table_of_a_duckdb_file(tmp_path):
    path = tmp_path / "bank.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE loans AS SELECT 'a' AS id, 7::DECIMAL(9,2) AS v UNION ALL SELECT 'b', NULL")
        connection.execute("CREATE SCHEMA risk")
        connection.execute("CREATE TABLE risk.flags AS SELECT 'a' AS id, true AS v UNION ALL SELECT 'b', false")
        connection.execute(f"CREATE VIEW reach AS SELECT 'a' AS id, content AS v FROM read_text('{tmp_path}/a.csv')")
    (tmp_path / "a.csv").write_text("secret")
    (fault,) = DatasetBook.check(Source(str(path), "loans"), WHOLE).faults
    assert (fault.code, fault.row) == ("DATA_MISSING", 2)
    assert not DatasetBook.check(Source(str(path), "risk.flags"), WHOLE).faults
    for source, code in (
        (Source(str(path)), "USAGE"),
        (Source(str(path), "none"), "DATA_SOURCE"),
        (Source(str(path), "reach"), "DATA_SOURCE"),
        (Source(str(tmp_path / "none.duckdb"), "loans"), "DATA_SOURCE"),
    ):
        with pytest.raises(ChaotianError) as caught:
            DatasetBook.check(source, WHOLE).refuse()
        assert caught.value.code == code and "secret" not in caught.value.detail


def test_an_address_of_a_database_is_checked_before_it_is_dialled(tmp_path):
    for address in ("postgresql://u:hunter2@h/d", "postgresql://h/d?password=hunter2", "postgresql://h:x/d",
                    "postgresql://h/d?options=-c", "postgresql://h/d?port=y", "postgresql://[h/d"):  # fmt: skip
        with pytest.raises(ChaotianError) as caught:
            DatasetBook.check(Source(address, "t"), WHOLE)
        assert caught.value.code == "USAGE" and "hunter2" not in caught.value.detail + caught.value.hint
    assert "hunter2" not in repr(Source("postgresql://h/d", "t", password="hunter2"))


# --- schemas and verbs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ['key = "passport"'],
        ['key = "credit_code"', "length = 18"],
        ["length = 4"],
        ['key = "loan_number"', "length = 65"],
        ['period = "v"'],
        ['period = "w"'],
        ["[columns.w]", 'type = "numeric"', "range = [2, 1]"],
        ["[columns.w]", 'type = "numeric"', "range = [inf, inf]"],
        ["[columns.w]", 'type = "numeric"', "range = [nan, 1]"],
        ["[columns.w]", 'type = "numeric"', "range = [1]"],
        ["[columns.w]", 'type = "numeric"', 'range = ["a", 1]'],
        ["[columns.w]", 'type = "date"', "range = [0, 1]"],
        ["[columns.w]", 'type = "category"', "range = [0, 1]"],
        ["[columns.w]", 'type = "integer"', 'key = "credit_code"'],
        ["[columns.w]", 'type = "category"', 'key = "credit_code"', 'levels = ["a"]'],
    ],
)
def test_schemas_that_are_refused(lines):
    with pytest.raises(ChaotianError) as caught:
        schema(*lines, '[columns.v]\ntype = "numeric"')
    assert caught.value.code == "BAD_DOCUMENT"


def test_new_parts_of_a_schema_go_through_json_and_back():
    for meaning in (CODES, DAYS, MONTHS, NUMBERS):
        again = Schema.from_document(json.loads(json.dumps(meaning.document())))
        assert again == meaning and again.digest == meaning.digest
    assert NUMBERS.columns[0].domain == "0.0 to 100.0" and DAYS.columns[0].low == "2000-01-01"


def test_check_names_every_fault_on_the_terminal(capsys, tmp_path):
    (tmp_path / "s.toml").write_text('id = "id"\n[columns.v]\ntype = "numeric"\nrange = [0, 10]\n')
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("id,v\na,1\nb,１２\nc,99\na,2\n".encode("gb18030")))
    status = run(["data", "check", str(path), "--schema", str(tmp_path / "s.toml")])
    out, err = capsys.readouterr()
    assert status == 2 and "full-width" in out and "above" in out and "same identifier" in out
    assert "error DATA_TYPE: a.csv.gz, row 3, column v" in err and "99" not in out + err
    assert run(["data", "check", str(path), "--schema", str(tmp_path / "s.toml"), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [fault["code"] for fault in document["faults"]] == ["DATA_TYPE", "DATA_DOMAIN", "DATA_DUPLICATE"]
    (tmp_path / "open").write_text("secret")
    status = run(["data", "check", "postgresql://h/d", "--table", "t", "--schema", str(tmp_path / "s.toml"),
                  "--password-file", str(tmp_path / "open")])  # fmt: skip
    assert status == 2 and "CONFIG" in capsys.readouterr().err  # others can read that file
