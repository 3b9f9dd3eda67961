"""The closed lists a grant draws from, each entry with what it means and how far it is kept.

A word that is not here is refused when a grant is loaded. A word that later work will enforce stands in
`RESERVED` and is refused too, with another code: nothing is ever accepted and then ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Label(Enum):
    """How far a clause is kept; the first is never claimed for the last."""

    ENFORCED = "Enforced"  # the owner's own node refuses what breaks it
    DETECTABLE = "Detectable"  # a breach leaves a trace that the owner or a witness can find
    CONTRACTUAL = "Contractual"  # a promise; only law stands behind it


@dataclass(frozen=True)
class Meaning:
    """One word of a closed list."""

    title: str
    text: str
    label: Label


# What a result may be used for. Which purpose a *request* names is enforced; what is done with a result that has
# left is a promise, and the text is what the parties sign.
PURPOSES: Mapping[str, Meaning] = {
    "credit-risk-model": Meaning(
        "Credit risk model",
        "To fit and check a model that estimates the probability of default of business borrowers, and to use it in "
        "the grantee's own lending decisions. Not for marketing, pricing of insurance, or employment decisions.",
        Label.CONTRACTUAL,
    ),
    "model-validation": Meaning(
        "Model validation",
        "To measure how well an existing model ranks and calibrates on the owner's data, and for no other decision.",
        Label.CONTRACTUAL,
    ),
    "portfolio-monitoring": Meaning(
        "Portfolio monitoring",
        "To observe the development of risk in the grantee's existing portfolio as totals over all members.",
        Label.CONTRACTUAL,
    ),
    "early-warning": Meaning(
        "Early warning",
        "To recognise rising stress in an industry or a region as totals over all members.",
        Label.CONTRACTUAL,
    ),
    "fraud-detection": Meaning(
        "Fraud detection",
        "To fit and check a model that recognises fraudulent applications or double financing.",
        Label.CONTRACTUAL,
    ),
    "statistics": Meaning(
        "Statistics",
        "To publish descriptive totals that concern no single business.",
        Label.CONTRACTUAL,
    ),
}

# Personal Information Protection Law (PIPL) art. 13 (1), and Data Security Law (DSL), of the PRC.
LEGAL_BASES: Mapping[str, Meaning] = {
    "pipl-13-1": Meaning("Consent", "PIPL art. 13 (1) no. 1: the individual's consent.", Label.CONTRACTUAL),
    "pipl-13-2": Meaning(
        "Contract",
        "PIPL art. 13 (1) no. 2: necessary to conclude or perform a contract to which the individual is a party.",
        Label.CONTRACTUAL,
    ),
    "pipl-13-3": Meaning(
        "Statutory duty", "PIPL art. 13 (1) no. 3: necessary for a statutory duty or responsibility.", Label.CONTRACTUAL
    ),
    "pipl-13-7": Meaning(
        "Other law", "PIPL art. 13 (1) no. 7: another case that laws or regulations provide for.", Label.CONTRACTUAL
    ),
    "dsl-business-data": Meaning(
        "Business data", "Data about enterprises that identifies no individual; DSL art. 32.", Label.CONTRACTUAL
    ),
    "anonymised": Meaning(
        "Anonymised", "PIPL art. 4 and 73 no. 4: anonymised before use; only totals are formed.", Label.CONTRACTUAL
    ),
}

DUTIES: Mapping[str, Meaning] = {
    "no-reidentification": Meaning(
        "No re-identification", "Nobody tries to learn about a single business from a result.", Label.CONTRACTUAL
    ),
    "no-onward-transfer": Meaning(
        "No onward transfer", "A result is not passed on outside the roster it was computed for.", Label.CONTRACTUAL
    ),
    "delete-at-expiry": Meaning(
        "Delete at expiry", "Models and totals made under the grant are deleted when it ends.", Label.CONTRACTUAL
    ),
    "human-review": Meaning(
        "Human review", "No automated refusal of credit without review by a person (PIPL art. 24).", Label.CONTRACTUAL
    ),
    "notify-breach": Meaning(
        "Notify a breach", "A breach concerning results is reported to the owner within 72 hours.", Label.CONTRACTUAL
    ),
    "log-every-use": Meaning(
        "Log every use",
        "Every use is a leaf of the owner's log before anything is released; a missing one shows in the log.",
        Label.DETECTABLE,
    ),
}

# How a column may leave. Only `aggregate` has an operation that enforces it so far.
DISCLOSURES: Mapping[str, str] = {
    "never": "does not enter any computation",
    "aggregate": "enters totals over all members and nothing else",
}

# What may be summed; a request's operation is one of these words, a dot and its step. A kind of job needs each word of
# its rounds (docs/jobs): a scorecard on weights of evidence `scorecard`, `binning` and, for its edges, `columns`.
OPERATIONS: Mapping[str, str] = {
    "binning": "good and bad rows of every bin, for common bins, weight of evidence and information value",
    "columns": "histograms of single numeric columns, for quantiles and for edges of equal frequency",
    "evaluate": "good and bad rows by score of a model, its Brier score and log-loss",
    "fedavg": "the mean of clipped updates of a model that an installed app trains, round by round",
    "profile": "values present, missing and out of domain, sums and moments of single columns, counts of levels",
    "scorecard": "logistic regression by summed statistics, gradients and Hessians",
    "stability": "rows by bin of single columns and of a score, at two dates",
}

# Steps of each, as they stand in the release ledger and in the log.
STEPS: Mapping[str, tuple[str, ...]] = {
    "binning": ("binning.counts",),
    "columns": ("columns.histogram",),
    "evaluate": ("evaluate.scores",),
    "fedavg": ("fedavg.update",),
    "profile": ("profile.counts", "profile.moments"),
    "scorecard": ("scorecard.counts", "scorecard.moments", "scorecard.newton"),
    "stability": ("stability.counts",),
}

# Nothing bounds what totals of these show of single rows: permitted within a budget, or where a grant says `exact`.
UNBOUNDED = frozenset({"fedavg"})

OUTPUTS: Mapping[str, str] = {"total": "a sum over the whole roster"}

# What `result_to` of an operation permits a job to choose.
RESULT_TO: Mapping[str, frozenset[str]] = {
    "members": frozenset({"members"}),
    "platform": frozenset({"platform"}),
    "both": frozenset({"members", "platform", "both"}),
}

PERIODS: Mapping[str, int | None] = {  # seconds; None: as long as the grant lives
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
    "grant": None,
}

SCOPES = ("grant",)  # what shares one privacy budget: all jobs under one grant

GRADES = range(1, 6)  # security levels of financial data, JR/T 0197-2020: 1 public … 5 most sensitive

# Part of the format, not enforced yet: dotted key -> why it waits. Never accepted silently.
RESERVED_FIELDS = frozenset(
    {
        "rows",
        "case_binding",
        "place",
        "env",
        "approval",
        "delegation",
        "meter",
        "onward",
        "ops.template",
        "ops.max_contribution",
        "ops.dp",
        "quota.per_subject",
        "quota.burst",
        "quota.hours",
    }
)
RESERVED_DISCLOSURES = frozenset({"join", "bit", "band", "encrypted", "exact"})
RESERVED_REVOCATION = frozenset({"finish"})
