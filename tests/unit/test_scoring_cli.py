"""`chaotian score`: every kind of source, what comes out, and faults named by file, row and column."""

import csv
import gzip
import json

import duckdb
import openpyxl
import pandas as pd
import pytest

from federation.learning.coding import Category, Numeric
from gateway.cli.main import run
from gateway.identity.home import Home, NodeConfig
from gateway.jobs.models import ModelStore, encode
from gateway.scoring.estimator import FederatedScorecard
from tests.support.models import binned, grouped, made_model

WOE = made_model(
    [binned("amount", [100.0, 1000.0], [-1.0, 0.1, 0.9, 0.3]), grouped("sector", [["制造业"], ["trade"]], [-0.4, 0.4])],
    [-1.0, 0.8, 1.1],
    points=True,
)
RAW = made_model(
    [Numeric("amount", 500.0, 250.0), Category("sector", ("制造业", "trade"), ("trade",))], [0.1, 0.5, 0.7]
)
ROWS = [("007", "50", "制造业"), ("008", "500.5", "trade"), ("009", "5e3", "trade"), ("010", "", "制造业")]
SCHEMA = """
id = "loan"
other_columns = "ignore"
[columns.amount]
type = "numeric"
missing = "allow"
[columns.sector]
type = "category"
"""


def call(capsys, *arguments):
    status = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def text_of(rows, header="loan,amount,sector,other"):
    return "\n".join([header, *(",".join((*row, "x")) for row in rows)]) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("CHAOTIAN_HOME", raising=False)
    (tmp_path / "woe.json").write_bytes(encode(WOE))
    (tmp_path / "raw.json").write_bytes(encode(RAW))
    return tmp_path


@pytest.fixture
def home(folder):
    made, _ = Home.create(folder / "bank", NodeConfig())
    made.finish()
    return made.path


