"""`chaotian data`: this owner's tables. Nothing these verbs read or print leaves the machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.errors import ChaotianError
from gateway.cli.common import (
    HomeOption,
    JsonOption,
    clean,
    make_app,
    print_fields,
    print_json,
    print_table,
    resolve_home,
    show_time,
    warn,
)

if TYPE_CHECKING:
    from gateway.datasets.book import DatasetBook
    from gateway.datasets.faults import Progress
    from gateway.datasets.schema import Schema
    from gateway.datasets.sources import Source as DataSource

app = make_app("Describe and check the data sets of this node.")

SchemaFile = Annotated[Path, typer.Option("--schema", help="TOML file that says what the columns mean.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="CSV (UTF-8 or GB18030, also .gz), XLSX, Parquet or DuckDB file, or postgresql://user@host/database.",
    ),
]
TableOption = Annotated[str, typer.Option("--table", help="Table of a database, as loans or lending.loans.")]
SheetOption = Annotated[str, typer.Option("--sheet", help="Sheet of a workbook that has several.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="File (mode 0600) with the password of a database; or set PGPASSWORD or PGPASSFILE.",
        metavar="FILE",
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What jobs and grants call it.")]


@app.command("add")
def add(
    name: NameArgument,
    source: Source,
    schema: SchemaFile,
    table: TableOption = "",
    sheet: SheetOption = "",
    password_file: PasswordFile = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a file or a table into a new immutable snapshot and point NAME to it."""
    given, meaning = make_source(source, table, sheet, password_file), read_schema(schema)
    book = open_book(home)
    with show_progress() as progress:
        dataset = book.add(name, given, meaning, now=int(time.time()), progress=progress)
    version = book.versions(name)[0]
    if as_json:
        print_json({**dataset.document(), "version": version.name})
    else:
        known = f"as of {dataset.as_of or 'unknown'}"
        typer.echo(f"{version.name}: {dataset.rows} rows, snapshot {dataset.snapshot[:12]}, {known}")


@app.command("check")
def check(
    source: Source,
    schema: SchemaFile,
    table: TableOption = "",
    sheet: SheetOption = "",
    password_file: PasswordFile = None,
    as_json: JsonOption = False,
) -> None:
    """Check a file or a table against a schema without keeping it; name every kind of fault by row and column."""
    from gateway.datasets.book import DatasetBook

    with show_progress() as progress:
        report = DatasetBook.check(make_source(source, table, sheet, password_file), read_schema(schema), progress)
    if as_json:
        faults = [fault.document() for fault in report.faults]
        print_json({"source": report.source, "rows": report.rows, "faults": faults, "warnings": list(report.warnings)})
    else:
        for warning in report.warnings:
            warn(f"{report.source}: {warning}")
        if len(report.faults) > 1:
            rows = [(f.row, f.column, f.what, f.count, f.code) for f in report.faults]
            print_table(("first row", "column", "fault", "rows", "code"), rows)
    report.refuse()
    if not as_json:
        typer.echo(f"{report.source}: {report.rows} rows fit the schema")


@app.command("list")
def list_datasets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the datasets with their current snapshots."""
    found = open_book(home).all()
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
    """Show a dataset: its columns with type, unit, domain, grade and what may leave, and all its snapshots."""
    book = open_book(home)
    dataset, columns = book.get(name), book.summary(name)
    versions, schema = book.versions(dataset.name), dataset.schema
    if as_json:
        document = dataset.document()
        kept = [{**vars(version), "current": version.snapshot == dataset.snapshot} for version in versions]
        about = {"id": schema.id, "label": schema.label, "key": schema.key, "period": schema.period}
        print_json({**document, "columns": columns, **about, "snapshots": kept})
        return
    print_fields(
        {
            "dataset": name,
            "rows": dataset.rows,
            "identifier": schema.id + ("" if schema.key == "none" else f" ({schema.key})"),
            **({"period": schema.period} if schema.period else {}),
            "as of": dataset.as_of or "-",
            "snapshot": dataset.snapshot,
            "schema": dataset.schema_digest,
        }
    )
    rows = []
    for column, meaning in zip(columns, schema.columns, strict=True):
        kind = f"{column['type']} (label)" if column["name"] == schema.label else column["type"]
        if meaning.key != "none":
            kind = f"{kind} ({meaning.key})"
        counts = (column["grade"], column["absent"], column["different"])
        rows.append((column["name"], kind, column["unit"], meaning.domain, column["disclosure"], *counts))
    typer.echo("")
    print_table(("column", "type", "unit", "domain", "may leave as", "grade", "missing", "different"), rows)
    typer.echo("")
    print_table(
        ("snapshot", "id", "rows", "as of", "source", "added"),
        [(v.name, v.snapshot[:12], v.rows, v.as_of or "-", v.source, show_time(v.added)) for v in versions],
    )


def open_book(home: Path | None) -> DatasetBook:
    """Return the datasets of a home; its database is brought up to date first."""
    from gateway.datasets.book import DatasetBook
    from gateway.identity.home import Home as NodeHome

    opened = NodeHome.node(resolve_home(home))
    opened.database.upgrade()
    return DatasetBook(opened.database, opened.path)


def read_schema(path: Path) -> Schema:
    """Return the schema in a TOML file."""
    from gateway.datasets.schema import LIMIT, parse_schema
    from gateway.storage.files import read_limited

    return parse_schema(read_limited(path, LIMIT))


def make_source(where: str, table: str, sheet: str, password_file: Path | None) -> DataSource:
    """Return the source that the options of a verb name."""
    from gateway.datasets.sources import Source as DataSource
    from gateway.storage.files import read_secret_file

    password = ""
    if password_file is not None:
        try:
            password = read_secret_file(password_file, 4096).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ChaotianError("CONFIG", f"{password_file} is not UTF-8 text") from None
    return DataSource(where, table, sheet, password)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Give a function that shows what is being done on stderr, where that is a terminal."""
    from gateway.datasets.faults import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        # the names of columns come from the file: no control characters, no markup
        yield lambda share, what: bar.update(task, completed=share, description=escape(clean(what)))
