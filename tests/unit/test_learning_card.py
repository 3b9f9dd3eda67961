"""The model card says what the model's document and its evaluations say."""

import json
import re

import pytest

from bench.plain import run_plain
from federation.errors import ChaotianError
from federation.learning.card import ModelCard
from federation.learning.compare import compare
from federation.learning.evaluate import Evaluate, EvaluateSpec
from federation.learning.woe import scorecard_program
from gateway.cli.main import run
from gateway.jobs.models import encode
from gateway.reports.card import card_markdown, card_page
from tests.support.scorecards import made_spec, make_frame


@pytest.mark.parametrize("coding", ["raw", "woe"])
def test_card_of_a_model_and_its_evaluation(coding):
    frames = {name: make_frame(600, seed=k) for k, name in enumerate("abc", 1)}
    spec = made_spec(coding=coding, penalty=2.0)
    model = run_plain({n: scorecard_program(spec, f) for n, f in frames.items()})["a"].model("job-1")
    card = ModelCard.of(model, purpose="credit-scoring", dataset="loans", members=["c", "a", "b"])
    evaluate = EvaluateSpec(model.version)
    figures = run_plain({n: Evaluate(evaluate, model, f) for n, f in frames.items()})["a"].result
    document = card.with_evaluation(figures).document()
    assert json.loads(json.dumps(document)) == document
    assert document["model"] == model.version and document["data"]["members"] == ["a", "b", "c"]
    assert document["data"]["rows"] == 1800 and [c["name"] for c in document["columns"]] == list(model.columns)
    assert document["evaluations"][0]["auc"]["estimate"] == figures.auc.estimate
    assert [line["name"] for line in document["coefficients"]] == [line.name for line in model.coefficients]
    assert document["coefficients"][1]["vif"] == model.coefficients[1].vif
    assert (document["points"] is not None) == (coding == "woe") == (document["training"]["coding"] == "woe")
    limits = " ".join(document["limits"])
    assert "penalty 2" in limits and ("no missing values in x0" in limits) == (coding == "woe")
    other = EvaluateSpec("0" * 64)
    assert other.model != model.version
    with pytest.raises(ChaotianError) as caught:
        ModelCard.of(model, purpose="p", dataset="d", members=[]).with_evaluation(
            type(figures)(**{**vars(figures), "model": "0" * 64})
        )
    assert caught.value.code == "MODEL_HASH"


@pytest.mark.parametrize("coding", ["raw", "woe"])
def test_the_page_and_the_text_hold_all_of_the_card_and_nothing_that_acts(coding, tmp_path, capsys):
    frames = {name: make_frame(600, seed=k) for k, name in enumerate("abc", 1)}
    spec = made_spec(coding=coding, penalty=2.0, holdout=0.2)
    left = run_plain({n: scorecard_program(spec, f) for n, f in frames.items()})
    model = left["a"].model("ab" * 32)
    evaluate = {n: Evaluate(EvaluateSpec(model.version), model, f) for n, f in frames.items()}
    figures = run_plain(evaluate)["a"].result
    evil = "<img src=x onerror=alert(1)>|`*"
    card = ModelCard.of(model, purpose=evil, dataset="loans", members=["a", "b"], own=compare(left["a"], model))
    card = card.with_evaluation(figures).with_evaluation(figures)
    html, text = card_page(card, evil, "since today"), card_markdown(card, evil, "since today")
    for shown in (html, text):
        assert "<img" not in shown and "since today" in shown and model.version in shown
        for line in model.coefficients:
            assert f"{line.value:+.6f}" in shown and f"{line.standard_error:.6f}" in shown and f"{line.z:+.2f}" in shown
        assert f"{figures.auc.estimate:.4f}" in shown and f"{figures.ks.high:.4f}" in shown
        assert f"{card.own['local']['auc']:.4f}" in shown and all(name in shown for name in model.columns)
        assert ("stand for 50 good rows" in shown) == (coding == "woe")
    assert "default-src 'none'" in html and "<script" not in html and "src=" not in html.replace("&lt;img src=x", "")
    for row in text.splitlines():
        assert not row.startswith("|") or len(re.findall(r"(?<!\\)\|", row)) in (4, 6, 7, 8), row
    path = tmp_path / "model.json"
    path.write_bytes(encode(model))
    for suffix in ("html", "md", "json"):
        assert run(["model", "card", str(path), "--out", str(tmp_path / f"card.{suffix}")]) == 0
    assert json.loads((tmp_path / "card.json").read_text())["model"] == model.version
    assert "No figures are known here" in (tmp_path / "card.html").read_text()
    assert run(["model", "card", str(path), "--out", str(tmp_path / "card.pdf")]) == 2
    capsys.readouterr()
    assert run(["model", "card", str(path)]) == 0 and "## Limits" in capsys.readouterr().out
