"""Exact sums, hold-out, metrics and the linear algebra of the Newton step, each against an independent oracle."""

import hashlib
import math
from fractions import Fraction

import gmpy2
import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.coding import Coding, merge_levels
from federation.learning.exact import exact_sum, nearest_float, nearest_root, real_arithmetic, to_grid
from federation.learning.holdout import held_out
from federation.learning.metrics import separation
from federation.learning.newton import Newton, cholesky, local_sums, solve
from federation.primitives.encoding import pack


def test_exact_sum_where_float64_loses_digits():
    values = np.array([1e300, 1.0, -1e300, 2.0**-1074, -0.0, 5e-324, 1e-300])
    assert exact_sum(values) == sum(map(Fraction, values.tolist()))
    assert exact_sum(np.zeros(0)) == 0
    assert exact_sum(np.array([2.0**53, 1.0] * 1000)) == 1000 * (2**53 + 1)


def test_moments_are_rounded_once():
    assert nearest_float(Fraction(1, 3)) == 1 / 3
    assert nearest_root(Fraction(2)) == math.sqrt(2)
    assert nearest_root(Fraction(0)) == 0.0
    with real_arithmetic():
        assert to_grid(gmpy2.mpfr("-0.5")) == -(1 << 31)
    assert gmpy2.get_context().precision == 53


def test_holdout_is_the_documented_hash():
    ids = [f"loan-{i}" for i in range(3000)] + ["企业-1", ""]
    mask = held_out(ids, "2024", 0.2)
    for name, out in zip(ids, mask, strict=True):
        digest = hashlib.sha256(pack("chaotian holdout", [b"2024", name.encode()])).digest()
        assert out == (int.from_bytes(digest[:8], "big") < int(0.2 * 2**64))
    assert 0.17 < mask.mean() < 0.23
    assert np.array_equal(held_out(ids[::-1], "2024", 0.2), mask[::-1])
    assert not np.array_equal(held_out(ids, "2025", 0.2), mask)
    assert not held_out(ids, "2024", 0.0).any() and held_out(ids, "2024", 1.0).all()
    assert (held_out(ids, "2024", 0.5) >= mask).all()  # a larger share holds out the same rows and more


def test_metrics_against_scikit_learn_and_a_direct_count():
    from sklearn.metrics import roc_auc_score, roc_curve

    random = np.random.default_rng(5)
    label = (random.random(800) < 0.3).astype(float)
    score = np.round(random.normal(label, 1.5), 1)  # many ties
    found = separation(label, score)
    assert found.auc == pytest.approx(roc_auc_score(label, score), abs=1e-15)
    false, true, _ = roc_curve(label, score, drop_intermediate=False)
    assert found.ks == pytest.approx(np.abs(true - false).max(), abs=1e-15)
    bad, good = score[label == 1], score[label == 0]
    direct = ((bad[:, None] > good).sum() + (bad[:, None] == good).sum() / 2) / (len(bad) * len(good))
    assert found.auc == pytest.approx(direct, abs=1e-15) and found.gini == pytest.approx(2 * direct - 1)
    psi = (bad[:, None] > good) + (bad[:, None] == good) / 2  # DeLong's placements, written out
    variance = psi.mean(1).var(ddof=1) / len(bad) + psi.mean(0).var(ddof=1) / len(good)
    assert found.auc_high - found.auc == pytest.approx(1.959963984540054 * variance**0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("label", "score", "auc", "ks"),
    [([0, 1], [0, 1], 1.0, 1.0), ([1, 0], [0, 1], 0.0, 1.0), ([0, 1, 0, 1], [5, 5, 5, 5], 0.5, 0.0)],
)
def test_metrics_of_extremes(label, score, auc, ks):
    found = separation(label, score)
    assert (found.auc, found.ks) == (auc, ks) and 0.0 <= found.auc_low <= found.auc_high <= 1.0


