"""The job `stability`: how far columns and score have moved between two dates, beside what chance alone would move.

One operation, `stability.counts`: rows by bin at both dates, for the columns of the job or of a model, and its score.
docs/jobs/stability.md has the formulas, what leaves, and what members can read from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.binning import BinningSpec
from federation.learning.bins import ColumnBins, raw_codes
from federation.learning.coding import Category
from federation.learning.columns import MAX_ROWS, check_features, numeric_or_missing
from federation.learning.evaluate import BINS as SCORE_BINS
from federation.learning.evaluate import score_edges
from federation.learning.exact import real, real_arithmetic
from federation.learning.frame import Feature, Frame
from federation.learning.histogram import BINS, SLOTS, bin_index, upper_edge
from federation.learning.model import Model
from federation.learning.options import BinningOptions, edge_lists, only, text, whole
from federation.learning.steps import Steps, Totals, chunks, plain
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field

MIN_STABILITY_ROWS = 200
SCORE = "(score)"
MODERATE, LARGE = 0.1, 0.25  # usual limits of the stability index (Siddiqi)


@dataclass(frozen=True)
class StabilitySpec:
    """The parameters of a `stability` job: columns, or a model whose columns and score are looked at.

    Args:
        features: columns; empty where a model is named.
        model: version of the model, 64 hex digits, or empty.
        bins: bins of equal frequency at the first date for columns without edges, and for the score.
        edges: given edges by numeric column.
        min_rows: floor of every bin at both dates.
    """

    features: tuple[Feature, ...] = ()
    model: str = ""
    bins: int = 10
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    min_rows: int = 30

    def __post_init__(self) -> None:
        if bool(self.features) == bool(self.model):
            raise ChaotianError("BAD_DOCUMENT", "a stability job names either features or a model")
        if self.features:  # the same rules as for a binning
            BinningSpec("(label)", self.features, BinningOptions(edges=self.edges))
        elif self.edges:
            raise ChaotianError("BAD_DOCUMENT", "edges go with features: a model brings its own bins")

    def document(self) -> dict[str, Any]:
        """Return the parameters as a JSON document."""
        return {
            "features": [feature.document() for feature in self.features],
            "model": self.model,
            "bins": self.bins,
            "edges": {name: list(values) for name, values in sorted(self.edges.items())},
        }

    @classmethod
    def from_document(cls, document: Any, *, min_rows: int = 30) -> StabilitySpec:
        """Return the parameters of `document`; `min_rows` comes from the job's floors."""
        document = only(document, {"features", "model", "bins", "edges"}, "a stability job")
        features = document.get("features", [])
        if not isinstance(features, list):
            raise ChaotianError("BAD_DOCUMENT", "features is a list of columns")
        return cls(
            features=tuple(Feature.from_document(feature) for feature in features),
            model=text(document, "model", ""),
            bins=whole(document, "bins", 10, 2, 100),
            edges=edge_lists(document),
            min_rows=min_rows,
        )


@dataclass(frozen=True)
class Shift:
    """How far one column moved.

    Args:
        name: the column, or `(score)`.
        index: stability index Σ (q - p) · ln(q / p) over the bins, p their shares at the first date, q at the second.
        expected: its mean where nothing moved: (bins - 1) · (1/n + 1/m) (chi-squared, Yurdakul and Naranjo 2020).
        noise: what it exceeds by chance in 5 of 100 cases: the 95 % point of the same distribution.
        p: chance of an index at least this large where nothing moved.
        labels, before, after: bins and their rows at both dates; each has `min_rows` rows at both, unless one
            alone is left.
    """

    name: str
    index: float
    expected: float
    noise: float
    p: float
    labels: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """`one bin`, `noise` (not above its noise), or by the usual limits `slight`, `moderate`, `large`."""
        if len(self.before) < 2:
            return "one bin"
        if self.index <= self.noise:
            return "noise"
        return "slight" if self.index < MODERATE else "moderate" if self.index < LARGE else "large"


@dataclass(frozen=True)
class StabilityResult:
    """The shifts of all columns from `before` to `after` pooled rows."""

    before: int
    after: int
    min_rows: int
    shifts: tuple[Shift, ...]

    def document(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "format": "chaotian-stability/1",
            "before": self.before,
            "after": self.after,
            "min_rows": self.min_rows,
            "shifts": [{**plain(asdict(shift)), "verdict": shift.verdict} for shift in self.shifts],
        }


@dataclass(frozen=True)
class _Item:
    """One column or the score: its raw bins in order, missing ones last."""

    name: str
    slots: int
    ordered: bool
    fine: bool  # raw bins are to be joined to bins of equal frequency
    source: Feature | ColumnBins | None
    cuts: tuple[float, ...] = ()  # upper edges of the raw bins of an ordered item, but of the last


