"""Encodings are injective and strict: one meaning, one form, and nothing else is taken."""

import gc
import json
import sys

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.encoding import (
    canonical_json,
    digest,
    pack,
    pack_in_place,
    pack_map,
    parse_canonical_json,
    unpack,
    unpack_map,
)

tags = st.text(max_size=12)
fields = st.lists(st.binary(max_size=40), max_size=6)
maps = st.dictionaries(st.text(max_size=8), st.binary(max_size=20), max_size=5)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def coded(call, *arguments):
    """Return the result, or None for a coded error; any other exception fails the test."""
    try:
        return call(*arguments)
    except ChaotianError:
        return None


@given(tags, fields)
def test_unpack_gives_back_what_was_packed(tag, parts):
    assert unpack(tag, pack(tag, parts)) == parts


@given(tags, fields, tags, fields)
def test_different_things_have_different_encodings(tag, parts, other_tag, other_parts):
    same = (tag, parts) == (other_tag, other_parts)
    assert (pack(tag, parts) == pack(other_tag, other_parts)) == same
    assert (digest(tag, parts) == digest(other_tag, other_parts)) == same


@given(tags, st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_coded_errors(tag, data):
    for read in (unpack, unpack_map):
        parts = coded(read, tag, data)
        if parts is not None:
            assert (pack(tag, parts) if isinstance(parts, list) else pack_map(tag, parts)) == data


@given(tags, fields, st.data())
def test_a_changed_encoding_is_refused_or_means_something_else(tag, parts, data):
    encoded = pack(tag, parts)
    place = data.draw(st.integers(0, len(encoded) - 1))
    changed = encoded[:place] + bytes([encoded[place] ^ data.draw(st.integers(1, 255))]) + encoded[place + 1 :]
    assert coded(unpack, tag, changed) != parts
    assert coded(unpack, tag, encoded[:place]) is None
    assert coded(unpack, tag, encoded + b"\x00") is None
    assert coded(unpack, tag, encoded, len(parts) + 1) is None


@given(maps)
def test_maps_come_back_sorted(entries):
    assert unpack_map("m", pack_map("m", entries)) == entries
    assert list(unpack_map("m", pack_map("m", entries))) == sorted(entries)


@pytest.mark.parametrize("names", [[b"b", b"a"], [b"a", b"a"], [b"\xff"], [b"a", b"b", b"a"]])
def test_maps_with_unsorted_doubled_or_unreadable_names_are_refused(names):
    with pytest.raises(ChaotianError, match="MALFORMED"):
        unpack_map("m", pack("m", [part for name in names for part in (name, b"")]))


@given(documents)
def test_canonical_json_is_read_back_and_has_one_form(document):
    encoded = canonical_json(document)
    assert parse_canonical_json(encoded) == document
    loose = json.dumps(document, indent=1, ensure_ascii=True).encode()
    if loose != encoded:
        assert coded(parse_canonical_json, loose) is None


@given(documents | st.dictionaries(st.text(max_size=6), st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_canonical_json_is_what_the_reference_writes(document):
    """Against PyPI `rfc8785`, which the quick path for plain documents goes around."""
    try:
        expected = rfc8785.dumps(document)
    except (UnicodeEncodeError, rfc8785.CanonicalizationError):
        assert coded(canonical_json, document) is None
    else:
        assert canonical_json(document) == expected


@pytest.mark.parametrize(
    "document", ["\ud800", {"\ud800": 1}, 1 << 53, [float("nan")], {1: 2}, b"x", object(), {"a": {1}}]
)
def test_what_has_no_canonical_form_is_refused(document):
    with pytest.raises(ChaotianError, match="BAD_DOCUMENT"):
        canonical_json(document)


def test_documents_nested_too_deeply_are_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ChaotianError, match="BAD_DOCUMENT"):
        canonical_json(deep)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u ', max_size=60).map(str.encode))
def test_random_documents_raise_nothing_but_coded_errors(data):
    document = coded(parse_canonical_json, data)
    if document is not None:
        assert canonical_json(document) == data


@pytest.mark.parametrize(
    "data",
    [b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"1.0", b"-0", b"[" * 100_000, b"9" * 10_000, b"9007199254740993",
     b'{"a":1,"a":1}', b'{"b":1,"a":1}', b"\xff\xfe1\x00", b"\xef\xbb\xbf1", b" 1", b"", b'"\xff"'],
)  # fmt: skip
def test_documents_with_no_or_another_canonical_form_are_refused(data):
    with pytest.raises(ChaotianError, match="BAD_DOCUMENT"):
        parse_canonical_json(data)


def test_a_document_over_the_limit_is_refused_unread():
    with pytest.raises(ChaotianError, match="OVERSIZED"):
        parse_canonical_json(b" " * 101, limit=100)


def test_a_body_that_cannot_be_written_leaves_nothing_behind(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def write(view):
        raise ChaotianError("INTERNAL", "not today")

    def attempt():
        try:
            pack_in_place("chaotian", 64, write)
        except ChaotianError as error:
            keep = error  # a cycle: frame, error, traceback
            return keep.code
        return ""

    assert attempt() == "INTERNAL"
    gc.collect()
    assert unraisable == []
