"""Scoring any rows with any model: the log-odds are the model's, the reasons are its largest losses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from federation.learning import points
from federation.learning.coding import Category, Numeric
from federation.learning.frame import Frame
from federation.learning.points import Scorer, losses, reasons, scale_constants, scale_of, score_points
from gateway.scoring.estimator import FederatedScorecard
from tests.support.models import binned, grouped, made_model

LEVELS = ("a", "b", "企业", "-1")
weights = st.floats(-4, 4, allow_nan=False)
numbers = st.floats(-1e9, 1e9, allow_nan=False)


@st.composite
def cases(draw):
    """Return a model and a frame that it takes."""
    rows, parts, beta, columns = draw(st.integers(1, 60)), [], [draw(weights)], {}
    woe = draw(st.booleans())
    for k in range(draw(st.integers(1, 5))):
        name, kind = f"c{k}", draw(st.sampled_from(["number", "text"]))
        if kind == "number":
            values = draw(st.lists(numbers, min_size=rows, max_size=rows))
            column = np.array(values)
            if woe:
                edges = sorted(set(draw(st.lists(numbers, max_size=6))))
                missing = draw(st.booleans())
                own = draw(st.lists(weights, min_size=len(edges) + 1 + missing, max_size=len(edges) + 1 + missing))
                parts.append(binned(name, edges, own, missing=missing))
                column[np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))] = np.nan
            else:
                parts.append(Numeric(name, draw(numbers), draw(st.floats(1e-3, 1e6)), draw(st.booleans())))
                if parts[-1].impute:
                    column[np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))] = np.nan
            beta.append(draw(weights))
        else:
            choices = LEVELS + (("",) if woe else ())
            column = np.array(draw(st.lists(st.sampled_from(choices), min_size=rows, max_size=rows)), dtype=object)
            if woe:
                parts.append(grouped(name, [LEVELS[:1], LEVELS[1:3], LEVELS[3:]], [draw(weights) for _ in range(3)]))
                beta.append(draw(weights))
            else:
                kept = tuple(level for level in LEVELS[1:] if draw(st.booleans()))
                parts.append(Category(name, LEVELS, kept))
                beta += [draw(weights) for _ in kept]
        columns[name] = column
    model = made_model(parts, beta, points=woe and draw(st.booleans()))
    return model, Frame([str(i) for i in range(rows)], columns)


@given(cases(), st.integers(1, 9))
def test_log_odds_are_the_models_whatever_the_block(case, block):
    model, frame = case
    before, points.BLOCK = points.BLOCK, block
    try:
        scores = Scorer(model).score(frame)
    finally:
        points.BLOCK = before
    assert (scores.log_odds == model.score(frame)).all()
    assert np.allclose(scores.probability, expit(scores.log_odds), rtol=1e-12)


@given(cases())
def test_the_estimator_scores_a_data_frame_as_the_model_scores_its_columns(case):
    model, frame = case
    table = pd.DataFrame({name: pd.Series(list(column)) for name, column in reversed(frame.columns.items())})
    table = table.replace({"": None}).set_index(pd.Index(range(len(table)))[::-1])
    estimator = FederatedScorecard(dict(model.document))
    assert (estimator.decision_function(table) == model.score(frame)).all()
    assert estimator.predict_proba(table).sum(axis=1) == pytest.approx(1.0)
    own = estimator.table(table, 2)
    assert (own.index == table.index).all() and ("points" in own) == ("points" in model.document)


@given(cases(), st.integers(0, 4))
def test_reasons_are_the_largest_losses_and_points_add_up(case, most):
    model, frame = case
    names, lost = losses(model, frame)
    assert (lost >= 0).all() and names == model.columns
    for row, found in enumerate(reasons(model, frame, most)):
        assert [reason.points for reason in found] == sorted((x for x in lost[row] if x > 0), reverse=True)[:most]
        assert all(lost[row][names.index(reason.column)] == reason.points for reason in found)
    factor, offset = scale_constants(scale_of(model))
    exact = offset - factor * model.score(frame)
    if "points" in model.document:
        assert np.abs(score_points(model, frame) - exact).max() <= len(names) / 2 + 1e-6
    else:
        assert (score_points(model, frame) == exact).all()


@given(cases())
def test_a_row_in_its_best_bins_has_no_reason_and_the_most_points(case):
    """Points lost are what a row is short of the best row there can be (columns in bins and levels)."""
    model, frame = case
    _, lost = losses(model, frame)
    if any(isinstance(part, Numeric) for part in model.coding.parts):
        return
    unseen = [part for part in model.coding.parts if getattr(part, "missing", 0) == -1]
    if any((part.codes(frame) == -1).any() for part in unseen):
        return  # a missing value that training had not may score better than every bin, and then costs nothing
    factor, _ = scale_constants(scale_of(model))
    best = factor * model.score(frame) - lost.sum(axis=1)
    assert np.allclose(best, best[0], atol=1e-6)
