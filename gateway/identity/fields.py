"""Strict reading of the fields of signed documents: exactly the known ones, each of its type and size."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from typing import Any

from federation.errors import ChaotianError

MAX_INTEGER = 2**53 - 1


class Fields:
    """The fields of one JSON object.

    Args:
        document: what was parsed.
        names: exactly the fields it must have.
        code: the error code where it differs.
        what: what the document is, for the error.
    """

    def __init__(self, document: Any, names: Collection[str], *, code: str, what: str) -> None:
        self._code, self._what = code, what
        if not isinstance(document, dict):
            raise ChaotianError(code, f"expected {what} as a JSON object")
        if missing := sorted(set(names) - document.keys()):
            raise ChaotianError(code, f"{what} lacks the field {missing[0]}")
        if len(document) != len(set(names)):
            raise ChaotianError(code, f"{what} has a field that is not known")
        self._document = document

    def _wrong(self, name: str, expected: str) -> ChaotianError:
        return ChaotianError(self._code, f"{self._what}: field {name} is not {expected}")

    def text(self, name: str, limit: int = 4096) -> str:
        """Return a string of at most `limit` characters."""
        value = self._document[name]
        if not isinstance(value, str) or len(value) > limit:
            raise self._wrong(name, f"a text of at most {limit} characters")
        return value

    def integer(self, name: str, least: int = 0, most: int = MAX_INTEGER) -> int:
        """Return an integer in [least, most]."""
        value = self._document[name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(name, f"an integer from {least} to {most}")
        return value

    def data(self, name: str, size: int) -> bytes:
        """Return exactly `size` bytes from their base64 text."""
        try:
            value = unb64(self.text(name, 4 * size))
        except ChaotianError:
            raise self._wrong(name, "base64") from None
        if len(value) != size:
            raise self._wrong(name, f"{size} bytes in base64")
        return value

    def items(self, name: str, limit: int) -> list[Any]:
        """Return a list of at most `limit` things."""
        value = self._document[name]
        if not isinstance(value, list) or len(value) > limit:
            raise self._wrong(name, f"a list of at most {limit}")
        return value

    def one(self, name: str, expected: Any) -> None:
        """Require the value `expected`."""
        if self._document[name] != expected or type(self._document[name]) is not type(expected):
            raise self._wrong(name, repr(expected))

    def raw(self, name: str) -> Any:
        """Return the value as it is."""
        return self._document[name]


def b64(data: bytes) -> str:
    """Return base64 text (RFC 4648, padded)."""
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    """Return the bytes of base64 text; there is one text for each value, others are MALFORMED."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or b64(data) != text:
        raise ChaotianError("MALFORMED", "expected base64 text")
    return data
