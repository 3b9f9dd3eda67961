"""`chaotian lab train`: the scorecard that pooled rows give, honest comparisons, faults with file, row and column."""

import csv
import gzip
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from federation.errors import ChaotianError
from federation.learning.model import Model
from gateway.cli.main import run as cli
from gateway.lab.metered import MeteredFederation
from gateway.lab.output import FILES, write
from gateway.lab.settings import TrainSettings, parse_members, parse_parameters
from gateway.lab.training import train
from tests.support.entropy import SeededEntropy
from tests.support.scorecards import DATA, make_frame

BANKS = ("bank-1", "bank-2", "bank-3")
COLUMNS = [f"x{i}" for i in range(23)]


def credit(name):
    return DATA / f"default_credit_{name}.csv"


def made(folder, *, rows=150, members=4, change=lambda index, table: table, suffix=".csv"):
    """Files of made-up loans; returns settings' members and the tables as written."""
    tables, paths = {}, {}
    for index in range(members):
        frame = make_frame(rows, seed=index + 1)
        table = pd.DataFrame({"loan": frame.ids, **frame.columns})
        tables[f"m{index}"] = table = change(index, table)
        paths[f"m{index}"] = path = folder / f"m{index}{suffix}"
        table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
    return paths, tables


def go(members, *, id="loan", label="bad", test=None, param=(), drop=(), category=()):
    settings = TrainSettings(
        members=members, id=id, label=label, test=test, parameters=parse_parameters(param), drop=drop, category=category
    )
    return train(settings, entropy=SeededEntropy(1))


def refused(code, *parts, **given):
    with pytest.raises(ChaotianError) as error:
        go(**given)
    assert error.value.code == code
    for part in parts:
        assert part in error.value.detail
    return error.value


def pooled_logits(tables, test, columns, label, penalty):
    """Log-odds by scikit-learn on pooled z-scores, without a line of the product."""
    rows = pd.concat(tables)
    x = rows[columns].to_numpy(float)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    fit = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-12, max_iter=500)
    fit.fit((x - mean) / sd, rows[label].to_numpy(float))
    return fit.decision_function((test[columns].to_numpy(float) - mean) / sd)


def test_the_scores_are_those_of_pooled_rows(tmp_path):
    result = go({name: credit(name) for name in BANKS}, id="id", label="y", test=credit("test"))
    document = write(result, tmp_path)
    assert all((tmp_path / name).stat().st_size for name in FILES)
    test = pd.read_csv(credit("test"))
    expected = pooled_logits([pd.read_csv(credit(name)) for name in BANKS], test, COLUMNS, "y", 1.0)
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores.columns) == ["id", "score", "probability"]
    assert scores["id"].tolist() == test["id"].tolist()
    assert np.abs(scores["score"] - expected).max() < 1e-6
    assert np.abs(scores["probability"] - 1 / (1 + np.exp(-expected))).max() < 1e-6
    assert document == json.loads((tmp_path / "result.json").read_text())
    assert document["metrics"]["auc"] == pytest.approx(roc_auc_score(test["y"], expected), abs=1e-9)
    assert document["metrics"]["gini"] == pytest.approx(2 * document["metrics"]["auc"] - 1)
    assert document["members"] == {name: {"rows": 1000, "columns": 23} for name in BANKS}
    assert (document["job"], document["split"], document["aligned_rows"]) == ("scorecard", "rows", 3000)
    assert set(document["metrics_local"]) == set(document["bytes"]) == set(BANKS)
    assert document["max_logit_difference"] < 1e-6
    model = (tmp_path / "model.json").read_bytes()
    assert document["model_sha256"] == hashlib.sha256(model).hexdigest()
    assert Model.load(json.loads(model)).version == document["model_version"]
    assert any("FEW_VALUES" in warning for warning in document["warnings"])


def test_a_local_model_is_that_of_the_members_rows_alone():
    result = go({name: credit(name) for name in BANKS}, id="id", label="y", test=credit("test"), param=["penalty=2"])
    test = pd.read_csv(credit("test"))
    for name in BANKS:
        expected = pooled_logits([pd.read_csv(credit(name))], test, COLUMNS, "y", 2.0)
        assert np.abs(result.scored[name].local - expected).max() < 1e-5


