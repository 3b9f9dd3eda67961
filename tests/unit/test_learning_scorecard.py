"""The scorecard job, summed in the clear: exactness, floors, losses, and every coded refusal."""

import json

import numpy as np
import pytest

from bench.plain import quantised, run_plain, sum_round
from bench.pooled import PooledScorecard
from federation.errors import ChaotianError
from federation.learning.compare import compare, fit_alone
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.metrics import separation
from federation.learning.model import Model, _version
from federation.learning.scorecard import Scorecard
from tests.support.scorecards import (
    BANKS,
    credit_rows,
    demo_frames,
    demo_rows,
    demo_spec,
    frame_of,
    made_spec,
    make_frame,
    table_of,
)


def three(rows=400, **kwargs):
    return {f"bank-{seed}": make_frame(rows, seed=seed, shift=seed / 3, **kwargs) for seed in (1, 2, 3)}


def programs(spec, frames):
    return {name: Scorecard(spec, frame) for name, frame in frames.items()}


def code_of(call):
    with pytest.raises(ChaotianError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("penalty", [0.0, 1.0, 250.0])
def test_equals_the_independent_pooled_solver(penalty):
    frames, spec = three(), made_spec(penalty=penalty)
    model = run_plain(programs(spec, frames))["bank-2"].model()
    pooled = PooledScorecard(
        table_of(frames), label="bad", features=[f.document() for f in spec.features], penalty=penalty
    )
    fresh = make_frame(500, seed=9)
    assert np.abs(model.score(fresh) - pooled.score(table_of({"x": fresh}))).max() < 1e-7
    assert np.allclose([line.value for line in model.coefficients], pooled.beta, atol=1e-7)


def test_equals_the_pooled_solver_on_default_credit():
    rows = {name: credit_rows(name) for name in ("bank-1", "bank-2", "bank-3", "test")}
    wide = [f"x{i}" for i in range(23) if max(rows[name][f"x{i}"].nunique() for name in rows) > 60]
    features = [{"name": name, "type": "numeric"} for name in wide]
    features.append({"name": "x14", "type": "category", "levels": sorted(rows["bank-1"]["x14"].unique())})
    spec = ScorecardSpec.from_document({"label": "y", "features": features, "penalty": 1.0, "holdout": 0.0})
    frames = {name: frame_of(part, spec, "id") for name, part in rows.items() if name != "test"}
    model = run_plain(programs(spec, frames))["bank-1"].model()
    pooled = PooledScorecard(table_of(frames), label="y", features=features, penalty=1.0)
    test = frame_of(rows["test"], spec, "id")
    ours, theirs = model.score(test), pooled.score(table_of({"test": test}))
    assert np.abs(ours - theirs).max() < 1e-6
    label = test.label("y")
    assert abs(separation(label, ours).auc - separation(label, theirs).auc) < 1e-7
    assert separation(label, ours).auc > 0.6


@pytest.mark.parametrize("lost_before", [2, 3, 4, 6])
def test_after_a_loss_it_reaches_the_optimum_of_the_survivors_under_the_old_constants(lost_before):
    spec = demo_spec()
    frames = demo_frames(spec)
    everybody = programs(spec, frames)
    left = run_plain(everybody, lose={lost_before: "capital-one"})
    assert sorted(left) == ["bank-of-america", "us-bank", "wells-fargo"]
    model = left["us-bank"].model("job")
    masks = {name: program.training_mask for name, program in everybody.items()}
    survivors = {name: frames[name] for name in left}
    everything = table_of(frames, masks)
    if lost_before == 2:
        # Lost between the two moments: the mean of all, the survivors' squares, the n that was counted.
        own = table_of(survivors, masks)["GrAppv"].to_numpy()
        expected = np.sqrt(((own - everything["GrAppv"].mean()) ** 2).sum() / len(everything))
        part = next(part for part in model.coding.parts if part.name == "GrAppv")
        assert part.sd == pytest.approx(expected, rel=1e-12)
    else:
        features = [f.document() for f in spec.features]
        pooled = PooledScorecard(
            table_of(survivors, masks), label="Default", features=features, penalty=1.0, constants=everything
        )
        rows = demo_rows("others")
        difference = model.score(frame_of(rows, spec, "LoanNr_ChkDgt")) - pooled.score(rows)
        assert np.abs(difference).max() < 1e-6
    assert len(model.coefficients) <= 14
    assert len({program.model("job").version for program in left.values()}) == 1


def test_the_demo_s_floors_hold_with_and_without_capital_one():
    spec = demo_spec()
    everybody = programs(spec, demo_frames(spec))
    sum_round(everybody)
    cells = {name: json.loads(program.floors()) for name, program in everybody.items()}
    left = [cells[name] for name in BANKS if name != "capital-one"]
    assert sum(part["rows"] for part in left) * 30 >= 20 * 14
    assert all(any(part["cells"][cell] for part in left) for cell in left[0]["cells"])


def test_federated_and_local_figures_on_own_held_out_rows():
    spec = demo_spec(holdout=0.2, seed="demo")
    left = run_plain(programs(spec, demo_frames(spec)))
    result = compare(left["bank-of-america"], left["bank-of-america"].model())
    held = int(left["bank-of-america"].holdout_mask.sum())
    assert result["rows"] == held == result["federated"]["rows"]
    assert result["federated"]["auc"] > 0.6 and result["local"]["auc"] > 0.6
    assert result["federated"]["gini"] == pytest.approx(2 * result["federated"]["auc"] - 1)


def test_a_member_alone_with_one_outcome_has_no_local_model_but_a_federated_one():
    frames = three()
    one = frames["bank-1"]
    frames["bank-1"] = Frame(one.ids, {**one.columns, "bad": np.zeros(len(one))})
    spec = made_spec(penalty=1.0, holdout=0.2)
    left = run_plain(programs(spec, frames))
    result = compare(left["bank-1"], left["bank-1"].model())
    assert result["local"] == {"code": "ONE_CLASS"} and result["federated"] == {"code": "ONE_CLASS"}
    assert code_of(lambda: fit_alone(spec, frames["bank-1"])).code == "ONE_CLASS"


def test_local_fit_equals_the_pooled_solver_on_one_bank():
    frame, spec = make_frame(600), made_spec(penalty=2.0)
    model = fit_alone(spec, frame)
    pooled = PooledScorecard(
        table_of({"x": frame}), label="bad", features=[f.document() for f in spec.features], penalty=2.0, min_rows=1
    )
    assert np.abs(model.score(frame) - pooled.score(table_of({"x": frame}))).max() < 1e-7


def test_state_is_restored_in_every_round_and_refused_for_other_parameters():
    frames, spec = three(), made_spec(penalty=1.0)
    everybody = programs(spec, frames)
    while not everybody["bank-1"].done():
        fresh = Scorecard(spec, frames["bank-1"])
        fresh.restore(everybody["bank-1"].state())
        assert fresh.state() == everybody["bank-1"].state()
        assert fresh.layout() == everybody["bank-1"].layout()
        assert quantised(fresh.layout(), fresh.local()) == quantised(fresh.layout(), everybody["bank-1"].local())
        everybody["bank-1"] = fresh
        sum_round(everybody)
    other = Scorecard(made_spec(penalty=2.0), frames["bank-1"])
    assert code_of(lambda: other.restore(everybody["bank-1"].state())).code == "STATE_MISMATCH"
    for bad in (b"{}", b"[]", b"null", b'{"v":1}', b"\xff"):
        assert code_of(lambda bad=bad: other.restore(bad)).code == "BAD_DOCUMENT"


def test_amounts_of_a_trillion_and_rates_of_a_billionth_keep_their_digits():
    frames = three()
    scaled = {
        name: Frame(f.ids, {**f.columns, "x0": f.columns["x0"] * 1e12 + 5e12, "x1": f.columns["x1"] * 1e-9})
        for name, f in frames.items()
    }
    spec = made_spec(penalty=1.0)
    plain, big = (run_plain(programs(spec, part))["bank-1"].model() for part in (frames, scaled))
    values = np.array([[line.value for line in model.coefficients] for model in (plain, big)])
    assert np.abs(values[0] - values[1]).max() < 1e-8


def test_step_control_halves_and_still_converges():
    # A few far outliers on the wrong side make the first full steps overshoot.
    frames = three(rows=200)
    for name, frame in frames.items():
        x, bad = frame.columns["x0"].copy(), frame.columns["bad"].copy()
        bad[:] = x > np.median(x)
        bad[:8] = 1 - bad[:8]
        x[:8] = np.where(bad[:8] == 1, -40.0, 40.0)
        frames[name] = Frame(frame.ids, {**frame.columns, "x0": x, "bad": bad})
    spec = made_spec(penalty=0.0, max_rounds=100)
    model = run_plain(programs(spec, frames))["bank-1"].model()
    pooled = PooledScorecard(table_of(frames), label="bad", features=[f.document() for f in spec.features], penalty=0.0)
    assert np.allclose([line.value for line in model.coefficients], pooled.beta, atol=1e-6)


def test_a_refused_step_is_halved_from_the_last_accepted_point():
    program = Scorecard(made_spec(penalty=1.0), make_frame(600))
    sum_round({"a": program})
    sum_round({"a": program})
    own = quantised(program.layout(), program.local())
    program.advance(own)
    newton = program._newton
    full = list(newton.beta)
    own = quantised(program.layout(), program.local())
    program.advance({**own, "loss": [own["loss"][0] * 3]})
    assert newton.history[-1].halvings == -1
    assert all(abs(2 * half - whole) <= 2 for half, whole in zip(newton.beta, full, strict=True))
    while not program.done():
        sum_round({"a": program})
    again = run_plain({"a": Scorecard(made_spec(penalty=1.0), make_frame(600))})["a"].model()
    assert [line.value for line in program.model().coefficients] == pytest.approx(
        [line.value for line in again.coefficients], abs=1e-8
    )


# --- what is published: merging and floors --------------------------------------------------------------------------


def test_small_levels_are_merged_and_recorded():
    frames = three(rows=300, levels=("a", "b", "c", "d"), weights=(0.5, 0.45, 0.04, 0.01))
    counts = np.unique(np.concatenate([f.columns["kind"] for f in frames.values()]).astype(str), return_counts=True)[1]
    assert counts[3] < 30 <= counts[2]
    spec = made_spec(levels=("a", "b", "c", "d"), penalty=1.0)
    model = run_plain(programs(spec, frames))["bank-1"].model()
    names = [line.name for line in model.coefficients]
    assert "kind=c" in names and "kind=d" not in names
    assert next(p for p in model.document["coding"] if p["name"] == "kind")["merged"] == ["d"]


def test_a_reference_below_the_floor_joins_the_most_frequent_level():
    frames = three(rows=300, levels=("a", "b", "c"), weights=(0.01, 0.6, 0.39))
    model = run_plain(programs(made_spec(penalty=1.0), frames))["bank-1"].model()
    part = next(p for p in model.document["coding"] if p["name"] == "kind")
    assert (part["levels"], part["kept"], part["merged"]) == (["b", "a", "c"], ["c"], ["a"])
    assert "kind=b" not in [line.name for line in model.coefficients]


def test_floors_are_lost_where_no_survivor_affirms_a_cell():
    frames = three(rows=300)
    for name in ("bank-1", "bank-2"):
        kind = frames[name].columns["kind"].copy()
        kind[kind == "c"] = "a"
        kind[:20] = "c"
        frames[name] = Frame(frames[name].ids, {**frames[name].columns, "kind": kind})
    kind = frames["bank-3"].columns["kind"].copy()
    kind[:60] = "c"
    frames["bank-3"] = Frame(frames["bank-3"].ids, {**frames["bank-3"].columns, "kind": kind})
    spec = made_spec(penalty=1.0)
    error = code_of(lambda: run_plain(programs(spec, frames), lose={4: "bank-3"}))
    assert error.code == "FLOOR_LOST" and "kind=c" in error.detail
    run_plain(programs(spec, frames), lose={4: "bank-1"})


def test_floors_are_lost_where_only_the_lost_member_saw_many_values():
    frames = three()
    for name in ("bank-1", "bank-2"):
        few = np.arange(len(frames[name])) % 10 * 1.0
        frames[name] = Frame(frames[name].ids, {**frames[name].columns, "x1": few})
    spec = made_spec(penalty=1.0)
    error = code_of(lambda: run_plain(programs(spec, frames), lose={3: "bank-3"}))
    assert error.code == "FLOOR_LOST" and "values of x1" in error.detail
    run_plain(programs(spec, frames), lose={3: "bank-1"})


def test_floors_are_lost_where_the_rows_left_do_not_suffice():
    frames = {"a": make_frame(120, seed=1), "b": make_frame(100, seed=2), "c": make_frame(80, seed=3)}
    spec = made_spec(penalty=1.0, levels=("a", "b", "c"))
    everybody = programs(spec, frames)
    sum_round(everybody)
    del everybody["a"]
    floors = {name: program.floors() for name, program in everybody.items()}
    error = code_of(lambda: everybody["b"].check_floors(floors))
    assert error.code == "FLOOR_LOST" and "150" in error.detail


def test_floors_say_no_more_than_whole_multiples():
    program = Scorecard(made_spec(), make_frame(419))
    sum_round({"a": program})
    document = json.loads(program.floors())
    assert document["rows"] == 13
    assert set(document["cells"].values()) <= {0, 1}


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"cells":{},"rows":3}', b'{"cells":{"kind=a":1},"rows":-1}', b"\x00" * 100]
)
def test_a_malformed_answer_about_floors_names_its_member(answer):
    everybody = programs(made_spec(), three())
    sum_round(everybody)
    floors = {**{name: program.floors() for name, program in everybody.items()}, "bank-2": answer}
    error = code_of(lambda: everybody["bank-1"].check_floors(floors))
    assert error.code == "MALFORMED" and error.member == "bank-2"


