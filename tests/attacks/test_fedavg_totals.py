"""What exact means of trained updates show beside each other: a proposer that varies the job, or leaves a bank out."""

from __future__ import annotations

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import contribution, initial_arrays, mean_of
from federation.learning.fedavg_spec import FedAvgSpec
from federation.learning.frame import Frame
from federation.primitives.entropy import SystemEntropy
from federation.rounds.mlp_app import app, layers
from federation.rounds.trainer import AppTrainer
from gateway.jobs.fedavg_plan import FedAvgPlan
from gateway.jobs.ledger import Earlier, Release, check_release

SIZES = {"a": 210, "b": 340, "c": 520, "d": 900}


def frames() -> dict[str, Frame]:
    out = {}
    for at, (name, size) in enumerate(SIZES.items()):
        rng = np.random.default_rng(at)
        columns = {"x": rng.normal(size=size), "bad": (rng.random(size) < 0.1 + 0.05 * at).astype(float)}
        out[name] = Frame([f"{name}-{i}" for i in range(size)], columns)
    return out


def document(**changes) -> dict:
    """Return a job of one full step of gradient descent from zero: what a member adds is linear in its rows."""
    zero = [{**layer, "init": "zeros"} for layer in layers(1, 1, 10.0)]
    return {
        "app": "mlp",
        "digest": "0" * 64,
        "label": "bad",
        "features": [{"name": "x", "type": "numeric"}],
        "layers": zero,
        "rounds": 1,
        "config": {"epochs": 1, "batch": 1 << 20, "learning-rate": 1.0, "penalty": 0.0},
        **changes,
    }


def released(spec: FedAvgSpec) -> tuple[float, int]:
    """Return what everybody reads of the output's bias in a round of all members: the weighted sum, and the weight."""
    units, first, totals = spec.units(len(SIZES)), initial_arrays(spec), {}
    for name, frame in frames().items():
        trainer = AppTrainer(
            app, member=name, job="j", config=spec.config, features=spec.features, label=spec.label, training=frame
        )
        after, rows = trainer(1, {key: array.copy() for key, array in first.items()})
        for field, values in contribution(spec, units, first, after, rows, SystemEntropy()).items():
            totals[field] = totals.get(field, 0) + values.astype(np.int64)
    mean, weight = mean_of(spec, units, first, totals)
    return float(mean["b2"][0]) * weight, weight


def test_a_mean_of_all_banks_beside_counts_without_one_would_show_its_bad_rows_and_is_refused():
    total, rows = released(FedAvgSpec.from_document(document()))
    bads = {name: int(frame.columns["bad"].sum()) for name, frame in frames().items()}
    without = [name for name in SIZES if name != "d"]
    assert rows - sum(SIZES[name] for name in without) == SIZES["d"]
    assert total + rows / 2 - sum(bads[name] for name in without) == pytest.approx(bads["d"], abs=0.01)

    columns, everybody = frozenset({"bad", "x"}), frozenset(SIZES)
    counted = Release("job-1", "loans", "binning.counts", columns, frozenset(without))
    trained = Release("job-2", "loans", "fedavg.update", columns, everybody)
    for now, past in ((trained, counted), (counted, trained)):
        with pytest.raises(ChaotianError) as refused:
            check_release(now, [Earlier(past, 0)], min_members=3, min_rows=30, consents=())
        assert (refused.value.code, refused.value.member) == ("RELEASE_DIFFERENCE", "d")


def test_two_jobs_that_differ_in_a_limit_show_one_members_update_and_every_owner_is_told_before():
    one, two = (FedAvgSpec.from_document(document(max_weight=limit)) for limit in (600, 800))
    (first, least), (second, most) = released(one), released(two)
    # Only d has more than 600 rows: the difference of the two sums is its own update, a number of times.
    own = frames()["d"].columns["bad"].mean() - 0.5
    assert (second - first) / (most - least) == pytest.approx(own, abs=1e-4)

    words = " ".join(FedAvgPlan(one).leaks)
    assert "another limit" in words and "one member's own update" in words
    noised = document(weighting="equal", noise={"multiplier": 1.0, "honest": 2})
    assert "one member's own update" not in " ".join(FedAvgPlan(FedAvgSpec.from_document(noised)).leaks)
