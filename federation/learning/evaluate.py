"""The job `evaluate`: how well a given model does on all members' rows, from one summed histogram of its scores.

One operation, `evaluate.scores`: good and bad rows and the sum of probabilities by bins of the score, and the sums
of the Brier score and of the log-loss. Bins are merged until each holds `min_rows` rows; AUC, KS and Gini come as
intervals that contain the exact values. docs/jobs/evaluate.md has the formulas, what leaves, and what members can read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.binning import check_outcomes
from federation.learning.columns import MAX_ROWS
from federation.learning.exact import nearest_float, nearest_root, real, real_arithmetic
from federation.learning.frame import Frame
from federation.learning.holdout import held_out
from federation.learning.metrics import Z95, separation
from federation.learning.model import Model, probability
from federation.learning.options import choice, number, only, text
from federation.learning.steps import Steps, Totals, plain
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field

BINS = 1000
REACH = 8  # the bins between the outer two cover the log-odds this far to both sides of the training rows' own
BITS = 32
MIN_EVALUATION_ROWS = 200
GROUPS = 10
LOSS_BOUND = 1 << 48


@dataclass(frozen=True)
class EvaluateSpec:
    """The parameters of an `evaluate` job.

    Args:
        model: version of the model, 64 hex digits; every member brings the document.
        rows: `all` rows of the dataset, or the `holdout` that the training job kept out.
        holdout, seed: those of the training job, where `rows` is `holdout`.
        min_rows: floor of every bin and of each outcome.
    """

    model: str
    rows: str = "all"
    holdout: float = 0.2
    seed: str = ""
    min_rows: int = 30

    def __post_init__(self) -> None:
        if len(self.model) != 64 or set(self.model) - set("0123456789abcdef"):
            raise ChaotianError("BAD_DOCUMENT", "model is a version of 64 hex digits")

    def document(self) -> dict[str, Any]:
        """Return the parameters as a JSON document."""
        return {"model": self.model, "rows": self.rows, "holdout": self.holdout, "seed": self.seed}

    @classmethod
    def from_document(cls, document: Any, *, min_rows: int = 30) -> EvaluateSpec:
        """Return the parameters of `document`; `min_rows` comes from the job's floors."""
        document = only(document, {"model", "rows", "holdout", "seed"}, "an evaluation")
        return cls(
            model=text(document, "model"),
            rows=choice(document, "rows", "all", ("all", "holdout")),
            holdout=number(document, "holdout", 0.2, 0.0, 0.9),
            seed=text(document, "seed", ""),
            min_rows=min_rows,
        )


