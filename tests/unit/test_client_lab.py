"""The lab and features from Python: data frames give what files give, and errors speak of arguments."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from federation.errors import ChaotianError
from gateway.client import Client, Job, documents, lab
from gateway.client.books import Grants, Members, Models
from gateway.client.data import Data, Features
from gateway.client.jobs import Jobs
from gateway.client.progress import bar, clean
from gateway.client.results import JobResult
from gateway.datasets.features import keep_features
from gateway.identity.home import Home, NodeConfig
from gateway.lab.settings import TrainSettings, parse_parameters
from gateway.lab.training import train as train_files
from tests.support.entropy import SeededEntropy
from tests.support.scorecards import DATA

ROOT = DATA.parents[1]
BANKS = ("bank-1", "bank-2", "bank-3")


def credit(name: str) -> pd.DataFrame:
    return pd.read_csv(DATA / f"default_credit_{name}.csv", dtype={"id": str})


@pytest.fixture(scope="module")
def result() -> lab.LabResult:
    return lab.train({b: credit(b) for b in BANKS}, id="id", label="y", test=credit("test"), features="woe", bins=5)


def test_data_frames_give_what_files_give(result, tmp_path) -> None:
    files = {bank: DATA / f"default_credit_{bank}.csv" for bank in BANKS}
    parameters = parse_parameters(["features=woe", "bins=5"])
    settings = TrainSettings(files, "id", "y", DATA / "default_credit_test.csv", parameters)
    other = train_files(settings, entropy=SeededEntropy(b"lab"))
    assert result.model.version == other.fit.model.version
    assert np.array_equal(result.scores["score"], other.scores)
    kept = result.save(tmp_path / "out")
    assert json.loads((kept / "result.json").read_text())["model_version"] == result.model.version
    assert (kept / "report.html").read_text() == result.report()


def test_tables_hold_together(result) -> None:
    bins, comparison = result.bins, result.comparison
    assert bins.groupby("column")["rows"].sum().eq(3000).all()
    assert (bins["good"] + bins["bad"] == bins["rows"]).all()
    totals = bins.groupby("column")[["good", "bad"]].transform("sum")
    part = (bins["bad"] / totals["bad"] - bins["good"] / totals["good"]) * bins["woe"]
    iv = part.groupby(bins["column"]).sum()
    assert np.allclose(iv[result.information.index], result.information["iv"], rtol=0, atol=1e-12)
    assert result.information["iv"].is_monotonic_decreasing
    assert list(comparison.index) == list(BANKS) and comparison["federated"].nunique() == 1
    assert np.allclose(comparison["gain"], comparison["federated"] - comparison["alone"])
    assert {"benefit", "separation", "coefficients"} <= set(result.plots)
    assert "<svg" in result.plots["separation"]._repr_html_() and "bank-2" in result._repr_html_()
    test = credit("test")
    assert np.allclose(result.scorecard.decision_function(test), result.scores["score"], rtol=0, atol=0)


def test_the_index_identifies_rows(result) -> None:
    members = {bank: credit(bank).drop(columns="id") for bank in BANKS}  # 0, 1, 2, … at every member
    found = lab.train(members, label="y", holdout=0.2, features="woe", bins=5)
    assert not found.warnings and found.scores.index.is_unique and found.scores.index[0].startswith("bank-")
    with pytest.raises(ChaotianError) as refused:
        lab.train({b: DATA / f"default_credit_{b}.csv" for b in BANKS}, label="y")
    assert refused.value.code == "USAGE"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"penalty": -1}, "USAGE"),
        ({"bins": 3}, "USAGE"),
        ({"edges": {"x1": [0.0]}}, "USAGE"),
        ({"features": "woe", "edges": {"nope": [0.0]}}, "BAD_DOCUMENT"),
        ({"drop": ["nope"]}, "DATA_COLUMN"),
        ({"label": "nope"}, "DATA_COLUMN"),
        ({"members": {"a": 1, "b": 2, "c": 3}}, "USAGE"),
        ({"members": {b: credit(b) for b in BANKS[:2]}}, "TOO_FEW_MEMBERS"),
    ],
)
def test_wrong_arguments_are_coded(changes, code) -> None:
    given = {"members": {b: credit(b) for b in BANKS}, "id": "id", "label": "y", **changes}
    with pytest.raises(ChaotianError) as refused:
        lab.train(given.pop("members"), **given)
    assert refused.value.code == code and "--" not in refused.value.detail + refused.value.hint


def test_a_fault_names_member_row_and_column() -> None:
    members = {bank: credit(bank) for bank in BANKS}
    members["bank-2"].loc[6, "x3"] = np.nan
    with pytest.raises(ChaotianError) as refused:
        lab.train(members, id="id", label="y")
    assert refused.value.detail.startswith("bank-2, row 7, column x3") and refused.value.code == "DATA_MISSING"


# --- features -------------------------------------------------------------------------------------------------------

LEDGER = {
    "id": "loan",
    "period": "month",
    "columns": {"month": {"type": "month"}, "balance": {"type": "numeric"}, "credit_limit": {"type": "numeric"}},
}


def ledger() -> pd.DataFrame:
    months = ["2024-10", "2024-11", "2024-12"]
    rows = [(f"L{n}", month, 100.0 * n + k, 1000.0) for n in range(1, 9) for k, month in enumerate(months)]
    return pd.DataFrame(rows, columns=["loan", "month", "balance", "credit_limit"])


def test_features_of_a_data_frame_are_those_of_the_dataset(tmp_path) -> None:
    made, _ = Home.create(tmp_path / "home", NodeConfig())
    made.finish()
    client = Client(tmp_path / "home")
    client.data.add("ledger", ledger(), LEDGER)
    known = client.features.list()
    loose = client.features.compute(ledger(), schema=LEDGER)
    stored = client.features.compute("ledger")
    kept = client.features.compute("ledger", out="features")
    assert set(loose.columns) - {"loan"} <= set(known.index) and len(loose) == 8 and loose.shape[1] > 3
    pd.testing.assert_frame_equal(loose, stored)
    pd.testing.assert_frame_equal(loose, kept[loose.columns])
    assert client.data.show("features").rows == 8
    dated = client.features.compute("ledger", at="2024-11")
    assert not dated.equals(loose)
    for call, code in (
        (lambda: client.features.compute(ledger()), "USAGE"),
        (lambda: client.features.compute("ledger", at="2024-13"), "USAGE"),
        (lambda: client.features.compute("ledger", features=["nope"]), "NOT_FOUND"),
        (lambda: client.features.compute("features"), "BAD_DOCUMENT"),
        (lambda: keep_features(client.data._book, "ledger", "out", now=0, join="nothing"), "NOT_FOUND"),
    ):
        with pytest.raises(ChaotianError) as refused:
            call()
        assert refused.value.code == code


# --- documents ------------------------------------------------------------------------------------------------------


def test_documents_from_whatever_a_person_has(tmp_path) -> None:
    banks = ["a", "b", "c"]
    document = documents.scorecard(
        members=banks, purpose="p", dataset="d", label="y", features=["x"], penalty=np.float64(2)
    )
    text = documents.toml_text(document, "job")
    assert documents.toml_text(text, "job") == text
    path = tmp_path / "job.toml"
    path.write_text(text)
    assert documents.toml_text(path, "job") == documents.toml_text(str(path), "job") == text
    assert "penalty = 2.0" in text and "features = " in text
    for broken in ({"a": object()}, {1: 2}, {"a": None}):
        with pytest.raises(ChaotianError) as refused:
            documents.toml_text(broken, "job")
        assert refused.value.code == "BAD_DOCUMENT"
    nested: dict = {}
    nested["self"] = nested
    with pytest.raises(ChaotianError):
        documents.toml_text(nested, "job")
    with pytest.raises(ChaotianError) as large:
        documents.toml_text("x = 1\n" * 300_000, "job")
    assert large.value.code == "OVERSIZED"


def test_tables_of_pooled_results() -> None:
    figure = {"estimate": 0.7, "low": 0.69, "high": 0.71}
    group = {"rows": 50, "bads": 10, "rate": 0.2, "predicted": 0.25, "lift": 1.0, "gain": 0.5}
    evaluation = {"format": "chaotian-evaluation/1", "model": "0" * 64, "rows": 100, "bads": 20, "auc": figure,
                  "ks": figure, "gini": figure, "auc_sampling": [0.6, 0.8], "brier": 0.1, "log_loss": 0.3,
                  "groups": [group, {**group, "gain": 1.0}], "bins": 9, "min_rows": 30}  # fmt: skip
    found = JobResult({"id": "0" * 64, "result": evaluation, "own": {"code": "ONE_CLASS", "rows": 3}}, Path("/none"))
    assert found.evaluation.loc["auc, 95 %", "high"] == 0.8 and list(found.deciles["gain"]) == [0.5, 1.0]
    assert set(found.plots) == {"calibration", "gain"} and set(found.tables) == {"evaluation", "deciles", "own"}
    shift = {"name": "x", "index": 0.1, "noise": 0.2, "verdict": "noise", "labels": ["a"], "before": [1], "after": [2]}
    stability = {"format": "chaotian-stability/1", "shifts": [shift]}
    assert JobResult({"id": "0" * 64, "result": stability}, Path("/none")).stability.loc["x", "verdict"] == "noise"


def test_a_bar_shows_nothing_where_nobody_looks(capsys) -> None:
    with bar() as show:
        show("working", 1, 2)
    assert capsys.readouterr() == ("", "")
    assert clean("a\x1b[31mb\n") == "a [31mb "


def test_the_page_of_the_client_is_true() -> None:
    """Its Python parses, and every method in its tables is there."""
    page = (ROOT / "docs/client.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 5
    for block in blocks:
        compile(block, "docs/client.md", "exec")
    parts = {"data": Data, "features": Features, "members": Members, "grants": Grants, "jobs": Jobs, "models": Models}
    rows = dict(re.findall(r"^\| `client\.([a-z]+)` \| (.*) \|$", page, re.M))
    assert set(rows) == set(parts)
    for name, part in parts.items():
        listed = set(re.findall(r"`([a-z_ ]+)`", rows[name].partition(";")[0])[0].split())
        assert listed == {m for m in vars(part) if not m.startswith("_")}, name
    of_job = set(re.findall(r"has `([a-z_ ]+)`", rows["jobs"])[0].split())
    assert of_job == {m for m in vars(Job) if not m.startswith("_")} - {"look"}
    tables = set(re.findall(r"`([a-z]+)`", " ".join(re.findall(r"^\| (`.*?) \| `", page, re.M))))
    assert tables - {"client"} == set(JobResult.TABLES)
