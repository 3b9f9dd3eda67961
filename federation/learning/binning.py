"""The job `binning`: common bins of all members' columns, their weight of evidence and information value.

`binning.histogram` sums log-linear histograms of the numeric columns that have no given edges; equal-frequency edges
follow. `binning.counts` sums good and bad rows of every bin; merging, weights and information values follow.
docs/jobs/binning.md has the formulas, what leaves, and what members can read from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins, merged, raw_codes, raw_slots
from federation.learning.columns import MAX_ROWS, check_features, numeric_or_missing
from federation.learning.frame import MAX_FEATURES, Feature, Frame
from federation.learning.histogram import SLOTS, equal_frequency_edges, histogram
from federation.learning.holdout import held_out
from federation.learning.options import BinningOptions, number, only, text
from federation.learning.steps import Steps, Totals, chunks
from federation.primitives.encoding import canonical_json
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field

FORMAT = "chaotian-binning/1"
MIN_BINNING_ROWS = 200


@dataclass(frozen=True)
class BinningSpec:
    """The parameters of a `binning` job, as every member agreed to them.

    Args:
        label: column of the outcome, 1 = bad.
        features: columns to bin.
        options: how.
        holdout, seed: rows kept out, as in a scorecard, so that bins and scorecard may rest on the same rows.
        min_rows: floor of every bin.
    """

    label: str
    features: tuple[Feature, ...]
    options: BinningOptions = field(default_factory=BinningOptions)
    holdout: float = 0.0
    seed: str = ""
    min_rows: int = 30

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names or len(names) > MAX_FEATURES or len(set(names)) != len(names):
            raise ChaotianError("BAD_DOCUMENT", f"a job has 1 to {MAX_FEATURES} features, each named once")
        if not self.label or self.label in names:
            raise ChaotianError("BAD_DOCUMENT", "the label is a column of its own, not one of the features")
        numeric = {feature.name for feature in self.features if feature.type == "numeric"}
        strangers = sorted(set(self.options.edges) - numeric)
        if strangers:
            raise ChaotianError("BAD_DOCUMENT", f"edges are given for {strangers[0]}, which is no numeric feature")

    @property
    def columns(self) -> tuple[str, ...]:
        """Label and features: the columns of the dataset that the job reads."""
        return (self.label, *(feature.name for feature in self.features))

    def document(self) -> dict[str, Any]:
        """Return the parameters as a JSON document, defaults included."""
        return {
            "label": self.label,
            "features": [feature.document() for feature in self.features],
            "holdout": self.holdout,
            "seed": self.seed,
            **self.options.document(),
        }

    @classmethod
    def from_document(cls, document: Any, *, min_rows: int = 30) -> BinningSpec:
        """Return the parameters of `document`; `min_rows` comes from the job's floors, never from its parameters."""
        document = only(document, {"label", "features", "holdout", "seed", *BinningOptions.KEYS}, "a binning")
        if not isinstance(document.get("features"), list):
            raise ChaotianError("BAD_DOCUMENT", "features is a list of columns")
        return cls(
            label=text(document, "label"),
            features=tuple(Feature.from_document(feature) for feature in document["features"]),
            options=BinningOptions.from_document(document),
            holdout=number(document, "holdout", 0.0, 0.0, 0.9),
            seed=text(document, "seed", ""),
            min_rows=min_rows,
        )


