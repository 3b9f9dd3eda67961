"""The job `scorecard`: logistic regression over all members' rows, solved exactly by sums.

Three operations follow each other, each one or more rounds of the secure sum:
`scorecard.counts` (rows, bads, sums, levels), `scorecard.moments` (squared deviations from the pooled mean) and
`scorecard.newton` (log-loss, gradient, Hessian at a β all members derived alike). docs/jobs/scorecard.md has the
formulas, what leaves, and what members can read from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.coding import Category, Coding, Numeric, Part, merge_levels, reference_first
from federation.learning.collinearity import factors_of_json, factors_to_json, variance_inflation
from federation.learning.columns import LARGEST as LARGEST
from federation.learning.columns import MAX_ROWS as MAX_ROWS
from federation.learning.columns import numeric_or_missing
from federation.learning.exact import GRID_BITS, exact_sum, nearest_float, nearest_root
from federation.learning.frame import Feature, Frame, ScorecardSpec
from federation.learning.holdout import held_out
from federation.learning.model import Model
from federation.learning.newton import Newton, local_sums, triangle
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field, Layout

MIN_TRAINING_ROWS = 200
ROWS_PER_COEFFICIENT = 20
FEW = 10  # a numeric column with at most this many different values is a category in disguise
VALUES_OF = "values of "  # begins the name of a numeric column's cell
FEW_ROWS_BOUND = 1 << 24  # one ring element a value up to 2^23 pooled rows, three above
LOSS_BOUND = 1 << 48
# Sums of values travel as multiples of 2^-96, sums of squares as multiples of 2^-128: the contribution is the sum
# times 2^32 (2^64), with 64 fractional bits. Rates of 1e-9 keep their digits beside amounts of 1e15.
SUM_SHIFT, SQUARE_SHIFT, MOMENT_BITS = 32, 64, 64
STATE_LIMIT = 8 << 20


class Scorecard:
    """One member's side of the job: its own rows, and the state that all members derive alike.

    Args:
        spec: the parameters all members agreed to.
        frame: this member's rows; `spec.columns` are read, and every one must be complete and finite.
        members: largest roster the totals must hold.
        test: rows to compare models on, where the job names a test dataset; else the held-out rows serve.
        strict: False in the lab only, where all rows are one's own: floors that are missed become `warnings`.

    Raises:
        ChaotianError: where the own data do not fit the job (DATA_*, NOT_FINITE, OVERFLOW), naming the column.
    """

    def __init__(
        self,
        spec: ScorecardSpec,
        frame: Frame,
        *,
        members: int = 32,
        test: Frame | None = None,
        strict: bool = True,
    ) -> None:
        if spec.coding != "raw":
            raise ChaotianError("INTERNAL", "a scorecard on weights of evidence is another program")
        self.spec = spec
        self.warnings: list[ChaotianError] = []
        self._strict = strict
        self._test = test
        self._members = members
        self._spec_hash = hashlib.sha256(canonical_json([spec.document(), spec.min_rows])).hexdigest()
        if len(frame) >= MAX_ROWS:
            raise ChaotianError("OVERSIZED", f"a member brings fewer than {MAX_ROWS} rows")
        self._label = frame.label(spec.label)
        for feature in spec.features:
            if feature.type == "category":
                frame.category(feature.name, feature.levels)
            elif spec.impute:
                numeric_or_missing(frame, feature.name)
            elif (np.abs(frame.numeric(feature.name)) >= LARGEST).any():
                raise ChaotianError("OVERFLOW", f"column {feature.name} has a value of 2^60 or more")
        self.holdout_mask = held_out(frame.ids, spec.seed, spec.holdout)
        self._frame = frame
        self._training = frame.take(~self.holdout_mask)
        self._y = self._label[~self.holdout_mask]
        self._design: tuple[Coding, NDArray[np.float64]] | None = None
        # The derived state. Everything below is equal at all members.
        self._phase = "counts"
        self._round = 0
        self._rows = 0
        self._bads = 0
        self._means: dict[str, float] = {}
        self._order: dict[str, tuple[str, ...]] = {}  # levels of each category, the reference first
        self._kept: dict[str, tuple[str, ...]] = {}
        self._coding: Coding | None = None
        self._newton: Newton | None = None
        self._vif: list[float | None] = []

    # --- the port to the secure sum -----------------------------------------------------------------------------

    @property
    def operation(self) -> str:
        """`scorecard.counts`, `scorecard.moments` or `scorecard.newton`."""
        return f"scorecard.{'newton' if self._phase == 'done' else self._phase}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter the next round's vector."""
        return tuple(f.name for f in self._numeric) if self._phase == "moments" else self.spec.columns

    def done(self) -> bool:
        """Whether the iteration has converged."""
        return self._phase == "done"

    def layout(self) -> Layout:
        """Return the fields of the next round; their lengths are all that the platform learns of it."""
        return Layout(64, tuple(self._fields()), self._members)

    def local(self) -> Mapping[str, Contribution]:
        """Return the own sums of the next round. They are private: the secure sum masks them."""
        if self._phase == "counts":
            return self._local_counts()
        if self._phase == "moments":
            squares = []
            for feature in self._numeric:
                deviation = self._own_values(feature) - self._means[feature.name]
                squares.append(exact_sum(deviation * deviation) * (1 << SQUARE_SHIFT))
            return {"squares": squares}
        coding, newton = self._ready()
        loss, gradient, hessian = local_sums(self._matrix(coding), self._y, newton.point)
        return {"loss": [loss], "gradient": gradient, "hessian": hessian}

    def advance(self, totals: Mapping[str, list[int]]) -> None:
        """Derive the next state from a round's pooled totals.

        Raises:
            ChaotianError: MIN_ROWS, ONE_CLASS, FEW_VALUES, CONSTANT_FEATURE, SEPARABLE, SINGULAR, NOT_CONVERGED;
                the same at every member, as all see the same totals.
        """
        if self._phase == "done":
            raise ChaotianError("INTERNAL", "a scorecard that has converged takes no further totals")
        expected = {field.name: field.length for field in self._fields()}
        if {name: len(values) for name, values in totals.items()} != expected:
            raise ChaotianError("MALFORMED", "the totals do not have the fields of this round")
        if self._phase == "counts":
            self._take_counts(totals)
        elif self._phase == "moments":
            self._take_moments(totals["squares"])
        else:
            _, newton = self._ready()
            if not newton.history:
                self._vif = variance_inflation(totals["hessian"], len(newton.beta))
            newton.advance(totals["loss"][0], totals["gradient"], totals["hessian"])
            if newton.converged:
                self._phase = "done"
        self._round += 1

    def state(self) -> bytes:
        """Return the derived state: canonical JSON, integers as text, floats in hexadecimal."""
        return canonical_json(
            {
                "v": 1,
                "spec": self._spec_hash,
                "phase": self._phase,
                "round": self._round,
                "rows": str(self._rows),
                "bads": str(self._bads),
                "means": {name: value.hex() for name, value in self._means.items()},
                "order": {name: list(levels) for name, levels in self._order.items()},
                "kept": {name: list(levels) for name, levels in self._kept.items()},
                "coding": None if self._coding is None else self._coding.document(),
                "newton": None if self._newton is None else self._newton.document(),
                "vif": factors_to_json(self._vif),
            }
        )

    def restore(self, state: bytes) -> None:
        """Take up a state again, as `state()` of this job gave it.

        Raises:
            ChaotianError: BAD_DOCUMENT, or STATE_MISMATCH where it belongs to other parameters.
        """
        document = parse_canonical_json(state, limit=STATE_LIMIT)
        try:
            if document["v"] != 1 or document["phase"] not in ("counts", "moments", "newton", "done"):
                raise ValueError
            if document["spec"] != self._spec_hash:
                raise ChaotianError("STATE_MISMATCH", "the saved state belongs to a job with other parameters")
            means = {str(name): float.fromhex(value) for name, value in document["means"].items()}
            order = {str(name): tuple(map(str, levels)) for name, levels in document["order"].items()}
            kept = {str(name): tuple(map(str, levels)) for name, levels in document["kept"].items()}
            declared = {feature.name: sorted(feature.levels) for feature in self._categories}
            counted = document["phase"] != "counts"
            if {name: sorted(levels) for name, levels in order.items()} != (declared if counted else {}):
                raise ValueError
            coding = None if document["coding"] is None else Coding.from_document(document["coding"])
            newton = None
            if document["newton"] is not None:
                newton = Newton.from_document(document["newton"], self.spec.penalty, self.spec.max_rounds)
            vif = factors_of_json(document["vif"])
            rows, bads, round_ = int(document["rows"]), int(document["bads"]), int(document["round"])
            if (document["phase"] in ("newton", "done")) != (coding is not None and newton is not None):
                raise ValueError
            if coding is not None and newton is not None and len(coding.names) != len(newton.beta):
                raise ValueError
            if document["phase"] != "counts" and set(means) != {feature.name for feature in self._numeric}:
                raise ValueError
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            raise ChaotianError("BAD_DOCUMENT", "the saved state of the job cannot be read") from None
        self._phase, self._round, self._rows, self._bads = document["phase"], round_, rows, bads
        self._means, self._order, self._kept, self._coding, self._newton = means, order, kept, coding, newton
        self._vif = vif
        self._design = None

    # --- floors after a loss ------------------------------------------------------------------------------------

    def floors(self) -> bytes:
        """Return, for the peers, the own training rows in whole multiples of `min_rows` and which cells hold as many.

        A cell is an outcome, a dummy's level, or a category's reference with what is merged into it; for a numeric
        column the question is whether it has more than ten values.
        """
        return canonical_json({"rows": len(self._y) // self.spec.min_rows, "cells": self._cells()})

    def check_floors(self, floors: Mapping[str, bytes]) -> None:
        """Check that the floors hold for the members of `floors` alone.

        Each cell must hold `min_rows` rows at one of them at least, and their rows must suffice for the coefficients.
        Before the counts are released there is nothing to check: the counts themselves will tell.

        Raises:
            ChaotianError: FLOOR_LOST; MALFORMED, naming the member, where an answer has not the agreed form.
        """
        if self._phase == "counts":
            return
        expected = self._cell_names()
        rows, affirmed = 0, set()
        for member, data in floors.items():
            try:
                document = parse_canonical_json(data, limit=1 << 20)
                cells = document["cells"]
                count = document["rows"]
                if set(document) != {"rows", "cells"} or set(cells) != set(expected):
                    raise ValueError
                if type(count) is not int or count < 0 or any(type(v) is not int for v in cells.values()):
                    raise ValueError
            except (TypeError, KeyError, ValueError, AttributeError, ChaotianError):
                raise ChaotianError("MALFORMED", "an answer about floors is not as agreed", member=member) from None
            rows += count * self.spec.min_rows
            affirmed |= {name for name, value in cells.items() if value > 0}
        needed = self._rows_needed()
        if rows < needed:
            raise ChaotianError("FLOOR_LOST", f"the members left affirm {rows} training rows, {needed} are needed")
        for name in expected:
            if name not in affirmed:
                what = f"more than {FEW} values" if name.startswith(VALUES_OF) else f"{self.spec.min_rows} rows"
                raise ChaotianError("FLOOR_LOST", f"no member left affirms {what} by itself for: {name}")

    # --- results ------------------------------------------------------------------------------------------------

    @property
    def training_mask(self) -> NDArray[np.bool_]:
        """Which of the own rows take part in training."""
        return ~self.holdout_mask

    @property
    def own_training(self) -> tuple[Frame, NDArray[np.float64]]:
        """Own training rows and their labels, for the local comparison."""
        return self._training, self._y

    @property
    def own_holdout(self) -> tuple[Frame, NDArray[np.float64]]:
        """Rows to compare models on, and their labels: the own held-out rows, or the test dataset."""
        if self._test is not None:
            return self._test, self._test.label(self.spec.label)
        return self._frame.take(self.holdout_mask), self._label[self.holdout_mask]

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs: phase, rounds, rows, convergence so far."""
        history = self._newton.history if self._newton else []
        return {
            "phase": self._phase,
            "rounds": self._round,
            "rows": self._rows,
            "bads": self._bads,
            "coefficients": len(self._coding.names) if self._coding else None,
            "newton": [vars(entry) for entry in history],
        }

    def model(self, job: str = "") -> Model:
        """Return the finished scorecard; equal, hash included, at all members."""
        if not self.done():
            raise ChaotianError("NOT_CONVERGED", "the job is not finished")
        coding, newton = self._ready()
        return Model.finished(job, self.spec, coding, newton, self._rows, self._bads, vif=self._vif)

    # --- counts -------------------------------------------------------------------------------------------------

    @property
    def _numeric(self) -> list[Feature]:
        return [feature for feature in self.spec.features if feature.type == "numeric"]

    @property
    def _categories(self) -> list[Feature]:
        return [feature for feature in self.spec.features if feature.type == "category"]

    def _fields(self) -> list[Field]:
        numeric = len(self._numeric)
        if self._phase == "counts":
            fields = [Field("rows", 1, 0, MAX_ROWS), Field("bads", 1, 0, MAX_ROWS)]
            if numeric:
                fields.append(Field("sums", numeric, MOMENT_BITS, int(LARGEST) * MAX_ROWS << SUM_SHIFT))
                fields += [Field("varied", numeric, 0, 1), Field("many", numeric, 0, 1)]
                if self.spec.impute:
                    fields.append(Field("present", numeric, 0, MAX_ROWS))
            levels = sum(len(feature.levels) for feature in self._categories)
            return [*fields, Field("levels", levels, 0, MAX_ROWS)] if levels else fields
        if self._phase == "moments":
            return [Field("squares", numeric, MOMENT_BITS, 4 * int(LARGEST) ** 2 * MAX_ROWS << SQUARE_SHIFT)]
        coding, _ = self._ready()
        count = len(coding.names)
        # Pooled z-scores have Σz² = n, so Σ|z| <= n and no sum of r·z (|r| < 1) or w·z·z' (w <= 1/4) exceeds n, whoever
        # is left; the factor 2 is for rounding. The platform sees the bounds: they must not tell n or β, so they are
        # one of two constants. The log-loss of all rows is at most n·(ln 2 + Σ|β·z|).
        bound = FEW_ROWS_BOUND if 2 * self._rows <= FEW_ROWS_BOUND else 2 * MAX_ROWS
        return [
            Field("loss", 1, GRID_BITS, LOSS_BOUND),
            Field("gradient", count, GRID_BITS, bound),
            Field("hessian", len(triangle(count)), GRID_BITS, bound),
        ]

    def _local_counts(self) -> dict[str, Contribution]:
        out: dict[str, Contribution] = {"rows": [len(self._y)], "bads": [int(self._y.sum())]}
        if self._numeric:
            columns = [self._own_values(feature) for feature in self._numeric]
            different = [_different(column) for column in columns]
            out["sums"] = [exact_sum(column) * (1 << SUM_SHIFT) for column in columns]
            out["varied"] = [int(count > 1) for count in different]
            out["many"] = [int(count > FEW) for count in different]
            if self.spec.impute:
                out["present"] = [len(column) for column in columns]
        if self._categories:
            out["levels"] = [count for feature in self._categories for count in self._own_levels(feature)]
        return out

    def _own_values(self, feature: Feature) -> NDArray[np.float64]:
        """Return the values of a numeric column in the own training rows, those that are missing left out."""
        if not self.spec.impute:
            return self._training.numeric(feature.name)
        values = numeric_or_missing(self._training, feature.name)
        return values[~np.isnan(values)]

    def _own_levels(self, feature: Feature) -> list[int]:
        codes = self._training.category(feature.name, feature.levels)
        return [int(count) for count in np.bincount(codes, minlength=len(feature.levels))]

    def _take_counts(self, totals: Mapping[str, list[int]]) -> None:
        rows, bads = totals["rows"][0], totals["bads"][0]
        if not 0 <= bads <= rows:
            raise ChaotianError("MALFORMED", "the pooled counts contradict each other")
        floor = self.spec.min_rows
        if rows == 0:
            raise ChaotianError("MIN_ROWS", "there are no training rows")
        if rows < max(MIN_TRAINING_ROWS, floor):
            self._refuse("MIN_ROWS", f"{rows} training rows in all, at least {MIN_TRAINING_ROWS} are needed")
        if bads in (0, rows):
            raise ChaotianError("ONE_CLASS")
        if min(bads, rows - bads) < floor:
            self._refuse("MIN_ROWS", f"one outcome has fewer than {floor} training rows in all")
        order: dict[str, tuple[str, ...]] = {}
        kept: dict[str, tuple[str, ...]] = {}
        at = 0
        for feature in self._categories:
            counts = totals["levels"][at : at + len(feature.levels)]
            at += len(feature.levels)
            if min(counts) < 0 or sum(counts) != rows:
                raise ChaotianError("MALFORMED", f"the pooled counts of {feature.name} do not add up to all rows")
            if max(counts) == rows:
                raise ChaotianError("CONSTANT_FEATURE", f"{feature.name} has one level in every pooled row")
            by_level = dict(zip(feature.levels, counts, strict=True))
            order[feature.name] = reference_first(by_level, feature.levels, floor)
            kept[feature.name] = merge_levels(by_level, order[feature.name], floor)
        means: dict[str, float] = {}
        for index, feature in enumerate(self._numeric):
            if totals["varied"][index] == 0:
                raise ChaotianError("CONSTANT_FEATURE", f"{feature.name} has one value only at every member")
            present = totals["present"][index] if self.spec.impute else rows
            if not 0 < present <= rows:
                raise ChaotianError("MALFORMED", f"the pooled counts of {feature.name} contradict each other")
            if present < floor:
                self._refuse("MIN_ROWS", f"{feature.name} has a value in fewer than {floor} training rows in all")
            means[feature.name] = nearest_float(
                Fraction(totals["sums"][index], present << (SUM_SHIFT + MOMENT_BITS)),
            )
        few = [feature.name for index, feature in enumerate(self._numeric) if totals["many"][index] == 0]
        if few:
            verb = "has" if len(few) == 1 else "have"
            self._refuse("FEW_VALUES", f"{', '.join(few)} {verb} at most {FEW} different values at every member")
        self._rows, self._bads, self._means, self._order, self._kept = rows, bads, means, order, kept
        if MIN_TRAINING_ROWS <= rows < self._rows_needed():
            self._refuse(
                "MIN_ROWS",
                f"{rows} training rows in all, {self._rows_needed()} are needed for {self._count()} coefficients",
            )
        if self._numeric:
            self._phase = "moments"
        else:
            self._start({})

    def _refuse(self, code: str, detail: str) -> None:
        """Raise what a floor refuses; in the lab, where nothing leaves anybody, only note it."""
        error = ChaotianError(code, detail)
        if self._strict:
            raise error
        self.warnings.append(error)

    def _take_moments(self, squares: Sequence[int]) -> None:
        deviations: dict[str, float] = {}
        for feature, total in zip(self._numeric, squares, strict=True):
            variance = Fraction(total, self._rows << (SQUARE_SHIFT + MOMENT_BITS))
            if variance < 0:
                raise ChaotianError("MALFORMED", f"the pooled squares of {feature.name} are negative")
            deviations[feature.name] = nearest_root(variance)
            if deviations[feature.name] == 0.0:
                raise ChaotianError("CONSTANT_FEATURE", f"{feature.name} has the same value in every pooled row")
        self._start(deviations)

    def _start(self, deviations: Mapping[str, float]) -> None:
        parts: list[Part] = []
        for feature in self.spec.features:
            if feature.type == "numeric":
                mean, deviation = self._means[feature.name], deviations[feature.name]
                parts.append(Numeric(feature.name, mean, deviation, bool(self.spec.impute)))
            else:
                parts.append(Category(feature.name, self._order[feature.name], self._kept[feature.name]))
        self._coding = Coding(tuple(parts))
        self._newton = Newton([0] * len(self._coding.names), self.spec.penalty, self.spec.max_rounds)
        self._phase = "newton"

    def _ready(self) -> tuple[Coding, Newton]:
        if self._coding is None or self._newton is None:
            raise ChaotianError("INTERNAL", "the columns of the job are not coded yet")
        return self._coding, self._newton

    def _matrix(self, coding: Coding) -> NDArray[np.float64]:
        if self._design is None or self._design[0] is not coding:
            self._design = (coding, coding.design(self._training))
        return self._design[1]

    def _count(self) -> int:
        return 1 + len(self._numeric) + sum(len(levels) for levels in self._kept.values())

    def _rows_needed(self) -> int:
        return max(MIN_TRAINING_ROWS, ROWS_PER_COEFFICIENT * self._count())

    def _cell_names(self) -> list[str]:
        names = ["outcome 0", "outcome 1", *(VALUES_OF + feature.name for feature in self._numeric)]
        for feature in self._categories:
            kept = self._kept.get(feature.name, ())
            if kept:  # a column whose levels are all merged publishes nothing
                names += [f"{feature.name}={level}" for level in (*kept, self._order[feature.name][0])]
        return names

    def _cells(self) -> dict[str, int]:
        """Return for each cell whether the own training rows affirm it alone (1) or not (0)."""
        if self._phase == "counts":
            return {}
        floor, bads = self.spec.min_rows, int(self._y.sum())
        counts = {"outcome 0": len(self._y) - bads, "outcome 1": bads}
        for feature in self._categories:
            kept = self._kept[feature.name]
            if kept:
                own = dict(zip(feature.levels, self._own_levels(feature), strict=True))
                for level in kept:
                    counts[f"{feature.name}={level}"] = own.pop(level)
                counts[f"{feature.name}={self._order[feature.name][0]}"] = sum(own.values())
        cells = {name: int(count >= floor) for name, count in counts.items()}
        for feature in self._numeric:
            cells[VALUES_OF + feature.name] = int(_different(self._own_values(feature)) > FEW)
        return cells


def _different(column: NDArray[np.float64]) -> int:
    """Return the number of different values, exact up to `FEW`: the first rows decide where they already have more."""
    start = len(np.unique(column[:4096]))
    return start if start > FEW else len(np.unique(column))
