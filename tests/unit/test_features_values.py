"""Features against an independent computation in pandas, row by row; their documents; the verbs."""

import datetime
import json
import math

import ibis
import numpy as np
import pandas as pd
import pytest

from federation.errors import ChaotianError
from gateway.cli.main import run
from gateway.identity.home import Home, NodeConfig
from parties.bank.features import catalogue, uci
from tests.support.ledgers import LEDGER_SCHEMA, SAMPLE, made_ledger

NAN = math.nan


def by_hand(rows: pd.DataFrame, last: int) -> dict[str, float]:
    """Compute all features of one loan from its rows as the docstrings say, without Ibis."""
    at = {int(r["at"]): r for _, r in rows.iterrows() if r["at"] <= last}

    def value(month, name):
        return float(at[month][name]) if month in at and not pd.isna(at[month][name]) else NAN

    def window(name, n):
        found = [value(month, name) for month in range(last - n + 1, last + 1)]
        return [x for x in found if not math.isnan(x)]

    def over(above, below):
        return above / below if below > 0 else NAN

    def used(n):
        shares = [over(value(m, "balance"), value(m, "limit")) for m in range(last - n + 1, last + 1)]
        return [x for x in shares if not math.isnan(x)]

    def paid(n):
        pairs = [(value(m, "payment"), value(m - 1, "balance")) for m in range(last - n + 1, last + 1)]
        pairs = [(p, b) for p, b in pairs if b > 0 and not math.isnan(p)]
        return over(sum(p for p, _ in pairs), sum(b for _, b in pairs)) if pairs else NAN

    def trend(n):
        points = [(m, value(m, "balance")) for m in range(last - n + 1, last + 1)]
        points = [(m, b) for m, b in points if not math.isnan(b)]
        size = np.mean([abs(b) for _, b in points]) if points else 0.0
        return float(np.polyfit(*zip(*points, strict=True), 1)[0] / size) if len(points) >= 3 and size > 0 else NAN

    def volatility(n):
        x = window("inflow", n)
        return over(float(np.std(x, ddof=1)), float(np.mean(x))) if len(x) >= 3 else NAN

    def late(n, days):
        x = window("days_past_due", n)
        return float(sum(d >= days for d in x)) if x else NAN

    def most(values):
        return max(values, default=NAN)

    def mean(values):
        return float(np.mean(values)) if values else NAN

    opened = [r["opened"] for r in at.values()]
    return {
        "utilisation": over(value(last, "balance"), value(last, "limit")),
        "utilisation_mean_3m": mean(used(3)),
        "utilisation_mean_6m": mean(used(6)),
        "utilisation_max_6m": most(used(6)),
        "days_past_due": value(last, "days_past_due"),
        "days_past_due_worst_6m": most(window("days_past_due", 6)),
        "days_past_due_worst_12m": most(window("days_past_due", 12)),
        "overdue_months_3m": late(3, 1),
        "overdue_months_6m": late(6, 1),
        "overdue_30_months_6m": late(6, 30),
        "overdue_60_months_6m": late(6, 60),
        "payment_ratio": over(value(last, "payment"), value(last - 1, "balance")),
        "payment_ratio_3m": paid(3),
        "payment_ratio_6m": paid(6),
        "balance_trend_3m": trend(3),
        "balance_trend_6m": trend(6),
        "inflow_mean_6m": mean(window("inflow", 6)),
        "inflow_volatility_6m": volatility(6),
        "inflow_volatility_12m": volatility(12),
        "limit": value(last, "limit"),
        "limit_change_6m": over(value(last, "limit"), value(last - 5, "limit")) - 1,
        "relation_months": float(last - min(d.year * 12 + d.month - 1 for d in opened)) if opened else NAN,
        "months_observed": float(len(at)),
    }


