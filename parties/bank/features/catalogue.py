"""All features by name, and their computation over a ledger in one pass, wherever it lives."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from gateway.datasets.schema import ColumnSchema, Schema
from parties.bank.features import balance, delinquency, inflow, limits, payment, relation, utilisation
from parties.bank.features.ledger import COLUMNS, FEATURES, MEASURES, Feature, month_index, prepare

FAMILIES = (utilisation, delinquency, payment, balance, inflow, limits, relation)  # importing them registers features


@dataclass(frozen=True)
class Plan:
    """What will be computed of a ledger.

    Args:
        features: those whose columns are there.
        left_out: the others, each with the column it misses.
    """

    features: tuple[Feature, ...]
    left_out: Mapping[str, str]


def find(name: str) -> Feature:
    """Return a feature; NOT_FOUND where there is none."""
    if name not in FEATURES:
        raise ChaotianError("NOT_FOUND", f"there is no feature {name[:64]}", hint="See `chaotian features list`.")
    return FEATURES[name]


def plan(columns: Sequence[str], wanted: Sequence[str] = ()) -> Plan:
    """Return what can be computed from a ledger with these columns.

    Args:
        columns: standard names that the ledger has.
        wanted: names of features; all where empty.

    Raises:
        ChaotianError: NOT_FOUND for an unknown feature; DATA_COLUMN where a wanted one cannot be computed, or none can.
    """
    chosen = [find(name) for name in dict.fromkeys(wanted)] or list(FEATURES.values())
    lacking = {f.name: next(n for n in f.needs if n not in columns) for f in chosen if not set(f.needs) <= set(columns)}
    if wanted and lacking:
        name, column = next(iter(lacking.items()))
        raise ChaotianError("DATA_COLUMN", f"feature {name} needs the column {column}, which the ledger does not have")
    return Plan(tuple(f for f in chosen if f.name not in lacking), lacking)


def compute(table: Any, features: Sequence[Feature], last: datetime.date | None = None) -> Any:
    """Return an Ibis table of `loan` and one float64 column for each feature: loans that have a row in month T.

    Args:
        table: the ledger, with standard names, of any Ibis backend.
        last: a day of the month T; the ledger's last month where left out.

    Raises:
        ChaotianError: DATA_COLUMN or DATA_TYPE for a table that is no ledger.
    """
    import ibis

    if last is None:
        if "month" not in table.columns:
            raise ChaotianError("DATA_COLUMN", "the ledger has no column month")
        newest = table.aggregate(last=table["month"].max()).mutate(
            last=lambda t: t["last"].year().cast("int64") * 12 + t["last"].month().cast("int64") - 1
        )
        prepared = prepare(table, newest["last"].as_scalar())
    else:
        prepared = prepare(table, ibis.literal(last.year * 12 + last.month - 1, "int64"))
    values = {f.name: f.expression(prepared).cast("float64") for f in features}
    # A loan that is closed by T has nothing to be scored on.
    there = (prepared["age"] == 0).any()
    grouped = prepared.group_by("loan").aggregate(**values, _there=there)
    return grouped.filter(grouped["_there"]).drop("_there")


def standard_columns(schema: Schema, names: Mapping[str, str]) -> dict[str, str]:
    """Return the ledger's column for each standard name that it has.

    Args:
        schema: of the ledger.
        names: the ledger's column for each standard name that differs from it.

    Raises:
        ChaotianError: USAGE for an unknown standard name, DATA_COLUMN, DATA_TYPE, BAD_DOCUMENT where it is no ledger.
    """
    if not schema.period:
        raise ChaotianError(
            "BAD_DOCUMENT", "the dataset is no ledger", hint='Name its month column in the schema: period = "month".'
        )
    unknown = sorted(set(names) - set(COLUMNS[2:]))
    if unknown:
        raise ChaotianError("USAGE", f"{unknown[0][:64]} is none of {', '.join(COLUMNS[2:])}")
    types = {column.name: column.type for column in schema.columns}
    out = {"loan": schema.id, "month": schema.period}
    for name in COLUMNS[2:]:
        source = names.get(name, name)
        if source in types:
            wanted = ("numeric", "integer") if name in MEASURES else ("date", "month")
            if types[source] not in wanted:
                raise ChaotianError("DATA_TYPE", f"column {source} is {types[source]}, {name} must be {wanted[0]}")
            out[name] = source
        elif name in names:
            raise ChaotianError("DATA_COLUMN", f"the ledger has no column {source[:64]}")
    return out


def check_rows(table: Any) -> None:
    """Check a ledger that lies in a database, where nobody has checked it, for two rows of one loan and month.

    Raises:
        ChaotianError: DATA_DUPLICATE, DATA_MISSING.
    """
    keys = table.select("loan", index=month_index(table["month"]))
    doubled = keys.group_by(["loan", "index"]).aggregate(rows=keys.count()).filter(lambda t: t["rows"] > 1).count()
    missing = keys.filter(keys["loan"].isnull() | keys["index"].isnull()).count()
    if missing.execute():
        raise ChaotianError("DATA_MISSING", "rows of the ledger have no loan or no month")
    if doubled.execute():
        raise ChaotianError("DATA_DUPLICATE", "a loan of the ledger has several rows for one month")


def outcome_schema(schema: Schema, sources: Mapping[str, str], features: Sequence[Feature], day: str) -> Schema:
    """Return the schema of the features: each as strict as the strictest column it is computed from.

    Args:
        schema: of the ledger.
        sources: the ledger's column by standard name.
        day: the day the features speak of.
    """
    columns = []
    for item in features:
        of = [schema.columns[schema.index(sources[name])] for name in ("month", *item.needs)]
        disclosure = "aggregate" if all(column.disclosure == "aggregate" for column in of) else "never"
        grade = max(column.grade for column in of)
        unit = item.part("Unit").partition(";")[0].partition(",")[0]
        columns.append(ColumnSchema(item.name, "numeric", unit, disclosure, grade, missing=True))
    return Schema(schema.id, "", day, tuple(columns), key=schema.key, length=schema.length)


def joined_schema(features: Schema, other: Schema) -> Schema:
    """Return the schema of features with the columns of another dataset beside them.

    Raises:
        ChaotianError: DATA_DUPLICATE where the other has several rows for one identifier, DATA_COLUMN for a name that
            both have.
    """
    if other.period:
        raise ChaotianError("DATA_DUPLICATE", "the dataset to join is a ledger: it has several rows for one identifier")
    both = {column.name for column in features.columns} & {column.name for column in other.columns}
    if both or features.id in {column.name for column in other.columns}:
        name = min(both) if both else features.id
        raise ChaotianError("DATA_COLUMN", f"both datasets have a column {name}")
    return dataclasses.replace(features, label=other.label, columns=features.columns + other.columns)
