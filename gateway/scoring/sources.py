"""Rows to be scored from a file, a table of a database, or a dataset of the home: the columns come from the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.learning.model import Model
from gateway.datasets.book import DatasetBook
from gateway.datasets.faults import Progress, Report, no_progress
from gateway.datasets.schema import ColumnSchema, Schema
from gateway.datasets.sources import Source, as_source, header_of
from gateway.datasets.values import read_frame
from gateway.scoring.frames import fitted, is_category, may_be_missing, refuse


@dataclass(frozen=True)
class RowsToScore:
    """Rows of a source.

    Args:
        name: of the source, as errors and results call it.
        frame: the columns of the model; rows of a file in its order, of a dataset or a database by identifier.
    """

    name: str
    frame: Frame


def rows_of_file(
    model: Model,
    source: Source | Path,
    *,
    id_column: str = "",
    schema: Schema | None = None,
    progress: Progress = no_progress,
) -> RowsToScore:
    """Return the rows of a file or of a table of a database; other columns of it are passed over.

    Args:
        id_column: column of the identifier; that of the schema, or the file's first one, where empty.
        schema: of the data that the model was made of, where the file has dates or ranges to be checked. Without it a
            column is a number or one of the model's levels.

    Raises:
        ChaotianError: DATA_* naming file, row and column.
    """
    given = as_source(source)
    identifier = id_column or (schema.id if schema else header_of(given)[0])
    if identifier in model.columns:
        raise ChaotianError(
            "DATA_COLUMN",
            f"{given.name}: {identifier} is a column of the model and cannot be the identifier",
            hint="Name the identifier with --id.",
        )
    parts = model.coding.parts
    if schema is None:
        columns = tuple(
            ColumnSchema(part.name, "category", levels=part.levels, missing=may_be_missing(part))
            if is_category(part)
            else ColumnSchema(part.name, "numeric", missing=may_be_missing(part))
            for part in parts
        )
        wanted = Schema(identifier, "", "", columns, ignore_other=True)
    else:
        _check_types(model, schema, given.name)
        columns = tuple(schema.columns[schema.index(part.name)] for part in parts)
        keys = (schema.key, schema.length) if identifier == schema.id else ("none", 0)
        wanted = Schema(identifier, "", "", columns, ignore_other=True, key=keys[0], length=keys[1])

    def in_words_of_the_model(report: Report) -> None:
        if schema is None:
            faults = tuple(replace(f, what=f.what.replace("the schema's", "the model's")) for f in report.faults)
            report = replace(report, faults=faults)
        refuse(report)

    frame = read_frame(given, wanted, progress=progress, refuse=in_words_of_the_model)
    return _fit(model, given.name, frame, 2 if given.kind in ("csv", "xlsx") else 1)


def rows_of_dataset(model: Model, book: DatasetBook, name: str) -> RowsToScore:
    """Return the rows of a dataset of the home, in the order of their identifiers.

    Args:
        name: `NAME`, or an earlier snapshot as `NAME@NUMBER`.

    Raises:
        ChaotianError: NOT_FOUND; DATA_* naming dataset, row (the first is 1) and column.
    """
    dataset = book.get(name)
    _check_types(model, dataset.schema, name)
    return _fit(model, name, book.load(name, model.columns, snapshot=dataset.snapshot), 1)


def _fit(model: Model, name: str, frame: Frame, first_row: int) -> RowsToScore:
    frame, faults = fitted(model.coding.parts, frame, first_row)
    refuse(Report(name, len(frame), tuple(faults)))
    return RowsToScore(name, frame)


def _check_types(model: Model, schema: Schema, name: str) -> None:
    described = {column.name: column for column in schema.columns}
    for part in model.coding.parts:
        if part.name not in described:
            raise ChaotianError("DATA_COLUMN", f"{name}: the schema has no column {part.name}, which the model needs")
        kind = described[part.name].type
        if (kind == "category") != is_category(part):
            wanted = "a category" if is_category(part) else "a number"
            raise ChaotianError("DATA_TYPE", f"{name}: column {part.name} is {kind}, the model takes it as {wanted}")
