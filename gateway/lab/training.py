"""`chaotian lab train`: a federated scorecard over anyone's files, beside what members would have had without it.

The federated model comes from the production state machines: signatures, sealing, masks and checked transcripts, with
the total for members only. Around it the lab does what nobody can do in a real federation: it sees all files, so it
can fit the pooled model and compare.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.compare import fit_alone
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.holdout import held_out
from federation.learning.model import Model
from federation.learning.scorecard import Scorecard
from federation.learning.woe import WoeScorecard, scorecard_program
from federation.primitives.encoding import pack
from federation.primitives.entropy import Entropy
from federation.secure_sum.coordinator import Send
from federation.secure_sum.local import run_rounds
from federation.secure_sum.terms import STAGES
from gateway.lab.metered import MeteredFederation
from gateway.lab.pooled import fit_pooled
from gateway.lab.settings import TrainSettings
from gateway.lab.tables import Tables, read_tables
from gateway.reports.benefit import Scored

MAX_OTHER_ROUNDS = 200  # counts, moments, histograms of many columns
OnStep = Callable[[str, int, int], None]  # what happens, and how much of how much of it is done


def quiet(text: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Fit:
    """One federated training.

    Args:
        model: equal at all members.
        rounds: of the secure sum.
        seconds: from the first request to the last reply.
        sent, received: bytes by member.
        cpu_seconds: by member.
        warnings: floors that a real federation would have refused on.
    """

    model: Model
    rounds: int
    seconds: float
    sent: Mapping[str, int]
    received: Mapping[str, int]
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainResult:
    """What a lab training gave.

    Args:
        tables: the members' rows.
        fit: the training the model is from; rounds, bytes and seconds are of this one.
        trained: rows and bads of each member that trained the model.
        evaluated: `test`, `holdout`, `folds` or `training`: which rows were scored.
        ids: identifiers of the scored rows, in order.
        scores: their log-odds by the federated model.
        scored: by member, the outcomes and scores of the rows it is measured on; empty without outcomes.
        total_seconds: with reading, local and pooled models.
    """

    settings: TrainSettings
    tables: Tables
    fit: Fit
    trained: Mapping[str, tuple[int, int]]
    evaluated: str
    ids: list[str]
    scores: NDArray[np.float64]
    scored: Mapping[str, Scored]
    total_seconds: float
    warnings: list[str]


Trainer = Callable[[Mapping[str, Frame], ScorecardSpec], Fit]


def train(
    settings: TrainSettings, *, entropy: Entropy, on_step: OnStep = quiet, trainer: Trainer | None = None
) -> TrainResult:
    """Read the files, train, score and compare.

    Args:
        entropy: source of all keys, seeds and masks.
        on_step: told what happens.
        trainer: in place of the federation in this process.

    Raises:
        ChaotianError: of the files (DATA_*), of the data (ONE_CLASS, CONSTANT_FEATURE, SEPARABLE, …) or USAGE.
    """
    start, parameters = time.perf_counter(), settings.parameters
    on_step("reading files", 0, 1)
    tables = read_tables(
        settings.members,
        identifier=settings.id,
        label=settings.label,
        test=settings.test,
        drop=settings.drop,
        category=settings.category,
        missing=parameters.missing,
        missing_level=parameters.impute == "mean",
    )
    run = trainer or (lambda frames, spec: fit_in_process(frames, spec, entropy=entropy, on_step=on_step))
    spec = ScorecardSpec(
        label=settings.label,
        features=tables.features,
        penalty=parameters.penalty,
        holdout=0.0,  # the lab splits the rows itself
        seed=parameters.seed,
        max_rounds=parameters.max_rounds,
        coding=parameters.features,
        impute="mean" if parameters.impute == "mean" else "",
        binning=parameters.binning,
    )
    everything = dict(tables.frames)
    if tables.test is not None:
        evaluated, training = "test", everything
    elif parameters.folds:
        evaluated, training = "folds", everything
    elif parameters.holdout:
        evaluated = "holdout"
        masks = {name: held_out(frame.ids, spec.seed, parameters.holdout) for name, frame in everything.items()}
        training = _taken(everything, masks, keep=False)
    else:
        evaluated, training = "training", everything
    fit = run(training, spec)
    warnings = [*tables.warnings, *fit.warnings]
    trained = {name: (len(frame), int(frame.label(spec.label).sum())) for name, frame in training.items()}
    on_step("comparing with local and pooled models", 0, 1)
    if evaluated == "test":
        assert tables.test is not None
        ids, scores = list(tables.test.ids), fit.model.score(tables.test)
        scored = _on_one_set(tables, fit, spec, scores) if spec.label in tables.test.columns else {}
    elif evaluated == "folds":
        scored = _by_folds(everything, spec, parameters.folds, run, on_step)
        ids = [name for frame in everything.values() for name in frame.ids]
        scores = np.concatenate([each.federated for each in scored.values()])
    else:
        own = everything if evaluated == "training" else _taken(everything, masks, keep=True)
        scored = _on_own_rows(training, own, fit, spec)
        ids = [name for frame in own.values() for name in frame.ids]
        scores = np.concatenate([each.federated for each in scored.values()])
    if not np.isfinite(scores).all():
        raise ChaotianError("NOT_FINITE", "a row to be scored lies so far out that its score is not a finite number")
    return TrainResult(
        settings, tables, fit, trained, evaluated, ids, scores, scored, time.perf_counter() - start, warnings
    )


def fit_in_process(
    frames: Mapping[str, Frame], spec: ScorecardSpec, *, entropy: Entropy, on_step: OnStep = quiet
) -> Fit:
    """Train the federated model over the production state machines, all members in this process.

    Raises:
        ChaotianError: as the job ends at every member; faults of a member's rows name it.
    """
    start, count = time.perf_counter(), len(frames)
    programs = {name: _program(name, spec, frame, count) for name, frame in frames.items()}
    one = next(iter(programs.values()))
    federation = MeteredFederation(programs, entropy, job="lab-train")

    def show(round_: int, send: Send) -> bool:
        done = STAGES.index(send.stage) * count
        on_step(f"round {round_}: {one.operation}, {send.stage}", done, len(STAGES) * count)
        return False

    outcomes = run_rounds(federation, max_rounds=spec.max_rounds + MAX_OTHER_ROUNDS, lose=show)
    models = {name: program.model("lab") for name, program in programs.items()}
    model = models[next(iter(models))]
    if any(each.version != model.version for each in models.values()):
        raise ChaotianError("STATE_MISMATCH", "the members hold different models")
    warnings = [f"a real federation refuses this ({error.code}): {error.detail}" for error in one.warnings]
    if isinstance(one, WoeScorecard) and one.left_out:
        warnings.append(f"all rows are in one bin, so left out: {', '.join(one.left_out)}")
    return Fit(
        model=model,
        rounds=len(outcomes),
        seconds=time.perf_counter() - start,
        sent=federation.sent,
        received=federation.received,
        cpu_seconds=federation.member_seconds,
        warnings=tuple(warnings),
    )


def _program(member: str, spec: ScorecardSpec, frame: Frame, members: int) -> Scorecard | WoeScorecard:
    """Make a member's program; a fault of its rows names the member."""
    try:
        return scorecard_program(spec, frame, members=members, strict=False)
    except ChaotianError as error:
        raise ChaotianError(error.code, error.detail, hint=error.hint, member=member) from None


