"""A platform that changes its directory and changes it back, hands out old papers, or works on after a cancellation."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from sqlalchemy import update

from federation.errors import ChaotianError
from federation.primitives.signing import Signer
from gateway.jobs import node
from gateway.jobs.document import from_toml
from gateway.jobs.papers import Acceptance, Bundle, Consent, propose
from gateway.storage.tables.jobs import jobs
from tests.support.jobs_kit import BANKS, SPACE, job_toml, with_space
from tests.unit.test_jobs_markers import NAMES, counts, make, refused, terms_of

FORGER = Signer(b"\x42" * 32)  # a key of the platform's own, listed for a while in a member's name


def list_as(bank, member, key) -> None:
    """Have the node's directory list `member` under another key, which its owner has not approved."""
    kept = bank.jobs._peers.listings
    fake = SimpleNamespace(entry=SimpleNamespace(role="bank", identity_key=key), status="active")
    bank.jobs._peers.listings = lambda: {**kept(), member: fake}


def consented(bank, job, keys):
    with bank.database.read() as connection:
        return bank.jobs.store.consenting(connection, job, keys)


def test_a_consent_under_a_key_listed_for_a_moment_does_not_count(tmp_path):
    async def work(space):
        job = await space.propose()
        bank = space.banks["bank-2"]
        kept = bank.jobs._peers.listings
        list_as(bank, "bank-4", FORGER.verifier)
        paper = Consent(SPACE, job, "bank-4", 1).sign(FORGER)
        proposal = bank.jobs.store.get(job).proposal
        await bank.jobs.on_bundle(Bundle(proposal, {}, {"bank-4": paper}, b"", "proposed", "").encode())
        bank.jobs._peers.listings = kept
        assert bank.jobs.store.papers(job, "consent") == {"bank-4": paper}  # it was taken in
        assert consented(bank, job, space.keys) == frozenset()
        assert consented(bank, job, {"bank-4": FORGER.verifier}) == {
            "bank-4"
        }  # control: what an unapproved key would do

        real = Consent(SPACE, job, "bank-4", 1).sign(space.signers["bank-4"])
        await bank.jobs.on_bundle(Bundle(proposal, {}, {"bank-4": real}, b"", "proposed", "").encode())
        assert consented(bank, job, space.keys) == {"bank-4"}

    with_space(work, tmp_path)


def test_a_consent_for_another_job_does_not_count(tmp_path):
    async def work(space):
        job, other = await space.propose(), await space.propose()
        bank = space.banks["bank-2"]
        paper = Consent(SPACE, other, "bank-4", 1).sign(space.signers["bank-4"])
        with bank.database.begin() as connection:
            bank.jobs.store.put(connection, job, "consent", "bank-4", paper)
        assert consented(bank, job, space.keys) == frozenset()

    with_space(work, tmp_path)


@pytest.mark.parametrize("checked", [True, False])
def test_a_proposal_in_a_members_name_is_not_accepted_once_the_directory_is_put_right(tmp_path, monkeypatch, checked):
    if not checked:
        monkeypatch.setattr(node, "check_proposal", lambda *_: None)

    async def work(space):
        bank = space.banks["bank-2"]
        document = from_toml(job_toml(BANKS[1:]).encode(), space=SPACE, proposer="bank-1", nonce="0" * 32, created=1)
        kept = bank.jobs._peers.listings
        list_as(bank, "bank-1", FORGER.verifier)
        await bank.jobs.on_bundle(Bundle(propose(document, FORGER), {}, {}, b"", "proposed", "").encode())
        bank.jobs._peers.listings = kept
        if not checked:  # control: bank-1's grant would cover it
            row, _ = await asyncio.to_thread(bank.jobs._accept, document.id, False, "")
            assert row.id == document.id
            return
        with pytest.raises(ChaotianError) as caught:
            await bank.jobs.accept(document.id)
        assert caught.value.code == "SIGNATURE"
        assert "SIGNATURE" in {entry["code"] for entry in bank.jobs.show(document.id)["obstacles"]}

    with_space(work, tmp_path)


@pytest.mark.parametrize("answer", [b"[]", b"{", b"[" * 5000, b"\xff"])
def test_progress_in_no_form_is_a_coded_error(tmp_path, answer):
    async def work(space):
        job = await space.propose()

        async def lie(caller, payload):
            return answer

        space.wire.at_platform["job.progress"] = lie
        with pytest.raises(ChaotianError) as caught:
            await space.banks["bank-2"].jobs.progress(job)
        assert caught.value.code == "MALFORMED"

    with_space(work, tmp_path)


def test_an_older_acceptance_does_not_replace_the_own_one(tmp_path):
    async def work(space):
        job = await space.propose()
        bank = space.banks["bank-2"]
        await bank.jobs.accept(job, exposure_consent=True)
        old = bank.jobs.store.papers(job, "acceptance")["bank-2"]
        await bank.jobs.accept(job)
        new = bank.jobs.store.papers(job, "acceptance")["bank-2"]
        assert Acceptance.decode(_body(old)).exposure_consent and not Acceptance.decode(_body(new)).exposure_consent
        proposal = bank.jobs.store.get(job).proposal
        reply = await bank.jobs.on_bundle(Bundle(proposal, {"bank-2": old}, {}, b"", "accepted", "").encode())
        assert bank.jobs.store.papers(job, "acceptance")["bank-2"] == new
        assert new.hex().encode() in reply  # and the platform is told again

    with_space(work, tmp_path)


def _body(paper):
    from gateway.jobs.papers import ACCEPTANCE, body_of

    return body_of(ACCEPTANCE, paper)


@pytest.mark.parametrize(("state", "code"), [("cancelled", "CANCELLED"), ("done", "LOST"), ("failed", "LOST")])
def test_nothing_is_answered_or_released_for_a_job_that_ended_meanwhile(tmp_path, state, code):
    """However a stage got past the first check: what counts is looked up in the transaction that lets it out."""
    markers, database = make(tmp_path)
    with database.begin() as connection:
        connection.execute(jobs.insert().values(id="1" * 64, proposal=b"", state="running", created=1.0, updated=1.0))
    markers.answered(terms_of(), b"")
    with database.begin() as connection:
        connection.execute(update(jobs).values(state=state))
    before = counts(database)
    refused(code, markers.released, terms_of())
    refused(code, markers.answered, terms_of(2), b"")
    assert counts(database) == before
    with database.begin() as connection:  # control: the same requests while the job runs
        connection.execute(update(jobs).values(state="running"))
    markers.released(terms_of())
    assert counts(database) == (1, 1, before[2] + 1)


def test_a_peer_whose_approval_is_taken_back_in_the_middle_gets_nothing_more(tmp_path):
    approved = {name: Signer(bytes([i + 1]) * 32).verifier for i, name in enumerate(NAMES)}
    markers, database = make(tmp_path, approved=lambda _: approved)
    markers.released(terms_of())
    real = approved["bank-c"]
    approved["bank-c"] = FORGER.verifier
    assert refused("NOT_APPROVED", markers.released, terms_of(2)).member == "bank-c"
    del approved["bank-c"]
    assert refused("NOT_APPROVED", markers.released, terms_of(2)).member == "bank-c"
    approved["bank-c"] = real
    markers.released(terms_of(2))
    assert counts(database)[1] == 2
