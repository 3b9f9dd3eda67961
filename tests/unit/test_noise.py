"""The discrete Gaussian against its probabilities, and the accountant against its formulas worked out another way."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from federation.errors import ChaotianError
from federation.primitives import discrete_gaussian, zcdp
from tests.support.entropy import SeededEntropy

COUNT = 200_000
LARGE = discrete_gaussian.representable_variance(3 * 4**20 + 12_345)


def probabilities(variance: int, points: np.ndarray) -> np.ndarray:
    """The pmf with nothing but sums: no code of the sampler."""
    reach = int(40 * math.sqrt(variance)) + 5
    whole = math.fsum(math.exp(-(x * x) / (2 * variance)) for x in range(-reach, reach + 1))
    return np.exp(-(points.astype(float) ** 2) / (2 * variance)) / whole


@pytest.mark.parametrize("variance", [1, 2, 3, 7, 16, 50, 1000, 4095, 4096, 4100 << 2])
def test_draws_have_the_probabilities_of_the_discrete_gaussian(variance):
    drawn = discrete_gaussian.sample(variance, COUNT, SeededEntropy(f"pmf {variance}"))
    reach = int(6 * math.sqrt(variance)) + 1
    points = np.arange(-reach, reach + 1)
    width = max(1, reach // 60)  # cells of several points where there are many
    expected = np.add.reduceat(probabilities(variance, points), np.arange(0, points.size, width)) * COUNT
    seen = np.add.reduceat(
        np.bincount(np.clip(drawn, -reach, reach) + reach, minlength=2 * reach + 1), np.arange(0, points.size, width)
    )
    kept = expected > 10
    statistic = float(((seen - expected)[kept] ** 2 / expected[kept]).sum())
    assert stats.chi2.sf(statistic, kept.sum() - 1) > 1e-4


@pytest.mark.parametrize("variance", [4**24, LARGE, 4095 << 38])
def test_wide_draws_are_normal_in_all_their_bits(variance):
    drawn = discrete_gaussian.sample(variance, COUNT, SeededEntropy(f"wide {variance}"))
    assert stats.kstest(drawn / math.sqrt(variance), "norm").pvalue > 1e-4
    low = np.bincount(drawn & 255, minlength=256)  # the low bits of a wide one are uniform
    assert stats.chisquare(low).pvalue > 1e-4


def test_draws_are_independent_of_each_other():
    drawn = discrete_gaussian.sample(1000, COUNT, SeededEntropy("lag")) / math.sqrt(1000)
    assert all(abs(np.mean(drawn[lag:] * drawn[:-lag])) < 5 / math.sqrt(COUNT) for lag in (1, 2, 17))


def test_equal_entropy_gives_equal_draws_and_other_entropy_others():
    first = discrete_gaussian.sample(LARGE, 5000, SeededEntropy("a"))
    assert np.array_equal(first, discrete_gaussian.sample(LARGE, 5000, SeededEntropy("a")))
    assert np.array_equal(first[:7], discrete_gaussian.sample(LARGE, 7, SeededEntropy("a")))
    assert not np.array_equal(first, discrete_gaussian.sample(LARGE, 5000, SeededEntropy("b")))


@pytest.mark.parametrize(
    ("variance", "count", "first", "digest"),
    [
        (3, 1000, [0, 0, 1, -1, -1, 4], "d94150b032d559b26d46d069056333031a8ea789042f19e473f8f30622febaf1"),
        (1000, 1000, [-19, 11, 30, -45, 41, 34], "0c79ba59a7b35f88baa2f11b0701b33b2dd3b3fd1d91438d1224385598da57a8"),
        (
            1099511627776,
            100000,
            [418834, 1684124, 1449108, 370541, 1008558, -950617],
            "2c9c9f523d5e54590bc3faa2097012618683cb5cf5dcafb4882968eb5b559f5b",
        ),
        (
            3299608625152,
            1000,
            [837668, 2017117, -1901235, -3014586, 171852, 1035170],
            "e87dbf7201e0f673a6cf0007055d07c9e28c46171c04fb1c99c0453f621a4be9",
        ),
    ],
)
def test_vectors(variance, count, first, digest):
    drawn = discrete_gaussian.sample(variance, count, SeededEntropy("vector"))
    assert drawn[: len(first)].tolist() == first
    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest() == digest


@pytest.mark.parametrize("least", [1, 5, 4095, 4096, 4097, 10**6, 10**9 + 7, 4**24 + 1])
def test_representable_variances_are_hardly_larger(least):
    variance = discrete_gaussian.representable_variance(least)
    assert least <= variance <= least * (1 + 1 / 1024)
    assert discrete_gaussian.representable_variance(variance) == variance


@pytest.mark.parametrize("variance", [0, -1, 4097, 4**25])
def test_other_variances_are_refused(variance):
    with pytest.raises(ChaotianError) as error:
        discrete_gaussian.sample(variance, 1, SeededEntropy(1))
    assert error.value.code == "OVERFLOW"


# --- the accountant -------------------------------------------------------------------------------------------------


def rényi(first: np.ndarray, second: np.ndarray, order: float) -> float:
    return math.log(math.fsum(np.exp(order * np.log(first) + (1 - order) * np.log(second)))) / (order - 1)


@pytest.mark.parametrize(("variance", "honest"), [(1, 1), (1, 2), (1, 4), (2, 3), (9, 2)])
def test_a_round_never_loses_more_than_is_charged(variance, honest):
    """Rényi divergences of the summed noise and itself moved by the sensitivity, from the exact convolution."""
    reach = int(30 * math.sqrt(variance)) + 10
    one = probabilities(variance, np.arange(-reach, reach + 1))
    noise = one
    for _ in range(honest - 1):
        noise = np.convolve(noise, one)
    for moved in (1, 2, 3):
        rho = zcdp.round_loss(squared_sensitivity=moved**2, values=1, share_variance=variance, honest=honest)
        for order in (1.5, 2.0, 4.0):
            kept = noise[: noise.size - moved] > 1e-250
            near, far = noise[moved:][kept], noise[: noise.size - moved][kept]
            assert rényi(near, far, order) <= rho * order + 1e-9


def test_one_wide_round_costs_what_a_gaussian_costs():
    rho = zcdp.round_loss(squared_sensitivity=4**20, values=10**6, share_variance=4**20 // 2, honest=2)
    assert rho == pytest.approx(0.5, rel=1e-12) and rho >= 0.5


@pytest.mark.parametrize(("rho", "delta"), [(0.5, 1e-6), (1e-4, 1e-6), (50.0, 1e-5), (0.02, 1e-9)])
def test_epsilon_is_the_best_order_of_the_conversion(rho, delta):
    def of(alpha):
        return alpha * rho + (math.log(1 / delta) + (alpha - 1) * math.log(1 - 1 / alpha) - math.log(alpha)) / (
            alpha - 1
        )

    best = min(of(1 + math.exp(step / 500)) for step in range(-3000, 6000))
    assert zcdp.epsilon(rho, delta) == pytest.approx(best, rel=1e-5)
    assert zcdp.epsilon(rho, delta) < rho + 2 * math.sqrt(rho * math.log(1 / delta))  # Bun and Steinke 2016


def test_the_largest_loss_of_a_budget_keeps_it():
    for budget in (0.1, 1.0, 8.0):
        rho = zcdp.largest_loss(budget, 1e-6)
        assert zcdp.epsilon(rho, 1e-6) <= budget < zcdp.epsilon(rho * (1 + 1e-6), 1e-6)


@pytest.mark.parametrize(("rho", "delta"), [(-1.0, 0.1), (math.inf, 0.1), (1.0, 0.0), (1.0, 1.0)])
def test_a_loss_without_meaning_is_refused(rho, delta):
    with pytest.raises(ChaotianError):
        zcdp.epsilon(rho, delta)
