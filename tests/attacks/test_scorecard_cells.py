"""A proposer that asks for the same rows twice, coded differently, to get a small cell as the difference."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plain import quantised, sum_round
from federation.errors import ChaotianError
from federation.learning import scorecard
from federation.learning.coding import merge_levels, reference_first
from federation.learning.holdout import held_out
from federation.learning.scorecard import Scorecard
from gateway.datasets.schema import parse_schema
from gateway.jobs.document import from_toml
from gateway.jobs.member import check_types
from tests.support.scorecards import made_spec, make_frame

LEVELS = ("a", "b", "c", "rare")


def frames():
    """Three banks; one row in all of them has the level `rare`."""
    out = {f"bank-{i}": make_frame(300, seed=i, levels=LEVELS, weights=(0.5, 0.3, 0.2, 0.0)) for i in (1, 2, 3)}
    out["bank-2"].columns["kind"][7] = "rare"
    return out


def sums_by_level(levels, data):
    """Run a job until its first Newton totals, and return what every member then knows: the sum of z(x0) by dummy."""
    members = {name: Scorecard(made_spec(levels=levels, penalty=1.0), frame, members=3) for name, frame in data.items()}
    for _ in range(2):
        sum_round(members)
    one = next(iter(members.values()))
    names, layout = one._coding.names, one.layout()
    hessian = np.sum([quantised(layout, member.local())["hessian"] for member in members.values()], axis=0)
    at = {pair: i for i, pair in enumerate((i, j) for i in range(len(names)) for j in range(i, len(names)))}
    x0 = names.index("x0")
    return {
        name.removeprefix("kind="): 4 * hessian[at[x0, j]] / 2**32  # w = 1/4 at β = 0
        for j, name in enumerate(names)
        if name.startswith("kind=")
    }


def carve(data):
    """Return z(x0) of the one rare row as the difference of all jobs, or None where they do not show it."""
    known = {}
    for levels in permutations(LEVELS):
        known |= sums_by_level(levels, data)
    return -sum(known.values()) if set(known) == {"a", "b", "c"} else None  # all z add up to 0


def test_no_order_of_levels_shows_the_row_of_a_rare_level():
    assert carve(frames()) is None


def test_with_a_reference_of_the_proposers_choice_two_jobs_show_it(monkeypatch):
    data = frames()
    monkeypatch.setattr(scorecard, "reference_first", lambda counts, levels, floor: tuple(levels))
    pooled = np.concatenate([frame.columns["x0"] for frame in data.values()])
    true = (data["bank-2"].columns["x0"][7] - pooled.mean()) / pooled.std()
    assert carve(data) == pytest.approx(true, abs=1e-5)


@pytest.mark.parametrize(("kind", "taken", "refused"), [
    ("category", "numeric", True), ("numeric", "category", True), ("integer", "category", True),
    ("category", "category", False), ("numeric", "numeric", False), ("integer", "numeric", False),
])  # fmt: skip
def test_levels_are_not_summed_as_numbers_nor_numbers_counted_as_levels(kind, taken, refused):
    """Σ code · amount beside Σ amount of each level solves for the level that was merged."""
    schema = parse_schema(f'id = "id"\n[columns.industry]\ntype = "{kind}"\n[columns.y]\ntype = "integer"'.encode())
    levels = 'levels = ["6201", "6202"]' if taken == "category" else ""
    toml = (
        'kind = "scorecard"\npurpose = "p"\nmembers = ["a", "b", "c"]\ndataset = "loans"\n[params]\nlabel = "y"\n'
        f'[[params.features]]\nname = "industry"\ntype = "{taken}"\n{levels}'
    )
    document = from_toml(toml.encode(), space="s", proposer="a", nonce="0" * 32, created=1)
    if not refused:
        check_types(document.plan.features(None), schema)
        return
    with pytest.raises(ChaotianError) as caught:
        check_types(document.plan.features(None), schema)
    assert caught.value.code == "DATA_TYPE"


def test_a_row_does_not_change_sides_by_itself():
    """With any share, share and seed could be chosen so that one known firm is held out and nobody else."""
    ids = [f"firm-{i}" for i in range(400)]
    seeds = (f"s{i}" for i in range(4000))
    found = next(seed for seed in seeds if held_out(["firm-7"], seed, 0.001)[0])
    assert held_out(ids, found, 0.001).sum() == 1  # control: the refusal of a second job would say who has firm-7
    toml = 'kind = "scorecard"\npurpose = "p"\nmembers = ["a", "b", "c"]\ndataset = "loans"\n[params]\nlabel = "y"\n'
    toml += f'seed = "{found}"\nholdout = 0.001\nfeatures = ["x"]'
    with pytest.raises(ChaotianError) as caught:
        from_toml(toml.encode(), space="s", proposer="a", nonce="0" * 32, created=1)
    assert caught.value.code == "BAD_DOCUMENT" and "holdout" in caught.value.detail


@given(st.lists(st.integers(0, 90), min_size=2, max_size=5), st.integers(30, 60), st.integers(30, 60))
def test_what_all_orders_and_floors_leave_over_is_nothing_or_holds_the_floor(sizes, floor, other):
    counts = {f"l{i}": size for i, size in enumerate(sizes)}
    shown = set()
    for order in permutations(counts):
        for rows in (floor, other):
            shown |= set(merge_levels(counts, reference_first(counts, order, rows), rows))
    if shown:
        left = sum(size for level, size in counts.items() if level not in shown)
        assert left == 0 or left >= min(floor, other)
