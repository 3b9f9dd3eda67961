"""The Python client against real nodes over TLS: from a data frame to a scored one, blocking and not."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from compose.space import Space, space
from federation.errors import ChaotianError
from gateway.client import AsyncClient, Client, Job, connect, connect_async, documents
from gateway.client.asynchronous import (
    AsyncData,
    AsyncFeatures,
    AsyncGrants,
    AsyncJob,
    AsyncJobs,
    AsyncMembers,
    AsyncModels,
)
from gateway.client.books import Grants, Members, Models
from gateway.client.data import Data, Features
from gateway.client.jobs import Jobs

ROOT = Path(__file__).resolve().parents[2]
BANKS = ("bank-1", "bank-2", "bank-3")
COLUMNS = ["x1", "x4", "x7", "x13", "x17"]
SCHEMA = {
    "id": "id",
    "label": "y",
    "other_columns": "ignore",
    "columns": {
        "y": {"type": "integer", "disclosure": "aggregate"},
        **{name: {"type": "numeric", "disclosure": "aggregate"} for name in COLUMNS},
    },
}
GRANT = {
    "grantee": "bank-1",
    "roles": ["bank"],
    "purposes": ["credit-risk-model"],
    "legal_basis": "dsl-business-data",
    "exp": "30d",
    "duties": [],
    "dataset": {"id": "loans"},
    "columns": dict.fromkeys(["y", *COLUMNS], "aggregate"),
    "ops": [{"op": "scorecard", "max_rounds": 60}],
    "quota": {"calls": 1000, "per": "day"},
}


def rows(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / f"tests/data/default_credit_{name}.csv", dtype={"id": str})


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Three banks whose data and grants went in by the client alone."""
    with space(tmp_path_factory.mktemp("client")) as made:
        made.start_platform()
        made.each(lambda name: made.add(name, "bank", "Chongqing"), BANKS)
        for name in BANKS:
            Client(made.members[name].home).data.add("loans", rows(name), SCHEMA)
        made.each(made.serve, made.members.values())
        made.approve_all()
        proposer = client_of(made, "bank-1")
        for name in BANKS[1:]:
            grant = client_of(made, name).grants.propose(GRANT)["id"]
            assert list(proposer.grants.wait_for(owner=name).index) == [grant]
            proposer.grants.accept(grant)
        yield made


def client_of(here: Space, name: str) -> Client:
    return connect(here.members[name].home)


def written(**changes) -> dict:
    fields = {"members": BANKS, "purpose": "credit-risk-model", "dataset": "loans", "label": "y", "features": COLUMNS}
    return documents.scorecard(**{**fields, **changes})


def accept_at(here: Space, job: Job, names=BANKS, **options) -> None:
    for name in names:
        client_of(here, name).jobs.get(job.id[:10]).accept(**options)


def test_from_a_data_frame_to_a_scored_one(here) -> None:
    client = client_of(here, "bank-1")
    assert set(client.members.list().index) == set(BANKS)
    job = client.propose(written())
    shown = job.show()
    assert shown.state == "proposed" and not shown.obstacles and "scorecard.newton" in shown.leaves.index
    assert "What leaves this node" in shown._repr_html_()
    with pytest.raises(ChaotianError) as early:
        job.result()
    assert early.value.code == "JOB_STATE"
    with pytest.raises(ChaotianError) as alone:
        job.wait_for_acceptances(deadline=0.5)
    assert alone.value.code == "DEADLINE" and "bank-3" in alone.value.detail
    with pytest.raises(ChaotianError) as refused:
        job.start()
    assert refused.value.code == "NOT_ACCEPTED"

    accept_at(here, job)
    seen = []
    job.wait_for_acceptances(deadline=20).start().wait(progress=seen.append, deadline=120)
    assert seen[-1]["state"] == "done" and seen[-1]["own"]["state"] == "done"
    assert client.jobs.list().loc[job.id, "state"] == "done"

    result = job.result()
    assert list(result.coefficients.index) == ["(intercept)", *COLUMNS]
    assert 0.3 < result.own.loc["federated", "auc"] <= 1  # of few rows: which are held out is the home's secret
    assert {"own", "coefficients"} == set(result.tables)
    assert "coefficients" in result._repr_html_()
    with pytest.raises(ChaotianError) as absent:
        _ = result.deciles
    assert absent.value.code == "NOT_FOUND"

    test = rows("test").sample(50, random_state=1)
    table = client.score(result.document["model"][:12], test)
    assert list(table.index) == list(test.index) and set(table["model"]) == {result.document["model"]}
    chance = client.models.get(job.id[:12]).predict_proba(test)[:, 1]
    assert np.allclose(table["probability"], chance, rtol=0, atol=0)
    # the log-odds by hand: the coding's means and deviations are in the model
    line = result.coefficients["value"]
    by_hand = line["(intercept)"] + sum(
        line[part.name] * (test[part.name] - part.mean) / part.sd for part in result.model.coding.parts
    )
    assert np.allclose(table["score"], by_hand, rtol=0, atol=1e-12)
    worth = client.models.benefit(job.id[:12])
    assert worth.table.loc["federated", "auc"] == result.own.loc["federated", "auc"] and "separation" in worth.plots
    assert client.models.card(job.id[:12])["model"] == result.document["model"]
    change = client.models.use(result.document["model"], "credit-risk-model", note="first")
    assert change["model"] == client.models.in_use()["model"].item()


