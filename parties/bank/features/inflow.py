"""Inflow: how much money comes in, and how evenly."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, ratio, within


def _volatility(ledger: Any, months: int) -> Any:
    """Return the coefficient of variation of the inflow; NULL for fewer than three months."""
    import ibis

    used = within(ledger, months)
    mean, n = ledger["inflow"].mean(where=used), ledger["inflow"].count(where=used)
    return ratio(ledger["inflow"].std(where=used, how="sample"), (n >= 3).ifelse(mean, ibis.null("float64")))


@feature("inflow")
def inflow_mean_6m(ledger: Any) -> Any:
    """Mean inflow a month over six months.

    Formula: mean over t of inflow(t)
    Window: 6 months
    Unit: the ledger's currency
    Missing: where the inflow of all months is
    """
    return ledger["inflow"].mean(where=within(ledger, 6))


@feature("inflow")
def inflow_volatility_6m(ledger: Any) -> Any:
    """Coefficient of variation of the inflow over six months.

    Formula: standard deviation (n - 1) of inflow(t) / mean of inflow(t)
    Window: 6 months, of which three have an inflow
    Unit: none; 0 = the same every month
    Missing: where fewer than three months have an inflow, or their mean is not positive
    """
    return _volatility(ledger, 6)


@feature("inflow")
def inflow_volatility_12m(ledger: Any) -> Any:
    """Coefficient of variation of the inflow over twelve months.

    Formula: standard deviation (n - 1) of inflow(t) / mean of inflow(t)
    Window: 12 months, of which three have an inflow
    Unit: none; 0 = the same every month
    Missing: where fewer than three months have an inflow, or their mean is not positive
    """
    return _volatility(ledger, 12)
