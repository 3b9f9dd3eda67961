"""Every kind of job between real nodes over TLS, by command line, beside what pandas says of the pooled rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from compose.space import CommandError, Space, space
from federation.learning.holdout import held_out
from gateway.datasets.book import DatasetBook
from gateway.identity.home import Home
from tests.integration.test_jobs_processes import last_of, own_state
from tests.support.jobs_kit import job_toml

BANKS = ("bank-1", "bank-2", "bank-3")
DAYS = ("2024-12-31", "2025-06-30")
SECTORS = ["trade", "farm", "build"]
FEATURES = ["amount", "rate", "sector"]
SCHEMA = """
id = "id"
label = "bad"
as_of = "{day}"
[columns.bad]
type = "integer"
disclosure = "aggregate"
[columns.amount]
type = "numeric"
disclosure = "aggregate"
[columns.rate]
type = "numeric"
missing = "allow"
disclosure = "aggregate"
[columns.sector]
type = "category"
levels = ["trade", "farm", "build"]
disclosure = "aggregate"
"""
GRANT = """
grantee = "bank-1"
roles = ["bank"]
purposes = ["credit-risk-model"]
legal_basis = "dsl-business-data"
exp = "30d"
[dataset]
id = "loans"
[columns]
bad = "aggregate"
amount = "aggregate"
rate = "aggregate"
sector = "aggregate"
[[ops]]
op = ["profile", "columns", "binning", "scorecard", "evaluate", "stability"]
max_rounds = 60
[quota]
calls = 1000
per = "day"
"""


def table(bank: str, day: str) -> pd.DataFrame:
    """Return the rows of a bank at a date; at the second one amounts are larger. bank-3 has no bad loans."""
    rng = np.random.default_rng(BANKS.index(bank) + 10 * DAYS.index(day))
    n = 700
    amount = rng.lognormal(3 + 0.3 * DAYS.index(day), 0.8, n).round(2)
    rate = rng.normal(5, 2, n).round(3)
    sector = rng.choice(SECTORS, n, p=[0.5, 0.3, 0.2])
    chance = 1 / (1 + np.exp(2.2 - 0.02 * amount - 0.3 * (rate - 5) - 0.8 * (sector == "farm")))
    bad = (rng.random(n) < chance).astype(int) * (bank != "bank-3")
    rate[rng.random(n) < 0.1] = np.nan
    ids = [f"{bank}-{i}" for i in range(n)]
    return pd.DataFrame({"id": ids, "bad": bad, "amount": amount, "rate": rate, "sector": sector})


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    with space(root) as made:
        made.start_platform()
        for name in BANKS:
            member = made.add(name, "bank", "Chongqing")
            for day in DAYS:
                table(name, day).to_csv(root / f"{name}.csv", index=False)
                (root / "schema.toml").write_text(SCHEMA.format(day=day))
                made.run(member, "data", "add", "loans", root / f"{name}.csv", "--schema", root / "schema.toml")
            made.serve(member)
        made.approve_all()
        (root / "grant.toml").write_text(GRANT)
        for name in BANKS[1:]:
            grant = made.json(made.members[name], "grant", "propose", root / "grant.toml")["id"]
            made.run(made.members["bank-1"], "grant", "accept", grant)
        yield made


def run(here: Space, root: Path, **changes) -> tuple[str, dict]:
    """Run a job by command line; return its id and its result at bank-1, which is that of all."""
    path = root / "job.toml"
    path.write_text(job_toml(BANKS, **changes))
    job = here.json(here.members["bank-1"], "job", "propose", path)["id"]
    shown = here.json(here.members["bank-2"], "job", "show", job)
    assert shown["obstacles"] == [] and shown["leaves"]["rounds"]
    for name in BANKS:
        here.run(here.members[name], "job", "accept", job)
    here.run(here.platform, "job", "start", job)
    seen = last_of(here, job)
    assert seen["state"] == "done", seen
    ran = {entry["operation"] for entry in seen["progress"]["rounds"]}
    assert ran == {entry["operation"] for entry in shown["leaves"]["rounds"]}
    results = []
    for name in BANKS:
        assert own_state(here, name, job)["state"] == "done"
        results.append(here.json(here.members[name], "job", "result", job))
    assert len({json.dumps(result.get("result") or result["model"]) for result in results}) == 1
    return job, results[0]


def pooled(day: str = DAYS[0]) -> pd.DataFrame:
    return pd.concat([table(name, day) for name in BANKS], ignore_index=True)


def kept_back(here: Space, rows: pd.DataFrame) -> np.ndarray:
    """Return which rows are held out with the seed s: every bank decides under a secret of its own."""
    sides = []
    for name in BANKS:
        home = Home.node(here.members[name].home)
        ids = rows["id"][rows["id"].str.startswith(f"{name}-")]
        sides.append(held_out(DatasetBook(home.database, home.path).pseudonyms(list(ids)), "s", 0.2))
    return np.concatenate(sides)


def test_from_profile_to_stability(here, tmp_path):
    first, second = pooled(), pooled(DAYS[1])
    bank = here.members["bank-1"]

    # profile
    job, found = run(here, tmp_path, kind="profile", dataset=f"loans@{DAYS[0]}", features=FEATURES)
    columns = {entry["name"]: entry for entry in found["result"]["columns"]}
    assert found["result"]["rows"] == len(first) == 2100
    for name in ("amount", "rate"):
        values, column = first[name].dropna(), columns[name]
        assert (column["present"], column["missing"]) == (len(values), first[name].isna().sum())
        assert column["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert column["sd"] == pytest.approx(values.std(ddof=0), rel=1e-12)
        assert column["skewness"] == pytest.approx(values.skew() * (len(values) - 2)
            / np.sqrt(len(values) * (len(values) - 1)), rel=1e-9)  # fmt: skip
        for quantile in column["quantiles"]:
            exact = values.quantile(quantile["share"], interpolation="inverted_cdf")
            assert quantile["low"] < exact <= quantile["high"]
    assert columns["sector"]["levels"] == first["sector"].value_counts().to_dict()
    text = here.run(bank, "job", "result", job)
    assert "amount" in text and "210" in text and "next:" in text
    assert "farm" in here.run(bank, "job", "result", job, "--column", "sector")

    # binning, on the training rows of the scorecard to come
    held = kept_back(here, first)
    training, holdout = first[~held], first[held]
    options = {"dataset": f"loans@{DAYS[0]}", "label": "bad", "features": FEATURES, "holdout": 0.2, "seed": "s"}
    binning, found = run(here, tmp_path, kind="binning", **options)
    bins = {entry["name"]: entry for entry in found["result"]["columns"]}
    assert found["result"]["training"] == {"rows": len(training), "bads": training["bad"].sum(), "min_rows": 30,
                                           "holdout": 0.2}  # fmt: skip
    coded = {name: codes_of(bins[name], training[name]) for name in FEATURES}
    for name in FEATURES:
        counts = [[int(((coded[name] == k) & (training["bad"] == side)).sum()) for side in (0, 1)]
                  for k in range(len(bins[name]["counts"]))]  # fmt: skip
        assert counts == bins[name]["counts"] and min(map(sum, counts)) >= 30
        goods, bads = np.array(counts).T / np.array([[(1 - training["bad"]).sum()], [training["bad"].sum()]])
        assert float.fromhex(bins[name]["information"]) == pytest.approx(((bads - goods) * np.log(bads / goods)).sum())
    assert "IV" in here.run(bank, "job", "result", binning)
    assert "WOE" in here.run(bank, "job", "result", binning, "--column", "rate")

    # scorecard on the weights of these bins
    card, found = run(here, tmp_path, kind="scorecard", coding="woe", edges=binning[:12], **options)
    out = tmp_path / "model.json"
    here.run(bank, "model", "export", found["model"], "--out", out)
    model = json.loads(out.read_text())

    def weighed(rows: pd.DataFrame) -> np.ndarray:
        parts = [np.array([float.fromhex(w) for w in bins[name]["weights"]])[codes_of(bins[name], rows[name])]
                 for name in FEATURES]  # fmt: skip
        return np.column_stack(parts)

    fit = LogisticRegression(C=1.0, tol=1e-12, max_iter=1000, solver="newton-cholesky")
    fit.fit(weighed(training), training["bad"])
    values = [float(line["value"]) for line in model["coefficients"]]
    assert values == pytest.approx([fit.intercept_[0], *fit.coef_[0]], abs=1e-6)
    assert found["holdout"]["rows"] == held[: len(table("bank-1", DAYS[0]))].sum()

    # evaluate on what was held out; the model by its job, the rows by the job's own seed
    _, found = run(here, tmp_path, kind="evaluate", dataset=f"loans@{DAYS[0]}", model=card[:10], rows="holdout")
    chance = fit.predict_proba(weighed(holdout))[:, 1]
    result = found["result"]
    assert (result["rows"], result["bads"]) == (len(holdout), holdout["bad"].sum())
    assert result["auc"]["low"] <= roc_auc_score(holdout["bad"], chance) <= result["auc"]["high"]
    assert result["brier"] == pytest.approx(((chance - holdout["bad"]) ** 2).mean(), abs=1e-7)
    assert result["log_loss"] == pytest.approx(log_loss(holdout["bad"], chance), abs=1e-7)
    assert sum(group["rows"] for group in result["groups"]) == len(holdout)
    mine = holdout["id"].str.startswith("bank-1-")
    assert found["own"]["auc"] == pytest.approx(roc_auc_score(holdout["bad"][mine], chance[mine]), abs=1e-9)
    job = found["id"]
    assert here.json(here.members["bank-3"], "job", "result", job)["own"]["code"] == "ONE_CLASS"  # and took part
    text = here.run(here.members["bank-3"], "job", "result", job)
    assert "AUC" in text and "ONE_CLASS" in text and "gain" in text

    # stability of its columns and its score
    job, found = run(here, tmp_path, kind="stability", dataset=f"loans@{DAYS[0]}", after=f"loans@{DAYS[1]}",
                     model=card[:10])  # fmt: skip
    shifts = {shift["name"]: shift for shift in found["result"]["shifts"]}
    assert list(shifts) == [*FEATURES, "(score)"]
    for name in FEATURES:
        counts = [np.bincount(codes_of(bins[name], rows[name])).tolist() for rows in (first, second)]
        assert [sorted(shifts[name]["before"]), sorted(shifts[name]["after"])] == [sorted(part) for part in counts]
        p, q = (np.array(part) / sum(part) for part in counts)
        assert shifts[name]["index"] == pytest.approx(((q - p) * np.log(q / p)).sum(), abs=1e-12)
    assert shifts["amount"]["verdict"] in ("moderate", "large") and shifts["sector"]["verdict"] == "noise"
    assert "amount" in here.run(bank, "job", "result", job)
    assert "share" in here.run(bank, "job", "result", job, "--column", "amount")


def codes_of(column: dict, values: pd.Series) -> np.ndarray:
    """Return the bin of each value, by pandas."""
    if column["of"] == "category":
        groups = {level: k for k, group in enumerate(column["groups"]) for level in group}
        return values.map(groups).to_numpy()
    edges = [-np.inf, *(float.fromhex(edge) for edge in column["edges"]), np.inf]
    codes = pd.cut(values, edges, labels=False)
    return codes.fillna(column["missing"]).astype(int).to_numpy()


def test_a_model_that_a_bank_does_not_hold_is_named_with_the_way_out(here, tmp_path):
    options = {"dataset": f"loans@{DAYS[0]}", "label": "bad", "features": ["amount"], "seed": "t"}
    _, found = run(here, tmp_path, kind="scorecard", **options)
    other = here.members["bank-2"]
    stored = other.home / "models" / f"{found['model']}.json"
    kept = stored.read_bytes()
    stored.unlink()
    path = tmp_path / "job.toml"
    path.write_text(job_toml(BANKS, kind="evaluate", dataset=f"loans@{DAYS[0]}", model=found["model"][:8]))
    job = here.json(here.members["bank-1"], "job", "propose", path)["id"]
    with pytest.raises(CommandError) as caught:
        here.run(other, "job", "accept", job)
    assert (caught.value.status, caught.value.code) == (2, "MODEL_MISSING") and "model import" in caught.value.stderr
    handed = tmp_path / "handed.json"
    handed.write_bytes(kept)
    assert found["model"] in here.run(other, "model", "import", handed)
    here.run(other, "job", "accept", job)
