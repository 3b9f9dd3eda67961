"""Canaries: values planted at one owner, looked for in every byte that leaves it.

Everything a member sends and everything the platform and the peers hold is searched, in the running system: frames on
the wire before they are encrypted, homes, databases, logs, command output and the memory of processes. The controls
show that the search finds what is there: the owner's own home and memory, and the same computation without masks.
"""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from compose.canary import Canary, Scan, patterns
from compose.demo import checks
from compose.space import CommandError, Member, Space, space
from gateway.transport.local import LocalClient
from tests.support.tap import tapped

BANKS = ("north", "south", "east", "west")
OWNER = "east"
PLANTED = [f"CANARY-{i}-8f3a61c27d" for i in range(5)]
AMOUNTS = [918273.6455463728, 123456.7891234567, 777.1415926535898, 0.0312893041277, 5.5511223344556e6]
SCHEMA = """
id = "id"
label = "bad"
[columns.amount]
type = "numeric"
disclosure = "aggregate"
[columns.ratio]
type = "numeric"
disclosure = "aggregate"
[columns.bad]
type = "integer"
disclosure = "aggregate"
"""


def table(bank: str) -> pd.DataFrame:
    random = np.random.default_rng(BANKS.index(bank))
    rows = pd.DataFrame({
        "id": [f"{bank}-{i:05d}" for i in range(220)],
        "amount": random.lognormal(10, 1, 220),
        "ratio": random.normal(0, 1, 220),
    })  # fmt: skip
    rows["bad"] = (random.random(220) < 1 / (1 + np.exp(-rows["ratio"]))).astype(int)
    if bank == OWNER:
        rows.loc[:4, "id"] = PLANTED
        rows.loc[:4, "amount"] = AMOUNTS
    return rows


def run_job(here: Space, folder: Path) -> None:
    for member in here.members.values():
        table(member.name).to_csv(folder / f"{member.name}.csv", index=False)
        (folder / "schema.toml").write_text(SCHEMA)
        here.run(member, "data", "add", "loans", folder / f"{member.name}.csv", "--schema", folder / "schema.toml")
    (folder / "grant.toml").write_text(
        'grantee = "north"\nroles = ["bank"]\npurposes = ["credit-risk-model"]\nlegal_basis = "dsl-business-data"\n'
        'exp = "2d"\n[dataset]\nid = "loans"\n[columns]\namount = "aggregate"\nratio = "aggregate"\nbad = "aggregate"\n'
        '[[ops]]\nop = "scorecard"\nmax_rounds = 40\n[quota]\ncalls = 50\nper = "day"\n'
    )
    (folder / "job.toml").write_text(
        f'kind = "scorecard"\npurpose = "credit-risk-model"\ndataset = "loans"\n'
        f'members = {json.dumps(BANKS)}\n[params]\nlabel = "bad"\nholdout = 0.2\nfeatures = ["amount", "ratio"]\n'
    )
    north = here.members["north"]
    for member in here.members.values():
        if member is not north:
            here.run(member, "grant", "propose", folder / "grant.toml")
    deadline, active = time.monotonic() + 60, 0
    while active < 3 and time.monotonic() < deadline:
        grants = here.json(north, "grant", "list")["grants"]
        for row in grants:
            if row["state"] == "proposed":
                here.run(north, "grant", "accept", row["id"])
        active = sum(row["state"] == "active" for row in grants)
    job = here.json(north, "job", "propose", folder / "job.toml")["id"]
    for member in here.members.values():
        here.run(member, "job", "accept", job)
    here.run(here.platform, "job", "start", job)
    seen = list(LocalClient(here.platform.home).watch("job.watch", {"id": job}, deadline=120.0))
    assert seen[-1]["state"] == "done", seen[-1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("canary")
    with space(folder / "space", "canary") as here:
        here.serving = tapped(folder / "wire")
        here.start_platform()
        for name in BANKS:
            here.serve(here.add(name, "bank", "Chongqing"))
        here.approve_all()
        run_job(here, folder)
        yield SimpleNamespace(here=here, folder=folder, look=Canary(patterns(PLANTED, AMOUNTS)))


def search(ran, places: list[Path], members: list[Member]) -> Scan:
    scan = Scan()
    for place in places:
        ran.look.folder(place, scan)
    for member in members:
        ran.look.process(member.pid, scan)
    return scan


def test_nothing_planted_is_found_outside_its_owner(ran):
    others = [ran.here.platform, *(m for m in ran.here.members.values() if m.name != OWNER)]
    owner = ran.here.members[OWNER]
    copy = ran.folder / "log-copy"
    ran.here.run(owner, "audit", "export", copy)
    logs = [log for m in (*others, owner) for log in m.logs]
    scan = search(ran, [copy, *logs, *(m.home for m in others)], others)
    assert scan.found == 0, sorted(scan.hits)
    assert scan.searched > 50_000_000


def test_nothing_planted_is_in_any_message(ran):
    frames = sorted((ran.folder / "wire").glob("*"))
    senders = {path.name.split("-")[0] for path in frames}
    assert {*BANKS, "platform"} <= senders, senders
    scan = search(ran, frames, [])
    assert scan.found == 0, sorted(scan.hits)
    # The tap hears: what a bank sent has the job's own words in it.
    words = Canary({"a stage": b"masked_input"})
    heard = Scan()
    for path in frames:
        words.folder(path, heard)
    assert heard.found >= len(BANKS)


def test_the_control_finds_them_at_their_owner(ran):
    owner = ran.here.members[OWNER]
    at_home = search(ran, [owner.home], [])
    assert {name for _, name in at_home.hits if "base64" not in name} >= {f"text {i}" for i in range(5)}
    assert any("float64" in name for _, name in at_home.hits)
    assert search(ran, [ran.folder / f"{OWNER}.csv"], []).found >= 5


def test_the_control_finds_sums_where_masks_are_off(ran):
    banks = ["bank-of-america", "capital-one", "us-bank", "wells-fargo"]
    sums = {name: raw for wanted in checks.wanted(banks).values() for name, raw in wanted.items()}
    scan = Scan()
    Canary(sums).data("messages", checks.unmasked(banks), scan)
    assert scan.found > 100


def test_an_error_about_a_value_does_not_repeat_it(ran):
    rows = table(OWNER)
    rows["amount"] = rows["amount"].astype(object)
    rows.loc[3, "amount"] = "CANARY-wrong-type"
    rows.to_csv(ran.folder / "wrong.csv", index=False)
    with pytest.raises(CommandError) as error:
        ran.here.run(ran.here.members[OWNER], "data", "add", "more", ran.folder / "wrong.csv",
                     "--schema", ran.folder / "schema.toml")  # fmt: skip
    assert error.value.code == "DATA_TYPE" and "amount" in error.value.stderr and "row" in error.value.stderr
    assert "CANARY" not in error.value.stderr
