"""How well a score separates bad from good: exact AUC with DeLong's interval, KS, Gini."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from federation.errors import ChaotianError

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Separation:
    """Figures of a score over `rows` rows, `bads` of them bad.

    Args:
        auc: area under the ROC curve, ties counted half (exact).
        ks: largest distance between the distributions of bad and good.
        gini: 2 · auc - 1.
        auc_low, auc_high: 95 % interval of the AUC (DeLong 1988), cut at 0 and 1.
    """

    rows: int
    bads: int
    auc: float
    ks: float
    gini: float
    auc_low: float
    auc_high: float

    def document(self) -> dict[str, float]:
        """Return the figures as JSON."""
        return asdict(self)


def midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of every value (1 for the smallest), ties sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def separation(label: ArrayLike, score: ArrayLike) -> Separation:
    """Return AUC, KS and Gini of `score` (higher: more likely bad) against `label` (1 = bad).

    DeLong's variance by midranks: Sun and Xu, IEEE Signal Processing Letters 21 (2014), O(n log n).

    Raises:
        ChaotianError: NOT_FINITE for a score that is no number, ONE_CLASS where one outcome is absent.
    """
    y = np.asarray(label, dtype=np.float64)
    s = np.asarray(score, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1 or not np.isin(y, (0.0, 1.0)).all():
        raise ChaotianError("DATA_TYPE", "labels are 0 or 1, one for each score")
    if not np.isfinite(s).all():
        raise ChaotianError("NOT_FINITE", "a score is not a finite number")
    bad = y == 1.0
    m, n = int(bad.sum()), int(len(y) - bad.sum())
    if not m or not n:
        raise ChaotianError("ONE_CLASS", "the rows to evaluate have only one outcome")
    ranks = midranks(s)
    # Rank sums are multiples of 1/2 below 2^53: the AUC is exact up to its last division.
    auc = float((ranks[bad].sum() - m * (m + 1) / 2.0) / (float(m) * float(n)))
    of_bad = (ranks[bad] - midranks(s[bad])) / n
    of_good = 1.0 - (ranks[~bad] - midranks(s[~bad])) / m
    variance = (float(of_bad.var(ddof=1)) / m if m > 1 else 0.0) + (float(of_good.var(ddof=1)) / n if n > 1 else 0.0)
    reach = Z95 * variance**0.5
    return Separation(
        rows=m + n,
        bads=m,
        auc=auc,
        ks=_ks(s, bad, m, n),
        gini=2.0 * auc - 1.0,
        auc_low=max(0.0, auc - reach),
        auc_high=min(1.0, auc + reach),
    )


def _ks(score: NDArray[np.float64], bad: NDArray[np.bool_], m: int, n: int) -> float:
    values, inverse = np.unique(score, return_inverse=True)
    bads = np.cumsum(np.bincount(inverse[bad], minlength=len(values)))
    goods = np.cumsum(np.bincount(inverse[~bad], minlength=len(values)))
    return float(np.abs(bads / m - goods / n).max())
