"""What exact means of trained updates show beside each other: a proposer that varies the job, or leaves a bank out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import Arrays, contribution, initial_arrays, mean_of
from federation.learning.fedavg_spec import FedAvgSpec
from federation.learning.frame import Frame
from federation.primitives.entropy import SystemEntropy
from federation.rounds.mlp_app import app, layers
from federation.rounds.trainer import AppTrainer
from gateway.jobs.fedavg_plan import FedAvgPlan
from gateway.jobs.ledger import Earlier, Release, check_release
from tests.integration.test_jobs_fedavg import PARAMS, THREE, to_both
from tests.support.jobs_kit import with_space

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


def averaged(spec: FedAvgSpec, rows: dict[str, Frame]) -> tuple[Arrays, Arrays, int]:
    """Return what everybody reads after a round of all members: the first arrays, the mean, the weight."""
    units, first, totals = spec.units(len(SIZES)), initial_arrays(spec), {}
    for name, frame in rows.items():
        trainer = AppTrainer(
            app, member=name, job="j", config=spec.config, features=spec.features, label=spec.label, training=frame
        )
        after, rows = trainer(1, {key: array.copy() for key, array in first.items()})
        for field, values in contribution(spec, units, first, after, rows, SystemEntropy()).items():
            totals[field] = totals.get(field, 0) + values.astype(np.int64)
    return first, *mean_of(spec, units, first, totals)


def released(spec: FedAvgSpec) -> tuple[float, int]:
    """Return the weighted sum of the output's bias in a round of all members, and the weight."""
    _, mean, weight = averaged(spec, frames())
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


def test_two_jobs_that_differ_in_a_limit_would_show_one_members_update_and_the_second_is_refused():
    one, two = (FedAvgSpec.from_document(document(max_weight=limit)) for limit in (600, 800))
    (first, least), (second, most) = released(one), released(two)
    # Only d has more than 600 rows: the difference of the two sums is its own update, a number of times.
    own = frames()["d"].columns["bad"].mean() - 0.5
    assert (second - first) / (most - least) == pytest.approx(own, abs=1e-4)

    everybody = frozenset(SIZES)
    before = Release("job-1", "loans", "fedavg.update", frozenset({"bad", "x"}), everybody)
    for columns in ({"bad", "x"}, {"bad", "y"}):  # and where only the label is the same
        now = replace(before, job="job-2", columns=frozenset(columns))
        for missing in SIZES:
            with pytest.raises(ChaotianError) as refused:
                consents = everybody - {missing}
                check_release(now, [Earlier(before, 0)], min_members=3, min_rows=30, consents=consents)
            assert (refused.value.code, refused.value.member) == ("RELEASE_DIFFERENCE", missing)
        check_release(now, [Earlier(before, 0)], min_members=3, min_rows=30, consents=everybody)

    words = " ".join(FedAvgPlan(one).leaks)
    assert "another limit" in words and "one member's own update" in words
    noised = document(weighting="equal", noise={"multiplier": 1.0, "honest": 2})
    assert "one member's own update" not in " ".join(FedAvgPlan(FedAvgSpec.from_document(noised)).leaks)


def test_what_a_budget_bounds_is_not_compared_with_anything():
    trained = Release("job-1", "loans", "fedavg.update", frozenset({"bad", "x"}), frozenset(SIZES), exact=False)
    others = [replace(trained, job="job-2"), replace(trained, job="job-3", exact=True)]
    others.append(Release("job-4", "loans", "binning.counts", trained.columns, trained.members - {"d"}))
    for other in others:
        check_release(trained, [Earlier(other, 1)], min_members=3, min_rows=30, consents=())
        check_release(other, [Earlier(trained, 1)], min_members=3, min_rows=30, consents=())


def test_a_chosen_center_would_show_one_row():
    """The control of the next one: the rectifier passes the one row beyond the centre, and its value is read."""
    for seed in range(20):
        spec = FedAvgSpec.from_document(
            document(layers=layers(1, 1, 10.0), seed=str(seed), config=document()["config"] | {"center": [9.0]})
        )
        if initial_arrays(spec)["w1"][0, 0] > 0:
            break
    rows = frames()
    rows["d"].columns["x"][17] = 9.7
    first, mean, _ = averaged(spec, rows)
    step = {name: float((mean[name] - first[name]).ravel()[0]) for name in ("w1", "b1")}
    assert 9.0 + step["w1"] / step["b1"] == pytest.approx(9.7, abs=0.02)


def test_a_member_accepts_no_exact_job_unless_its_grant_says_so(tmp_path):
    async def work(space):
        vague = space.grant("bank-2", op={"result_to": "both"}, exact=False)
        plain = space.grant("bank-2", op={"result_to": "both"})
        bank = space.banks["bank-2"].jobs
        # Noise that no budget counts may be next to none.
        for more in ({}, {"noise": {"multiplier": 0.01, "honest": 2}}):
            job = await space.propose(members=THREE, **PARAMS | more)
            with pytest.raises(ChaotianError) as refused:
                await bank.accept(job, grant=vague)
            assert refused.value.code == "GRANT_DENIED" and "ops.exact" in refused.value.detail
            assert "noise" in refused.value.hint and "exact = true" in refused.value.hint
            await bank.accept(job, grant=plain)

    with_space(work, tmp_path, names=THREE)


def test_nodes_release_a_second_exact_job_with_everybodys_consent_only(tmp_path):
    async def work(space):
        to_both(space)
        params = PARAMS | {"rounds": 1}
        job = await space.run(members=THREE, **params)
        assert space.coordinator.store.get(job).state == "done"
        for consenting in ((), THREE[:2]):
            job = await space.run(members=THREE, consenting=consenting, **params | {"max_weight": 600})
            row = space.coordinator.store.get(job)
            assert (row.state, row.code) == ("failed", "RELEASE_DIFFERENCE")
        job = await space.run(members=THREE, consenting=THREE, **params | {"max_weight": 600})
        assert space.coordinator.store.get(job).state == "done"

    with_space(work, tmp_path, names=THREE)


def test_jobs_with_noise_under_budgets_need_no_consent_and_without_a_budget_they_count_as_exact(tmp_path):
    budget = {"eps_total": "500", "delta": "1e-6", "period": "grant", "scope": "grant"}
    params = PARAMS | {"rounds": 1, "noise": {"multiplier": 4.0, "honest": 2}}

    async def work(space):
        for name in THREE[1:]:
            space.grant(name, op={"result_to": "both"}, budget=budget)
        for _ in range(2):
            job = await space.run(members=THREE, **params)
            assert space.coordinator.store.get(job).state == "done"
        to_both(space)  # newer, and without a budget: these are taken
        states = []
        for _ in range(2):
            row = space.coordinator.store.get(await space.run(members=THREE, **params))
            states.append((row.state, row.code))
        assert states == [("done", ""), ("failed", "RELEASE_DIFFERENCE")]

    with_space(work, tmp_path, names=THREE)
