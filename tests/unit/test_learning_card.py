"""The model card says what the model's document and its evaluations say."""

import json

import pytest

from bench.plain import run_plain
from federation.errors import ChaotianError
from federation.learning.card import ModelCard
from federation.learning.evaluate import Evaluate, EvaluateSpec
from federation.learning.woe import scorecard_program
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
    limits = " ".join(document["limits"])
    assert "penalty 2" in limits and ("no missing values in x0" in limits) == (coding == "woe")
    other = EvaluateSpec("0" * 64)
    assert other.model != model.version
    with pytest.raises(ChaotianError) as caught:
        ModelCard.of(model, purpose="p", dataset="d", members=[]).with_evaluation(
            type(figures)(**{**vars(figures), "model": "0" * 64})
        )
    assert caught.value.code == "MODEL_HASH"
