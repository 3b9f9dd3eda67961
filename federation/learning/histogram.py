"""The log-linear histogram that ranges, quantiles and common edges come from: no exact minimum or maximum leaves.

Two signs × 128 powers of two × 16 equal parts, zero, and missing: 4,098 counts a column. Every bin is an interval, open
below and closed above, as are the bins cut from it: a value on an edge lies below the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXPONENTS = 128
PARTS = 16
LOWEST = -64  # the parts of the first power of two begin at 2^-64
SIDE = EXPONENTS * PARTS
ZERO = SIDE
BINS = 2 * SIDE + 1
SLOTS = BINS + 1  # the last one counts missing values


def bin_index(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin (0 to BINS - 1, ascending with the value) of finite values below 2^64 in magnitude.

    The bin of zero also takes values from -2^-64 (excluded) to 0, the first one above it all up to 2^-64 · 17/16.
    """
    mantissa, exponent = np.frexp(np.abs(values))
    octave = (exponent.astype(np.int64) - 1 - LOWEST) * PARTS
    part = (mantissa * 2.0 - 1.0) * PARTS  # exact: 0 <= part < 16
    above = ZERO + 1 + np.maximum(octave + np.ceil(part).astype(np.int64) - 1, 0)
    below = ZERO - 1 - np.maximum(octave + np.floor(part).astype(np.int64), -1)
    return np.asarray(np.where(values > 0, above, np.where(values < 0, below, ZERO)), dtype=np.int64)


def histogram(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the `SLOTS` counts of a column, NaN counted as missing; all else must be finite and below 2^64."""
    present = values[~np.isnan(values)]
    counts = np.bincount(bin_index(present), minlength=SLOTS)
    counts[-1] = len(values) - len(present)
    return np.asarray(counts, dtype=np.int64)


def upper_edge(index: int) -> float:
    """Return the largest value of bin `index`; -2^64 for -1, which is below all bins."""
    if index == ZERO:
        return 0.0
    step = index - ZERO if index > ZERO else ZERO - 1 - index
    octave, part = divmod(step, PARTS)
    size = float(np.ldexp(1.0 + part / PARTS, octave + LOWEST))
    return size if index > ZERO else -size


@dataclass(frozen=True)
class Quantile:
    """A quantile as far as the histogram tells: it lies in (low, high], and `estimate` supposes an even spread."""

    share: float
    low: float
    high: float
    estimate: float


def quantile(counts: Sequence[int], share: float) -> Quantile:
    """Return the quantile of `share` (0 to 1) of the values that are present; there must be one.

    Args:
        counts: BINS or SLOTS summed counts; missing ones are left out.
    """
    present = np.asarray(counts[:BINS], dtype=np.int64)
    below = np.cumsum(present)
    rank = share * float(below[-1])
    index = int(np.searchsorted(below, max(rank, 0.5), side="left"))
    index = min(index, int(np.flatnonzero(present)[-1]))
    before = float(below[index] - present[index])
    low, high = upper_edge(index - 1), upper_edge(index)
    inside = min(1.0, max(0.0, (rank - before) / float(present[index])))
    return Quantile(share, low, high, low + (high - low) * inside)


def guarded_range(counts: Sequence[int], floor: int) -> tuple[float, float] | None:
    """Return the interval (low, high] outside of which lie fewer than `floor` rows at either end.

    Neither end is drawn by fewer than `floor` rows. None where no more rows than that are present.
    """
    present = np.asarray(counts[:BINS], dtype=np.int64)
    if int(present.sum()) < floor:
        return None
    low = int(np.searchsorted(np.cumsum(present), floor, side="left"))
    high = BINS - 1 - int(np.searchsorted(np.cumsum(present[::-1]), floor, side="left"))
    low, high = min(low, high), max(low, high)
    return upper_edge(low - 1), upper_edge(high)


def equal_frequency_edges(counts: Sequence[int], bins: int) -> tuple[float, ...]:
    """Return at most `bins` - 1 ascending edges that cut the values into parts as equal as the histogram allows.

    For every k the edge is the one with a cumulative count nearest to k/bins of the rows, the lower one of equals.
    Edges with no row below or none above are left out.
    """
    present = [int(count) for count in counts[:BINS]]
    total = sum(present)
    occupied = [(index, count) for index, count in enumerate(present) if count]
    if total == 0 or len(occupied) < 2:
        return ()
    ends: list[tuple[int, int]] = []  # (rows at or below, bin), without the last: nothing lies above it
    below = 0
    for index, count in occupied[:-1]:
        below += count
        ends.append((below, index))
    chosen: set[int] = set()
    for k in range(1, bins):
        chosen.add(min(ends, key=lambda end: (abs(end[0] * bins - k * total), end[0]))[1])
    return tuple(upper_edge(index) for index in sorted(chosen))
