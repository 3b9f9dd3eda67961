"""Bins of a column: merging until none is too small, monotone merging, weight of evidence, information value.

All of it follows from pooled counts in whole numbers, so every member derives the same bins. A bin of a numeric column
is an interval (edge below, edge above]; a bin of a category is a set of levels; missing values have a bin of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.columns import MISSING, codes_or_missing, numeric_or_missing
from federation.learning.exact import real, real_arithmetic
from federation.learning.frame import Feature, Frame
from federation.learning.options import BinningOptions

Counts = tuple[int, int]  # good and bad rows


@dataclass(frozen=True)
class ColumnBins:
    """How one column falls into bins, and what they weigh.

    Args:
        name: the column.
        edges: of a numeric column, ascending; bin k holds the values with k edges strictly below. None for a category.
        groups: of a category, the levels of each bin; every declared level stands in one.
        missing: the bin of missing values, or -1 where training had none: they then weigh nothing (0).
        counts: (good, bad) pooled rows of every bin.
        weights: weight of evidence of every bin: ln of its share of all bad rows over its share of all good rows.
        information: information value of the column, Σ (share of bad - share of good) · weight.
    """

    name: str
    edges: tuple[float, ...] | None
    groups: tuple[tuple[str, ...], ...]
    missing: int
    counts: tuple[Counts, ...]
    weights: tuple[float, ...]
    information: float

    @property
    def type(self) -> str:
        """`numeric` or `category`."""
        return "category" if self.edges is None else "numeric"

    @property
    def levels(self) -> tuple[str, ...]:
        """All levels of a category."""
        return tuple(level for group in self.groups for level in group)

    @property
    def constant(self) -> bool:
        """Whether all rows are in one bin, so that the column tells nothing."""
        return len(self.counts) < 2

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the coefficients: one, the column's."""
        return (self.name,)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds, in words."""
        out = []
        for place in range(len(self.counts)):
            parts = []
            if self.edges is None and place < len(self.groups):
                parts = [", ".join(self.groups[place])]
            elif self.edges is not None and place <= len(self.edges):
                low = f"> {self.edges[place - 1]:.6g}" if place else ""
                high = f"<= {self.edges[place]:.6g}" if place < len(self.edges) else ""
                parts = [" and ".join(filter(None, (low, high))) or "any value"]
            if place == self.missing:
                parts.append("missing")
            out.append(" or ".join(parts))
        return tuple(out)

    def codes(self, frame: Frame) -> NDArray[np.int64]:
        """Return the bin of every row, -1 for a missing value where training had none.

        Raises:
            ChaotianError: DATA_* or NOT_FINITE; DATA_TYPE for a level that is not declared.
        """
        if self.edges is not None:
            values = numeric_or_missing(frame, self.name)
            found = np.searchsorted(np.array(self.edges), values, side="left")
            return np.where(np.isnan(values), self.missing, found).astype(np.int64)
        place = {level: at for at, group in enumerate(self.groups) for level in group}
        table = np.array([place[level] for level in self.levels] + [self.missing], dtype=np.int64)
        return np.asarray(table[codes_or_missing(frame, self.name, self.levels)], dtype=np.int64)

    def weigh(self, frame: Frame) -> NDArray[np.float64]:
        """Return the weight of evidence of every row."""
        return np.asarray(np.array([*self.weights, 0.0])[self.codes(frame)], dtype=np.float64)

    def document(self) -> dict[str, Any]:
        """Return the bins as JSON, floats in hexadecimal."""
        out: dict[str, Any] = {"name": self.name, "type": "woe", "of": self.type}
        if self.edges is not None:
            out["edges"] = [edge.hex() for edge in self.edges]
        else:
            out["groups"] = [list(group) for group in self.groups]
        out["missing"] = self.missing
        out["counts"] = [list(pair) for pair in self.counts]
        out["weights"] = [weight.hex() for weight in self.weights]
        out["information"] = self.information.hex()
        return out

    @classmethod
    def from_document(cls, entry: Mapping[str, Any]) -> ColumnBins:
        """Return the bins of `document`; one of the usual exceptions where it is something else."""
        numeric = entry["of"] == "numeric"
        keys = {"name", "type", "of", "edges" if numeric else "groups", "missing", "counts", "weights", "information"}
        if set(entry) != keys or entry["of"] not in ("numeric", "category") or type(entry["missing"]) is not int:
            raise ValueError
        counts = tuple((good, bad) for good, bad in entry["counts"])
        edges = tuple(float.fromhex(edge) for edge in entry["edges"]) if numeric else None
        groups = () if numeric else tuple(tuple(map(str, group)) for group in entry["groups"])
        values = len(edges) + 1 if edges is not None else len(groups)
        weights = tuple(float.fromhex(weight) for weight in entry["weights"])
        information = float.fromhex(entry["information"])
        levels = [level for group in groups for level in group]
        if (
            any(type(number) is not int or number < 0 for pair in counts for number in pair)
            or not np.isfinite([*weights, information, *(edges or ())]).all()
            or any(a >= b for a, b in zip(edges or (), (edges or ())[1:], strict=False))
            or not -1 <= entry["missing"] < len(counts)
            or len(weights) != len(counts)
            or len(counts) != values + (entry["missing"] == values)
            or len(set(levels)) != len(levels)
            or (not numeric and not all(groups))
        ):
            raise ValueError
        Feature.from_document({"name": entry["name"], "type": "numeric"})  # the rules for names
        return cls(entry["name"], edges, groups, entry["missing"], counts, weights, information)


def raw_codes(feature: Feature, edges: Sequence[float], frame: Frame) -> NDArray[np.int64]:
    """Return the bin of every row before any merging; missing values are in the last one."""
    if feature.type == "numeric":
        values = numeric_or_missing(frame, feature.name)
        found = np.searchsorted(np.array(edges, dtype=np.float64), values, side="left")
        return np.where(np.isnan(values), len(edges) + 1, found).astype(np.int64)
    codes = codes_or_missing(frame, feature.name, feature.levels)
    return np.where(codes == MISSING, len(feature.levels), codes)


def raw_slots(feature: Feature, edges: Sequence[float]) -> int:
    """Return how many bins a column has before any merging, that of missing values included."""
    return (len(edges) + 1 if feature.type == "numeric" else len(feature.levels)) + 1


def merged(
    feature: Feature, edges: Sequence[float], counts: Sequence[Counts], min_rows: int, options: BinningOptions
) -> ColumnBins:
    """Return the bins of a column after all merging.

    1. Every bin shall hold `min_rows` rows, and good and bad ones. Numeric: the smallest bin that does not joins the
       smaller of its neighbours (of equals, the lower). Category: all that do not form one bin; where that still does
       not, it takes in the smallest of the others.
    2. Numeric and monotone: adjacent bins join until the share of bad strictly rises (or falls).
    3. Missing values: a bin of their own where it holds enough, else they join the largest bin.

    Args:
        counts: (good, bad) by `raw_codes`, missing values last.
    """
    values, absent = list(counts[:-1]), counts[-1]
    if feature.type == "numeric":
        bins = [[place] for place in range(len(values))]
        _merge_small(bins, values, min_rows)
        if options.monotone != "none":
            bins, values = _monotone(bins, values, options.monotone)
        cuts: tuple[float, ...] | None = tuple(edges[group[-1]] for group in bins[:-1])
        groups: tuple[tuple[str, ...], ...] = ()
    else:
        bins, values = _merge_levels(values, feature.levels, min_rows)
        cuts, groups = None, tuple(tuple(feature.levels[place] for place in group) for group in bins)
    missing = -1
    if sum(absent):
        if _holds(absent, min_rows):
            missing = len(values)
            values.append(absent)
        else:
            missing = _largest(bins, values, feature.levels)
            values[missing] = _sum(values[missing], absent)
        if missing == len(bins) == 1 and not _holds(values[0], min_rows):
            values, missing = [_sum(values[0], values[1])], 0  # too few values beside the missing ones
    weights, information = evidence(values, options.smoothing)
    return ColumnBins(feature.name, cuts, groups, missing, tuple(values), weights, information)


def evidence(counts: Sequence[Counts], smoothing: float) -> tuple[tuple[float, ...], float]:
    """Return weights of evidence and information value of bins, in MPFR and rounded once.

    weight_i = ln(((b_i + s) / B) / ((g_i + s) / G)), information = Σ (b_i / B - g_i / G) · weight_i. A bin without good
    or without bad rows and s = 0 (only where all rows are in one bin) weighs 0.

    Raises:
        ChaotianError: ONE_CLASS where there are no good or no bad rows at all.
    """
    goods, bads = sum(good for good, _ in counts), sum(bad for _, bad in counts)
    if not goods or not bads:
        raise ChaotianError("ONE_CLASS")
    extra = Fraction(smoothing)
    weights = []
    with real_arithmetic():
        information = gmpy2.mpfr(0)
        for good, bad in counts:
            if len(counts) == 1 or good + extra == 0 or bad + extra == 0:
                weights.append(0.0)
                continue
            weight = gmpy2.log(real((bad + extra) * goods / ((good + extra) * bads)))
            information += real(Fraction(bad, bads) - Fraction(good, goods)) * weight
            weights.append(float(weight))
        return tuple(weights), float(information)


def _sum(one: Counts, other: Counts) -> Counts:
    return one[0] + other[0], one[1] + other[1]


def _holds(counts: Counts, min_rows: int) -> bool:
    return sum(counts) >= min_rows and min(counts) > 0


def _merge_small(bins: list[list[int]], values: list[Counts], min_rows: int) -> None:
    while len(bins) > 1:
        small = [place for place, pair in enumerate(values) if not _holds(pair, min_rows)]
        if not small:
            return
        place = min(small, key=lambda at: (sum(values[at]), at))
        beside = [at for at in (place - 1, place + 1) if 0 <= at < len(bins)]
        other = min(beside, key=lambda at: (sum(values[at]), at))
        low, high = min(place, other), max(place, other)
        bins[low] += bins.pop(high)
        values[low] = _sum(values[low], values.pop(high))


def _largest(bins: list[list[int]], values: list[Counts], levels: Sequence[str]) -> int:
    """Return the bin with the most rows; of equal ones the lowest, or the one whose first level comes first by name.

    Nothing may depend on the order in which a proposer declares levels: two jobs would differ by a small cell.
    """
    names = [min(levels[place] for place in group) if levels else "" for group in bins]
    return min(range(len(bins)), key=lambda at: (-sum(values[at]), names[at], at))


def _merge_levels(values: list[Counts], levels: Sequence[str], min_rows: int) -> tuple[list[list[int]], list[Counts]]:
    kept = [place for place, pair in enumerate(values) if _holds(pair, min_rows)]
    rest = [place for place in range(len(values)) if place not in kept]
    total = (sum(values[p][0] for p in rest), sum(values[p][1] for p in rest))
    while rest and kept and not _holds(total, min_rows):
        smallest = min(kept, key=lambda place: (sum(values[place]), levels[place]))
        kept.remove(smallest)
        rest.append(smallest)
        total = _sum(total, values[smallest])
    bins = [[place] for place in kept] + ([sorted(rest)] if rest else [])
    return bins, [values[place] for place in kept] + ([total] if rest else [])


def _monotone(bins: list[list[int]], values: list[Counts], direction: str) -> tuple[list[list[int]], list[Counts]]:
    """Pool adjacent violators (Barlow et al. 1972): the least-squares monotone shares of bad."""
    found = []
    for name in ("increasing", "decreasing") if direction == "auto" else (direction,):
        out: list[tuple[list[int], Counts]] = []
        for group, pair in zip(bins, values, strict=True):
            out.append((list(group), pair))
            while len(out) > 1 and not _in_order(out[-2][1], out[-1][1], name):
                last, counts = out.pop()
                out[-1] = (out[-1][0] + last, _sum(out[-1][1], counts))
        found.append(out)
    best = found[0]
    if len(found) == 2 and _information(found[1]) > _information(found[0]):
        best = found[1]
    return [group for group, _ in best], [pair for _, pair in best]


def _in_order(one: Counts, other: Counts, direction: str) -> bool:
    left, right = one[1] * sum(other), other[1] * sum(one)
    return left < right if direction == "increasing" else left > right


def _information(parts: Sequence[tuple[list[int], Counts]]) -> float:
    counts = [pair for _, pair in parts]
    goods, bads = sum(g for g, _ in counts), sum(b for _, b in counts)
    return evidence(counts, 0.0)[1] if goods and bads else 0.0
