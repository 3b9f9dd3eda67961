"""The bench `exactness` in small: through the real secure sum, with and without a loss, within its bars."""

from dataclasses import replace

import pytest

from bench import exactness


@pytest.mark.parametrize("lost", ["", "capital-one"])
def test_the_secure_sum_gives_the_pooled_scorecard(lost):
    case = replace(exactness._sba_case(), lost=lost)
    logits, auc = exactness._measure(case)
    assert logits["met"] is True and logits["ours"] <= 1e-6
    assert auc["met"] is True and auc["ours"] <= 1e-7


def test_a_wrong_penalty_would_be_seen(monkeypatch):
    real = exactness.PooledScorecard
    monkeypatch.setattr(exactness, "PooledScorecard", lambda *args, **kw: real(*args, **{**kw, "penalty": 1.001}))
    logits, _ = exactness._measure(exactness._sba_case())
    assert logits["met"] is False
