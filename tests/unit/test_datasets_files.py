"""Files become checked, immutable snapshots; what is wrong is named by file, row and column, never by value."""

import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import gateway.storage.tables  # noqa: F401
from federation.errors import ChaotianError
from gateway.datasets.book import DatasetBook
from gateway.datasets.digests import row_digests, rows_changed
from gateway.datasets.schema import Schema, parse_schema
from gateway.datasets.values import ValueStore, read_frame
from gateway.storage.base import Database, metadata
from tests.support.scorecards import DEMO

SCHEMA = """
id = "loan"
label = "bad"
as_of = 2024-12-31
[columns.amount]
type = "numeric"
unit = "CNY"
disclosure = "aggregate"
grade = 4
[columns.staff]
type = "integer"
missing = "allow"
[columns."行业"]
type = "category"
levels = ["零售", "制造"]
[columns.note]
type = "category"
missing = "allow"
[columns.bad]
type = "integer"
disclosure = "aggregate"
"""
HEADER = "loan,amount,staff,行业,note,bad"
ROWS = ["007,1.5,3,零售,x,0", "7,1e12,,制造,,1", '08,-2,4,零售,"a, ""b""\nc",0']


@pytest.fixture
def schema():
    return parse_schema(SCHEMA.encode())


@pytest.fixture
def book(tmp_path):
    database = Database("sqlite://")
    metadata.create_all(database.engine)
    return DatasetBook(database, tmp_path / "home")


def text(rows=ROWS, header=HEADER, end="\n"):
    return end.join([header, *rows]) + end


def put(tmp_path, data, name="loans.csv"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refused(path, schema):
    with pytest.raises(ChaotianError) as caught:
        DatasetBook.check(path, schema).refuse()
    return caught.value


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.csv", lambda t: t.encode()),
        ("b.csv", lambda t: t.encode("utf-8-sig")),
        ("c.csv", lambda t: t.encode("gb18030")),
        ("d.csv.gz", lambda t: gzip.compress(t.encode())),
        ("e.csv", lambda t: gzip.compress(t.encode("gb18030"))),
    ],
)
def test_every_encoding_gives_the_same_snapshot(book, schema, tmp_path, name, make):
    plain = book.add("plain", put(tmp_path, text()), schema, now=5)
    other = book.add("other", put(tmp_path, make(text()), name), schema, now=6)
    assert other.snapshot == plain.snapshot and other.rows == 3
    frame = book.load("other", ["amount", "staff", "行业", "note", "bad"])
    assert list(frame.ids) == ["007", "08", "7"]  # sorted as text, leading zeros kept
    assert frame.columns["amount"].tolist() == [1.5, -2.0, 1e12]
    assert np.isnan(frame.columns["staff"]).tolist() == [False, False, True]
    assert frame.columns["行业"].tolist() == ["零售", "零售", "制造"]
    assert frame.columns["note"].tolist() == ["x", 'a, "b"\nc', ""]


