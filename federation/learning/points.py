"""Points and reasons: log-odds as points on a bank's scale, and which columns cost a row most of them.

points = offset - factor · log-odds of bad, factor = pdo / ln 2, offset = base_score - factor · ln(base_odds): so
base_score stands for base_odds good rows to one bad, and pdo points more double them (Siddiqi, *Credit Risk
Scorecards*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins
from federation.learning.coding import Category, Numeric
from federation.learning.exact import real, real_arithmetic
from federation.learning.frame import Frame
from federation.learning.model import Model
from federation.learning.options import PointsScale

MOST_REASONS = 4


@dataclass(frozen=True)
class Reason:
    """One reason for a low score: `points` lost in `column` against its best bin; `bin` says where the row fell."""

    column: str
    points: float
    bin: str


def scale_constants(scale: PointsScale) -> tuple[float, float]:
    """Return (factor, offset) of a scale, computed in MPFR and rounded once."""
    with real_arithmetic():
        factor = real(Fraction(scale.double)) / gmpy2.log(gmpy2.mpfr(2))
        offset = real(Fraction(scale.base)) - factor * gmpy2.log(real(Fraction(scale.odds)))
        return float(factor), float(offset)


def card_points(columns: Sequence[ColumnBins], beta: Sequence[float], scale: PointsScale) -> dict[str, Any]:
    """Return the points of every bin as JSON; intercept and offset are shared out equally over the columns.

    Args:
        columns: of the scorecard, in the order of the coefficients.
        beta: coefficients, the intercept first.

    Returns:
        {base_score, base_odds, pdo, factor, offset, columns: [{name, bins: [{label, points, exact}], missing}]};
        `points` are whole (half to even), `missing` those of a missing value where training had none.
    """
    factor, offset = scale_constants(scale)
    with real_arithmetic():
        slope = real(factor)
        share = (real(offset) - slope * real(beta[0])) / len(columns)

        def points(weight: float, coefficient: float) -> Any:
            return share - slope * real(coefficient) * real(weight)

        table = []
        for column, coefficient in zip(columns, beta[1:], strict=True):
            bins = []
            for label, weight in zip(column.labels, column.weights, strict=True):
                exact = points(weight, coefficient)
                bins.append({"label": label, "points": int(gmpy2.rint(exact)), "exact": repr(float(exact))})
            entry: dict[str, Any] = {"name": column.name, "bins": bins}
            if column.missing < 0:
                entry["missing"] = int(gmpy2.rint(share))
            table.append(entry)
    return {**scale.document(), "factor": repr(factor), "offset": repr(offset), "columns": table}


def scale_of(model: Model) -> PointsScale:
    """Return the scale of a model's points; the usual one for a model without points of its own."""
    points = model.document.get("points")
    return PointsScale() if points is None else PointsScale.from_document(points)


def score_points(model: Model, frame: Frame) -> NDArray[np.float64]:
    """Return the points of every row: whole sums of the card where the model has one, else offset - factor · log-odds.

    Raises:
        ChaotianError: DATA_* or NOT_FINITE where a column does not fit.
    """
    card = model.document.get("points")
    if card is None:
        factor, offset = scale_constants(scale_of(model))
        return np.asarray(offset - factor * model.score(frame), dtype=np.float64)
    total = np.zeros(len(frame))
    for part, entry in zip(model.coding.parts, card["columns"], strict=True):
        if not isinstance(part, ColumnBins):
            raise ChaotianError("BAD_DOCUMENT", "only a scorecard on weights of evidence has points for its bins")
        table = np.array([*(line["points"] for line in entry["bins"]), entry.get("missing", 0)], dtype=np.float64)
        total += table[part.codes(frame)]
    return total


def losses(model: Model, frame: Frame) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the columns of a model, and for every row what each costs in points against the best (rows × columns).

    Best is the bin (or level) with the most points; for a z-scored column, which has no bins, the pooled mean: what
    lies on its good side costs nothing.
    """
    factor, _ = scale_constants(scale_of(model))
    beta, at = [line.value for line in model.coefficients], 1
    out = []
    for part in model.coding.parts:
        own = beta[at : at + len(part.coefficients)]
        at += len(own)
        if isinstance(part, Numeric):
            lost = np.maximum(own[0] * part.standardise(frame), 0.0)
        elif isinstance(part, ColumnBins):
            added = own[0] * np.array([*part.weights, 0.0])
            lost = added[part.codes(frame)] - added[: len(part.weights)].min()
            lost = np.maximum(lost, 0.0)
        else:
            by_level = np.array([own[part.kept.index(level)] if level in part.kept else 0.0 for level in part.levels])
            lost = by_level[frame.category(part.name, part.levels)] - by_level.min()
        out.append(lost * factor)
    return model.columns, np.column_stack(out) if out else np.zeros((len(frame), 0))


def reasons(model: Model, frame: Frame, most: int = MOST_REASONS) -> list[list[Reason]]:
    """Return up to `most` reasons for every row: the largest losses of points, largest first, none of zero.

    Of equal losses the column named first in the model comes first.

    Raises:
        ChaotianError: DATA_* or NOT_FINITE where a column does not fit.
    """
    names, lost = losses(model, frame)
    labels = [_where(part, frame) for part in model.coding.parts]
    order = np.argsort(-lost, axis=1, kind="stable")[:, :most]
    return [
        [Reason(names[k], float(lost[row, k]), labels[k][row]) for k in order[row].tolist() if lost[row, k] > 0]
        for row in range(len(frame))
    ]


def _where(part: Any, frame: Frame) -> list[str]:
    if isinstance(part, ColumnBins):
        texts = [*part.labels, "missing"]
        return [texts[code] for code in part.codes(frame).tolist()]
    if isinstance(part, Category):
        return [part.levels[code] for code in frame.category(part.name, part.levels).tolist()]
    return ["above the mean" if z > 0 else "below the mean" for z in part.standardise(frame).tolist()]
