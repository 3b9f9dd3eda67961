"""The sums of a job in the clear: what the secure sum must give, without any protection.

For tests and comparisons only. Values are scaled and rounded exactly as the secure sum's encoder does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from federation.secure_sum.program import Contribution, Program
from federation.secure_sum.terms import Field, Layout


def quantised(layout: Layout, own: Mapping[str, Contribution]) -> dict[str, list[int]]:
    """Return a contribution as whole multiples of 2^-scale_bits, checked against the layout."""
    if set(own) != {field.name for field in layout.fields}:
        raise AssertionError("the contribution does not have the fields of the layout")
    out = {}
    for field in layout.fields:
        values = own[field.name]
        listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
        if len(listed) != field.length:
            raise AssertionError(f"field {field.name} has {len(listed)} values, {field.length} are laid out")
        out[field.name] = [_scaled(field, value) for value in listed]
    return out


def _scaled(field: Field, value: Any) -> int:
    exact = Fraction(value)
    if abs(exact) > field.bound:
        raise AssertionError(f"a value of field {field.name} exceeds its bound")
    return round(exact * (1 << field.scale_bits))


def sum_round(programs: Mapping[str, Program]) -> None:
    """Sum one round over `programs` and advance each; their states must agree before and after."""
    assert len({program.state() for program in programs.values()}) == 1, "members differ before the round"
    layouts = [program.layout() for program in programs.values()]
    assert all(layout == layouts[0] for layout in layouts), "members lay the round out differently"
    parts = [quantised(layouts[0], program.local()) for program in programs.values()]
    totals = {
        field.name: [sum(values) for values in zip(*(part[field.name] for part in parts), strict=True)]
        for field in layouts[0].fields
    }
    for program in programs.values():
        program.advance(totals)
    assert len({program.state() for program in programs.values()}) == 1, "members derived different states"


def run_plain(
    programs: Mapping[str, Any], *, lose: Mapping[int, str] | None = None, after: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Run `programs` to the end and return those that are left.

    Args:
        programs: by member.
        lose: member to lose before round k (counted from 1); floors are then checked as after a real loss.
        after: called with the number of each finished round.
    """
    left = dict(programs)
    count = 0
    while not next(iter(left.values())).done():
        count += 1
        if lose and count in lose:
            del left[lose[count]]
            floors = {member: program.floors() for member, program in left.items()}
            for program in left.values():
                program.check_floors(floors)
        sum_round(left)
        if after:
            after(count)
    return left
