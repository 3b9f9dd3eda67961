"""Concentrated differential privacy: what a round of distributed discrete Gaussian noise costs, and rounds together.

An algorithm is ρ-zCDP where for neighbouring inputs the Rényi divergence of every order α is at most ρ α (Bun and
Steinke 2016); ρ of rounds that may each depend on all before add up. All results are rounded towards more loss.
"""

from __future__ import annotations

import math
from fractions import Fraction

import gmpy2

from federation.errors import ChaotianError

_ORDERS = 400
_PRECISION = 128  # bits; a rounding error of 2^-128 is far below the last step up to the next float


def round_loss(*, squared_sensitivity: int | Fraction, values: int, share_variance: int, honest: int) -> float:
    """Return ρ of one release of a sum to which `honest` members each add discrete Gaussian noise.

    A sum of discrete Gaussians is not one itself. Kairouz, Liu, Steinke, *The Distributed Discrete Gaussian Mechanism
    for Federated Learning with Secure Aggregation* (ICML 2021), Proposition 14, for all orders from 1:

        ρ = min( Δ²/(2 h σ²) + τ d,  (Δ/(√h σ) + τ √d)² / 2 ),   τ = 10 Σ_{k=1}^{h-1} exp(-2 π² σ² k/(k+1)).

    Args:
        squared_sensitivity: Δ², by which the squared L2 norm of the exact sum differs at most between neighbours.
        values: d, the length of the sum.
        share_variance: σ² of one member's noise, at least 1.
        honest: h, members whose noise nobody can take off again, at least 1.
    """
    if honest < 1 or values < 1 or share_variance < 1 or squared_sensitivity < 0:
        raise ChaotianError("INTERNAL", "a loss is asked for that has no meaning")
    with gmpy2.context(precision=_PRECISION):
        share = gmpy2.mpfr(share_variance)
        constant = -2 * gmpy2.const_pi() ** 2 * share
        tau = 10 * sum((gmpy2.exp(constant * k / (k + 1)) for k in range(1, honest)), gmpy2.mpfr(0))
        squared = gmpy2.mpfr(gmpy2.mpq(Fraction(squared_sensitivity))) / (honest * share)
        first = squared / 2 + tau * values
        second = (gmpy2.sqrt(squared) + tau * gmpy2.sqrt(gmpy2.mpfr(values))) ** 2 / 2
        return math.nextafter(float(min(first, second)), math.inf)


def epsilon(rho: float, delta: float) -> float:
    """Return an ε for which ρ-zCDP implies (ε, δ)-differential privacy.

    Canonne, Kamath, Steinke 2020, Corollary 13 with Proposition 12: for every order α above 1,
    ε = α ρ + (ln(1/δ) + (α-1) ln(1-1/α) - ln α) / (α-1). Every order gives a valid ε; the best of a search is returned.

    Raises:
        ChaotianError: BAD_DOCUMENT where δ is not between 0 and 1, or ρ is not a finite number of at least 0.
    """
    if not 0 < delta < 1 or not 0 <= rho < math.inf:
        raise ChaotianError("BAD_DOCUMENT", "delta lies between 0 and 1, and a loss is a finite number")
    if rho == 0:
        return 0.0

    def at(log_excess: float) -> float:
        excess = math.exp(log_excess)  # α - 1
        alpha = 1 + excess
        return alpha * rho + (math.log(1 / delta) - math.log(alpha)) / excess - math.log1p(1 / excess)

    # About √(ln(1/δ)/ρ) is best; the function is smooth, so a grid around it and one refinement come within 1e-6.
    centre, width = 0.5 * math.log(math.log(1 / delta) / rho), 6.0
    for _ in range(2):
        grid = [centre + width * (2 * i / _ORDERS - 1) for i in range(_ORDERS + 1)]
        centre, width = min(grid, key=at), width / (_ORDERS / 4)
    return max(0.0, at(centre)) * (1 + 1e-12)


def largest_loss(budget: float, delta: float) -> float:
    """Return the largest ρ whose `epsilon` at `delta` is at most `budget`, up to 1e-9 relative, never above it."""
    low, high = 0.0, budget + 1.0  # ε is at least ρ
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(middle, delta) <= budget else (low, middle)
    return low
