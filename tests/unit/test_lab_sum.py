"""`chaotian lab sum`: what it counts, what it refuses, and that `equal` is found out and not assumed."""

import json
from itertools import product

import numpy as np
import pytest
from typer.testing import CliRunner

from federation.errors import ChaotianError
from federation.primitives.encoding import pack, pack_in_place, unpack
from federation.primitives.fixed_point import Totals
from federation.secure_sum.terms import STAGES
from gateway.cli.lab import app
from gateway.lab import summing
from gateway.lab.summing import SumSettings, VectorSum, plain_sum, run_sum
from tests.support.entropy import SeededEntropy


def go(**settings):
    return run_sum(SumSettings(**{"members": 4, "length": 50, **settings}), entropy=SeededEntropy(1))


@pytest.mark.parametrize(("ring", "result_to"), list(product((32, 64), ("platform", "members", "both"))))
def test_the_total_is_the_plain_sum(ring, result_to):
    result = go(ring=ring, result_to=result_to)
    document = json.loads(json.dumps(result.document()))
    assert document["equal"] is True and document["attempts"] == 1 and document["summed"] == 4
    assert document["cpu_seconds"]["member"] > 0 and document["cpu_seconds"]["coordinator"] > 0
    assert document["wall_seconds"] > 0
    assert document["verified"] is (result_to != "platform")


@pytest.mark.parametrize(
    ("stage", "attempts", "summed"),
    [(stage, 2, 3) for stage in STAGES[:4]] + [("unmask", 1, 4), ("result", 1, 4)],
)
def test_a_loss_before_unmask_costs_an_attempt(stage, attempts, summed):
    result = go(lost=1, lost_at=stage, result_to="both")
    assert (result.outcome.attempts, len(result.outcome.roster)) == (attempts, summed)
    assert result.equal
    assert {loss.member for loss in result.outcome.losses} == {"member-0004"}


def test_the_lost_member_is_not_in_the_total():
    whole, less = go(), go(lost=1)
    assert whole.equal and less.equal
    assert not np.array_equal(whole.outcome.total, less.outcome.total)


def test_a_loss_after_the_masked_input_is_uploaded_twice():
    one, two = go(length=20_000), go(length=20_000, lost=1)
    assert 8 < one.bytes_per_value < 8.4
    assert 16 < two.bytes_per_value < 16.8


@pytest.mark.parametrize(
    ("settings"),
    [
        {"members": 2},
        {"members": 4, "lost": 2},
        {"members": 4, "lost": 4, "lost_at": "advertise_keys"},
        {"members": 4, "lost": 2, "lost_at": "unmask"},
        {"members": 4, "lost": 4, "lost_at": "result"},
    ],
)
def test_more_losses_than_the_protocol_allows(settings):
    with pytest.raises(ChaotianError) as error:
        go(**settings)
    assert error.value.code == "TOO_FEW_MEMBERS" and error.value.exit_status == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"members": 0},
        {"members": 1001},
        {"length": 0},
        {"length": -1},
        {"length": 1 << 40},
        {"lost": -1},
        {"lost": 5},
        {"lost_at": "never"},
        {"ring": 16},
        {"result_to": "nobody"},
        {"seed": -1},
        {"members": 1000, "length": 1 << 27},
    ],
)
def test_wrong_values_are_wrong_use(settings):
    with pytest.raises(ChaotianError) as error:
        go(**settings)
    assert error.value.code == "USAGE" and error.value.exit_status == 2


@pytest.mark.parametrize("result_to", ["platform", "members", "both"])
def test_a_wrong_total_is_seen(monkeypatch, result_to):
    def off_by_one(layout, vectors):
        total = plain_sum(layout, vectors)
        total[-1] += 1
        return total

    monkeypatch.setattr(summing, "plain_sum", off_by_one)
    assert go(result_to=result_to).equal is False


def test_a_member_without_a_total_is_not_equal(monkeypatch):
    monkeypatch.setattr(VectorSum, "advance", lambda self, totals: setattr(self, "_done", True))
    assert go(result_to="members").equal is False


@pytest.mark.parametrize(("ring", "members"), [(32, 3), (32, 1000), (64, 3), (64, 1000)])
def test_values_keep_one_ring_element_and_never_wrap(ring, members):
    layout = SumSettings(members=members, length=2, ring=ring).layout
    assert layout.slots == 2
    scale = layout.fields[0].scale_bits
    assert summing.BOUND * members << scale < 1 << (ring - 2)
    extreme = np.array([summing.BOUND, -summing.BOUND], dtype=np.float64)
    total = plain_sum(layout, [extreme] * members)
    assert total.tolist() == [summing.BOUND * members << scale, -summing.BOUND * members << scale]


def test_vectors_are_the_same_for_the_same_seed():
    one, same, other = (SumSettings(members=3, length=9, seed=seed).vectors() for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["member-0001"], one["member-0002"])


def test_totals_give_integers_and_arrays():
    layout = SumSettings(members=3, length=2).layout
    totals = Totals(layout, np.array([5, 2**64 - 7], dtype="<u8"))
    assert dict(totals) == {"values": [5, -7]} and all(type(value) is int for value in totals["values"])
    assert totals.array("values").tolist() == [5, -7] and len(totals) == 1


def test_json_and_table():
    runner = CliRunner()
    arguments = ["sum", "--members", "3", "--length", "10", "--ring", "32"]
    document = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert {"cpu_seconds", "wall_seconds", "bytes_per_value", "equal"} <= document.keys()
    assert set(document["cpu_seconds"]) == {"member", "coordinator"} and document["equal"] is True
    table = runner.invoke(app, arguments)
    assert table.exit_code == 0 and "equal to the plain sum" in table.stdout


def test_an_unequal_total_is_an_error(monkeypatch):
    monkeypatch.setattr(summing, "_equal", lambda *arguments: False)
    result = CliRunner().invoke(app, ["sum", "--members", "3", "--length", "10", "--json"])
    assert isinstance(result.exception, ChaotianError) and json.loads(result.stdout)["equal"] is False


def test_a_body_packed_in_place_is_the_same_message():
    def write(body):
        body[:] = b"abcdefgh"
        return [b"x", b""]

    message = pack_in_place("tag", 8, write)
    assert message == pack("tag", [b"abcdefgh", b"x", b""])
    assert unpack("tag", message, 3) == [b"abcdefgh", b"x", b""]

    def fail(body):
        np.frombuffer(body, dtype=np.uint8)[:] = 1
        raise ChaotianError("OVERFLOW")

    with pytest.raises(ChaotianError) as error:
        pack_in_place("tag", 8, fail)
    assert error.value.code == "OVERFLOW"
