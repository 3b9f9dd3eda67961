"""Bins, weights of evidence and scorecards on them, against pooled computations of pandas and scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from bench.plain import run_plain
from federation.errors import ChaotianError
from federation.learning.binning import Binning, BinningSpec
from federation.learning.bins import ColumnBins
from federation.learning.compare import compare
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.model import Model
from federation.learning.points import losses, reasons, scale_constants, score_points
from federation.learning.woe import WoeScorecard, scorecard_program
from tests.support.scorecards import credit_rows, made_spec, make_frame, table_of

NUMERIC = ("x0", "x1", "x2")


def with_holes(frame, share, seed=5):
    """The frame with missing values in x0 and kind."""
    random = np.random.default_rng(seed)
    x0, kind = frame.columns["x0"].copy(), frame.columns["kind"].copy()
    x0[random.random(len(frame)) < share] = np.nan
    kind[random.random(len(frame)) < share] = ""
    return Frame(frame.ids, {**frame.columns, "x0": x0, "kind": kind})


def three(rows=500, holes=0.1):
    return {f"bank-{s}": with_holes(make_frame(rows, seed=s, shift=s / 4), holes, s) for s in (1, 2, 3)}


def spec_of(**changes):
    features = [{"name": name, "type": "numeric"} for name in NUMERIC]
    features.append({"name": "kind", "type": "category", "levels": ["a", "b", "c"]})
    return BinningSpec.from_document({"label": "bad", "features": features, **changes})


def run(spec, frames):
    return run_plain({name: Binning(spec, frame) for name, frame in frames.items()})


def counted(column, table):
    """Good and bad rows of each bin, and its weight, by pandas from the pooled rows and the published bins alone."""
    values = table[column.name]
    if column.edges is not None:
        code = pd.Series(np.searchsorted(column.edges, values.to_numpy(), side="left"), index=table.index)
        code[values.isna()] = column.missing
    else:
        place = {level: at for at, group in enumerate(column.groups) for level in group}
        code = values.map(place).fillna(column.missing).astype(int)
    cross = pd.crosstab(code, table["bad"])
    good, bad = cross[0.0].to_numpy(), cross[1.0].to_numpy()
    weight = np.log((bad / bad.sum()) / (good / good.sum()))
    return (
        list(zip(good.tolist(), bad.tolist(), strict=True)),
        weight,
        float(((bad / bad.sum() - good / good.sum()) * weight).sum()),
    )


@pytest.mark.parametrize("monotone", ["none", "auto", "increasing", "decreasing"])
def test_counts_weights_and_information_equal_the_pooled_ones(monotone):
    frames = three()
    result = run(spec_of(monotone=monotone), frames)["bank-2"].result
    table = table_of(frames)
    assert result.rows == len(table) and result.bads == int(table["bad"].sum())
    for column in result.columns:
        counts, weights, information = counted(column, table)
        assert list(column.counts) == counts
        assert np.abs(weights - column.weights).max() < 1e-12 and abs(information - column.information) < 1e-9
        assert all(sum(pair) >= 30 and min(pair) > 0 for pair in counts)
    if monotone != "none":
        for name in NUMERIC:
            column = result.column(name)
            values = column.counts[: len(column.edges) + 1]
            steps = np.diff([bad / (good + bad) for good, bad in values])
            assert (steps > 0).all() or (steps < 0).all()
            assert monotone == "auto" or not len(steps) or (steps > 0).all() == (monotone == "increasing")
        assert len(result.column("x0").counts) >= 4 or monotone in ("increasing", "decreasing")


def test_common_edges_cut_into_about_equal_parts():
    frames = three(rows=2000, holes=0.0)
    result = run(spec_of(bins=10), frames)["bank-1"].result
    for name in NUMERIC:
        rows = [sum(pair) for pair in result.column(name).counts]
        assert 8 <= len(rows) <= 10 and max(rows) < 1.6 * sum(rows) / 10


def test_given_edges_are_taken_as_they_are():
    frames = three(rows=3000)
    result = run(spec_of(edges={"x0": [-1.0, 0.0, 0.5], "x1": [], "x2": [0.0]}), frames)["bank-1"].result
    assert result.edges["x0"] == [-1.0, 0.0, 0.5] and result.edges["x2"] == [0.0]
    assert result.column("x1").constant and result.column("x1").information == 0.0
    assert [entry["constant"] for entry in result.document()["columns"]] == [False, True, False, False]
    # No histogram is needed for given edges: one round does.
    assert Binning(spec_of(edges={"x0": [], "x1": [], "x2": []}), frames["bank-1"]).operation == "binning.counts"


def test_missing_values_have_a_bin_of_their_own_or_join_the_largest():
    many, few = run(spec_of(), three(holes=0.2))["bank-1"].result, run(spec_of(), three(holes=0.005))["bank-1"].result
    column = many.column("x0")
    assert column.missing == len(column.edges) + 1 and column.labels[-1] == "missing"
    column = few.column("x0")
    assert column.missing <= len(column.edges) and "missing" in column.labels[column.missing]
    assert sum(column.counts[column.missing]) == max(map(sum, column.counts))
    none = run(spec_of(), three(holes=0.0))["bank-1"].result.column("x0")
    assert none.missing == -1
    fresh = with_holes(make_frame(50, seed=9), 0.5)
    weights = none.weigh(fresh)
    assert (weights[np.isnan(fresh.columns["x0"])] == 0.0).all()


def test_small_levels_and_bins_without_bad_rows_are_merged():
    frames = {}
    for seed in (1, 2, 3):
        frame = make_frame(400, seed=seed, levels=("a", "b", "c", "d", "e"), weights=(0.5, 0.3, 0.16, 0.02, 0.02))
        bad = frame.columns["bad"].copy()
        bad[frame.columns["kind"] == "b"] = 0.0  # a level without bad rows
        frames[f"bank-{seed}"] = Frame(frame.ids, {**frame.columns, "bad": bad})
    features = [{"name": "kind", "type": "category", "levels": ["e", "d", "c", "b", "a"]}]
    result = run(BinningSpec.from_document({"label": "bad", "features": features}), frames)["bank-1"].result
    column = result.columns[0]
    assert sorted(map(sorted, column.groups)) == [["a"], ["b", "d", "e"], ["c"]]
    assert list(column.counts) == counted(column, table_of(frames))[0]
    # Nothing may follow from the order in which levels are declared.
    features[0]["levels"] = ["a", "b", "c", "d", "e"]
    other = run(BinningSpec.from_document({"label": "bad", "features": features}), frames)["bank-1"].result.columns[0]
    assert sorted(map(sorted, other.groups)) == sorted(map(sorted, column.groups))


def test_a_member_without_bad_rows_takes_part_and_nobody_s_without_any_is_one_class():
    frames = three()
    one = frames["bank-1"]
    frames["bank-1"] = Frame(one.ids, {**one.columns, "bad": np.zeros(len(one))})
    result = run(spec_of(), frames)["bank-1"].result
    assert list(result.columns[0].counts) == counted(result.columns[0], table_of(frames))[0]
    for name, frame in frames.items():
        frames[name] = Frame(frame.ids, {**frame.columns, "bad": np.zeros(len(frame))})
    with pytest.raises(ChaotianError) as caught:
        run(spec_of(), frames)
    assert caught.value.code == "ONE_CLASS"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"x1": np.array(["a"] * 500, dtype=object)}, "DATA_TYPE"),
        ({"kind": np.array(["z"] * 500, dtype=object)}, "DATA_TYPE"),
        ({"x1": np.full(500, np.inf)}, "NOT_FINITE"),
        ({"x1": np.full(500, 2.0**60)}, "OVERFLOW"),
        ({"bad": np.full(500, 2.0)}, "DATA_TYPE"),
        ({"bad": np.full(500, np.nan)}, "DATA_MISSING"),
    ],
)
def test_own_rows_that_do_not_fit_are_refused_without_their_values(change, code):
    frame = make_frame(500)
    with pytest.raises(ChaotianError) as caught:
        Binning(spec_of(), Frame(frame.ids, {**frame.columns, **change}))
    assert caught.value.code == code and next(iter(change)) in caught.value.detail
    assert "z" not in caught.value.detail.split()


@pytest.mark.parametrize(
    "document",
    [
        {"bins": 1},
        {"bins": True},
        {"edges": {"x0": [1, 1]}},
        {"edges": {"x0": [float("nan")]}},
        {"edges": {"kind": [1.0]}},
        {"edges": []},
        {"monotone": "up"},
        {"smoothing": -1},
        {"other": 1},
        {"label": ""},
        {"label": "x0"},
    ],
)
def test_parameters_are_read_strictly(document):
    with pytest.raises(ChaotianError) as caught:
        spec_of(**document)
    assert caught.value.code == "BAD_DOCUMENT"


def test_states_are_restored_and_refused_for_other_parameters_or_when_broken():
    frames, spec = three(), spec_of()
    everybody = {name: Binning(spec, frame) for name, frame in frames.items()}
    states = []

    def restored(_):
        state = everybody["bank-1"].state()
        fresh = Binning(spec, frames["bank-1"])
        fresh.restore(state)
        assert fresh.state() == state and fresh.done() == everybody["bank-1"].done()
        assert fresh.done() or fresh.layout() == everybody["bank-1"].layout()
        states.append(state)

    left = run_plain(everybody, after=restored)
    assert len(states) == 2 and left["bank-1"].result == left["bank-3"].result
    with pytest.raises(ChaotianError) as caught:
        Binning(spec_of(bins=5), frames["bank-1"]).restore(states[0])
    assert caught.value.code == "STATE_MISMATCH"
    broken = json.loads(states[1])
    broken["facts"]["result"]["columns"].pop()
    with pytest.raises(ChaotianError) as caught:
        Binning(spec, frames["bank-1"]).restore(json.dumps(broken, sort_keys=True, separators=(",", ":")).encode())
    assert caught.value.code == "BAD_DOCUMENT"


def test_the_platform_sees_neither_rows_nor_values():
    one, other = three(rows=300), three(rows=900)
    far = {name: Frame(frame.ids, {**frame.columns, "x0": frame.columns["x0"] * 1e12}) for name, frame in other.items()}
    first = [Binning(spec_of(), frames["bank-1"]).layout() for frames in (one, other, far)]
    assert first[0] == first[1] == first[2]


def test_a_loss_between_histograms_and_counts_ends_the_job_unless_edges_were_given():
    frames = three()
    spec = spec_of()
    with pytest.raises(ChaotianError) as caught:
        run_plain({n: Binning(spec, f) for n, f in frames.items()}, lose={2: "bank-2"})
    assert caught.value.code == "FLOOR_LOST"
    left = run_plain({n: Binning(spec, f) for n, f in frames.items()}, lose={1: "bank-2"})
    assert left["bank-1"].result.rows == 1000


# --- scorecards on weights of evidence ----------------------------------------------------------------------------


def woe_spec(**changes):
    return made_spec(coding="woe", **{"penalty": 1.0, **changes})


def pooled_woe(table, columns, penalty):
    """Coefficients of scikit-learn on the weights that the published bins give to the pooled rows."""
    weights = []
    for column in columns:
        frame = Frame([""] * len(table), {column.name: table[column.name].to_numpy()})
        weights.append(column.weigh(frame))
    design = np.column_stack(weights)
    fit = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=10000, solver="newton-cholesky")
    fit.fit(design, table["bad"])
    return np.concatenate([fit.intercept_, fit.coef_[0]]), design


def test_the_woe_scorecard_equals_a_pooled_fit():
    frames, spec = three(rows=800), woe_spec()
    left = run_plain({name: scorecard_program(spec, frame) for name, frame in frames.items()})
    models = [program.model("job") for program in left.values()]
    assert len({model.version for model in models}) == 1
    model = Model.load(json.loads(json.dumps(models[0].document)))
    beta, design = pooled_woe(table_of(frames), model.coding.parts, 1.0)
    assert np.abs(beta - [line.value for line in model.coefficients]).max() < 1e-7
    fresh = with_holes(make_frame(300, seed=8), 0.2)
    expected = beta[0] + sum(b * part.weigh(fresh) for b, part in zip(beta[1:], model.coding.parts, strict=True))
    assert np.abs(model.score(fresh) - expected).max() < 1e-6
    inverse = np.linalg.inv(np.corrcoef(design.T))
    assert np.allclose([line.vif for line in model.coefficients[1:]], np.diag(inverse), atol=1e-6)
    figures = compare(left["bank-1"], model)
    assert figures["rows"] == 0 or "federated" in figures


def test_points_and_reasons():
    frames, spec = three(rows=800), woe_spec(base_score=500, base_odds=20, pdo=40, holdout=0.2)
    left = run_plain({name: WoeScorecard(spec, frame) for name, frame in frames.items()})
    model = left["bank-1"].model()
    fresh = with_holes(make_frame(300, seed=8), 0.2)
    factor, offset = scale_constants(spec.points)
    assert factor == pytest.approx(40 / np.log(2)) and offset == pytest.approx(500 - factor * np.log(20))
    points = score_points(model, fresh)
    assert (points == np.rint(points)).all()
    assert np.abs(points - (offset - factor * model.score(fresh))).max() <= len(model.columns) / 2
    names, lost = losses(model, fresh)
    assert names == model.columns and (lost >= 0).all()
    best = max(offset - factor * model.score(fresh))
    every = sum(max(float(line["exact"]) for line in column["bins"]) for column in model.document["points"]["columns"])
    assert np.allclose(every - lost.sum(axis=1), offset - factor * model.score(fresh), atol=1e-9) and best <= every
    for row, found in enumerate(reasons(model, fresh)):
        assert len(found) <= 4 and [r.points for r in found] == sorted((r.points for r in found), reverse=True)
        assert sum(r.points for r in found) == pytest.approx(lost[row].sum())
        assert all(r.points > 0 for r in found)
    figures = compare(left["bank-1"], model)
    assert figures["local"]["auc"] > 0.6 and figures["federated"]["auc"] > 0.6


def test_raw_reasons_are_held_against_the_mean_and_the_best_level():
    frames, spec = {n: make_frame(500, seed=s) for s, n in enumerate(("a", "b", "c"))}, made_spec(penalty=1.0)
    model = next(iter(run_plain({n: scorecard_program(spec, f) for n, f in frames.items()}).values())).model()
    names, lost = losses(model, frames["a"])
    assert names == model.columns and (lost >= 0).all() and (lost.min(axis=0) == 0).all()
    z = model.coding.parts[0].standardise(frames["a"])
    factor, _ = scale_constants(spec.points)
    assert np.allclose(lost[:, 0], np.maximum(model.coefficients[1].value * z, 0) * factor)


@pytest.mark.parametrize("lost_before", [3, 5])
def test_after_a_loss_the_woe_scorecard_goes_on_with_the_bins_of_all(lost_before):
    frames, spec = three(rows=1500), woe_spec()
    left = run_plain({n: WoeScorecard(spec, f) for n, f in frames.items()}, lose={lost_before: "bank-2"})
    model = left["bank-1"].model()
    survivors = table_of({name: frames[name] for name in left})
    beta, _ = pooled_woe(survivors, model.coding.parts, 1.0)
    assert np.abs(beta - [line.value for line in model.coefficients]).max() < 1e-7
    assert model.document["training"]["rows"] == 4500


def test_a_loss_that_leaves_a_bin_to_nobody_ends_the_job():
    frames, spec = three(rows=1500, holes=0.0), woe_spec()
    only = frames["bank-2"]
    kind = only.columns["kind"].copy()
    kind[:100] = "d"
    frames["bank-2"] = Frame(only.ids, {**only.columns, "kind": kind})
    spec = made_spec(coding="woe", levels=("a", "b", "c", "d"))
    with pytest.raises(ChaotianError) as caught:
        run_plain({n: WoeScorecard(spec, f) for n, f in frames.items()}, lose={4: "bank-2"})
    assert caught.value.code == "FLOOR_LOST" and "kind: d" in caught.value.detail


def test_columns_without_information_are_left_out_and_named():
    frames = {}
    for name, frame in three(rows=800).items():
        frames[name] = Frame(frame.ids, {**frame.columns, "x2": np.full(len(frame), 7.0)})
    model = run_plain({n: WoeScorecard(woe_spec(), f) for n, f in frames.items()})["bank-1"].model()
    assert model.document["left_out"] == ["x2"] and model.columns == ("x0", "x1", "kind")
    for name, frame in frames.items():
        same = {column: np.full(len(frame), 7.0) for column in NUMERIC}
        frames[name] = Frame(frame.ids, {**frame.columns, **same, "kind": np.array(["a"] * len(frame), dtype=object)})
    with pytest.raises(ChaotianError) as caught:
        run_plain({n: WoeScorecard(woe_spec(), f) for n, f in frames.items()})
    assert caught.value.code == "CONSTANT_FEATURE"


def test_woe_states_are_restored_in_every_round():
    frames, spec = three(), woe_spec()
    everybody = {n: WoeScorecard(spec, f) for n, f in frames.items()}
    operations = []

    def restored(_):
        state = everybody["bank-1"].state()
        fresh = WoeScorecard(spec, frames["bank-1"])
        fresh.restore(state)
        assert fresh.state() == state
        operations.append(fresh.operation)
        if not fresh.done():
            assert fresh.layout() == everybody["bank-1"].layout() and fresh.columns == everybody["bank-1"].columns
        else:
            assert fresh.model().version == everybody["bank-1"].model().version

    run_plain(everybody, after=restored)
    assert operations[0] == "binning.counts" and operations[-1] == "scorecard.newton"


def test_default_credit_sample_end_to_end():
    rows = {name: credit_rows(name) for name in ("bank-1", "bank-2", "bank-3", "test")}
    features = [{"name": f"x{i}", "type": "numeric"} for i in range(23)]
    spec = ScorecardSpec.from_document({"label": "y", "features": features, "coding": "woe", "holdout": 0.0})
    frames = {
        name: Frame(part["id"].tolist(), {c: part[c].astype(float).to_numpy() for c in part.columns if c != "id"})
        for name, part in rows.items()
    }
    test = frames.pop("test")
    left = run_plain({n: WoeScorecard(spec, f) for n, f in frames.items()})
    model = left["bank-3"].model()
    pooled = {column: np.concatenate([f.columns[column] for f in frames.values()]) for column in test.columns}
    table = pd.DataFrame(pooled).rename(columns={"y": "bad"})
    for column in left["bank-1"].binning.columns:
        if not column.constant:
            counts, _, information = counted(column, table)
            assert list(column.counts) == counts and abs(information - column.information) < 1e-9
    beta, _ = pooled_woe(table, model.coding.parts, 1.0)
    assert np.abs(beta - [line.value for line in model.coefficients]).max() < 1e-6
    from federation.learning.metrics import separation

    assert separation(test.label("y"), model.score(test)).auc > 0.74


def test_bins_documents_are_checked():
    column = run(spec_of(), three())["bank-1"].result.columns[0]
    assert ColumnBins.from_document(column.document()) == column
    for change in (
        {"missing": 99},
        {"edges": ["0x1p+1", "0x1p+0"]},
        {"weights": []},
        {"counts": [[-1, 2]]},
        {"of": "x"},
    ):
        with pytest.raises((ValueError, KeyError, TypeError)):
            ColumnBins.from_document({**column.document(), **change})
