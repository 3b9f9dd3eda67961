"""From a scorecard trained by real nodes to scores, reasons, card, report and a way back, by the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from compose.space import CommandError, Space, space
from federation.learning.model import Model
from federation.primitives.encoding import canonical_json
from gateway.datasets.book import DatasetBook
from gateway.identity.home import Home
from gateway.transport.local import LocalClient
from tests.integration.test_jobs_processes import GRANT, own_state
from tests.support.jobs_kit import job_toml
from tests.support.split import fix_split_of

DATA = Path(__file__).resolve().parents[1] / "data"
BANKS = ("bank-1", "bank-2", "bank-3")
FEATURES = ["x0", "x5", "x11", "x14"]
MORE = "".join(
    f'[[ops]]\nop = "{op}"\nout = "total"\nmin_members = 3\nmin_rows = 30\nmax_rounds = 60\nresult_to = "members"\n'
    for op in ("binning", "columns", "evaluate")
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("space")
    with space(root) as made:
        made.start_platform()
        for name in BANKS:
            member = made.add(name, "bank", "Chongqing")
            fix_split_of(member.home, name)
            schema = root / "schema.toml"
            lines = ['id = "id"', 'label = "y"', 'as_of = "2024-12-31"', 'other_columns = "ignore"']
            for column in ("y", *FEATURES):
                kind = "integer" if column == "y" else "numeric"
                lines.append(f'[columns.{column}]\ntype = "{kind}"\ndisclosure = "aggregate"')
            schema.write_text("\n".join(lines))
            made.run(member, "data", "add", "loans", DATA / f"default_credit_{name}.csv", "--schema", schema)
            made.serve(member)
        made.approve_all()
        grant = root / "grant.toml"
        text = GRANT.format(columns="\n".join(f'{c} = "aggregate"' for c in ("y", *FEATURES)))
        grant.write_text(text.replace("[quota]", MORE + "[quota]"))
        for name in BANKS[1:]:
            identifier = made.json(made.members[name], "grant", "propose", grant)["id"]
            made.run(made.members["bank-1"], "grant", "accept", identifier)
        yield made


def run_job(here: Space, root: Path, **changes) -> str:
    path = root / "job.toml"
    path.write_text(job_toml(BANKS, **{"stage_seconds": 60.0, **changes}))
    job = here.json(here.members["bank-1"], "job", "propose", path)["id"]
    for name in BANKS:
        here.run(here.members[name], "job", "accept", job)
    here.run(here.members["bank-1"], "job", "start", job)
    for _ in LocalClient(here.platform.home).watch("job.watch", {"id": job}, deadline=120):
        pass
    for name in BANKS:
        shown = own_state(here, name, job)
        assert shown["state"] == "done", (shown["state"], shown["code"], shown["detail"])
    return job


@pytest.mark.timeout(900)
def test_from_a_finished_job_to_scores_card_report_and_back(here, tmp_path):
    one = here.members["bank-1"]
    points = {"coding": "woe", "holdout": 0.2, "base_score": 600, "base_odds": 20, "pdo": 40}
    jobs = [run_job(here, tmp_path, features=FEATURES[:n], penalty=1.0, **points) for n in (3, 4)]
    models = [here.json(one, "job", "result", job)["model"] for job in jobs]
    document = json.loads((one.home / "models" / f"{models[1]}.json").read_text())
    model = Model.load(document)

    # Score: the dataset, its snapshot and the file it came from agree, and with the model's own words.
    scores = tmp_path / "scores.csv"
    found = here.json(one, "score", models[1][:10], "loans", "--out", scores)
    assert (found["rows"], found["model"], found["points"]) == (1000, models[1], True)
    with scores.open() as file:
        rows = list(csv.DictReader(file))
    home = Home.node(one.home)
    frame = DatasetBook(home.database, home.path).load("loans", model.columns)
    home.database.close()
    assert [row["id"] for row in rows] == list(frame.ids)
    assert [float(row["score"]) for row in rows] == model.score(frame).tolist()
    assert {row["model"] for row in rows} == {models[1]} and {row["reason_1"] for row in rows} <= {*FEATURES, ""}
    again = tmp_path / "again.csv"
    here.run(one, "score", jobs[1], "loans@1", "--out", again)
    assert again.read_bytes() == scores.read_bytes()
    here.run(one, "score", models[1], DATA / "default_credit_bank-1.csv", "--out", again)
    by_id = {row["id"]: row for row in rows}
    with again.open() as file:
        assert all(by_id[row["id"]] == row for row in csv.DictReader(file))

    # Evaluate over all members; the card then says how well it does, everywhere and here.
    run_job(here, tmp_path, kind="evaluate", model=models[1][:12], rows="holdout")
    card = here.json(one, "model", "card", models[1])
    assert card["data"]["members"] == list(BANKS) and card["purpose"] == "credit-risk-model"
    assert card["evaluations"][0]["model"] == models[1] and 0.6 < card["evaluations"][0]["auc"]["estimate"] < 0.8
    assert card["own"]["federated"]["auc"] > 0.6 and len(card["coefficients"]) == 5
    page = tmp_path / "card.html"
    here.run(one, "model", "card", models[1], "--out", page)
    assert models[1] in page.read_text() and "<script" not in page.read_text()

    # What joining was worth here: the same figures as the job's result, and the interval of the gain.
    report = here.json(one, "model", "report", models[1], "--out", tmp_path / "report.html")
    own, result = report["members"]["bank-1"], here.json(one, "job", "result", jobs[1])["holdout"]
    assert report["evaluated_on"] == "holdout" and own["rows"] == result["rows"]
    for key in ("federated", "local"):
        assert own[key]["auc"] == pytest.approx(result[key]["auc"], abs=1e-12)
    assert own["gain"]["low"] < own["gain"]["auc"] < own["gain"]["high"]
    assert "What joining was worth to bank-1" in (tmp_path / "report.html").read_text()

    # In use, another in use, back; through the running node, each a leaf of its log.
    with pytest.raises(CommandError) as caught:
        here.run(one, "score", "loans", "--out", again)
    assert caught.value.code == "NOT_FOUND"
    changes = [here.json(one, "model", "use", name, "--note", "committee") for name in models]
    assert [change["purpose"] for change in changes] == ["credit-risk-model"] * 2
    assert here.json(one, "score", "loans", "--out", again)["model"] == models[1]
    back = here.json(one, "model", "rollback", "--note", "drift")
    assert (back["model"], back["before"], back["action"]) == (models[0], models[1], "rollback")
    assert here.json(one, "score", "loans", "--out", again)["model"] == models[0]
    with pytest.raises(CommandError) as caught:
        here.run(one, "model", "rollback")
    assert caught.value.code == "NOT_FOUND"
    leaves = [change["leaf"] for change in (*changes, back)]
    assert None not in leaves and leaves == sorted(set(leaves))

    # With the node killed the command logs by itself: the keys are there.
    here.kill(one)
    change = here.json(one, "model", "use", models[1])
    assert change["leaf"] is not None and change["leaf"] > leaves[-1]
    here.serve(one)
    listed = here.json(one, "audit", "show", "--type", "model.used", "--limit", "10")["events"]
    payloads = [event["payload"] for event in sorted(listed, key=lambda event: event["index"])]
    assert [payload["model"] for payload in payloads] == [models[0], models[1], models[0], models[1]]
    assert all(len(canonical_json(payload)) < 2000 and payload["account"] for payload in payloads)
    copy = tmp_path / "copy"
    here.run(one, "audit", "export", copy)
    fingerprint = here.json(one, "node", "show")["fingerprint"]
    assert here.json(one, "audit", "verify", copy, "--key", fingerprint)["size"] > leaves[-1]
    assert np.isfinite(model.score(frame)).all()