@pytest.mark.parametrize("last", [None, datetime.date(2024, 9, 30)])
def test_features_are_what_their_docstrings_say(last):
    table = made_ledger()
    frame = table.to_pandas()
    frame["at"] = [day.year * 12 + day.month - 1 for day in frame["month"]]
    month = frame["at"].max() if last is None else 2024 * 12 + 8
    found = catalogue.compute(ibis.memtable(table), list(catalogue.FEATURES.values()), last).execute()
    found = found.set_index("loan")
    there = set(frame.loc[frame["at"] == month, "loan"])
    assert set(found.index) == there and 100 < len(there) < 150
    missing = dict.fromkeys(catalogue.FEATURES, 0)
    for loan, rows in frame.groupby("loan"):
        if loan not in there:
            continue
        expected = by_hand(rows, month)
        assert set(expected) == set(found.columns)
        for name, value in expected.items():
            got = float(found.loc[loan, name])
            missing[name] += math.isnan(value)
            assert got == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), (loan, name)
    # the made rows reach the missing case of most that have one
    assert sum(count > 0 for count in missing.values()) >= 13


def test_the_public_file_end_to_end():
    table = ibis.duckdb.connect().read_csv(SAMPLE)
    ledger = uci.ledger(table)
    plan = catalogue.plan(ledger.columns)
    assert dict(plan.left_out) == {"relation_months": "opened"}
    raw = pd.read_csv(SAMPLE).set_index("ID")
    found = catalogue.compute(ledger, plan.features).execute()
    found = found.set_index(found["loan"].astype(int)).loc[raw.index]
    assert len(found) == 300
    np.testing.assert_array_equal(found["utilisation"], raw["BILL_AMT1"] / raw["LIMIT_BAL"])
    statuses = raw[["PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"]].clip(lower=0) * 30
    np.testing.assert_array_equal(found["days_past_due_worst_6m"], statuses.max(axis=1))
    np.testing.assert_array_equal(found["days_past_due"], statuses["PAY_0"])
    np.testing.assert_array_equal(found["overdue_60_months_6m"], (statuses >= 60).sum(axis=1))
    np.testing.assert_allclose(found["inflow_mean_6m"], raw[[f"PAY_AMT{i}" for i in range(1, 7)]].mean(axis=1))
    owed = raw["BILL_AMT2"].where(raw["BILL_AMT2"] > 0)
    np.testing.assert_allclose(found["payment_ratio"], raw["PAY_AMT1"] / owed)
    assert (found["limit_change_6m"] == 0).all() and (found["months_observed"] == 6).all()
    outcome = uci.outcomes(table).execute()
    assert outcome["bad"].sum() == raw[uci.OUTCOME].sum()
    with pytest.raises(ChaotianError, match="no column PAY_3"):
        uci.ledger(table.drop("PAY_3"))


def test_every_feature_says_formula_window_and_unit():
    for feature in catalogue.FEATURES.values():
        document = feature.document()
        assert all(document[part] for part in ("summary", "formula", "window", "unit", "missing")), feature.name
        assert document["summary"].endswith(".")
    families = {feature.family for feature in catalogue.FEATURES.values()}
    assert families == {"utilisation", "delinquency", "payment", "balance", "inflow", "limits", "relation"}


def test_tables_that_are_no_ledger():
    rows = ibis.memtable(made_ledger(3))
    chosen = list(catalogue.FEATURES.values())
    for wrong, code in (
        (rows.drop("month"), "DATA_COLUMN"),
        (rows.drop("loan"), "DATA_COLUMN"),
        (rows.mutate(balance=rows["balance"].cast("string")), "DATA_TYPE"),
        (rows.mutate(opened=rows["opened"].cast("string")), "DATA_TYPE"),
    ):
        with pytest.raises(ChaotianError) as caught:
            catalogue.compute(wrong, chosen)
        assert caught.value.code == code
    with pytest.raises(ChaotianError, match="needs the column inflow"):
        catalogue.plan(["loan", "month"], ["inflow_mean_6m"])
    with pytest.raises(ChaotianError, match="no feature"):
        catalogue.find("wealth")


# --- verbs ----------------------------------------------------------------------------------------------------------


