"""Documents: what a person hands over (a dict, a path, TOML text) as the TOML that the node takes; and jobs in words.

`profile`, `binning`, `scorecard`, `evaluate` and `stability` return the document of a job as a dict; `job` that of any
kind. Parameters beyond the named ones are those of docs/jobs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from federation.errors import ChaotianError
from gateway.datasets.schema import LIMIT as SCHEMA_LIMIT
from gateway.datasets.schema import Schema, parse_schema, schema_from
from gateway.storage.files import read_limited

LIMIT = 1 << 20  # bytes of a document

Document = Mapping[str, Any] | Path | str
"""A dict with the fields of the TOML, the path of a TOML file, or TOML text."""

Features = Sequence[str | Mapping[str, Any]]
"""Columns by name (type and levels are then those of the own dataset), or as {"name", "type", "levels"}."""


def toml_text(document: Document, what: str) -> str:
    """Return `document` as TOML text.

    Args:
        document: a dict with the fields of the TOML; a path (a `Path`, or a text of one line that ends in `.toml`); or
            TOML text.
        what: what errors call it, e.g. `job`.

    Raises:
        ChaotianError: NOT_FOUND, OVERSIZED, BAD_DOCUMENT.
    """
    if isinstance(document, Mapping):
        try:
            text = tomli_w.dumps(_plain(document, what))
        except (TypeError, ValueError, RecursionError):
            raise ChaotianError("BAD_DOCUMENT", f"the {what} holds a value that TOML has no word for") from None
    elif isinstance(document, os.PathLike) or _is_path(document):
        text = _read(Path(document), what)
    elif isinstance(document, str):
        text = document
    else:
        raise ChaotianError("USAGE", f"a {what} is a dict, a path or TOML text, not a {type(document).__name__}")
    if len(text) > LIMIT:
        raise ChaotianError("OVERSIZED", f"the {what} has more than {LIMIT} characters")
    return text


def read_schema(schema: Schema | Document) -> Schema:
    """Return a schema from what a person has: a dict, the path of a TOML file, TOML text, or a schema already.

    Raises:
        ChaotianError: NOT_FOUND, OVERSIZED, BAD_DOCUMENT naming the key.
    """
    if isinstance(schema, Schema):
        return schema
    if isinstance(schema, Mapping):
        return schema_from(schema)
    if isinstance(schema, os.PathLike) or _is_path(schema):
        return parse_schema(_bytes(Path(schema), SCHEMA_LIMIT))
    if isinstance(schema, str):
        return parse_schema(schema.encode())
    raise ChaotianError("USAGE", f"a schema is a dict, a path or TOML text, not a {type(schema).__name__}")


def _is_path(text: Any) -> bool:
    return isinstance(text, str) and "\n" not in text and text.strip().lower().endswith(".toml")


def _read(path: Path, what: str) -> str:
    try:
        return _bytes(path, LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ChaotianError("BAD_DOCUMENT", f"the {what} in {path.name} is not UTF-8 text") from None


def _bytes(path: Path, limit: int) -> bytes:
    return read_limited(path.expanduser(), limit, code="NOT_FOUND")


def _plain(value: Any, what: str, depth: int = 0) -> Any:
    """Return a document with what is like a dict, a list or a number (tuples, NumPy's scalars) as just that."""
    if depth > 30:
        raise ChaotianError("BAD_DOCUMENT", f"the {what} is nested too deeply")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ChaotianError("BAD_DOCUMENT", f"the names of fields in a {what} are texts")
        return {key: _plain(part, what, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(part, what, depth + 1) for part in parts]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return _plain(value.tolist(), what, depth + 1)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


# --- jobs in words ----------------------------------------------------------------------------------------------------


def job(
    kind: str,
    *,
    members: Sequence[str],
    purpose: str,
    dataset: str,
    params: Mapping[str, Any],
    after: str = "",
    test: str = "",
    exposed: Sequence[str] = (),
    min_members: int | None = None,
    min_rows: int | None = None,
    stage_seconds: float | None = None,
) -> dict[str, Any]:
    """Return the document of a job of any kind.

    Args:
        kind: what is computed, e.g. `scorecard`.
        members: who takes part.
        purpose: what for; the members' grants must name it.
        dataset: the rows at every member: NAME, or NAME@NUMBER or NAME@DAY for one of its snapshots.
        params: parameters of the kind.
        after: the rows at the second of two dates, for `stability`.
        test: a second dataset at every member to compare models on, for `scorecard`.
        exposed: members that do not take part but that the result may expose beside an earlier one.
        min_members, min_rows, stage_seconds: floors, and how long a member may take for one stage.
    """
    given: dict[str, Any] = {"after": after, "test": test, "exposed": list(exposed)}
    given |= {"min_members": min_members, "min_rows": min_rows, "stage_seconds": stage_seconds}
    return {
        "kind": kind,
        "purpose": purpose,
        "members": list(members),
        "dataset": dataset,
        **{name: value for name, value in given.items() if value},
        "params": dict(params),
    }


def profile(*, members: Sequence[str], purpose: str, dataset: str, features: Features, **params: Any) -> dict[str, Any]:
    """Return the document of a `profile`: what columns look like over all members' rows.

    Args:
        params: `domains`, as {column: [low, high]}.
    """
    written = {"features": list(features), **params}
    return job("profile", members=members, purpose=purpose, dataset=dataset, params=written)


def binning(
    *, members: Sequence[str], purpose: str, dataset: str, label: str, features: Features, **params: Any
) -> dict[str, Any]:
    """Return the document of a `binning`: common bins with weight of evidence and information value.

    Args:
        params: `bins`, `edges`, `monotone`, `smoothing`, `holdout`, `seed`.
    """
    written = {"label": label, "features": list(features), **params}
    return job("binning", members=members, purpose=purpose, dataset=dataset, params=written)


def scorecard(
    *, members: Sequence[str], purpose: str, dataset: str, label: str, features: Features, test: str = "", **params: Any
) -> dict[str, Any]:
    """Return the document of a `scorecard`: logistic regression over the rows of all members.

    Args:
        test: a second dataset at every member to compare models on; the held-out rows where left out.
        params: `coding` (`raw` or `woe`), `penalty`, `holdout`, `seed`, `max_rounds`, …

    Example:
        >>> banks = ["bank-a", "bank-b", "bank-c"]
        >>> scorecard(members=banks, purpose="credit-risk-model", dataset="loans", label="default",
        ...           features=["amount", "term"], coding="woe")
    """
    written = {"label": label, "features": list(features), **params}
    return job("scorecard", members=members, purpose=purpose, dataset=dataset, test=test, params=written)


def evaluate(*, members: Sequence[str], purpose: str, dataset: str, model: str, **params: Any) -> dict[str, Any]:
    """Return the document of an `evaluate`: how well a model does on all members' rows.

    Args:
        model: digits of its id, or of its job's.
        params: `rows` (`all` or `holdout`), `holdout`, `seed`.
    """
    return job("evaluate", members=members, purpose=purpose, dataset=dataset, params={"model": model, **params})


def stability(
    *,
    members: Sequence[str],
    purpose: str,
    dataset: str,
    after: str,
    model: str = "",
    features: Features = (),
    **params: Any,
) -> dict[str, Any]:
    """Return the document of a `stability`: how far columns, or a model's columns and score, moved between two dates.

    Args:
        dataset, after: the rows at the two dates.
        model: digits of a model's id; or `features`.
        params: `bins`, `edges`.
    """
    written = {**({"model": model} if model else {"features": list(features)}), **params}
    return job("stability", members=members, purpose=purpose, dataset=dataset, after=after, params=written)
