"""What a person hands over as a document (a dict, a path, TOML text) as the TOML text that the node takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
