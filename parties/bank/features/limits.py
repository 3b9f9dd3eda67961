"""Limit: how much credit the bank has granted, and whether that has changed."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, latest, ratio


@feature("limit")
def limit(ledger: Any) -> Any:
    """Credit limit at the end of the last month.

    Formula: limit(T)
    Window: the last month
    Unit: the ledger's currency
    Missing: where the last month's is
    """
    return latest(ledger, "limit")


@feature("limit")
def limit_change_6m(ledger: Any) -> Any:
    """Change of the credit limit within six months.

    Formula: limit(T) / limit(T-5) - 1
    Window: 6 months
    Unit: share; 0.2 = raised by a fifth
    Missing: where the first month of the window has no row, or no positive limit
    """
    return ratio(latest(ledger, "limit"), ledger["limit"].max(where=ledger["age"] == 5)) - 1.0
