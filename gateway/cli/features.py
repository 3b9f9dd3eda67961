"""`chaotian features`: credit features of a monthly ledger, computed where the data are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from federation.errors import ChaotianError
from gateway.cli.common import HomeOption, JsonOption, make_app, print_fields, print_json, print_table, warn
from gateway.cli.data import PasswordFile, TableOption, make_source, open_book, read_schema
from gateway.datasets.features import catalogue, keep_features

app = make_app("Compute credit features from a monthly ledger.")


@app.command("list")
def list_features(as_json: JsonOption = False) -> None:
    """List the features by family, with the columns each is computed from."""
    features = [feature.document() for feature in catalogue().FEATURES.values()]
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
    document = catalogue().find(name).document()
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
    book, schema = open_book(home), read_schema(schema_file) if schema_file else None
    made = keep_features(
        book,
        make_source(ledger, table, "", password_file) if schema else ledger,
        out,
        now=int(time.time()),
        schema=schema,
        at=at,
        columns=_pairs(column or []),
        features=feature or [],
        join=join,
    )
    dataset, version = made.dataset, book.versions(out)[0].name
    if as_json:
        about = {"month": f"{made.month:%Y-%m}", "features": list(made.features), "left_out": dict(made.left_out)}
        print_json({**dataset.document(), "version": version, **about})
        return
    for lacks in dict.fromkeys(made.left_out.values()):
        left_out = [name for name, lacking in made.left_out.items() if lacking == lacks]
        warn(f"the ledger has no column {lacks}, so these are left out: {', '.join(left_out)}")
    if made.lost:
        rows = made.lost + dataset.rows
        warn(f"{made.lost} of {rows} rows of {join} have no loan with a row in {made.month:%Y-%m}")
    typer.echo(
        f"{version}: {dataset.rows} rows, {len(made.features)} features of {made.month:%Y-%m}, "
        f"snapshot {dataset.snapshot[:12]}"
    )


def _pairs(texts: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not equals or not name or not column or name in out:
            raise ChaotianError("USAGE", "--column is STANDARD=COLUMN, once for each standard name")
        out[name] = column
    return out