# --- refusals -------------------------------------------------------------------------------------------------------


def changed(frames, column, value):
    return {
        name: Frame(f.ids, {**f.columns, column: value(f) if callable(value) else np.full(len(f), value)})
        for name, f in frames.items()
    }


def test_refusals_that_all_members_reach_alike():
    spec, frames = made_spec(penalty=1.0), three()
    cases = {
        "MIN_ROWS": {name: f.take(np.arange(len(f)) < 60) for name, f in frames.items()},
        "ONE_CLASS": changed(frames, "bad", 0.0),
        "CONSTANT_FEATURE": changed(frames, "x1", 4.2),
        "FEW_VALUES": changed(frames, "x1", lambda f: np.arange(len(f)) % 10 * 1.0),
    }
    for code, part in cases.items():
        everybody = programs(spec, part)
        errors = set()
        parts = [quantised(p.layout(), p.local()) for p in everybody.values()]
        totals = {key: [sum(v) for v in zip(*(p[key] for p in parts), strict=True)] for key in parts[0]}
        for program in everybody.values():
            error = code_of(lambda program=program, totals=totals: program.advance(totals))
            errors.add((error.code, error.detail))
        assert len(errors) == 1 and errors.pop()[0] == code
    eleven = changed(frames, "x1", lambda f: np.arange(len(f)) % 11 * 1.0)
    run_plain(programs(spec, eleven))


