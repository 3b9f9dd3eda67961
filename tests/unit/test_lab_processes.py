"""`chaotian lab train --processes`: real nodes give the same scores, and nothing of them is left behind."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from federation.errors import ChaotianError
from gateway.cli.main import run as cli
from gateway.lab import nodes
from gateway.lab.nodes import node_names
from gateway.lab.settings import TrainSettings, parse_parameters
from gateway.lab.training import train
from tests.support.entropy import SeededEntropy
from tests.unit.test_lab_train import made


def test_nodes_give_the_scores_of_one_process(tmp_path, capsys, monkeypatch):
    folders = []
    mkdtemp = nodes.tempfile.mkdtemp
    monkeypatch.setattr(nodes.tempfile, "mkdtemp", lambda **k: folders.append(mkdtemp(**k)) or folders[-1])
    paths, _ = made(tmp_path, members=3)
    words = [word for name, path in paths.items() for word in ("--member", f"{name}={path}")]
    out = tmp_path / "out"
    assert (
        cli(["lab", "train", *words, "--id", "loan", "--label", "bad", "--processes", "--out", str(out), "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    settings = TrainSettings(members=paths, id="loan", label="bad")
    here = train(settings, entropy=SeededEntropy(1))
    scores = pd.read_csv(out / "scores.csv")
    assert scores["id"].astype(str).tolist() == here.ids
    assert np.abs(scores["score"] - here.scores).max() < 1e-8
    assert document["rounds"] == here.fit.rounds and document["processes"] is True
    for name in paths:  # envelopes and signatures of the transport come on top
        assert document["bytes"][name]["sent"] > here.fit.sent[name]
        assert document["bytes"][name]["received"] > here.fit.received[name]
    homes = [folder for folder in folders if "chaotian-lab-" in folder]
    assert homes and not any(Path(folder).exists() for folder in homes)


@pytest.mark.parametrize("given", [["features=woe", "bins=4"], ["impute=mean"]])
def test_nodes_take_missing_values_as_one_process_does(tmp_path, capsys, given):
    def holes(index: int, table: pd.DataFrame) -> pd.DataFrame:
        numbers = table.select_dtypes("number").columns.drop("bad")
        table.loc[table.index[index::7], numbers[0]] = np.nan
        return table

    paths, _ = made(tmp_path, members=3, rows=300, change=holes)
    words = [word for name, path in paths.items() for word in ("--member", f"{name}={path}")]
    words += [word for param in given for word in ("--param", param)]
    out = tmp_path / "out"
    assert cli(["lab", "train", *words, "--id", "loan", "--label", "bad", "--processes", "--out", str(out)]) == 0
    capsys.readouterr()
    settings = TrainSettings(members=paths, id="loan", label="bad", parameters=parse_parameters(given))
    here = train(settings, entropy=SeededEntropy(1))
    scores = pd.read_csv(out / "scores.csv")
    assert np.abs(scores["score"] - here.scores).max() < 1e-8


def test_names_of_nodes():
    assert node_names({"Bank_1": 0, "b.2": 0}) == {"Bank_1": "bank-1", "b.2": "b-2"}
    for members in ({"a_b": 0, "a-b": 0}, {"platform": 0}, {"a_": 0}, {f"m{i}": 0 for i in range(17)}):
        with pytest.raises(ChaotianError) as error:
            node_names(members)
        assert error.value.code == "USAGE"


@pytest.mark.parametrize("given", ["folds=3"])
def test_what_nodes_cannot_do_is_said_before_any_starts(tmp_path, given):
    with pytest.raises(ChaotianError) as error:
        TrainSettings(
            members=dict.fromkeys("abc", tmp_path),
            id="i",
            label="l",
            processes=True,
            parameters=parse_parameters([given]),
        )
    assert error.value.code == "USAGE"
