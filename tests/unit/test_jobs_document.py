"""Job documents and papers: what a person may write, and every way in which a document may be wrong."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.primitives.encoding import canonical_json
from federation.primitives.signing import Signer
from gateway.grants.catalogue import STEPS
from gateway.jobs.document import JobDocument, from_toml, from_written, job_id
from gateway.jobs.kinds import KINDS
from gateway.jobs.papers import (
    ACCEPTANCE,
    CONSENT,
    Acceptance,
    Binding,
    Bundle,
    Cancellation,
    Consent,
    open_paper,
    propose,
    proposed,
    verify_proposal,
)
from gateway.jobs.plan import select
from gateway.jobs.writing import Lookups, Training

TOML = b"""
kind = "scorecard"
purpose = "credit-risk-model"
members = ["bank-c", "bank-a", "bank-b"]
dataset = "loans"
[params]
label = "bad"
features = ["amount", { name = "sector", levels = ["trade", "farm"] }]
"""
GIVEN = {"space": "demo", "proposer": "bank-a", "nonce": "0" * 32, "created": 1_800_000_000}
JOB = from_toml(TOML, **GIVEN)
SIGNER = Signer(b"\x01" * 32)
COMMON = {"purpose": "credit-risk-model", "members": ["bank-a", "bank-b", "bank-c"], "dataset": "loans"}
FEATURES = ["amount", {"name": "sector", "levels": ["trade", "farm"]}]
MODEL = "a" * 64
WRITTEN = {
    "profile": {"params": {"features": FEATURES, "domains": {"amount": [0, 9.5]}}},
    "binning": {"params": {"label": "bad", "features": FEATURES, "edges": {"amount": [1, 2.5]}, "monotone": "auto"}},
    "scorecard": {"params": {"label": "bad", "features": FEATURES, "coding": "woe", "seed": 7}, "test": "others@2"},
    "evaluate": {"params": {"model": MODEL, "rows": "holdout", "holdout": 0.3, "seed": ""}},
    "fedavg": {
        "params": {
            "app": "mlp",
            "digest": "0" * 64,
            "label": "bad",
            "features": FEATURES,
            "layers": [{"name": "w1", "shape": [3, 4], "clip": 1}],
            "noise": {"multiplier": 2, "honest": 2},
            "config": {"epochs": 2, "learning-rate": 0.05, "center": [0, 1.5]},
        }
    },
    "stability": {"params": {"model": MODEL}, "dataset": "loans@2024-12-31", "after": "loans@2025-06-30"},
}


def written(kind: str, **changes) -> JobDocument:
    return from_written({"kind": kind, **COMMON, **WRITTEN[kind], **changes}, **GIVEN)


def refused(call, code="BAD_DOCUMENT"):
    with pytest.raises(ChaotianError) as caught:
        call()
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 10**9}, {"epochs": 0}, {"epochs": 1.5}, {"epochs": True}, {"epochs": [1]}, {"batch": 1},
        {"batch": 1 << 40}, {"learning-rate": 0}, {"learning-rate": 1e300}, {"penalty": -1}, {"penalty": "1"},
        {"center": [0.0]}, {"center": [0, 1e300]}, {"spread": 0}, {"spread": [1.0, -1.0]}, {"epoch": 1},
    ],
)  # fmt: skip
def test_what_the_example_app_is_told_is_bounded_when_written_and_when_it_arrives(wrong):
    params = WRITTEN["fedavg"]["params"]
    name = next(iter(wrong))
    assert f"config.{name}" in refused(lambda: written("fedavg", params={**params, "config": wrong})).detail
    document = written("fedavg").document()
    document["params"]["config"] = wrong
    assert f"config.{name}" in refused(lambda: JobDocument.decode(canonical_json(document))).detail
    # What another app is told is its own affair.
    assert written("fedavg", params={**params, "app": "own", "config": wrong}).plan.spec.config == wrong


def test_defaults_and_order_are_filled_in():
    assert JOB.members == ("bank-a", "bank-b", "bank-c") and JOB.min_members == 3 and JOB.min_rows == 30
    assert JOB.result_to == "members" and JOB.stage_seconds == 20.0
    assert JOB.plan.columns(None) == ("bad", "amount", "sector")
    assert JOB.params["holdout"] == 0.2 and JOB.params["penalty"] == 1 and JOB.params["max_rounds"] == 40
    assert JOB.params["features"][1] == {"name": "sector", "type": "category", "levels": ["trade", "farm"]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_one_form(kind):
    job = written(kind)
    assert JobDocument.decode(job.encode()) == job and job.plan.kind == kind
    # What is written out in full is the same job as what was left to defaults.
    again = from_written({**COMMON, "kind": kind, **WRITTEN[kind], "params": dict(job.params)}, **GIVEN)
    assert again == job
    for name in job.params:
        shorter = {key: value for key, value in job.params.items() if key != name}
        refused(lambda shorter=shorter: JobDocument.from_document({**job.document(), "params": shorter}))
    refused(lambda: written(kind, params={**job.params, "more": 1}))
    refused(lambda: written(kind, params={**job.params, "min_rows": 5}))  # floors are no parameters


@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("profile", ["profile.counts", "columns.histogram", "profile.moments"]),
        ("binning", ["binning.counts"]),  # the one numeric column has edges
        ("scorecard", ["columns.histogram", "binning.counts", "scorecard.newton"]),
        ("evaluate", ["evaluate.scores"]),
        ("stability", ["stability.counts"]),
        ("fedavg", ["fedavg.update"]),
    ],
)
def test_every_operation_is_one_a_grant_can_name(kind, operations):
    found = written(kind).plan.operations()
    assert list(found) == operations and set(found) <= {step for steps in STEPS.values() for step in steps}


def test_rows_that_enter_follow_from_the_parameters():
    frame = Frame([f"r{i}" for i in range(1000)], {})
    held = select(
        frame,
        written("evaluate", params={"model": MODEL, "rows": "holdout", "holdout": 0.2, "seed": "s"}).plan.selection(),
    )
    trained = select(
        frame, written("scorecard", params={**WRITTEN["scorecard"]["params"], "seed": "s"}).plan.selection()
    )
    assert (held != trained).all() and 150 < held.sum() < 250
    assert select(frame, written("profile").plan.selection()).all()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("profile", {"params": {"features": []}}),
        ("profile", {"params": {"features": FEATURES, "label": "bad"}}),
        ("profile", {"params": {"features": FEATURES, "domains": {"amount": [2, 1]}}}),
        ("profile", {"params": {"features": FEATURES, "domains": {"sector": [0, 1]}}}),
        ("profile", {"after": "loans-2"}),
        ("profile", {"test": "others"}),
        ("binning", {"params": {"label": "amount", "features": FEATURES}}),
        ("binning", {"params": {"label": "bad", "features": FEATURES, "bins": 1}}),
        ("binning", {"params": {"label": "bad", "features": FEATURES, "edges": {"amount": [2, 1]}}}),
        ("binning", {"params": {"label": "bad", "features": FEATURES, "holdout": 0.001}}),
        ("scorecard", {"params": {"label": "bad", "features": FEATURES, "edges": {"amount": [1]}}}),  # without woe
        ("scorecard", {"params": {"label": "bad", "features": FEATURES, "coding": "woe", "impute": "mean"}}),
        ("evaluate", {"params": {"model": "abcd"}}),
        ("evaluate", {"params": {"model": MODEL, "rows": "some"}}),
        ("evaluate", {"params": {"model": MODEL, "rows": "holdout", "holdout": 0.07, "seed": ""}}),
        ("evaluate", {"params": {"model": MODEL, "rows": "holdout"}}),  # whose holdout, nobody knows
        ("evaluate", {"params": {}}),
        ("stability", {"params": {}}),
        ("stability", {"params": {"model": MODEL, "features": FEATURES}}),
        ("stability", {"params": {"model": "xyz"}}),
        ("stability", {"after": ""}),
        ("stability", {"after": "loans@yesterday"}),
        ("stability", {"dataset": "loans@0"}),
        ("anything", {"params": {}}),
    ],
)
def test_parameters_of_a_kind_are_read_strictly(kind, changes):
    refused(lambda: from_written({"kind": kind, **COMMON, **WRITTEN.get(kind, {}), **changes}, **GIVEN))


def test_the_proposers_node_fills_in_what_it_knows():
    asked = []

    def model(digits):
        asked.append(digits)
        return Training(MODEL, 0.3, "s")

    lookups = Lookups(
        columns={"loans": {"amount": ("numeric", ()), "sector": ("category", ("trade", "farm"))}}.get,
        model=model,
        edges=lambda digits: {"amount": [1.0, 2.0], "other": [5.0]},
    )
    params = {"label": "bad", "features": ["amount", "sector"], "edges": "abcd"}
    job = from_written({**COMMON, "kind": "binning", "params": params}, **GIVEN, lookups=lookups)
    assert job.params["features"] == JOB.params["features"] and job.params["edges"] == {"amount": [1, 2]}
    params = {"model": "abcd", "rows": "holdout"}
    job = from_written({**COMMON, "kind": "evaluate", "params": params}, **GIVEN, lookups=lookups)
    assert asked == ["abcd"] and dict(job.params) == {"model": MODEL, "rows": "holdout", "holdout": 0.3, "seed": "s"}
    params = {"features": ["amount", "turnover"]}
    missing = {**COMMON, "kind": "profile", "params": params}
    assert "turnover" in refused(lambda: from_written(missing, **GIVEN, lookups=lookups), "DATA_COLUMN").detail


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
        {"params": []},
        {"after": "loans-2"},
        {"test": "a b"},
        {"stage_seconds": 0.0},
        {"nonce": "xyz"},
        {"kind": "anything"},
    ],
)
def test_wrong_values_are_refused(changes):
    refused(lambda: JobDocument.from_document({**JOB.document(), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
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
        {"label": "amount"},
        {"max_rounds": 0},
        {"max_rounds": 2.5},
        {"seed": "a\u202eb"},
        {"features": [[[[[[[[[[]]]]]]]]]]},
    ],
)
def test_wrong_parameters_are_refused(changes):
    refused(lambda: JobDocument.from_document({**JOB.document(), "params": {**JOB.params, **changes}}))


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"kind = ", b"kind = 'scorecard'\n", TOML + b"\n[more]\na = 1\n", TOML + b"\nmore = 1\n", b"v = 1\n"],
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
    refused(lambda: JobDocument.from_document({**JOB.document(), "v": 3}), "VERSION")


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


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(WRITTEN)), value=json_values)
def test_any_value_of_any_parameter_is_taken_or_refused_with_a_code(data, kind, value):
    params = dict(written(kind).params)
    params[data.draw(st.sampled_from(sorted(params)))] = value
    try:
        job = written(kind, params=params)
    except ChaotianError as error:
        assert error.code == "BAD_DOCUMENT"
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


BOUND = Binding("loans", "a" * 64, "b" * 64)
ACCEPTED = Acceptance("demo", JOB.id, "bank-a", (BOUND,), False, 1_800_000_000)


def test_an_acceptance_says_exactly_what_is_accepted():
    body = open_paper(ACCEPTANCE, ACCEPTED.sign(SIGNER), SIGNER.verifier, "bank-a")
    assert Acceptance.decode(body) == ACCEPTED
    two = replace(ACCEPTED, data=(BOUND, Binding("loans-2", "c" * 64, "d" * 64)))
    assert Acceptance.decode(two.encode()) == two and two.grant == "b" * 64
    document = json.loads(ACCEPTED.encode())
    bound = document["data"][0]
    for wrong in (
        {"more": 1}, {"exposure_consent": 1}, {"job": "xyz"}, {"v": 2}, {"data": []}, {"data": bound},
        {"data": [bound] * 3}, {"data": [{**bound, "grant": "short"}]}, {"data": [{**bound, "more": 1}]},
        {"data": [{"dataset": "loans", "grant": "b" * 64}]}, {"data": ["loans"]},
    ):  # fmt: skip
        refused(lambda wrong=wrong: Acceptance.decode(canonical_json(document | wrong)))


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