def test_a_category_with_one_level_in_all_rows_is_constant():
    part = changed(three(), "kind", lambda f: np.array(["a"] * len(f), dtype=object))
    assert code_of(lambda: run_plain(programs(made_spec(), part))).code == "CONSTANT_FEATURE"


def test_rows_must_suffice_for_the_coefficients():
    frames = {name: f.take(np.arange(len(f)) < 90) for name, f in three(features=20).items()}
    error = code_of(lambda: run_plain(programs(made_spec(features=20, penalty=1.0), frames)))
    assert error.code == "MIN_ROWS" and "460" in error.detail


def test_the_lab_warns_where_a_job_refuses_and_gives_the_same_fit():
    frames = changed(three(rows=50), "x1", lambda f: np.arange(len(f)) % 7 * 1.0)
    spec = made_spec(penalty=1.0)
    assert code_of(lambda: run_plain(programs(spec, frames))).code == "MIN_ROWS"
    lab = run_plain({name: Scorecard(spec, frame, strict=False) for name, frame in frames.items()})["bank-1"]
    assert [warning.code for warning in lab.warnings] == ["MIN_ROWS", "FEW_VALUES"]
    features = [f.document() for f in spec.features]
    pooled = PooledScorecard(table_of(frames), label="bad", features=features, penalty=1.0)
    assert np.allclose([line.value for line in lab.model().coefficients], pooled.beta, atol=1e-8)


