"""The platform's process is killed, away, or out of disk: nothing is released twice, and everything goes on after."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults_kit import BANKS, Faulty, eventually

REST = BANKS[:3]


@pytest.mark.parametrize(
    "point",
    [
        "ask-consistency.4",  # masked inputs are in: the round needs a new attempt
        "took-unmask.4",  # the first shares are in: the round is finished from the journal
        "checkpoint.4",  # the result is out, its checkpoint is not
    ],
)
def test_a_killed_platform_goes_on_after_its_restart_and_nothing_is_released_twice(faulty: Faulty, point):
    before = {name: faulty.used(name) for name in BANKS[1:]}
    faulty.arm("platform", point)
    job, watch = faulty.started()
    faulty.dead("platform")
    watch.join(20)
    assert watch.error == "NODE_NOT_RUNNING"
    done = faulty.cli("platform", "job", "list")
    assert (done.status, done.code) == (2, "NODE_NOT_RUNNING") and done.hint
    faulty.recover()  # nodes come back by themselves, and the job is taken up by itself
    assert faulty.ended(job, *BANKS) == dict.fromkeys(("platform", *BANKS), "done")
    faulty.check_optimum(job, BANKS)
    rounds = faulty.json("bank-1", "job", "result", job)["rounds"]
    for name in BANKS:
        assert faulty.released(name, job) == list(range(1, rounds + 1))
        again = faulty.answered(name, job).count(4)
        assert again == (2 if point.startswith("ask") else 1), "a journal is finished, not asked anew"
        faulty.check_log(name)
    assert {name: faulty.used(name) - before[name] for name in BANKS[1:]} == dict.fromkeys(BANKS[1:], rounds)


def test_a_platform_away_is_said_at_once_and_the_job_resumes_without_who_stays_away(faulty: Faulty):
    faulty.arm("platform", "ask-masked_input.5")
    job, _ = faulty.started()
    faulty.dead("platform")
    faulty.kill(faulty.members["bank-4"])
    path = faulty.job_file()
    for command in (("job", "propose", path), ("job", "watch", job)):
        began = time.monotonic()
        done = faulty.cli("bank-1", *command)
        assert (done.status, done.code) == (4, "PLATFORM_UNREACHABLE"), done
        assert done.hint and time.monotonic() - began < 15, command
    # What needs no platform goes on: the job is known, and ended by nobody.
    assert faulty.state("bank-1", job) == "running"
    assert faulty.cli("bank-1", "audit", "show").status == 0
    faulty.serve(faulty.platform)
    faulty.connected(REST)
    # It waits some time for bank-4 before it goes on by itself; the operator need not.
    assert faulty.state("platform", job) == "interrupted"
    faulty.run("platform", "job", "resume", job)
    assert faulty.cli("platform", "job", "resume", job).code == "JOB_STATE"
    assert faulty.ended(job, *REST) == dict.fromkeys(("platform", *REST), "done")
    faulty.check_optimum(job, REST, counted=BANKS)
    for name in REST:
        rounds = faulty.released(name, job)
        assert rounds == list(range(1, len(rounds) + 1))
        faulty.check_log(name)
    faulty.recover()
    assert faulty.ended(job, "bank-4")["bank-4"] == "failed LOST"
    assert faulty.released("bank-4", job) == [1, 2, 3, 4]


def test_a_full_disk_at_the_platform_releases_nothing_and_the_job_goes_on_with_space(faulty: Faulty):
    path = faulty.arm("platform", "took-masked_input.4", "hold")
    job, _ = faulty.started()
    faulty.reached(path)
    faulty.disk("platform", full=True)
    path.unlink()
    eventually(lambda: faulty.call("platform", "job.progress", id=job), "the platform to answer")
    refused = faulty.cli("platform", "member", "list")
    assert refused.status in (0, 1)
    done = faulty.cli("bank-2", "job", "propose", faulty.job_file())
    assert (done.status, done.code) == (1, "STORAGE") and done.hint
    for name in BANKS:
        assert faulty.released(name, job) == [1, 2, 3]
        assert faulty.state(name, job) == "running"
    faulty.disk("platform", full=False)
    if faulty.state("platform", job) != "done":
        faulty.run("platform", "job", "resume", job)
    assert faulty.ended(job, *BANKS) == dict.fromkeys(("platform", *BANKS), "done")
    for name in BANKS:
        rounds = faulty.released(name, job)
        assert rounds == list(range(1, len(rounds) + 1))
        faulty.check_log(name)
    faulty.check_optimum(job, BANKS)
