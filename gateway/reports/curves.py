"""The curves behind the plots: ROC, the two distributions whose distance is KS, convergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Curve = list[tuple[float, float]]
MAX_POINTS = 300


def roc(label: Column, score: Column) -> Curve:
    """Return (share of goods, share of bads) at or above each threshold, from (0, 0) to (1, 1).

    Empty where one outcome is absent.
    """
    bads, goods, _ = _above(label, score)
    if not len(bads):
        return []
    return _thinned([(0.0, 0.0), *zip(goods.tolist(), bads.tolist(), strict=True)])


def distributions(label: Column, score: Column) -> tuple[Curve, Curve, tuple[float, float, float]]:
    """Return the cumulative shares of bads and goods below each log-odds, and where they are farthest apart.

    Returns:
        bads, goods, (log-odds, share of bads, share of goods) at the distance KS; empty curves where one outcome is
        absent.
    """
    above_bad, above_good, values = _above(label, score)
    if not len(values):
        return [], [], (0.0, 0.0, 0.0)
    bads, goods = 1.0 - above_bad[::-1], 1.0 - above_good[::-1]  # strictly below each value, ascending
    values = values[::-1]
    at = int(np.abs(goods - bads).argmax())
    return (
        _thinned([*zip(values.tolist(), bads.tolist(), strict=True), (float(values[-1]), 1.0)]),
        _thinned([*zip(values.tolist(), goods.tolist(), strict=True), (float(values[-1]), 1.0)]),
        (float(values[at]), float(bads[at]), float(goods[at])),
    )


def convergence(history: list[Mapping[str, Any]]) -> tuple[Curve, Curve]:
    """Return (round, exponent of ten) of the largest gradient and of the largest step, of rounds that count."""
    gradient: Curve = []
    step: Curve = []
    for number, entry in enumerate(history, 1):
        for curve, key in ((gradient, "gradient"), (step, "max_step")):
            value = float(entry[key])
            if value > 0:
                curve.append((float(number), math.log10(value)))
    return gradient, step


def _above(label: Column, score: Column) -> tuple[Column, Column, Column]:
    """Return the shares of bads and goods at or above each different score, and the scores, descending."""
    bad = label == 1.0
    m, n = int(bad.sum()), int(len(label) - bad.sum())
    if not m or not n:
        return np.empty(0), np.empty(0), np.empty(0)
    values, inverse = np.unique(-score, return_inverse=True)
    bads = np.cumsum(np.bincount(inverse[bad], minlength=len(values))) / m
    goods = np.cumsum(np.bincount(inverse[~bad], minlength=len(values))) / n
    return bads, goods, -values


def _thinned(curve: Curve) -> Curve:
    """Return at most about `MAX_POINTS` points of a curve, its ends among them."""
    if len(curve) <= MAX_POINTS:
        return curve
    picked = np.unique(np.linspace(0, len(curve) - 1, MAX_POINTS).round().astype(int))
    return [curve[index] for index in picked]