def test_complete_separation_is_proven_and_a_penalty_cures_it():
    part = changed(three(), "bad", lambda f: (f.columns["x0"] > 0.3).astype(float))
    assert code_of(lambda: run_plain(programs(made_spec(), part))).code == "SEPARABLE"
    run_plain(programs(made_spec(penalty=1.0), part))


def test_quasi_separation_by_a_level_is_found():
    part = changed(three(), "bad", lambda f: np.where(f.columns["kind"] == "c", 1.0, f.columns["bad"]))
    assert code_of(lambda: run_plain(programs(made_spec(), part))).code == "SEPARABLE"


def test_collinear_columns_are_singular_and_a_penalty_cures_it():
    part = changed(three(), "x2", lambda f: 3.0 * f.columns["x0"] - 2.0)
    assert code_of(lambda: run_plain(programs(made_spec(), part))).code == "SINGULAR"
    model = run_plain(programs(made_spec(penalty=1.0), part))["bank-1"].model()
    values = {line.name: line.value for line in model.coefficients}
    assert values["x0"] == pytest.approx(values["x2"], abs=1e-6)


def test_too_few_rounds_is_said():
    assert code_of(lambda: run_plain(programs(made_spec(max_rounds=2), three()))).code == "NOT_CONVERGED"


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("x1", float("nan"), "DATA_MISSING"),
        ("x1", float("inf"), "NOT_FINITE"),
        ("x1", 1e30, "OVERFLOW"),
        ("kind", None, "DATA_MISSING"),
        ("kind", "", "DATA_MISSING"),
        ("kind", "secret-level", "DATA_TYPE"),
        ("bad", 2.0, "DATA_TYPE"),
        ("bad", float("nan"), "DATA_MISSING"),
    ],
)
def test_faults_of_own_data_name_the_column_and_no_value(column, value, code):
    frame = make_frame(300)
    values = frame.columns[column].copy()
    values[17] = value
    error = code_of(lambda: Scorecard(made_spec(), Frame(frame.ids, {**frame.columns, column: values})))
    assert error.code == code and column in error.detail
    assert "secret" not in error.detail + error.hint and "1-17" not in error.detail