def test_waiting_is_not_needed_for_a_job_to_run(here, tmp_path) -> None:
    """Ctrl-C in the middle of `wait`, in a program of its own: it ends at once, and the job ends well."""
    client = client_of(here, "bank-1")
    job = client.propose(written(penalty=2.0))
    accept_at(here, job)
    program = (
        "import sys; from gateway.client import connect\n"
        "job = connect(sys.argv[1]).jobs.get(sys.argv[2])\n"
        "try:\n    job.wait(progress=lambda seen: print('looked', flush=True))\n"
        "except KeyboardInterrupt:\n    print('interrupted'); sys.exit(7)\n"
    )
    command = [sys.executable, "-c", program, str(here.members["bank-1"].home), job.id]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stdout is not None and waiting.stdout.readline() == "looked\n"
    waiting.send_signal(2)
    out, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 7 and out.endswith("interrupted\n") and not err
    with pytest.raises(ChaotianError) as late:
        job.wait(deadline=0.3, progress=False)
    assert late.value.code == "DEADLINE"
    job.start().wait(deadline=120)


def test_without_blocking(here) -> None:
    async def whole() -> tuple[str, pd.DataFrame, list[str]]:
        beats = []

        async def beat() -> None:
            while True:
                beats.append(time.monotonic())
                await asyncio.sleep(0.02)

        heart = asyncio.create_task(beat())
        async with connect_async(here.members["bank-1"].home) as client:
            job = await client.propose(written(penalty=3.0))
            for name in BANKS:
                other = await connect_async(here.members[name].home)
                await (await other.jobs.get(job.id)).accept()
            await job.wait_for_acceptances(deadline=20)
            await job.start()
            gives_up = asyncio.create_task(job.wait())
            await asyncio.sleep(0.05)
            gives_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gives_up
            await job.wait(deadline=120)
            result = await job.result()
            scored = await client.score(result.document["model"], rows("test").head(3))
        heart.cancel()
        assert len(beats) > 10  # the loop was never held up
        return job.id, scored, list(result.tables)

    job, scored, tables = asyncio.run(whole())
    assert len(scored) == 3 and "coefficients" in tables and len(job) == 64


def test_blocking_calls_within_a_running_loop(here) -> None:
    async def cell() -> pd.DataFrame:
        return connect(here.members["bank-2"].home).jobs.list()  # as in a notebook, whose kernel has a loop

    assert len(asyncio.run(cell())) >= 0


def test_cancelled_by_another_member(here) -> None:
    client = client_of(here, "bank-1")
    job = client.propose(written(penalty=4.0))
    other = client_of(here, "bank-2").jobs.get(job.id)
    threading.Timer(0.5, other.cancel).start()
    with pytest.raises(ChaotianError) as ended:
        job.wait(deadline=30)
    assert ended.value.code == "CANCELLED"


def test_faults_are_coded(here, tmp_path) -> None:
    client = client_of(here, "bank-1")
    cases = {
        "BAD_DOCUMENT": [lambda: client.propose({**written(), "flavour": 1}), lambda: client.propose("kind = "),
                         lambda: client.propose({**written(), "params": {"label": None}})],
        "NOT_FOUND": [lambda: client.propose("no/such/job.toml"), lambda: client.jobs.get("0123abcd"),
                      lambda: client.score("0123abcd", rows("test")), lambda: client.data.show("nothing"),
                      lambda: client.features.compute("nothing")],
        "USAGE": [lambda: client.propose(7), lambda: client.jobs.list(deadline=0),
                  lambda: client.data.add("x", 7, SCHEMA), lambda: client.score(7, rows("test"))],
        "DATA_COLUMN": [lambda: client.propose(written(features=["x1", "nope"])),
                        lambda: client.data.add("x", rows("test").drop(columns="x1"), SCHEMA)],
        "CONFIG": [lambda: Client(tmp_path)],
    }  # fmt: skip
    for code, calls in cases.items():
        for call in calls:
            with pytest.raises(ChaotianError) as refused:
                call()
            assert refused.value.code == code and refused.value.hint, (code, refused.value)
    one, two = refused.value._render_traceback_()
    assert one.startswith("ChaotianError: CONFIG: ") and two.startswith("hint: ")


def test_a_node_that_does_not_run(tmp_path) -> None:
    from gateway.identity.home import Home, NodeConfig

    home = tmp_path / "home"
    made, _ = Home.create(home, NodeConfig())
    made.finish()
    with pytest.raises(ChaotianError) as away:
        connect(home)
    assert away.value.code == "NODE_NOT_RUNNING"
    client = Client(home)  # its data need no node
    frame = rows("bank-1").set_index("id")
    bad = frame.assign(x1=frame["x1"].astype(object).where(frame.index != frame.index[4], None))
    report = client.data.check(bad, SCHEMA)
    assert not report.ok and report.faults.loc[0, ["first row", "column", "code"]].tolist() == [5, "x1", "DATA_MISSING"]
    view = client.data.add("loans", frame, SCHEMA)
    assert view.rows == 1000 and [f["name"] for f in view.features] == COLUMNS
    back = client.data.read("loans@1").set_index("id")[["y", *COLUMNS]]
    pd.testing.assert_frame_equal(back, frame.sort_index()[["y", *COLUMNS]], check_dtype=False)


def test_both_clients_have_the_same_methods() -> None:
    pairs = [(Client, AsyncClient), (Job, AsyncJob), (Jobs, AsyncJobs), (Grants, AsyncGrants), (Members, AsyncMembers),
             (Models, AsyncModels), (Data, AsyncData), (Features, AsyncFeatures)]  # fmt: skip
    for one, other in pairs:
        for name, method in inspect.getmembers(one, inspect.isfunction):
            if name.startswith("_") or name == "look":
                continue
            twin = getattr(other, name)
            assert inspect.iscoroutinefunction(twin), (one, name)
            assert list(inspect.signature(twin).parameters) == list(inspect.signature(method).parameters), (one, name)
            assert twin.__doc__, (one, name)