def _taken(frames: Mapping[str, Frame], masks: Mapping[str, NDArray[np.bool_]], *, keep: bool) -> dict[str, Frame]:
    return {name: frame.take(masks[name] if keep else ~masks[name]) for name, frame in frames.items()}


# --- local and pooled models ----------------------------------------------------------------------------------------


def _alone(spec: ScorecardSpec, training: Frame, rows: Frame) -> tuple[NDArray[np.float64] | None, str]:
    """Return the scores of the model this member would have by itself, or the code of what stands in its way."""
    try:
        return fit_alone(spec, training).score(rows), ""
    except ChaotianError as error:
        return None, error.code


def _on_one_set(tables: Tables, fit: Fit, spec: ScorecardSpec, federated: NDArray[np.float64]) -> dict[str, Scored]:
    assert tables.test is not None
    label = tables.test.label(spec.label)
    pooled = fit_pooled(fit.model, tables.frames.values(), spec)(tables.test)
    out = {}
    for name, frame in tables.frames.items():
        local, why = _alone(spec, frame, tables.test)
        out[name] = Scored(label, federated, local, pooled, why)
    return out


def _on_own_rows(
    training: Mapping[str, Frame], own: Mapping[str, Frame], fit: Fit, spec: ScorecardSpec
) -> dict[str, Scored]:
    pooled = fit_pooled(fit.model, training.values(), spec)
    out = {}
    for name, rows in own.items():
        local, why = _alone(spec, training[name], rows)
        out[name] = Scored(rows.label(spec.label), fit.model.score(rows), local, pooled(rows), why)
    return out


def _by_folds(
    frames: Mapping[str, Frame], spec: ScorecardSpec, folds: int, run: Trainer, on_step: OnStep
) -> dict[str, Scored]:
    """Score every row by models that were trained without its fold."""
    parts = {name: _folds(frame, spec.seed, folds) for name, frame in frames.items()}
    out: dict[str, Scored] = {}
    for fold in range(folds):
        on_step(f"fold {fold + 1} of {folds}", fold, folds)
        masks = {name: part == fold for name, part in parts.items()}
        training = _taken(frames, masks, keep=False)
        fit = run(training, spec)
        for name, each in _on_own_rows(training, _taken(frames, masks, keep=True), fit, spec).items():
            whole = out.get(name) or Scored.empty(len(frames[name]))
            out[name] = whole.put(masks[name], each)
    return out


def _folds(frame: Frame, seed: str, folds: int) -> NDArray[np.int64]:
    """Return the fold of each row: first 8 bytes of SHA-256(pack("chaotian lab fold", [seed, id])), modulo folds."""
    digests = (hashlib.sha256(pack("chaotian lab fold", [seed.encode(), name.encode()])).digest() for name in frame.ids)
    return np.array([int.from_bytes(digest[:8], "big") % folds for digest in digests], dtype=np.int64)
