"""The kind `fedavg`: rounds of an installed Flower app, whose clipped updates are averaged through the secure sum."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from federation.errors import ChaotianError
from federation.learning.fedavg import OPERATION, FedAvg
from federation.learning.fedavg_arrays import arrays_digest, initial_arrays
from federation.learning.fedavg_spec import FedAvgSpec
from federation.learning.frame import Feature, Frame
from federation.learning.model import Model
from federation.primitives.entropy import SystemEntropy
from federation.rounds.means import ServerStep, check_options
from federation.rounds.trainer import AppTrainer
from federation.secure_sum.terms import VERIFIED_BYTES, Layout, Noise
from gateway.jobs import apps
from gateway.jobs.app_config import check_config
from gateway.jobs.plan import Inputs, JobPlan, JobProgram, Outcome, Round, check_holdout, select, selection

FORMAT = "chaotian-fedavg/1"


@dataclass(frozen=True)
class FedAvgPlan(JobPlan):
    """`fedavg`: federated averaging of any installed Flower app with NumPy arrays."""

    spec: FedAvgSpec

    kind = "fedavg"
    title = "federated averaging of an installed Flower app"
    result_to = ("platform", "both")

    def __post_init__(self) -> None:
        if self.spec.noise is None and not self.spec.unverified:
            # Else members would train on arrays of which only the platform says where they come from.
            object.__setattr__(self, "result_to", ("both",))

    @property
    def leaks(self) -> tuple[str, ...]:  # type: ignore[override]
        """What can be read from the mean."""
        spec, readers = self.spec, "to the platform, and to the members, who train on it"
        mean = f"the mean of all members' clipped updates in every round, and the model: {readers}"
        if spec.noise is None:
            out = [
                mean,
                "what an update shows of the rows behind it: with few members a mean may show what one of them has",
                "beside a lost member: about that member's own update, from the means before and after",
                "beside another job without noise on the same rows, with another limit of weights, clipping bound or "
                "config: one member's own update; it runs only where every member of both jobs consents",
                "a config that lets few rows count: these rows",
            ]
            if spec.weighting == "rows":
                out.append("the summed weight, that is pooled training rows as far as they count")
            if spec.unverified:
                out.append("arrays that a platform chose: members do not add its totals up, and no noise is on")
            return tuple(out)
        return (
            mean,
            f"noise of {spec.noise.honest} honest members: whether one whole member took part stays within (ε, δ); "
            "what all members have in common does not",
        )

    @classmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan; BAD_DOCUMENT."""
        spec = FedAvgSpec.from_document(params, min_rows=min_rows)
        check_holdout(spec.holdout)
        check_options(spec.strategy, spec.options)
        check_config(spec)
        return cls(spec)

    def params(self) -> dict[str, Any]:
        """Return the parameters."""
        return self.spec.document()

    def verified(self, result_to: str) -> bool:
        """Under `both`, unless the job says otherwise; under `platform` members get no total to add up."""
        return result_to == "both" and not self.spec.unverified

    def noise(self, members: int) -> Noise | None:
        """Return every member's share."""
        return self.spec.terms_noise(members)

    def loss(self, members: int) -> float | None:
        """Return ρ of a round; None without noise."""
        return None if self.spec.noise is None else self.spec.round_loss(members)

    @property
    def max_rounds(self) -> int:
        """As agreed."""
        return self.spec.rounds

    def operations(self) -> tuple[str, ...]:
        """Return the one operation."""
        return (OPERATION,)

    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns that the app is given."""
        return self.spec.features

    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return label and features."""
        return self.spec.columns

    def selection(self) -> str:
        """Return the training rows."""
        return selection(self.spec.holdout, self.spec.seed)

    def program(self, inputs: Inputs) -> JobProgram:
        """Return the program over the installed app.

        Raises:
            ChaotianError: APP_UNKNOWN, APP_FAILED; UNVERIFIABLE where members could not add the totals up; DATA_*.
        """
        spec, rows = self.spec, inputs.rows[0]
        transcript = spec.layout(inputs.members).byte_length * inputs.members
        if not spec.unverified and spec.noise is None and transcript > VERIFIED_BYTES:
            raise ChaotianError(
                "UNVERIFIABLE",
                f"the transcript of a round would have {transcript} bytes, members add up at most {VERIFIED_BYTES}",
                hint="Say unverified = true where all members trust the platform's totals, or agree on noise.",
            )
        return MeanProgram(spec, rows, self.selection(), inputs.members)

    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return the rounds, all alike."""
        fields = {field.name: field.length for field in first.fields}
        return [Round(OPERATION, str(self.spec.rounds), fields, first)]

    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return the trained arrays, and the app's figures on the own held-out rows before and after."""
        assert isinstance(program, MeanProgram)
        buffer = io.BytesIO()
        np.savez(buffer, **program.arrays)  # type: ignore[arg-type]
        return Outcome(result_document(self.spec, program), program.figures(), arrays=buffer.getvalue())


class MeanProgram(FedAvg):
    """A member's program over its rows and the installed app."""

    def __init__(self, spec: FedAvgSpec, rows: Frame, selected: str, members: int) -> None:
        enters = select(rows, selected)
        training = rows.take(enters)
        self._trainer = AppTrainer(
            apps.load(spec.app, spec.digest),
            member="member",
            job=spec.digest,
            config=spec.app_config,
            features=spec.features,
            label=spec.label,
            training=training,
            held_out=rows.take(~enters),
        )
        self.members = members
        super().__init__(
            spec,
            train=self._trainer,
            step=lambda: ServerStep(spec.strategy, spec.options),
            rows=len(training),
            entropy=SystemEntropy(),
            members=members,
        )

    def figures(self) -> Mapping[str, Any]:
        """Return the app's figures on the own held-out rows, by the first arrays and by the trained ones."""
        try:
            before = self._trainer.evaluate(1, initial_arrays(self.spec))
            after = self._trainer.evaluate(self.round, self.arrays)
        except ChaotianError:  # an app need not evaluate
            return {}
        return {"before": before, "after": after} if after else {}


def result_document(spec: FedAvgSpec, program: MeanProgram) -> dict[str, Any]:
    """Return what all members and the platform hold alike after the last round."""
    out: dict[str, Any] = {
        "format": FORMAT,
        "arrays": arrays_digest(program.arrays).hex(),
        "app": {"name": spec.app, "digest": spec.digest},
        "layers": [{"name": layer.name, "shape": list(layer.shape)} for layer in spec.layers],
        "rounds": spec.rounds,
        "strategy": spec.strategy,
        "privacy": None,
    }
    if spec.noise is not None:
        out["privacy"] = {
            "unit": "one member with all its rows",
            "epsilon": repr(spec.epsilon(program.members)),
            "delta": repr(spec.noise.delta),
            "rho": repr(spec.rounds * spec.round_loss(program.members)),
            "honest": spec.noise.honest,
        }
    return out
