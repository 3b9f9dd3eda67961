"""The monthly ledger that features are computed from, and the decorator that makes a function a feature.

A ledger has one row for each loan and month. Columns, by their standard names:

| column | type | what |
|---|---|---|
| `loan` | text | identifies the loan, or the customer |
| `month` | date | first day of the month the row speaks of |
| `limit` | number | credit limit at the end of the month |
| `balance` | number | balance owed (the bill) at the end of the month |
| `payment` | number | paid by the borrower during the month |
| `days_past_due` | number | days past due at the end of the month, 0 where nothing is |
| `inflow` | number | money that came into the borrower's account during the month |
| `opened` | date | day the relation began |

`loan` and `month` must be there; a feature whose other columns are not there is left out, by name. Amounts are in one
currency. Windows are counted back from the last month T: *n months* are T-n+1 … T.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError

KEYS = ("loan", "month")
MEASURES = ("limit", "balance", "payment", "days_past_due", "inflow")
COLUMNS = (*KEYS, *MEASURES, "opened")


@dataclass(frozen=True)
class Feature:
    """One feature.

    Args:
        name: of the column it makes.
        family: the module it stands in.
        needs: columns of the ledger it is computed from, besides loan and month.
        expression: takes a prepared ledger (see `prepare`), returns an aggregate over the rows of one loan.
    """

    name: str
    family: str
    needs: tuple[str, ...]
    expression: Callable[[Any], Any]

    def part(self, title: str) -> str:
        """Return what the docstring says after `title:` (Formula, Window, Unit, Missing); empty where it does not."""
        text = inspect.getdoc(self.expression) or ""
        found = re.search(rf"^{title}: (.*?)(?=^[A-Z][a-z]+: |\Z)", text, re.M | re.S)
        return " ".join(found[1].split()) if found else ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.expression) or "").partition("\n")[0]

    def document(self) -> dict[str, Any]:
        """Return the feature as JSON."""
        parts = {title.lower(): self.part(title) for title in ("Formula", "Window", "Unit", "Missing")}
        return {"name": self.name, "family": self.family, "summary": self.summary, **parts, "needs": list(self.needs)}


FEATURES: dict[str, Feature] = {}


def feature(*needs: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Make a function a feature of its own name, computed from the columns `needs`."""

    def register(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        name = function.__name__
        if name in FEATURES or not set(needs) <= set(COLUMNS):
            raise ValueError(f"feature {name} is there twice, or needs an unknown column")
        FEATURES[name] = Feature(name, function.__module__.rpartition(".")[2], needs, function)
        return function

    return register


def prepare(table: Any, last: Any) -> Any:
    """Return a ledger with the columns that features are written in, up to the last month.

    Numbers become float64, and these are added:
    `age`: months before T, 0 in the last month;
    `previous_balance`: balance of the calendar month before, NULL where that month has no row.

    Args:
        table: an Ibis table with standard names, of any backend.
        last: the month T, as its index (year · 12 + month - 1).

    Raises:
        ChaotianError: DATA_COLUMN where loan or month is missing, DATA_TYPE for a column of another type.
    """
    import ibis

    for name in KEYS:
        if name not in table.columns:
            raise ChaotianError("DATA_COLUMN", f"the ledger has no column {name}")
    for name in table.columns:
        kind = table[name].type()
        days, number = kind.is_date() or kind.is_timestamp(), kind.is_numeric()
        if (name in MEASURES and not number) or (name in ("month", "opened") and not days):
            wanted = "numbers" if name in MEASURES else "days"
            raise ChaotianError("DATA_TYPE", f"column {name} of the ledger must hold {wanted}")
    index = month_index(table["month"])
    picked = table.select(
        "loan",
        index=index,
        age=(last - index).cast("int64"),
        **{name: table[name].cast("float64") for name in MEASURES if name in table.columns},
        **({"opened": table["opened"].cast("date")} if "opened" in table.columns else {}),
    )
    picked = picked.filter(picked["age"] >= 0)
    if "balance" in picked.columns:
        by_loan = ibis.window(group_by=picked["loan"], order_by=picked["index"])
        before = picked["index"].lag().over(by_loan) == picked["index"] - 1
        picked = picked.mutate(
            previous_balance=before.ifelse(picked["balance"].lag().over(by_loan), ibis.null("float64"))
        )
    return picked


def month_index(day: Any) -> Any:
    """Return year · 12 + month - 1 of a day, a whole number that grows by one each month."""
    return day.year().cast("int64") * 12 + day.month().cast("int64") - 1


def within(ledger: Any, months: int) -> Any:
    """Return whether a row is of the last `months` months."""
    return ledger["age"] < months


def latest(ledger: Any, column: str) -> Any:
    """Return the value of a column in the last month: there is one row, so its maximum is it."""
    return ledger[column].max(where=ledger["age"] == 0)


def ratio(above: Any, below: Any) -> Any:
    """Return above / below, NULL where below is not positive: every backend then does the same."""
    import ibis

    return above / (below > 0).ifelse(below, ibis.null("float64"))