def test_missing_columns_and_wrong_types_of_own_data():
    frame = make_frame(300)
    less = {name: value for name, value in frame.columns.items() if name != "x2"}
    assert code_of(lambda: Scorecard(made_spec(), Frame(frame.ids, less))).code == "DATA_COLUMN"
    text = {**frame.columns, "x2": np.array(["a"] * 300, dtype=object)}
    assert code_of(lambda: Scorecard(made_spec(), Frame(frame.ids, text))).code == "DATA_TYPE"
    assert code_of(lambda: Frame(frame.ids, {"x": np.zeros(3)})).code == "DATA_COLUMN"


def test_totals_that_cannot_be_are_malformed():
    program = Scorecard(made_spec(), make_frame(400))
    own = quantised(program.layout(), program.local())
    for bad in ({}, {**own, "rows": [1, 2]}, {**own, "bads": [10**6]}, {**own, "levels": [0, 0, 0]}):
        assert code_of(lambda bad=bad: Scorecard(made_spec(), make_frame(400)).advance(bad)).code == "MALFORMED"


def test_nothing_of_the_rows_is_in_a_repr():
    frame = make_frame(50)
    assert repr(frame) == "Frame(50 rows, 5 columns)"


@pytest.mark.parametrize(
    "change",
    [
        {"penalty": -1.0},
        {"penalty": float("nan")},
        {"penalty": "1"},
        {"holdout": 1.0},
        {"seed": 7},
        {"max_rounds": 2.5},
        {"label": ""},
        {"label": "x0"},
        {"features": []},
        {"features": "x0"},
        {"features": [{"name": "x0", "type": "text"}]},
        {"features": [{"name": "x0", "type": "numeric"}, {"name": "x0", "type": "numeric"}]},
        {"features": [{"name": "x0", "type": "numeric", "levels": ["a"]}]},
        {"features": [{"name": "k", "type": "category", "levels": ["a"]}]},
        {"features": [{"name": "k", "type": "category", "levels": ["a", "a"]}]},
        {"features": [{"name": "k=a", "type": "category", "levels": ["a", "b"]}]},
        {"features": [{"name": "x0", "type": "numeric", "more": 1}]},
        {"unknown": 1},
    ],
)
def test_unknown_or_wrong_parameters_are_refused(change):
    good = {"label": "bad", "features": [{"name": "x0", "type": "numeric"}]}
    ScorecardSpec.from_document(good)
    assert code_of(lambda: ScorecardSpec.from_document({**good, **change})).code == "BAD_DOCUMENT"


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return run_plain(programs(made_spec(penalty=1.0), three()))["bank-1"].model("a" * 64)