def test_bytes_are_those_that_crossed(tmp_path, monkeypatch):
    crossed = {"sent": 0, "received": 0}
    deliver = MeteredFederation.deliver

    def listen(self, round_, send):
        crossed["received"] += len(send.request)
        return deliver(self, round_, send)

    monkeypatch.setattr(MeteredFederation, "deliver", listen)
    fit = go(made(tmp_path)[0]).fit
    assert crossed["received"] == sum(fit.received.values())
    assert all(fit.sent[name] > 1000 for name in fit.sent)


def test_every_way_to_write_a_file_gives_the_same_model(tmp_path):
    versions = set()
    for suffix in (".csv", ".csv.gz", ".parquet"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        paths, _ = made(folder, suffix=suffix)
        if suffix == ".csv.gz":
            assert all(gzip.decompress(path.read_bytes()) for path in paths.values())
        versions.add(go(paths).fit.model.version)
    assert len(versions) == 1


def test_columns_in_another_order_are_the_same_columns(tmp_path):
    paths, _ = made(tmp_path)
    one = go(paths).fit.model.version
    turned, _ = made(tmp_path, change=lambda i, table: table[table.columns[::-1]] if i else table)
    assert go(turned).fit.model.version == one


def test_text_becomes_a_category_with_the_levels_of_all(tmp_path):
    paths, tables = made(tmp_path)
    result = go(paths, param=["holdout=0"])
    kinds = {feature.name: feature for feature in result.tables.features}
    assert {name: feature.type for name, feature in kinds.items()} == {
        "x0": "numeric", "x1": "numeric", "x2": "numeric", "kind": "category",
    }  # fmt: skip
    assert kinds["kind"].levels == tuple(sorted({x for table in tables.values() for x in table["kind"]}))
    assert result.evaluated == "training" and len(result.ids) == 600


def test_numbers_can_be_categories_where_one_says_so(tmp_path):
    def add(index, table):
        return table.assign(branch=[str(row % 3 + 1) for row in range(len(table))])

    paths, _ = made(tmp_path, change=add)
    plain = {feature.name: feature.type for feature in go(paths).tables.features}
    named = {feature.name: feature for feature in go(paths, category=("branch",)).tables.features}
    assert plain["branch"] == "numeric"
    assert (named["branch"].type, named["branch"].levels) == ("category", ("1", "2", "3"))


def test_held_out_rows_are_scored_and_do_not_train(tmp_path):
    paths, _ = made(tmp_path)
    result = go(paths, param=["holdout=0.3", "seed=a"])
    assert result.evaluated == "holdout"
    assert len(result.ids) + sum(rows for rows, _ in result.trained.values()) == 600
    assert 120 < len(result.ids) < 240
    assert go(paths, param=["holdout=0.3", "seed=b"]).ids != result.ids


def test_cross_validation_scores_each_row_once_by_models_that_did_not_see_it(tmp_path):
    paths, tables = made(tmp_path)
    result = go(paths, param=["folds=3"])
    assert result.evaluated == "folds"
    assert result.ids == [loan for table in tables.values() for loan in table["loan"]]
    assert np.isfinite(result.scores).all()
    seen = np.concatenate([result.fit.model.score(frame) for frame in result.tables.frames.values()])
    assert np.abs(seen - result.scores).max() > 1e-3
    assert np.abs(result.scores - np.concatenate([each.pooled for each in result.scored.values()])).max() < 1e-6


def holes(index, table):
    random = np.random.default_rng(100 + index)
    table = table.copy()
    table.loc[random.random(len(table)) < 0.1, "x1"] = np.nan
    table.loc[random.random(len(table)) < 0.05, "kind"] = None
    return table


def test_missing_values_are_an_error_unless_imputed(tmp_path):
    paths, tables = made(tmp_path, change=holes)
    row = int(tables["m0"]["x1"].isna().to_numpy().argmax()) + 2
    error = refused("DATA_MISSING", "m0.csv", f"row {row}", "column x1", members=paths)
    assert "impute=mean" in error.hint


def test_imputed_means_are_pooled_means(tmp_path):
    paths, tables = made(tmp_path, change=holes)
    result = go(paths, param=["impute=mean", "holdout=0"])
    pooled = pd.concat(tables.values())
    part = next(part for part in result.fit.model.coding.parts if part.name == "x1")
    filled = pooled["x1"].fillna(pooled["x1"].mean())
    assert (part.mean, part.sd) == (pytest.approx(filled.mean()), pytest.approx(filled.std(ddof=0)))
    kind = next(feature for feature in result.tables.features if feature.name == "kind")
    assert kind.levels[-1] == "(missing)"


def test_rows_with_missing_values_are_scored_as_the_mean(tmp_path):
    paths, tables = made(tmp_path, change=holes)
    test = tmp_path / "test.csv"
    base = tables["m0"].assign(loan=[f"t{i}" for i in range(150)])
    base.to_csv(test, index=False)
    result = go(paths, test=test, param=["impute=mean"])
    part = next(part for part in result.fit.model.coding.parts if part.name == "x1")
    base.assign(x1=base["x1"].fillna(part.mean)).to_csv(test, index=False)
    assert np.abs(go(paths, test=test, param=["impute=mean"]).scores - result.scores).max() < 1e-9


def bin_of(values, edges):
    """Code = number of edges strictly below the value; missing last."""
    return np.where(np.isnan(values), len(edges) + 1, (values[:, None] > np.array(edges)[None, :]).sum(axis=1))


def test_weights_of_evidence_are_those_of_pooled_rows(tmp_path):
    def change(index, table):
        return table.assign(x1=table["x1"].mask(np.random.default_rng(index).random(len(table)) < 0.3))

    paths, tables = made(tmp_path, rows=300, change=change)
    edges = {"x0": [-0.5, 0.25, 1.0], "x1": [0.0], "x2": [-1.0, 0.0, 1.0]}
    (tmp_path / "edges.json").write_text(json.dumps(edges))
    result = go(paths, param=["features=woe", f"edges={tmp_path / 'edges.json'}", "holdout=0", "penalty=0.5"])
    pooled = pd.concat(tables.values())
    bad = pooled["bad"].to_numpy()
    design = []
    parts = {part.name: part for part in result.fit.model.coding.parts}
    for name, cuts in edges.items():
        assert parts[name].edges == tuple(cuts)
        codes = bin_of(pooled[name].to_numpy(), cuts)
        size = len(parts[name].counts)
        bads, goods = np.bincount(codes, bad, size), np.bincount(codes, 1 - bad, size)
        assert parts[name].counts == tuple(zip(goods.astype(int), bads.astype(int), strict=True))
        woe = np.log((bads / bads.sum()) / (goods / goods.sum()))
        assert np.abs(np.array(parts[name].weights) - woe).max() < 1e-12
        information = ((bads / bads.sum() - goods / goods.sum()) * woe).sum()
        assert abs(parts[name].information - information) < 1e-9
        design.append(woe[codes])
    levels = {level: at for at, group in enumerate(parts["kind"].groups) for level in group}
    design.append(np.array(parts["kind"].weights)[pooled["kind"].map(levels)])
    x = np.column_stack(design)
    fit = LogisticRegression(C=2.0, solver="newton-cholesky", tol=1e-12, max_iter=500).fit(x, bad)
    assert np.abs(fit.decision_function(x) - result.scores).max() < 1e-6
    document = write(result, tmp_path)
    assert document["max_logit_difference"] < 1e-6
    assert document["parameters"]["edges"] == edges
    page = (tmp_path / "report.html").read_text()
    assert "information value" in page


def test_under_woe_missing_values_are_a_bin_and_edges_are_found(tmp_path):
    paths, _ = made(tmp_path, rows=300, change=holes)
    result = go(paths, param=["features=woe", "bins=4", "smoothing=0.5"])
    parts = {part.name: part for part in result.fit.model.coding.parts}
    assert parts["x1"].missing >= 0 and parts["x0"].missing == -1
    assert all(len(parts[name].edges) <= 3 for name in ("x0", "x1", "x2"))
    assert parts["kind"].levels and "(missing)" not in parts["kind"].levels


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "BAD_DOCUMENT"),
        ("[1]", "BAD_DOCUMENT"),
        ('{"x0": [2, 1]}', "BAD_DOCUMENT"),
        ('{"x0": ["a"]}', "BAD_DOCUMENT"),
        ('{"kind": [1]}', "BAD_DOCUMENT"),
        ('{"nowhere": [1]}', "BAD_DOCUMENT"),
        (None, "DATA_SOURCE"),
    ],
)
def test_edges_that_are_refused(tmp_path, text, code):
    paths, _ = made(tmp_path)
    if text is not None:
        (tmp_path / "edges.json").write_text(text)
    with pytest.raises(ChaotianError) as error:
        go(paths, param=["features=woe", f"edges={tmp_path / 'edges.json'}"])
    assert error.value.code == code


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        (lambda t: t.drop(columns="x1"), "DATA_COLUMN", ("m1.csv", "x1", "missing")),
        (lambda t: t.assign(other=1), "DATA_COLUMN", ("m1.csv", "other")),
        (lambda t: t.drop(columns="bad"), "DATA_COLUMN", ("m1.csv", "bad")),
        (lambda t: t.rename(columns={"loan": "Loan"}), "DATA_COLUMN", ("m1.csv", "loan")),
        (lambda t: t.assign(x0=["secret7", *t["x0"].astype(str)[1:]]), "DATA_TYPE", ("m1.csv", "row 2", "x0")),
        (lambda t: t.assign(bad=[2, *t["bad"][1:]]), "DATA_TYPE", ("m1.csv", "row 2", "bad")),
        (lambda t: t.assign(bad=[None, *t["bad"][1:]]), "DATA_MISSING", ("m1.csv", "row 2", "bad")),
        (lambda t: t.assign(loan=[t["loan"][3], *t["loan"][1:]]), "DATA_DUPLICATE", ("m1.csv", "2", "5", "loan")),
        (lambda t: t.assign(loan=[None, *t["loan"][1:]]), "DATA_MISSING", ("m1.csv", "row 2", "loan")),
        (lambda t: t.assign(x0=["inf", *t["x0"].astype(str)[1:]]), "DATA_TYPE", ("m1.csv", "row 2", "x0")),
        (lambda t: t.assign(x0=[1e30, *t["x0"][1:]]), "OVERFLOW", ("x0",)),
        (lambda t: t.iloc[:0], "DATA_SOURCE", ("m1.csv",)),
    ],
)
def test_faults_of_a_file_are_named_and_values_are_not(tmp_path, change, code, parts):
    paths, _ = made(tmp_path, change=lambda index, table: change(table) if index == 1 else table)
    error = refused(code, *parts, members=paths, param=["holdout=0"])
    assert "secret7" not in error.detail + error.hint


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: t.assign(x0=1.5), "CONSTANT_FEATURE"),
        (lambda t: t.assign(kind="a"), "CONSTANT_FEATURE"),
        (lambda t: t.assign(bad=0), "ONE_CLASS"),
        (lambda t: t.assign(x0=t["bad"] * 2 - 1 + t["x0"] * 1e-3), "SEPARABLE"),
        (lambda t: t.assign(x1=t["x0"]), "SINGULAR"),
        (lambda t: t.assign(kind=[f"case {i}" for i in range(len(t))] * 1 + []), "ONE_FILE"),
    ],
)
def test_faults_of_all_rows_together(tmp_path, change, code):
    if code == "ONE_FILE":  # a text of a different value in each row is no category
        paths, _ = made(tmp_path, rows=201, change=lambda index, table: change(table))
        refused("DATA_TYPE", "kind", "201", members=paths)
        return
    paths, _ = made(tmp_path, change=lambda index, table: change(table))
    refused(code, members=paths, param=["penalty=0"])


