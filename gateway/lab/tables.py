"""The members' files of a lab run: read, compared with each other, and typed alike.

What a column holds is found out over all members together, as the lab has them all; a real federation agrees on types
and levels in the job document before anybody reads a row.
"""

# ruff: noqa: S608  (SQL is put together here from our own names only)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.frame import MAX_FEATURES, MAX_LEVELS, MAX_NAME, Feature, Frame
from gateway.datasets.schema import ColumnSchema, Schema
from gateway.datasets.sources import Source, header_of, load_source
from gateway.datasets.values import read_frame

MISSING = "(missing)"  # the level of a missing category under impute=mean
_HINTS = {
    ("DATA_MISSING", ""): "Use --param impute=mean or features=woe (missing values are a bin), or --drop the column.",
    ("DATA_TYPE", "number"): "Most of this column are numbers. Correct the row, or use --category or --drop.",
    (
        "DATA_DOMAIN",
        "levels",
    ): "No member has this level, so the score has no weight for it. Correct or remove the row.",
}


@dataclass(frozen=True)
class Tables:
    """Rows of all members, with the same columns of the same types.

    Args:
        frames: by member: features and label, in the file's order of rows.
        features: the columns of the score, in the order of the first member's header.
        test: rows to score at the end, with the label only where the test file has it.
        warnings: what a person should know about the files.
    """

    frames: Mapping[str, Frame]
    features: tuple[Feature, ...]
    label: str
    test: Frame | None = None
    warnings: list[str] = field(default_factory=list)


def read_tables(
    members: Mapping[str, Path | Source],
    *,
    identifier: str,
    label: str,
    test: Path | Source | None = None,
    drop: Sequence[str] = (),
    category: Sequence[str] = (),
    missing: bool = False,
    missing_level: bool = False,
) -> Tables:
    """Read the files of all members and the test file.

    A column is numeric where more than half of all members' values in it are numbers, else a category; the columns of
    `category` are categories in any case. The levels of a category are the union of all members'.

    Args:
        members: file, or rows in memory, by member.
        identifier, label: columns.
        test: a file with the same columns; its label may be absent.
        drop: columns to leave out.
        category: columns to take as categories.
        missing: whether features may have missing values.
        missing_level: whether a missing category becomes the level `(missing)`; else it stays missing.

    Raises:
        ChaotianError: DATA_* naming file, row and column, never a value.
    """
    names = _same_columns(members, identifier, label, drop)
    for name in (*drop, *category):
        if name not in names and not any(name in header_of(path) for path in members.values()):
            raise ChaotianError("DATA_COLUMN", f"column {name[:MAX_NAME]} is in none of the files")
    kinds = _kinds(members, identifier, names, category)
    label_schema = ColumnSchema(label, "integer")
    columns = [ColumnSchema(name, kind, missing=missing) for name, kind in kinds.items()]
    schema = Schema(identifier, label, "", (*columns, label_schema), ignore_other=True)
    frames = {member: _read(path, schema) for member, path in members.items()}
    features = tuple(_feature(name, kind, frames, missing_level) for name, kind in kinds.items())
    for member, frame in frames.items():
        frames[member] = _with_missing_level(frame, features)
    warnings = _shared_ids(frames)
    rows = None
    if test is not None:
        rows = _test(test, identifier, label, drop, features, missing, missing_level)
        if label not in rows.columns:
            warnings.append(
                f"{test.name} has no column {label}: its rows are scored, and nothing can be measured on them"
            )
        seen = {name for frame in frames.values() for name in frame.ids}
        both = sum(name in seen for name in rows.ids)
        if both:
            warnings.append(f"{both} rows of {test.name} have an identifier that stands in a member's file as well")
    return Tables(frames, features, label, rows, warnings)


def _read(path: Path | Source, schema: Schema) -> Frame:
    """Read a file; say in the hint of an error what a lab run can do about it."""
    try:
        return read_frame(path, schema)
    except ChaotianError as error:
        hint = ""
        if f"column {schema.id}:" not in error.detail and f"column {schema.label}:" not in error.detail:
            hint = next(
                (text for (code, part), text in _HINTS.items() if code == error.code and part in error.detail), ""
            )
        elif error.code == "DATA_TYPE":
            hint = "The label is 1 for a bad outcome and 0 for a good one."
        raise ChaotianError(error.code, error.detail, hint=hint) from None


def _same_columns(members: Mapping[str, Path | Source], identifier: str, label: str, drop: Sequence[str]) -> list[str]:
    """Return the features by name, after checking that every file has the same columns."""
    first: tuple[Path | Source, list[str]] | None = None
    for path in members.values():
        header = header_of(path)
        for name in (identifier, label):
            if name not in header:
                raise ChaotianError("DATA_COLUMN", f"{path.name}: column {name[:MAX_NAME]} is missing in the header")
        names = [name for name in header if name not in (identifier, label, *drop)]
        if first is None:
            first = path, names
        _compare(path, names, *first)
    assert first is not None
    names = first[1]
    if not names:
        raise ChaotianError("DATA_COLUMN", f"{first[0].name}: no column is left beside --id and --label")
    if len(names) > MAX_FEATURES:
        raise ChaotianError(
            "DATA_COLUMN", f"{first[0].name} has {len(names)} features, at most {MAX_FEATURES} can be used"
        )
    for name in names:
        if "=" in name or len(name) > MAX_NAME:
            raise ChaotianError(
                "DATA_COLUMN",
                f"{first[0].name}: column {name[:MAX_NAME]} has an equals sign or more than {MAX_NAME} characters",
                hint="Rename it in all files, or take it out with --drop.",
            )
    return names


