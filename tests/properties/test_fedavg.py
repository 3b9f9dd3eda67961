"""Updates of any size and shape: the bound holds in integers, and the mean is that of the clipped updates."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.learning.fedavg_arrays import Arrays, contribution, mean_of
from federation.learning.fedavg_spec import WEIGHT, FedAvgSpec
from federation.primitives import zcdp
from federation.primitives.fixed_point import decode_arrays, encode
from tests.support.entropy import SeededEntropy
from tests.support.means import spec

VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
UPDATES = st.lists(st.tuples(st.lists(VALUES, min_size=8, max_size=8), st.integers(1, 1 << 18)), min_size=3, max_size=6)


def arrays_of(values: list[float]) -> Arrays:
    return {"w": np.array(values[:6]).reshape(3, 2), "b": np.array(values[6:])}


@settings(max_examples=150, deadline=None)
@given(updates=UPDATES, clips=st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), cap=st.integers(1, 1 << 19))
def test_the_mean_of_a_sum_of_integers_is_the_mean_of_clipped_updates(updates, clips, cap):
    job: FedAvgSpec = spec(
        layers=[{"name": "w", "shape": [3, 2], "clip": clips[0]}, {"name": "b", "shape": [2], "clip": clips[1]}],
        max_weight=cap,
        dtype="float64",
    )
    members = len(updates)
    units, layout, before = job.units(members), job.layout(members), arrays_of([0.0] * 8)
    total, expected, weights = None, {"w": 0.0, "b": 0.0}, 0
    for values, rows in updates:
        after = arrays_of(values)
        sent = contribution(job, units, before, after, rows, SeededEntropy(0))
        for layer in job.layers:
            assert sum(int(value) ** 2 for value in sent[layer.name]) <= units.clip**2
            norm = float(np.linalg.norm(after[layer.name]))
            scale = min(1.0, layer.clip / norm) if norm else 1.0
            expected[layer.name] = expected[layer.name] + after[layer.name] * scale * min(rows, cap)
        weights += min(rows, cap)
        vector = encode(layout, sent)
        total = vector if total is None else total + vector
    mean, weight = mean_of(job, units, before, decode_arrays(layout, total))
    assert weight == weights == int(decode_arrays(layout, total)[WEIGHT][0])
    for layer in job.layers:
        step = members * layer.clip / units.clip * cap / weights  # one unit for each member that was cut off
        assert np.abs(mean[layer.name] - expected[layer.name] / weights).max() <= step + 1e-9 * layer.clip


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 20.0), st.floats(1e-10, 0.01), st.floats(1.01, 3.0))
def test_epsilon_grows_with_the_loss_and_falls_with_delta(rho, delta, factor):
    assert 0 <= zcdp.epsilon(rho, delta) <= zcdp.epsilon(rho * factor, delta) * (1 + 1e-6)
    assert zcdp.epsilon(rho, delta) >= zcdp.epsilon(rho, min(0.5, delta * factor)) * (1 - 1e-6)
