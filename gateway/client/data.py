"""This owner's tables from Python: data frames in, data frames out. Nothing here leaves the machine.

Needs no running node: names and values lie in the home.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from federation.errors import ChaotianError
from gateway.client.connection import Connection
from gateway.client.documents import Document, read_schema
from gateway.client.progress import bar
from gateway.client.results import facts_html, table_html
from gateway.datasets.book import DatasetBook
from gateway.datasets.faults import Report
from gateway.datasets.features import Computed, catalogue, features_of, keep_features
from gateway.datasets.schema import Schema
from gateway.datasets.sources import Source

Rows = pd.DataFrame | Source | Path | str
"""A data frame; the path of a CSV, XLSX, Parquet or DuckDB file; or `postgresql://user@host/database`."""


class DatasetView:
    """A dataset with its schema and snapshots.

    Attributes:
        name, rows, snapshot, as_of: of the current snapshot (or of the one that was asked for).
        columns: a row for each column: type, unit, domain, disclosure, grade, missing and different values.
        snapshots: all snapshots the name has pointed to, the latest first.
        schema: what the columns mean.
    """

    def __init__(self, book: DatasetBook, name: str) -> None:
        dataset = book.get(name)
        self.name, self.rows, self.snapshot = name, dataset.rows, dataset.snapshot
        self.as_of, self.schema = dataset.as_of, dataset.schema
        summary = book.summary(name)
        rows = [
            {
                "column": column["name"],
                "type": column["type"],
                "unit": column["unit"],
                "domain": meaning.domain,
                "disclosure": column["disclosure"],
                "grade": column["grade"],
                "missing": column["absent"],
                "different": column["different"],
            }
            for column, meaning in zip(summary, dataset.schema.columns, strict=True)
        ]
        self.columns = pd.DataFrame(rows).set_index("column")
        versions = [(v.name, v.snapshot, v.rows, v.as_of, v.source, v.added) for v in book.versions(dataset.name)]
        table = pd.DataFrame(versions, columns=["name", "snapshot", "rows", "as_of", "source", "added"])
        self.snapshots = table.assign(added=pd.to_datetime(table["added"], unit="s", utc=True)).set_index("name")

    @property
    def features(self) -> list[dict[str, Any]]:
        """The columns that may enter totals, but for the label, as a job's `features` takes them.

        A category is there where the schema names its levels; in days and months a job counts.
        """
        out: list[dict[str, Any]] = []
        for column in self.schema.columns:
            if column.name == self.schema.label or column.disclosure != "aggregate":
                continue
            if column.type != "category":
                out.append({"name": column.name, "type": "numeric"})
            elif column.levels:
                out.append({"name": column.name, "type": "category", "levels": list(column.levels)})
        return out

    def __repr__(self) -> str:
        return f"<Dataset {self.name}: {self.rows} rows, {len(self.columns)} columns>"

    def _repr_html_(self) -> str:
        facts = {"dataset": self.name, "rows": f"{self.rows:,}", "identifier": self.schema.id}
        facts |= {"label": self.schema.label} if self.schema.label else {}
        facts |= {"as of": self.as_of or "-", "snapshot": self.snapshot[:12]}
        return facts_html(facts) + table_html(self.columns)


class CheckReport:
    """What a check found.

    Attributes:
        rows: number of rows.
        faults: a row for each kind of fault: first row, column, what, rows, code; empty where the rows fit.
        warnings: what the schema allows and still looks like a slip.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.rows, self.warnings = report.rows, list(report.warnings)
        found = [(f.row, f.column, f.what, f.count, f.code) for f in report.faults]
        self.faults = pd.DataFrame(found, columns=["first row", "column", "what", "rows", "code"])

    @property
    def ok(self) -> bool:
        """Whether the rows fit the schema."""
        return not len(self.faults)

    def refuse(self) -> None:
        """Raise the first fault as a `ChaotianError`; return where there is none."""
        self._report.refuse()

    def __repr__(self) -> str:
        return f"<CheckReport {self.rows} rows: {'they fit' if self.ok else f'{len(self.faults)} kinds of fault'}>"

    def _repr_html_(self) -> str:
        facts = {"rows": f"{self.rows:,}", "they fit": "yes" if self.ok else "no"}
        facts |= {"warning": "; ".join(self.warnings)} if self.warnings else {}
        return facts_html(facts) + ("" if self.ok else table_html(self.faults))


