"""A member's process is killed, starved of disk, or its owner takes something back, in the middle of a job."""

from __future__ import annotations

import pytest

from tests.integration.faults_kit import BANKS, COLUMNS, Faulty, Watch, rows_of

REST = BANKS[:3]


@pytest.mark.parametrize(
    ("point", "stage"),
    [
        ("masked_input.after.4", "masked_input"),  # charged and marked as answered, but nothing came
        ("unmask.after.4", "unmask"),  # released, but nothing came: the others' shares are enough
        ("result.before.4", "result"),
    ],
)
def test_a_bank_killed_at_a_stage_is_lost_and_the_rest_reach_their_own_optimum(faulty: Faulty, point, stage):
    before = {name: faulty.used(name) for name in REST[1:]}
    faulty.arm("bank-4", point)
    job, _ = faulty.started()
    faulty.dead("bank-4")
    assert faulty.ended(job, *REST) == dict.fromkeys(("platform", *REST), "done")
    progress = faulty.progress(job)
    assert [(loss["member"], loss["round"], loss["stage"]) for loss in progress["losses"]] == [("bank-4", 4, stage)]
    faulty.check_optimum(job, REST, counted=BANKS)
    rounds = faulty.json("bank-1", "job", "result", job)["rounds"]
    for name in REST:
        assert faulty.released(name, job) == list(range(1, rounds + 1))
        faulty.check_log(name)
    # A second attempt of a round is not charged a second time.
    assert {name: faulty.used(name) - before[name] for name in REST[1:]} == dict.fromkeys(REST[1:], rounds)
    faulty.recover()
    assert faulty.ended(job, "bank-4")["bank-4"] == "failed LOST"
    done = faulty.cli("bank-4", "job", "result", job)
    assert (done.status, done.code) == (4, "LOST") and done.hint
    assert faulty.released("bank-4", job) == list(range(1, 5 if stage in ("unmask", "result") else 4))
    faulty.check_log("bank-4")


def test_a_second_loss_ends_the_job_and_every_node_says_so(faulty: Faulty):
    faulty.arm("bank-4", "consistency.before.3")
    faulty.arm("bank-3", "masked_input.before.5")
    job, watch = faulty.started()
    faulty.dead("bank-4")
    faulty.dead("bank-3")
    ended = faulty.ended(job, "bank-1", "bank-2")
    faulty.recover()
    ended |= faulty.ended(job, "bank-3", "bank-4")
    assert ended == dict.fromkeys(("platform", *BANKS), "failed TOO_FEW_MEMBERS")
    for name in BANKS:
        done = faulty.cli(name, "job", "result", job)
        assert (done.status, done.code) == (4, "TOO_FEW_MEMBERS") and done.hint, name
        assert faulty.released(name, job) == [1, 2, 3, 4][: 2 if name == "bank-4" else 4]
    assert watch.seen[-1]["code"] == "TOO_FEW_MEMBERS"
    done = faulty.cli("platform", "job", "watch", job)
    assert (done.status, done.code) == (4, "TOO_FEW_MEMBERS")


def test_a_bank_restarted_at_once_has_lost_the_attempt_and_stays_out(faulty: Faulty):
    path = faulty.arm("bank-3", "masked_input.before.4", "hold")
    job, _ = faulty.started()
    faulty.reached(path)
    faulty.kill(faulty.members["bank-4"])
    faulty.serve(faulty.members["bank-4"])
    faulty.connected(["bank-4"])
    path.unlink()
    assert faulty.ended(job, *BANKS) == dict.fromkeys(("platform", *REST), "done") | {"bank-4": "failed LOST"}
    (loss,) = faulty.progress(job)["losses"]
    # Killed before it had answered, it may be away for longer than it is waited for.
    assert (loss["member"], loss["round"]) == ("bank-4", 4) and loss["code"] in ("LOST", "PEER_UNREACHABLE")
    faulty.check_optimum(job, REST, counted=BANKS)


@pytest.mark.parametrize("stage", ["masked_input", "unmask"])
def test_a_full_disk_at_a_node_releases_nothing_and_the_rest_go_on(faulty: Faulty, stage):
    path = faulty.arm("bank-4", f"{stage}.before.4", "hold")
    job, _ = faulty.started()
    faulty.reached(path)
    faulty.disk("bank-4", full=True)
    path.unlink()
    assert faulty.ended(job, *REST) == dict.fromkeys(("platform", *REST), "done")
    losses = [(loss["member"], loss["round"], loss["stage"], loss["code"]) for loss in faulty.progress(job)["losses"]]
    assert losses == [("bank-4", 4, stage, "STORAGE")]
    refused = faulty.cli("bank-4", "grant", "revoke", faulty.json("bank-4", "grant", "list")["grants"][0]["id"])
    assert (refused.status, refused.code) == (1, "STORAGE") and refused.hint
    faulty.disk("bank-4", full=False)
    assert faulty.released("bank-4", job) == [1, 2, 3]
    assert faulty.ended(job, "bank-4")["bank-4"].startswith("failed ")
    faulty.check_log("bank-4")
    faulty.check_optimum(job, REST, counted=BANKS)
    assert faulty.load("bank-4", rows_of("bank-4", 50), "spare").status == 0


