"""What joining was worth to one member: the federated model beside one fitted on its own rows alone.

Everything here is computed by the member on its own rows, and nothing of it leaves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.coding import Category, Coding, Numeric, Part
from federation.learning.columns import numeric_or_missing
from federation.learning.exact import GRID_BITS
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.metrics import separation
from federation.learning.model import Model
from federation.learning.newton import Newton, local_sums
from federation.learning.scorecard import Scorecard
from federation.learning.woe import WoeScorecard, run_alone


def fit_alone(spec: ScorecardSpec, training: Frame) -> Model:
    """Return the scorecard this member would have by itself: the same objective and solver, its own rows only.

    Columns that are constant in the own rows drop out; levels that do not occur count as the reference. Floors do
    not apply, as nothing is published.

    Raises:
        ChaotianError: ONE_CLASS, SEPARABLE, SINGULAR or NOT_CONVERGED.
    """
    if spec.coding == "woe":
        # The own bins under the same rules; a floor that the own rows miss does not stop it, as nothing is published.
        program = WoeScorecard(replace(spec, holdout=0.0), training, members=1, strict=False)
        run_alone(program)
        return program.model("local")
    label = training.label(spec.label)
    if not 0 < label.sum() < len(label):
        raise ChaotianError("ONE_CLASS", "the own training rows have only one outcome")
    parts: list[Part] = []
    for feature in spec.features:
        if feature.type == "numeric":
            values = numeric_or_missing(training, feature.name) if spec.impute else training.numeric(feature.name)
            present = values[~np.isnan(values)]
            if len(present) and present.min() < present.max():
                mean = float(present.mean())
                filled = np.where(np.isnan(values), mean, values)
                parts.append(Numeric(feature.name, mean, float(filled.std()), bool(spec.impute)))
        else:
            counts = np.bincount(training.category(feature.name, feature.levels), minlength=len(feature.levels))
            kept = [level for level, count in zip(feature.levels, counts, strict=True) if count]
            # One level must stay as the reference: where the declared one does not occur, the first that does.
            drop = feature.levels[0] if counts[0] else kept[0]
            rest = tuple(level for level in kept if level != drop)
            if rest:
                parts.append(Category(feature.name, feature.levels, rest))
    coding = Coding(tuple(parts))
    newton = Newton([0] * len(coding.names), spec.penalty, spec.max_rounds)
    design = coding.design(training)
    while not newton.converged:
        loss, gradient, hessian = local_sums(design, label, newton.point)
        scaled = [[round(float(value) * 2**GRID_BITS) for value in part] for part in ([loss], gradient, hessian)]
        newton.advance(scaled[0][0], scaled[1], scaled[2])
    return Model.finished("local", spec, coding, newton, len(label), int(label.sum()))


def compare(program: Scorecard | WoeScorecard, model: Model) -> dict[str, Any]:
    """Return AUC, KS and Gini of the federated and of the own model on the own held-out rows.

    Returns:
        {"rows", "bads", "federated", "local"}; a part that cannot be computed is {"code": ...} with the reason.
    """
    holdout, label = program.own_holdout
    training, _ = program.own_training

    def figures(make: Any) -> dict[str, Any]:
        try:
            return separation(label, make().score(holdout)).document()
        except ChaotianError as error:
            return {"code": error.code}

    return {
        "rows": len(label),
        "bads": int(label.sum()),
        "federated": figures(lambda: model),
        "local": figures(lambda: fit_alone(program.spec, training)),
    }
