"""Invitations, certificates, revocation and clocks, with real processes: who comes in, for how long, and who is cut."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from compose.space import Member
from tests.integration.faults_kit import BANKS, Faulty, eventually, rows_of

REST = BANKS[:3]
LIFE = 21  # seconds that certificates are valid in the space of short lives


def rejoin(faulty: Faulty, name: str) -> None:
    """Let a member whose certificate was revoked join anew, with new keys, and be trusted again."""
    old = faulty.members[name]
    if old.process is not None and old.process.poll() is None:
        faulty.kill(old)
    shutil.rmtree(old.home)
    (faulty.root / "invitations" / f"{name}.txt").unlink()
    faulty.serve(faulty.add(name, "bank", "Chongqing"))
    assert faulty.load(name, rows_of(name)).status == 0


def test_a_revoked_member_is_cut_within_five_seconds_and_the_job_goes_on(faulty: Faulty):
    # A dataset that no other job has summed: consent under a revoked key no longer covers what two rosters expose.
    for name in BANKS:
        assert faulty.load(name, rows_of(name), "fresh").status == 0
    for name in BANKS[1:]:
        faulty.grant(name, dataset="fresh")
    try:
        revoked_in_the_middle(faulty)
    finally:
        rejoin(faulty, "bank-4")
    # It has joined again with new keys: nobody takes the new key for the old one's.
    faulty.connected(["bank-4"])
    shown = eventually(
        lambda: next(
            (row for row in faulty.json("bank-1", "member", "list")["members"]
             if row["member"] == "bank-4" and row["approved"] != "yes"), None),
        "the new directory")  # fmt: skip
    assert shown["approved"] == "no: its key changed"
    job = faulty.propose()
    done = faulty.cli("bank-1", "job", "accept", job)
    assert (done.status, done.code) == (3, "NOT_APPROVED") and "bank-4" in done.err
    faulty.approve_all()
    faulty.grant("bank-4")
    job, _ = faulty.started()
    assert faulty.ended(job, *BANKS) == dict.fromkeys(("platform", *BANKS), "done")


def revoked_in_the_middle(faulty: Faulty) -> None:
    """Revoke bank-4 while it takes part in a job."""
    path = faulty.arm("bank-1", "masked_input.before.4", "hold")
    job, watch = faulty.started(dataset="fresh")
    faulty.reached(path)
    began = time.monotonic()
    faulty.run("platform", "member", "revoke", "bank-4")
    eventually(lambda: "bank-4" not in watch.seen[-1]["connected"], "bank-4 to be cut")
    took = time.monotonic() - began
    path.unlink()
    assert took < 5.0  # what the operator is promised
    assert faulty.ended(job, *REST) == dict.fromkeys(("platform", *REST), "done")
    losses = [(loss["member"], loss["round"], loss["code"]) for loss in faulty.progress(job)["losses"]]
    assert losses == [("bank-4", 4, "PEER_UNREACHABLE")]
    faulty.check_optimum(job, REST, counted=BANKS)

    # Cut, and not let in again: neither by itself, nor anew; and it says why.
    error = eventually(lambda: faulty.call("bank-4", "node.status").get("error"), "bank-4 to know why")
    assert error["code"] == "CERT_REVOKED"
    done = faulty.cli("bank-4", "job", "propose", faulty.job_file())
    assert (done.status, done.code) == (4, "CERT_REVOKED") and "enrol again" in done.hint
    faulty.restart("bank-4")
    error = eventually(lambda: faulty.call("bank-4", "node.status").get("error"), "bank-4 to be refused")
    assert error["code"] == "CERT_REVOKED"
    assert faulty.released("bank-4", job) == [1, 2, 3]
    faulty.check_log("bank-4")


def test_clocks_some_minutes_off_and_a_restart_before_the_start_do_no_harm(faulty: Faulty):
    job = faulty.accepted()
    faulty.kill(faulty.members["bank-4"])
    faulty.serve(faulty.members["bank-4"], ahead=-200.0)
    faulty.restart("bank-3", ahead=200.0)
    try:
        faulty.connected()
        faulty.run("platform", "job", "start", job)
        assert faulty.ended(job, *BANKS) == dict.fromkeys(("platform", *BANKS), "done")
        assert not faulty.progress(job)["losses"]
        faulty.check_optimum(job, BANKS)
        for name in BANKS:
            faulty.check_log(name)
    finally:
        faulty.restart("bank-3")
        faulty.restart("bank-4")


def test_a_clock_days_off_keeps_a_member_out_and_says_so(faulty: Faulty):
    job = faulty.accepted()
    try:
        for days in (-2, 2):
            faulty.restart("bank-4", ahead=days * 86_400.0)
            eventually(
                lambda: faulty.call("platform", "job.progress", id=job).get("connected") == list(BANKS), "bank-4"
            )
            done = faulty.cli("platform", "job", "start", job)
            assert done.code in ("DIRECTORY", "CERT_EXPIRED", "GRANT_EXPIRED") and "bank-4" in done.err and done.hint
            assert not faulty.released("bank-4", job)
    finally:
        faulty.restart("bank-4")
        faulty.connected()
    # With the clock put right the same job runs.
    eventually(lambda: faulty.cli("platform", "job", "start", job).status == 0, "the job to start")
    assert faulty.ended(job, "bank-4") == {"platform": "done", "bank-4": "done"}


# --- a space of short lives ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A platform whose certificates live for seconds, and two members."""
    made = Faulty(tmp_path_factory.mktemp("brief"), "brief")
    try:
        made.start_platform("--certificates-valid", f"{LIFE}s")
        for name in ("bank-1", "bank-2"):
            made.serve(made.add(name, "bank", "Chengdu"))
        made.connected()
        yield made
    finally:
        made.stop()


