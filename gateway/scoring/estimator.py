"""A federated scorecard as a fitted scikit-learn classifier: pandas in; probabilities, points and reasons out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError

from federation.errors import ChaotianError
from federation.learning.model import Model
from federation.learning.points import MOST_REASONS, Scorer, Scores
from gateway.scoring.frames import DataError, frame_of


class FederatedScorecard(ClassifierMixin, BaseEstimator):
    """A finished scorecard as a scikit-learn classifier of the classes 0 (good) and 1 (bad).

    It is fitted from the start: `fit` does nothing, as a model that several members made cannot be made again from one
    member's rows. X is a pandas data frame with the model's columns, in any order, others beside them; or an array
    with exactly these columns, in the order of `feature_names_in_`. Errors are `ChaotianError` and `ValueError` in one.

    Args:
        model: the `Model`, its document, or the path of its file.
        threshold: probability of being bad from which on `predict` says 1.

    Example:
        >>> scorecard = FederatedScorecard("model.json")
        >>> scorecard.predict_proba(frame)[:, 1]
    """

    def __init__(self, model: Model | Mapping[str, Any] | Path | str | None = None, *, threshold: float = 0.5) -> None:
        self.model = model
        self.threshold = threshold

    @classmethod
    def load(cls, path: Path | str, *, threshold: float = 0.5) -> Self:
        """Return the estimator of a model file; it holds the model's document, so that it can be stored elsewhere.

        Raises:
            ChaotianError: NOT_FOUND, BAD_DOCUMENT; MODEL_HASH where the file was changed.
        """
        from gateway.jobs.models import read_model

        return cls(dict(read_model(Path(path)).document), threshold=threshold)

    # --- what scikit-learn asks of a fitted classifier -----------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Return the estimator as it is; that X has the model's columns is checked, its values are not."""
        columns, names = self.columns, getattr(X, "columns", None)
        missing = [name for name in columns if name not in names] if names is not None else []
        if missing:
            raise DataError("DATA_COLUMN", f"X: column {missing[0]} is missing")
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of 0 and 1 (rows × 2).

        Raises:
            DataError: DATA_* naming row (the first is 0) and column.
        """
        bad = self._score(X).probability
        return np.column_stack([1.0 - bad, bad])

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the log-odds of being bad (rows): those of `chaotian score`."""
        return self._score(X).log_odds

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return 1 where the probability of being bad is at least `threshold`, else 0 (rows)."""
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise DataError("USAGE", "threshold is a number")
        return (self._score(X).probability >= self.threshold).astype(np.int64)

    @property
    def classes_(self) -> NDArray[np.int64]:
        """0 (good) and 1 (bad)."""
        return np.array([0, 1])

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Columns of the model, in its order."""
        return np.array(self.columns, dtype=object)

    @property
    def n_features_in_(self) -> int:
        """Number of the model's columns."""
        return len(self.columns)

    def __sklearn_is_fitted__(self) -> bool:
        return self.model is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.classifier_tags.multi_class = False
        tags.input_tags.string = tags.input_tags.categorical = tags.input_tags.allow_nan = True
        return tags

    # --- what a scorecard has beyond that ---------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Version hash of the model, 64 hex digits."""
        return self._scorer.model.version

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the model."""
        return self._scorer.columns

    def points(self, X: Any) -> NDArray[np.float64] | None:
        """Return the whole points of the card (rows); None where the model has no points."""
        return self._score(X).points

    def reasons(self, X: Any, most: int = MOST_REASONS) -> list[list[dict[str, Any]]]:
        """Return for every row up to `most` (4) reasons, the largest loss of points first.

        Returns:
            by row: [{"column", "points", "bin"}]; docs/scoring.md says what the points are held against.
        """
        found = self._score(X, most)
        return [
            [
                {"column": found.columns[k], "points": lost, "bin": found.labels[k][place]}
                for k, lost, place in zip(*row, strict=True)
                if k >= 0
            ]
            for row in zip(found.reasons.tolist(), found.lost.tolist(), found.bins.tolist(), strict=True)
        ]

    def table(self, X: Any, reasons: int = MOST_REASONS) -> Any:
        """Return a pandas data frame with the index of X and the columns that `chaotian score` writes.

        Args:
            reasons: 0 to 4.

        Returns:
            score (log-odds), probability, points (where the model has them), reason_1, reason_1_points, reason_1_bin, …
            (None: no further reason), model (version hash).
        """
        import pandas as pd

        from gateway.scoring.output import columns_of

        found = self._score(X, reasons)
        index = X.index if isinstance(X, pd.DataFrame) else None
        columns = {name: np.asarray(values) for name, values in columns_of(found, reasons).items()}
        return pd.DataFrame({**columns, "model": self.version}, index=index)

    def _score(self, X: Any, most: int = 0) -> Scores:
        scorer = self._scorer
        try:
            return scorer.score(frame_of(scorer.model, X), most)
        except DataError:
            raise
        except ChaotianError as error:
            raise DataError(error.code, error.detail, hint=error.hint) from None

    @property
    def _scorer(self) -> Scorer:
        known = self.__dict__.get("_known")
        if known is None or known[0] is not self.model:
            if self.model is None:
                raise NotFittedError(
                    "this FederatedScorecard has no model: give it one, or use FederatedScorecard.load"
                )
            known = self._known = (self.model, Scorer(_model(self.model)))
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_known"}


def _model(given: Model | Mapping[str, Any] | Path | str) -> Model:
    """Return the model, its hash checked."""
    if isinstance(given, Model):
        return Model.load(given.document)
    if isinstance(given, Mapping):
        return Model.load(given)
    from gateway.jobs.models import read_model

    return read_model(Path(given))
