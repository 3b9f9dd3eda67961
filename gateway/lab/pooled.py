"""The scorecard that all rows in one place would have given, by an independent solver. In the lab only: nobody has
all rows anywhere else.

Means, deviations, weights of evidence, coding and fit are computed here by NumPy and scikit-learn and share no code
with the federated job. Taken from its model are the names of the columns, which levels have a coefficient, and under
`woe` where one bin ends and the next begins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from federation.learning.bins import ColumnBins
from federation.learning.coding import Category
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.model import Model

Score = Callable[[Frame], NDArray[np.float64]]


def fit_pooled(model: Model, frames: Iterable[Frame], spec: ScorecardSpec) -> Score:
    """Fit Σ log-loss + penalty/2 · |w|², the intercept free, on the rows of `frames` together.

    Args:
        model: the federated scorecard, for names of columns, levels and bins.
        frames: training rows of all members.

    Returns:
        A function from rows to log-odds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    parts = list(frames)
    y = np.concatenate([np.asarray(frame.columns[spec.label], dtype=np.float64) for frame in parts])
    makers: list[Score] = []
    for part in model.coding.parts:
        if isinstance(part, Category):
            makers += [_dummy(part.name, level) for level in part.kept]
        elif isinstance(part, ColumnBins):
            makers.append(_evidence(part, parts, y, spec.binning.smoothing))
        else:
            makers.append(_z_score(part.name, parts))

    def design(frame: Frame) -> NDArray[np.float64]:
        return np.column_stack([make(frame) for make in makers]) if makers else np.zeros((len(frame), 0))

    x = np.concatenate([design(frame) for frame in parts])
    strength = 1.0 / spec.penalty if spec.penalty else np.inf
    solver = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-13, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a tolerance below what float64 reaches ends the same way
        fit = solver.fit(x, y)
    weights, intercept = fit.coef_[0], float(fit.intercept_[0])
    return lambda frame: np.asarray(intercept + design(frame) @ weights)


def _z_score(name: str, frames: Sequence[Frame]) -> Score:
    values = np.concatenate([np.asarray(frame.columns[name], dtype=np.float64) for frame in frames])
    mean = float(np.nanmean(values))
    sd = float(np.where(np.isnan(values), mean, values).std())

    def make(frame: Frame) -> NDArray[np.float64]:
        own = np.asarray(frame.columns[name], dtype=np.float64)
        return (np.where(np.isnan(own), mean, own) - mean) / sd

    return make


def _dummy(name: str, level: str) -> Score:
    return lambda frame: (np.asarray(frame.columns[name], dtype=object) == level).astype(np.float64)


def _evidence(bins: ColumnBins, frames: Sequence[Frame], y: NDArray[np.float64], smoothing: float) -> Score:
    def place(frame: Frame) -> NDArray[np.int64]:
        if bins.edges is None:
            where = {level: at for at, group in enumerate(bins.groups) for level in group}
            return np.array([where.get(value, bins.missing) for value in frame.columns[bins.name]], dtype=np.int64)
        values = np.asarray(frame.columns[bins.name], dtype=np.float64)
        below = (values[:, None] > np.array(bins.edges)[None, :]).sum(axis=1)
        return np.where(np.isnan(values), bins.missing, below).astype(np.int64)

    places = np.concatenate([place(frame) for frame in frames])
    size = len(bins.counts)
    bads = np.bincount(places, weights=y, minlength=size)
    goods = np.bincount(places, weights=1.0 - y, minlength=size)
    weights = np.log(((bads + smoothing) / bads.sum()) / ((goods + smoothing) / goods.sum()))
    return lambda frame: np.append(weights, 0.0)[place(frame)]  # -1: missing, where training had none
