"""Job documents and papers: what a person may write, and every way in which a document may be wrong."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.signing import Signer
from gateway.jobs.document import JobDocument, from_toml, job_id
from gateway.jobs.papers import (
    ACCEPTANCE,
    CONSENT,
    Acceptance,
    Bundle,
    Cancellation,
    Consent,
    open_paper,
    propose,
    proposed,
    verify_proposal,
)

TOML = b"""
kind = "scorecard"
purpose = "credit-risk-model"
members = ["bank-c", "bank-a", "bank-b"]
dataset = "loans"
label = "bad"
[[features]]
name = "amount"
type = "numeric"
[[features]]
name = "sector"
type = "category"
levels = ["trade", "farm"]
"""
GIVEN = {"space": "demo", "proposer": "bank-a", "nonce": "0" * 32, "created": 1_800_000_000}
JOB = from_toml(TOML, **GIVEN)
SIGNER = Signer(b"\x01" * 32)


def refused(call, code="BAD_DOCUMENT"):
    with pytest.raises(ChaotianError) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def test_defaults_and_order_are_filled_in():
    assert JOB.members == ("bank-a", "bank-b", "bank-c") and JOB.min_members == 3 and JOB.min_rows == 30
    assert JOB.result_to == "members" and JOB.stage_seconds == 20.0 and JOB.columns == ("amount", "sector", "bad")
    assert JOB.scorecard().features == JOB.features and JOB.scorecard().min_rows == JOB.min_rows


def test_id_is_the_hash_of_the_canonical_form_and_two_equal_jobs_are_two():
    assert JOB.id == job_id(JOB.encode()) and JobDocument.decode(JOB.encode()) == JOB
    assert from_toml(TOML, **{**GIVEN, "nonce": "1" * 32}).id != JOB.id


@pytest.mark.parametrize("name", [field.name for field in fields(JobDocument)] + ["v"])
def test_every_field_must_be_there_and_have_its_type(name):
    document = JOB.document()
    del document[name]
    assert name in refused(lambda: JobDocument.from_document(document)).detail
    for wrong in (None, {}, True, ["\x00"], -1, "\x00", 1e300):
        refused(lambda wrong=wrong: JobDocument.from_document({**JOB.document(), name: wrong}))


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"members": ["bank-a", "bank-b"]},
        {"members": ["bank-b", "bank-a", "bank-c"]},
        {"members": ["bank-a", "bank-a", "bank-b"]},
        {"members": ["bank-a", "bank-b", "Bank C"]},
        {"min_members": 2},
        {"min_members": 4},
        {"min_rows": 29},
        {"exposed": ["bank-a"]},
        {"result_to": "platform"},
        {"result_to": "everybody"},
        {"label": "amount"},
        {"features": []},
        {"features": [{"name": "a", "type": "numeric"}] * 2},
        {"features": [{"name": "a", "type": "text"}]},
        {"features": [{"name": "a", "type": "category"}]},
        {"features": [{"name": "a", "type": "numeric", "levels": ["x"]}]},
        {"features": [{"name": "a\n", "type": "numeric"}]},
        {"features": [{"name": "a\x9b2J", "type": "numeric"}]},
        {"features": [{"name": "a", "type": "category", "levels": ["x", "y\x1b[2J"]}]},
        {"features": [{"name": "a", "type": "category", "levels": ["x", "\u202ey"]}]},
        {"label": "a\x9b2J"},
        {"holdout": 0.51},
        {"holdout": 1e-9},
        {"holdout": 0.06},
        {"holdout": float("nan")},
        {"penalty": -1.0},
        {"penalty": float("inf")},
        {"max_rounds": 0},
        {"max_rounds": 2.0},
        {"stage_seconds": 0.0},
        {"nonce": "xyz"},
        {"kind": "anything"},
    ],
)
def test_wrong_values_are_refused(changes):
    refused(lambda: JobDocument.from_document({**JOB.document(), **changes}))


@pytest.mark.parametrize(
    "text", [b"\xff", b"kind = ", b"kind = 'scorecard'\n", TOML + b"\n[more]\na = 1\n", b"v = 1\n"]
)
def test_wrong_toml_is_refused(text):
    refused(lambda: from_toml(text, **GIVEN))


def test_what_the_node_sets_cannot_be_written():
    for name in ("space", "proposer", "nonce", "created", "v"):
        assert name in refused(lambda name=name: from_toml(f"{name} = 'x'\n".encode() + TOML, **GIVEN)).detail


def test_size_is_bounded():
    refused(lambda: from_toml(b"#" * 300_000, **GIVEN), "OVERSIZED")
    refused(lambda: JobDocument.decode(b" " * 300_000), "OVERSIZED")


def test_another_spelling_of_the_same_json_is_refused():
    refused(lambda: JobDocument.decode(json.dumps(JOB.document(), indent=1).encode()))


def test_a_later_version_is_named_as_such():
    refused(lambda: JobDocument.from_document({**JOB.document(), "v": 2}), "VERSION")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(JOB.document())), value=json_values)
def test_any_value_in_any_field_is_taken_or_refused_with_a_code(name, value):
    try:
        job = JobDocument.from_document({**JOB.document(), name: value})
    except ChaotianError as error:
        assert error.code in ("BAD_DOCUMENT", "VERSION")
    else:
        assert JobDocument.decode(job.encode()) == job


def test_papers_are_verified_under_their_signers_key():
    other = Signer(b"\x02" * 32)
    paper = propose(JOB, SIGNER)
    assert verify_proposal(paper, SIGNER.verifier) == JOB == proposed(paper)
    refused(lambda: verify_proposal(paper, other.verifier), "SIGNATURE")
    for at in range(0, len(paper), 97):
        broken = bytearray(paper)
        broken[at] ^= 1
        with pytest.raises(ChaotianError):
            verify_proposal(bytes(broken), SIGNER.verifier)


ACCEPTED = Acceptance("demo", JOB.id, "bank-a", "loans", "a" * 64, "b" * 64, False, 1_800_000_000)


def test_an_acceptance_says_exactly_what_is_accepted():
    body = open_paper(ACCEPTANCE, ACCEPTED.sign(SIGNER), SIGNER.verifier, "bank-a")
    assert Acceptance.decode(body) == ACCEPTED
    document = json.loads(ACCEPTED.encode())
    for wrong in ({"more": 1}, {"exposure_consent": 1}, {"job": "xyz"}, {"v": 2}, {"grant": "short"}):
        refused(lambda wrong=wrong: Acceptance.decode(canonical_json(document | wrong)))
    del document["snapshot"]
    refused(lambda: Acceptance.decode(canonical_json(document)))


def test_a_paper_of_one_kind_is_none_of_another():
    consent = Consent("demo", JOB.id, "bank-a", 1)
    assert consent.encode() == Cancellation("demo", JOB.id, "bank-a", 1).encode()  # the tag keeps them apart
    refused(lambda: open_paper(CONSENT, Cancellation("demo", JOB.id, "bank-a", 1).sign(SIGNER), SIGNER.verifier, ""),
            "MALFORMED")  # fmt: skip


def test_bundles_come_back_as_they_were_and_nothing_else_is_taken():
    bundle = Bundle(propose(JOB, SIGNER), {"bank-a": ACCEPTED.sign(SIGNER)}, {}, b"", "proposed", "")
    assert Bundle.decode(bundle.encode()) == bundle
    document = json.loads(bundle.encode())
    for wrong in ({"more": 1}, {"proposal": "***"}, {"acceptances": []}, {"consents": {"a": 1}}, {"state": 7}):
        refused(lambda wrong=wrong: Bundle.decode(canonical_json(document | wrong)), "MALFORMED")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_is_refused_with_a_code(data):
    for read in (Bundle.decode, proposed, Acceptance.decode, JobDocument.decode):
        with pytest.raises(ChaotianError):
            read(data)
