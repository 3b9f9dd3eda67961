"""Properties of the scorecard's arithmetic."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.plain import run_plain
from federation.learning.coding import merge_levels
from federation.learning.exact import exact_sum
from federation.learning.frame import Frame
from federation.learning.holdout import held_out
from federation.learning.metrics import separation
from federation.learning.scorecard import Scorecard
from tests.support.scorecards import made_spec, make_frame

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, max_size=60))
def test_exact_sum_is_the_sum_of_fractions(values):
    assert exact_sum(np.array(values, dtype=np.float64)) == sum(map(Fraction, values), Fraction(0))


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs(rows):
    bad, good = [s for b, s in rows if b], [s for b, s in rows if not b]
    if not bad or not good:
        return
    found = separation([float(b) for b, _ in rows], [float(s) for _, s in rows])
    pairs = sum((b > g) + (b == g) / 2 for b in bad for g in good)
    assert abs(found.auc - pairs / (len(bad) * len(good))) < 1e-12
    assert found.auc_low <= found.auc <= found.auc_high
    assert abs(found.auc - 0.5) * 2 - 1e-12 <= 1 and found.ks >= abs(found.gini) / 2 - 1e-12


@given(st.lists(st.integers(0, 100), min_size=2, max_size=8), st.integers(1, 60))
def test_no_published_cell_is_below_the_floor(counts, floor):
    levels = [f"l{i}" for i in range(len(counts))]
    by_level = dict(zip(levels, counts, strict=True))
    kept = merge_levels(by_level, levels, floor)
    total = sum(counts)
    for level in kept:
        assert by_level[level] >= floor and total - by_level[level] >= floor
    if kept:
        assert total - sum(by_level[level] for level in kept) >= floor


@given(st.lists(st.text(max_size=12), min_size=1, max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_holdout_depends_on_the_row_alone_and_grows_with_the_share(ids, one, two):
    low, high = sorted((one, two))
    small, large = held_out(ids, "s", low), held_out(ids, "s", high)
    assert (small <= large).all()
    assert [bool(held_out([name], "s", low)[0]) for name in ids] == small.tolist()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=900, max_size=900), st.sampled_from([0.0, 1.0]))
def test_the_result_does_not_depend_on_who_holds_which_row(owners, penalty):
    pooled = make_frame(900, seed=4)
    spec = made_spec(penalty=penalty)
    whole = run_plain({"all": Scorecard(spec, pooled)})["all"].model()
    masks = [np.array(owners) == owner for owner in range(4)]
    parts: dict[str, Frame] = {f"m{i}": pooled.take(mask) for i, mask in enumerate(masks) if mask.any()}
    split = next(iter(run_plain({n: Scorecard(spec, f) for n, f in parts.items()}).values())).model()
    # Means are exact, whoever holds the rows; squares, gradients and Hessians are rounded at each member.
    assert [p.get("mean") for p in whole.document["coding"]] == [p.get("mean") for p in split.document["coding"]]
    ours, theirs = ([line.value for line in model.coefficients] for model in (whole, split))
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-8
