"""`fedavg` through nodes, papers, grants, SQL and envelopes: stock strategies, noise, losses, restarts, refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import Arrays, initial_arrays
from federation.primitives import zcdp
from federation.rounds import mlp_app
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
        rows = space.banks[name].datasets.load_for_job("loans", list(plan.columns(None)))
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


def test_a_budget_is_charged_round_by_round_and_ends(tmp_path):
    """Every member's own grant counts: rounds of the second job no longer fit, and exact totals never do."""
    noise = {"noise": {"multiplier": 4.0, "honest": 2}}
    budget = {"eps_total": "2.5", "delta": "1e-6", "period": "grant", "scope": "grant"}

    async def work(space):
        granted = {name: space.grant(name, op={"result_to": "both"}, budget=budget) for name in ("bank-2", "bank-3")}
        job = await space.propose(members=THREE, **PARAMS | noise)
        for name in THREE:
            await space.banks[name].jobs.accept(job, grant=granted.get(name, ""))
        await space.settle()
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        epsilon = float(result(space, "bank-2", job)["result"]["privacy"]["epsilon"])
        for name, grant in granted.items():
            bank = space.banks[name]
            with bank.database.read() as connection:
                usage = bank.grants.usage(connection, grant, None, now=space.clock())
            assert usage.calls == 3 and zcdp.epsilon(usage.loss, 1e-6) == pytest.approx(epsilon)
        assert epsilon < 2.5 < zcdp.epsilon(2 * usage.loss, 1e-6)
        # Rounds that do not fit any more are refused before the job begins.
        again = await space.propose(members=THREE, **PARAMS | noise)
        for name in granted:
            with pytest.raises(ChaotianError) as raised:
                await space.banks[name].jobs.accept(again, grant=granted[name])
            assert raised.value.code == "BUDGET"
        exact = await space.propose(members=THREE, **PARAMS)
        with pytest.raises(ChaotianError) as raised:
            await space.banks["bank-2"].jobs.accept(exact, grant=granted["bank-2"])
        assert raised.value.code == "BUDGET" and "exact" in raised.value.detail

    with_space(work, tmp_path, names=THREE)


@pytest.mark.parametrize("result_to", ["both", "platform"])
@pytest.mark.parametrize(("kind", "count"), [(wire.KIND, 7), ("job.stage", 18 + 13)])
def test_a_platform_that_goes_down_goes_on_with_the_same_bits(tmp_path, result_to, kind, count):
    """Between two rounds, and in the unmask of the second one: 6 stages, 3 members, the fifth stage held."""

    async def work(space):
        for name in space.names[1:]:
            space.grant(name, op={"result_to": result_to})
        extra = {"result_to": result_to, "unverified": result_to == "platform"}
        params = PARAMS | extra | {"strategy": "FedAdam", "options": {"eta": 0.05}, "rounds": 3}
        job = await space.accepted(members=THREE, **params)
        held, seen = asyncio.Event(), []

        async def hold(member, asked, payload):
            if asked == kind:
                seen.append(member)
                if len(seen) >= count:
                    held.set()
                    await asyncio.sleep(60)
            return payload

        space.wire.tamper = hold
        await space.coordinator.start_job(job)
        await asyncio.wait_for(held.wait(), 30)
        await space.coordinator.stop()
        space.wire.tamper = None
        if kind == wire.KIND:
            space.open_bank("bank-2")  # and a member forgets everything but its disk
        else:
            assert space.coordinator.runs.begin(job, THREE).journal is not None
        space.open_platform(resume=False)
        await space.coordinator.start()
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        trained = {result(space, name, job)["result"]["arrays"] for name in THREE}
        undisturbed = await space.run(members=THREE, consenting=THREE, **params)
        assert trained == {result(space, "bank-1", undisturbed)["result"]["arrays"]}

    with_space(work, tmp_path, names=THREE)


def test_a_member_that_is_lost_is_left_out_of_the_mean(tmp_path):
    async def work(space):
        to_both(space)
        job = await space.accepted(members=BANKS, **PARAMS)
        stages = []

        async def cut(member, kind, payload):
            if member == "bank-4" and kind != "job.bundle":
                stages.append(kind)
                if len(stages) > 12:  # in the second round
                    space.wire.away.add("bank-4")
            return payload

        space.wire.tamper = cut
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        assert len({result(space, name, job)["result"]["arrays"] for name in THREE}) == 1
        assert result(space, "bank-1", job)["roster"] == list(THREE)

    with_space(work, tmp_path)
