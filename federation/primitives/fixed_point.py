"""Fixed point: a member's values to ring elements and back; out of range is refused, never wrapped or clipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.primitives.masks import Vector, ring_dtype

if TYPE_CHECKING:
    from federation.secure_sum.program import Contribution
    from federation.secure_sum.terms import Field, Layout

_CHUNK = 1 << 15


def encode(layout: Layout, values: Mapping[str, Contribution], out: Vector | None = None) -> Vector:
    """Return the vector of `values` (unscaled, by field name) as ring elements, limbs included.

    Args:
        out: a vector of `layout.slots` ring elements to write to; made where left out.

    Raises:
        ChaotianError: OVERFLOW, NOT_FINITE or MALFORMED, naming the field and never the value.
    """
    if set(values) != {field.name for field in layout.fields}:
        raise ChaotianError("MALFORMED", f"expected values for {[field.name for field in layout.fields]}")
    vector = np.empty(layout.slots, dtype=ring_dtype(layout.ring_bits)) if out is None else out
    at = 0
    for field in layout.fields:
        part, limbs = values[field.name], layout.limbs(field)
        if len(part) != field.length:
            raise ChaotianError("MALFORMED", f"field {field.name} has {len(part)} values, expected {field.length}")
        target = vector[at : at + field.length * limbs]
        if limbs == 1:
            _encode_single(field, part, target, layout.ring_bits)
        else:
            _encode_limbs(field, part, target, layout.limb_bits, limbs)
        at += field.length * limbs
    return vector


def _encode_single(field: Field, part: Contribution, target: Vector, ring_bits: int) -> None:
    """Fill `target` with one ring element a value."""
    signed: Any = np.int64 if ring_bits == 64 else np.int32
    limit = field.bound << field.scale_bits
    if isinstance(part, np.ndarray) and part.dtype.kind == "f":
        view = target.view(signed)
        scaled = np.empty(min(_CHUNK, field.length), dtype=np.float64)
        # Blocks stay in cache; ldexp and rint are exact up to the one rounding to nearest, ties to even.
        for start in range(0, field.length, _CHUNK):
            block = part[start : start + _CHUNK]
            out = scaled[: block.size]
            with np.errstate(all="ignore"):  # what does not fit becomes infinite and is refused below
                np.multiply(block, float(1 << field.scale_bits), out=out, dtype=np.float64)
                np.rint(out, out=out)
            low, high = float(out.min()), float(out.max())  # NaN propagates through both
            # As integers: a bound near 2^57 is no float, and the nearest float may lie above it.
            if not (isfinite(low) and isfinite(high) and int(low) >= -limit and int(high) <= limit):
                raise _bad(field, finite=bool(np.isfinite(block).all()))
            view[start : start + _CHUNK] = out
        return
    if isinstance(part, np.ndarray) and part.dtype.kind == "i" and not field.scale_bits:
        if part.size and not (-limit <= int(part.min()) and int(part.max()) <= limit):
            raise _bad(field, finite=True)
        target.view(signed)[:] = part
        return
    numbers = [_scaled(field, value) for value in _plain(part)]
    target.view(signed)[:] = np.array(numbers, dtype=signed)


def _encode_limbs(field: Field, part: Contribution, target: Vector, limb_bits: int, limbs: int) -> None:
    """Fill `target` with balanced limbs, least significant first: value = Σ limb_k · 2^(limb_bits · k)."""
    base, half, mask = 1 << limb_bits, 1 << (limb_bits - 1), (1 << (target.itemsize * 8)) - 1
    out: list[int] = []
    for value in _plain(part):
        rest = _scaled(field, value)
        for position in range(limbs):
            # The last limb takes what is left: it is below half a base by the choice of `limbs`.
            limb = rest if position == limbs - 1 else (rest + half) % base - half
            out.append(limb & mask)
            rest = (rest - limb) >> limb_bits
    target[:] = np.array(out, dtype=target.dtype)


def _plain(part: Contribution) -> Sequence[Any]:
    """Return `part` as Python numbers: those of NumPy would wrap when they are scaled."""
    return part.tolist() if isinstance(part, np.ndarray) else part


def _scaled(field: Field, value: Any) -> int:
    """Return round(value · 2^scale), exactly, half to even."""
    try:
        plain = value.item() if isinstance(value, np.generic) else value
        number = round(Fraction(plain) * (1 << field.scale_bits))
    except (OverflowError, ValueError):
        raise _bad(field, finite=False) from None
    except TypeError:
        raise ChaotianError("MALFORMED", f"field {field.name} holds something that is not a number") from None
    if abs(number) > field.bound << field.scale_bits:
        raise _bad(field, finite=True)
    return number


def _bad(field: Field, *, finite: bool) -> ChaotianError:
    if not finite:
        return ChaotianError("NOT_FINITE", f"field {field.name} holds a value that is not a finite number")
    return ChaotianError("OVERFLOW", f"field {field.name} holds a value outside ±{field.bound}")


def decode_arrays(layout: Layout, vector: Vector) -> dict[str, NDArray[Any]]:
    """Return the totals by field name, still scaled: int64 arrays, or object arrays of int where limbs were needed."""
    out: dict[str, NDArray[Any]] = {}
    at = 0
    signed: Any = np.int64 if layout.ring_bits == 64 else np.int32
    for field in layout.fields:
        limbs = layout.limbs(field)
        part = vector[at : at + field.length * limbs].view(signed)
        at += field.length * limbs
        if limbs == 1:
            out[field.name] = part
            continue
        total = np.zeros(field.length, dtype=object)
        for position in range(limbs):
            total += part[position::limbs].astype(object) << (layout.limb_bits * position)
        out[field.name] = total
    return out


def decode(layout: Layout, vector: Vector) -> dict[str, list[int]]:
    """Return the totals by field name as lists of int, still scaled by 2^scale_bits."""
    return dict(Totals(layout, vector))


class Totals(Mapping[str, list[int]]):
    """The totals by field name, still scaled: exact Python integers, made of the ring elements when asked for.

    A list of a million integers takes longer than masking them did; who works on arrays asks for `array`.
    """

    def __init__(self, layout: Layout, vector: Vector) -> None:
        self._arrays = decode_arrays(layout, vector)

    def __getitem__(self, name: str) -> list[int]:
        return list(self._arrays[name].tolist())

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def array(self, name: str) -> NDArray[Any]:
        """Return one field's totals: int64 or int32, or objects of int where limbs were needed. Not to be written."""
        return self._arrays[name]
