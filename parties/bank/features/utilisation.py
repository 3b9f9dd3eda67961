"""Utilisation: how much of the limit is drawn."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, latest, ratio, within


@feature("balance", "limit")
def utilisation(ledger: Any) -> Any:
    """Share of the limit that is drawn at the end of the last month.

    Formula: balance(T) / limit(T)
    Window: the last month
    Unit: share, 1 = the whole limit; above 1 where it is overdrawn, below 0 for a credit balance
    Missing: where the limit is not positive
    """
    return ratio(latest(ledger, "balance"), latest(ledger, "limit"))


@feature("balance", "limit")
def utilisation_mean_3m(ledger: Any) -> Any:
    """Mean share of the limit that was drawn over three months.

    Formula: mean over t of balance(t) / limit(t), months without a positive limit left out
    Window: 3 months
    Unit: share, 1 = the whole limit
    Missing: where no month has a positive limit
    """
    return ratio(ledger["balance"], ledger["limit"]).mean(where=within(ledger, 3))


@feature("balance", "limit")
def utilisation_mean_6m(ledger: Any) -> Any:
    """Mean share of the limit that was drawn over six months.

    Formula: mean over t of balance(t) / limit(t), months without a positive limit left out
    Window: 6 months
    Unit: share, 1 = the whole limit
    Missing: where no month has a positive limit
    """
    return ratio(ledger["balance"], ledger["limit"]).mean(where=within(ledger, 6))


@feature("balance", "limit")
def utilisation_max_6m(ledger: Any) -> Any:
    """Highest share of the limit that was drawn in any of six months.

    Formula: max over t of balance(t) / limit(t), months without a positive limit left out
    Window: 6 months
    Unit: share, 1 = the whole limit
    Missing: where no month has a positive limit
    """
    return ratio(ledger["balance"], ledger["limit"]).max(where=within(ledger, 6))