def enrol(brief: Faulty, name: str, text: str):
    """Try to join with an invitation's text, from a new home."""
    newcomer = Member(name, "bank", "Chengdu", brief.root / f"{name}-{time.monotonic_ns()}")
    brief.run(newcomer, "node", "init", "--key-file", brief.key_file(newcomer))
    file = newcomer.home.with_suffix(".txt")
    file.write_text(text)
    return brief.cli(newcomer, "node", "enrol", file)


def invitation(brief: Faulty, name: str, valid: str = "1h") -> str:
    """Return the text of an invitation."""
    return brief.run("platform", "platform", "invite", "--member", name, "--role", "bank", "--city", "Chengdu",
                     "--valid", valid)  # fmt: skip


def test_an_invitation_is_for_one_newcomer_and_for_a_time(brief: Faulty, running: Faulty):
    text = invitation(brief, "bank-7")
    assert enrol(brief, "bank-7", text).status == 0
    done = enrol(brief, "bank-7", text)
    assert (done.status, done.code) == (4, "INVITATION") and done.hint

    text = invitation(brief, "bank-8", "1s")
    time.sleep(1.2)
    done = enrol(brief, "bank-8", text)
    assert (done.status, done.code) == (4, "INVITATION") and done.hint

    # An enrolled node does not move to another space with an invitation from there.
    foreign = brief.root / "foreign.txt"
    foreign.write_text(invitation(running, "bank-9"))
    done = brief.cli("bank-1", "node", "enrol", foreign)
    assert done.status in (2, 4) and done.code in ("EXISTS", "INVITATION") and done.hint
    # One that was changed on the way is none.
    text = invitation(brief, "bank-10")
    for place in (len(text) // 3, len(text) // 2, len(text) - 8):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        done = enrol(brief, "bank-10", changed)
        assert done.status in (4, 5) and done.code in ("INVITATION", "PLATFORM_UNREACHABLE", "SIGNATURE"), done


def test_certificates_are_renewed_without_downtime_and_an_expired_one_is_refused(brief: Faulty):
    stopped = brief.members["bank-2"]
    assert stopped.process is not None
    stopped.process.terminate()
    stopped.process.wait(20)
    first = brief.json("bank-1", "node", "show")["certificate_serial"]
    since = brief.call("bank-1", "node.status")["seconds"]
    serials, away = {first}, 0
    deadline = time.monotonic() + LIFE + 25
    while time.monotonic() < deadline and len(serials) < 3:
        status = brief.call("bank-1", "node.status")
        away += not status["connected"]
        serials.add(brief.json("bank-1", "node", "show")["certificate_serial"])
        time.sleep(0.25)
    assert len(serials) >= 3, "the certificate was not renewed twice within its lifetime and some"
    assert away == 0 and brief.call("bank-1", "node.status")["seconds"] > since  # one process, never without connection
    assert brief.cli("bank-1", "node", "renew").status == 0

    # Meanwhile the other one's has expired: it stays out and says what to do.
    brief.serve(stopped)
    error = eventually(lambda: brief.call("bank-2", "node.status").get("error"), "bank-2 to be refused")
    assert error["code"] in ("CERT_EXPIRED", "PLATFORM_UNREACHABLE") and error["hint"]
    done = brief.cli("bank-2", "node", "renew")
    assert done.status == 4 and done.code in ("CERT_EXPIRED", "PLATFORM_UNREACHABLE") and done.hint
    assert "bank-1" in brief.run("platform", "member", "list")
