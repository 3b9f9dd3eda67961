"""The committed vectors are replayed as operations; every bad case is refused as it says."""

import json
from pathlib import Path

import pytest

from federation.primitives.encoding import unpack, unpack_map
from federation.primitives.shamir import Combiner
from federation.secure_sum import messages as m
from federation.secure_sum.terms import STAGES
from tests.vectors import generate
from tests.vectors.replay import handle, member_before, outcome_of

FILE = json.loads((Path(__file__).parent / "secure_sum.json").read_text())


def test_the_building_blocks_still_give_what_is_committed():
    """Whoever changes a format sees it here: run `python -m tests.vectors.generate secure-sum` and say so."""
    fresh = json.loads(json.dumps(generate.parts()))
    for name, value in fresh.items():
        assert FILE[name] == value, f"{name} has changed"


def test_any_three_shares_of_the_vector_give_its_secret():
    shares = [bytes.fromhex(share) for share in FILE["shamir"]["shares"]]
    for points in ((1, 2, 3), (2, 3, 4), (4, 1, 3)):
        secret = Combiner(points).combine({point: shares[point - 1] for point in points})
        assert secret.hex() == FILE["shamir"]["secret"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_recorded_round_is_answered_as_recorded(stage):
    job, _ = member_before(FILE["round"], stage)
    entry = next(entry for entry in FILE["round"] if entry["stage"] == stage)
    reply, recorded = handle(job, entry), bytes.fromhex(entry["reply"])
    if stage == "share_keys":  # sealing draws its own randomness; the commitments follow from the seed
        ours, theirs = unpack_map("parcels", reply), unpack_map("parcels", recorded)
        assert {n: m.Parcel.decode(p).commitment for n, p in ours.items()} == {
            n: m.Parcel.decode(p).commitment for n, p in theirs.items()
        }
    else:
        assert reply == recorded
    if stage == "result":
        scaled = [[int(sum(v[i] for v in FILE["values"].values()) * 65536) for i in range(2)]]
        assert job.program.totals == scaled and unpack("status", reply, 2)


@pytest.mark.parametrize("case", FILE["bad"], ids=lambda case: case["name"])
def test_a_bad_case_is_refused_as_it_says(case):
    assert case["code"], f"{case['name']} was taken when the vectors were written"
    assert outcome_of(FILE["round"], case) == (case["code"], case["member"])


def test_there_is_a_bad_case_for_every_stage_and_field():
    names = {case["name"] for case in FILE["bad"]}
    assert {case["stage"] for case in FILE["bad"]} == set(STAGES) and len(names) == len(FILE["bad"]) >= 30