def test_standard_errors_are_those_of_the_penalised_hessian(model):
    table = table_of(three())
    pooled = PooledScorecard(table, label="bad", features=[f.document() for f in made_spec().features], penalty=1.0)
    x = np.column_stack([np.ones(len(table)), pooled.design(table)])
    p = 1 / (1 + np.exp(-(x @ pooled.beta)))
    hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    expected = np.sqrt(np.diag(np.linalg.inv(hessian)))
    assert np.allclose([line.standard_error for line in model.coefficients], expected, rtol=1e-8)
    from scipy.stats import norm

    for line in model.coefficients:
        assert line.z == pytest.approx(line.value / line.standard_error)
        assert line.p == pytest.approx(2 * norm.sf(abs(line.z)), rel=1e-9)


def test_a_changed_model_is_refused(model):
    document = json.loads(json.dumps(dict(model.document)))
    assert Model.load(document).version == model.version
    document["coefficients"][1]["hex"] = (3.0).hex()
    assert code_of(lambda: Model.load(document)).code == "MODEL_HASH"
    for bad in (None, [], {}, {"format": "x"}, {**model.document, "version": 3}):
        assert code_of(lambda bad=bad: Model.load(bad)).code in ("BAD_DOCUMENT", "MODEL_HASH")


def test_a_document_with_a_right_hash_that_is_no_scorecard_is_refused(model):
    def rehashed(change):
        document = json.loads(json.dumps(dict(model.document)))
        del document["version"]
        change(document)
        return {**document, "version": _version(document)}

    assert Model.load(rehashed(lambda d: None)).version == model.version
    for change in (
        lambda d: d.pop("penalty"),
        lambda d: d.update(extra=1),
        lambda d: d.update(penalty="1"),
        lambda d: d.update(job=None),
        lambda d: d["training"].pop("bads"),
        lambda d: d["convergence"].update(history=[]),
        lambda d: d["convergence"].update(history=[{}]),
        lambda d: d["coefficients"].pop(),
        lambda d: d["coefficients"][0].update(hex="0x1p+5000"),
        lambda d: d["coefficients"][0].update(value="7.0"),
        lambda d: d["coefficients"][0].update(hex="inf", value="inf"),
        lambda d: d["coefficients"].reverse(),
        lambda d: d["coding"][0].update(sd="0x0p+0"),
        lambda d: d.update(coding={}),
        lambda d: d.update(coding=[None]),
    ):
        assert code_of(lambda change=change: Model.load(rehashed(change))).code == "BAD_DOCUMENT"


def test_a_reloaded_model_scores_the_same(model):
    again = Model.load(json.loads(json.dumps(dict(model.document))))
    frame = make_frame(200, seed=77)
    assert np.array_equal(again.score(frame), model.score(frame))
    assert model.columns == ("x0", "x1", "x2", "kind")
