"""Canonical JSON: the quick way writes and refuses what the reference implementation of RFC 8785 does."""

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json

TEXT = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates included
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**55), 2**55) | st.floats() | TEXT,
    lambda children: st.lists(children) | st.dictionaries(TEXT, children),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(VALUES)
def test_as_the_reference_writes_it(value):
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        expected = None
    try:
        got = canonical_json(value)
    except ChaotianError as error:
        assert error.code == "BAD_DOCUMENT"
        got = None
    assert got == expected


def test_every_character_of_ascii():
    for number in range(0x80):
        assert canonical_json({"k": chr(number), chr(number): 1}) == rfc8785.dumps({"k": chr(number), chr(number): 1})
