"""The program of `fedavg`: integers that leave, the mean that comes back, arrays between rounds, restarts, a loss."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg import ARRAYS, NOTHING, TOTAL
from federation.learning.fedavg_arrays import (
    arrays_digest,
    check_arrays,
    contribution,
    decode_arrays,
    encode_arrays,
    initial_arrays,
    mean_of,
)
from federation.learning.fedavg_spec import WEIGHT, FedAvgSpec
from federation.secure_sum.local import run_rounds
from tests.support.entropy import SeededEntropy
from tests.support.means import LAYERS, NAMES, NOISE, federation, program, spec, towards

VECTOR = "09cd60da3bd1efa68c360bd1e387fbca22d6580414b916b1b12d44ff87a0a312"
TRAINERS = {"a": towards(1.0, 100), "b": towards(-0.5, 300), "c": towards(0.25, 50)}


def code(call) -> str:
    with pytest.raises(ChaotianError) as raised:
        call()
    return raised.value.code


def averaged(job: FedAvgSpec, trainers, rounds: int):
    """Federated averaging with NumPy alone."""
    arrays = initial_arrays(job)
    for round_ in range(1, rounds + 1):
        parts = [train(round_, arrays) for train in trainers.values()]
        total = sum(rows for _, rows in parts)
        following = {}
        for layer in job.layers:
            steps = []
            for after, rows in parts:
                update = after[layer.name].astype(float) - arrays[layer.name]
                steps.append(update * min(1.0, layer.clip / np.linalg.norm(update)) * rows / total)
            following[layer.name] = (arrays[layer.name] + sum(steps)).astype(np.float32)
        arrays = following
    return arrays


# --- the sum ----------------------------------------------------------------------------------------------------------


def test_the_job_is_weighted_clipped_averaging():
    job = spec(max_weight=300)
    local = federation(job, TRAINERS)
    outcomes = run_rounds(local)
    assert len(outcomes) == 3 and outcomes[-1].progress == "done"
    expected = averaged(job, TRAINERS, 3)
    for name in NAMES:
        for layer, array in local.programs[name].arrays.items():
            assert np.abs(array - expected[layer]).max() < 1e-6
    assert len({arrays_digest(local.programs[name].arrays) for name in NAMES}) == 1
    # The platform has the same mean of the last total, from the arrays before it.
    assert outcomes[-1].total is not None


def test_a_lost_member_is_left_out_of_mean_and_weight():
    job, lost = spec(max_weight=1000), []
    trainers = {**TRAINERS, "d": towards(4.0, 1000)}
    local = federation(job, trainers)

    def lose(round_, send):
        if (round_, send.member, send.stage) == (2, "d", "consistency"):
            lost.append(send)
            return True
        return False

    outcomes = run_rounds(local, lose=lose)
    assert lost and outcomes[1].attempts == 2 and outcomes[1].roster == NAMES
    # Its first update stays in; from the second round on the mean is that of the others.
    first = averaged(spec(), trainers, 1)
    arrays = first
    for round_ in (2, 3):
        parts = [train(round_, arrays) for train in TRAINERS.values()]
        arrays = {
            layer.name: (
                arrays[layer.name]
                + sum(
                    (after[layer.name].astype(float) - arrays[layer.name])
                    * min(1.0, layer.clip / np.linalg.norm(after[layer.name].astype(float) - arrays[layer.name]))
                    * rows
                    for after, rows in parts
                )
                / 450
            ).astype(np.float32)
            for layer in job.layers
        }
    assert all(np.abs(local.programs["a"].arrays[name] - arrays[name]).max() < 1e-6 for name in arrays)


def test_what_a_member_sends_is_never_longer_than_the_bound():
    job = spec()
    units = job.units(3)
    before = initial_arrays(job)
    for scale in (1e-9, 1e-3, 1.0, 1e6, 1e30):
        random = np.random.default_rng(3)
        after = {name: array + (random.normal(size=array.shape) * scale) for name, array in before.items()}
        sent = contribution(job, units, before, after, 1 << 20, SeededEntropy(1))
        for layer in job.layers:
            integers = [int(value) for value in sent[layer.name]]
            assert sum(value * value for value in integers) <= units.clip**2
            assert all(value == int(value) for value in sent[layer.name])
        assert sent[WEIGHT].tolist() == [job.max_weight]  # more rows than the bound count as the bound


def test_a_share_of_noise_has_the_deviation_that_the_terms_state():
    job = spec(noise=NOISE, layers=[{"name": "w", "shape": [200, 200], "clip": 1.0}, LAYERS[1]])
    units, before = job.units(3), initial_arrays(job)
    sent = contribution(job, units, before, before, 100, SeededEntropy(2))
    assert job.terms_noise(3).variance == units.share_variance == 4**units.share_bits
    assert np.std(sent["w"]) == pytest.approx(2**units.share_bits, rel=0.02)
    assert sent[WEIGHT].tolist() == [1.0]
    # z of what one member can change: h shares together against the root of both layers' bounds.
    assert math.sqrt(2) * 2**units.share_bits >= NOISE["multiplier"] * math.sqrt(2) * units.clip
    assert job.round_loss(3) == pytest.approx(0.5, rel=1e-6)


def test_noise_is_the_same_in_every_attempt_of_a_round_and_new_in_the_next():
    job = spec(noise=NOISE)
    local = federation(job, {**TRAINERS, "d": towards(0.0)})
    sent = []
    kept = local.members["a"].program.local
    local.members["a"].program.local = lambda: sent.append(kept()) or sent[-1]
    run_rounds(local, lose=lambda round_, send: (round_, send.member, send.stage) == (1, "d", "consistency"))
    assert len(sent) == 3  # once a round, whatever the attempts
    assert not np.array_equal(sent[0]["w"], sent[1]["w"])


def test_a_mean_without_weight_is_refused():
    job = spec()
    totals = {layer.name: np.zeros(layer.size, np.int32) for layer in job.layers}
    assert (
        code(lambda: mean_of(job, job.units(3), initial_arrays(job), {**totals, WEIGHT: np.array([0])})) == "MALFORMED"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_leaves(value):
    job = spec()
    bad = program(job, lambda round_, arrays: ({**arrays, "b": np.array([0.0, value], np.float32)}, 100))
    assert code(bad.local) == "NOT_FINITE"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda arrays: ({"w": arrays["w"]}, 100), "MALFORMED"),
        (lambda arrays: ({**arrays, "b": np.zeros(3, np.float32)}, 100), "MALFORMED"),
        (lambda arrays: ({**arrays, "b": np.zeros(2, np.int64)}, 100), "MALFORMED"),
        (lambda arrays: (arrays, 29), "MIN_ROWS"),
    ],
)
def test_what_a_trainer_may_not_answer(answer, expected):
    assert code(program(spec(), lambda round_, arrays: answer(arrays)).local) == expected


def test_a_member_below_the_floor_does_not_take_part():
    assert code(lambda: program(spec(), towards(1.0), rows=29)) == "MIN_ROWS"


# --- arrays between rounds --------------------------------------------------------------------------------------------


def test_first_arrays_follow_from_the_seed():
    arrays = initial_arrays(spec())
    assert arrays["w"].dtype == np.float32 and not arrays["b"].any()
    assert np.abs(arrays["w"]).max() <= math.sqrt(6 / 5)
    assert (
        arrays_digest(arrays) == arrays_digest(initial_arrays(spec())) != arrays_digest(initial_arrays(spec(seed="2")))
    )
    assert hashlib.sha256(encode_arrays(arrays)).hexdigest() == VECTOR


def test_arrays_as_bytes_and_back():
    job = spec()
    arrays = {"w": np.arange(6, dtype=np.float64).reshape(3, 2), "b": np.zeros(2, np.float32)}
    again = decode_arrays(encode_arrays(arrays), job)
    assert all(np.array_equal(again[name], arrays[name]) and again[name].dtype == arrays[name].dtype for name in arrays)
    data = encode_arrays(arrays)
    for cut in range(0, len(data), 7):
        assert code(lambda cut=cut: decode_arrays(data[:cut], job)) == "MALFORMED"
    for wrong in (
        {"w": arrays["w"]},
        {"b": arrays["b"], "w": arrays["w"]},
        {**arrays, "b": np.array([1.0, np.nan], np.float32)},
        {**arrays, "b": np.zeros(3, np.float32)},
    ):
        assert code(lambda wrong=wrong: decode_arrays(encode_arrays(wrong), job)) == "MALFORMED"
    assert code(lambda: check_arrays({"w": arrays["w"]}, job)) == "MALFORMED"


def test_after_a_total_a_member_needs_nothing():
    job = spec()
    local = federation(job, TRAINERS)
    local.run_round(local.plan(1, NAMES))
    member = local.programs["a"]
    assert member.needs(2, arrays_digest(member.arrays)) == NOTHING
    assert code(lambda: member.needs(2, bytes(32))) == "WRONG_ARRAYS"
    assert code(lambda: member.needs(1, bytes(32))) == "LOST"


def test_under_platform_a_member_derives_from_the_stated_total():
    job = spec(unverified=True)
    both, platform = federation(job, TRAINERS), federation(job, TRAINERS, "platform")
    both.run_round(both.plan(1, NAMES))
    outcome = platform.run_round(platform.plan(1, NAMES))
    member = platform.programs["a"]
    assert member.awaiting and code(lambda: member.arrays) == "JOB_STATE" and code(member.local) == "LOST"
    assert member.needs(2, bytes(32)) == TOTAL
    assert code(lambda: member.stated(2, b"")) == "MALFORMED"
    assert code(lambda: member.offered(2, encode_arrays(initial_arrays(job)))) == "WRONG_ARRAYS"
    member.stated(2, outcome.total.tobytes())
    assert arrays_digest(member.arrays) == arrays_digest(both.programs["a"].arrays)
    assert code(lambda: member.stated(2, outcome.total.tobytes())) == "WRONG_ARRAYS"  # once


def test_with_noise_arrays_may_be_the_platforms_until_the_round_is_trained():
    job = spec(noise=NOISE)
    member = program(job, towards(1.0))
    other = {name: array + 1 for name, array in initial_arrays(job).items()}
    assert member.needs(1, arrays_digest(other)) == ARRAYS
    member.offered(1, encode_arrays(other))
    assert arrays_digest(member.arrays) == arrays_digest(other)
    member.local()
    assert code(lambda: member.offered(1, encode_arrays(other))) == "REPLAY"
    assert code(lambda: member.stated(1, bytes(36))) == "WRONG_ARRAYS"


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "FedAvgM"])
def test_a_restarted_member_goes_on_with_the_same_bits(strategy):
    options = {"server_momentum": 0.9} if strategy == "FedAvgM" else {}
    job = spec(strategy=strategy, options=options)
    local = federation(job, TRAINERS)
    for round_ in (1, 2):
        local.run_round(local.plan(round_, NAMES))
        old = local.programs["a"]
        snapshot, checkpoint = local.members["a"].snapshot(), old.checkpoint()
        again = program(job, TRAINERS["a"], "a")
        local.programs = {**local.programs, "a": again}
        local.members["a"] = local.member("a")
        local.members["a"].restore(snapshot)
        assert not again.resume(checkpoint[:-1]) and again.resume(checkpoint)
        assert arrays_digest(again.arrays) == arrays_digest(old.arrays)
    outcome = local.run_round(local.plan(3, NAMES))
    assert outcome.progress == "done" and not outcome.error
    undisturbed = federation(job, TRAINERS)
    run_rounds(undisturbed)
    assert arrays_digest(local.programs["a"].arrays) == arrays_digest(undisturbed.programs["a"].arrays)


@pytest.mark.parametrize("came", [False, True])
def test_a_member_that_restarts_between_a_total_and_its_arrays_goes_on(came):
    job = spec(unverified=True, strategy="FedAdam")
    local = federation(job, TRAINERS, "platform")
    outcome = local.run_round(local.plan(1, NAMES))
    old, snapshot = local.programs["a"], local.members["a"].snapshot()
    if came:
        old.stated(2, outcome.total.tobytes())  # and the position on file is still that of the moment before
    again = program(job, TRAINERS["a"], "a")
    again.restore(json.loads(snapshot)["state"].encode())
    assert again.resume(old.checkpoint()) and again.awaiting is not came
    if not came:
        again.stated(2, outcome.total.tobytes())
        old.stated(2, outcome.total.tobytes())
    assert again.state() == old.state() and again.checkpoint() == old.checkpoint()


def test_a_restarted_member_without_its_file_takes_arrays_of_the_hash_it_knows():
    job = spec()
    local = federation(job, TRAINERS)
    local.run_round(local.plan(1, NAMES))
    right = local.programs["b"].arrays
    again = program(job, TRAINERS["a"], "a")
    again.restore(local.programs["a"].state())
    assert code(again.local) == "LOST" and again.needs(2, arrays_digest(right)) == ARRAYS
    wrong = {name: array + 1 for name, array in right.items()}
    assert code(lambda: again.offered(2, encode_arrays(wrong))) == "WRONG_ARRAYS"
    again.offered(2, encode_arrays(right))
    assert arrays_digest(again.arrays) == arrays_digest(right)


def test_a_state_of_another_job_is_refused():
    member = program(spec(), towards(1.0))
    assert code(lambda: member.restore(program(spec(seed="2"), towards(1.0)).state())) == "STATE_MISMATCH"
    for wrong in (b"{}", b'{"v":1}', b"[]"):
        assert code(lambda wrong=wrong: member.restore(wrong)) == "BAD_DOCUMENT"


def test_floors_after_a_loss():
    member = program(spec(), towards(1.0))
    member.check_floors({"b": member.floors()})
    assert code(lambda: member.check_floors({"b": b'{"rows":0}'})) == "FLOOR_LOST"
    for wrong in (b"", b'{"rows":"1"}', b'{"rows":1,"x":1}'):
        with pytest.raises(ChaotianError) as raised:
            member.check_floors({"b": wrong})
        assert (raised.value.code, raised.value.member) == ("MALFORMED", "b")


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"app": ""},
        {"digest": "0" * 63},
        {"layers": []},
        {"layers": LAYERS + LAYERS[:1]},
        {"layers": [{"name": "weight", "shape": [1], "clip": 1.0}]},
        {"layers": [{"name": "w", "shape": [0], "clip": 1.0}]},
        {"layers": [{"name": "w", "shape": [1 << 25], "clip": 1.0}]},
        {"layers": [{"name": "w", "shape": [1 << 23], "clip": 1.0}, {"name": "v", "shape": [1 << 24], "clip": 1.0}]},
        {"layers": [{"name": "w", "shape": [2], "clip": 0}]},
        {"layers": [{"name": "w", "shape": [2], "clip": float("nan")}]},
        {"layers": [{"name": "w", "shape": [2], "clip": 1.0, "init": "ones"}]},
        {"rounds": 0},
        {"rounds": True},
        {"dtype": "float16"},
        {"label": "x"},
        {"weighting": "rows", "noise": NOISE},
        {"noise": {"multiplier": 1.0}},
        {"noise": {"multiplier": 0.0, "honest": 2}},
        {"noise": {**NOISE, "delta": 0.0}},
        {"noise": {**NOISE, "seed": 1}},
        {"config": {"a": [1, "b"]}},
        {"config": {"a": {}}},
        {"config": {"a": []}},
        {"config": {"server-round": 1}},
        {"config": {"a": float("inf")}},
        {"options": {"eta": "1"}},
        {"unverified": 1},
        {"max_weight": 0},
        {"more": 1},
    ],
)
def test_parameters_that_are_refused(changes):
    assert code(lambda: spec(**changes)) == "BAD_DOCUMENT"


@pytest.mark.parametrize("members", [3, 4, 10, 100])
@pytest.mark.parametrize("multiplier", [0.3, 1.0, 8.0])
def test_integers_fit_the_ring_and_keep_the_multiplier(members, multiplier):
    job = spec(noise={"multiplier": multiplier, "honest": 2})
    units = job.units(members)
    assert units.bound * members < 1 << 30 and all(
        job.layout(members).limbs(f) == 1 for f in job.layout(members).fields
    )
    assert 2 * units.share_variance >= multiplier**2 * len(job.layers) * units.clip**2
    assert job.round_loss(members) <= 1 / (2 * multiplier**2) * (1 + 1e-9)


def test_more_noise_than_the_ring_has_room_for_is_refused():
    assert code(lambda: spec(noise={"multiplier": 1e4, "honest": 1}).units(1000)) == "BAD_DOCUMENT"


def test_epsilon_grows_with_rounds_and_shrinks_with_noise():
    few, many = spec(noise=NOISE).epsilon(3, 1), spec(noise=NOISE).epsilon(3, 10)
    assert few < many < 10 * few
    assert spec(noise={**NOISE, "multiplier": 4.0}).epsilon(3, 10) < many
    assert spec().epsilon(3) is None
