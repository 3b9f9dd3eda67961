"""The benefit report: gains against a second calculation, verdicts that follow their intervals, pages that hold."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from gateway.reports import curves
from gateway.reports.benefit import COSTS, NOTHING, ONLY, PAYS, UNCLEAR, Scored, benefit, figures, gain, together
from gateway.reports.page import POLICY, page, paragraph, table
from gateway.reports.svg import Axis, Line, Mark, Row, dot_plot, line_plot


def rows(count=400, seed=1):
    random = np.random.default_rng(seed)
    label = (random.random(count) < 0.3).astype(float)
    good = label + random.normal(0, 0.8, count)
    poor = label * 0.3 + random.normal(0, 1.0, count)
    return label, np.round(good, 2), np.round(poor, 2)  # rounded: ties


def test_the_gain_is_the_difference_and_its_interval_is_delongs():
    label, new, base = rows()
    found = gain(label, base, new)
    assert found["auc"] == pytest.approx(roc_auc_score(label, new) - roc_auc_score(label, base), abs=1e-12)
    # DeLong by its definition: all pairs of a bad and a good row.
    bad, good = label == 1, label == 0
    diffs = []
    for score in (new, base):
        a, b = score[bad][:, None], score[good][None, :]
        diffs.append((a > b) + 0.5 * (a == b))
    psi = diffs[0] - diffs[1]
    variance = psi.mean(axis=1).var(ddof=1) / bad.sum() + psi.mean(axis=0).var(ddof=1) / good.sum()
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.959963984540054 * variance**0.5, rel=1e-9)


def test_the_interval_covers_nothing_gained_as_often_as_it_says():
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        label = (random.random(300) < 0.3).astype(float)
        shared = label + random.normal(0, 1, 300)
        found = gain(label, shared + random.normal(0, 0.7, 300), shared + random.normal(0, 0.7, 300))
        covered += found["low"] <= 0 <= found["high"]
    assert 0.91 <= covered / 400 <= 0.98


def test_verdicts_follow_the_intervals():
    label, good, poor = rows()
    one = np.zeros(len(label))
    scored = {
        "gains": Scored(label, good, poor),
        "loses": Scored(label, poor, good),
        "same": Scored(label, good, good),
        "alone-nothing": Scored(label, good, None, None, "ONE_CLASS"),
        "one-outcome": Scored(one, good, poor),
    }
    document = benefit(scored, dict.fromkeys(scored, (10, 2)), "holdout")
    verdicts = {name: member["verdict"] for name, member in document["members"].items()}
    assert verdicts == {"gains": PAYS, "loses": COSTS, "same": UNCLEAR, "alone-nothing": ONLY, "one-outcome": NOTHING}
    assert document["members"]["alone-nothing"]["local"] == {"code": "ONE_CLASS"}
    assert document["members"]["gains"]["local"]["auc"] == pytest.approx(roc_auc_score(label, poor))
    assert "pooled" not in document["members"]["gains"]
    assert document["verdicts"][PAYS] == 1


def test_together_counts_each_row_once():
    label, good, poor = rows()
    scored = {"a": Scored(label, good, poor, good), "b": Scored(label, good, poor, good)}
    assert len(together(scored, "test").label) == 400
    assert len(together(scored, "folds").label) == 800
    assert figures(label, None, "SEPARABLE") == {"code": "SEPARABLE"}
    part = Scored.empty(400).put(label == 1, Scored(label[label == 1], good[label == 1], None, None, "SINGULAR"))
    assert part.local is None and part.why == "SINGULAR"
    assert np.isnan(part.federated[label == 0]).all() and not np.isnan(part.federated[label == 1]).any()


def test_curves_are_those_of_another_library():
    label, good, _ = rows()
    mine = np.array(curves.roc(label, good))
    fpr, tpr, _ = roc_curve(label, good, drop_intermediate=False)
    points = set(zip(fpr.round(9).tolist(), tpr.round(9).tolist(), strict=True))
    assert np.trapezoid(mine[:, 1], mine[:, 0]) == pytest.approx(roc_auc_score(label, good), abs=1e-3)
    assert all(point in points for point in map(tuple, mine.round(9).tolist()))
    bads, goods, (at, low, high) = curves.distributions(label, good)
    assert abs(high - low) == pytest.approx((tpr - fpr).max(), abs=1e-12)
    assert low == pytest.approx((good[label == 1] < at).mean())
    assert high == pytest.approx((good[label == 0] < at).mean())
    assert bads[-1][1] == goods[-1][1] == 1.0
    assert curves.roc(np.zeros(5), np.arange(5.0)) == []
    long = curves.roc(np.tile([0.0, 1.0], 5000), np.arange(10_000.0))
    assert len(long) <= curves.MAX_POINTS + 1 and long[0] == (0.0, 0.0) and long[-1] == (1.0, 1.0)


def test_axes_hold_their_values_at_round_ticks():
    for values in ([0.7123, 0.7391], [-3.0, 1200.0], [5.0, 5.0], [], [float("nan"), 2.0]):
        axis = Axis.over(values, "x")
        assert axis.low < axis.high and 2 <= len(axis.ticks) <= 12
        assert all(axis.low <= value <= axis.high for value in values if value == value)
    assert Axis.over([2.0, 3.0], "x", zero=True).low == 0.0
    assert Axis.over([-9.0, 1.0], "x", power=True).text(-5.0) == "1e-5"


def test_names_from_data_cannot_become_markup():
    evil = '<script src="http://x">&"'
    axis = Axis.over([0.0, 1.0], evil)
    drawn = line_plot([Line(evil, [(0, 0), (1, 1)], "fed")], axis, axis, title=evil, note=evil)
    drawn += dot_plot([Row(evil, (Mark(0.5, 0.1, 0.9, "fed", evil),))], axis, title=evil)
    whole = page(evil, evil, [paragraph(evil), table([evil], [(evil,)]), drawn], evil)
    assert "<script" not in whole and POLICY in whole
