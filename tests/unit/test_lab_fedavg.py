"""`chaotian lab train --job fedavg`: what it leaves, what it measures, what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from federation.learning.metrics import separation
from gateway.cli import lab
from gateway.lab.averaging import AveragingParameters, parse

DATA = Path(__file__).resolve().parents[1] / "data"
MEMBERS = [part for k in (1, 2, 3) for part in ("--member", f"bank-{k}={DATA / f'default_credit_bank-{k}.csv'}")]


def run(out: Path, *more: str):
    command = ["train", "--job", "fedavg", *MEMBERS, "--id", "id", "--label", "y", "--out", str(out), "--json", *more]
    return CliRunner().invoke(lab.app, command, catch_exceptions=True)


def test_scores_and_figures_are_those_of_the_arrays(tmp_path):
    test = DATA / "default_credit_test.csv"
    done = run(
        tmp_path, "--test", str(test), "--param", "rounds=6", "--param", "hidden=4", "--param", "strategy=FedAdam"
    )
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["job"] == "fedavg" and document["rounds"] == 6 and document["epsilon"] is None
    assert document["aligned_rows"] == 3000 and set(document["bytes"]) == {"bank-1", "bank-2", "bank-3"}
    with (tmp_path / "scores.csv").open() as file:
        scores = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    with test.open() as file:
        rows = list(csv.DictReader(file))
    params = json.loads((tmp_path / "model.json").read_text())["params"]
    columns = [feature["name"] for feature in params["features"] if feature["type"] == "numeric"]
    assert len(columns) == len(params["features"])  # so that the network can be worked out here, with NumPy alone
    x = np.array([[float(row[name]) for name in columns] for row in rows])
    x = (x - params["config"]["center"]) / params["config"]["spread"]
    assert abs(np.mean(x)) < 0.2  # centre and spread are those of the members' rows
    with np.load(tmp_path / "model.npz") as arrays:
        expected = (np.maximum(0, x @ arrays["w1"] + arrays["b1"]) @ arrays["w2"] + arrays["b2"])[:, 0]
    assert np.abs(expected - [scores[row["id"]] for row in rows]).max() < 1e-4
    auc = separation([float(row["y"]) for row in rows], expected).auc
    assert document["metrics"]["auc"] == pytest.approx(auc, abs=1e-6) and auc > 0.6


def test_noise_is_stated_and_held_out_rows_are_measured(tmp_path):
    done = run(tmp_path, "--param", "rounds=2", "--param", "noise=4", "--param", "holdout=0.25")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["evaluated_on"] == "holdout" and 0 < document["epsilon"] < 10 and document["delta"] == 1e-6
    assert document["aligned_rows"] < 3000 and len(document["metrics_local"]) == 3


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--param", "depth=3"], "USAGE"),
        (["--param", "rounds=x"], "USAGE"),
        (["--param", "rounds=0"], "BAD_DOCUMENT"),
        (["--param", "strategy=Krum"], "BAD_DOCUMENT"),
        (["--param", "noise=1", "--param", "honest=3"], "USAGE"),
        (["--processes"], "USAGE"),
    ],
)
def test_what_is_refused(tmp_path, more, code):
    done = run(tmp_path, *more)
    assert done.exception is not None and getattr(done.exception, "code", "") == code
    assert not (tmp_path / "result.json").exists()


def test_parameters_take_the_types_of_their_defaults():
    assert parse(["rounds=3", "rate=0.5", "seed=x"]) == AveragingParameters(rounds=3, rate=0.5, seed="x")
