"""A made ledger with every kind of gap: missing months, missing values, no limit, closed loans."""

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "uci_credit_card_sample.csv"
LEDGER_SCHEMA = b"""
id = "loan"
key = "loan_number"
length = 4
period = "month"
[columns.month]
type = "month"
disclosure = "aggregate"
[columns.limit]
type = "numeric"
unit = "CNY"
range = [0, inf]
grade = 4
missing = "allow"
disclosure = "aggregate"
[columns.balance]
type = "numeric"
missing = "allow"
disclosure = "aggregate"
[columns.payment]
type = "numeric"
missing = "allow"
disclosure = "aggregate"
[columns.days_past_due]
type = "integer"
missing = "allow"
[columns.inflow]
type = "numeric"
missing = "allow"
[columns.opened]
type = "date"
"""


def made_ledger(loans: int = 150, months: int = 14, seed: int = 5) -> pa.Table:
    """Return a ledger of `loans` over `months` that end in December 2024, as an Arrow table in random order."""
    random = np.random.default_rng(seed)
    days = [datetime.date(2023 + (11 - months + 1 + i + 12) // 12, (11 - months + 1 + i) % 12 + 1, 1)
            for i in range(months)]  # fmt: skip
    rows = []
    for loan in range(loans):
        opened = datetime.date(2015 + loan % 8, 1 + loan % 12, 1 + loan % 28)
        limit, closed = float(random.integers(1, 50) * 1000), loan % 11 == 3
        for at, day in enumerate(days):
            if random.random() < 0.1 or (closed and at > months - 4):
                continue
            limit = 0.0 if loan % 17 == 5 else limit * (1.25 if random.random() < 0.1 else 1.0)
            values = [
                limit,
                0.0 if loan % 19 == 7 else round(float(random.normal(0.4, 0.4)) * 20_000, 2),
                round(float(random.random()) * 5000, 2),
                int(random.choice([0, 0, 0, 5, 31, 62, 95])),
                0.0 if loan % 23 == 9 else round(float(random.lognormal(8, 1)), 2),
            ]
            known = [None if i != 0 and random.random() < 0.08 else value for i, value in enumerate(values)]
            rows.append((f"{loan:04}", day, *known, opened))
    order = random.permutation(len(rows))
    names = ("loan", "month", "limit", "balance", "payment", "days_past_due", "inflow", "opened")
    types = (pa.string(), pa.date32(), *[pa.float64()] * 3, pa.int64(), pa.float64(), pa.date32())
    columns = [pa.array([rows[i][k] for i in order], kind) for k, kind in enumerate(types)]
    return pa.table(dict(zip(names, columns, strict=True)))
