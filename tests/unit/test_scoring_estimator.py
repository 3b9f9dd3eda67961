"""`FederatedScorecard` is what scikit-learn takes for a fitted classifier, and says which row does not fit."""

import decimal
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import calibration_curve
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils._response import _get_response_values_binary
from sklearn.utils.validation import check_is_fitted

from federation.errors import ChaotianError
from federation.learning.coding import Category, Numeric
from gateway.jobs.models import encode
from gateway.scoring.estimator import FederatedScorecard
from tests.support.models import binned, grouped, made_model

RAW = made_model([Numeric("x", 1.0, 2.0), Category("kind", ("a", "b", "c"), ("b", "c"))], [-1.0, 0.7, 0.5, -0.25])
WOE = made_model(
    [binned("x", [0.0, 1.0], [-1.0, 0.1, 0.9, 0.3]), grouped("kind", [["a"], ["b", "c"]], [-0.4, 0.4])],
    [-1.0, 0.8, 1.1],
    points=True,
)


def rows(number: int = 400) -> pd.DataFrame:
    chance = np.random.default_rng(3)
    x = chance.normal(1, 2, number)
    bad = (chance.random(number) < 1 / (1 + np.exp(-0.8 * x + 1))).astype(int)
    return pd.DataFrame({"name": "n", "kind": chance.choice(list("abc"), number), "x": x, "bad": bad})


@pytest.mark.parametrize("model", [RAW, WOE], ids=["raw", "woe"])
def test_scikit_learns_tools_take_it_as_fitted(model):
    table = rows()
    scorecard = FederatedScorecard(model)
    check_is_fitted(scorecard)
    assert is_classifier(scorecard) and scorecard.classes_.tolist() == [0, 1]
    assert scorecard.n_features_in_ == 2 and scorecard.feature_names_in_.tolist() == ["x", "kind"]
    chances = scorecard.predict_proba(table)
    assert chances.shape == (400, 2) and chances.dtype == np.float64
    assert roc_auc_score(table.bad, chances[:, 1]) == roc_auc_score(table.bad, scorecard.decision_function(table))
    assert make_scorer(roc_auc_score, response_method="predict_proba")(scorecard, table, table.bad) > 0.6
    # What CalibrationDisplay, RocCurveDisplay and the others ask of an estimator before they plot.
    shown, positive = _get_response_values_binary(scorecard, table, response_method="predict_proba")
    assert positive == 1 and (shown == chances[:, 1]).all()
    assert len(calibration_curve(table.bad, shown, n_bins=5)[0]) > 1
    pipeline = make_pipeline(FunctionTransformer(lambda frame: frame.rename(columns={"X": "x"})), scorecard)
    renamed = table.rename(columns={"x": "X"})
    assert (pipeline.fit(renamed, table.bad).predict_proba(renamed) == chances).all()
    assert (scorecard.predict(table) == (chances[:, 1] >= 0.5)).all()
    assert scorecard.score(table, table.bad) == (scorecard.predict(table) == table.bad).mean()
    with pytest.raises(ValueError, match="threshold"):
        clone(scorecard).set_params(threshold=[2]).predict(table)
    careful = clone(scorecard).set_params(threshold=0.1)
    assert careful.predict(table).sum() > scorecard.predict(table).sum()


CHECKS = (
    "check_get_params_invariance",
    "check_set_params",
    "check_no_attributes_set_in_init",
    "check_estimator_repr",
    "check_estimator_cloneable",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_mixin_order",
    "check_positive_only_tag_during_fit",
    "check_n_features_in_after_fitting",
    "check_fit2d_predict1d",
    "check_methods_subset_invariance",
    "check_methods_sample_order_invariance",
    "check_dict_unchanged",
    "check_estimators_pickle",
    "check_readonly_memmap_input",
    "check_f_contiguous_array_estimator",
)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_own_checks(name):
    """Those that hold for what is fitted already: the others fit it to random rows, or want it to learn from them."""
    width = {"check_n_features_in_after_fitting": 4, "check_estimators_pickle": 3, "check_dict_unchanged": 3}
    width |= {"check_methods_subset_invariance": 3, "check_methods_sample_order_invariance": 3}
    width |= {"check_fit2d_predict1d": 3, "check_readonly_memmap_input": 2, "check_f_contiguous_array_estimator": 3}
    columns = width.get(name, 2)
    model = made_model([Numeric(f"x{k}", 0.0, 1.0, True) for k in range(columns)], [0.1] * (columns + 1))
    estimator_checks.__dict__[name]("FederatedScorecard", FederatedScorecard(model))


def test_what_it_is_made_of_and_kept_as(tmp_path):
    path = tmp_path / "model.json"
    path.write_bytes(encode(WOE))
    table = rows(50)
    made = [FederatedScorecard(WOE), FederatedScorecard(dict(WOE.document)), FederatedScorecard(path)]
    made += [FederatedScorecard(str(path)), FederatedScorecard.load(path), pickle.loads(pickle.dumps(made[0]))]
    for scorecard in made:
        assert scorecard.version == WOE.version
        assert (scorecard.decision_function(table) == made[0].decision_function(table)).all()
    path.write_bytes(encode(WOE).replace(b'"bad"', b'"good"'))
    with pytest.raises(ChaotianError) as caught:
        FederatedScorecard.load(path)
    assert caught.value.code == "MODEL_HASH"
    with pytest.raises(NotFittedError):
        FederatedScorecard().predict(table)


