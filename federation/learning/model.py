"""A finished scorecard: a document with a version hash, and the scores it gives."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.coding import Coding
from federation.learning.exact import GRID_BITS, nearest_float, real_arithmetic
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.newton import Newton
from federation.primitives.encoding import canonical_json

FORMAT = "chaotian-scorecard/1"
ERRORS_FORMULA = "sqrt(diag((H + penalty * I)^-1)), H the pooled Hessian of the log-loss, the intercept not penalised"
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Coefficient:
    """One line of the scorecard.

    Args:
        name: column, `column=level`, or `(intercept)`.
        value: change of the log-odds for one standard deviation, or for the level against the reference.
        standard_error, z, p: of the penalised fit; p is two-sided for value = 0.
        vif: variance inflation factor; None for the intercept, and where columns depend on each other linearly.
    """

    name: str
    value: float
    standard_error: float
    z: float
    p: float
    vif: float | None = None


@dataclass(frozen=True)
class Model:
    """A scorecard as a canonical document; what identifies it is the hash of all of it.

    `document` holds: format, job, label, penalty, coding, coefficients, convergence, training, version; and where they
    apply: points (of a WOE scorecard's bins), left_out (its columns without information).
    """

    document: Mapping[str, Any]

    @classmethod
    def finished(
        cls,
        job: str,
        spec: ScorecardSpec,
        coding: Coding,
        newton: Newton,
        rows: int,
        bads: int,
        *,
        vif: Sequence[float | None] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Model:
        """Return the model of a converged iteration.

        Args:
            vif: variance inflation factors of all coefficients but the intercept, where they are known.
            extra: further parts of the document, of `OPTIONAL`.
        """
        lines: list[dict[str, Any]] = []
        factors = [None, *vif] if vif else [None] * len(coding.names)
        with real_arithmetic():
            for name, value, error, factor in zip(coding.names, newton.beta, newton.errors, factors, strict=True):
                beta, sd = nearest_float(Fraction(value, 1 << GRID_BITS)), float.fromhex(error)
                z = gmpy2.mpfr(beta) / gmpy2.mpfr(sd)
                p = gmpy2.erfc(abs(z) / gmpy2.sqrt(gmpy2.mpfr(2)))
                lines.append(
                    {
                        "name": name,
                        "value": repr(beta),
                        "hex": beta.hex(),
                        "standard_error": repr(sd),
                        "z": repr(float(z)),
                        "p": repr(float(p)),
                        **({} if factor is None else {"vif": repr(factor)}),
                    }
                )
        body = {
            "format": FORMAT,
            "job": job,
            "label": spec.label,
            "penalty": spec.penalty,
            "coding": [_readable(part) for part in coding.document()],
            "coefficients": lines,
            "standard_errors": ERRORS_FORMULA,
            "convergence": {
                "converged": newton.converged,
                "rounds": len(newton.history),
                "history": [
                    {
                        "log_loss": repr(entry.log_loss),
                        "gradient": repr(entry.gradient),
                        "max_step": repr(entry.max_step),
                        "decrement": repr(entry.decrement),
                        "halvings": entry.halvings,
                    }
                    for entry in newton.history
                ],
            },
            "training": {"rows": rows, "bads": bads, "min_rows": spec.min_rows, "holdout": spec.holdout},
        }
        body |= extra or {}
        return cls({**body, "version": _version(body)})

    @classmethod
    def load(cls, document: Any) -> Model:
        """Return the model of a JSON document after checking its form and its hash.

        Raises:
            ChaotianError: BAD_DOCUMENT where a part is missing or wrong; MODEL_HASH where the content was changed.
        """
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise ChaotianError("BAD_DOCUMENT", f"expected a model in the format {FORMAT}")
        body = {key: value for key, value in document.items() if key != "version"}
        if document.get("version") != _version(body):
            raise ChaotianError("MODEL_HASH", "the model's content does not have the hash it states")
        model = cls(dict(document))
        try:
            _check(model)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            raise ChaotianError("BAD_DOCUMENT", "a part of the model is missing or does not fit the others") from None
        return model

    @property
    def version(self) -> str:
        """SHA-256 over the canonical JSON of everything but the version itself, in hexadecimal."""
        return str(self.document["version"])

    @property
    def label(self) -> str:
        """Column of the outcome."""
        return str(self.document["label"])

    @property
    def coding(self) -> Coding:
        """How columns become coefficients."""
        parts = self.document["coding"]
        drop = ("mean_decimal", "sd_decimal", "merged")
        return Coding.from_document([{key: v for key, v in part.items() if key not in drop} for part in parts])

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a row to be scored must have."""
        return tuple(part.name for part in self.coding.parts)

    @property
    def coefficients(self) -> list[Coefficient]:
        """The lines of the scorecard, the intercept first."""
        return [
            Coefficient(
                str(line["name"]),
                float.fromhex(line["hex"]),
                float(line["standard_error"]),
                float(line["z"]),
                float(line["p"]),
                float(line["vif"]) if "vif" in line else None,
            )
            for line in self.document["coefficients"]
        ]

    def score(self, frame: Frame) -> NDArray[np.float64]:
        """Return the log-odds of being bad, one a row.

        Raises:
            ChaotianError: DATA_* or NOT_FINITE where a column does not fit.
        """
        coding = self.coding
        beta = np.array([line.value for line in self.coefficients])
        design = coding.design(frame)
        out = np.empty(len(frame))
        for start in range(0, len(frame), _BLOCK):
            out[start : start + _BLOCK] = (design[start : start + _BLOCK] * beta).sum(axis=1)
        return out


_KEYS = {
    *("format", "job", "label", "penalty", "coding", "coefficients"),
    *("standard_errors", "convergence", "training", "version"),
}
OPTIONAL = {"points", "left_out"}
_NUMBERS = ("log_loss", "gradient", "max_step", "decrement")


def _check(model: Model) -> None:
    """Raise one of the usual exceptions where a document with the right hash is no scorecard all the same."""
    document = model.document
    training, history, lines = document["training"], document["convergence"]["history"], model.coefficients
    numbers = [value for line in lines for value in (line.value, line.standard_error, line.z, line.p)]
    numbers += [line.vif for line in lines if line.vif is not None]
    numbers += [float(entry[name]) for entry in history for name in _NUMBERS]
    whole = [training["rows"], training["bads"], training["min_rows"]]
    texts = [document["job"], document["label"], *(line["value"] for line in document["coefficients"])]
    if (
        set(document) - OPTIONAL != _KEYS
        or tuple(line.name for line in lines) != model.coding.names
        or not all(map(math.isfinite, numbers))
        or any(type(value) is not int for value in whole)
        or type(document["penalty"]) not in (int, float)
        or not all(isinstance(value, str) for value in texts)
        or any(float(line["value"]) != float.fromhex(line["hex"]) for line in document["coefficients"])
        or not history
    ):
        raise ValueError


def probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-log_odds)), without overflow."""
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)


def _readable(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "numeric":
        return {
            **part,
            "mean_decimal": repr(float.fromhex(part["mean"])),
            "sd_decimal": repr(float.fromhex(part["sd"])),
        }
    if part["type"] == "woe":
        return part
    merged = [level for level in part["levels"][1:] if level not in part["kept"]]
    return {**part, "merged": merged}


def _version(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(b"chaotian/model/v1\x00" + canonical_json(dict(body))).hexdigest()
