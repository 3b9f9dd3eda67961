"""Payment: how much of what was owed was paid the month after."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, latest, ratio, within


def _paid(ledger: Any, months: int) -> Any:
    """Return the sum of payments over the sum of the balances they were due for."""
    due = within(ledger, months) & (ledger["previous_balance"] > 0) & ledger["payment"].notnull()
    return ratio(ledger["payment"].sum(where=due), ledger["previous_balance"].sum(where=due))


@feature("payment", "balance")
def payment_ratio(ledger: Any) -> Any:
    """Share of the balance before the last month that was paid in it.

    Formula: payment(T) / balance(T-1)
    Window: the last month and the balance before it
    Unit: share, 1 = all of it; above 1 where more was paid
    Missing: where nothing was owed, or the month before has no row
    """
    return ratio(latest(ledger, "payment"), latest(ledger, "previous_balance"))


@feature("payment", "balance")
def payment_ratio_3m(ledger: Any) -> Any:
    """Share of the balances owed that was paid the month after, over three months.

    Formula: sum over t of payment(t) / sum over t of balance(t-1), over the t with balance(t-1) > 0
    Window: 3 months and the balances before each
    Unit: share, 1 = all of it
    Missing: where nothing was owed
    """
    return _paid(ledger, 3)


@feature("payment", "balance")
def payment_ratio_6m(ledger: Any) -> Any:
    """Share of the balances owed that was paid the month after, over six months.

    Formula: sum over t of payment(t) / sum over t of balance(t-1), over the t with balance(t-1) > 0
    Window: 6 months and the balances before each
    Unit: share, 1 = all of it
    Missing: where nothing was owed
    """
    return _paid(ledger, 6)
