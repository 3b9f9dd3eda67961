"""Credit features of a ledger: planned against its schema, computed where its rows lie, kept or handed out.

What the features are is the bank role's business (`parties/bank/features`), found through its entry point.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from federation.errors import ChaotianError
from gateway.datasets.book import Dataset, DatasetBook
from gateway.datasets.schema import Schema
from gateway.datasets.sources import Source
from gateway.datasets.values import compute_rows

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Computed:
    """Features that were kept as a dataset.

    Args:
        dataset: the outcome.
        month: first day of the month T they speak of.
        features: names of what was computed.
        left_out: the others, each with the column it misses.
        lost: rows of the joined dataset that have no loan with a row in month T.
    """

    dataset: Dataset
    month: datetime.date
    features: tuple[str, ...]
    left_out: Mapping[str, str]
    lost: int = 0


def catalogue() -> Any:
    """Return the bank role's module of features; CONFIG where it is not installed."""
    for entry in entry_points(group="chaotian.roles", name="bank"):
        return import_module(entry.module.rpartition(".")[0] + ".features.catalogue")
    raise ChaotianError("CONFIG", "the bank role is not installed", hint="Run `make setup`.")


def parse_month(text: str) -> datetime.date:
    """Return the first day of a month written as 2024-12; USAGE for anything else."""
    found = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if not found or found[1] == "0000":
        raise ChaotianError("USAGE", "the month of the features is written as 2024-12")
    return datetime.date(int(found[1]), int(found[2]), 1)


def keep_features(
    book: DatasetBook,
    ledger: str | Source,
    out: str,
    *,
    now: int,
    schema: Schema | None = None,
    at: str = "",
    columns: Mapping[str, str] | None = None,
    features: Sequence[str] = (),
    join: str = "",
) -> Computed:
    """Compute features of the loans that have a row in month T, and point the dataset `out` to them.

    Args:
        ledger: a dataset's name; or a source whose rows are computed where they lie, with its `schema`.
        at: month T as 2024-12; the ledger's last where left out and the ledger is a dataset.
        columns: the ledger's column for each standard name that differs from it.
        features: names; all that can be computed where empty.
        join: dataset whose columns are put beside the features by the identifier.

    Raises:
        ChaotianError: USAGE, NOT_FOUND, DATA_*.
    """
    known = catalogue()
    dataset = book.get(ledger) if isinstance(ledger, str) else None
    meaning = dataset.schema if dataset else schema
    if meaning is None:
        raise ChaotianError("USAGE", "a ledger that is no dataset needs a schema")
    other = book.get(join) if join else None
    standard = known.standard_columns(meaning, dict(columns or {}))
    plan = known.plan(list(standard), list(features))
    if not at and dataset is None:
        raise ChaotianError("USAGE", "--at is needed for a ledger that is no dataset", hint="Give --at 2024-12.")
    month = parse_month(at) if at or dataset is None else book.last_period(dataset)
    day = month.replace(day=calendar.monthrange(month.year, month.month)[1])
    outcome = known.outcome_schema(meaning, standard, plan.features, day.isoformat())
    make = _maker(known, meaning, standard, plan.features, month)
    if dataset is None:
        if other is not None:
            raise ChaotianError("USAGE", "only a ledger that is a dataset can be joined", hint="Add the ledger first.")
        assert isinstance(ledger, Source)
        made = book.add(out, replace(ledger, compute=lambda rows: make(rows, False)), outcome, now=now)
    else:
        joined = known.joined_schema(outcome, other.schema) if other else outcome

        def rows(stored: Any) -> Any:
            computed = make(stored(dataset.snapshot, meaning), True)
            if other is None:
                return computed
            extra = stored(other.snapshot, other.schema).rename({meaning.id: other.schema.id})
            return computed.inner_join(extra, meaning.id)

        text = f"features of {dataset.name} {dataset.snapshot[:12]}, {month:%Y-%m}"
        text += f", with {other.name} {other.snapshot[:12]}" if other else ""
        made = book.derive(out, joined, rows, text, now=now)
    names = tuple(feature.name for feature in plan.features)
    lost = max(other.rows - made.rows, 0) if other else 0
    return Computed(made, month, names, dict(plan.left_out), lost)


def features_of(
    ledger: Source,
    schema: Schema,
    *,
    at: str = "",
    columns: Mapping[str, str] | None = None,
    features: Sequence[str] = (),
) -> DataFrame:
    """Return the features of a ledger that is checked against `schema` and not kept: identifier, one column each.

    Raises:
        ChaotianError: as `keep_features`.
    """
    known = catalogue()
    standard = known.standard_columns(schema, dict(columns or {}))
    plan = known.plan(list(standard), list(features))
    make = _maker(known, schema, standard, plan.features, parse_month(at) if at else None)
    names = [schema.id, *(feature.name for feature in plan.features)]
    return compute_rows(ledger, schema, lambda rows: make(rows, True), names)


def _maker(
    known: Any, schema: Schema, standard: Mapping[str, str], features: Sequence[Any], month: datetime.date | None
) -> Callable[[Any, bool], Any]:
    """Return the function from the ledger's Ibis table (and whether its rows were checked) to that of the features."""

    def make(table: Any, checked: bool) -> Any:
        missing = [of for of in standard.values() if of not in table.columns]
        if missing:
            raise ChaotianError("DATA_COLUMN", f"the ledger has no column {missing[0]}")
        renamed = table.select(**{name: table[of] for name, of in standard.items()})
        if not checked:
            known.check_rows(renamed)
        return known.compute(renamed, features, month).rename({schema.id: "loan"})

    return make