def test_points_reasons_and_table():
    table = pd.DataFrame({"x": [-1.0, 5.0, np.nan], "kind": ["a", "c", "b"]}, index=["one", "two", "three"])
    scorecard = FederatedScorecard(WOE)
    assert scorecard.reasons(table)[0] == []
    factor = 20 / np.log(2)
    two = scorecard.reasons(table)[1]
    assert [reason["column"] for reason in two] == ["x", "kind"]
    assert [reason["bin"] for reason in two] == ["> 1", "b, c"]
    assert [reason["points"] for reason in two] == pytest.approx([0.8 * 1.9 * factor, 1.1 * 0.8 * factor])
    assert scorecard.reasons(table, 1)[2][0]["bin"] == "missing"
    full = scorecard.table(table)
    assert full.index.tolist() == ["one", "two", "three"] and (full.model == WOE.version).all()
    assert full.loc["two", ["reason_1", "reason_2"]].tolist() == ["x", "kind"] and full.reason_3.isna().all()
    assert full.points.tolist() == scorecard.points(table).tolist()
    assert FederatedScorecard(RAW).points(table.assign(x=0.0)) is None
    with pytest.raises(ChaotianError):
        scorecard.table(table, 5)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, 2], dtype="int8"),
        pd.Series([1.0, 2.0], dtype="Float32"),
        pd.Series([decimal.Decimal(1), 2], dtype=object),
        pd.Series([1, 2], dtype="double[pyarrow]"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_numbers_of_every_kind(column):
    table = pd.DataFrame({"x": column, "kind": pd.Series(["a", "b"], dtype="category")})
    expected = FederatedScorecard(RAW).decision_function(pd.DataFrame({"x": [1.0, 2.0], "kind": ["a", "b"]}))
    assert (FederatedScorecard(RAW).decision_function(table) == expected).all()


def test_numbers_stand_for_the_text_of_levels():
    model = made_model([Category("k", ("1", "2"), ("2",))], [0.0, 1.0])
    for values in ([1, 2], [1.0, 2.0], ["1", "2"], [np.int64(1), "2"]):
        assert FederatedScorecard(model).decision_function(pd.DataFrame({"k": values})).tolist() == [0.0, 1.0]
    woe = made_model([grouped("k", [["1"], ["2"]], [0.5, 1.5])], [0.0, 1.0])
    assert FederatedScorecard(woe).decision_function(pd.DataFrame({"k": [1.0, np.nan]})).tolist() == [0.5, 0.0]


BAD = {
    "column missing": (lambda t: t.drop(columns="x"), "DATA_COLUMN", "column x is missing"),
    "other capitals": (lambda t: t.rename(columns={"x": "X"}), "DATA_COLUMN", "column x is missing"),
    "column twice": (lambda t: pd.concat([t, t[["x"]]], axis=1), "DATA_COLUMN", "twice"),
    "text": (lambda t: t.assign(x=["1", "2", "3"]), "DATA_TYPE", "row 0, column x"),
    "some text": (lambda t: t.assign(x=np.array([1.0, 2, "a"], dtype=object)), "DATA_TYPE", "row 2, column x"),
    "a day": (lambda t: t.assign(x=pd.Timestamp("2024-01-01")), "DATA_TYPE", "days since 1970-01-01"),
    "no number": (lambda t: t.assign(x=[1.0, np.nan, 2]), "DATA_MISSING", "row 1, column x"),
    "infinite": (lambda t: t.assign(x=[1.0, 2, np.inf]), "NOT_FINITE", "row 2, column x"),
    "too large": (lambda t: t.assign(x=[1.0, 2, 1e30]), "OVERFLOW", "row 2, column x"),
    "larger": (lambda t: t.assign(x=np.array([1, 2, 10**400], dtype=object)), "OVERFLOW", "column x"),
    "unknown level": (lambda t: t.assign(kind=["a", "secret", "b"]), "DATA_DOMAIN", "row 1, column kind"),
    "no level": (lambda t: t.assign(kind=["a", None, "b"]), "DATA_MISSING", "row 1, column kind"),
    "complex": (lambda t: t.assign(x=[1j, 1j, 1j]), "DATA_TYPE", "column x"),
    "three dimensions": (lambda _: np.zeros((2, 2, 2)), "DATA_TYPE", "3 dimensions"),
    "too wide": (lambda _: np.zeros((2, 7)), "DATA_COLUMN", "7 features"),
    "unequal": (lambda _: {"x": [1, 2], "kind": ["a"]}, "DATA_COLUMN", "equally many"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named_by_row_and_column(case):
    change, code, words = BAD[case]
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0], "kind": ["a", "b", "c"]}, index=["s1", "s2", "s3"])
    with pytest.raises(ChaotianError) as caught:
        FederatedScorecard(RAW).predict_proba(change(table))
    assert isinstance(caught.value, ValueError)
    assert caught.value.code == code and words in caught.value.detail, caught.value.detail
    assert not any(secret in caught.value.detail for secret in ("s2", "s3", "secret"))


def test_an_array_has_the_models_columns_in_its_order():
    with pytest.warns(UserWarning, match="valid feature names"):
        found = FederatedScorecard(RAW).decision_function(np.array([[1.0, "b"], [3.0, "a"]], dtype=object))
    assert found.tolist() == [-0.5, -0.30000000000000004]
    assert len(FederatedScorecard(RAW).predict(pd.DataFrame({"x": [], "kind": []}))) == 0