def _compare(path: Path | Source, names: Sequence[str], first: Path | Source, expected: Sequence[str]) -> None:
    hint = "With --split rows all files have the same columns; take others out with --drop."
    for name in expected:
        if name not in names:
            raise ChaotianError(
                "DATA_COLUMN", f"{path.name}: column {name[:MAX_NAME]} of {first.name} is missing", hint=hint
            )
    for name in names:
        if name not in expected:
            raise ChaotianError(
                "DATA_COLUMN", f"{path.name}: column {name[:MAX_NAME]} is not in {first.name}", hint=hint
            )


def _kinds(
    members: Mapping[str, Path | Source], identifier: str, names: Sequence[str], category: Sequence[str]
) -> dict[str, str]:
    """Return for each column whether it is `numeric` or a `category`, from the counts over all members."""
    import duckdb

    schema = Schema(
        identifier, "", "", tuple(ColumnSchema(name, "category", missing=True) for name in names), ignore_other=True
    )
    filled, numbers = np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    counts = ", ".join(f"count(c{i}), count(TRY_CAST(trim(c{i}) AS DOUBLE))" for i in range(len(names)))
    config: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "threads": "2",
    }
    for path in members.values():
        try:
            with duckdb.connect(":memory:", config=config) as connection:
                load_source(connection, path, schema, "incoming", order="place")
                row = connection.execute(f"SELECT {counts} FROM incoming").fetchone()
        except duckdb.Error:
            raise ChaotianError("STORAGE", f"{path.name} could not be read into memory") from None
        assert row is not None
        filled += row[0::2]
        numbers += row[1::2]
    for name, count in zip(names, filled, strict=True):
        if not count:
            raise ChaotianError(
                "DATA_MISSING", f"column {name} has no value at any member", hint="Take it out with --drop."
            )
    return {
        name: "category" if name in category or 2 * numeric <= all_ else "numeric"
        for name, numeric, all_ in zip(names, numbers, filled, strict=True)
    }


def _feature(name: str, kind: str, frames: Mapping[str, Frame], missing_level: bool) -> Feature:
    if kind == "numeric":
        return Feature(name, kind)
    found: set[str] = set()
    absent = False
    for frame in frames.values():
        values = set(frame.columns[name].tolist())
        absent |= "" in values
        found |= values - {""}
    levels = sorted(found) + ([MISSING] if absent and missing_level and MISSING not in found else [])
    if len(levels) > MAX_LEVELS:
        raise ChaotianError(
            "DATA_TYPE",
            f"column {name} is text with {len(levels)} different values, a category has at most {MAX_LEVELS}",
            hint="A name or a number of a case is no feature: take it out with --drop.",
        )
    if any(len(level) > MAX_NAME for level in levels):
        raise ChaotianError("DATA_TYPE", f"column {name} is text with a value of more than {MAX_NAME} characters")
    if len(levels) < 2:
        raise ChaotianError("CONSTANT_FEATURE", f"{name} has the same value in every pooled row", hint="Use --drop.")
    return Feature(name, kind, tuple(levels))


def _with_missing_level(frame: Frame, features: Sequence[Feature]) -> Frame:
    columns: dict[str, NDArray[Any]] = dict(frame.columns)
    for feature in features:
        if MISSING in feature.levels:
            values = columns[feature.name]
            columns[feature.name] = np.where(values == "", MISSING, values).astype(object)
    return replace(frame, columns=columns)


def _test(
    path: Path | Source,
    identifier: str,
    label: str,
    drop: Sequence[str],
    features: Sequence[Feature],
    missing: bool,
    missing_level: bool,
) -> Frame:
    header = header_of(path)
    known = {identifier, label, *drop, *(feature.name for feature in features)}
    for name in header:
        if name not in known:
            raise ChaotianError("DATA_COLUMN", f"{path.name}: column {name[:MAX_NAME]} is in no member's file")
    columns = []
    for feature in features:
        levels = tuple(level for level in feature.levels if level != MISSING)
        optional = missing and (feature.type == "numeric" or not missing_level or MISSING in feature.levels)
        columns.append(ColumnSchema(feature.name, feature.type, levels=levels, missing=optional))
    if label in header:
        columns.append(ColumnSchema(label, "integer"))
    schema = Schema(identifier, label if label in header else "", "", tuple(columns), ignore_other=True)
    return _with_missing_level(_read(path, schema), features)


def _shared_ids(frames: Mapping[str, Frame]) -> list[str]:
    count: dict[str, int] = {}
    for frame in frames.values():
        for name in frame.ids:
            count[name] = count.get(name, 0) + 1
    shared = sum(times > 1 for times in count.values())
    if not shared:
        return []
    return [f"{shared} identifiers stand in more than one member's file: their rows are counted once for each"]
