"""A member runs the app that it accepted by its hash, not another one that the process happens to remember."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.frame import Feature, Frame
from federation.rounds.trainer import AppTrainer
from gateway.jobs import apps

SOURCE = """
from flwr.clientapp import ClientApp
from flwr.app import Message, MetricRecord, RecordDict
app = ClientApp()
VERSION = {version}
@app.evaluate()
def evaluate(message, context):
    found = {{"loss": float("nan"), "gain": float("inf"), "auc": 0.5}}
    return Message(RecordDict({{"metrics": MetricRecord(found)}}), reply_to=message)
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    path = tmp_path / "app_under_attack.py"
    path.write_text(SOURCE.format(version=1))
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("attacked", "app_under_attack:app", apps.GROUP)
    monkeypatch.setattr(apps, "entry_points", lambda group: [point])
    monkeypatch.setattr(apps, "_loaded", {})  # as in a process that has not imported it yet
    sys.modules.pop("app_under_attack", None)
    yield path
    sys.modules.pop("app_under_attack", None)


def test_an_app_replaced_under_a_running_node_is_not_taken_for_the_new_one(source):
    before = apps.find("attacked").digest
    apps.load("attacked", before)
    source.write_text(SOURCE.format(version=22))
    after = apps.find("attacked").digest
    assert after != before
    # The control: the hash on disk is the new one, what Python holds is the old one.
    assert importlib.import_module("app_under_attack").VERSION == 1
    for hashed in (before, after):
        with pytest.raises(ChaotianError) as refused:
            apps.load("attacked", hashed)
        assert refused.value.code == "APP_UNKNOWN"
    source.write_text(SOURCE.format(version=1))
    apps.load("attacked", before)


def test_figures_that_are_no_numbers_do_not_keep_a_result_from_its_owner(source):
    rows = Frame(["a", "b"], {"x": np.array([1.0, 2.0]), "bad": np.array([0.0, 1.0])})
    trainer = AppTrainer(
        apps.load("attacked", apps.find("attacked").digest),
        member="m",
        job="j",
        config={},
        features=(Feature("x", "numeric"),),
        label="bad",
        training=rows,
        held_out=rows,
    )
    assert trainer.evaluate(1, {"w": np.zeros(1)}) == {"auc": 0.5}
