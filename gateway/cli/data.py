"""`chaotian data`: this owner's tables. Nothing these verbs read or print leaves the machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import (
    HomeOption,
    JsonOption,
    make_app,
    print_fields,
    print_json,
    print_table,
    resolve_home,
)

if TYPE_CHECKING:
    from gateway.datasets.book import DatasetBook
    from gateway.datasets.schema import Schema

app = make_app("Describe and check the data sets of this node.")

SchemaFile = Annotated[Path, typer.Option("--schema", help="TOML file that says what the columns mean.")]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="CSV (UTF-8 or GB18030), CSV.gz or Parquet.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What jobs and grants call it.")]


@app.command("add")
def add(
    name: NameArgument,
    source: Source,
    schema: SchemaFile,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a file into a new immutable snapshot and point NAME to it."""
    dataset = _book(home).add(name, source, _schema(schema), now=int(time.time()))
    if as_json:
        print_json(dataset.document())
    else:
        typer.echo(f"{name}: {dataset.rows} rows, snapshot {dataset.snapshot[:12]}, as of {dataset.as_of or 'unknown'}")


@app.command("check")
def check(source: Source, schema: SchemaFile) -> None:
    """Check a file against a schema without keeping it."""
    from gateway.datasets.book import DatasetBook

    rows = DatasetBook.check(source, _schema(schema))
    typer.echo(f"{source.name}: {rows} rows fit the schema")


@app.command("list")
def list_datasets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the datasets with their current snapshots."""
    found = _book(home).all()
    if as_json:
        print_json({"datasets": [dataset.document() for dataset in found]})
        return
    print_table(
        ("dataset", "rows", "columns", "as of", "snapshot", "schema", "source"),
        [
            (d.name, d.rows, len(d.schema.columns), d.as_of or "-", d.snapshot[:12], d.schema_digest[:12], d.source)
            for d in found
        ],
    )


@app.command("show")
def show(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a dataset's columns: type, unit, what may leave, missing and different values."""
    book = _book(home)
    dataset, columns = book.get(name), book.summary(name)
    if as_json:
        document = dataset.document()
        print_json({**document, "columns": columns, "id": dataset.schema.id, "label": dataset.schema.label})
        return
    print_fields(
        {
            "dataset": name,
            "rows": dataset.rows,
            "identifier": dataset.schema.id,
            "as of": dataset.as_of or "-",
            "snapshot": dataset.snapshot,
            "schema": dataset.schema_digest,
        }
    )
    rows = []
    for column in columns:
        kind = f"{column['type']} (label)" if column["name"] == dataset.schema.label else column["type"]
        counts = (column["grade"], column["absent"], column["different"])
        rows.append((column["name"], kind, column["unit"], column["disclosure"], *counts))
    print_table(("column", "type", "unit", "may leave as", "grade", "missing", "different"), rows)


def _book(home: Path | None) -> DatasetBook:
    from gateway.datasets.book import DatasetBook
    from gateway.identity.home import Home as NodeHome

    opened = NodeHome.node(resolve_home(home))
    opened.database.upgrade()
    return DatasetBook(opened.database, opened.path)


def _schema(path: Path) -> Schema:
    from gateway.datasets.schema import LIMIT, parse_schema
    from gateway.storage.files import read_limited

    return parse_schema(read_limited(path, LIMIT))
