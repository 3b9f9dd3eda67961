"""Columns of a frame with their missing values, for jobs that know what to do with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.frame import Feature, Frame

LARGEST = 2.0**60  # of a numeric value, either sign
MAX_ROWS = 1 << 31  # of one member
MISSING, UNKNOWN = -1, -2


def numeric_or_missing(frame: Frame, name: str) -> NDArray[np.float64]:
    """Return a numeric column with NaN where a value is missing.

    Raises:
        ChaotianError: DATA_COLUMN, DATA_TYPE, NOT_FINITE or OVERFLOW, naming the column and no value.
    """
    column = frame.columns.get(name)
    if column is None:
        raise ChaotianError("DATA_COLUMN", f"column {name} is not in the data")
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        raise ChaotianError("DATA_TYPE", f"column {name} is used as numeric but holds other values") from None
    if np.isinf(values).any():
        raise ChaotianError("NOT_FINITE", f"column {name} has an infinite value")
    if (np.abs(values) >= LARGEST).any():  # NaN compares as false
        raise ChaotianError("OVERFLOW", f"column {name} has a value of 2^60 or more")
    return values


def codes_or_missing(frame: Frame, name: str, levels: Sequence[str], *, unknown: bool = False) -> NDArray[np.int64]:
    """Return a category as indices into `levels`, MISSING where there is none.

    Args:
        unknown: return UNKNOWN for a level that is not declared; it is an error otherwise.

    Raises:
        ChaotianError: DATA_COLUMN; DATA_TYPE for an undeclared level, with the number of rows and no value.
    """
    column = frame.columns.get(name)
    if column is None:
        raise ChaotianError("DATA_COLUMN", f"column {name} is not in the data")
    index = {level: place for place, level in enumerate(levels)}
    index[""] = MISSING
    listed = np.asarray(column).tolist()
    out = np.fromiter((_code(value, index) for value in listed), dtype=np.int64, count=len(listed))
    strangers = int((out == UNKNOWN).sum())
    if strangers and not unknown:
        raise ChaotianError(
            "DATA_TYPE",
            f"column {name} has {strangers} rows with a level that the job does not declare",
            hint=f"The job knows these levels: {', '.join(levels[:20])}. Correct the rows or propose more levels.",
        )
    return out


def _code(value: object, index: dict[str, int]) -> int:
    if value is None or value != value:
        return MISSING
    return index.get(value if type(value) is str else str(value), UNKNOWN)


def check_features(frame: Frame, features: Sequence[Feature], *, unknown: bool = False) -> None:
    """Raise what is wrong with the columns of `features`, before anything is agreed on them."""
    if len(frame) >= MAX_ROWS:
        raise ChaotianError("OVERSIZED", f"a member brings fewer than {MAX_ROWS} rows")
    for feature in features:
        if feature.type == "category":
            codes_or_missing(frame, feature.name, feature.levels, unknown=unknown)
        else:
            numeric_or_missing(frame, feature.name)
