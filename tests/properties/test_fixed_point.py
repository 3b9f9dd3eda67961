"""Fixed point: exact in both rings, with and without limbs; out of range is refused and never wrapped."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.fixed_point import decode, decode_arrays, encode
from federation.secure_sum.terms import Field, Layout

rings = st.sampled_from([32, 64])


def summed(layout, contributions):
    """Return the ring sum of the encoded contributions."""
    total = encode(layout, contributions[0]).copy()
    for values in contributions[1:]:
        total += encode(layout, values)
    return total


@st.composite
def cases(draw):
    ring, scale = draw(rings), draw(st.integers(0, 40))
    bound = draw(st.integers(1, 10 ** draw(st.integers(0, 30))))
    members = draw(st.integers(1, 40))
    value = st.integers(-bound, bound) | st.fractions(-bound, bound, max_denominator=10**6) | st.floats(
        -float(min(bound, 10**15)), float(min(bound, 10**15)))  # fmt: skip
    value = value.filter(lambda v: abs(Fraction(v)) <= bound)
    parts = draw(st.lists(st.lists(value, min_size=2, max_size=2), min_size=1, max_size=min(members, 5)))
    return Layout(ring, (Field("x", 2, scale, bound), Field("n", 1, 0, 1)), members), parts


@given(cases())
@settings(max_examples=120)
def test_totals_are_exact_in_both_rings(case):
    layout, parts = case
    total = summed(layout, [{"x": part, "n": [1]} for part in parts])
    scale = 1 << layout.fields[0].scale_bits
    expected = [sum(round(Fraction(part[i]) * scale) for part in parts) for i in range(2)]
    assert decode(layout, total) == {"x": expected, "n": [len(parts)]}


@given(rings, st.integers(0, 30), st.integers(1, 10**9), st.integers(1, 1000))
@settings(max_examples=200)
def test_the_largest_roster_at_the_bound_does_not_wrap(ring, scale, bound, members):
    layout = Layout(ring, (Field("x", 2, scale, bound),), members)
    one = encode(layout, {"x": [bound, -bound]})
    total = one * np.asarray(members, dtype=one.dtype)  # the same as adding it `members` times
    assert decode(layout, total)["x"] == [members * (bound << scale), -members * (bound << scale)]


@pytest.mark.parametrize("ring", [32, 64])
def test_amounts_of_a_trillion_over_a_million_rows(ring):
    """Sums and sums of squares of 1e12 over 1e6 rows a member, at 16 and 32 fractional bits."""
    fields = (Field("sum", 1, 32, 10**18), Field("squares", 1, 16, 10**30), Field("rows", 1, 0, 10**6))
    layout = Layout(ring, fields, 32)
    cents = Fraction(1, 100)
    parts = [
        {"sum": [10**18 - i * cents], "squares": [10**30 - i], "rows": np.array([10**6], dtype=np.int32)}
        for i in range(32)
    ]
    got = decode(layout, summed(layout, parts))
    assert got["squares"] == [(32 * 10**30 - sum(range(32))) << 16] and got["rows"] == [32 * 10**6]
    assert got["sum"] == [sum(round((10**18 - i * cents) * 2**32) for i in range(32))]


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float64, np.float32, np.uint64, object])
def test_numpy_numbers_never_wrap(ring, kind):
    values = np.array([2**30, 0, 12345], dtype=kind)
    for scale in (0, 16, 32, 40):
        layout = Layout(ring, (Field("x", 3, scale, 2**31),), 4)
        for part in (values, list(values)):
            assert decode(layout, encode(layout, {"x": part}))["x"] == [int(v) << scale for v in values.tolist()]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 30))
def test_arrays_and_lists_are_encoded_alike(values, scale):
    layout = Layout(64, (Field("x", len(values), scale, 10**6),))
    assert (encode(layout, {"x": values}) == encode(layout, {"x": np.array(values)})).all()


@given(
    st.sampled_from([10, 2**31 - 1, 2**53 + 1, 2**57 - 1]), st.sampled_from([0, 4]), st.integers(1, 3), st.booleans()
)
def test_beyond_the_bound_is_refused_exactly(bound, scale, over, as_array):
    layout = Layout(64, (Field("x", 1, scale, bound),), 4)
    for sign in (1, -1):
        value = sign * (bound + over)
        part = np.array([float(value)]) if as_array else [value]
        inside = abs(int(float(value))) <= bound if as_array else False
        if not inside:
            with pytest.raises(ChaotianError, match="OVERFLOW"):
                encode(layout, {"x": part})
    assert decode(layout, encode(layout, {"x": [bound]}))["x"] == [bound << scale]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), Decimal("NaN"), Decimal("Infinity")])
@pytest.mark.parametrize("bound", [10, 10**30])
def test_what_is_not_finite_is_refused(bad, bound):
    layout = Layout(64, (Field("x", 2, 8, bound),))
    forms = [[0, bad]] + ([np.array([0, bad])] if isinstance(bad, float) else [])
    for part in forms:
        with pytest.raises(ChaotianError, match="NOT_FINITE"):
            encode(layout, {"x": part})


@pytest.mark.parametrize("bad", [None, 1j, [1], {}, object()])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(ChaotianError, match="MALFORMED"):
        encode(Layout(64, (Field("x", 1, 8, 10),)), {"x": [bad]})


@pytest.mark.parametrize("values", [{}, {"x": [1]}, {"x": [1, 2], "y": [1]}, {"y": [1, 2]}, {"x": [1, 2, 3]}])
def test_wrong_names_and_lengths_are_refused(values):
    with pytest.raises(ChaotianError, match="MALFORMED"):
        encode(Layout(64, (Field("x", 2, 8, 10),)), values)


def test_an_error_never_holds_the_value():
    with pytest.raises(ChaotianError) as error:
        encode(Layout(64, (Field("x", 1, 8, 10),)), {"x": [123456789.25]})
    assert "1234567" not in str(error.value)


def test_arrays_come_back_without_a_copy_of_each_value():
    layout = Layout(64, (Field("x", 1000, 8, 10), Field("big", 2, 8, 10**30)))
    part = {"x": np.full(1000, -1.5), "big": [10**30, -(10**30)]}
    arrays = decode_arrays(layout, encode(layout, part))
    assert (
        arrays["x"].dtype == np.int64 and (arrays["x"] == -384).all() and arrays["big"].tolist()[1] == -(10**30) * 256
    )