def test_a_grant_taken_back_or_used_up_ends_a_members_part_from_the_next_round_on(faulty: Faulty):
    old = faulty.json("bank-4", "grant", "list", "--state", "active")["grants"]
    path = faulty.arm("platform", "checkpoint.4", "hold")
    job, _ = faulty.started()
    faulty.reached(path)
    for grant in old:
        assert faulty.json("bank-4", "grant", "revoke", grant["id"])["state"] == "revoked"
    path.unlink()
    assert faulty.ended(job, *REST) == dict.fromkeys(("platform", *REST), "done")
    losses = [(loss["member"], loss["round"], loss["code"]) for loss in faulty.progress(job)["losses"]]
    assert losses == [("bank-4", 5, "GRANT_REVOKED")]
    assert faulty.released("bank-4", job) == [1, 2, 3, 4]
    faulty.check_optimum(job, REST, counted=BANKS)
    assert faulty.ended(job, "bank-4")["bank-4"] == "failed GRANT_REVOKED"

    few = faulty.grant("bank-4", calls=3)
    job, _ = faulty.started()
    assert faulty.ended(job, *REST) == dict.fromkeys(("platform", *REST), "done")
    losses = [(loss["member"], loss["round"], loss["code"]) for loss in faulty.progress(job)["losses"]]
    assert losses == [("bank-4", 4, "QUOTA")] and faulty.used("bank-4") == 3
    assert faulty.ended(job, "bank-4")["bank-4"] == "failed QUOTA"
    faulty.run("bank-4", "grant", "revoke", few)
    job = faulty.propose()
    done = faulty.cli("bank-4", "job", "accept", job)
    assert (done.status, done.code) == (3, "NO_GRANT") and done.hint
    faulty.grant("bank-4")


def test_a_job_that_does_not_fit_is_refused_before_anything_is_computed(faulty: Faulty):
    job = faulty.propose()
    for name in REST:
        faulty.run(name, "job", "accept", job)
    done = faulty.cli("platform", "job", "start", job)
    assert (done.status, done.code) == (3, "NOT_ACCEPTED") and done.hint

    wrong = faulty.propose(features=[{"name": name, "type": "numeric"} for name in (*COLUMNS, "x99")])
    done = faulty.cli("bank-1", "job", "accept", wrong)
    assert (done.status, done.code) == (2, "DATA_COLUMN") and "x99" in done.err
    done = faulty.cli("bank-2", "job", "accept", wrong)
    assert (done.status, done.code) == (3, "GRANT_DENIED") and "x99" in done.err

    fingerprint = faulty.json("bank-3", "node", "show")["fingerprint"]
    faulty.run("bank-2", "member", "revoke", "bank-3")
    try:
        other = faulty.propose()
        done = faulty.cli("bank-2", "job", "accept", other)
        assert (done.status, done.code) == (3, "NOT_APPROVED") and "bank-3" in done.err
        # Accepted by all while it was approved: the node asks again when the job starts.
        faulty.run("bank-4", "job", "accept", job)
        done = faulty.cli("platform", "job", "start", job)
        assert (done.status, done.code) == (3, "NOT_APPROVED") and "bank-3" in done.err
    finally:
        faulty.run("bank-2", "member", "approve", "bank-3", "--fingerprint", fingerprint)
    assert all(not faulty.released(name, job) for name in BANKS)


@pytest.mark.parametrize("value", ["", "NaN", "inf", "abc", "1e999"])
def test_a_value_that_is_no_number_is_refused_before_a_job_runs_on_it(faulty: Faulty, value):
    broken = rows_of("bank-1", 60).astype({"x4": object})
    broken.loc[7, "x4"] = value
    done = faulty.load("bank-1", broken, "broken")
    if not done.status:  # a missing value may be kept; the job that reads it is refused
        done = faulty.cli("bank-1", "job", "accept", faulty.propose(dataset="broken"))
    assert done.code in ("DATA_MISSING", "DATA_TYPE", "NOT_FINITE") and done.status in (2, 5)
    assert "x4" in done.err and done.hint
    assert value not in done.err or len(value) < 3  # values do not stand in errors


def test_the_operator_sees_stages_delays_bytes_retries_and_losses(faulty: Faulty):
    path = faulty.arm("bank-2", "masked_input.before.4", "hold")
    job = faulty.accepted()
    watch = Watch(faulty.platform.home, job)
    faulty.run("platform", "job", "start", job)
    faulty.reached(path)
    waits = watch.until(
        lambda seen: (seen["progress"] or {}).get("members", {}).get("bank-2", {}).get("seconds", 0) > 1.0,
        "bank-2 to be late",
    )["progress"]
    assert (waits["round"], waits["stage"], waits["operation"]) == (4, "masked_input", "scorecard.newton")
    assert waits["members"]["bank-2"]["state"] == "waiting"
    assert {waits["members"][name]["state"] for name in BANKS if name != "bank-2"} == {"answered"}
    faulty.kill(faulty.members["bank-4"])  # seen, not guessed: round 4 stands, and it had answered
    watch.until(lambda seen: "bank-4" not in seen["connected"], "bank-4 to be away")
    path.unlink()
    assert faulty.ended(job, *REST)["platform"] == "done"
    watch.join(20)
    last = watch.seen[-1]["progress"]
    loss = next(loss for loss in last["losses"] if loss["member"] == "bank-4")
    assert loss["round"] == 4 and loss["code"] in ("PEER_UNREACHABLE", "LOST")
    by_round = {entry["round"]: entry for entry in last["rounds"]}
    assert by_round[4]["attempts"] == 2 and by_round[4]["seconds"] > 1.0 and by_round[3]["attempts"] == 1
    assert all(entry["bytes"] > 1000 for entry in last["rounds"])
    assert last["members"]["bank-4"]["state"] == "lost" and last["members"]["bank-1"]["retries"] == 1
    assert all(last["members"][name]["received"] > 10_000 for name in BANKS)
    sent = [seen["progress"]["members"]["bank-1"]["sent"] for seen in watch.seen if seen["progress"]]
    assert sent == sorted(sent)
    lines = faulty.cli("platform", "job", "watch", job, "--json").out.splitlines()
    assert lines and all(line.startswith("{") for line in lines)
