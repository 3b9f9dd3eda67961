"""What a learning job works on: columns in memory, and the declaration of the columns it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.options import BinningOptions, PointsScale, choice

MAX_FEATURES = 500
MAX_LEVELS = 200
MAX_NAME = 120
Column = NDArray[Any]


_UNKNOWN, _MISSING = -1, -2


def _code(value: Any, index: Mapping[str, int]) -> int:
    if type(value) is str:
        return index.get(value, _UNKNOWN)
    if value is None or value != value:
        return _MISSING
    return index.get(str(value), _UNKNOWN)


@dataclass(frozen=True)
class Frame:
    """Rows of one owner: identifiers and named columns of equal length.

    Args:
        ids: one identifier a row, as text.
        columns: numeric columns as float64 (NaN: missing), categories as text (empty: missing).
    """

    ids: Sequence[str]
    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.ids):
                raise ChaotianError(
                    "DATA_COLUMN", f"column {name} has {len(column)} values, {len(self.ids)} rows are expected"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:  # columns hold raw values: they must not reach a log by way of a repr
        return f"Frame({len(self.ids)} rows, {len(self.columns)} columns)"

    def take(self, mask: NDArray[np.bool_]) -> Frame:
        """Return the rows where `mask` is true, in order."""
        ids = [name for name, keep in zip(self.ids, mask, strict=True) if keep]
        return Frame(ids, {name: np.asarray(column)[mask] for name, column in self.columns.items()})

    def numeric(self, name: str) -> NDArray[np.float64]:
        """Return column `name` as finite float64.

        Raises:
            ChaotianError: DATA_COLUMN, DATA_TYPE, DATA_MISSING or NOT_FINITE, naming the column and no value.
        """
        column = self._column(name)
        try:
            values = np.asarray(column, dtype=np.float64)
        except (TypeError, ValueError):
            raise ChaotianError("DATA_TYPE", f"column {name} is used as numeric but holds other values") from None
        if np.isnan(values).any():
            raise ChaotianError("DATA_MISSING", f"column {name} has {int(np.isnan(values).sum())} missing values")
        if not np.isfinite(values).all():
            raise ChaotianError("NOT_FINITE", f"column {name} has an infinite value")
        return values

    def category(self, name: str, levels: Sequence[str]) -> NDArray[np.int64]:
        """Return column `name` as indices into `levels`.

        Raises:
            ChaotianError: DATA_COLUMN, DATA_MISSING, or DATA_TYPE where a row has a level that is not declared.
        """
        values = np.asarray(self._column(name)).tolist()
        index = {level: i for i, level in enumerate(levels)}
        index[""] = _MISSING
        out = np.fromiter((_code(value, index) for value in values), dtype=np.int64, count=len(values))
        missing, unknown = int((out == _MISSING).sum()), int((out == _UNKNOWN).sum())
        if missing:
            raise ChaotianError("DATA_MISSING", f"column {name} has {missing} missing values")
        if unknown:
            raise ChaotianError(
                "DATA_TYPE",
                f"column {name} has {unknown} rows with a level that the job does not declare",
                hint=f"The job knows these levels: {', '.join(levels[:20])}. Correct the rows or propose more levels.",
            )
        return out

    def label(self, name: str) -> NDArray[np.float64]:
        """Return column `name` as 0.0 (good) and 1.0 (bad); anything else is DATA_TYPE."""
        values = self.numeric(name)
        if not np.isin(values, (0.0, 1.0)).all():
            raise ChaotianError("DATA_TYPE", f"label {name} must be 0 (good) or 1 (bad) in every row")
        return values

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            raise ChaotianError("DATA_COLUMN", f"column {name} is not in the data")
        return self.columns[name]


@dataclass(frozen=True)
class Feature:
    """One column a job uses. A category declares its levels; the first is the reference the others are held against."""

    name: str
    type: str
    levels: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the feature as a JSON document."""
        out: dict[str, Any] = {"name": self.name, "type": self.type}
        if self.type == "category":
            out["levels"] = list(self.levels)
        return out

    @classmethod
    def from_document(cls, document: Any) -> Feature:
        """Return the feature of `document`; anything unknown is BAD_DOCUMENT."""
        if not isinstance(document, Mapping) or not set(document) <= {"name", "type", "levels"}:
            raise ChaotianError("BAD_DOCUMENT", "a feature has a name, a type and, for a category, levels")
        name, kind, levels = document.get("name"), document.get("type"), document.get("levels", [])
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or "=" in name:
            # coefficients and cells are named column=level: a second equals sign would make two names one
            raise ChaotianError("BAD_DOCUMENT", f"a feature needs a name of 1 to {MAX_NAME} characters without '='")
        if kind not in ("numeric", "category"):
            raise ChaotianError("BAD_DOCUMENT", f"the type of feature {name} is neither numeric nor category")
        if not isinstance(levels, list) or not all(isinstance(x, str) and 1 <= len(x) <= MAX_NAME for x in levels):
            raise ChaotianError("BAD_DOCUMENT", f"the levels of feature {name} are a list of texts, none empty")
        if kind == "numeric" and levels:
            raise ChaotianError("BAD_DOCUMENT", f"feature {name} is numeric and can have no levels")
        if kind == "category" and (not 2 <= len(levels) <= MAX_LEVELS or len(set(levels)) != len(levels)):
            raise ChaotianError("BAD_DOCUMENT", f"feature {name} needs 2 to {MAX_LEVELS} levels, each named once")
        return cls(name, kind, tuple(levels))