def call(capsys, *arguments):
    status = run([str(a) for a in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_list_and_show(capsys):
    status, out, _ = call(capsys, "features", "list")
    assert status == 0 and "utilisation_max_6m" in out and "delinquency" in out
    status, out, _ = call(capsys, "features", "show", "payment_ratio", "--json")
    assert status == 0 and json.loads(out)["formula"] == "payment(T) / balance(T-1)"
    assert call(capsys, "features", "show", "payment_ratio")[0] == 0
    status, _, err = call(capsys, "features", "show", "wealth")
    assert status == 2 and "error NOT_FOUND" in err and "Traceback" not in err


def test_compute_registers_a_dataset(capsys, tmp_path):
    home = tmp_path / "bank"
    made, _ = Home.create(home, NodeConfig())
    made.finish()
    table = made_ledger()
    table.to_pandas().to_csv(tmp_path / "ledger.csv", index=False)
    (tmp_path / "ledger.toml").write_bytes(LEDGER_SCHEMA)
    (tmp_path / "bad.toml").write_text(
        'id = "loan"\nlabel = "bad"\n[columns.bad]\ntype = "integer"\ndisclosure = "aggregate"\n'
    )
    loans = sorted(set(table["loan"].to_pylist()))
    (tmp_path / "bad.csv").write_text("loan,bad\n" + "".join(f"{x},{i % 5 == 0:d}\n" for i, x in enumerate(loans)))
    for name in ("ledger", "bad"):
        source, schema = tmp_path / f"{name}.csv", tmp_path / f"{name}.toml"
        assert call(capsys, "data", "add", name, source, "--schema", schema, "--home", home)[0] == 0
    compute = ("features", "compute", "ledger", "--home", home, "--out")
    status, out, err = call(capsys, *compute, "features", "--with", "bad", "--json")
    document = json.loads(out)
    assert status == 0 and document["as_of"] == "2024-12-31" and document["version"] == "features@1"
    assert document["columns"] == 24 and document["left_out"] == {} and document["rows"] > 100
    shown = json.loads(call(capsys, "data", "show", "features", "--home", home, "--json")[1])
    columns = {column["name"]: column for column in shown["columns"]}
    assert shown["label"] == "bad" and shown["id"] == "loan" and shown["key"] == "loan_number"
    # as strict as the strictest column it is computed from
    assert columns["utilisation"]["grade"] == 4 and columns["utilisation"]["disclosure"] == "aggregate"
    assert columns["days_past_due"]["disclosure"] == "never" and columns["days_past_due"]["grade"] == 3
    # the same again is the same snapshot; another month is another
    again = json.loads(call(capsys, *compute, "features", "--with", "bad", "--json")[1])
    assert again["snapshot"] == document["snapshot"] and again["version"] == "features@1"
    other = call(capsys, *compute, "features", "--at", "2024-06", "--feature", "utilisation")
    assert other[0] == 0 and "features@2" in other[1] and "1 features of 2024-06" in other[1]
    for arguments, code in (
        (("x", "--at", "2024-13"), "USAGE"),
        (("x", "--at", "1990-01"), "DATA_SOURCE"),
        (("x", "--column", "limit"), "USAGE"),
        (("x", "--column", "wealth=limit"), "USAGE"),
        (("x", "--column", "limit=nothing"), "DATA_COLUMN"),
        (("x", "--column", "limit=opened"), "DATA_TYPE"),
        (("x", "--feature", "wealth"), "NOT_FOUND"),
        (("x", "--with", "ledger"), "DATA_DUPLICATE"),
        (("x", "--with", "nothing"), "NOT_FOUND"),
        (("no name",), "USAGE"),
    ):
        status, _, err = call(capsys, *compute, *arguments)
        assert status == 2 and f"error {code}: " in err and "Traceback" not in err, (arguments, err)
    status, _, err = call(capsys, "features", "compute", "bad", "--out", "x", "--home", home)
    assert status == 2 and "BAD_DOCUMENT" in err and "no ledger" in err
