"""The evaluate job: its intervals hold the exact values, its tables are the pooled ones, small cells are merged."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from bench.plain import run_plain
from federation.errors import ChaotianError
from federation.learning.evaluate import Evaluate, EvaluateSpec, merge_bins
from federation.learning.frame import Frame
from federation.learning.holdout import held_out
from federation.learning.metrics import separation
from federation.learning.model import probability
from federation.learning.woe import scorecard_program
from tests.support.scorecards import made_spec, make_frame


def exact_ks(label, score):
    order = np.argsort(score, kind="stable")
    table = pd.DataFrame({"s": score[order], "b": label[order]})
    by = table.groupby("s")["b"].agg(["sum", "count"]).cumsum()
    bads = label.sum()
    return float((by["sum"] / bads - (by["count"] - by["sum"]) / (len(label) - bads)).abs().max())


@pytest.fixture(scope="module", params=["raw", "woe"])
def model(request):
    spec = made_spec(coding=request.param, penalty=1.0)
    frames = {name: make_frame(600, seed=seed) for seed, name in enumerate("abc", 1)}
    return run_plain({n: scorecard_program(spec, f) for n, f in frames.items()})["a"].model("job")


def fresh(sizes=(500, 900, 300), seed=20):
    return {f"bank-{k}": make_frame(rows, seed=seed + k, shift=k / 4) for k, rows in enumerate(sizes, 1)}


def run(model, frames, **changes):
    spec = EvaluateSpec.from_document({"model": model.version, **changes})
    return run_plain({name: Evaluate(spec, model, frame) for name, frame in frames.items()})


@pytest.mark.parametrize("sizes", [(500, 900, 300), (70, 70, 70), (4000, 3000, 3000)])
def test_intervals_hold_the_exact_values_and_sums_are_the_pooled_ones(model, sizes):
    frames = fresh(sizes)
    left = run(model, frames)
    found = left["bank-1"].result
    assert len({json.dumps(program.result.document()) for program in left.values()}) == 1
    label = np.concatenate([frame.label("bad") for frame in frames.values()])
    score = np.concatenate([model.score(frame) for frame in frames.values()])
    auc = roc_auc_score(label, score)
    assert found.auc.low <= auc <= found.auc.high and found.auc.low <= found.auc.estimate <= found.auc.high
    assert abs(found.auc.estimate - auc) < 0.3 / found.bins and found.auc.high - found.auc.low < 1 / found.bins
    assert found.gini.low <= 2 * auc - 1 <= found.gini.high
    assert found.ks.low <= exact_ks(label, score) <= found.ks.high
    assert (found.rows, found.bads) == (len(label), int(label.sum()))
    assert found.brier == pytest.approx(brier_score_loss(label, probability(score)), abs=1e-9)
    assert found.log_loss == pytest.approx(log_loss(label, probability(score)), abs=1e-9)
    exact = separation(label, score)
    assert found.auc_sampling[0] <= exact.auc_low + 0.005 and found.auc_sampling[1] >= exact.auc_high - 0.005
    assert sum(group.rows for group in found.groups) == found.rows
    assert all(group.rows >= 30 for group in found.groups) and found.groups[-1].gain == 1.0


def test_deciles_lift_gain_and_calibration(model):
    frames = fresh((4000, 3000, 3000))
    found = run(model, frames)["bank-1"].result
    table = pd.DataFrame(
        {
            "bad": np.concatenate([frame.label("bad") for frame in frames.values()]),
            "score": np.concatenate([model.score(frame) for frame in frames.values()]),
        }
    ).sort_values("score", ascending=False, ignore_index=True)
    table["chance"] = probability(table["score"].to_numpy())
    assert len(found.groups) == 10
    start = seen = 0
    for group in found.groups:
        part = table.iloc[start : start + group.rows]
        start += group.rows
        seen += part["bad"].sum()
        assert abs(group.rows - 1000) < 200
        assert group.bads == part["bad"].sum() and group.rate == pytest.approx(part["bad"].mean())
        assert group.predicted == pytest.approx(part["chance"].mean(), abs=1e-8)
        assert group.lift == pytest.approx(part["bad"].mean() / table["bad"].mean())
        assert group.gain == pytest.approx(seen / table["bad"].sum())


def test_own_figures_are_exact_and_a_member_with_one_outcome_has_none(model):
    frames = fresh()
    one = frames["bank-2"]
    frames["bank-2"] = Frame(one.ids, {**one.columns, "bad": np.zeros(len(one))})
    left = run(model, frames)
    own = left["bank-1"].own
    label, score = frames["bank-1"].label("bad"), model.score(frames["bank-1"])
    assert own["auc"] == pytest.approx(roc_auc_score(label, score), abs=1e-12) and own["rows"] == len(label)
    assert own["ks"] == pytest.approx(exact_ks(label, score)) and len(own["groups"]) == 10
    assert own["brier"] == pytest.approx(brier_score_loss(label, probability(score)))
    assert left["bank-2"].own == {"rows": len(one), "bads": 0, "code": "ONE_CLASS"}
    assert left["bank-2"].result == left["bank-1"].result


def test_only_held_out_rows_where_asked(model):
    frames = fresh((2000, 2000, 2000))
    found = run(model, frames, rows="holdout", holdout=0.25, seed="s")["bank-1"].result
    assert found.rows == sum(int(held_out(frame.ids, "s", 0.25).sum()) for frame in frames.values())


def test_floors_the_wrong_model_and_broken_parameters(model):
    few = {name: make_frame(60, seed=k) for k, name in enumerate("abc")}
    with pytest.raises(ChaotianError) as caught:
        run(model, few)
    assert caught.value.code == "MIN_ROWS"
    rare = fresh()
    for name, frame in rare.items():
        rare[name] = Frame(frame.ids, {**frame.columns, "bad": (np.arange(len(frame)) < 5).astype(float)})
    with pytest.raises(ChaotianError) as caught:
        run(model, rare)
    assert caught.value.code == "MIN_ROWS"
    with pytest.raises(ChaotianError) as caught:
        Evaluate(EvaluateSpec("0" * 64), model, few["a"])
    assert caught.value.code == "MODEL_HASH"
    for document in ({"model": "x"}, {"rows": "some"}, {"more": 1}, {"holdout": 2}):
        with pytest.raises(ChaotianError) as caught:
            EvaluateSpec.from_document({"model": model.version, **document})
        assert caught.value.code == "BAD_DOCUMENT"


def test_extreme_scores_stay_within_the_outer_bins(model):
    frames = fresh()
    far = {name: Frame(frame.ids, {**frame.columns, "x0": frame.columns["x0"] * 1e6}) for name, frame in frames.items()}
    found = run(model, far)["bank-1"].result
    label = np.concatenate([frame.label("bad") for frame in far.values()])
    score = np.concatenate([model.score(frame) for frame in far.values()])
    assert found.auc.low <= roc_auc_score(label, score) <= found.auc.high
    assert math.isfinite(found.log_loss)


def test_one_round_restored_and_lost(model):
    frames = fresh((2000, 2000, 2000))
    spec = EvaluateSpec(model.version)
    programs = {name: Evaluate(spec, model, frame) for name, frame in frames.items()}
    assert programs["bank-1"].layout() == Evaluate(spec, model, fresh()["bank-3"]).layout()
    left = run_plain(programs, lose={1: "bank-2"})
    assert left["bank-1"].result.rows == 4000
    again = Evaluate(spec, model, frames["bank-1"])
    again.restore(left["bank-3"].state())
    assert again.done() and again.result == left["bank-1"].result


def test_merging_keeps_every_row():
    cells = [(0, 0, 0), (5, 1, 2), (40, 2, 9), (3, 0, 1), (0, 0, 0), (29, 0, 3), (1, 1, 1)]
    merged = merge_bins(cells, 30)
    assert merged == [(45, 3, 11), (33, 1, 5)]
    assert merge_bins([(1, 1, 1)], 30) == [(1, 1, 1)] and merge_bins([(0, 0, 0)], 30) == []