def sources(folder):
    """Return the same rows in every kind of file."""
    text, typed = text_of(ROWS), [(a, float(b) if b else None, c) for a, b, c in ROWS]
    (folder / "utf8.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / "gb.csv").write_bytes(text.encode("gb18030"))
    (folder / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    book = openpyxl.Workbook()
    for row in [("loan", "amount", "sector"), *typed]:
        book.active.append(row)
    book.save(folder / "book.xlsx")
    frame = pd.DataFrame(typed, columns=["loan", "amount", "sector"])
    frame.to_parquet(folder / "rows.parquet", index=False)
    with duckdb.connect(str(folder / "data.duckdb")) as connection:
        connection.register("frame", frame)
        connection.execute("CREATE TABLE applicants AS SELECT * FROM frame")
    return [("utf8.csv",), ("gb.csv",), ("packed.csv.gz",), ("book.xlsx",), ("rows.parquet",),
            ("data.duckdb", "--table", "applicants")]  # fmt: skip


def test_every_kind_of_source_scores_alike(capsys, folder):
    frame = pd.DataFrame({"amount": [50, 500.5, 5000, None], "sector": [row[2] for row in ROWS]})
    expected = FederatedScorecard(WOE).table(frame)
    for name, *options in sources(folder):
        status, out, err = call(
            capsys, "score", folder / "woe.json", folder / name, *options, "--out", folder / "s.csv"
        )
        assert (status, err) == (0, "") and "4 rows scored with model" in out
        found = pd.read_csv(folder / "s.csv", dtype={"id": str})
        assert found.id.tolist() == [row[0] for row in ROWS]
        assert found.score.tolist() == expected.score.tolist()
        assert found.points.tolist() == expected.points.tolist()
        assert found.probability.tolist() == expected.probability.tolist()
        assert found.reason_1.fillna("").tolist() == expected.reason_1.fillna("").tolist()
        assert found.reason_1_points.fillna(0).tolist() == expected.reason_1_points.fillna(0).tolist()
        assert found.reason_1_bin.fillna("").tolist() == expected.reason_1_bin.fillna("").tolist()
        assert (found.model == WOE.version).all() and found.reason_3.isna().all()


def test_what_is_written(capsys, folder):
    sources(folder)
    arguments = ("score", folder / "raw.json", folder / "utf8.csv", "--reasons", "1", "--out")
    (folder / "utf8.csv").write_text(text_of(ROWS[:3]))
    status, out, _ = call(capsys, *arguments, folder / "s.csv", "--json")
    assert status == 0 and json.loads(out)["model"] == RAW.version and json.loads(out)["points"] is False
    with (folder / "s.csv").open() as file:
        rows = list(csv.reader(file))
    head = ["id", "score", "probability", "reason_1", "reason_1_points", "reason_1_bin", "model"]
    assert rows[0] == head and [row[3] for row in rows[1:]] == ["", "sector", "amount"]
    assert call(capsys, *arguments, folder / "s.parquet")[0] == 0
    assert pd.read_parquet(folder / "s.parquet").score.tolist() == [float(row[1]) for row in rows[1:]]
    assert call(capsys, *arguments, folder / "s.csv.gz")[0] == 0
    assert gzip.decompress((folder / "s.csv.gz").read_bytes()) == (folder / "s.csv").read_bytes()
    assert (folder / "s.csv").stat().st_mode & 0o077 == 0
    for target, code in (("s.xlsx", "USAGE"), ("none/s.csv", "STORAGE"), (".", "STORAGE")):
        status, _, err = call(capsys, *arguments, folder / target)
        assert status != 0 and f"error {code}:" in err
    status, _, err = call(capsys, *arguments, folder / "utf8.csv")
    assert status == 2 and "take their place" in err and (folder / "utf8.csv").read_text() == text_of(ROWS[:3])
    assert call(capsys, *arguments[:-3], "--reasons", "5", "--out", folder / "x.csv")[0] == 2
    # The verb of the group is the same.
    old = ("model", "score", "--model", folder / "raw.json", "--data", folder / "utf8.csv", "--reasons", "1")
    assert call(capsys, *old, "--out", folder / "old.csv")[0] == 0
    assert (folder / "old.csv").read_bytes() == (folder / "s.csv").read_bytes()


BAD = {
    "missing under raw": (text_of(ROWS), "DATA_MISSING", "rows.csv, row 5, column amount"),
    "no such column": (text_of(ROWS[:1], "loan,sum,sector,other"), "DATA_COLUMN", "rows.csv: column amount is missing"),
    "another case": (text_of(ROWS[:1], "loan,Amount,sector,other"), "DATA_COLUMN", "'Amount'"),
    "no number": (text_of([*ROWS[:2], ("9", "12万", "trade")]), "DATA_TYPE", "rows.csv, row 4, column amount"),
    "unknown level": (
        text_of([*ROWS[:2], ("9", "1", "secret")]),
        "DATA_DOMAIN",
        "rows.csv, row 4, column sector: not one of the model's levels",
    ),
    "no level": (text_of([*ROWS[:2], ("9", "1", "")]), "DATA_MISSING", "rows.csv, row 4, column sector"),
    "too large": (text_of([("9", "1e30", "trade")]), "OVERFLOW", "rows.csv, row 2, column amount"),
    "twice": (text_of([ROWS[0], ROWS[0]]), "DATA_DUPLICATE", "rows.csv, rows 2 and 3, column loan"),
    "empty": ("", "DATA_SOURCE", "rows.csv"),
    "no rows": ("loan,amount,sector\n", "DATA_SOURCE", "rows.csv"),
    "several": (text_of([("", "x", "secret")]), "DATA_MISSING", "There is also: row 2, column amount"),
    "identifier is a feature": ("amount,sector\n1,trade\n", "DATA_COLUMN", "--id"),
}


@pytest.mark.parametrize("case", BAD)
def test_faults_are_named_by_file_row_and_column(capsys, folder, case):
    text, code, words = BAD[case]
    (folder / "rows.csv").write_text(text)
    status, _, err = call(capsys, "score", folder / "raw.json", folder / "rows.csv", "--out", folder / "s.csv")
    assert status in (2, 5) and f"chaotian: error {code}: " in err and words in err, err
    assert "secret" not in err and "12万" not in err and not (folder / "s.csv").exists()


def test_a_missing_text_is_the_level_that_the_lab_made_of_it(capsys, folder):
    model = made_model([Category("k", ("(missing)", "a"), ("a",)), Numeric("x", 2.0, 1.0, True)], [0.0, 1.0, 1.0])
    (folder / "imputed.json").write_bytes(encode(model))
    (folder / "rows.csv").write_text("loan,k,x\n1,,3\n2,a,\n3,(missing),2\n")
    arguments = ("score", folder / "imputed.json", folder / "rows.csv", "--out", folder / "s.csv")
    assert call(capsys, *arguments)[0] == 0
    assert pd.read_csv(folder / "s.csv").score.tolist() == [1.0, 1.0, 0.0]
    frame = pd.DataFrame({"k": [None, "a", "(missing)"], "x": [3, None, 2]})
    assert FederatedScorecard(model).decision_function(frame).tolist() == [1.0, 1.0, 0.0]


def test_a_wrong_model_is_refused(capsys, folder):
    sources(folder)
    (folder / "woe.json").write_bytes(encode(WOE).replace(b'"bad"', b'"good"', 1))
    status, _, err = call(capsys, "score", folder / "woe.json", folder / "utf8.csv", "--out", folder / "s.csv")
    assert status == 5 and "error MODEL_HASH" in err
    for words in (("none.json", "utf8.csv"), ("raw.json", "none.csv"), ("raw.json", "utf8.csv", "third")):
        status, _, err = call(capsys, "score", *(folder / word for word in words), "--out", folder / "s.csv")
        assert status == 2 and "chaotian: error " in err


def test_datasets_of_the_home_and_the_model_in_use(capsys, folder, home):
    (folder / "schema.toml").write_text(SCHEMA)
    for rows in (ROWS[:2], ROWS):
        (folder / "rows.csv").write_text(text_of(rows))
        schema = ("--schema", folder / "schema.toml", "--home", home)
        assert call(capsys, "data", "add", "loans", folder / "rows.csv", *schema)[0] == 0
    (folder / "x").mkdir()
    target = ("--out", folder / "s.csv", "--home", home)
    status, _, err = call(capsys, "score", "loans", *target)
    assert status == 2 and "no model is in use" in err
    assert call(capsys, "model", "use", folder / "woe.json", "--purpose", "credit-risk-model", "--home", home)[0] == 0
    assert call(capsys, "score", "loans", *target)[0] == 0
    assert pd.read_csv(folder / "s.csv", dtype=str).id.tolist() == ["007", "008", "009", "010"]
    assert call(capsys, "score", "loans@1", *target)[0] == 0
    assert pd.read_csv(folder / "s.csv", dtype=str).id.tolist() == ["007", "008"]
    status, _, err = call(capsys, "score", folder / "raw.json", "loans", *target)
    assert status == 2 and "DATA_MISSING: loans, row 4, column amount" in err
    assert call(capsys, "score", "nothing", *target)[0] == 2
    # A second purpose makes the choice ambiguous.
    assert call(capsys, "model", "use", folder / "raw.json", "--purpose", "other", "--home", home)[0] == 0
    status, _, err = call(capsys, "score", "loans@1", *target)
    assert status == 2 and "--purpose" in err
    status, out, _ = call(capsys, "score", "loans@1", *target, "--purpose", "other", "--json")
    assert status == 0 and json.loads(out)["model"] == RAW.version
    status, _, err = call(capsys, "score", RAW.version[:9], "loans@1", *target, "--purpose", "other")
    assert status == 2
    # A dataset that has other types, or not all columns.
    for change, code in (('"category"', "DATA_TYPE"), ("columns.other", "DATA_COLUMN")):
        text = SCHEMA.replace('type = "numeric"', f"type = {change}") if code == "DATA_TYPE" else SCHEMA
        text = text.replace("columns.amount", change) if code == "DATA_COLUMN" else text
        text = text.replace('"numeric"', '"category"') if code == "DATA_COLUMN" else text
        (folder / "schema.toml").write_text(text)
        assert call(capsys, "data", "add", "odd", folder / "rows.csv", *schema)[0] == 0
        status, _, err = call(capsys, "score", folder / "raw.json", "odd", *target)
        assert status == 2 and f"error {code}: odd: " in err


def test_dates_in_a_file_need_the_schema(capsys, folder):
    model = made_model([Numeric("opened", 19000.0, 365.0)], [0.0, 1.0])
    (folder / "dated.json").write_bytes(encode(model))
    (folder / "rows.csv").write_text("loan,opened\n1,2022-01-08\n2,2023-01-08\n")
    arguments = ("score", folder / "dated.json", folder / "rows.csv", "--out", folder / "s.csv")
    status, _, err = call(capsys, *arguments)
    assert status == 2 and "DATA_TYPE: rows.csv, row 2, column opened" in err
    (folder / "schema.toml").write_text('id = "loan"\n[columns.opened]\ntype = "date"\n')
    assert call(capsys, *arguments, "--schema", folder / "schema.toml")[0] == 0
    assert pd.read_csv(folder / "s.csv").score.tolist() == [0.0, 1.0]


def test_a_file_of_the_store_that_was_changed(capsys, home):
    store = ModelStore(home)
    store.save(RAW)
    path = home / "models" / f"{store.save(WOE)}.json"
    path.chmod(0o600)
    path.write_bytes(encode(RAW))
    status, _, err = call(capsys, "model", "show", WOE.version, "--home", home)
    assert status == 5 and "MODEL_HASH" in err
    assert call(capsys, "model", "show", RAW.version, "--home", home)[0] == 0  # one damaged file hides no other