def test_a_member_without_bad_rows_has_no_model_alone_but_joins(tmp_path):
    test = tmp_path / "test.csv"
    pd.DataFrame({"loan": make_frame(80, seed=9).ids, **make_frame(80, seed=9).columns}).to_csv(test, index=False)
    paths, _ = made(tmp_path, change=lambda i, table: table.assign(bad=0) if i == 2 else table)
    document = write(go(paths, test=test), tmp_path / "..")
    assert document["metrics_local"]["m2"] == {"auc": None, "ks": None, "code": "ONE_CLASS"}
    assert document["metrics"]["auc"] > 0.6


def test_a_test_file_is_held_to_the_same_columns(tmp_path):
    paths, tables = made(tmp_path)
    base = tables["m0"].assign(loan=[f"t{i}" for i in range(150)])
    test = tmp_path / "test.csv"

    def trial(table):
        table.to_csv(test, index=False)
        return {"members": paths, "test": test}

    refused("DATA_COLUMN", "test.csv", "x2", **trial(base.drop(columns="x2")))
    refused("DATA_COLUMN", "test.csv", "other", **trial(base.assign(other=1)))
    unknown = base.assign(kind=["never seen", *base["kind"][1:]])
    assert "never seen" not in refused("DATA_DOMAIN", "test.csv", "row 2", "kind", **trial(unknown)).detail
    result = go(**trial(base.drop(columns="bad")))
    document = write(result, tmp_path)
    assert document["metrics"]["auc"] is None and document["metrics_local"] == {}
    assert len(result.scores) == 150 and any("no column bad" in warning for warning in document["warnings"])
    assert any("stands in a member's file" in w for w in go(**trial(tables["m0"])).warnings)


