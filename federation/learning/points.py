"""Points and reasons: log-odds as points on a bank's scale, and which columns cost a row most of them.

points = offset - factor · log-odds of bad, factor = pdo / ln 2, offset = base_score - factor · ln(base_odds): so
base_score stands for base_odds good rows to one bad, and pdo points more double them (Siddiqi, *Credit Risk
Scorecards*).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins
from federation.learning.coding import Numeric, Part
from federation.learning.exact import real, real_arithmetic
from federation.learning.frame import Frame
from federation.learning.model import Model, probability
from federation.learning.options import PointsScale

MOST_REASONS = 4
MISSING_LABEL = "missing"  # of a missing value where training had none
BLOCK = 1 << 14  # rows at a time: the losses of 500 columns are then 64 MiB


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


@dataclass(frozen=True)
class Scores:
    """What a model says of every row of a frame.

    Args:
        log_odds: of being bad (rows).
        points: whole points of the card (rows); None where the model has none.
        columns: columns of the model; `reasons` counts them from 0.
        labels: by column, what its bins hold in words; `bins` counts them from 0.
        reasons: the column that cost the row most, then the next (rows × most); -1 where there is none.
        lost: points it cost (rows × most); 0 where there is none.
        bins: where the row fell in it (rows × most).
    """

    log_odds: NDArray[np.float64]
    points: NDArray[np.float64] | None
    columns: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    reasons: NDArray[np.int64]
    lost: NDArray[np.float64]
    bins: NDArray[np.int64]

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of being bad (rows)."""
        return probability(self.log_odds)

    def __repr__(self) -> str:
        return f"Scores({len(self.log_odds)} rows)"


class Scorer:
    """A model made ready to score many rows: its document is read once.

    Args:
        model: a scorecard.

    Raises:
        ChaotianError: BAD_DOCUMENT where the card's points do not fit its bins.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.parts = model.coding.parts
        self.columns = tuple(part.name for part in self.parts)
        self.labels = tuple(_labels(part) for part in self.parts)
        self._beta = np.array([line.value for line in model.coefficients])
        self._factor, _ = scale_constants(scale_of(model))
        self._tables = _point_tables(model, self.parts)

    def score(
        self, frame: Frame, most: int = MOST_REASONS, *, progress: Callable[[float], None] = lambda _share: None
    ) -> Scores:
        """Return log-odds, points and up to `most` reasons of every row; the log-odds are those of `Model.score`.

        Args:
            progress: told the share that is done, from 0 to 1.

        Raises:
            ChaotianError: DATA_* or NOT_FINITE where a column does not fit; USAGE for a number of reasons out of range.
        """
        if not 0 <= most <= MOST_REASONS:
            raise ChaotianError("USAGE", f"a row has at most {MOST_REASONS} reasons")
        most = min(most, len(self.parts))
        blocks = []
        for at in range(0, max(len(frame), 1), BLOCK):
            progress(at / max(len(frame), 1))
            blocks.append(self._block(_rows(frame, at), most))
        log_odds, points, reasons, lost, bins = zip(*blocks, strict=True)
        return Scores(
            log_odds=np.concatenate(log_odds),
            points=np.concatenate(points) if self._tables is not None else None,
            columns=self.columns,
            labels=self.labels,
            reasons=np.concatenate(reasons),
            lost=np.concatenate(lost),
            bins=np.concatenate(bins),
        )

    def losses(self, frame: Frame) -> NDArray[np.float64]:
        """Return for every row what each column costs in points against the best (rows × columns).

        Best is the bin (or level) with the most points; for a z-scored column, which has no bins, the pooled mean: what
        lies on its good side costs nothing.
        """
        return self._losses([_encode(part, frame) for part in self.parts], len(frame))

    def _block(self, frame: Frame, most: int) -> tuple[NDArray[Any], ...]:
        encoded = [_encode(part, frame) for part in self.parts]
        design: list[NDArray[np.float64]] = [np.ones(len(frame))]
        points = np.zeros(len(frame))
        for k, (part, codes) in enumerate(zip(self.parts, encoded, strict=True)):
            if isinstance(part, Numeric):
                design.append(codes)
            elif isinstance(part, ColumnBins):
                design.append(np.array([*part.weights, 0.0])[codes])
            else:
                design.extend((codes == part.levels.index(level)).astype(np.float64) for level in part.kept)
            if self._tables is not None:
                points += self._tables[k][codes]
        log_odds = (np.column_stack(design) * self._beta).sum(axis=1)  # as Model.score, so that no bit differs
        reasons = np.full((len(frame), most), -1, dtype=np.int64)
        lost, bins = np.zeros((len(frame), most)), np.zeros((len(frame), most), dtype=np.int64)
        if most:
            left = self._losses(encoded, len(frame))
            fell = np.column_stack([_place(part, codes) for part, codes in zip(self.parts, encoded, strict=True)])
            rows = np.arange(len(frame))
            for rank in range(most):
                column = left.argmax(axis=1)  # of equal losses the first: the column named first in the model
                value = left[rows, column]
                counts = value > 0
                reasons[:, rank] = np.where(counts, column, -1)
                lost[:, rank] = np.where(counts, value, 0.0)
                bins[:, rank] = np.where(counts, fell[rows, column], 0)
                left[rows, column] = -1.0
        return log_odds, points, reasons, lost, bins

    def _losses(self, encoded: Sequence[NDArray[Any]], rows: int) -> NDArray[np.float64]:
        out, at = np.zeros((rows, len(self.parts))), 1
        for k, (part, codes) in enumerate(zip(self.parts, encoded, strict=True)):
            own = self._beta[at : at + len(part.coefficients)]
            at += len(own)
            if isinstance(part, Numeric):
                out[:, k] = np.maximum(own[0] * codes, 0.0)
            elif isinstance(part, ColumnBins):
                added = own[0] * np.array([*part.weights, 0.0])
                out[:, k] = np.maximum(added[codes] - added[: len(part.weights)].min(), 0.0)
            else:
                added = np.array([own[part.kept.index(level)] if level in part.kept else 0.0 for level in part.levels])
                out[:, k] = added[codes] - added.min()
        return np.asarray(out * self._factor, dtype=np.float64)


def score_points(model: Model, frame: Frame) -> NDArray[np.float64]:
    """Return the points of every row: whole sums of the card where the model has one, else offset - factor · log-odds.

    Raises:
        ChaotianError: DATA_* or NOT_FINITE where a column does not fit.
    """
    scores = Scorer(model).score(frame, 0)
    if scores.points is not None:
        return scores.points
    factor, offset = scale_constants(scale_of(model))
    return np.asarray(offset - factor * scores.log_odds, dtype=np.float64)


def losses(model: Model, frame: Frame) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the columns of a model and `Scorer.losses`."""
    return model.columns, Scorer(model).losses(frame)


