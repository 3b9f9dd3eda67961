"""The stability job against a plain computation, and its noise level against repeated draws."""

import numpy as np
import pytest
from scipy.stats import chi2

from bench.plain import run_plain
from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.learning.stability import SCORE, Stability, StabilitySpec
from federation.learning.woe import scorecard_program
from tests.support.scorecards import made_spec, make_frame

FEATURES = [{"name": f"x{i}", "type": "numeric"} for i in range(3)]
FEATURES.append({"name": "kind", "type": "category", "levels": ["a", "b", "c"]})


def dates(rows=1500, shift=0.0, seed=40):
    names = ("bank-1", "bank-2", "bank-3")
    before = {name: make_frame(rows, seed=seed + k) for k, name in enumerate(names)}
    after = {name: make_frame(rows, seed=seed + 100 + k, shift=shift) for k, name in enumerate(names)}
    return before, after


def run(spec, before, after, model=None, **kwargs):
    programs = {name: Stability(spec, before[name], after[name], model=model) for name in before}
    return run_plain(programs, **kwargs)


def plain_index(shift):
    p, q = (np.array(rows) / sum(rows) for rows in (shift.before, shift.after))
    return float(((q - p) * np.log(q / p)).sum())


def test_index_and_counts_are_those_of_the_pooled_rows():
    before, after = dates(shift=0.5)
    edges = {"x0": [-1.0, 0.0, 1.0]}
    spec = StabilitySpec.from_document({"features": FEATURES, "edges": edges})
    result = run(spec, before, after)["bank-1"].result
    shifts = {shift.name: shift for shift in result.shifts}
    for rows, frames in ((shifts["x0"].before, before), (shifts["x0"].after, after)):
        values = np.concatenate([frame.columns["x0"] for frame in frames.values()])
        assert list(rows) == np.bincount(np.searchsorted(edges["x0"], values, side="left"), minlength=4).tolist()
    for shift in result.shifts:
        assert shift.index == pytest.approx(plain_index(shift), rel=1e-12)
        assert sum(shift.before) == sum(shift.after) == 4500
        assert min(*shift.before, *shift.after) >= 30
        spread = 2 / 4500
        assert shift.expected == pytest.approx((len(shift.before) - 1) * spread)
        assert shift.p == pytest.approx(chi2.sf(shift.index / spread, len(shift.before) - 1))
    assert shifts["x1"].verdict in ("moderate", "large") and shifts["kind"].index < 5 * shifts["kind"].expected
    assert len(shifts["x1"].before) == 10 and max(shifts["x1"].before) < 1.5 * 450


def test_where_nothing_moved_the_index_stays_within_its_noise_about_as_often_as_said():
    spec = StabilitySpec.from_document({"features": FEATURES[:1], "edges": {"x0": [-0.8, -0.2, 0.2, 0.8]}})
    found = [run(spec, *dates(rows=200, seed=1000 * k))["bank-1"].result.shifts[0] for k in range(1, 121)]
    over = sum(shift.index > shift.noise for shift in found)
    assert over <= 14  # 6 expected of 120; more than 14 has a chance below 1e-3
    assert np.mean([s.index for s in found]) == pytest.approx(found[0].expected, rel=0.35)


@pytest.mark.parametrize("coding", ["raw", "woe"])
def test_a_model_brings_its_columns_and_its_score(coding):
    before, after = dates(shift=1.0)
    model = run_plain(
        {name: scorecard_program(made_spec(coding=coding, penalty=1.0), f) for name, f in before.items()}
    )["bank-1"].model()
    spec = StabilitySpec.from_document({"model": model.version})
    left = run(spec, before, after, model)
    shifts = {shift.name: shift for shift in left["bank-1"].result.shifts}
    assert tuple(shifts) == (*model.columns, SCORE) and left["bank-1"].result == left["bank-2"].result
    assert shifts[SCORE].index == pytest.approx(plain_index(shifts[SCORE]), rel=1e-12)
    assert shifts["x0"].verdict == "large" and len(shifts[SCORE].before) == 10
    if coding == "woe":
        expected = [sum(pair) for pair in model.coding.parts[0].counts]
        assert list(shifts["x0"].before) == expected or len(shifts["x0"].before) < len(expected)
    with pytest.raises(ChaotianError) as caught:
        Stability(StabilitySpec(model="0" * 64), before["bank-1"], after["bank-1"], model=model)
    assert caught.value.code == "MODEL_HASH"


def test_missing_values_and_small_levels_are_joined():
    before, after = dates()
    for frames, share in ((before, 0.1), (after, 0.3)):
        for name, frame in frames.items():
            random = np.random.default_rng(7)
            x0, kind = frame.columns["x0"].copy(), frame.columns["kind"].copy()
            x0[random.random(len(frame)) < share] = np.nan
            x1 = frame.columns["x1"].copy()
            x1[0] = np.nan
            kind[kind == "c"] = "b"
            kind[1] = "c"
            frames[name] = Frame(frame.ids, {**frame.columns, "x0": x0, "x1": x1, "kind": kind})
    result = run(StabilitySpec.from_document({"features": FEATURES}), before, after)["bank-1"].result
    shifts = {shift.name: shift for shift in result.shifts}
    assert shifts["x0"].labels[-1] == "missing" and shifts["x0"].verdict in ("moderate", "large")
    assert any("or missing" in label for label in shifts["x1"].labels)
    assert set(shifts["kind"].labels) in ({"a", "c or b"}, {"b", "c or a"}, {"a or c", "b"}, {"a", "b or c"})
    for shift in result.shifts:
        assert min(*shift.before, *shift.after) >= 30 and sum(shift.before) == 4500


def test_a_constant_column_is_one_bin_and_floors_hold():
    before, after = dates()
    same = {name: Frame(f.ids, {**f.columns, "x0": np.ones(len(f))}) for name, f in before.items()}
    result = run(StabilitySpec.from_document({"features": FEATURES[:1]}), same, same)["bank-1"].result
    assert result.shifts[0].verdict == "one bin" and result.shifts[0].index == 0.0
    few = {name: f.take(np.arange(len(f)) < 40) for name, f in before.items()}
    with pytest.raises(ChaotianError) as caught:
        run(StabilitySpec.from_document({"features": FEATURES}), few, after)
    assert caught.value.code == "MIN_ROWS"


def test_one_round_restored_and_strict_parameters():
    before, after = dates()
    spec = StabilitySpec.from_document({"features": FEATURES})
    left = run(spec, before, after, lose={1: "bank-2"})
    assert left["bank-1"].result.before == 3000
    again = Stability(spec, before["bank-1"], after["bank-1"])
    again.restore(left["bank-3"].state())
    assert again.result == left["bank-1"].result
    for document in (
        {},
        {"features": FEATURES, "model": "0" * 64},
        {"model": "0" * 64, "edges": {"x0": [1.0]}},
        {"x": 1},
    ):
        with pytest.raises(ChaotianError) as caught:
            StabilitySpec.from_document(document)
        assert caught.value.code == "BAD_DOCUMENT"
