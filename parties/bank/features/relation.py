"""Relation: how long the borrower has been known."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, month_index


@feature("opened")
def relation_months(ledger: Any) -> Any:
    """Age of the relation at the last month.

    Formula: months from the month of opening to T
    Window: all of the ledger; where rows give several days, the earliest
    Unit: months
    Missing: where no row has a day of opening
    """
    last = (ledger["index"] + ledger["age"]).max()
    return (last - month_index(ledger["opened"]).min()).cast("float64")


@feature()
def months_observed(ledger: Any) -> Any:
    """Months of the ledger that have a row for this loan, up to the last month.

    Formula: number of t with a row
    Window: all of the ledger
    Unit: months
    Missing: never
    """
    return ledger["age"].count().cast("float64")