@pytest.mark.parametrize(
    "given",
    [
        ["penalty"], ["penalty="], ["penalty=-1"], ["penalty=nan"], ["penalty=x"], ["penalty=1", "penalty=1"],
        ["trees=3"], ["depth=3"], ["lambda=1"], ["nothing=1"],
        ["features=woes"], ["impute=median"],
        ["seed=" + "x" * 121],
        ["holdout=1"], ["folds=1"], ["folds=21"], ["folds=3.5"], ["folds=3", "holdout=0.2"],
        ["max_rounds=0"],
    ],
)  # fmt: skip
def test_parameters_that_are_refused(given):
    with pytest.raises(ChaotianError) as error:
        parse_parameters(given)
    assert error.value.code == "USAGE"


def test_members_are_name_and_file(tmp_path):
    path = tmp_path / "a:b.csv"
    path.write_text("x")
    assert parse_members([f"a={path}"], "y") == {"a": path}
    assert parse_members([f"a={path}:y"], "y") == {"a": path}
    for given in (["a"], ["a="], [f"={path}"], [f"a b={path}"], [f"a={path}", f"a={path}"], [f"a={path}:z"]):
        with pytest.raises(ChaotianError) as error:
            parse_members(given, "y")
        assert error.value.code == "USAGE"
    with pytest.raises(ChaotianError) as error:
        parse_members(["a=/nothing/there.csv"], "y")
    assert error.value.code == "DATA_SOURCE"
    with pytest.raises(ChaotianError) as error:
        TrainSettings(members={"a": path, "b": path}, id="id", label="y")
    assert error.value.code == "TOO_FEW_MEMBERS"


