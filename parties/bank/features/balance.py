"""Balance: where it is going."""

from __future__ import annotations

from typing import Any

from parties.bank.features.ledger import feature, within


def _trend(ledger: Any, months: int) -> Any:
    """Return the least-squares slope of the balance per month over the mean of its size."""
    import ibis

    used = within(ledger, months) & ledger["balance"].notnull()
    # Months are counted from the middle of the window: small squares, whose difference keeps its digits.
    x, y = (months - 1) / 2.0 - ledger["age"].cast("float64"), ledger["balance"]
    n, sx = used.sum().cast("float64"), x.sum(where=used)
    spread = (x * x).sum(where=used) - sx * sx / (n > 0).ifelse(n, ibis.null("float64"))
    slope = (x * y).sum(where=used) - sx * y.mean(where=used)
    size = y.abs().mean(where=used)
    safe = (n >= 3) & (size > 0)
    return safe.ifelse(slope / safe.ifelse(spread * size, ibis.null("float64")), ibis.null("float64"))


@feature("balance")
def balance_trend_3m(ledger: Any) -> Any:
    """Slope of the balance over three months, against its mean size.

    Formula: b / mean over t of |balance(t)|, where b is the least-squares slope of balance(t) on t
    Window: 3 months
    Unit: share of the mean balance a month; 0.1 = grows by a tenth a month
    Missing: where a month has no balance, or all are 0
    """
    return _trend(ledger, 3)


@feature("balance")
def balance_trend_6m(ledger: Any) -> Any:
    """Slope of the balance over six months, against its mean size.

    Formula: b / mean over t of |balance(t)|, where b is the least-squares slope of balance(t) on t
    Window: 6 months, of which three have a balance
    Unit: share of the mean balance a month; 0.1 = grows by a tenth a month
    Missing: where fewer than three months have a balance, or all are 0
    """
    return _trend(ledger, 6)