@dataclass(frozen=True)
class BinningResult:
    """Bins of all columns over `rows` pooled rows, `bads` of them bad."""

    spec: BinningSpec
    rows: int
    bads: int
    columns: tuple[ColumnBins, ...]

    def column(self, name: str) -> ColumnBins:
        """Return the bins of one column; NOT_FOUND where it was not binned."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ChaotianError("NOT_FOUND", f"column {name} was not binned")

    @property
    def edges(self) -> dict[str, list[float]]:
        """The edges of all numeric columns after merging: what the parameter `edges` of a later job takes."""
        return {column.name: list(column.edges) for column in self.columns if column.edges is not None}

    def document(self, job: str = "") -> dict[str, Any]:
        """Return the result as JSON; `version` is a hash of all the rest."""
        body = {
            "format": FORMAT,
            "job": job,
            "label": self.spec.label,
            "options": self.spec.options.document(),
            "training": {
                "rows": self.rows,
                "bads": self.bads,
                "min_rows": self.spec.min_rows,
                "holdout": self.spec.holdout,
            },
            "columns": [
                {
                    **column.document(),
                    "labels": list(column.labels),
                    "weights_decimal": [repr(weight) for weight in column.weights],
                    "information_decimal": repr(column.information),
                    "constant": column.constant,
                }
                for column in self.columns
            ],
        }
        version = hashlib.sha256(b"chaotian/binning/v1\x00" + canonical_json(body)).hexdigest()
        return {**body, "version": version}


class Binning(Steps):
    """One member's side of the job: its own rows, and the state that all members derive alike.

    Args:
        spec: the parameters all members agreed to.
        frame: this member's rows; `spec.columns` are read; features may miss values, the label may not.
        members: largest roster the totals must hold.
        strict: False in the lab only, where all rows are one's own: floors that are missed become `warnings`.

    Raises:
        ChaotianError: where the own data do not fit the job (DATA_*, NOT_FINITE, OVERFLOW), naming the column.
    """

    kind = "binning"
    phases = ("histogram", "counts")

    def __init__(self, spec: BinningSpec, frame: Frame, *, members: int = 32, strict: bool = True) -> None:
        super().__init__(spec.document(), spec.min_rows, members)
        self.spec = spec
        self.warnings: list[ChaotianError] = []
        self._strict = strict
        check_features(frame, spec.features)
        label = frame.label(spec.label)
        self.training_mask = ~held_out(frame.ids, spec.seed, spec.holdout)
        self._training, self._y = frame.take(self.training_mask), label[self.training_mask]
        self._chunk = chunks(max(1, len(self._cut)), SLOTS, members)
        # The derived state. Everything below is equal at all members.
        self._edges: dict[str, tuple[float, ...]] = dict(spec.options.edges)
        self._result: BinningResult | None = None
        if not self._cut:
            self._phase = "counts"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter the next round's vector."""
        return tuple(feature.name for feature in self._due) if self._phase == "histogram" else self.spec.columns

    @property
    def result(self) -> BinningResult:
        """The finished bins; equal at all members."""
        if self._result is None:
            raise ChaotianError("JOB_STATE", "the binning is not finished")
        return self._result

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs."""
        return self._progress(columns=len(self.spec.features), rows=self._result.rows if self._result else 0)

    def local(self) -> Mapping[str, Contribution]:
        """Return the own counts of the next round. They are private: the secure sum masks them."""
        if self._phase == "histogram":
            parts = [histogram(numeric_or_missing(self._training, feature.name)) for feature in self._due]
            return {"histogram": np.concatenate(parts)}
        goods, bads = [], []
        for feature in self.spec.features:
            edges = self._edges.get(feature.name, ())
            codes, slots = raw_codes(feature, edges, self._training), raw_slots(feature, edges)
            goods.append(np.bincount(codes[self._y == 0.0], minlength=slots))
            bads.append(np.bincount(codes[self._y == 1.0], minlength=slots))
        return {
            "rows": [len(self._y)],
            "bads": [int(self._y.sum())],
            "good_bins": np.concatenate(goods),
            "bad_bins": np.concatenate(bads),
        }

    # --- steps ------------------------------------------------------------------------------------------------

    @property
    def _cut(self) -> list[Feature]:
        return [f for f in self.spec.features if f.type == "numeric" and f.name not in self.spec.options.edges]

    @property
    def _due(self) -> list[Feature]:
        return self._cut[self._round * self._chunk : (self._round + 1) * self._chunk]

    def _fields(self) -> list[Field]:
        if self._phase == "histogram":
            return [Field("histogram", SLOTS * len(self._due), 0, MAX_ROWS)]
        slots = sum(raw_slots(feature, self._edges.get(feature.name, ())) for feature in self.spec.features)
        return [
            Field("rows", 1, 0, MAX_ROWS),
            Field("bads", 1, 0, MAX_ROWS),
            Field("good_bins", slots, 0, MAX_ROWS),
            Field("bad_bins", slots, 0, MAX_ROWS),
        ]

    def _take(self, totals: Totals) -> None:
        if self._phase == "histogram":
            summed = totals["histogram"]
            for place, feature in enumerate(self._due):
                counts = summed[place * SLOTS : (place + 1) * SLOTS]
                if min(counts) < 0:
                    raise ChaotianError("MALFORMED", f"the pooled counts of {feature.name} contradict each other")
                self._edges[feature.name] = equal_frequency_edges(counts, self.spec.options.bins)
            if (self._round + 1) * self._chunk >= len(self._cut):
                self._phase = "counts"
            return
        rows, bads = totals["rows"][0], totals["bads"][0]
        check_outcomes(rows, bads, self.spec.min_rows, self._refuse)
        columns, at = [], 0
        for feature in self.spec.features:
            edges = self._edges.get(feature.name, ())
            slots = raw_slots(feature, edges)
            goods, bad = totals["good_bins"][at : at + slots], totals["bad_bins"][at : at + slots]
            at += slots
            if min(*goods, *bad) < 0 or sum(goods) != rows - bads or sum(bad) != bads:
                raise ChaotianError("MALFORMED", f"the pooled bins of {feature.name} do not add up to all rows")
            pairs = list(zip(goods, bad, strict=True))
            columns.append(merged(feature, edges, pairs, self.spec.min_rows, self.spec.options))
        self._result = BinningResult(self.spec, rows, bads, tuple(columns))
        self._phase = "done"

    def _refuse(self, code: str, detail: str) -> None:
        """Raise what a floor refuses; in the lab, where nothing leaves anybody, only note it."""
        error = ChaotianError(code, detail)
        if self._strict:
            raise error
        self.warnings.append(error)

    def _check_loss(self) -> None:
        if self._phase == "counts" and self._cut:
            # Bins of the survivors beside histograms of all would show the lost member's own, by subtraction.
            raise ChaotianError("FLOOR_LOST", "a member was lost between the histograms and the counts of their bins")

    def _facts(self) -> dict[str, Any]:
        result = self._result
        return {
            "edges": {name: [edge.hex() for edge in edges] for name, edges in self._edges.items()},
            "result": None if result is None else result_facts(result),
        }

    def _load(self, facts: Mapping[str, Any]) -> None:
        edges = {str(name): tuple(map(float.fromhex, values)) for name, values in facts["edges"].items()}
        if not set(edges) <= {feature.name for feature in self.spec.features}:
            raise ValueError
        result = facts["result"]
        self._edges, self._result = edges, None if result is None else result_of(self.spec, result)


def result_facts(result: BinningResult) -> dict[str, Any]:
    """Return a result as part of a state."""
    columns = [column.document() for column in result.columns]
    return {"rows": str(result.rows), "bads": str(result.bads), "columns": columns}


def result_of(spec: BinningSpec, facts: Mapping[str, Any]) -> BinningResult:
    """Return the result of `result_facts`; one of the usual exceptions where it is something else."""
    columns = tuple(ColumnBins.from_document(entry) for entry in facts["columns"])
    if [column.name for column in columns] != [feature.name for feature in spec.features]:
        raise ValueError
    return BinningResult(spec, int(facts["rows"]), int(facts["bads"]), columns)


def check_outcomes(rows: int, bads: int, min_rows: int, refuse: Any, least: int = MIN_BINNING_ROWS) -> None:
    """Check pooled rows and outcomes against the floors.

    Raises:
        ChaotianError: MALFORMED, MIN_ROWS or ONE_CLASS; `refuse(code, detail)` decides on floors that are missed.
    """
    if not 0 <= bads <= rows:
        raise ChaotianError("MALFORMED", "the pooled counts contradict each other")
    if rows == 0:
        raise ChaotianError("MIN_ROWS", "there are no rows")
    if rows < max(least, min_rows):
        refuse("MIN_ROWS", f"{rows} rows in all, at least {max(least, min_rows)} are needed")
    if bads in (0, rows):
        raise ChaotianError("ONE_CLASS", f"all {rows} pooled rows have the same outcome")
    if min(bads, rows - bads) < min_rows:
        refuse("MIN_ROWS", f"one outcome has fewer than {min_rows} rows in all")
