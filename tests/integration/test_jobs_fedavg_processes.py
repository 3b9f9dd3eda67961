"""`fedavg` between real nodes over TLS, by command line: stock FedAvg and FedAdam, and what people see of them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from compose.space import CommandError, Space, space
from federation.rounds import mlp_app
from tests.integration.test_jobs_processes import last_of, own_state
from tests.support.jobs_kit import COLUMNS, ROOT, job_toml

BANKS = ("bank-1", "bank-2", "bank-3")
PARAMS = {
    "kind": "fedavg", "app": "mlp", "label": "y", "features": list(COLUMNS), "rounds": 3, "holdout": 0.2,
    "layers": mlp_app.layers(len(COLUMNS), 4, 1.0), "max_weight": 1000,
    "config": {"epochs": 1, "center": [0.0] * 5, "spread": [1e5, 5.0, 5.0, 1e5, 1e4]},
}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("fedavg")
    with (ROOT / "tests/data/default_credit_bank-1.csv").open() as file:
        columns = next(csv.reader(file))[1:]
    described = [
        f'[columns.{name}]\ntype = "{"integer" if name == "y" else "numeric"}"\ndisclosure = "aggregate"'
        for name in columns
    ]
    (root / "schema.toml").write_text("\n".join(['id = "id"', 'label = "y"', *described]))
    (root / "grant.toml").write_text(
        'grantee = "bank-1"\nroles = ["bank"]\npurposes = ["credit-risk-model"]\nlegal_basis = "dsl-business-data"\n'
        'exp = "30d"\n[dataset]\nid = "loans"\n[columns]\n'
        + "".join(f'{name} = "aggregate"\n' for name in (*COLUMNS, "y"))
        + '[[ops]]\nop = "fedavg"\nmax_rounds = 10\nresult_to = "both"\n[quota]\ncalls = 100\nper = "day"\n'
        '[budget]\neps_total = "50"\ndelta = "1e-6"\n'
    )
    with space(root / "space") as made:
        made.start_platform()
        for name in BANKS:
            member = made.add(name, "bank", "Chongqing")
            data = ROOT / f"tests/data/default_credit_{name}.csv"
            made.run(member, "data", "add", "loans", data, "--schema", root / "schema.toml")
            made.serve(member)
        made.approve_all()
        for name in BANKS[1:]:
            text = (root / "grant.toml").read_text()
            if name == "bank-3":
                text = text.partition("[budget]")[0].replace('op = "fedavg"\n', 'op = "fedavg"\nexact = true\n')
            (root / f"{name}.toml").write_text(text)
            grant = made.json(made.members[name], "grant", "propose", root / f"{name}.toml")["id"]
            made.run(made.members["bank-1"], "grant", "accept", grant)
        yield made


def run(here: Space, root, **changes) -> list[dict]:
    path = root / "job.toml"
    path.write_text(job_toml(BANKS, **PARAMS | changes))
    first = here.members["bank-1"]
    job = here.json(first, "job", "propose", path)["id"]
    for name in BANKS:
        # The grant of bank-3 has no budget: to its ledger two such jobs are as good as exact.
        here.run(here.members[name], "job", "accept", job, "--exposure-consent")
    shown = here.run(here.members["bank-2"], "job", "show", job)
    assert "fedavg.update" in shown and "the total in clear" in shown
    here.run(here.platform, "job", "start", job)
    seen = last_of(here, job)
    assert seen["state"] == "done", seen
    results = []
    for name in BANKS:
        assert own_state(here, name, job)["state"] == "done"
        results.append(here.json(here.members[name], "job", "result", job))
    assert len({json.dumps(found["result"]) for found in results}) == 1
    for found, name in zip(results, BANKS, strict=True):
        with np.load(here.members[name].home / found["arrays"]) as file:
            assert sorted(file) == sorted(mlp_app.LAYERS) and all(np.isfinite(file[key]).all() for key in file)
        assert 0 <= found["own"]["after"]["auc"] <= 1
    here.run(first, "job", "result", job)
    for member in (first, here.platform):
        here.run(member, "job", "arrays", job, root / f"{job[:8]}-{member.name}.npz")
    with (
        np.load(root / f"{job[:8]}-{here.platform.name}.npz") as mine,
        np.load(here.members["bank-2"].home / results[1]["arrays"]) as theirs,
    ):
        assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)
    return results


@pytest.mark.parametrize(("strategy", "options"), [("FedAvg", {}), ("FedAdam", {"eta": 0.01})])
def test_stock_strategies_and_noise_over_real_nodes(here, tmp_path, strategy, options):
    noise = {"multiplier": 1.0, "honest": 2}
    privacy = run(here, tmp_path, result_to="both", strategy=strategy, options=options, noise=noise)[0]
    assert 0 < float(privacy["result"]["privacy"]["epsilon"]) < 50
    grant = here.json(here.members["bank-2"], "grant", "list")["grants"][0]["id"]
    assert "Privacy spent" in here.run(here.members["bank-2"], "grant", "show", grant)


def test_without_noise_a_budget_keeps_a_bank_out_of_the_job(here, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(job_toml(BANKS, **PARAMS, result_to="both"))
    job = here.json(here.members["bank-1"], "job", "propose", path)["id"]
    here.run(here.members["bank-3"], "job", "accept", job)
    with pytest.raises(CommandError) as raised:
        here.run(here.members["bank-2"], "job", "accept", job)
    assert "BUDGET" in str(raised.value)


def test_installed_apps_are_listed_by_their_hash(here):
    (app,) = [each for each in here.json(here.members["bank-1"], "app", "list")["apps"] if each["name"] == "mlp"]
    assert len(app["digest"]) == 64
