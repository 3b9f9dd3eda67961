"""`fedavg` through nodes, papers, grants, SQL and envelopes: stock strategies, noise, losses, restarts, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federation.learning.fedavg_arrays import Arrays, initial_arrays
from federation.rounds import mlp_app
from gateway.jobs import apps
from gateway.jobs import arrays as wire
from tests.support.jobs_kit import BANKS, COLUMNS, with_space

THREE = BANKS[:3]
PARAMS: dict[str, Any] = {
    "kind": "fedavg",
    "app": "mlp",
    "label": "y",
    "features": list(COLUMNS),
    "layers": mlp_app.layers(len(COLUMNS), 4, 1.0),
    "rounds": 3,
    "config": {"epochs": 1, "center": [0.0] * 5, "spread": [1e5, 5.0, 5.0, 1e5, 1e4]},
    "holdout": 0.2,
    "result_to": "both",
}


def to_both(space) -> None:
    """Give grants that let the platform have totals."""
    for name in space.names:
        if name != space.grantee:
            space.grant(name, op={"result_to": "both"})


def result(space, name: str, job: str) -> dict[str, Any]:
    return space.banks[name].jobs.result(job)


def arrays_of(space, name: str, job: str) -> Arrays:
    with np.load(space.banks[name].home / result(space, name, job)["arrays"]) as file:
        return {key: file[key] for key in file}


def plain_fedavg(space, params: dict[str, Any], members=THREE) -> Arrays:
    """Federated averaging of the same app with nothing but NumPy, on the rows of all banks."""
    job = space.coordinator.store.all()[0].document
    plan = job.plan
    trainers = []
    for name in members:
        rows = space.banks[name].datasets.load("loans", list(plan.columns(None)))
        from gateway.jobs.fedavg_plan import MeanProgram

        trainers.append(MeanProgram(plan.spec, rows, plan.selection(), len(job.members))._trainer)
    arrays = initial_arrays(plan.spec)
    for round_ in range(1, plan.spec.rounds + 1):
        parts = [trainer(round_, {k: v.copy() for k, v in arrays.items()}) for trainer in trainers]
        weight = sum(rows for _, rows in parts)
        mean = {}
        for layer in plan.spec.layers:
            steps = []
            for after, rows in parts:
                update = after[layer.name].astype(float) - arrays[layer.name]
                norm = np.linalg.norm(update)
                steps.append(update * min(1.0, layer.clip / norm if norm else 1.0) * rows / weight)
            mean[layer.name] = (arrays[layer.name] + sum(steps)).astype(np.float32)
        arrays = mean
    return arrays


def test_fedavg_is_plain_averaging_at_every_member(tmp_path):
    async def work(space):
        to_both(space)
        job = await space.run(members=THREE, **PARAMS)
        assert space.coordinator.store.get(job).state == "done"
        expected = plain_fedavg(space, PARAMS)
        digests = set()
        for name in THREE:
            found = arrays_of(space, name, job)
            digests.add(result(space, name, job)["result"]["arrays"])
            for layer, array in found.items():
                assert np.abs(array - expected[layer]).max() < 1e-6
            own = result(space, name, job)["own"]
            assert own["after"]["log-loss"] < own["before"]["log-loss"]
        assert len(digests) == 1
        # Arrays were never sent: every member derived them, and the platform knew by their hash.
        assert not [size for _, kind, _, size in space.wire.sent if kind == wire.KIND and size > 1000]

    with_space(work, tmp_path, names=THREE)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("FedAdam", {"eta": 0.05}), ("FedYogi", {"eta": 0.05}), ("FedAvgM", {"server_momentum": 0.5})],
)
def test_stock_strategies_step_alike_at_platform_and_members(tmp_path, strategy, options):
    async def work(space):
        to_both(space)
        job = await space.run(members=THREE, **PARAMS | {"strategy": strategy, "options": options})
        assert space.coordinator.store.get(job).state == "done"
        assert len({result(space, name, job)["result"]["arrays"] for name in THREE}) == 1

    with_space(work, tmp_path, names=THREE)


@pytest.mark.parametrize("unverified", [True, False])
def test_under_platform_arrays_are_handed_to_the_members(tmp_path, unverified):
    """Without noise as totals, unverified and said so; with noise as they are."""
    extra = {"unverified": True} if unverified else {"noise": {"multiplier": 0.5, "honest": 2}}

    async def work(space):
        for name in space.names[1:]:
            space.grant(name, op={"result_to": "platform"})
        job = await space.run(members=THREE, **PARAMS | {"result_to": "platform", **extra})
        assert space.coordinator.store.get(job).state == "done"
        results = [result(space, name, job)["result"] for name in THREE]
        assert len({each["arrays"] for each in results}) == 1
        if unverified:
            assert results[0]["privacy"] is None
            expected = plain_fedavg(space, PARAMS)
            assert np.abs(arrays_of(space, THREE[0], job)["w1"] - expected["w1"]).max() < 1e-6
        else:
            privacy = results[0]["privacy"]
            assert float(privacy["epsilon"]) > 0 and privacy["honest"] == 2

    with_space(work, tmp_path, names=THREE)
