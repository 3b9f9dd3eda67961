"""From columns to a design matrix: z-scores and dummies, with constants that every member holds alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins
from federation.learning.columns import numeric_or_missing
from federation.learning.frame import Feature, Frame

INTERCEPT = "(intercept)"


@dataclass(frozen=True)
class Numeric:
    """A numeric column as (value - mean) / sd, in float64; with `impute` a missing value counts as the mean."""

    name: str
    mean: float
    sd: float
    impute: bool = False

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the coefficients this column has."""
        return (self.name,)

    def document(self) -> dict[str, Any]:
        """Return the coding as JSON; constants in hexadecimal, so that no digit is lost."""
        out = {"name": self.name, "type": "numeric", "mean": self.mean.hex(), "sd": self.sd.hex()}
        return {**out, "missing": "mean"} if self.impute else out

    def standardise(self, frame: Frame) -> NDArray[np.float64]:
        """Return the z-scores of the column.

        Raises:
            ChaotianError: as `Frame.numeric`; a missing value is none with `impute`.
        """
        if not self.impute:
            return (frame.numeric(self.name) - self.mean) / self.sd
        values = numeric_or_missing(frame, self.name)
        return np.where(np.isnan(values), 0.0, (values - self.mean) / self.sd)


@dataclass(frozen=True)
class Category:
    """A category as one dummy (0 or 1) for each kept level; all others count as the reference, the first one."""

    name: str
    levels: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def reference(self) -> str:
        """The level that the dummies are held against."""
        return self.levels[0]

    @property
    def merged(self) -> tuple[str, ...]:
        """Levels that were too small and count as the reference."""
        return tuple(level for level in self.levels[1:] if level not in self.kept)

    @property
    def against(self) -> tuple[str, ...]:
        """All levels without a dummy: what a dummy's coefficient is held against."""
        return tuple(level for level in self.levels if level not in self.kept)

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the coefficients this column has: `column=level`."""
        return tuple(f"{self.name}={level}" for level in self.kept)

    def document(self) -> dict[str, Any]:
        """Return the coding as JSON."""
        return {"name": self.name, "type": "category", "levels": list(self.levels), "kept": list(self.kept)}


Part = Numeric | Category | ColumnBins


@dataclass(frozen=True)
class Coding:
    """How every column becomes coefficients, in the order of the job's features."""

    parts: tuple[Part, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all coefficients, the intercept first."""
        return (INTERCEPT, *(name for part in self.parts for name in part.coefficients))

    def design(self, frame: Frame) -> NDArray[np.float64]:
        """Return the design matrix (rows × coefficients, column 0 is 1) of `frame`.

        Raises:
            ChaotianError: as `Frame.numeric` and `Frame.category`.
        """
        columns: list[NDArray[np.float64]] = [np.ones(len(frame))]
        for part in self.parts:
            if isinstance(part, Numeric):
                columns.append(part.standardise(frame))
            elif isinstance(part, ColumnBins):
                columns.append(part.weigh(frame))
            else:
                codes = frame.category(part.name, part.levels)
                columns.extend((codes == part.levels.index(level)).astype(np.float64) for level in part.kept)
        return np.column_stack(columns)

    def document(self) -> list[dict[str, Any]]:
        """Return the coding as JSON."""
        return [part.document() for part in self.parts]

    @classmethod
    def from_document(cls, document: Any) -> Coding:
        """Return the coding of `document`; anything else is BAD_DOCUMENT."""
        try:
            return cls(tuple(_part(entry) for entry in document))
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            raise ChaotianError("BAD_DOCUMENT", "expected the coding of the columns of a scorecard") from None


def _part(entry: Mapping[str, Any]) -> Part:
    if entry["type"] == "woe":
        return ColumnBins.from_document(entry)
    if entry["type"] == "numeric" and set(entry) - {"missing"} == {"name", "type", "mean", "sd"}:
        impute = "missing" in entry
        numeric = Numeric(str(entry["name"]), float.fromhex(entry["mean"]), float.fromhex(entry["sd"]), impute)
        if impute and entry["missing"] != "mean":
            raise ValueError
        if not np.isfinite(numeric.mean) or not np.isfinite(numeric.sd) or numeric.sd <= 0:
            raise ValueError
        return numeric
    if entry["type"] == "category" and set(entry) == {"name", "type", "levels", "kept"}:
        feature = Feature.from_document({key: entry[key] for key in ("name", "type", "levels")})
        category = Category(feature.name, feature.levels, tuple(map(str, entry["kept"])))
        if category.kept != tuple(level for level in category.levels[1:] if level in category.kept):
            raise ValueError
        return category
    raise ValueError


def reference_first(counts: Mapping[str, int], levels: Sequence[str], min_rows: int) -> tuple[str, ...]:
    """Return `levels` with the reference in front: the declared one, or the most frequent where levels are too small.

    Levels below the floor are merged into the reference. Were that the proposer's choice, two jobs over the same rows
    with two references would show the total of the small level as their difference: so it follows from the counts
    alone. Of equally frequent levels it is the one whose name comes first.
    """
    if not any(0 < counts[level] < min_rows for level in levels):
        return tuple(levels)
    first = min(levels, key=lambda level: (-counts[level], level))
    return (first, *(level for level in levels if level != first))


def merge_levels(counts: Mapping[str, int], levels: Sequence[str], min_rows: int) -> tuple[str, ...]:
    """Return the levels that keep a dummy: each, and the reference with what is merged into it, has `min_rows` rows.

    A level below the floor goes to the reference. While the reference (first level and everything merged) is itself
    below the floor, the smallest kept level joins it; of equal ones, the one declared last.
    """
    kept = [level for level in levels[1:] if counts[level] >= min_rows]
    total = sum(counts[level] for level in levels)
    while kept and total - sum(counts[level] for level in kept) < min_rows:
        smallest = min(reversed(kept), key=lambda level: counts[level])
        kept.remove(smallest)
    return tuple(kept)
