"""A job with real processes over TLS, driven by the command line alone, with SIGKILL in the middle."""

from __future__ import annotations

import csv
import json
import threading
import time
from pathlib import Path

import pytest

from compose.space import CommandError, Space, space
from gateway.transport.local import LocalClient
from tests.support.jobs_kit import job_toml

ROOT = Path(__file__).resolve().parents[2]
BANKS = ("bank-1", "bank-2", "bank-3", "bank-4")
PARTS = dict(zip(BANKS, ("bank-1", "bank-2", "bank-3", "test"), strict=True))

GRANT = """
grantee = "bank-1"
roles = ["bank"]
purposes = ["credit-risk-model"]
legal_basis = "dsl-business-data"
exp = "30d"
duties = []

[dataset]
id = "loans"

[columns]
{columns}

[[ops]]
op = "scorecard"
out = "total"
min_members = 3
min_rows = 30
max_rounds = 60
max_roster_changes = 1
result_to = "members"

[quota]
calls = 1000
per = "day"
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("space")
    with space(root) as made:
        set_up(made, root)
        yield made


def set_up(made: Space, root: Path) -> None:
    made.start_platform()
    for name in BANKS:
        member = made.add(name, "bank", "Chongqing")
        part = ROOT / "tests/data" / f"default_credit_{PARTS[name]}.csv"
        with part.open() as file:
            header = next(csv.reader(file))
        lines = ['id = "id"', 'label = "y"']
        for column in header[1:]:
            kind = "integer" if column == "y" else "numeric"
            lines.append(f'[columns.{column}]\ntype = "{kind}"\ndisclosure = "aggregate"')
        schema = root / "schema.toml"
        schema.write_text("\n".join(lines))
        made.run(member, "data", "add", "loans", part, "--schema", schema)
        made.serve(member)
    made.approve_all()
    grant = root / "grant.toml"
    grant.write_text(GRANT.format(columns="\n".join(f'{c} = "aggregate"' for c in header[1:])))
    for name in BANKS[1:]:
        identifier = made.json(made.members[name], "grant", "propose", grant)["id"]
        made.run(made.members["bank-1"], "grant", "accept", identifier)


def accepted(here: Space, root: Path, **changes) -> str:
    """Return a job all accepted; bank-4, which one test loses, consents, so that the tests may run in any order."""
    path = root / "job.toml"
    path.write_text(job_toml(BANKS, **changes))
    job = here.json(here.members["bank-1"], "job", "propose", path)["id"]
    for name in BANKS:
        more = ["--exposure-consent"] if name == "bank-4" else []
        here.run(here.members[name], "job", "accept", job[:10], *more)
    return job


def last_of(here: Space, job: str, on=lambda seen: None) -> dict:
    last = {}
    for last in LocalClient(here.platform.home).watch("job.watch", {"id": job}, deadline=120):
        on(last)
    return last


def own_state(here: Space, name: str, job: str, seconds: float = 20.0) -> dict:
    """Return the job as the bank sees it, once it is over there."""
    deadline = time.monotonic() + seconds
    while True:
        shown = here.json(here.members[name], "job", "show", job)
        if shown["state"] in ("done", "failed", "cancelled") or time.monotonic() > deadline:
            return shown
        time.sleep(0.1)


def test_the_whole_way_by_command_line(here, tmp_path):
    job = accepted(here, tmp_path)
    text = here.run(here.members["bank-2"], "job", "show", job)
    assert "What leaves this node" in text and "gradient × 6" in text and "in the way" not in text
    here.run(here.platform, "job", "start", job)
    seen = last_of(here, job)
    assert seen["state"] == "done", seen
    results = []
    for name in BANKS:
        assert own_state(here, name, job)["state"] == "done"
        results.append(here.json(here.members[name], "job", "result", job))
    assert len({result["model"] for result in results}) == 1
    assert here.run(here.members["bank-3"], "job", "result", job[:12]).count("federated") == 1
    listed = here.json(here.members["bank-4"], "job", "list")["jobs"]
    assert [entry["state"] for entry in listed if entry["id"] == job] == ["done"]
    lines = here.run(here.members["bank-1"], "job", "watch", job, "--json").splitlines()
    assert json.loads(lines[-1])["own"]["state"] == "done"


def test_refusals_have_their_exit_status(here, tmp_path):
    for command, status, code in (
        (("job", "show", "ffffffff"), 2, "NOT_FOUND"),
        (("job", "accept", "zz"), 2, "USAGE"),
        (("job", "propose", tmp_path / "none.toml"), 2, "NOT_FOUND"),
    ):
        with pytest.raises(CommandError) as caught:
            here.run(here.members["bank-1"], *command)
        assert (caught.value.status, caught.value.code) == (status, code)
    bad = tmp_path / "bad.toml"
    bad.write_text(job_toml(BANKS) + "\nmore = 1")
    with pytest.raises(CommandError) as caught:
        here.run(here.members["bank-1"], "job", "propose", bad)
    assert caught.value.code == "BAD_DOCUMENT"
    with pytest.raises(CommandError) as caught:
        here.run(here.platform, "job", "accept", "00000000")
    assert (caught.value.status, caught.value.code) == (3, "NOT_PERMITTED")


def test_a_platform_killed_in_the_middle_goes_on_by_itself(here, tmp_path):
    job = accepted(here, tmp_path)
    killed = threading.Event()

    def kill(seen):
        progress = seen["progress"] or {}
        if not killed.is_set() and progress.get("round", 0) >= 3:
            killed.set()
            here.kill(here.platform)

    here.run(here.platform, "job", "start", job)
    try:
        last_of(here, job, kill)
    except Exception:
        assert killed.is_set()
    assert killed.is_set()
    here.serve(here.platform)
    seen = last_of(here, job)
    assert seen["state"] == "done", seen
    assert (
        len({here.json(here.members[n], "job", "result", own_state(here, n, job)["id"])["model"] for n in BANKS}) == 1
    )


def test_a_bank_killed_in_the_middle_is_left_behind(here, tmp_path):
    # All four have released the same totals before: without the lost bank the difference is its part, so it consents.
    job = accepted(here, tmp_path)
    killed = threading.Event()

    def kill(seen):
        progress = seen["progress"] or {}
        if not killed.is_set() and progress.get("round", 0) >= 3:
            killed.set()
            here.kill(here.members["bank-4"])

    watcher: dict = {}
    thread = threading.Thread(target=lambda: watcher.update(last_of(here, job, kill)))
    thread.start()
    time.sleep(0.3)
    here.run(here.platform, "job", "start", job)
    thread.join(120)
    assert killed.is_set() and watcher["state"] == "done", watcher
    losses = watcher["progress"]["losses"]
    here.serve(here.members["bank-4"])
    if losses:  # it may have been killed between its last answer and the end
        assert {loss["member"] for loss in losses} == {"bank-4"}
        assert here.json(here.members["bank-1"], "job", "result", job)["roster"] == list(BANKS[:3])
        assert own_state(here, "bank-4", job)["state"] == "failed"
