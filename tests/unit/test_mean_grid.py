"""Stock Flower strategies over the grid of means: their own `start`, one message a round, and what they may not ask."""

from __future__ import annotations

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import arrays_digest, initial_arrays
from federation.rounds.flower import EXAMPLES, ConfigRecord, Message, to_arrays, to_record
from federation.rounds.means import check_options, make_strategy, run_rounds
from federation.rounds.strategy import NEEDS_SINGLE_UPDATES, WORKS_ON_MEANS
from gateway.jobs import arrays as wire
from tests.support.means import NAMES, NOISE, federation, mean_grid, spec, towards

TRAINERS = {name: towards(1.0, rows) for name, rows in zip(NAMES, (100, 200, 300), strict=True)}


def code(call) -> str:
    with pytest.raises(ChaotianError) as raised:
        call()
    return raised.value.code


@pytest.mark.parametrize("name", sorted(WORKS_ON_MEANS - {"FedProx"}))
def test_the_stock_start_of_a_strategy_works_unchanged(name):
    job = spec(strategy=name)
    local = federation(job, TRAINERS)
    with mean_grid(local, job) as (grid, hub, _):
        strategy = make_strategy(name, {})
        result = strategy.start(grid=grid, initial_arrays=to_record(initial_arrays(job)), num_rounds=job.rounds)
    trained = to_arrays(result.arrays)
    assert {arrays_digest(local.programs[member].arrays) for member in NAMES} == {arrays_digest(trained)}
    assert not np.array_equal(trained["w"], initial_arrays(job)["w"])
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]
    assert all(size < 1000 for _, kind, _, size in hub.sent if kind == wire.KIND)  # hashes, never arrays


def test_a_round_is_answered_by_one_message_from_the_federation():
    job = spec(max_weight=300)
    local = federation(job, TRAINERS)
    with mean_grid(local, job) as (grid, _, _):
        strategy = make_strategy("FedAvg", {})
        first = initial_arrays(job)
        asked = list(strategy.configure_train(1, to_record(first), ConfigRecord(), grid))
        assert len(asked) == 3
        (answer,) = grid.send_and_receive(asked)
    assert answer.metadata.src_node_id not in {message.metadata.dst_node_id for message in asked}
    assert [list(answer.content.array_records), list(answer.content.metric_records)] == [["arrays"], ["metrics"]]
    (metrics,) = answer.content.metric_records.values()
    assert dict(metrics) == {EXAMPLES: 600}
    moved = to_arrays(next(iter(answer.content.array_records.values())))
    assert all(np.abs(moved[name] - (first[name] + (1 - first[name]) * 0.1)).max() < 1e-6 for name in first)


def test_a_member_that_is_away_is_left_out():
    job = spec()
    trainers = {**TRAINERS, "d": towards(5.0, 100)}
    local = federation(job, trainers)
    with mean_grid(local, job) as (grid, hub, rounds):
        strategy = make_strategy("FedAvg", {})
        hub.away.add("d")
        arrays = run_rounds(
            strategy, grid, initial_arrays(job), first=1, rounds=3, timeout=20, checkpoint=lambda *_: None
        )
    assert rounds.names == NAMES and arrays_digest(arrays) == arrays_digest(local.programs["a"].arrays)


def test_with_noise_a_strategy_may_send_what_it_likes():
    job = spec(noise=NOISE)
    local = federation(job, TRAINERS, "platform")
    with mean_grid(local, job) as (grid, hub, _):
        other = {name: array + np.float32(3) for name, array in initial_arrays(job).items()}
        strategy = make_strategy("FedAvg", {})
        (answer,) = grid.send_and_receive(strategy.configure_train(1, to_record(other), ConfigRecord(), grid))
        assert answer.has_content()
        assert [kind for _, kind, _, size in hub.sent].count(wire.KIND) == 6  # an offer and the arrays, to each


def test_what_a_strategy_may_not_ask():
    job = spec()
    local = federation(job, TRAINERS)
    with mean_grid(local, job) as (grid, _, _):
        strategy = make_strategy("FedAvg", {})

        def asked(arrays=None, round_=1):
            record = to_record(arrays or initial_arrays(job))
            return list(strategy.configure_train(round_, record, ConfigRecord(), grid))

        assert code(lambda: grid.send_and_receive(asked()[:2])) == "USAGE"
        evaluation = [
            Message(message.content, message_type="evaluate", dst_node_id=message.metadata.dst_node_id)
            for message in asked()
        ]
        assert code(lambda: grid.send_and_receive(evaluation)) == "USAGE"
        other = asked({"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)})
        assert code(lambda: grid.send_and_receive([asked()[0], *other[1:]])) == "USAGE"
        assert code(lambda: grid.send_and_receive(asked({"w": np.ones((3, 2), np.float32)}))) == "MALFORMED"
        nan = {**initial_arrays(job), "b": np.array([1, np.nan], np.float32)}
        assert code(lambda: grid.send_and_receive(asked(nan))) == "NOT_FINITE"
        assert grid.send_and_receive([]) == []
        assert code(lambda: grid.pull_messages([])) == "USAGE"


@pytest.mark.parametrize("name", sorted(NEEDS_SINGLE_UPDATES))
def test_strategies_that_need_single_updates_are_refused_by_name(name):
    with pytest.raises(ChaotianError) as raised:
        make_strategy(name, {})
    assert raised.value.code == "BAD_DOCUMENT" and name in raised.value.detail


def test_only_a_strategys_own_numbers_are_options():
    check_options("FedAdam", {"eta": 0.1, "tau": 1e-3})
    for name, options in (("FedAdam", {"fraction_train": 0.5}), ("FedAvg", {"eta": 1.0}), ("FedProx", {"mu": 1.0})):
        assert code(lambda name=name, options=options: check_options(name, options)) == "BAD_DOCUMENT"
    assert code(lambda: check_options("PhaseStrategy", {})) == "BAD_DOCUMENT"
    assert code(lambda: check_options("QFedAvg", {})) == "BAD_DOCUMENT"
