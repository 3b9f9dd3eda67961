"""The same scorecard from pooled data, by an independent solver. For tests, demo and benches; never in the product.

Coding, merging, moments and the fit are written a second time here, on pandas and scikit-learn, and share no code with
`federation.learning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class PooledScorecard:
    """Logistic regression on pooled training rows; objective Σ log-loss + penalty/2 · |w|², the intercept free.

    Args:
        training: pooled training rows, label included.
        label: column of the outcome.
        features: job features as documents ({name, type, levels}).
        penalty: λ.
        min_rows: floor below which a level joins the reference, which is then the most frequent level.
        constants: pooled rows that give means, deviations and merging, where they differ from `training`
            (after a loss the job keeps the constants of the rows it began with).
    """

    def __init__(
        self,
        training: pd.DataFrame,
        *,
        label: str,
        features: Sequence[Mapping[str, Any]],
        penalty: float,
        min_rows: int = 30,
        constants: pd.DataFrame | None = None,
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        base = training if constants is None else constants
        self._features = [dict(feature) for feature in features]
        self._moments: dict[str, tuple[float, float]] = {}
        self._dummies: dict[str, list[str]] = {}
        for feature in self._features:
            name = feature["name"]
            if feature["type"] == "numeric":
                column = base[name].astype(float).to_numpy()
                self._moments[name] = (float(column.mean()), float(column.std(ddof=0)))
            else:
                counts = base[name].astype(str).value_counts()
                levels = list(feature["levels"])
                small = any(0 < counts.get(x, 0) < min_rows for x in levels)
                # where something is merged, it joins the most frequent level, which is then the reference
                reference = sorted(levels, key=lambda x: (-counts.get(x, 0), x))[0] if small else levels[0]
                self._dummies[name] = [x for x in levels if x != reference and counts.get(x, 0) >= min_rows]
        x, y = self.design(training), training[label].astype(float).to_numpy()
        fit = LogisticRegression(
            C=1.0 / penalty if penalty else np.inf, solver="newton-cholesky", tol=1e-12, max_iter=500
        ).fit(x, y)
        self.beta = _polish(x, y, np.concatenate([fit.intercept_, fit.coef_[0]]), penalty)

    def design(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Return the design matrix without the intercept."""
        parts = []
        for feature in self._features:
            name = feature["name"]
            if feature["type"] == "numeric":
                mean, sd = self._moments[name]
                parts.append((rows[name].astype(float).to_numpy() - mean) / sd)
            else:
                text = rows[name].astype(str)
                parts.extend((text == level).to_numpy().astype(float) for level in self._dummies[name])
        return np.stack(parts, axis=1)

    def score(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Return log-odds."""
        return np.asarray(self.beta[0] + self.design(rows) @ self.beta[1:])


def _polish(
    x: NDArray[np.float64], y: NDArray[np.float64], beta: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """Return `beta` after least-squares steps (QR of the weighted rows) until it stands still."""
    full = np.column_stack([np.ones(len(x)), x])
    ridge = np.sqrt(penalty) * np.eye(full.shape[1])[1:]
    for _ in range(20):
        probability = 1.0 / (1.0 + np.exp(-(full @ beta)))
        weight = np.sqrt(np.maximum(probability * (1.0 - probability), 1e-300))
        rows = np.vstack([full * weight[:, None], ridge])
        right = np.concatenate([(y - probability) / weight, -np.sqrt(penalty) * beta[1:]])
        step = np.linalg.lstsq(rows, right, rcond=None)[0]
        beta = beta + step
        if np.abs(step).max() < 1e-13:
            break
    return beta
