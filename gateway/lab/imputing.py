"""Means of columns with missing values, by secure sum, and rows completed with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.exact import exact_sum, nearest_float
from federation.learning.frame import Frame
from federation.learning.scorecard import LARGEST, MAX_ROWS, MOMENT_BITS, SUM_SHIFT
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field, Layout


class ColumnMeans:
    """A program of one round: the mean of every numeric column over the values that are there.

    Args:
        columns: names.
        frame: this member's training rows; NaN where a value is missing.
        members: largest roster the totals must hold.
    """

    operation = "lab.means"

    def __init__(self, columns: Sequence[str], frame: Frame, *, members: int) -> None:
        self.columns = tuple(columns)
        self._frame, self._members = frame, members
        self.means: dict[str, float] = {}

    def layout(self) -> Layout:
        """Return counts of values, and their sums with 96 fractional bits."""
        count = len(self.columns)
        sums = Field("sums", count, MOMENT_BITS, int(LARGEST) * MAX_ROWS << SUM_SHIFT)
        return Layout(64, (Field("present", count, 0, MAX_ROWS), sums), self._members)

    def state(self) -> bytes:
        """Return the means found."""
        return canonical_json({name: value.hex() for name, value in self.means.items()})

    def restore(self, state: bytes) -> None:
        """Take up a state of `state()`."""
        self.means = {name: float.fromhex(value) for name, value in parse_canonical_json(state).items()}

    def done(self) -> bool:
        """Whether the means are there."""
        return bool(self.means)

    def local(self) -> Mapping[str, Contribution]:
        """Return own counts and sums."""
        present, sums = [], []
        for name in self.columns:
            values = _values(self._frame, name)
            present.append(len(values))
            sums.append(exact_sum(values) * (1 << SUM_SHIFT))
        return {"present": present, "sums": sums}

    def advance(self, totals: Mapping[str, list[int]]) -> None:
        """Derive the means; DATA_MISSING where no member has a value of a column."""
        means = {}
        for name, count, total in zip(self.columns, totals["present"], totals["sums"], strict=True):
            if count < 1:
                raise ChaotianError(
                    "DATA_MISSING", f"column {name} has no value in any training row", hint="Use --drop."
                )
            means[name] = nearest_float(Fraction(total, count << (SUM_SHIFT + MOMENT_BITS)))
        self.means = means

    def floors(self) -> bytes:
        """Return nothing: nobody is lost in the lab."""
        return b""

    def check_floors(self, floors: Mapping[str, bytes]) -> None:
        """Accept, as nobody is lost in the lab."""


def filled(frame: Frame, means: Mapping[str, float]) -> Frame:
    """Return `frame` with the missing values of the columns of `means` replaced by them."""
    columns = dict(frame.columns)
    for name, mean in means.items():
        values = np.asarray(columns[name], dtype=np.float64)
        columns[name] = np.where(np.isnan(values), mean, values)
    return replace(frame, columns=columns)


def own_means(frame: Frame, columns: Sequence[str]) -> dict[str, float]:
    """Return the means of one member's own rows, what it would impute by itself; 0 where it has no value at all."""
    out = {}
    for name in columns:
        values = _values(frame, name)
        out[name] = float(values.mean()) if len(values) else 0.0
    return out


def _values(frame: Frame, name: str) -> NDArray[np.float64]:
    values = np.asarray(frame.columns[name], dtype=np.float64)
    values = values[~np.isnan(values)]
    if (np.abs(values) >= LARGEST).any():
        raise ChaotianError("OVERFLOW", f"column {name} has a value of 2^60 or more")
    return values