def test_line_ends_row_order_and_parquet_do_not_matter(book, schema, tmp_path):
    first = book.add("a", put(tmp_path, text()), schema, now=1).snapshot
    assert book.add("b", put(tmp_path, text(ROWS[::-1])), schema, now=1).snapshot == first
    assert book.add("c", put(tmp_path, text(end="\r\n").replace("\nc", "\nc")), schema, now=1).rows == 3
    table = pd.DataFrame(
        {
            "loan": ["007", "7", "08"],
            "amount": [1.5, 1e12, -2.0],
            "staff": pd.array([3, None, 4], dtype="Int64"),
            "行业": ["零售", "制造", "零售"],
            "note": ["x", None, 'a, "b"\nc'],
            "bad": [0, 1, 0],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    assert book.add("d", tmp_path / "t.parquet", schema, now=1).snapshot == first


def test_any_change_of_content_schema_or_day_is_another_snapshot(book, schema, tmp_path):
    path = put(tmp_path, text())
    seen = {book.add("a", path, schema, now=1).snapshot}
    for changed in (ROWS[:2], [ROWS[0].replace("1.5", "1.25"), *ROWS[1:]], [ROWS[0].replace(",x,", ",,"), *ROWS[1:]]):
        seen.add(book.add("a", put(tmp_path, text(changed)), schema, now=1).snapshot)
    later = parse_schema(SCHEMA.replace("2024-12-31", "2025-01-31").encode())
    seen.add(book.add("a", put(tmp_path, text()), later, now=1).snapshot)
    other = parse_schema(SCHEMA.replace("CNY", "USD").encode())
    seen.add(book.add("a", put(tmp_path, text()), other, now=1).snapshot)
    assert len(seen) == 6
    assert later.digest == schema.digest != other.digest


def test_a_name_moves_on_and_earlier_snapshots_stay(book, schema, tmp_path):
    first = book.add("loans", put(tmp_path, text()), schema, now=1)
    second = book.add("loans", put(tmp_path, text(ROWS[:2])), schema, now=2)
    assert book.get("loans").snapshot == second.snapshot and len(book.all()) == 1
    assert len(book.load("loans", ["amount"])) == 2
    assert len(book.load("loans", ["amount"], snapshot=first.snapshot)) == 3
    document = second.document()
    assert document["source"] == "loans.csv" and document["as_of"] == "2024-12-31"
    assert book.summary("loans")[1]["absent"] == 1
    for call in (
        lambda: book.get("other"),
        lambda: book.load("loans", ["amount"], snapshot="0" * 64),
        lambda: book.load("loans", ["nothing"]),
        lambda: book.add("no name", put(tmp_path, text()), schema, now=1),
    ):
        with pytest.raises(ChaotianError):
            call()


def test_the_values_are_private_on_disk(book, schema, tmp_path):
    book.add("loans", put(tmp_path, text()), schema, now=1)
    assert (tmp_path / "home" / "data.duckdb").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("data", "code", "where"),
    [
        (text([ROWS[0], "8,12a,,零售,,0"]), "DATA_TYPE", "row 3, column amount"),
        (text([ROWS[0], "8,１２,,零售,,0"]), "DATA_TYPE", "row 3, column amount"),
        (text([ROWS[0], "8,NaN,,零售,,0"]), "DATA_TYPE", "row 3, column amount"),
        (text([ROWS[0], "8,inf,,零售,,0"]), "DATA_TYPE", "row 3, column amount"),
        (text([ROWS[0], "8,1e999,,零售,,0"]), "DATA_TYPE", "row 3, column amount"),
        (text([ROWS[0], "8,,,零售,,0"]), "DATA_MISSING", "row 3, column amount"),
        (text([ROWS[0], "8, ,,零售,,0"]), "DATA_MISSING", "row 3, column amount"),
        (text([ROWS[0], "8,1,2.5,零售,,0"]), "DATA_TYPE", "row 3, column staff"),
        (text([ROWS[0], "8,1,9.2e18,零售,,0"]), "DATA_TYPE", "row 3, column staff"),
        (text([ROWS[0], "8,1,,渔业,,0"]), "DATA_DOMAIN", "row 3, column 行业"),
        (text([ROWS[0], "8,1,,零售,,2"]), "DATA_TYPE", "row 3, column bad"),
        (text([ROWS[0], "8,1,,零售,,"]), "DATA_MISSING", "row 3, column bad"),
        (text([ROWS[0], ",1,,零售,,0"]), "DATA_MISSING", "row 3, column loan"),
        (text([*ROWS, ROWS[0]]), "DATA_DUPLICATE", "rows 2 and 5, column loan"),
        (text([ROWS[0], "8,1,,零售,0"]), "DATA_SOURCE", "row 3"),
        (text([ROWS[0], "8,1,,零售,,0,9"]), "DATA_SOURCE", "row 3"),
        (text([ROWS[0], '8,1,,零售,"x,0', "9,1,,零售,,0"]), "DATA_SOURCE", "row 3"),
        (text(header=HEADER.replace("amount", "Amount")), "DATA_COLUMN", "amount"),
        (text(header=HEADER.replace("note", "amount")), "DATA_COLUMN", "twice"),
        (text(header=HEADER.replace("note", "other")), "DATA_COLUMN", "note"),
        (text(header=HEADER.replace("note", "")), "DATA_COLUMN", "number 5"),
        (text([row + ",1" for row in ROWS[:2]], header=HEADER + ",extra"), "DATA_COLUMN", "extra"),
        ("", "DATA_SOURCE", "empty"),
        (HEADER + "\n", "DATA_SOURCE", "no rows"),
        (text().replace(",", ";"), "DATA_COLUMN", "loan"),
        (bytes(range(256)) * 40, "DATA_SOURCE", ""),
        (b"loan,a\x00b\n", "DATA_SOURCE", "zero bytes"),
        (gzip.compress(text().encode())[:-9], "DATA_SOURCE", "gzip"),
        (b"PK\x03\x04 a spreadsheet", "DATA_SOURCE", "Excel"),
        (text([ROWS[0], "8,1,,零售," + "x" * 5_000_000 + ",0"]), "DATA_SOURCE", "row"),
    ],
)
def test_faults_are_named_in_plain_words(tmp_path, schema, data, code, where):
    error = refused(put(tmp_path, data), schema)
    assert (error.code, error.exit_status) == (code, 2)
    assert where in error.detail and "loans.csv" in error.detail
    for value in ("12a", "渔业", "9.2e18", "007"):
        assert value not in error.detail + error.hint


def test_files_that_are_not_there_or_not_readable(tmp_path, schema):
    for name in ("none.csv", "none.parquet", "."):
        assert refused(tmp_path / name, schema).code == "DATA_SOURCE"
    assert refused(put(tmp_path, b"PAR1 nonsense", "x.parquet"), schema).code == "DATA_SOURCE"


def test_nothing_of_a_source_stays_in_the_temporary_folder(tmp_path, schema, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    DatasetBook.check(put(tmp_path, text()), schema)
    refused(put(tmp_path, text([ROWS[0], ROWS[0]])), schema)
    assert list(folder.iterdir()) == []


def test_a_failed_add_leaves_the_dataset_as_it_was(book, schema, tmp_path):
    first = book.add("loans", put(tmp_path, text()), schema, now=1)
    with pytest.raises(ChaotianError):
        book.add("loans", put(tmp_path, text([ROWS[0], ROWS[0]])), schema, now=2)
    assert book.get("loans") == first and len(book.load("loans", ["amount"])) == 3


def test_a_locked_or_damaged_data_file_is_a_coded_error(schema, tmp_path):
    store = ValueStore(tmp_path / "data.duckdb", busy_seconds=0.0)
    (tmp_path / "data.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(ChaotianError) as caught:
        store.add(put(tmp_path, text()), schema)
    assert caught.value.code == "STORAGE"


def test_a_reader_waits_for_a_writer_of_another_process(book, schema, tmp_path):
    book.add("loans", put(tmp_path, text()), schema, now=1)
    file = tmp_path / "home" / "data.duckdb"
    code = f"import duckdb, sys; c = duckdb.connect({str(file)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        snapshot = book.get("loans").snapshot
        with pytest.raises(ChaotianError) as caught:
            ValueStore(file, busy_seconds=0.0).load(snapshot, schema, ["amount"])
        assert caught.value.code == "STORAGE"
        waited = []

        def let_go(seconds):
            waited.append(seconds)
            writer.stdin.close()
            writer.wait(20)

        store = ValueStore(file, busy_seconds=20.0, sleep=let_go)
        assert len(store.load(snapshot, schema, ["amount"])) == 3 and waited


def test_read_frame_keeps_the_order_of_the_file(schema, tmp_path):
    frame = read_frame(put(tmp_path, text()), schema)
    assert list(frame.ids) == ["007", "7", "08"] and frame.columns["bad"].tolist() == [0.0, 1.0, 0.0]


def test_names_that_sql_would_confuse(tmp_path, book):
    schema = parse_schema(
        b'id = "a"\n[columns.Amount]\ntype="numeric"\n[columns.amount]\ntype="numeric"\n'
        b'[columns."_id"]\ntype="numeric"\n[columns."x\'; DROP TABLE y; --"]\ntype="numeric"\n'
    )
    path = put(tmp_path, "a,Amount,amount,_id,x'; DROP TABLE y; --\nk,1,2,3,4\n")
    book.add("odd", path, schema, now=1)
    frame = book.load("odd", [column.name for column in schema.columns])
    assert [float(column[0]) for column in frame.columns.values()] == [1.0, 2.0, 3.0, 4.0]


# --- schemas --------------------------------------------------------------------------------------------------------


def test_a_schema_goes_through_json_and_back(schema):
    assert Schema.from_document(schema.document()) == schema
    demo = parse_schema((DEMO / "data" / "schema.toml").read_bytes())
    assert Schema.from_document(demo.document()).digest == demo.digest


@pytest.mark.parametrize(
    "change",
    [
        ('id = "loan"', ""),
        ('id = "loan"', 'id = "amount"'),
        ('label = "bad"', 'label = "nothing"'),
        ('label = "bad"', 'label = "note"'),
        ("2024-12-31", '"yesterday"'),
        ('type = "numeric"', 'type = "number"'),
        ('unit = "CNY"', "unit = 3"),
        ("grade = 4", "grade = 6"),
        ("grade = 4", "grade = true"),
        ('disclosure = "aggregate"', 'disclosure = "exact"'),
        ('missing = "allow"', 'missing = "drop"'),
        ('levels = ["零售", "制造"]', 'levels = ["a", "a"]'),
        ('unit = "CNY"', 'colour = "red"'),
        ('id = "loan"', 'id = "loan"\nretention = 3'),
        ("[columns.amount]", "[columns.amount"),
    ],
)
def test_unknown_or_wrong_keys_of_a_schema_are_refused(change):
    with pytest.raises(ChaotianError) as caught:
        parse_schema(SCHEMA.replace(*change).encode())
    assert caught.value.code == "BAD_DOCUMENT"


def test_a_schema_of_wrong_bytes():
    for data in (b"\xff\xfe", b"", b"x" * (2 << 20)):
        with pytest.raises(ChaotianError):
            parse_schema(data)


# --- digests --------------------------------------------------------------------------------------------------------


def test_row_digests_count_what_was_added_removed_and_changed(book, schema, tmp_path):
    rows = [f"{i},{i}.5,{i},零售,n{i},{i % 2}" for i in range(100)]
    key, columns = b"k" * 32, ["amount", "note"]

    def digests(part, mask=None, names=columns, secret=key):
        book.add("loans", put(tmp_path, text(part)), schema, now=1)
        frame = book.load("loans", ["amount", "staff", "note"])
        return list(row_digests(frame, names, np.ones(len(frame), bool) if mask is None else mask, secret))

    base = digests(rows)
    assert len(base) == 2
    assert all(each.dtype == np.uint64 and len(each) == 100 and (np.diff(each) > 0).all() for each in base)
    assert rows_changed(base, digests(rows[::-1])) == 0
    assert rows_changed(base, digests(rows[7:])) == 7
    assert rows_changed(base, digests([*rows, "x,1,,零售,,0"])) == 1
    assert rows_changed(base, digests([rows[0].replace("0.5", "0.25"), *rows[1:]])) == 1
    assert rows_changed(base, digests([rows[0].replace("n0", "n1"), *rows[1:]])) == 1
    assert rows_changed(base, digests([rows[0].replace(",0,零售", ",9,零售"), *rows[1:]])) == 0  # staff is not used
    assert rows_changed(base, digests(rows, mask=np.arange(100) >= 3)) == 3
    assert rows_changed(base, digests(rows, names=["note", "amount"])) == 0
    assert not set(base[0].tolist()) & set(digests(rows, secret=b"z" * 32)[0].tolist())
    many = [
        row.replace(f"n{i}", f"m{i}") for i, row in enumerate(rows)
    ]  # all rows change in one column, two in another
    assert rows_changed(base, digests([rows[0], *many[1:]])) == 99
    assert rows_changed(base, digests([row.replace(".5", ".25") if i < 2 else row for i, row in enumerate(many)])) == 2
    with pytest.raises(ChaotianError):
        digests(rows, secret=b"short")


def test_digests_do_not_confuse_neighbouring_texts(tmp_path):
    schema = parse_schema(b'id="i"\n[columns.a]\ntype="category"\n[columns.b]\ntype="category"\n')
    seen = set()
    for row in ("k,ab,c", "k,a,bc", "ka,b,c"):
        frame = read_frame(put(tmp_path, "i,a,b\n" + row + "\n"), schema)
        seen.add(tuple(int(each[0]) for each in row_digests(frame, ["a", "b"], np.ones(1, bool), b"k" * 32)))
    assert len(seen) == 3
