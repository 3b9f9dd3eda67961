"""The public file *Default of Credit Card Clients* (UCI 350) as a monthly ledger.

Yeh, I-C. (2009), UCI Machine Learning Repository, https://doi.org/10.24432/C55S3H, CC BY 4.0. One row for each card
holder, April to September 2005, in New Taiwan dollars.
"""

from __future__ import annotations

import datetime
from typing import Any

from federation.errors import ChaotianError

OUTCOME = "default.payment.next.month"
DAYS_PER_STATUS = 30
# The newest month first, as in the file, whose first status is called PAY_0.
MONTHS = tuple(
    (datetime.date(2005, 9 - back, 1), f"PAY_{back + 1 if back else 0}", f"BILL_AMT{back + 1}", f"PAY_AMT{back + 1}")
    for back in range(6)
)


def ledger(table: Any) -> Any:
    """Return the file as a ledger: six rows for each card holder.

    `balance` is the month's bill, `limit` the one limit the file gives. `payment` is what was paid in the month, and
    also `inflow`: payments are all that flows into a card account. A status k >= 1 is a payment k months late, so
    `days_past_due` is 30 · k; 0 (minimum paid), -1 (paid in full) and -2 (no use) are 0 days. The file has no day of
    opening, so there is no `opened`.

    Args:
        table: an Ibis table with the file's columns.

    Raises:
        ChaotianError: DATA_COLUMN naming what is missing.
    """
    import ibis

    for name in ["ID", "LIMIT_BAL", *(column for _, *columns in MONTHS for column in columns)]:
        if name not in table.columns:
            raise ChaotianError("DATA_COLUMN", f"the file has no column {name}: it is not UCI 350 in its raw form")
    return ibis.union(
        *(
            table.select(
                loan=table["ID"].cast("string"),
                month=ibis.literal(month),
                limit=table["LIMIT_BAL"].cast("float64"),
                balance=table[bill].cast("float64"),
                payment=table[paid].cast("float64"),
                days_past_due=(DAYS_PER_STATUS * table[status].cast("float64")).clip(lower=0.0),
                inflow=table[paid].cast("float64"),
            )
            for month, status, bill, paid in MONTHS
        ),
        distinct=False,
    )


def outcomes(table: Any) -> Any:
    """Return `loan` and `bad` (1: default in October 2005) of the file."""
    return table.select(loan=table["ID"].cast("string"), bad=table[OUTCOME].cast("int64"))