def reasons(model: Model, frame: Frame, most: int = MOST_REASONS) -> list[list[Reason]]:
    """Return up to `most` reasons for every row: the largest losses of points, largest first, none of zero.

    Of equal losses the column named first in the model comes first.

    Raises:
        ChaotianError: DATA_* or NOT_FINITE where a column does not fit.
    """
    found = Scorer(model).score(frame, most)
    return [
        [
            Reason(found.columns[k], lost, found.labels[k][place])
            for k, lost, place in zip(columns, points, places, strict=True)
            if k >= 0
        ]
        for columns, points, places in zip(
            found.reasons.tolist(), found.lost.tolist(), found.bins.tolist(), strict=True
        )
    ]


def _rows(frame: Frame, start: int) -> Frame:
    cut = slice(start, start + BLOCK)
    return Frame(frame.ids[cut], {name: column[cut] for name, column in frame.columns.items()})


def _encode(part: Part, frame: Frame) -> NDArray[Any]:
    """Return the z-scores of a numeric column, or the bin or level of every row."""
    if isinstance(part, Numeric):
        return part.standardise(frame)
    return part.codes(frame) if isinstance(part, ColumnBins) else frame.category(part.name, part.levels)


def _labels(part: Part) -> tuple[str, ...]:
    if isinstance(part, ColumnBins):
        return (*part.labels, MISSING_LABEL)
    return ("below the mean", "above the mean") if isinstance(part, Numeric) else part.levels


def _place(part: Part, codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each row stands among `_labels`."""
    if isinstance(part, Numeric):
        return (codes > 0).astype(np.int64)
    return np.where(codes < 0, len(part.labels), codes) if isinstance(part, ColumnBins) else codes


def _point_tables(model: Model, parts: Sequence[Part]) -> list[NDArray[np.float64]] | None:
    """Return the points of the bins of every column, those of a missing value without a bin last."""
    card = model.document.get("points")
    if card is None:
        return None
    try:
        tables = [np.array([*(line["points"] for line in e["bins"]), e.get("missing", 0)]) for e in card["columns"]]
        fits = all(
            isinstance(part, ColumnBins) and len(table) == len(part.weights) + 1
            for part, table in zip(parts, tables, strict=True)
        )
        if not fits:
            raise ValueError
        return [table.astype(np.float64) for table in tables]
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise ChaotianError("BAD_DOCUMENT", "the points of the card do not fit the bins of its columns") from None
