"""Parameters of jobs, read strictly: an unknown name, a wrong type or a value out of range is BAD_DOCUMENT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from federation.errors import ChaotianError

MAX_BINS = 100
MAX_TEXT = 120
DIRECTIONS = ("none", "auto", "increasing", "decreasing")


def number(document: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    """Return a finite number of `document` from `low` to `high`."""
    value = document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ChaotianError("BAD_DOCUMENT", f"{key} is a number from {low:g} to {high:g}")
    return float(value)


def whole(document: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    """Return a whole number of `document` from `low` to `high`."""
    value = number(document, key, default, low, high)
    if value != int(value):
        raise ChaotianError("BAD_DOCUMENT", f"{key} is a whole number")
    return int(value)


def text(document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return a text of 1 to 120 characters; without a default it must be there."""
    value = document.get(key, default)
    if not isinstance(value, str) or len(value) > MAX_TEXT or (default is None and not value):
        raise ChaotianError("BAD_DOCUMENT", f"{key} is a text of at most {MAX_TEXT} characters")
    return value


def choice(document: Mapping[str, Any], key: str, default: str, choices: tuple[str, ...]) -> str:
    """Return one of `choices`."""
    value = document.get(key, default)
    if value not in choices:
        raise ChaotianError("BAD_DOCUMENT", f"{key} is one of: {', '.join(filter(None, choices))}")
    return str(value)


def only(document: Any, known: set[str], what: str) -> Mapping[str, Any]:
    """Return `document` if it is a table with no keys but the known ones."""
    if not isinstance(document, Mapping):
        raise ChaotianError("BAD_DOCUMENT", f"the parameters of {what} are a table")
    unknown = sorted(str(key) for key in set(document) - known)
    if unknown:
        raise ChaotianError("BAD_DOCUMENT", f"{what} has no parameter {unknown[0][:MAX_TEXT]}")
    return document


def edge_lists(document: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return `edges`: by column, ascending finite numbers; code = number of edges strictly below the value."""
    given = document.get("edges", {})
    if not isinstance(given, Mapping):
        raise ChaotianError("BAD_DOCUMENT", "edges is a table: column = [ascending numbers]")
    out = {}
    for name, values in given.items():
        if not isinstance(name, str) or not isinstance(values, list | tuple) or len(values) > MAX_BINS - 1:
            raise ChaotianError("BAD_DOCUMENT", f"edges of a column are a list of at most {MAX_BINS - 1} numbers")
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in values):
            raise ChaotianError("BAD_DOCUMENT", f"edges of {name[:MAX_TEXT]} are finite numbers")
        edges = tuple(float(value) for value in values)
        if any(a >= b for a, b in pairwise(edges)):
            raise ChaotianError("BAD_DOCUMENT", f"edges of {name[:MAX_TEXT]} ascend, each given once")
        out[name] = edges
    return out


@dataclass(frozen=True)
class BinningOptions:
    """How columns are cut into bins.

    Args:
        bins: at most so many bins for a numeric column without given edges, the missing ones not counted.
        edges: given edges by column.
        monotone: whether the share of bad must rise or fall along a numeric column; `auto`: whichever keeps the larger
            information value.
        smoothing: added to the good and the bad rows of every bin within the weight of evidence; 0 or more.
    """

    bins: int = 10
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    monotone: str = "none"
    smoothing: float = 0.0

    KEYS = ("bins", "edges", "monotone", "smoothing")

    def document(self) -> dict[str, Any]:
        """Return the options as JSON."""
        edges = {name: list(values) for name, values in sorted(self.edges.items())}
        return {"bins": self.bins, "edges": edges, "monotone": self.monotone, "smoothing": self.smoothing}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BinningOptions:
        """Return the options that stand in `document`, which may hold other keys too."""
        return cls(
            bins=whole(document, "bins", 10, 2, MAX_BINS),
            edges=edge_lists(document),
            monotone=choice(document, "monotone", "none", DIRECTIONS),
            smoothing=number(document, "smoothing", 0.0, 0.0, 100.0),
        )


@dataclass(frozen=True)
class PointsScale:
    """How log-odds become points: `base` points stand for `odds` good rows to one bad, `double` points double them."""

    base: float = 600.0
    odds: float = 50.0
    double: float = 20.0

    KEYS = ("base_score", "base_odds", "pdo")

    def document(self) -> dict[str, float]:
        """Return the scale as JSON."""
        return {"base_score": self.base, "base_odds": self.odds, "pdo": self.double}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PointsScale:
        """Return the scale that stands in `document`, which may hold other keys too."""
        return cls(
            base=number(document, "base_score", 600.0, -1e6, 1e6),
            odds=number(document, "base_odds", 50.0, 1e-6, 1e6),
            double=number(document, "pdo", 20.0, 1e-3, 1e5),
        )