class Data:
    """The datasets of this node: names of immutable snapshots.

    Example:
        >>> schema = {"id": "loan", "label": "default", "columns": {"default": {"type": "integer"}}}
        >>> client.data.check(frame, schema).faults
        >>> client.data.add("loans", frame, schema)
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def check(
        self,
        rows: Rows,
        schema: Schema | Document,
        *,
        table: str = "",
        sheet: str = "",
        password: str = "",
        progress: bool = True,
    ) -> CheckReport:
        """Check rows against a schema without keeping them.

        Args:
            rows: a data frame, whose first row is row 1; or a file or database, counted as docs/data.md says.
            schema: a dict with the fields of docs/data.md, a path, or TOML text.
            table, sheet, password: of a database or a workbook.
            progress: whether to show a bar where somebody looks.

        Raises:
            ChaotianError: DATA_SOURCE, DATA_COLUMN where they cannot be read as a table at all.
        """
        return check(rows, schema, table=table, sheet=sheet, password=password, progress=progress)

    def add(
        self,
        name: str,
        rows: Rows,
        schema: Schema | Document,
        *,
        table: str = "",
        sheet: str = "",
        password: str = "",
        progress: bool = True,
    ) -> DatasetView:
        """Read rows into a new immutable snapshot and point `name` to it.

        Args:
            name: what jobs and grants call it.
            rows, schema, table, sheet, password, progress: as for `check`.

        Raises:
            ChaotianError: DATA_* for the first fault; `check` shows all.
        """
        source, meaning = as_rows(rows, name, schema, table, sheet, password), read_schema(schema)
        book = self._book
        with bar(progress) as show:
            book.add(name, source, meaning, now=int(time.time()), progress=lambda share, what: show(what, share, 1.0))
        return DatasetView(book, name)

    def list(self) -> pd.DataFrame:
        """Return the datasets with their current snapshots: rows, columns, as_of, snapshot, source, added."""
        rows = [dataset.document() for dataset in self._book.all()]
        columns = ["name", "rows", "columns", "as_of", "snapshot", "source", "added"]
        table = pd.DataFrame(rows, columns=columns)
        return table.assign(added=pd.to_datetime(table["added"], unit="s", utc=True)).set_index("name")

    def show(self, name: str) -> DatasetView:
        """Return a dataset, or its earlier snapshot `NAME@NUMBER`: columns, snapshots, schema; no values."""
        return DatasetView(self._book, name)

    def read(self, name: str, columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return the rows of an own dataset, sorted by identifier: the identifier, then `columns` (or all)."""
        return self._book.read(name, columns)

    @property
    def _book(self) -> DatasetBook:
        return open_book(self._connection)


class Features:
    """Credit features of a monthly ledger, computed where the data are."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> pd.DataFrame:
        """Return all features: family, window, unit, what each is computed from, and what it says."""
        table = pd.DataFrame([feature.document() for feature in catalogue().FEATURES.values()])
        return table.set_index("name")

    def compute(
        self,
        ledger: Rows,
        *,
        out: str = "",
        schema: Schema | Document | None = None,
        at: str = "",
        columns: Mapping[str, str] | None = None,
        features: Sequence[str] = (),
        join: str = "",
        table: str = "",
        password: str = "",
    ) -> pd.DataFrame:
        """Compute features of the loans that have a row in month T.

        Args:
            ledger: the name of a dataset of this node; or with `schema` a data frame, a file or a database.
            out: register the features as this dataset as well.
            at: month T as 2024-12; the ledger's last where left out (needed for a database with `out`).
            columns: the ledger's column for each standard name that differs from it.
            features: names; all that can be computed where empty.
            join: dataset whose columns are put beside the features, such as the outcome.
            table, password: of a database.

        Returns:
            the identifier and one column for each feature (with `join`, those of that dataset too).

        Raises:
            ChaotianError: NOT_FOUND, USAGE, DATA_*.
        """
        given, asked = dict(columns or {}), tuple(features)
        if schema is None:
            if not isinstance(ledger, str):
                raise ChaotianError("USAGE", "a ledger that is no dataset needs a schema", hint="Give schema=….")
            book = open_book(self._connection)
            if out:
                made = self._keep(ledger, out, None, at, given, asked, join)
                return book.read(made.dataset.name)
            if join:
                raise ChaotianError("USAGE", "what is joined is kept", hint="Give out=NAME as well.")
            dataset = book.get(ledger)
            rows = Source(ledger, frame=book.read(ledger))
            return features_of(rows, dataset.schema, at=at, columns=given, features=asked)
        source, meaning = as_rows(ledger, out or "the ledger", schema, table, "", password), read_schema(schema)
        if not out:
            if join:
                raise ChaotianError("USAGE", "only a ledger that is a dataset can be joined", hint="Add it first.")
            return features_of(source, meaning, at=at, columns=given, features=asked)
        made = self._keep(source, out, meaning, at, given, asked, join)
        return open_book(self._connection).read(made.dataset.name)

    def _keep(
        self,
        ledger: str | Source,
        out: str,
        schema: Schema | None,
        at: str,
        columns: Mapping[str, str],
        features: Sequence[str],
        join: str,
    ) -> Computed:
        return keep_features(
            open_book(self._connection),
            ledger,
            out,
            now=int(time.time()),
            schema=schema,
            at=at,
            columns=columns,
            features=features,
            join=join,
        )


def check(
    rows: Rows,
    schema: Schema | Document,
    *,
    table: str = "",
    sheet: str = "",
    password: str = "",
    progress: bool = True,
) -> CheckReport:
    """Check rows against a schema; as `Data.check`, without any node."""
    source, meaning = as_rows(rows, "the data frame", schema, table, sheet, password), read_schema(schema)
    with bar(progress) as show:
        report = DatasetBook.check(source, meaning, lambda share, what: show(what, share, 1.0))
    return CheckReport(report)


def open_book(connection: Connection) -> DatasetBook:
    """Return the datasets of a home; its database is brought up to date first."""
    database = connection.home.database
    database.upgrade()
    return DatasetBook(database, connection.path)


def as_rows(
    rows: Rows, name: str, schema: Schema | Document | None = None, table: str = "", sheet: str = "", password: str = ""
) -> Source:
    """Return what a person gave as a source.

    A data frame whose index has the name of the schema's identifier brings it as a column.

    Args:
        name: what errors call a data frame.
    """
    if isinstance(rows, Source):
        return rows
    if isinstance(rows, pd.DataFrame):
        identifier = read_schema(schema).id if schema is not None else ""
        if identifier and identifier not in rows.columns and rows.index.name == identifier:
            rows = rows.reset_index()
        return Source(name, frame=rows)
    if isinstance(rows, str | os.PathLike):
        where = os.fspath(rows)
        return Source(where if "://" in where else str(Path(where).expanduser()), table, sheet, password)
    raise ChaotianError("USAGE", f"rows are a data frame, a path or an address, not a {type(rows).__name__}")
