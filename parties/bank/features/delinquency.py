"""Delinquency: how late, how often."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, latest, within


def _months_late(ledger: Any, months: int, days: int) -> Any:
    """Return in how many of the last months the loan was at least `days` past due; NULL where none is known."""
    import ibis

    known = ledger["days_past_due"].count(where=within(ledger, months))
    late = ledger["days_past_due"].count(where=within(ledger, months) & (ledger["days_past_due"] >= days))
    return (known > 0).ifelse(late.cast("float64"), ibis.null("float64"))


@feature("days_past_due")
def days_past_due(ledger: Any) -> Any:
    """Days past due at the end of the last month.

    Formula: days_past_due(T)
    Window: the last month
    Unit: days
    Missing: where the last month's is
    """
    return latest(ledger, "days_past_due")


@feature("days_past_due")
def days_past_due_worst_6m(ledger: Any) -> Any:
    """Most days past due at the end of any of six months.

    Formula: max over t of days_past_due(t)
    Window: 6 months
    Unit: days
    Missing: where all months are
    """
    return ledger["days_past_due"].max(where=within(ledger, 6))


@feature("days_past_due")
def days_past_due_worst_12m(ledger: Any) -> Any:
    """Most days past due at the end of any of twelve months.

    Formula: max over t of days_past_due(t)
    Window: 12 months
    Unit: days
    Missing: where all months are
    """
    return ledger["days_past_due"].max(where=within(ledger, 12))


@feature("days_past_due")
def overdue_months_3m(ledger: Any) -> Any:
    """Months that ended past due, of three.

    Formula: number of t with days_past_due(t) >= 1
    Window: 3 months
    Unit: months
    Missing: where days past due are missing in all months
    """
    return _months_late(ledger, 3, 1)


@feature("days_past_due")
def overdue_months_6m(ledger: Any) -> Any:
    """Months that ended past due, of six.

    Formula: number of t with days_past_due(t) >= 1
    Window: 6 months
    Unit: months
    Missing: where days past due are missing in all months
    """
    return _months_late(ledger, 6, 1)


@feature("days_past_due")
def overdue_30_months_6m(ledger: Any) -> Any:
    """Months that ended 30 or more days past due, of six.

    Formula: number of t with days_past_due(t) >= 30
    Window: 6 months
    Unit: months
    Missing: where days past due are missing in all months
    """
    return _months_late(ledger, 6, 30)


@feature("days_past_due")
def overdue_60_months_6m(ledger: Any) -> Any:
    """Months that ended 60 or more days past due, of six.

    Formula: number of t with days_past_due(t) >= 60
    Window: 6 months
    Unit: months
    Missing: where days past due are missing in all months
    """
    return _months_late(ledger, 6, 60)
