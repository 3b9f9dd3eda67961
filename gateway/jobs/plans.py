"""The kinds of jobs whose totals stay with the members: profile, binning, scorecard, evaluate, stability.

The arithmetic of each is in `federation/learning`, with formulas and leaks in docs/jobs. Here stands what nodes need to
know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from federation.errors import ChaotianError
from federation.learning.binning import Binning, BinningSpec
from federation.learning.bins import ColumnBins, raw_slots
from federation.learning.coding import Category
from federation.learning.compare import compare
from federation.learning.evaluate import Evaluate, EvaluateSpec
from federation.learning.frame import Feature, ScorecardSpec
from federation.learning.histogram import SLOTS
from federation.learning.model import Model
from federation.learning.options import BinningOptions
from federation.learning.profile import Profile, ProfileSpec
from federation.learning.scorecard import Scorecard
from federation.learning.stability import Stability, StabilitySpec
from federation.learning.steps import HISTOGRAM, chunks
from federation.learning.woe import WoeScorecard, scorecard_program
from federation.secure_sum.terms import Layout
from gateway.jobs.plan import Inputs, JobPlan, JobProgram, Outcome, Round, check_holdout, selection

MORE_ROUNDS = 8  # above those of the iteration: counts, moments, and room for a resumed round

_ROWS_AND_BADS = "pooled number of rows and of bad outcomes: to the members"
_HISTOGRAMS = "pooled histograms of numeric columns, bins of one row included: to the members"
_NEWTON = (
    "pooled log-loss, gradient and Hessian at each step, at which two dummies' entry is about a pair count: to the "
    "members"
)
_SHAPES = "names and lengths of the fields, number of rounds, who took part and when: to the platform"
_LOST = "beside a lost member: about that member's own gradient and Hessian, when it is lost close to convergence"


def _numeric(features: Sequence[Feature]) -> list[Feature]:
    return [feature for feature in features if feature.type == "numeric"]


def _histograms(columns: int, members: int) -> list[Round]:
    """Return the rounds that sum histograms of so many columns."""
    if not columns:
        return []
    chunk = chunks(columns, SLOTS, members)
    return [Round(HISTOGRAM, str(-(-columns // chunk)), {"histogram": SLOTS * chunk})]


def _lengths(layout: Layout) -> dict[str, int]:
    return {field.name: field.length for field in layout.fields}


def _first(rounds: list[Round], first: Layout) -> list[Round]:
    """Return the rounds, the first of which has the layout at hand."""
    head = rounds[0]
    return [Round(head.operation, head.times, _lengths(first), first), *rounds[1:]]


def _counts_of_bins(features: Sequence[Feature], options: BinningOptions) -> Round:
    """Return the round that counts good and bad rows by bin, before the edges are known."""
    slots = 0
    for feature in features:
        most: Sequence[float] = options.edges.get(feature.name, (0.0,) * (options.bins - 1))
        slots += raw_slots(feature, most)
    return Round("binning.counts", "1", {"rows": 1, "bads": 1, "good_bins": slots, "bad_bins": slots})


def _newton(count: int, spec: ScorecardSpec) -> Round:
    fields = {"loss": 1, "gradient": count, "hessian": count * (count + 1) // 2}
    return Round("scorecard.newton", f"up to {spec.max_rounds}", fields)


def _uncut(features: Sequence[Feature], options: BinningOptions) -> int:
    """Return how many numeric columns have no given edges, so that their histograms are summed."""
    return sum(feature.name not in options.edges for feature in _numeric(features))


@dataclass(frozen=True)
class ScorecardPlan(JobPlan):
    """`scorecard`: a logistic regression on z-scores and dummies, or on weights of evidence."""

    spec: ScorecardSpec

    kind = "scorecard"
    title = "logistic regression over the rows of all members, on z-scores or weights of evidence"
    uses = frozenset({"test"})

    @property
    def leaks(self) -> tuple[str, ...]:  # type: ignore[override]
        """What can be read from the totals, by coding."""
        if self.spec.coding == "woe":
            counts = (_HISTOGRAMS, "pooled good and bad rows of every bin before small ones are merged: to the members")
        else:
            counts = (
                "pooled sums of every numeric column, and whether any member's values vary: to the members",
                "pooled counts of every category level before small ones are merged: to the members",
            )
        return (_ROWS_AND_BADS, *counts, _NEWTON, _SHAPES, _LOST)

    @classmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan; BAD_DOCUMENT."""
        spec = ScorecardSpec.from_document(params, min_rows=min_rows)
        check_holdout(spec.holdout)
        return cls(spec)

    def params(self) -> dict[str, Any]:
        """Return the parameters, those of bins and points only with `coding = "woe"`."""
        return self.spec.document()

    @property
    def max_rounds(self) -> int:
        """Rounds of the iteration, of counts and of histograms."""
        return self.spec.max_rounds + len(self.spec.features) + MORE_ROUNDS

    def operations(self) -> tuple[str, ...]:
        """Return counts and moments, or histograms and bins, and the steps of the iteration."""
        if self.spec.coding == "woe":
            histogram = (HISTOGRAM,) if _uncut(self.spec.features, self.spec.binning) else ()
            return (*histogram, "binning.counts", "scorecard.newton")
        moments = ("scorecard.moments",) if _numeric(self.spec.features) else ()
        return ("scorecard.counts", *moments, "scorecard.newton")

    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns of the score."""
        return self.spec.features

    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return label and features."""
        return self.spec.columns

    def selection(self) -> str:
        """Return the training rows."""
        return selection(self.spec.holdout, self.spec.seed)

    def program(self, inputs: Inputs) -> JobProgram:
        """Return the program of the coding."""
        return scorecard_program(self.spec, inputs.rows[0], members=inputs.members, test=inputs.test)

    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return the rounds in order; under woe before columns without information are left out."""
        spec, numeric = self.spec, len(_numeric(self.spec.features))
        if spec.coding == "woe":
            out = _histograms(_uncut(spec.features, spec.binning), members)
            out += [_counts_of_bins(spec.features, spec.binning), _newton(1 + len(spec.features), spec)]
            return _first(out, first)
        count = 1 + numeric + sum(len(f.levels) - 1 for f in spec.features if f.type == "category")
        out = [Round("scorecard.counts", "1", {})]
        if numeric:
            out.append(Round("scorecard.moments", "1", {"squares": numeric}))
        return _first([*out, _newton(count, spec)], first)

    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return the model, and its worth on the own held-out rows beside that of the own model."""
        assert isinstance(program, Scorecard | WoeScorecard)
        model = program.model(job)
        return Outcome(own=compare(program, model), model=model)