def words(*given):
    members = [word for name in BANKS for word in ("--member", f"{name}={credit(name)}")]
    return ["lab", "train", *members, "--id", "id", "--label", "y", *map(str, given)]


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    common = ("--job", "scorecard", "--split", "rows", "--test", credit("test"), "--out", out)
    assert cli(words(*common, "--json")) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((out / "result.json").read_text())
    assert "chaotian: warning:" in captured.err
    with (out / "scores.csv").open() as file:
        assert len(list(csv.reader(file))) == 1001
    assert cli(words(*common)) == 0
    shown = capsys.readouterr().out
    assert "bank-2 alone" in shown and "federated" in shown and "pooled (lab only)" in shown
    page = (out / "report.html").read_text()
    assert "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("http-equiv", "")
    assert "<script" not in page and page.count("<svg") == 6


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (("--job", "boosting"), "not there yet"),
        (("--split", "columns"), "not there yet"),
        (("--job", "other"), "--job"),
        (("--split", "other"), "--split"),
        (("--label-owner", "bank-1"), "--label-owner"),
        (("--drop", "y"), "y"),
        (("--drop", "nowhere"), "nowhere"),
        (("--param", "edges=e.json"), "e.json"),
        (("--param", "bins=5"), "bins"),
        (("--param", "folds=3", "--processes"), "folds=K"),
    ],
)
def test_what_the_command_line_refuses(tmp_path, capsys, given, part):
    assert cli(words("--out", tmp_path, *given)) == 2
    error = capsys.readouterr().err
    assert error.startswith("chaotian: error ") and part in error and "Traceback" not in error


def test_a_failed_run_leaves_no_older_result(tmp_path, capsys):
    (tmp_path / "result.json").write_text("{}")
    assert cli(words("--out", tmp_path, "--drop", "nowhere")) == 2
    assert not (tmp_path / "result.json").exists()
    (tmp_path / "file").write_text("")
    assert cli(words("--out", tmp_path / "file" / "below")) == 1
    assert "STORAGE" in capsys.readouterr().err
