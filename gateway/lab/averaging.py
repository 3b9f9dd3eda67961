"""`chaotian lab train --job fedavg`: the example perceptron over anyone's files, averaged through the secure sum.

Centre and spread of numeric columns come from a `profile` through the secure sum; the rounds are those of a `fedavg`
job under `result_to = both`, totals added up again by every member. Beside it stands what each member's rows, and all
rows in one place, give with the same app, rounds and configuration, without clipping.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.fedavg import FedAvg
from federation.learning.fedavg_arrays import Arrays, arrays_digest, initial_arrays
from federation.learning.fedavg_spec import FedAvgSpec
from federation.learning.frame import Frame
from federation.learning.holdout import held_out
from federation.learning.profile import Profile, ProfileSpec
from federation.primitives.entropy import Entropy
from federation.rounds import mlp_app
from federation.rounds.means import ServerStep, check_options
from federation.rounds.trainer import AppTrainer
from federation.secure_sum.local import run_rounds
from gateway.datasets.sources import Source
from gateway.jobs.apps import find
from gateway.jobs.fedavg_plan import FORMAT
from gateway.lab.metered import MeteredFederation
from gateway.lab.output import prepare, write_scores
from gateway.lab.tables import Tables, read_tables
from gateway.lab.training import OnStep, quiet
from gateway.reports.benefit import Scored, benefit, figures, together

APP = "mlp"


@dataclass(frozen=True)
class AveragingParameters:
    """The `--param`s of `fedavg` in the lab.

    Args:
        rounds, epochs, hidden, batch: of training, local passes over the rows in each, hidden units, rows in a batch.
        rate, penalty: of stochastic gradient descent.
        clip: largest L2 norm of a member's update of each layer.
        strategy: of the server step; `server_rate` is its `eta`, for those that have one.
        noise: multiplier of the distributed noise, 0: none; `honest` members are counted on, `delta` stated.
        holdout, seed: as for a scorecard.
    """

    rounds: int = 20
    epochs: int = 1
    hidden: int = 8
    batch: int = 64
    rate: float = 0.1
    penalty: float = 1e-4
    clip: float = 1.0
    strategy: str = "FedAvg"
    server_rate: float = 0.1
    noise: float = 0.0
    honest: int = 2
    delta: float = 1e-6
    holdout: float = 0.2
    seed: str = "1"


def parse(given: Sequence[str]) -> AveragingParameters:
    """Return the parameters of the `KEY=VALUE`s; USAGE naming the key."""
    found: dict[str, Any] = {}
    known = AveragingParameters.__dataclass_fields__
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise ChaotianError("USAGE", f"fedavg has no parameter {key[:60]}", hint=f"It has: {', '.join(known)}.")
        default: Any = known[key].default
        try:
            found[key] = type(default)(value)
        except ValueError:
            raise ChaotianError("USAGE", f"--param {key} is not as {default}") from None
        number = found[key]
        if not isinstance(number, str) and not 0 <= number <= 1e6:
            raise ChaotianError("USAGE", f"--param {key} is a number from 0 to 1,000,000")
    parameters = AveragingParameters(**found)
    if not 0 <= parameters.holdout <= 0.9 or min(parameters.epochs, parameters.hidden, parameters.batch) < 1:
        raise ChaotianError("USAGE", "holdout lies between 0 and 0.9; epochs, hidden and batch are at least 1")
    return parameters


def train(
    members: Mapping[str, Path | Source],
    *,
    identifier: str,
    label: str,
    test: Path | Source | None,
    parameters: AveragingParameters,
    out: Path,
    drop: Sequence[str] = (),
    category: Sequence[str] = (),
    entropy: Entropy,
    on_step: OnStep = quiet,
) -> dict[str, Any]:
    """Read, train, compare, and write DIR; return the document of result.json.

    Raises:
        ChaotianError: DATA_*, USAGE, BAD_DOCUMENT, or what the job ends with.
    """
    begun = time.perf_counter()
    prepare(out)
    (out / "model.npz").unlink(missing_ok=True)
    on_step("reading files", 0, 1)
    tables = read_tables(
        members, identifier=identifier, label=label, test=test, drop=tuple(drop), category=tuple(category), missing=True
    )
    kept: dict[str, Frame] = dict(tables.frames)
    evaluated = "test" if test is not None else "holdout" if parameters.holdout else "training"
    masks = {name: held_out(frame.ids, parameters.seed, parameters.holdout) for name, frame in kept.items()}
    training = {n: f.take(~masks[n]) for n, f in kept.items()} if evaluated == "holdout" else kept
    started = time.perf_counter()
    spec = _spec(tables, training, parameters, entropy, on_step)
    fit = _federated(spec, training, entropy, on_step)
    seconds = time.perf_counter() - started
    on_step("comparing with local and pooled models", 0, 1)
    measured = {n: f.take(masks[n]) for n, f in kept.items()} if evaluated == "holdout" else kept
    if tables.test is not None:
        measured = dict.fromkeys(kept, tables.test)
    arrays = next(iter(fit.programs.values())).arrays  # type: ignore[attr-defined]
    scored = _scored(spec, arrays, training, measured) if _has_label(tables, label) else {}
    rows = {"test": tables.test} if tables.test is not None else measured
    ids = [name for frame in rows.values() if frame is not None for name in frame.ids]
    scores = np.concatenate([_score(spec, arrays, frame) for frame in rows.values() if frame is not None])
    trained = {name: (len(frame), int(frame.label(label).sum())) for name, frame in training.items()}
    worth = benefit(scored, trained, evaluated) if scored else None
    whole = together(scored, evaluated) if scored else None
    model = {
        "format": FORMAT,
        "job": "lab",
        "arrays": arrays_digest(arrays).hex(),
        "params": spec.document(),
    }
    document = {
        "job": "fedavg",
        "split": "rows",
        "members": {name: {"rows": len(f), "columns": len(spec.features)} for name, f in kept.items()},
        "aligned_rows": sum(len(frame) for frame in training.values()),
        "rounds": spec.rounds,
        "seconds": round(seconds, 4),
        "bytes": {name: {"sent": fit.sent[name], "received": fit.received[name]} for name in fit.sent},
        "metrics": figures(whole.label, whole.federated) if whole else {"auc": None, "ks": None, "gini": None},
        "metrics_local": {name: m["local"] for name, m in (worth or {"members": {}})["members"].items()},
        "metrics_pooled": figures(whole.label, whole.pooled) if whole else {"auc": None, "ks": None, "gini": None},
        "max_logit_difference": None,
        "model_sha256": hashlib.sha256(_json(model).encode()).hexdigest(),
        "model_version": model["arrays"],
        "evaluated_on": evaluated,
        "epsilon": spec.epsilon(len(kept)),
        "delta": spec.noise.delta if spec.noise else None,
        "parameters": asdict(parameters),
        "processes": False,
        "total_seconds": round(time.perf_counter() - begun, 4),
        "warnings": tables.warnings,
        "version": version("chaotian"),
    }
    try:
        (out / "model.json").write_text(_json(model))
        np.savez(out / "model.npz", **arrays)
        write_scores(out, ids, scores)
        if worth:
            (out / "benefit.json").write_text(_json(worth))
        (out / "result.json").write_text(_json(document))
    except OSError as error:
        raise ChaotianError("STORAGE", f"{out} cannot be written: {os.strerror(error.errno or 0)}") from None
    return document


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _has_label(tables: Tables, label: str) -> bool:
    return tables.test is None or label in tables.test.columns


def _spec(
    tables: Tables, training: Mapping[str, Frame], given: AveragingParameters, entropy: Entropy, on_step: OnStep
) -> FedAvgSpec:
    """Return the job, with centre and spread of the columns from a profile of all members' rows."""
    on_step("profile: centre and spread of the columns", 0, 1)
    numeric = tuple(feature for feature in tables.features if feature.type == "numeric")
    center, spread = dict.fromkeys((f.name for f in tables.features), 0.0), {f.name: 1.0 for f in tables.features}
    if numeric:
        programs = {n: Profile(ProfileSpec(numeric), f, members=len(training)) for n, f in training.items()}
        run_rounds(MeteredFederation(programs, entropy, job="lab-profile"))
        for column in next(iter(programs.values())).result.columns:
            center[column.name] = column.mean or 0.0
            spread[column.name] = column.sd if column.sd and math.isfinite(column.sd) else 1.0
    inputs = sum(len(feature.levels) if feature.type == "category" else 1 for feature in tables.features)
    options = {"eta": given.server_rate} if given.strategy in ("FedAdagrad", "FedAdam", "FedYogi") else {}
    check_options(given.strategy, options)
    noise = {"multiplier": given.noise, "honest": given.honest, "delta": given.delta} if given.noise else {}
    if noise and given.honest >= len(training):
        raise ChaotianError("USAGE", "--param honest is below the number of members")
    return FedAvgSpec.from_document(
        {
            "app": APP,
            "digest": find(APP).digest,
            "label": tables.label,
            "features": [feature.document() for feature in tables.features],
            "layers": mlp_app.layers(inputs, given.hidden, given.clip),
            "rounds": given.rounds,
            "strategy": given.strategy,
            "options": options,
            "max_weight": 1 if noise else min(1 << 19, max(len(frame) for frame in training.values())),
            "seed": given.seed,
            "noise": noise,
            "config": {
                "epochs": given.epochs,
                "batch": given.batch,
                "learning-rate": given.rate,
                "penalty": given.penalty,
                "center": [center[feature.name] for feature in tables.features],
                "spread": [spread[feature.name] for feature in tables.features],
            },
        }
    )


