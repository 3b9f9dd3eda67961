"""Injective encodings: what is hashed or signed can be read in one way only.

Documents are canonical JSON (RFC 8785). Bytes are domain-tagged lists of length-prefixed fields, after the
pre-authentication encoding of DSSE (secure-systems-lab/dsse, `PAE`). Protobuf bytes are never signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import rfc8785

from federation.errors import ChaotianError

MAX_FIELDS = 1 << 20
_LARGEST = (1 << 53) - 1  # integers beyond are no JSON numbers in RFC 8785
Buffer = bytes | memoryview


def _is_plain(value: Any) -> bool:
    """Whether `value` holds only what RFC 8785 and `json` write alike: no floats, no keys to be sorted as UTF-16."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_LARGEST <= value <= _LARGEST)
    if kind is list:
        return all(map(_is_plain, value))
    return (
        kind is dict
        and all(type(key) is str and key.isascii() for key in value)
        and all(map(_is_plain, value.values()))
    )


def canonical_json(document: Any) -> bytes:
    """Return the RFC 8785 form of `document` (UTF-8, sorted keys, no spaces).

    Raises:
        ChaotianError: BAD_DOCUMENT where a value has no canonical form (NaN, integers beyond 2^53).
    """
    try:
        if _is_plain(document):
            # The standard library writes these the same, in C: terms and states are written dozens of times a round.
            return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise ChaotianError("BAD_DOCUMENT", f"the document has no canonical JSON form: {error}") from None


def parse_canonical_json(data: bytes, *, limit: int = 1 << 20) -> Any:
    """Parse `data` and refuse it unless it is exactly its own canonical form (at most `limit` bytes)."""
    if len(data) > limit:
        raise ChaotianError("OVERSIZED", f"a document has {len(data)} bytes, at most {limit} are allowed")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ChaotianError("BAD_DOCUMENT", "the document is not JSON") from None
    if canonical_json(document) != data:
        raise ChaotianError("BAD_DOCUMENT", "the document is JSON, but not in its canonical form (RFC 8785)")
    return document


def pack(tag: str, fields: Iterable[Buffer]) -> bytes:
    """Return tag and fields, each with its length (8 bytes, big endian) before it, and their count."""
    parts = list(fields)
    name = tag.encode()
    out: list[Buffer] = [struct.pack(">QQ", len(name), len(parts)), name]
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        out += (struct.pack(">Q", size), part)
    return b"".join(out)  # the only copy: a vector of megabytes comes as a memoryview


def pack_in_place(tag: str, size: int, write: Callable[[memoryview], list[bytes]]) -> bytes:
    """Return `pack(tag, [body, *rest])` for a body of megabytes that is written where it stays, and never copied.

    Args:
        size: of the body in bytes, at least 1.
        write: fills the body, keeps no view of it, and returns the rest. Where `tag` has a multiple of 8 characters,
            the body is aligned to 8 bytes.
    """
    name, out = tag.encode(), io.BytesIO()
    out.write(struct.pack(">QQ", len(name), 0) + name + struct.pack(">Q", size))
    start = out.tell()
    out.seek(start + size - 1)
    out.write(b"\0")
    with out.getbuffer() as whole:
        body = whole[start : start + size]
        try:
            rest = write(body)
        finally:
            with contextlib.suppress(BufferError):
                body.release()  # a traceback would keep it, for longer than what it is a view of
        struct.pack_into(">Q", whole, 8, 1 + len(rest))
    for field in rest:
        out.write(struct.pack(">Q", len(field)) + field)
    return out.getvalue()  # hands over what was written, without a copy


def unpack(tag: str, data: Buffer, count: int | None = None) -> list[bytes]:
    """Return the fields of `pack(tag, fields)`; anything else, trailing bytes included, is MALFORMED.

    Args:
        tag: the tag that must stand in front.
        data: the whole encoding.
        count: how many fields there must be, where that is fixed.
    """
    return [bytes(field) for field in unpack_views(tag, data, count)]


def unpack_views(tag: str, data: Buffer, count: int | None = None) -> list[memoryview]:
    """Do what `unpack` does without copying: the fields are views into `data`, for vectors of megabytes."""
    data = memoryview(data)

    def malformed(why: str) -> ChaotianError:
        return ChaotianError("MALFORMED", f"expected a {tag} message: {why}")

    if len(data) < 16:
        raise malformed(f"{len(data)} bytes are too few")
    size, fields = struct.unpack_from(">QQ", data)
    if fields > MAX_FIELDS or (count is not None and fields != count):
        raise malformed(f"it has {fields} fields")
    at = 16 + size
    if data[16:at] != tag.encode():
        raise malformed("its tag is another")
    out: list[memoryview] = []
    for _ in range(fields):
        if at + 8 > len(data):
            raise malformed("it is cut short")
        (size,) = struct.unpack_from(">Q", data, at)
        if at + 8 + size > len(data):
            raise malformed("it is cut short")
        out.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if at != len(data):
        raise malformed(f"{len(data) - at} bytes follow it")
    return out


def pack_map(tag: str, entries: Mapping[str, Buffer]) -> bytes:
    """Return a map from names to bytes, sorted by name, as `pack`ed fields."""
    fields: list[Buffer] = []
    for name in sorted(entries):
        fields += (name.encode(), entries[name])
    return pack(tag, fields)


def unpack_map(tag: str, data: Buffer) -> dict[str, bytes]:
    """Return the map of `pack_map`; names must be sorted, single and UTF-8."""
    return {name: bytes(field) for name, field in unpack_map_views(tag, data).items()}


def unpack_map_views(tag: str, data: Buffer) -> dict[str, memoryview]:
    """Do what `unpack_map` does without copying the values."""
    fields = unpack_views(tag, data)
    if len(fields) % 2:
        raise ChaotianError("MALFORMED", f"expected a {tag} message: a name has no value")
    try:
        names = [bytes(name).decode() for name in fields[::2]]
    except UnicodeDecodeError:
        raise ChaotianError("MALFORMED", f"expected a {tag} message: a name is not UTF-8") from None
    if any(a >= b for a, b in pairwise(names)):
        raise ChaotianError("MALFORMED", f"expected a {tag} message: names are not sorted and single")
    return dict(zip(names, fields[1::2], strict=True))


def digest(tag: str, fields: Sequence[bytes]) -> bytes:
    """Return SHA-256 over `pack(tag, fields)`: 32 bytes."""
    return hashlib.sha256(pack(tag, fields)).digest()
