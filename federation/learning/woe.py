"""The job `scorecard` with `coding = "woe"`: common bins, then a logistic regression on their weights.

The rounds are those of `binning` (`columns.histogram`, `binning.counts`) and then `scorecard.newton`, at a β that all
members derived alike. What is fixed by the binning, edges, merging and weights, stays for the whole job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.binning import Binning, BinningResult, BinningSpec
from federation.learning.bins import ColumnBins
from federation.learning.coding import Coding
from federation.learning.collinearity import factors_of_json, factors_to_json, variance_inflation
from federation.learning.columns import MAX_ROWS
from federation.learning.exact import GRID_BITS
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.model import Model
from federation.learning.newton import Newton, local_sums, triangle
from federation.learning.points import card_points
from federation.learning.scorecard import (
    FEW_ROWS_BOUND,
    LOSS_BOUND,
    MIN_TRAINING_ROWS,
    ROWS_PER_COEFFICIENT,
    Scorecard,
)
from federation.learning.steps import Steps, Totals
from federation.primitives import fixed_point
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field

# The weight of a bin with good and bad rows is at most ln n: below 12 up to 2^17 rows, below 29 for all rows that 1000
# members can bring. Its square, weighed by at most 1/4, is below 2^6 (2^9), so that sums over n rows stay below one of
# two constants, as in `scorecard`; the factor 2 is for smoothing and rounding.
WEIGHT_SQUARE, FEW_WEIGHT_SQUARE = 1 << 9, 1 << 6


class WoeScorecard(Steps):
    """One member's side of the job: its own rows, and the state that all members derive alike.

    Args:
        spec: the parameters all members agreed to, with coding `woe`.
        frame: this member's rows; `spec.columns` are read; features may miss values, the label may not.
        members: largest roster the totals must hold.
        test: rows to compare models on, where the job names a test dataset; else the held-out rows serve.
        strict: False in the lab only, where all rows are one's own: floors that are missed become `warnings`.

    Raises:
        ChaotianError: where the own data do not fit the job (DATA_*, NOT_FINITE, OVERFLOW), naming the column.
    """

    kind = "scorecard"
    phases = ("histogram", "counts", "newton")

    def __init__(
        self,
        spec: ScorecardSpec,
        frame: Frame,
        *,
        members: int = 32,
        test: Frame | None = None,
        strict: bool = True,
    ) -> None:
        super().__init__(spec.document(), spec.min_rows, members)
        if spec.coding != "woe":
            raise ChaotianError("INTERNAL", "a scorecard on z-scores is another program")
        self.spec = spec
        binning = BinningSpec(spec.label, spec.features, spec.binning, spec.holdout, spec.seed, spec.min_rows)
        self._binning = Binning(binning, frame, members=members, strict=strict)
        self.warnings = self._binning.warnings
        self.training_mask = self._binning.training_mask
        self.holdout_mask = ~self.training_mask
        self._frame, self._test = frame, test
        label = frame.label(spec.label)
        self._label = label
        self._training, self._y = frame.take(self.training_mask), label[self.training_mask]
        self._strict = strict
        self._design: NDArray[np.float64] | None = None
        # The derived state, beside that of the binning. Everything below is equal at all members.
        self._newton: Newton | None = None
        self._vif: list[float | None] = []
        self._follow()

    # --- the port to the secure sum -----------------------------------------------------------------------------

    @property
    def operation(self) -> str:
        """`columns.histogram`, `binning.counts` or `scorecard.newton`."""
        return self._binning.operation if not self._binning.done() else super().operation

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter the next round's vector."""
        if not self._binning.done():
            return self._binning.columns
        return (self.spec.label, *(column.name for column in self._used))

    def local(self) -> Mapping[str, Contribution]:
        """Return the own sums of the next round. They are private: the secure sum masks them."""
        if not self._binning.done():
            return self._binning.local()
        if self._design is None:
            self._design = self.coding.design(self._training)
        loss, gradient, hessian = local_sums(self._design, self._y, self._ready().point)
        return {"loss": [loss], "gradient": gradient, "hessian": hessian}

    # --- results ------------------------------------------------------------------------------------------------

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

    @property
    def binning(self) -> BinningResult:
        """The bins; JOB_STATE before they are there."""
        return self._binning.result

    @property
    def coding(self) -> Coding:
        """The columns of the scorecard, those without information left out."""
        return Coding(self._used)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns whose rows are all in one bin after merging."""
        return tuple(column.name for column in self.binning.columns if column.constant)

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs: phase, rounds, rows, convergence so far."""
        result = self.binning if self._binning.done() else None
        return self._progress(
            rows=result.rows if result else 0,
            bads=result.bads if result else 0,
            coefficients=len(self._newton.beta) if self._newton else None,
            newton=[vars(entry) for entry in self._newton.history] if self._newton else [],
        )

    def model(self, job: str = "") -> Model:
        """Return the finished scorecard; equal, hash included, at all members."""
        if not self.done():
            raise ChaotianError("NOT_CONVERGED", "the job is not finished")
        newton, result = self._ready(), self.binning
        extra: dict[str, Any] = {"points": card_points(self._used, newton.point, self.spec.points)}
        if self.left_out:
            extra["left_out"] = list(self.left_out)
        return Model.finished(job, self.spec, self.coding, newton, result.rows, result.bads, vif=self._vif, extra=extra)

    # --- steps ------------------------------------------------------------------------------------------------

    @property
    def _used(self) -> tuple[ColumnBins, ...]:
        return tuple(column for column in self.binning.columns if not column.constant)

    def _ready(self) -> Newton:
        if self._newton is None:
            raise ChaotianError("INTERNAL", "the columns of the job are not binned yet")
        return self._newton

    def _follow(self) -> None:
        """Take over the phase of the binning while it lasts."""
        self._phase = "newton" if self._binning.done() else self._binning._phase

    def _fields(self) -> list[Field]:
        if not self._binning.done():
            return self._binning._fields()
        count, rows = len(self._used) + 1, self.binning.rows
        few = 2 * FEW_WEIGHT_SQUARE * rows <= FEW_ROWS_BOUND
        bound = FEW_ROWS_BOUND if few else 2 * WEIGHT_SQUARE * MAX_ROWS
        return [
            Field("loss", 1, GRID_BITS, LOSS_BOUND),
            Field("gradient", count, GRID_BITS, bound),
            Field("hessian", len(triangle(count)), GRID_BITS, bound),
        ]

    def _take(self, totals: Totals) -> None:
        if not self._binning.done():
            self._binning.advance(totals)
            if self._binning.done():
                self._start()
            self._follow()
            return
        newton = self._ready()
        if not newton.history:
            self._vif = variance_inflation(totals["hessian"], len(newton.beta))
        newton.advance(totals["loss"][0], totals["gradient"], totals["hessian"])
        if newton.converged:
            self._phase = "done"

    def _start(self) -> None:
        if not self._used:
            raise ChaotianError(
                "CONSTANT_FEATURE",
                "no column of the job is left: after merging, all rows of each are in one bin",
                hint="Bring more rows or other columns, or cut fewer bins.",
            )
        rows = self.binning.rows
        if MIN_TRAINING_ROWS <= rows < self._rows_needed():
            text = (
                f"{rows} training rows in all, {self._rows_needed()} are needed for {len(self._used) + 1} coefficients"
            )
            error = ChaotianError("MIN_ROWS", text)
            if self._strict:
                raise error
            self.warnings.append(error)
        self._newton = Newton([0] * (len(self._used) + 1), self.spec.penalty, self.spec.max_rounds)

    def _facts(self) -> dict[str, Any]:
        return {
            "binning": self._binning.state().decode(),
            "newton": None if self._newton is None else self._newton.document(),
            "vif": factors_to_json(self._vif),
        }

    def _load(self, facts: Mapping[str, Any]) -> None:
        newton = None
        self._binning.restore(facts["binning"].encode())
        if facts["newton"] is not None:
            newton = Newton.from_document(facts["newton"], self.spec.penalty, self.spec.max_rounds)
        if (newton is not None) != self._binning.done() or (newton and len(newton.beta) != len(self._used) + 1):
            raise ValueError
        self._newton, self._vif, self._design = newton, factors_of_json(facts["vif"]), None

    # --- floors -------------------------------------------------------------------------------------------------

    def _check_loss(self) -> None:
        if not self._binning.done():
            self._binning._check_loss()

    def _own_rows(self) -> int:
        return len(self._y)

    def _rows_needed(self) -> int:
        if not self._binning.done():
            return 0
        return max(MIN_TRAINING_ROWS, ROWS_PER_COEFFICIENT * (len(self._used) + 1))

    def _cell_names(self) -> Sequence[str]:
        if not self._binning.done():
            return ()
        return ["outcome 0", "outcome 1", *(f"{c.name}: {label}" for c in self._used for label in c.labels)]

    def _own_cells(self) -> Sequence[bool]:
        if not self._binning.done():
            return ()
        bads = int(self._y.sum())
        counts = [len(self._y) - bads, bads]
        for column in self._used:
            codes = column.codes(self._training)
            counts += np.bincount(codes[codes >= 0], minlength=len(column.counts)).tolist()
        return [count >= self.spec.min_rows for count in counts]


def scorecard_program(
    spec: ScorecardSpec,
    frame: Frame,
    *,
    members: int = 32,
    test: Frame | None = None,
    strict: bool = True,
) -> Scorecard | WoeScorecard:
    """Return the program of a `scorecard` job, by its coding."""
    kind = WoeScorecard if spec.coding == "woe" else Scorecard
    return kind(spec, frame, members=members, test=test, strict=strict)


def run_alone(program: Any) -> None:
    """Run a program to its end on its own values alone, rounded as in the secure sum. Nothing leaves."""
    while not program.done():
        layout = program.layout()
        program.advance(fixed_point.decode(layout, fixed_point.encode(layout, program.local())))