def _trainer(spec: FedAvgSpec, frame: Frame, member: str) -> AppTrainer:
    return AppTrainer(
        mlp_app.app,
        member=member,
        job="lab",
        config=spec.app_config,
        features=spec.features,
        label=spec.label,
        training=frame,
    )


def _federated(spec: FedAvgSpec, training: Mapping[str, Frame], entropy: Entropy, on_step: OnStep) -> MeteredFederation:
    """Run the job over the production state machines; members hold the trained arrays."""
    programs = {
        name: FedAvg(
            spec,
            train=_trainer(spec, frame, name),
            step=lambda: ServerStep(spec.strategy, spec.options),
            rows=len(frame),
            entropy=entropy,
            members=len(training),
        )
        for name, frame in training.items()
    }
    federation = MeteredFederation(
        programs, entropy, job="lab-fedavg", result_to="both", noise=spec.terms_noise(len(training))
    )
    run_rounds(
        federation,
        max_rounds=spec.rounds,
        on_round=lambda round_, outcome: on_step(f"round {round_} of {spec.rounds}", round_, spec.rounds),
    )
    if len({arrays_digest(program.arrays) for program in programs.values()}) != 1:
        raise ChaotianError("STATE_MISMATCH", "the members hold different arrays")
    return federation


def _alone(spec: FedAvgSpec, frame: Frame) -> Arrays:
    """Return the arrays that one set of rows gives with the same app, rounds and configuration."""
    trainer, arrays = _trainer(spec, frame, "alone"), initial_arrays(spec)
    for round_ in range(1, spec.rounds + 1):
        arrays = dict(trainer(round_, arrays)[0])
    return arrays


def _score(spec: FedAvgSpec, arrays: Arrays, frame: Frame) -> NDArray[np.float64]:
    """Return the log-odds of rows."""
    columns = {**frame.columns, spec.label: np.zeros(len(frame))}  # a test file need not have outcomes
    context = _trainer(spec, Frame(frame.ids, columns), "score").context
    return mlp_app.log_odds(arrays, context, spec.config)


def _scored(
    spec: FedAvgSpec, arrays: Arrays, training: Mapping[str, Frame], measured: Mapping[str, Frame]
) -> dict[str, Scored]:
    """Return every member's measured rows with the scores of the federated, its own and the pooled arrays."""
    names = next(iter(training.values())).columns
    pooled = _alone(
        spec,
        Frame(
            [name for frame in training.values() for name in frame.ids],
            {c: np.concatenate([np.asarray(frame.columns[c]) for frame in training.values()]) for c in names},
        ),
    )
    return {
        name: Scored(
            measured[name].label(spec.label),
            _score(spec, arrays, measured[name]),
            _score(spec, _alone(spec, frame), measured[name]),
            _score(spec, pooled, measured[name]),
        )
        for name, frame in training.items()
    }