@dataclass(frozen=True)
class ProfilePlan(JobPlan):
    """`profile`: what the columns look like over all members' rows."""

    spec: ProfileSpec

    kind = "profile"
    title = "a profile of columns: counts, missing values, moments, range and quantiles"
    leaks = (
        "pooled number of rows, values present and violations of every column: to the members",
        "pooled sums of every numeric column, squares and cubes of deviations from the pooled mean: to the members",
        "pooled counts of every category level before small ones are joined: to the members",
        _HISTOGRAMS,
        _SHAPES,
    )

    @classmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan; BAD_DOCUMENT."""
        return cls(ProfileSpec.from_document(params, min_rows=min_rows))

    def params(self) -> dict[str, Any]:
        """Return the parameters."""
        return self.spec.document()

    @property
    def max_rounds(self) -> int:
        """Counts, histograms, moments."""
        return len(self.spec.features) + MORE_ROUNDS

    def operations(self) -> tuple[str, ...]:
        """Return counts, and for numeric columns histograms and moments."""
        return ("profile.counts", *((HISTOGRAM, "profile.moments") if _numeric(self.spec.features) else ()))

    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns."""
        return self.spec.features

    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return the columns."""
        return self.spec.columns

    def program(self, inputs: Inputs) -> JobProgram:
        """Return the program."""
        return Profile(self.spec, inputs.rows[0], members=inputs.members)

    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return the rounds; columns with too few values drop out of the last one."""
        numeric = len(_numeric(self.spec.features))
        out = [Round("profile.counts", "1", {}), *_histograms(numeric, members)]
        if numeric:
            out.append(Round("profile.moments", "1", {"squares": numeric, "cubes": numeric}))
        return _first(out, first)

    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return the pooled profile."""
        assert isinstance(program, Profile)
        return Outcome(program.result.document())


@dataclass(frozen=True)
class BinningPlan(JobPlan):
    """`binning`: common bins with weights of evidence and information values."""

    spec: BinningSpec

    kind = "binning"
    title = "common bins with weight of evidence and information value"
    leaks = (
        _ROWS_AND_BADS,
        _HISTOGRAMS,
        "pooled good and bad rows of every bin before small ones are merged: to the members",
        _SHAPES,
    )

    @classmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan; BAD_DOCUMENT."""
        spec = BinningSpec.from_document(params, min_rows=min_rows)
        check_holdout(spec.holdout)
        return cls(spec)

    def params(self) -> dict[str, Any]:
        """Return the parameters."""
        return self.spec.document()

    @property
    def max_rounds(self) -> int:
        """Histograms and counts."""
        return len(self.spec.features) + MORE_ROUNDS

    def operations(self) -> tuple[str, ...]:
        """Return histograms, where a column has no given edges, and counts of bins."""
        histogram = (HISTOGRAM,) if _uncut(self.spec.features, self.spec.options) else ()
        return (*histogram, "binning.counts")

    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns that are binned."""
        return self.spec.features

    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return label and features."""
        return self.spec.columns

    def selection(self) -> str:
        """Return the rows that are not held out."""
        return selection(self.spec.holdout, self.spec.seed)

    def program(self, inputs: Inputs) -> JobProgram:
        """Return the program."""
        return Binning(self.spec, inputs.rows[0], members=inputs.members)

    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return histograms and counts."""
        out = _histograms(_uncut(self.spec.features, self.spec.options), members)
        return _first([*out, _counts_of_bins(self.spec.features, self.spec.options)], first)

    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return the bins."""
        assert isinstance(program, Binning)
        return Outcome(program.result.document(job))