@dataclass(frozen=True)
class Interval:
    """A figure: the exact value lies in [low, high]; `estimate` supposes that ties within a bin count half."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """About a tenth of the rows, the riskiest first.

    Args:
        rows, bads: in the group.
        rate, predicted: share of bad, and mean of the model's probabilities: calibration.
        lift: rate over that of all rows.
        gain: share of all bad rows in this group and those before.
    """

    rows: int
    bads: int
    rate: float
    predicted: float
    lift: float
    gain: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model over `rows` rows, `bads` of them bad.

    Args:
        auc, ks, gini: with what the histogram leaves open.
        auc_sampling: 95 % interval of the AUC by the chance of the draw (DeLong on the bins), widened by the former.
        brier, log_loss: means over rows.
        groups: deciles as nearly as the bins allow.
        bins: how many were left after merging.
    """

    model: str
    rows: int
    bads: int
    auc: Interval
    ks: Interval
    gini: Interval
    auc_sampling: tuple[float, float]
    brier: float
    log_loss: float
    groups: tuple[Group, ...]
    bins: int
    min_rows: int

    def document(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return {"format": "chaotian-evaluation/1", **plain(asdict(self))}


class Evaluate(Steps):
    """One member's side of the job.

    Args:
        spec: the parameters all members agreed to.
        model: the model they name; its hash is checked.
        frame: this member's rows, with the model's columns and its label.
        members: largest roster the totals must hold.
        strict: False in the lab only: floors that are missed become `warnings`.

    Raises:
        ChaotianError: MODEL_HASH; DATA_* or NOT_FINITE where the own rows do not fit the model.
    """

    kind = "evaluate"
    phases = ("scores",)

    def __init__(
        self, spec: EvaluateSpec, model: Model, frame: Frame, *, members: int = 32, strict: bool = True
    ) -> None:
        super().__init__(spec.document(), spec.min_rows, members)
        if model.version != spec.model:
            raise ChaotianError("MODEL_HASH", "the model at hand is not the one that the job names")
        self.spec, self.model, self._strict = spec, model, strict
        self.warnings: list[ChaotianError] = []
        if len(frame) >= MAX_ROWS:
            raise ChaotianError("OVERSIZED", f"a member brings fewer than {MAX_ROWS} rows")
        if spec.rows == "holdout":
            frame = frame.take(held_out(frame.ids, spec.seed, spec.holdout))
        self._y = frame.label(model.label)
        self._score = model.score(frame)
        if not np.isfinite(self._score).all():
            raise ChaotianError("NOT_FINITE", "a score is not a finite number: a value lies far outside of training")
        self._edges = score_edges(model)
        # The derived state: the pooled sums; equal at all members.
        self._sums: dict[str, list[int]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter the next round's vector."""
        return (self.model.label, *self.model.columns)

    def local(self) -> Mapping[str, Contribution]:
        """Return the own sums. They are private: the secure sum masks them."""
        code = np.searchsorted(self._edges, self._score, side="left")
        chance, bad = probability(self._score), self._y == 1.0
        loss = np.log1p(np.exp(-np.abs(self._score))) + np.maximum(self._score, 0.0) - self._y * self._score
        return {
            "good": np.bincount(code[~bad], minlength=BINS),
            "bad": np.bincount(code[bad], minlength=BINS),
            "predicted": np.bincount(code, weights=chance, minlength=BINS),
            "brier": [float(((chance - self._y) ** 2).sum())],
            "loss": [float(loss.sum())],
        }

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs."""
        return self._progress(bins=BINS)

    @property
    def result(self) -> Evaluation:
        """The figures; equal at all members."""
        if not self.done():
            raise ChaotianError("JOB_STATE", "the evaluation is not finished")
        return _evaluation(self.spec, self._sums)

    @property
    def own(self) -> dict[str, Any]:
        """The same figures on the own rows alone, exact. They stay at home.

        Returns:
            As `Evaluation.document`; {"rows", "bads", "code"} where one outcome is absent.
        """
        rows, bads = len(self._y), int(self._y.sum())
        try:
            found = separation(self._y, self._score)
        except ChaotianError as error:
            return {"rows": rows, "bads": bads, "code": error.code}
        chance = probability(self._score)
        order = np.argsort(-self._score, kind="stable")
        parts = [part for part in np.array_split(order, GROUPS) if len(part)]
        cells = [(len(p), int(self._y[p].sum()), Fraction(float(chance[p].sum()))) for p in parts]
        return {
            **found.document(),
            "brier": float(((chance - self._y) ** 2).mean()),
            "groups": [asdict(group) for group in _groups(cells, rows, bads)],
        }

    def _fields(self) -> list[Field]:
        return [
            Field("good", BINS, 0, MAX_ROWS),
            Field("bad", BINS, 0, MAX_ROWS),
            Field("predicted", BINS, BITS, MAX_ROWS),
            Field("brier", 1, BITS, MAX_ROWS),
            Field("loss", 1, BITS, LOSS_BOUND),
        ]

    def _take(self, totals: Totals) -> None:
        good, bad = totals["good"], totals["bad"]
        if min(*good, *bad, *totals["predicted"], *totals["brier"], *totals["loss"]) < 0:
            raise ChaotianError("MALFORMED", "the pooled sums contradict each other")
        check_outcomes(sum(good) + sum(bad), sum(bad), self.spec.min_rows, self._refuse, MIN_EVALUATION_ROWS)
        self._sums = {name: list(totals[name]) for name in ("good", "bad", "predicted", "brier", "loss")}
        self._phase = "done"

    def _refuse(self, code: str, detail: str) -> None:
        error = ChaotianError(code, detail)
        if self._strict:
            raise error
        self.warnings.append(error)

    def _facts(self) -> dict[str, Any]:
        return {"sums": {name: [str(value) for value in values] for name, values in self._sums.items()}}

    def _load(self, facts: Mapping[str, Any]) -> None:
        sums = {str(name): [int(value) for value in values] for name, values in facts["sums"].items()}
        if sums and {name: len(values) for name, values in sums.items()} != {f.name: f.length for f in self._fields()}:
            raise ValueError
        self._sums = sums


def score_edges(model: Model) -> NDArray[np.float64]:
    """Return the 999 edges of the score's bins: equal steps around the log-odds of bad in the model's training rows.

    They follow from the model's document alone, whose training counts every member has.
    """
    rows, bads = model.document["training"]["rows"], model.document["training"]["bads"]
    with real_arithmetic():
        centre = float(gmpy2.log(real(Fraction(max(bads, 1), max(rows - bads, 1)))))
    step = 2 * REACH / (BINS - 2)
    return np.array([centre - REACH + step * place for place in range(BINS - 1)])


def merge_bins(cells: Sequence[tuple[int, int, int]], min_rows: int) -> list[tuple[int, int, int]]:
    """Return (good, bad, predicted) of adjacent bins merged upwards until each holds `min_rows` rows."""
    out: list[tuple[int, int, int]] = []
    good = bad = predicted = 0
    for one, two, three in cells:
        good, bad, predicted = good + one, bad + two, predicted + three
        if good + bad >= min_rows:
            out.append((good, bad, predicted))
            good = bad = predicted = 0
    if good + bad or predicted:
        last = out.pop() if out else (0, 0, 0)
        out.append((last[0] + good, last[1] + bad, last[2] + predicted))
    return out


def _evaluation(spec: EvaluateSpec, sums: Mapping[str, Sequence[int]]) -> Evaluation:
    cells = merge_bins(list(zip(sums["good"], sums["bad"], sums["predicted"], strict=True)), spec.min_rows)
    goods, bads = sum(sums["good"]), sum(sums["bad"])
    rows = goods + bads
    auc = _auc(cells, goods, bads)
    gini = Interval(*(_outward(2 * value - 1, side) for value, side in zip(auc, (0, -1, 1), strict=True)))
    area = Interval(*(_outward(value, side) for value, side in zip(auc, (0, -1, 1), strict=True)))
    reach = Z95 * _delong(cells, goods, bads)
    falling = [(good + bad, bad, Fraction(predicted, 1 << BITS)) for good, bad, predicted in reversed(cells)]
    return Evaluation(
        model=spec.model,
        rows=rows,
        bads=bads,
        auc=area,
        ks=_ks(cells, goods, bads),
        gini=gini,
        auc_sampling=(max(0.0, area.low - reach), min(1.0, area.high + reach)),
        brier=nearest_float(Fraction(sums["brier"][0], rows << BITS)),
        log_loss=nearest_float(Fraction(sums["loss"][0], rows << BITS)),
        groups=_groups(_deciles(falling, rows), rows, bads),
        bins=len(cells),
        min_rows=spec.min_rows,
    )


def _auc(cells: Sequence[tuple[int, int, int]], goods: int, bads: int) -> tuple[Fraction, Fraction, Fraction]:
    """Return (estimate, low, high): pairs within a bin count half, not at all, fully."""
    below = sure = tied = 0
    for good, bad, _ in cells:
        sure += bad * below
        tied += bad * good
        below += good
    pairs = goods * bads
    return Fraction(2 * sure + tied, 2 * pairs), Fraction(sure, pairs), Fraction(sure + tied, pairs)


def _ks(cells: Sequence[tuple[int, int, int]], goods: int, bads: int) -> Interval:
    """Return the largest distance at the ends of bins, and the most that could lie within one."""
    good = bad = 0
    low = high = Fraction(0)
    for one, two, _ in cells:
        # Within the bin both distributions rise from the old to the new values, in an order nobody knows.
        high = max(
            high, Fraction(good + one, goods) - Fraction(bad, bads), Fraction(bad + two, bads) - Fraction(good, goods)
        )
        good, bad = good + one, bad + two
        low = max(low, abs(Fraction(good, goods) - Fraction(bad, bads)))
    return Interval(nearest_float(low), _outward(low, -1), _outward(high, 1))


def _delong(cells: Sequence[tuple[int, int, int]], goods: int, bads: int) -> float:
    """Return DeLong's standard error of the AUC of the binned score (ties count half)."""
    below_good = below_bad = 0
    of_bad: list[tuple[int, Fraction]] = []
    of_good: list[tuple[int, Fraction]] = []
    for good, bad, _ in cells:
        of_bad.append((bad, Fraction(2 * below_good + good, 2 * goods)))
        of_good.append((good, 1 - Fraction(2 * below_bad + bad, 2 * bads)))
        below_good, below_bad = below_good + good, below_bad + bad
    return nearest_root(_variance(of_bad, bads) + _variance(of_good, goods))


def _variance(parts: Sequence[tuple[int, Fraction]], count: int) -> Fraction:
    """Return the variance (ddof 1) of weighted values, over their number."""
    if count < 2:
        return Fraction(0)
    mean = sum((weight * value for weight, value in parts), Fraction(0)) / count
    return sum((weight * (value - mean) ** 2 for weight, value in parts), Fraction(0)) / ((count - 1) * count)


def _deciles(falling: Sequence[tuple[int, int, Fraction]], rows: int) -> list[tuple[int, int, Fraction]]:
    """Return at most ten groups of adjacent bins, each ending at the bin nearest to its share of the rows."""
    ends, total = [], 0
    for cell in falling:
        total += cell[0]
        ends.append(total)
    cuts = sorted({min(range(len(ends)), key=lambda at: abs(ends[at] * GROUPS - k * rows)) for k in range(1, GROUPS)})
    out, start = [], 0
    for end in [*cuts, len(falling) - 1]:
        part = falling[start : end + 1]
        start = end + 1
        if part:
            out.append((sum(p[0] for p in part), sum(p[1] for p in part), sum((p[2] for p in part), Fraction(0))))
    return out


def _groups(cells: Sequence[tuple[int, int, Fraction]], rows: int, bads: int) -> tuple[Group, ...]:
    out, seen = [], 0
    for count, bad, predicted in cells:
        seen += bad
        rate = Fraction(bad, count)
        lift = nearest_float(rate * rows / bads)
        group = Group(count, bad, nearest_float(rate), nearest_float(predicted / count), lift, seen / bads)
        out.append(group)
    return tuple(out)


def _outward(value: Fraction, side: int) -> float:
    """Return the nearest float, moved so that it does not lie inside the interval whose end on `side` it is."""
    near = nearest_float(value)
    if side < 0 and Fraction(near) > value:
        return math.nextafter(near, -math.inf)
    return math.nextafter(near, math.inf) if side > 0 and Fraction(near) < value else near
