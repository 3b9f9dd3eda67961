"""The profile job against pandas and SciPy on the pooled rows, its small cells, and its refusals."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.plain import run_plain
from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.learning.histogram import BINS, SLOTS, bin_index, equal_frequency_edges, histogram, quantile, upper_edge
from federation.learning.profile import OTHER, Profile, ProfileSpec
from federation.learning.steps import chunks

LEVELS = ["a", "b", "c", "d"]


def frame_of(rows, seed):
    random = np.random.default_rng(seed)
    amount = np.round(random.lognormal(8, 2, rows), 2) * random.choice([-1, 1], rows, p=[0.1, 0.9])
    amount[random.random(rows) < 0.1] = 0.0
    far = 1e12 + random.normal(0, 1, rows)  # cancellation would leave nothing of its spread
    amount[random.random(rows) < 0.15] = np.nan
    kind = random.choice([*LEVELS[:3], "d", ""], rows, p=[0.5, 0.3, 0.1, 0.01, 0.09]).astype(object)
    kind[:2] = "unheard of"
    columns = {"amount": amount, "far": far, "kind": kind, "same": np.full(rows, 4.5), "rare": np.full(rows, np.nan)}
    columns["rare"][:3] = 1.0
    return Frame([f"{seed}-{i}" for i in range(rows)], columns)


def spec_of(**changes):
    features = [{"name": name, "type": "numeric"} for name in ("amount", "far", "same", "rare")]
    features.append({"name": "kind", "type": "category", "levels": LEVELS})
    return ProfileSpec.from_document({"features": features, "domains": {"amount": [-1000, None]}, **changes})


@pytest.fixture(scope="module")
def frames():
    return {f"bank-{seed}": frame_of(rows, seed) for seed, rows in ((1, 700), (2, 450), (3, 90))}


@pytest.fixture(scope="module")
def table(frames):
    return pd.concat([pd.DataFrame(dict(frame.columns)) for frame in frames.values()], ignore_index=True)


@pytest.fixture(scope="module")
def result(frames):
    left = run_plain({name: Profile(spec_of(), frame) for name, frame in frames.items()})
    assert len({json.dumps(program.result.document()) for program in left.values()}) == 1
    assert json.loads(json.dumps(left["bank-1"].result.document())) == left["bank-1"].result.document()
    return left["bank-1"].result


def test_counts_and_moments_are_the_pooled_ones(result, table):
    assert result.rows == len(table)
    for name in ("amount", "far"):
        column, values = result.column(name), table[name].dropna().to_numpy()
        assert (column.present, column.missing) == (len(values), len(table) - len(values))
        assert column.mean == pytest.approx(values.mean(), rel=1e-15)
        # Independent of the size of the values: long doubles hold what float64 would lose.
        exact = np.asarray(values, dtype=np.longdouble)
        assert column.sd == pytest.approx(float(exact.std()), rel=1e-10)
        centred = np.asarray(exact - exact.mean(), dtype=np.float64)
        assert column.skewness == pytest.approx(stats.skew(centred), rel=1e-6, abs=1e-9)
        assert not column.constant
    assert result.column("amount").violations == int((table["amount"] < -1000).sum())
    assert result.column("same").constant and result.column("same").sd == 0.0
    assert result.column("same").skewness is None


def test_quantiles_lie_within_their_bounds_and_the_range_hides_the_outermost_rows(result, table):
    values = np.sort(table["amount"].dropna().to_numpy())
    column = result.column("amount")
    assert [q.share for q in column.quantiles] == [0.05, 0.25, 0.5, 0.75, 0.95]  # 1 % would be 10 rows
    for found in column.quantiles:
        exact = np.quantile(values, found.share, method="inverted_cdf")
        assert found.low < exact <= found.high and found.low <= found.estimate <= found.high
        assert found.high - found.low <= abs(exact) / 16 + 1e-12
    assert 0 < (values <= column.low).sum() < 30 and 0 < (values > column.high).sum() < 30
    assert column.low not in values and column.high not in values


def test_small_cells_stay_hidden(result, table):
    rare = result.column("rare")
    assert rare.present is None and rare.missing is None and rare.mean is None and rare.quantiles == ()
    assert (rare.low, rare.sd) == (None, None)
    kind = result.column("kind")
    counts = table["kind"].value_counts()
    assert counts["d"] < 30 and kind.violations is None
    assert kind.levels["a"] == counts["a"] and OTHER in kind.levels
    assert all(rows >= 30 for rows in kind.levels.values())
    assert sum(kind.levels.values()) == kind.present and "d" not in kind.levels


def test_all_fits_the_secure_sum_s_largest_values():
    rows = 60
    big = Frame(
        [str(i) for i in range(rows)], {"x": np.where(np.arange(rows) % 2, 1.0, -1.0) * np.nextafter(2.0**60, 0)}
    )
    spec = ProfileSpec.from_document({"features": [{"name": "x", "type": "numeric"}]})
    column = run_plain({name: Profile(spec, big) for name in "abc"})["a"].result.columns[0]
    assert column.sd == pytest.approx(2.0**60) and column.mean == 0.0


def test_layouts_do_not_depend_on_rows_or_values(frames):
    small = Profile(spec_of(), frames["bank-3"]).layout()
    assert small == Profile(spec_of(), frames["bank-1"]).layout()
    left = {name: Profile(spec_of(), frame) for name, frame in frames.items()}
    seen = []
    run_plain(left, after=lambda _: seen.append(None if left["bank-1"].done() else left["bank-1"].layout().document()))
    assert [sorted({f["name"] for f in layout["fields"]}) for layout in seen if layout] == [
        ["histogram"],
        ["cubes", "squares"],
    ]


def test_many_columns_take_several_rounds_of_histograms():
    names = [f"x{i}" for i in range(7)]
    spec = ProfileSpec.from_document({"features": [{"name": name, "type": "numeric"} for name in names]})
    random = np.random.default_rng(1)
    frame = Frame([str(i) for i in range(60)], {name: random.normal(size=60) for name in names})
    assert chunks(7, SLOTS, 400) == 2
    programs = {name: Profile(spec, frame, members=400) for name in "abc"}
    operations = []
    run_plain(programs, after=lambda _: operations.append(programs["a"].operation))
    assert operations == ["columns.histogram"] * 4 + ["profile.moments"] * 2
    assert (
        programs["a"].result.columns
        == next(iter(run_plain({n: Profile(spec, frame) for n in "abc"}).values())).result.columns
    )


def test_restored_in_every_round(frames):
    programs = {name: Profile(spec_of(), frame) for name, frame in frames.items()}

    def restored(_):
        fresh = Profile(spec_of(), frames["bank-1"])
        fresh.restore(programs["bank-1"].state())
        assert fresh.state() == programs["bank-1"].state() and fresh.operation == programs["bank-1"].operation
        assert not fresh.done() or fresh.result == programs["bank-1"].result

    run_plain(programs, after=restored)
    with pytest.raises(ChaotianError) as caught:
        Profile(spec_of(domains={}), frames["bank-1"]).restore(programs["bank-1"].state())
    assert caught.value.code == "STATE_MISMATCH"


def test_a_loss_after_the_counts_ends_the_profile(frames):
    with pytest.raises(ChaotianError) as caught:
        run_plain({n: Profile(spec_of(), f) for n, f in frames.items()}, lose={3: "bank-2"})
    assert caught.value.code == "FLOOR_LOST"
    left = run_plain({n: Profile(spec_of(), f) for n, f in frames.items()}, lose={1: "bank-2"})
    assert left["bank-1"].result.rows == 790


@pytest.mark.parametrize(
    "document",
    [
        {"features": []},
        {"features": "x"},
        {"domains": {"kind": [0, 1]}},
        {"domains": {"amount": [2, 1]}},
        {"domains": {"amount": [True, 1]}},
        {"domains": {"amount": 3}},
        {"more": 1},
    ],
)
def test_parameters_are_read_strictly(document):
    with pytest.raises(ChaotianError) as caught:
        spec_of(**document)
    assert caught.value.code == "BAD_DOCUMENT"


def test_a_wrong_type_and_too_few_rows_are_refused(frames):
    frame = frames["bank-3"]
    with pytest.raises(ChaotianError) as caught:
        Profile(spec_of(), Frame(frame.ids, {**frame.columns, "far": frame.columns["kind"]}))
    assert caught.value.code == "DATA_TYPE" and "far" in caught.value.detail
    few = frame.take(np.arange(len(frame)) < 5)
    with pytest.raises(ChaotianError) as caught:
        run_plain({name: Profile(spec_of(), few) for name in "abc"})
    assert caught.value.code == "MIN_ROWS"


# --- the histogram --------------------------------------------------------------------------------------------


def test_every_value_lies_in_its_bin():
    random = np.random.default_rng(3)
    values = random.normal(size=4000) * 2.0 ** random.integers(-60, 59, 4000)
    values = np.concatenate([values, [0.0, -0.0, 1.0, -1.0, 1.0625, 2.0, -2.0, 2.0**-64, -(2.0**-64), 5e-324, -5e-324]])
    index = bin_index(values)
    assert index.min() >= 0 and index.max() < BINS
    for value, place in zip(values.tolist(), index.tolist(), strict=True):
        assert upper_edge(place - 1) < value <= upper_edge(place)
    order = np.argsort(values)
    assert (np.diff(index[order]) >= 0).all()
    edges = [upper_edge(place) for place in range(-1, BINS)]
    assert all(a < b for a, b in pairwise(edges))


def test_edges_of_equal_frequency_and_quantiles_of_odd_columns():
    assert equal_frequency_edges(histogram(np.full(100, 3.0)).tolist(), 10) == ()
    assert equal_frequency_edges(histogram(np.full(100, np.nan)).tolist(), 10) == ()
    two = histogram(np.repeat([0.0, 1.0], [900, 100])).tolist()
    assert equal_frequency_edges(two, 10) == (0.0,)
    assert quantile(two, 0.5).high == 0.0 and quantile(two, 0.95).high == 1.0
    assert quantile(two, 0.0).high == 0.0 and quantile(two, 1.0).high == 1.0