def features_of(model: Model) -> tuple[Feature, ...]:
    """Return the columns of a model with their types."""
    out = []
    for part in model.coding.parts:
        category = isinstance(part, Category) or (isinstance(part, ColumnBins) and part.type == "category")
        levels = part.levels if isinstance(part, Category | ColumnBins) and category else ()
        out.append(Feature(part.name, "category" if category else "numeric", levels))
    return tuple(out)


def _given(model: Model | None) -> Model:
    if model is None:
        raise ChaotianError("INTERNAL", "the model of the job is not at hand")
    return model


@dataclass(frozen=True)
class EvaluatePlan(JobPlan):
    """`evaluate`: how well a model does on all members' rows."""

    spec: EvaluateSpec

    kind = "evaluate"
    title = "an evaluation of a model: AUC, KS, Gini, deciles, calibration"
    leaks = (
        _ROWS_AND_BADS,
        "pooled good and bad rows and probabilities in 1,000 bins of the score, bins of one row included: to the "
        "members",
        "pooled sums of the Brier score and of the log-loss: to the members",
        "who took part and when: to the platform",
    )

    @classmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan; BAD_DOCUMENT."""
        spec = EvaluateSpec.from_document(params, min_rows=min_rows)
        check_holdout(spec.holdout)
        return cls(spec)

    def params(self) -> dict[str, Any]:
        """Return the parameters."""
        return self.spec.document()

    @property
    def model(self) -> str:
        """The model that is measured."""
        return self.spec.model

    @property
    def max_rounds(self) -> int:
        """One, and room for a resumed one."""
        return MORE_ROUNDS

    def operations(self) -> tuple[str, ...]:
        """Return the one operation."""
        return ("evaluate.scores",)

    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns of the model."""
        return features_of(_given(model))

    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return the model's label and columns."""
        return (_given(model).label, *_given(model).columns)

    def selection(self) -> str:
        """Return all rows, or those that training kept out."""
        return selection(self.spec.holdout, self.spec.seed, "holdout") if self.spec.rows == "holdout" else selection()

    def program(self, inputs: Inputs) -> JobProgram:
        """Return the program."""
        return Evaluate(self.spec, _given(inputs.model), inputs.rows[0], members=inputs.members)

    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return the one round."""
        return _first([Round("evaluate.scores", "1", {})], first)

    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return the pooled figures, and those on the own rows."""
        assert isinstance(program, Evaluate)
        return Outcome(program.result.document(), program.own)


@dataclass(frozen=True)
class StabilityPlan(JobPlan):
    """`stability`: how far columns and score moved between two dates."""

    spec: StabilitySpec

    kind = "stability"
    title = "stability indices of columns, or of a model's columns and score, between two dates"
    uses = frozenset({"after"})
    leaks = (
        "pooled rows by bin at both dates before small bins are joined, bins of one row included: to the members",
        _SHAPES,
    )

    @classmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan; BAD_DOCUMENT."""
        return cls(StabilitySpec.from_document(_without_model(params), min_rows=min_rows))

    def params(self) -> dict[str, Any]:
        """Return the parameters; `model` or `features`, whichever is given."""
        document = self.spec.document()
        unused = ("features", "edges") if self.spec.model else ("model",)
        return {key: value for key, value in document.items() if key not in unused}

    @property
    def model(self) -> str:
        """The model whose columns and score are looked at, or empty."""
        return self.spec.model

    @property
    def max_rounds(self) -> int:
        """Counts, in chunks of columns."""
        return max(500, len(self.spec.features)) + MORE_ROUNDS  # a model has at most 500 columns

    def operations(self) -> tuple[str, ...]:
        """Return the one operation."""
        return ("stability.counts",)

    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns."""
        return features_of(_given(model)) if self.spec.model else self.spec.features

    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return the columns."""
        return tuple(feature.name for feature in self.features(model))

    def program(self, inputs: Inputs) -> JobProgram:
        """Return the program."""
        before, after = inputs.rows
        return Stability(self.spec, before, after, model=inputs.model, members=inputs.members)

    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return the rounds of the one operation; the first has the most columns."""
        items = len(self.features(model)) + bool(self.spec.model)
        times = -(-items // chunks(items, 2 * SLOTS, members))
        return _first([Round("stability.counts", str(times), {})], first)

    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return the shifts."""
        assert isinstance(program, Stability)
        return Outcome(program.result.document())


def _without_model(params: Any) -> Any:
    """Refuse a version that is none: the specification takes any text."""
    model = params.get("model", "") if isinstance(params, dict) else ""
    if model and (not isinstance(model, str) or len(model) != 64 or set(model) - set("0123456789abcdef")):
        raise ChaotianError("BAD_DOCUMENT", "model is a version of 64 hex digits")
    return params