def _number(document: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ChaotianError("BAD_DOCUMENT", f"{key} is a number from {low:g} to {high:g}")
    return float(value)


@dataclass(frozen=True)
class ScorecardSpec:
    """The parameters of a `scorecard` job, as every member agreed to them.

    Args:
        label: column of the outcome, 1 = bad.
        features: columns of the score, in the order of the coefficients.
        penalty: λ of the objective Σ log-loss + λ/2 · |w|²; the intercept is free.
        holdout: share of each member's rows kept out of training, 0 up to 0.9.
        seed: text that fixes which rows are held out.
        min_rows: floor of every cell that is published.
        max_rounds: most Newton rounds before NOT_CONVERGED.
        coding: `raw` (z-scores and dummies) or `woe` (weights of evidence of common bins).
        impute: `mean`: a missing value of a numeric column counts as the pooled mean; else it is an error under `raw`.
        binning: how columns are cut under `woe`.
        points: how log-odds become points under `woe`.
    """

    label: str
    features: tuple[Feature, ...]
    penalty: float = 1.0
    holdout: float = 0.2
    seed: str = ""
    min_rows: int = 30
    max_rounds: int = 40
    coding: str = "raw"
    impute: str = ""
    binning: BinningOptions = field(default_factory=BinningOptions)
    points: PointsScale = field(default_factory=PointsScale)

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names or len(names) > MAX_FEATURES or len(set(names)) != len(names):
            raise ChaotianError("BAD_DOCUMENT", f"a job has 1 to {MAX_FEATURES} features, each named once")
        if not self.label or self.label in names:
            raise ChaotianError("BAD_DOCUMENT", "the label is a column of its own, not one of the features")
        if self.coding == "woe" and self.impute:
            raise ChaotianError("BAD_DOCUMENT", "under woe missing values are a bin of their own: leave impute out")
        numeric = {feature.name for feature in self.features if feature.type == "numeric"}
        strangers = sorted(set(self.binning.edges) - numeric)
        if strangers:
            raise ChaotianError("BAD_DOCUMENT", f"edges are given for {strangers[0]}, which is no numeric feature")

    @property
    def columns(self) -> tuple[str, ...]:
        """Label and features: the columns of the dataset that the job reads."""
        return (self.label, *(feature.name for feature in self.features))

    def document(self) -> dict[str, Any]:
        """Return the parameters as a JSON document, defaults included."""
        out: dict[str, Any] = {
            "label": self.label,
            "features": [feature.document() for feature in self.features],
            "penalty": self.penalty,
            "holdout": self.holdout,
            "seed": self.seed,
            "max_rounds": self.max_rounds,
        }
        if self.impute:
            out["impute"] = self.impute
        if self.coding == "woe":
            out |= {"coding": self.coding, **self.binning.document(), **self.points.document()}
        return out

    @classmethod
    def from_document(cls, document: Any, *, min_rows: int = 30) -> ScorecardSpec:
        """Return the parameters of `document`; `min_rows` comes from the job's floors, never from its parameters."""
        known = {"label", "features", "penalty", "holdout", "seed", "max_rounds", "coding", "impute"}
        of_woe = {*BinningOptions.KEYS, *PointsScale.KEYS}
        if not isinstance(document, Mapping):
            raise ChaotianError("BAD_DOCUMENT", "the parameters of a scorecard are a table")
        unknown = sorted(str(key) for key in set(document) - known - of_woe)
        if unknown:
            raise ChaotianError("BAD_DOCUMENT", f"a scorecard has no parameter {unknown[0][:MAX_NAME]}")
        coding = choice(document, "coding", "raw", ("raw", "woe"))
        if coding == "raw" and of_woe & set(document):
            raise ChaotianError("BAD_DOCUMENT", f'{min(of_woe & set(document))} needs coding = "woe"')
        label, features, seed = document.get("label"), document.get("features"), document.get("seed", "")
        if not isinstance(label, str) or not 1 <= len(label) <= MAX_NAME:
            raise ChaotianError("BAD_DOCUMENT", "label names the column of the outcome")
        if not isinstance(features, list):
            raise ChaotianError("BAD_DOCUMENT", "features is a list of columns")
        if not isinstance(seed, str) or len(seed) > MAX_NAME:
            raise ChaotianError("BAD_DOCUMENT", f"seed is a text of at most {MAX_NAME} characters")
        rounds = _number(document, "max_rounds", 40, 1, 1000)
        if rounds != int(rounds):
            raise ChaotianError("BAD_DOCUMENT", "max_rounds is a whole number")
        return cls(
            label=label,
            features=tuple(Feature.from_document(feature) for feature in features),
            penalty=_number(document, "penalty", 1.0, 0.0, 1e9),
            holdout=_number(document, "holdout", 0.2, 0.0, 0.9),
            seed=seed,
            min_rows=min_rows,
            max_rounds=int(rounds),
            coding=coding,
            impute=choice(document, "impute", "", ("", "mean")),
            binning=BinningOptions.from_document(document),
            points=PointsScale.from_document(document),
        )
