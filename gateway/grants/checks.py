"""Strict reading of a JSON object: every field by name, with its type and range, and nothing left over."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Any

from federation.errors import ChaotianError
from gateway.grants.catalogue import RESERVED_FIELDS

_MISSING = object()


def wrong(key: str, expected: str) -> ChaotianError:
    """Return BAD_DOCUMENT that names `key` and what it must be; what came is not repeated."""
    return ChaotianError("BAD_DOCUMENT", f"{key}: expected {expected}")


def is_plain_text(text: object, limit: int, *, least: int = 1) -> bool:
    """Return whether `text` is normalised text (NFC) a person can read: no control, bidi or invisible characters."""
    return (
        isinstance(text, str)
        and least <= len(text) <= limit
        and text == text.strip()
        and unicodedata.is_normalized("NFC", text)
        and not any(unicodedata.category(char)[0] == "C" or (char != " " and char.isspace()) for char in text)
    )


class Fields:
    """The fields of one object; `done` refuses those nobody asked for.

    Args:
        value: what was parsed.
        path: its dotted key within the document, empty for the whole.
        reserved: the dotted key under which `RESERVED_FIELDS` knows its fields (list indices left out).
    """

    def __init__(self, value: Any, path: str = "", reserved: str | None = None) -> None:
        self._path, self._reserved = path, path if reserved is None else reserved
        if not isinstance(value, dict):
            raise wrong(path or "the document", "an object")
        self._values = value
        self._asked: set[str] = set()

    def key(self, name: str) -> str:
        """Return the dotted key of a field."""
        return f"{self._path}.{name}" if self._path else name

    def get(self, name: str, *, optional: bool = False) -> Any:
        """Return the raw value of a field; None where it is absent and optional."""
        self._asked.add(name)
        value = self._values.get(name, _MISSING)
        if value is _MISSING:
            if optional:
                return None
            raise ChaotianError("BAD_DOCUMENT", f"{self.key(name)} is missing")
        return value

    def present(self, name: str) -> bool:
        """Return whether the field is there."""
        return name in self._values

    def integer(self, name: str, low: int, high: int) -> int:
        """Return a whole number in [low, high]; true and 1.0 are none."""
        value = self.get(name)
        if type(value) is not int or not low <= value <= high:
            raise wrong(self.key(name), f"a whole number from {low} to {high}")
        return value

    def text(self, name: str, pattern: re.Pattern[str], expected: str) -> str:
        """Return text that matches `pattern` wholly."""
        value = self.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise wrong(self.key(name), expected)
        return value

    def choice(self, name: str, known: Collection[str], reserved: Collection[str] = ()) -> str:
        """Return one of the words in `known`; one in `reserved` is NOT_ENFORCED."""
        return choose(self.get(name), self.key(name), known, reserved)

    def words(self, name: str, least: int, most: int) -> list[Any]:
        """Return a list of `least` to `most` values, not yet looked at."""
        value = self.get(name)
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise wrong(self.key(name), f"a list of {least} to {most} values")
        return value

    def done(self) -> None:
        """Refuse what was not asked for: NOT_ENFORCED for later fields of the format, else BAD_DOCUMENT."""
        for name in sorted(set(self._values) - self._asked, key=str):
            dotted = f"{self._reserved}.{name}" if self._reserved else str(name)
            if dotted in RESERVED_FIELDS:
                raise ChaotianError(
                    "NOT_ENFORCED", f"{self.key(name)} is part of the format, but this version does not enforce it"
                )
            shown = name if is_plain_text(name, 64) else "a field"
            raise ChaotianError("BAD_DOCUMENT", f"{self.key(shown)} is not a field of the format")


def choose(value: Any, key: str, known: Collection[str], reserved: Collection[str] = ()) -> str:
    """Return `value` if it is one of the words in `known`; one in `reserved` is NOT_ENFORCED."""
    if isinstance(value, str):
        if value in known:
            return value
        if value in reserved:
            raise ChaotianError(
                "NOT_ENFORCED", f"{key}: {value} is part of the format, but this version does not enforce it"
            )
    raise wrong(key, f"one of {', '.join(sorted(known))}")
