"""Models made by hand: any coding, any coefficients, with the right hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from federation.learning.bins import ColumnBins
from federation.learning.coding import Coding, Part
from federation.learning.model import ERRORS_FORMULA, FORMAT, Model, _version
from federation.learning.options import PointsScale
from federation.learning.points import card_points


def made_model(parts: Sequence[Part], beta: Sequence[float], *, job: str = "ab" * 32, points: bool = False) -> Model:
    """Return a model with these columns and coefficients, the intercept first."""
    coding = Coding(tuple(parts))
    body: dict[str, Any] = {
        "format": FORMAT,
        "job": job,
        "label": "bad",
        "penalty": 1.0,
        "coding": coding.document(),
        "coefficients": [
            {"name": name, "value": repr(b), "hex": float(b).hex(), "standard_error": "0.5", "z": "1.0", "p": "0.3"}
            for name, b in zip(coding.names, map(float, beta), strict=True)
        ],
        "standard_errors": ERRORS_FORMULA,
        "convergence": {
            "converged": True,
            "rounds": 1,
            "history": [{"log_loss": "500.0", "gradient": "0.0", "max_step": "0.0", "decrement": "0.0", "halvings": 0}],
        },
        "training": {"rows": 1000, "bads": 200, "min_rows": 30, "holdout": 0.2},
    }
    if points:
        columns = [part for part in parts if isinstance(part, ColumnBins)]
        body["points"] = card_points(columns, [float(b) for b in beta], PointsScale())
    return Model.load({**body, "version": _version(body)})


def binned(name: str, edges: Sequence[float], weights: Sequence[float], *, missing: bool = True) -> ColumnBins:
    """Return a numeric column in bins of a hundred rows; with `missing` the last weight is that of missing values."""
    counts = ((80, 20),) * len(weights)
    return ColumnBins(name, tuple(edges), (), len(edges) + 1 if missing else -1, counts, tuple(weights), 0.1)


def grouped(name: str, groups: Sequence[Sequence[str]], weights: Sequence[float]) -> ColumnBins:
    """Return a category in bins, without a bin of missing values."""
    counts = ((80, 20),) * len(weights)
    return ColumnBins(name, None, tuple(map(tuple, groups)), -1, counts, tuple(weights), 0.1)
