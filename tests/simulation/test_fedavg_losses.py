"""`fedavg` while members are lost at random: whoever is left holds the mean of exactly those that were summed."""

from __future__ import annotations

import random

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import arrays_digest, initial_arrays
from federation.secure_sum.local import run_rounds
from tests.support.means import federation, spec, towards

ROWS = {"a": 100, "b": 900, "c": 40, "d": 300, "e": 650, "f": 80}
TARGETS = {"a": 1.0, "b": -0.5, "c": 0.25, "d": 2.0, "e": -3.0, "f": 0.1}


@pytest.mark.parametrize("seed", range(24))
def test_the_mean_is_that_of_the_roster(seed):
    rng = random.Random(f"fedavg/{seed}")
    job = spec(rounds=4, max_weight=1000, strategy=rng.choice(["FedAvg", "FedAvgM"]))
    trainers = {name: towards(TARGETS[name], ROWS[name]) for name in ROWS}
    local = federation(job, trainers, max_roster_changes=6)
    rate, outcomes = rng.choice([0.0, 0.005, 0.02]), []
    try:
        run_rounds(
            local,
            lose=lambda round_, send: rng.random() < rate,
            on_round=lambda round_, outcome: outcomes.append(outcome),
        )
        ended = ""
    except ChaotianError as error:
        ended = error.code
    assert ended in ("", "TOO_FEW_MEMBERS", "FLOOR_LOST"), ended
    arrays = initial_arrays(job)
    for outcome in outcomes:
        if outcome.error:
            break
        parts = [(trainers[name](0, arrays)[0], ROWS[name]) for name in outcome.roster]
        weight = sum(rows for _, rows in parts)
        following = {}
        for layer in job.layers:
            updates = [(after[layer.name].astype(float) - arrays[layer.name], rows) for after, rows in parts]
            clipped = [u * min(1.0, layer.clip / np.linalg.norm(u)) * rows / weight for u, rows in updates]
            following[layer.name] = (arrays[layer.name] + sum(clipped)).astype(np.float32)
        arrays = following
    held = [local.programs[name].arrays for name in (outcomes[-1].survivors if outcomes else ()) if not ended]
    assert len({arrays_digest(found) for found in held}) <= 1
    for found in held:
        assert all(np.abs(found[name] - arrays[name]).max() < 1e-5 for name in arrays)
    assert held or ended  # one or the other, never a hang
