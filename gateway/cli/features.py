"""`chaotian features`: credit features of a monthly ledger, computed where the data are."""

from __future__ import annotations

import calendar
import datetime
import re
import time
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import HomeOption, JsonOption, make_app, print_fields, print_json, print_table, warn
from gateway.cli.data import PasswordFile, TableOption, make_source, open_book, read_schema

app = make_app("Compute credit features from a monthly ledger.")


@app.command("list")
def list_features(as_json: JsonOption = False) -> None:
    """List the features by family, with the columns each is computed from."""
    features = [feature.document() for feature in _catalogue().FEATURES.values()]
    if as_json:
        print_json({"features": features})
        return
    rows = [(f["family"], f["name"], f["window"], ", ".join(f["needs"]) or "-", f["summary"]) for f in features]
    print_table(("family", "feature", "window", "computed from", "what"), rows)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a feature.")], as_json: JsonOption = False
) -> None:
    """Show a feature: formula, window, unit, and when it is missing."""
    document = _catalogue().find(name).document()
    if as_json:
        print_json(document)
    else:
        print_fields({**document, "needs": ", ".join(document["needs"]) or "-"})


@app.command("compute")
def compute(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER",
            help="Data set with one row for each loan and month; or with --schema a Parquet or DuckDB file or "
            "postgresql://user@host/database, where the features are then computed.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Data set to register the features as.", metavar="NAME")],
    at: Annotated[str, typer.Option("--at", help="Month T, as 2024-12; the ledger's last if left out.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="STANDARD=COLUMN where the ledger has another name for one.", metavar="S=C"),
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="A feature; all that can be computed if left out.")
    ] = None,
    join: Annotated[
        str,
        typer.Option("--with", help="Data set whose columns are joined by the identifier, such as the outcome."),
    ] = "",
    schema_file: Annotated[
        Path | None,
        typer.Option("--schema", help="TOML schema of a LEDGER that is no data set of this node.", metavar="FILE"),
    ] = None,
    table: TableOption = "",
    password_file: PasswordFile = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute features of the loans that have a row in month T, and register them as the data set --out."""
    catalogue, book = _catalogue(), open_book(home)
    names = _pairs(column or [])
    source = None if schema_file else book.get(ledger)
    schema = read_schema(schema_file) if schema_file else book.get(ledger).schema
    other = book.get(join) if join else None
    columns = catalogue.standard_columns(schema, names)
    plan = catalogue.plan(list(columns), feature or [])
    if not at and source is None:
        raise ChaotianError("USAGE", "--at is needed for a ledger that is no data set", hint="Give --at 2024-12.")
    last = _month(at) if at or source is None else book.last_period(source)
    day = last.replace(day=calendar.monthrange(last.year, last.month)[1])
    meaning = catalogue.outcome_schema(schema, columns, plan.features, day.isoformat())

    def features_of(table: Any, *, checked: bool) -> Any:
        missing = [of for of in columns.values() if of not in table.columns]
        if missing:
            raise ChaotianError("DATA_COLUMN", f"the ledger has no column {missing[0]}")
        standard = table.select(**{name: table[of] for name, of in columns.items()})
        if not checked:
            catalogue.check_rows(standard)
        return catalogue.compute(standard, plan.features, last).rename({schema.id: "loan"})

    if source is None:
        if other is not None:
            raise ChaotianError("USAGE", "--with joins data sets: LEDGER must be one", hint="Leave --schema out.")
        given = make_source(ledger, table, "", password_file)
        remote = replace(given, compute=lambda rows: features_of(rows, checked=False))
        made = book.add(out, remote, meaning, now=int(time.time()))
    else:
        joined = catalogue.joined_schema(meaning, other.schema) if other else meaning

        def make(stored: Any) -> Any:
            features = features_of(stored(source.snapshot, schema), checked=True)
            if other is None:
                return features
            extra = stored(other.snapshot, other.schema).rename({schema.id: other.schema.id})
            return features.inner_join(extra, schema.id)

        text = f"features of {source.name} {source.snapshot[:12]}, {last:%Y-%m}"
        text += f", with {other.name} {other.snapshot[:12]}" if other else ""
        made = book.derive(out, joined, make, text, now=int(time.time()))
    if as_json:
        computed = [item.name for item in plan.features]
        about = {"month": f"{last:%Y-%m}", "features": computed, "left_out": dict(plan.left_out)}
        print_json({**made.document(), "version": book.versions(out)[0].name, **about})
        return
    for lacks in dict.fromkeys(plan.left_out.values()):
        left_out = [name for name, lacking in plan.left_out.items() if lacking == lacks]
        warn(f"the ledger has no column {lacks}, so these are left out: {', '.join(left_out)}")
    if other is not None and made.rows < other.rows:
        warn(f"{other.rows - made.rows} of {other.rows} rows of {other.name} have no loan with a row in {last:%Y-%m}")
    typer.echo(
        f"{book.versions(out)[0].name}: {made.rows} rows, {len(plan.features)} features of {last:%Y-%m}, "
        f"snapshot {made.snapshot[:12]}"
    )


def _catalogue() -> Any:
    """Return the bank role's module of features, found through its entry point; CONFIG where it is not installed."""
    for entry in entry_points(group="chaotian.roles", name="bank"):
        return import_module(entry.module.rpartition(".")[0] + ".features.catalogue")
    raise ChaotianError("CONFIG", "the bank role is not installed", hint="Run `make setup`.")


def _pairs(texts: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not equals or not name or not column or name in out:
            raise ChaotianError("USAGE", "--column is STANDARD=COLUMN, once for each standard name")
        out[name] = column
    return out


def _month(text: str) -> datetime.date:
    found = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if not found or found[1] == "0000":
        raise ChaotianError("USAGE", "--at is a month, as 2024-12")
    return datetime.date(int(found[1]), int(found[2]), 1)
