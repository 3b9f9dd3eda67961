"""Sums without rounding, and real numbers that come out the same on every machine.

A pooled moment must not depend on how rows are spread over members, so each member adds its own rows without any
rounding. What members derive from pooled totals is computed in MPFR at 256 bits (`gmpy2`), in a fixed order and
without BLAS or libm, whose last bits differ by processor; the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

PRECISION = 256
GRID_BITS = 32  # coefficients lie on the grid of multiples of 2^-32
_MANTISSA = 53
_BLOCK = 1 << 20  # 2^20 values of 2^31 or less cannot overflow int64


@contextmanager
def real_arithmetic() -> Iterator[None]:
    """Compute with MPFR at 256 bits, rounding to nearest, whatever context the caller has."""
    with gmpy2.context(precision=PRECISION, round=gmpy2.RoundToNearest):
        yield


def exact_sum(values: NDArray[np.float64]) -> Fraction:
    """Return the sum of finite float64 values without any rounding.

    Every value is an integer of 53 bits times a power of two; values of one exponent are added as integers.
    """
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    whole = np.ldexp(mantissa, _MANTISSA).astype(np.int64)
    exponents, group = np.unique(exponent.astype(np.int64) - _MANTISSA, return_inverse=True)
    totals = [0] * len(exponents)
    for start in range(0, len(whole), _BLOCK):
        part, index = whole[start : start + _BLOCK], group[start : start + _BLOCK]
        for halves, shift in ((part >> 31, 31), (part & 0x7FFFFFFF, 0)):
            sums = np.zeros(len(exponents), dtype=np.int64)
            np.add.at(sums, index, halves)
            for at in np.flatnonzero(sums):
                totals[at] += int(sums[at]) << shift
    out = Fraction(0)
    for power, total in zip(exponents.tolist(), totals, strict=True):
        out += Fraction(total << power) if power >= 0 else Fraction(total, 1 << -power)
    return out


def real(value: Fraction | int | float) -> Any:
    """Return `value` as mpfr of the current context; call it within `real_arithmetic`."""
    if isinstance(value, Fraction):
        return gmpy2.mpfr(gmpy2.mpq(value.numerator, value.denominator))
    return gmpy2.mpfr(value)


def nearest_float(value: Fraction) -> float:
    """Return the float64 nearest to a rational number."""
    return value.numerator / value.denominator  # true division of integers is correctly rounded


def nearest_root(value: Fraction) -> float:
    """Return the float64 nearest to the square root of a rational number that is not negative."""
    with real_arithmetic():
        return float(gmpy2.sqrt(real(value)))


def to_grid(value: Any) -> int:
    """Return an mpfr as a whole number of 2^-32, nearest, ties to even."""
    return int(gmpy2.rint(value * (1 << GRID_BITS)))
