"""`chaotian model` and `chaotian data`: what a person types, what comes out, and with which exit status."""

import csv
import gzip
import json
import math

import numpy as np
import pytest

from bench.plain import run_plain
from federation.learning.scorecard import Scorecard
from gateway.cli.main import run
from gateway.identity.home import Home, NodeConfig
from gateway.jobs.models import ModelStore, read_model
from gateway.scoring.sources import rows_of_file
from tests.support.scorecards import DEMO, demo_frames, demo_spec, made_spec, make_frame, write_csv

OTHERS = DEMO / "data" / "others.csv"


@pytest.fixture(scope="module")
def model():
    spec = demo_spec()
    left = run_plain({name: Scorecard(spec, frame) for name, frame in demo_frames(spec).items()})
    return left["us-bank"].model("ab" * 32)


@pytest.fixture
def home(tmp_path, model):
    assert ModelStore(tmp_path).save(model) == ModelStore(tmp_path).save(model) == model.version
    return tmp_path


def call(capsys, *arguments):
    status = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list_show_export(capsys, home, model):
    status, out, _ = call(capsys, "model", "list", "--home", home)
    assert status == 0 and model.version[:12] in out
    status, out, _ = call(capsys, "model", "list", "--home", home, "--json")
    assert json.loads(out)["models"][0]["version"] == model.version
    for name in (model.version, model.version[:8], "abab"):
        status, out, _ = call(capsys, "model", "show", name, "--home", home)
        assert status == 0
        for text in ("ApprovalDate", "UrbanRural=other", "std. error", "1, against urban", model.version, "log-loss"):
            assert text in out
    target = home / "m.json"
    assert call(capsys, "model", "export", "abab", "--home", home, "--out", target)[0] == 0
    assert read_model(target).version == model.version
    assert call(capsys, "model", "show", target)[0] == 0  # a file needs no home


def test_score_gives_log_odds_and_probability_in_the_order_of_the_file(capsys, home, model):
    target, scores = home / "m.json", home / "scores.csv"
    call(capsys, "model", "export", "abab", "--home", home, "--out", target)
    assert call(capsys, "model", "score", "--model", target, "--data", OTHERS, "--out", scores)[0] == 0
    with scores.open() as file, OTHERS.open() as source:
        rows, loans = list(csv.DictReader(file)), list(csv.DictReader(source))
    assert [row["id"] for row in rows] == [loan["LoanNr_ChkDgt"] for loan in loans]
    expected = model.score(rows_of_file(model, OTHERS).frame)
    assert [float(row["score"]) for row in rows] == expected.tolist()
    for row in rows[:50]:
        assert float(row["probability"]) == pytest.approx(1 / (1 + math.exp(-float(row["score"]))), rel=1e-14)
    packed = home / "others.csv.gz"
    packed.write_bytes(gzip.compress(OTHERS.read_text().encode("gb18030")))
    again = home / "again.csv"
    assert call(capsys, "model", "score", "--model", "abab", "--home", home, "--data", packed, "--out", again)[0] == 0
    assert again.read_bytes() == scores.read_bytes()


def test_scoring_refuses_what_does_not_fit(capsys, home, model):
    lines = OTHERS.read_text().splitlines()
    cases = {
        "DATA_COLUMN": [lines[0].replace("GrAppv", "Amount"), *lines[1:4]],
        "DATA_DOMAIN": [lines[0], lines[1].replace("existing", "unheard-of")],
        "DATA_DUPLICATE": [lines[0], lines[1], lines[1]],
    }
    for code, part in cases.items():
        path = home / "bad.csv"
        path.write_text("\n".join(part) + "\n")
        arguments = ("model", "score", "--model", "abab", "--home", home, "--data", path, "--out", home / "s.csv")
        status, _, err = call(capsys, *arguments)
        assert status == 2 and f"chaotian: error {code}: " in err and "\nhint: " in err
        assert not (home / "s.csv").exists() and "unheard-of" not in err


def test_a_changed_model_file_is_an_integrity_error(capsys, home, model):
    path = home / "changed.json"
    document = json.loads(json.dumps(dict(model.document)))
    document["coefficients"][0]["value"] = "0.0"
    path.write_text(json.dumps(document))
    status, _, err = call(capsys, "model", "show", path)
    assert status == 5 and "MODEL_HASH" in err
    for text in ("[]", "{", "\ud800", '{"format":"chaotian-scorecard/1"}', "[" * 100_000):
        path.write_text(text, errors="surrogatepass")
        assert call(capsys, "model", "show", path)[0] in (2, 5)


def test_models_that_are_not_there(capsys, tmp_path):
    for name in ("abcd1234", "ab", "../nowhere/none", "none.json"):
        status, _, err = call(capsys, "model", "show", name, "--home", tmp_path)
        assert status == 2 and "NOT_FOUND" in err
    assert call(capsys, "model", "list", "--home", tmp_path)[0] == 0
    assert call(capsys, "model", "list")[0] == 2


def test_two_models_of_one_job_need_more_digits(capsys, tmp_path):
    for seed in (1, 2):
        program = Scorecard(made_spec(penalty=1.0), make_frame(500, seed=seed))
        ModelStore(tmp_path).save(run_plain({"a": program})["a"].model("cd" * 32))
    status, _, err = call(capsys, "model", "show", "cdcd", "--home", tmp_path)
    assert status == 2 and "more digits" in err


def test_data_verbs(capsys, tmp_path):
    home = tmp_path / "bank"
    made, _ = Home.create(home, NodeConfig())
    made.finish()
    schema = DEMO / "data" / "schema.toml"
    source = DEMO / "data" / "us-bank.csv"
    assert call(capsys, "data", "check", source, "--schema", schema)[:2] == (
        0,
        "us-bank.csv: 171 rows fit the schema\n",
    )
    status, out, _ = call(capsys, "data", "add", "loans", source, "--schema", schema, "--home", home, "--json")
    assert status == 0 and json.loads(out)["rows"] == 171
    status, out, _ = call(capsys, "data", "list", "--home", home)
    assert status == 0 and "loans" in out and "us-bank.csv" in out
    status, out, _ = call(capsys, "data", "show", "loans", "--home", home)
    assert status == 0 and "Default" in out and "(label)" in out and "1960-01-01" in out
    status, out, _ = call(capsys, "data", "show", "loans", "--home", home, "--json")
    assert {column["name"] for column in json.loads(out)["columns"]} >= {"GrAppv", "Default"}
    assert call(capsys, "data", "show", "other", "--home", home)[0] == 2
    bad = write_csv(tmp_path / "bad.csv", ["a"], [["1"]])
    status, _, err = call(capsys, "data", "add", "loans", bad, "--schema", schema, "--home", home)
    assert status == 2 and "DATA_COLUMN" in err
    assert call(capsys, "data", "list", "--home", tmp_path / "nowhere")[0] == 2
    assert call(capsys, "data", "add", "x", source, "--schema", tmp_path / "none.toml", "--home", home)[0] == 2


def test_log_odds_do_not_depend_on_the_rows_beside(model):
    frame = rows_of_file(model, OTHERS).frame
    alone = frame.take(np.arange(len(frame)) == 17)
    assert model.score(alone)[0] == model.score(frame)[17]
