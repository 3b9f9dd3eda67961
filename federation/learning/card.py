"""The model card: what a scorecard was made of, what it is fit for, and what it is not; for people who did not make it.

The form follows Mitchell et al., *Model Cards for Model Reporting* (FAT* 2019), with facts only: nothing in it is typed
in but purpose and names. The card lies beside the model and names its version, so that figures can be added later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins
from federation.learning.coding import Category
from federation.learning.evaluate import Evaluation
from federation.learning.model import Model

FORMAT = "chaotian-card/1"


@dataclass(frozen=True)
class ModelCard:
    """One model's card.

    Args:
        model: version.
        job: id of the job that made it.
        purpose: what it was made for; a use for anything else is outside of the grants. Empty where it is not known.
        dataset: name of the dataset at every member, or empty.
        members: who brought rows; empty where it is not known.
        as_of: day of the data, where all members state the same; else empty.
        label: what is predicted: the chance that it is 1.
        rows, bads: pooled training rows.
        training: how it was fitted: penalty, share held out, smallest cell, rounds, log-loss.
        columns: name, kind and, for bins, information value of every column.
        coefficients: name, value, standard error, z, p, variance inflation factor (None: not known); intercept first.
        points: scale and points of every bin; None for a model without points.
        left_out: columns of the job that tell nothing.
        evaluations: figures of the model over all members' rows, as documents of `evaluate` jobs.
        own: figures on this member's own held-out rows, which stay at home; None elsewhere.
        limits: what to know before using it.
    """

    model: str
    job: str
    purpose: str
    dataset: str
    members: tuple[str, ...]
    as_of: str
    label: str
    rows: int
    bads: int
    training: Mapping[str, Any]
    columns: tuple[Mapping[str, Any], ...]
    coefficients: tuple[Mapping[str, Any], ...]
    points: Mapping[str, Any] | None
    left_out: tuple[str, ...]
    evaluations: tuple[Mapping[str, Any], ...]
    own: Mapping[str, Any] | None
    limits: tuple[str, ...]

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        purpose: str = "",
        dataset: str = "",
        members: Sequence[str] = (),
        as_of: str = "",
        own: Mapping[str, Any] | None = None,
    ) -> ModelCard:
        """Return the card of a model that has not been evaluated yet.

        Args:
            own: {"rows", "bads", "federated", "local"} as `compare` returns it.
        """
        document, training = model.document, model.document["training"]
        return cls(
            model=model.version,
            job=str(document["job"]),
            purpose=purpose,
            dataset=dataset,
            members=tuple(sorted(members)),
            as_of=as_of,
            label=model.label,
            rows=training["rows"],
            bads=training["bads"],
            training=_training(model),
            columns=tuple(_column(part) for part in model.coding.parts),
            coefficients=tuple(asdict(line) for line in model.coefficients),
            points=document.get("points"),
            left_out=tuple(document.get("left_out", ())),
            evaluations=(),
            own=own,
            limits=tuple(_limits(model)),
        )

    def with_evaluation(self, evaluation: Evaluation) -> ModelCard:
        """Return the card with further figures.

        Raises:
            ChaotianError: MODEL_HASH where they are those of another model.
        """
        return self.with_figures(evaluation.document())

    def with_figures(self, figures: Mapping[str, Any]) -> ModelCard:
        """Return the card with the document of an evaluation, likewise."""
        if figures.get("model") != self.model:
            raise ChaotianError("MODEL_HASH", "the figures are those of another model")
        return replace(self, evaluations=(*self.evaluations, figures))

    def document(self) -> dict[str, Any]:
        """Return the card as JSON."""
        return {
            "format": FORMAT,
            "model": self.model,
            "job": self.job,
            "purpose": self.purpose,
            "data": {
                "dataset": self.dataset,
                "members": list(self.members),
                "as_of": self.as_of,
                "label": self.label,
                "rows": self.rows,
                "bads": self.bads,
            },
            "training": dict(self.training),
            "columns": [dict(column) for column in self.columns],
            "coefficients": [dict(line) for line in self.coefficients],
            "points": None if self.points is None else dict(self.points),
            "left_out": list(self.left_out),
            "evaluations": [dict(evaluation) for evaluation in self.evaluations],
            "own": None if self.own is None else dict(self.own),
            "limits": list(self.limits),
        }


def _training(model: Model) -> dict[str, Any]:
    document, last = model.document, model.document["convergence"]["history"][-1]
    binned = any(isinstance(part, ColumnBins) for part in model.coding.parts)
    return {
        "coding": "woe" if binned else "raw",
        "penalty": document["penalty"],
        "holdout": document["training"].get("holdout"),
        "min_rows": document["training"]["min_rows"],
        "rounds": len(document["convergence"]["history"]),
        "log_loss": float(last["log_loss"]),
        "gradient": float(last["gradient"]),
        "standard_errors": document["standard_errors"],
    }


def _column(part: Any) -> dict[str, Any]:
    if isinstance(part, ColumnBins):
        bins = {"bins": list(part.labels), "information": repr(part.information)}
        return {"name": part.name, "kind": f"{part.type}, {len(part.counts)} bins", **bins}
    if isinstance(part, Category):
        return {"name": part.name, "kind": f"category, {len(part.kept)} levels against {', '.join(part.against)}"}
    return {"name": part.name, "kind": "numeric, z-score" + (", missing values as the mean" if part.impute else "")}


def _limits(model: Model) -> list[str]:
    training, penalty = model.document["training"], model.document["penalty"]
    out = [
        f"Fitted on {training['rows']} rows with {training['bads']} bad; other populations need an evaluation first.",
        "Probabilities are as frequent as bad rows were in training; where that share differs, recalibrate.",
        "Counts and coefficients come from exact sums over the members' rows, without differential privacy.",
    ]
    if penalty:
        out.append(f"Coefficients are shrunk (penalty {penalty:g}): standard errors and p describe the penalised fit.")
    if training["bads"] < 10 * (len(model.coefficients) - 1):
        out.append("Fewer than ten bad rows a coefficient: coefficients may be far from those of more rows.")
    unseen = [part.name for part in model.coding.parts if isinstance(part, ColumnBins) and part.missing < 0]
    if unseen:
        out.append(f"Training had no missing values in {', '.join(unseen)}: one counts as neither good nor bad.")
    tied = [line.name for line in model.coefficients if line.vif is not None and line.vif > 10]
    if tied:
        out.append(f"Hard to tell apart from other columns (variance inflation above 10): {', '.join(tied)}.")
    return out
