"""The scorecard that all rows in one place would have given, by an independent solver. In the lab only: nobody has
all rows anywhere else.

Means, deviations, coding and fit are computed here by NumPy and scikit-learn and share no code with the federated
job. Taken from its model are the names of the columns and, for categories, which levels have a coefficient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from federation.learning.coding import Category
from federation.learning.frame import Frame
from federation.learning.model import Model

Score = Callable[[Frame], NDArray[np.float64]]


def fit_pooled(model: Model, frames: Iterable[Frame], label: str, penalty: float) -> Score:
    """Fit Σ log-loss + penalty/2 · |w|², the intercept free, on the rows of `frames` together.

    Args:
        model: the federated scorecard, for names of columns and levels.
        frames: training rows of all members, complete.

    Returns:
        A function from rows to log-odds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    parts = list(frames)
    makers: list[Callable[[Frame], NDArray[np.float64]]] = []
    for part in model.coding.parts:
        if isinstance(part, Category):
            makers += [_dummy(part.name, level) for level in part.kept]
        else:
            values = np.concatenate([np.asarray(frame.columns[part.name], dtype=np.float64) for frame in parts])
            makers.append(_z_score(part.name, float(np.mean(values)), float(np.std(values))))

    def design(frame: Frame) -> NDArray[np.float64]:
        return np.column_stack([make(frame) for make in makers]) if makers else np.zeros((len(frame), 0))

    x = np.concatenate([design(frame) for frame in parts])
    y = np.concatenate([np.asarray(frame.columns[label], dtype=np.float64) for frame in parts])
    solver = LogisticRegression(
        C=1.0 / penalty if penalty else np.inf, solver="newton-cholesky", tol=1e-13, max_iter=500
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a tolerance below what float64 reaches ends the same way
        fit = solver.fit(x, y)
    weights, intercept = fit.coef_[0], float(fit.intercept_[0])
    return lambda frame: np.asarray(intercept + design(frame) @ weights)


def _z_score(name: str, mean: float, sd: float) -> Callable[[Frame], NDArray[np.float64]]:
    return lambda frame: (np.asarray(frame.columns[name], dtype=np.float64) - mean) / sd


def _dummy(name: str, level: str) -> Callable[[Frame], NDArray[np.float64]]:
    return lambda frame: (np.asarray(frame.columns[name], dtype=object) == level).astype(np.float64)
