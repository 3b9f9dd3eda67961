"""Properties of merging: no published bin is too small, no row is lost, nothing follows from the order of levels."""

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.learning.bins import ColumnBins, merged
from federation.learning.evaluate import merge_bins
from federation.learning.frame import Feature
from federation.learning.options import BinningOptions

COUNTS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40)), min_size=3, max_size=9)


@settings(deadline=None)
@given(COUNTS, st.integers(1, 60), st.sampled_from(["none", "auto", "increasing", "decreasing"]))
def test_numeric_bins(counts, floor, monotone):
    goods, bads = sum(g for g, _ in counts), sum(b for _, b in counts)
    if not goods or not bads:
        return
    edges = [float(k) for k in range(len(counts) - 2)]
    options = BinningOptions(monotone=monotone)
    column = merged(Feature("x", "numeric"), edges, counts, floor, options)
    assert (sum(g for g, _ in column.counts), sum(b for _, b in column.counts)) == (goods, bads)
    if not column.constant:
        assert all(sum(pair) >= floor and min(pair) > 0 for pair in column.counts)
    assert column.information >= -1e-12 and set(column.edges) <= set(edges)
    assert (column.missing >= 0) == (sum(counts[-1]) > 0)
    assert ColumnBins.from_document(column.document()) == column


@settings(deadline=None)
@given(COUNTS, st.integers(1, 60), st.randoms(use_true_random=False))
def test_levels(counts, floor, random):
    if not sum(g for g, _ in counts) or not sum(b for _, b in counts):
        return
    levels = [f"l{k}" for k in range(len(counts) - 1)]
    by_level = dict(zip(levels, counts, strict=False))

    def bins(order):
        listed = [*(by_level[level] for level in order), counts[-1]]
        feature = Feature("kind", "category", tuple(order))
        column = merged(feature, (), listed, floor, BinningOptions())
        groups = [frozenset(group) for group in column.groups]
        missing = groups[column.missing] if 0 <= column.missing < len(groups) else column.missing >= 0
        return {(group, pair) for group, pair in zip(groups, column.counts, strict=False)}, missing, column

    shuffled = list(levels)
    random.shuffle(shuffled)
    one, other = bins(levels), bins(shuffled)
    assert one[:2] == other[:2]
    column = one[2]
    assert sum(map(sum, column.counts)) == sum(map(sum, counts)) and sorted(column.levels) == levels
    if not column.constant:
        assert all(sum(pair) >= floor and min(pair) > 0 for pair in column.counts)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(0, 9)), max_size=40), st.integers(1, 60))
def test_score_bins(cells, floor):
    out = merge_bins(cells, floor)
    assert [sum(c[k] for c in out) for k in range(3)] == [sum(c[k] for c in cells) for k in range(3)]
    assert len(out) <= 1 or all(good + bad >= floor for good, bad, _ in out)