@pytest.mark.parametrize(
    ("label", "score", "code"),
    [
        ([0, 0], [1, 2], "ONE_CLASS"),
        ([], [], "ONE_CLASS"),
        ([0, 1], [1, math.nan], "NOT_FINITE"),
        ([0, 2], [1, 2], "DATA_TYPE"),
        ([0, 1], [1, 2, 3], "DATA_TYPE"),
    ],
)
def test_metrics_refuse(label, score, code):
    with pytest.raises(ChaotianError) as caught:
        separation(label, score)
    assert caught.value.code == code


def test_local_sums_are_the_derivatives_of_the_loss():
    random = np.random.default_rng(2)
    x = np.column_stack([np.ones(150_000), random.normal(size=(150_000, 2))])
    y, beta = (random.random(150_000) < 0.4).astype(float), np.array([0.3, -1.0, 40.0])
    loss, gradient, hessian = local_sums(x, y, beta)
    logit = x @ beta
    assert loss == pytest.approx(math.fsum(np.logaddexp(0, logit) - y * logit), rel=1e-12)
    p = 1 / (1 + np.exp(-logit))
    assert gradient == pytest.approx(x.T @ (p - y), rel=1e-9)
    assert hessian == pytest.approx(((x * (p * (1 - p))[:, None]).T @ x)[np.triu_indices(3)], rel=1e-8, abs=1e-8)
    extreme = local_sums(x[:4], y[:4], np.array([5000.0, 0, 0]))
    assert math.isfinite(extreme[0]) and np.isfinite(extreme[2]).all()


def test_cholesky_solves_to_working_accuracy_and_refuses_the_singular():
    random = np.random.default_rng(3)
    a = random.normal(size=(12, 9))
    with real_arithmetic():
        matrix = [[gmpy2.mpfr(float(v)) for v in row] for row in a.T @ a]
        right = [gmpy2.mpfr(float(v)) for v in random.normal(size=9)]
        lower = cholesky(matrix)
        x = solve(lower, right)
        for row, b in zip(matrix, right, strict=True):
            assert abs(sum((m * v for m, v in zip(row, x, strict=True)), gmpy2.mpfr(0)) - b) < gmpy2.mpfr("1e-60")
        one = gmpy2.mpfr(1)
        assert cholesky([[one, one], [one, one]]) is None
        assert cholesky([[gmpy2.mpfr(0)]]) is None
        assert cholesky([[-one]]) is None


def test_merging_by_hand():
    levels = ("r", "a", "b", "c")
    assert merge_levels({"r": 50, "a": 40, "b": 29, "c": 30}, levels, 30) == ("a", "c")
    assert merge_levels({"r": 0, "a": 40, "b": 29, "c": 30}, levels, 30) == ("a",)
    assert merge_levels({"r": 1, "a": 40, "b": 40, "c": 40}, levels, 30) == ("a", "b")
    assert merge_levels({"r": 0, "a": 40, "b": 0, "c": 0}, levels, 30) == ()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [{}],
        [{"name": "x", "type": "numeric", "mean": "0x0p+0", "sd": "0x0p+0"}],
        [{"name": "x", "type": "numeric", "mean": "nan", "sd": "0x1p+0"}],
        [{"name": "x", "type": "other"}],
        [{"name": "k", "type": "category", "levels": ["a", "b"], "kept": ["c"]}],
        [{"name": "k", "type": "category", "levels": ["a", "b"], "kept": ["a"]}],
    ],
)
def test_a_coding_that_cannot_be_is_refused(document):
    with pytest.raises(ChaotianError) as caught:
        Coding.from_document(document)
    assert caught.value.code == "BAD_DOCUMENT"


def test_totals_that_drive_the_coefficients_away_end_the_iteration():
    newton = Newton([0, 0], 0.0, 1000)
    with pytest.raises(ChaotianError) as caught:
        for _ in range(1000):  # a slope that never levels off, as garbage inputs could make it
            newton.advance(1 << 40, [1 << 40, 1 << 40], [1, 0, 1])
    assert caught.value.code in ("SEPARABLE", "NOT_CONVERGED") and len(newton.history) < 60
    assert Newton.from_document(newton.document(), 0.0, 1000) == newton