class Stability(Steps):
    """One member's side of the job.

    Args:
        spec: the parameters all members agreed to.
        before, after: this member's rows at the two dates; values may be missing where the bins allow.
        model: the model that the job names.
        members: largest roster the totals must hold.

    Raises:
        ChaotianError: MODEL_HASH; DATA_* or NOT_FINITE where the own rows do not fit.
    """

    kind = "stability"
    phases = ("counts",)

    def __init__(
        self, spec: StabilitySpec, before: Frame, after: Frame, *, model: Model | None = None, members: int = 32
    ) -> None:
        super().__init__(spec.document(), spec.min_rows, members)
        if (model.version if model else "") != spec.model:
            raise ChaotianError("MODEL_HASH", "the model at hand is not the one that the job names")
        self.spec, self.model, self._frames = spec, model, (before, after)
        self._items = list(_items(spec, model))
        for frame in self._frames:
            check_features(frame, [item.source for item in self._items if isinstance(item.source, Feature)])
        self._chunk = chunks(len(self._items), 2 * SLOTS, members)
        # The derived state: the pooled counts by item; equal at all members.
        self._counts: dict[str, tuple[list[int], list[int]]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter the next round's vector."""
        names = [item.name for item in self._due if item.name != SCORE]
        if self.model is not None and len(names) < len(self._due):
            return self.model.columns
        return tuple(names)

    def local(self) -> Mapping[str, Contribution]:
        """Return the own counts. They are private: the secure sum masks them."""
        out: dict[str, Contribution] = {}
        for name, frame in zip(("before", "after"), self._frames, strict=True):
            out[name] = np.concatenate([self._own(item, frame) for item in self._due])
        return out

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs."""
        return self._progress(columns=len(self._items))

    @property
    def result(self) -> StabilityResult:
        """The shifts; equal at all members."""
        if not self.done():
            raise ChaotianError("JOB_STATE", "the stability job is not finished")
        first = self._counts[self._items[0].name]
        shifts = tuple(self._shift(item, *self._counts[item.name]) for item in self._items)
        return StabilityResult(sum(first[0]), sum(first[1]), self.spec.min_rows, shifts)

    # --- steps ------------------------------------------------------------------------------------------------

    @property
    def _due(self) -> list[_Item]:
        return self._items[self._round * self._chunk : (self._round + 1) * self._chunk]

    def _fields(self) -> list[Field]:
        slots = sum(item.slots for item in self._due)
        return [Field("before", slots, 0, MAX_ROWS), Field("after", slots, 0, MAX_ROWS)]

    def _own(self, item: _Item, frame: Frame) -> NDArray[np.int64]:
        if item.source is None:
            assert self.model is not None
            codes = np.searchsorted(score_edges(self.model), self.model.score(frame), side="left")
        elif isinstance(item.source, ColumnBins):
            codes = item.source.codes(frame)
            codes = np.where(codes < 0, item.slots - 1, codes)
        elif item.fine:
            values = numeric_or_missing(frame, item.name)
            codes = np.where(np.isnan(values), BINS, bin_index(np.nan_to_num(values)))
        else:
            codes = raw_codes(item.source, self.spec.edges.get(item.name, ()), frame)
        return np.asarray(np.bincount(codes, minlength=item.slots), dtype=np.int64)

    def _take(self, totals: Totals) -> None:
        at, floor = 0, max(MIN_STABILITY_ROWS, self.spec.min_rows)
        found = dict(self._counts)
        for item in self._due:
            before, after = totals["before"][at : at + item.slots], totals["after"][at : at + item.slots]
            at += item.slots
            if min(*before, *after) < 0:
                raise ChaotianError("MALFORMED", f"the pooled counts of {item.name} contradict each other")
            if min(sum(before), sum(after)) < floor:
                raise ChaotianError("MIN_ROWS", f"fewer than {floor} rows in all at one of the two dates")
            found[item.name] = (list(before), list(after))
        self._counts = found
        if len(found) == len(self._items):
            self._phase = "done"

    def _facts(self) -> dict[str, Any]:
        # Most of the thousands of bins are empty: only the others are written.
        return {name: [_sparse(before), _sparse(after)] for name, (before, after) in self._counts.items()}

    def _load(self, facts: Mapping[str, Any]) -> None:
        items = {item.name: item for item in self._items}
        self._counts = {
            str(name): (_dense(pair[0], items[name].slots), _dense(pair[1], items[name].slots))
            for name, pair in facts.items()
        }

    def _shift(self, item: _Item, before: Sequence[int], after: Sequence[int]) -> Shift:
        bins = _joined(item, before, after, self.spec)
        labels, old, new = [b[0] for b in bins], [b[1] for b in bins], [b[2] for b in bins]
        n, m = sum(old), sum(new)
        with real_arithmetic():
            index = gmpy2.mpfr(0)
            for p, q in ((Fraction(a, n), Fraction(b, m)) for a, b in zip(old, new, strict=True) if len(bins) > 1):
                index += real(q - p) * gmpy2.log(real(q / p))
            value = float(index)
        spread = 1.0 / n + 1.0 / m
        noise, p_value = _chance(value / spread, len(bins) - 1)
        expected = (len(bins) - 1) * spread
        return Shift(item.name, value, expected, noise * spread, p_value, tuple(labels), tuple(old), tuple(new))


def _items(spec: StabilitySpec, model: Model | None) -> Sequence[_Item]:
    out: list[_Item] = []
    features, fine = list(spec.features), tuple(upper_edge(place) for place in range(BINS - 1))
    if model is not None:
        for part in model.coding.parts:
            if isinstance(part, ColumnBins):
                absent = part.missing < 0
                out.append(
                    _Item(part.name, len(part.counts) + absent, part.edges is not None, False, part, part.edges or ())
                )
            elif isinstance(part, Category):
                features.append(Feature(part.name, "category", part.levels))
            else:
                features.append(Feature(part.name, "numeric"))
    for feature in features:
        if feature.type == "category":
            out.append(_Item(feature.name, len(feature.levels) + 1, False, False, feature))
        elif feature.name in spec.edges:
            out.append(
                _Item(feature.name, len(spec.edges[feature.name]) + 2, True, False, feature, spec.edges[feature.name])
            )
        else:
            out.append(_Item(feature.name, SLOTS, True, True, feature, fine))
    if model is not None:
        out.append(_Item(SCORE, SCORE_BINS, True, True, None, tuple(score_edges(model).tolist())))
    return out


_Bin = tuple[str, int, int]


def _joined(item: _Item, before: Sequence[int], after: Sequence[int], spec: StabilitySpec) -> list[_Bin]:
    """Return (label, rows before, rows after) of the bins after joining: `min_rows` rows at both dates in each."""
    has_missing = item.source is not None
    labels = _labels(item)
    cells = list(zip(labels, before, after, strict=True))
    values, absent = (cells[:-1], cells[-1]) if has_missing and _missing_last(item) else (cells, None)
    if item.ordered:
        values = _join_ordered(values, spec.bins if item.fine else len(values), spec.min_rows)
    else:
        values = _join_levels(values, spec.min_rows)
    if absent is not None and absent[1] + absent[2]:
        if min(absent[1], absent[2]) >= spec.min_rows:
            values.append(absent)
        else:
            at = max(range(len(values)), key=lambda place: (values[place][1] + values[place][2], -place))
            values[at] = _both(values[at], absent)
    return values


def _missing_last(item: _Item) -> bool:
    """Whether the last raw bin is that of missing values and of nothing else."""
    if isinstance(item.source, ColumnBins):
        values = len(item.source.edges) + 1 if item.source.edges is not None else len(item.source.groups)
        return item.slots > values
    return True


def _labels(item: _Item) -> list[str]:
    """Return what each raw bin holds; of joined ones the last label says where they end."""
    if item.ordered:
        return [*(f"<= {edge:.6g}" for edge in item.cuts), "above", "missing"][: item.slots]
    if isinstance(item.source, ColumnBins):
        return [*item.source.labels, "missing"][: item.slots]
    assert item.source is not None
    return [*item.source.levels, "missing"]


def _join_ordered(cells: Sequence[_Bin], bins: int, min_rows: int) -> list[_Bin]:
    """Join adjacent bins to `bins` of about equal rows at the first date, then further until each has `min_rows`."""
    total, below = sum(cell[1] for cell in cells), 0
    out: list[_Bin] = []
    current: _Bin | None = None
    for place, cell in enumerate(cells):
        current = cell if current is None else (cell[0], current[1] + cell[1], current[2] + cell[2])
        below += cell[1]
        last = place == len(cells) - 1
        full = bins >= len(cells) or below * bins >= (len(out) + 1) * total
        if last or (full and min(current[1], current[2]) >= min_rows):
            out.append(current)
            current = None
    while len(out) > 1 and min(out[-1][1], out[-1][2]) < min_rows:
        end = out.pop()
        out[-1] = (end[0], out[-1][1] + end[1], out[-1][2] + end[2])
    return out


def _join_levels(cells: Sequence[_Bin], min_rows: int) -> list[_Bin]:
    kept = [cell for cell in cells if min(cell[1], cell[2]) >= min_rows]
    rest = [cell for cell in cells if cell not in kept]
    while kept and rest and min(sum(c[1] for c in rest), sum(c[2] for c in rest)) < min_rows:
        if not sum(c[1] + c[2] for c in rest):
            rest = []
            break
        smallest = min(kept, key=lambda cell: (cell[1] + cell[2], cell[0]))
        kept.remove(smallest)
        rest.append(smallest)
    if not rest:
        return kept
    return [*kept, (" or ".join(cell[0] for cell in rest), sum(c[1] for c in rest), sum(c[2] for c in rest))]


def _both(one: _Bin, other: _Bin) -> _Bin:
    return f"{one[0]} or {other[0]}", one[1] + other[1], one[2] + other[2]


def _chance(value: float, freedom: int) -> tuple[float, float]:
    """Return the 95 % point of chi-squared and the chance of exceeding `value`; (0, 1) without a degree of freedom."""
    if freedom < 1:
        return 0.0, 1.0
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, freedom)), float(chi2.sf(value, freedom))


def _sparse(counts: Sequence[int]) -> dict[str, str]:
    return {str(place): str(count) for place, count in enumerate(counts) if count}


def _dense(entries: Mapping[str, str], slots: int) -> list[int]:
    out = [0] * slots
    for place, count in entries.items():
        if int(place) < 0:
            raise ValueError
        out[int(place)] = int(count)
    return out
