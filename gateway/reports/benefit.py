"""What joining is worth to each member: its own model, the federated one, and (in the lab only) the pooled one.

Two models are compared on the same rows, so their AUCs are not independent: the interval of the gain is DeLong's for
paired curves (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988). A gain counts as one only where the whole
interval lies above zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.metrics import Z95, midranks, separation

Column = NDArray[np.float64]
PAYS, COSTS, UNCLEAR, ONLY, NOTHING = "pays", "costs", "no clear difference", "only together", "cannot be measured"


@dataclass(frozen=True)
class Scored:
    """One member's rows with the outcome and the log-odds by each model; NaN where a model has no score.

    Args:
        label: 1 = bad.
        federated: by the federated model.
        local: by the member's own model, None where it has none.
        pooled: by the pooled model, None outside the lab.
        why: code of what stood in the way of the own model.
    """

    label: Column
    federated: Column
    local: Column | None = None
    pooled: Column | None = None
    why: str = ""

    @classmethod
    def empty(cls, rows: int) -> Scored:
        """Return `rows` rows without any score, to be filled with `put`."""
        nothing = np.full(rows, np.nan)
        return cls(nothing, nothing, nothing, nothing)

    def put(self, mask: NDArray[np.bool_], other: Scored) -> Scored:
        """Return a copy with the rows of `mask` taken from `other`; without a local model in one part there is none."""

        def taken(mine: Column, theirs: Column) -> Column:
            out = mine.copy()
            out[mask] = theirs
            return out

        def both(mine: Column | None, theirs: Column | None) -> Column | None:
            return None if mine is None or theirs is None else taken(mine, theirs)

        return replace(
            self,
            label=taken(self.label, other.label),
            federated=taken(self.federated, other.federated),
            local=both(self.local, other.local),
            pooled=both(self.pooled, other.pooled),
            why=self.why or other.why,
        )


def figures(label: Column, score: Column | None, why: str = "") -> dict[str, Any]:
    """Return rows, bads, AUC with interval, KS and Gini; or {"code"} with what stood in the way."""
    if score is None:
        return {"code": why or "NOT_FOUND"}
    try:
        return dict(separation(label, score).document())
    except ChaotianError as error:
        return {"code": error.code}


def gain(label: Column, base: Column, new: Column) -> dict[str, float]:
    """Return AUC of `new` minus AUC of `base` on the same rows, with its 95 % interval (paired DeLong).

    Returns:
        {"auc", "low", "high"}.

    Raises:
        ChaotianError: ONE_CLASS.
    """
    bad = label == 1.0
    m, n = int(bad.sum()), int(len(label) - bad.sum())
    if not m or not n:
        raise ChaotianError("ONE_CLASS", "the rows to compare on have only one outcome")
    # Each curve's placements: for a bad row the share of goods below it, for a good row the share of bads above it.
    of_bad, of_good = [], []
    for score in (new, base):
        ranks = midranks(score)
        of_bad.append((ranks[bad] - midranks(score[bad])) / n)
        of_good.append(1.0 - (ranks[~bad] - midranks(score[~bad])) / m)
    difference = float(of_bad[0].mean() - of_bad[1].mean())
    variance = 0.0
    for parts, count in ((of_bad, m), (of_good, n)):
        if count > 1:
            variance += float((parts[0] - parts[1]).var(ddof=1)) / count
    reach = Z95 * math.sqrt(variance)
    return {"auc": difference, "low": difference - reach, "high": difference + reach}


def verdict(local: Mapping[str, Any], federated: Mapping[str, Any], change: Mapping[str, float] | None) -> str:
    """Return in a few words what joining was worth."""
    if "code" in federated:
        return NOTHING
    if "code" in local or change is None:
        return ONLY
    if change["low"] > 0:
        return PAYS
    return COSTS if change["high"] < 0 else UNCLEAR


def member_benefit(scored: Scored) -> dict[str, Any]:
    """Return one member's figures: rows, bads, local, federated, pooled where there is one, gain, verdict."""
    local = figures(scored.label, scored.local, scored.why)
    federated = figures(scored.label, scored.federated)
    change = None
    if scored.local is not None and "code" not in local and "code" not in federated:
        change = gain(scored.label, scored.local, scored.federated)
    out = {
        "rows": len(scored.label),
        "bads": int(scored.label.sum()),
        "local": local,
        "federated": federated,
        "gain": change,
        "verdict": verdict(local, federated, change),
    }
    if scored.pooled is not None:
        out["pooled"] = figures(scored.label, scored.pooled)
        out["max_logit_difference"] = _largest(scored.federated - scored.pooled)
    return out


def benefit(scored: Mapping[str, Scored], trained: Mapping[str, tuple[int, int]], evaluated: str) -> dict[str, Any]:
    """Return the benefit report of all members as a document.

    Args:
        scored: by member.
        trained: rows and bads of each member that trained the model.
        evaluated: `test` (all on the same rows), or each on its own: `holdout`, `folds`, `training`.
    """
    members = {
        name: {"trained": {"rows": trained[name][0], "bads": trained[name][1]}, **member_benefit(each)}
        for name, each in scored.items()
    }
    verdicts = [member["verdict"] for member in members.values()]
    return {
        "evaluated_on": evaluated,
        "members": members,
        "verdicts": {word: verdicts.count(word) for word in (PAYS, UNCLEAR, COSTS, ONLY, NOTHING) if word in verdicts},
    }


def together(scored: Mapping[str, Scored], evaluated: str) -> Scored:
    """Return all rows that were scored, each once; the local scores are each member's own on its own rows."""
    parts = list(scored.values())
    if evaluated == "test":
        return replace(parts[0], local=None)
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Scored(
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.federated for part in parts]),
        None,
        np.concatenate(pooled) if len(pooled) == len(parts) else None,
    )


def _largest(difference: Column) -> float | None:
    return float(np.abs(difference).max()) if len(difference) else None
