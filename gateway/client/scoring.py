"""Scoring data frames with a finished scorecard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from federation.errors import ChaotianError
from federation.learning.model import Model
from federation.learning.points import MOST_REASONS
from gateway.jobs.models import ModelStore, read_model
from gateway.scoring.estimator import FederatedScorecard

ModelLike = Model | FederatedScorecard | Mapping[str, Any] | Path | str
"""A model, its document, its file, or (with a home) the first digits of its id or of its job's."""


def score(
    model: ModelLike, frame: pd.DataFrame, *, reasons: int = MOST_REASONS, home: Path | None = None
) -> pd.DataFrame:
    """Score the rows of a data frame.

    Args:
        frame: rows with the model's columns, others beside them; its index is kept.
        reasons: up to how many reasons a row, 0 to 4.
        home: where models named by their digits are looked up.

    Returns:
        score (log-odds of bad), probability, points where the model has them, reasons, model (version hash).

    Raises:
        ChaotianError: NOT_FOUND, MODEL_HASH, DATA_* naming row and column.
    """
    if isinstance(reasons, bool) or not isinstance(reasons, int) or not 0 <= reasons <= MOST_REASONS:
        raise ChaotianError("USAGE", f"reasons is a whole number from 0 to {MOST_REASONS}")
    table: pd.DataFrame = scorecard(model, home).table(frame, reasons)
    return table


def scorecard(model: ModelLike, home: Path | None = None) -> FederatedScorecard:
    """Return a model as a scikit-learn classifier, from whatever names it."""
    if isinstance(model, FederatedScorecard):
        return model
    if isinstance(model, Model | Mapping):
        return FederatedScorecard(model)
    if isinstance(model, os.PathLike) or (isinstance(model, str) and (model.endswith(".json") or os.sep in model)):
        return FederatedScorecard(read_model(Path(model).expanduser()))
    if home is None or not isinstance(model, str):
        raise ChaotianError("USAGE", f"a model is a Model, its document or its file, not a {type(model).__name__}")
    return FederatedScorecard(ModelStore(home).get(model))
