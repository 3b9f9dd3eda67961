"""Few changed rows hidden behind a column that changes in all of them: each column is compared by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.frame import Feature, Frame
from federation.learning.stability import Stability, StabilitySpec
from gateway.jobs.data import DatasetHistory, check_dates
from gateway.jobs.markers import Rows

N, FLOOR = 500, 30
SECTORS = np.array(["farm", "shop", "works"])


def months(moved: int, came: int = 0) -> dict[str, Frame]:
    """Return two months: every balance differs, `moved` firms are in another sector, `came` firms are new."""
    rng = np.random.default_rng(3)
    sector = rng.integers(0, 3, N)
    later = sector.copy()
    later[:moved] = (later[:moved] + 1) % 3
    later = np.concatenate([later, rng.integers(0, 3, came)])

    def frame(codes):
        columns = {"balance": rng.normal(size=len(codes)), "sector": SECTORS[codes].astype(object)}
        return Frame([f"firm-{i}" for i in range(len(codes))], columns)

    return {"may": frame(sector), "june": frame(later)}


@dataclass
class Book:
    """Datasets, as far as a history reads them."""

    frames: dict[str, Frame]

    def load_for_job(self, name, columns, *, snapshot):
        frame = self.frames[snapshot]
        return Frame(frame.ids, {column: frame.columns[column] for column in columns})


def verdict(frames, columns, way):
    before, after = (Rows("loans", month, "") for month in ("may", "june"))
    history = DatasetHistory(Book(frames))
    if way == "ledger":
        return 0 < history.changed(before, after, frozenset(columns)) < FLOOR
    try:
        check_dates((before, after), history, columns, FLOOR)
    except ChaotianError as error:
        assert error.code == "RELEASE_DIFFERENCE"
        return True
    return False


@pytest.mark.parametrize("way", ["ledger", "dates"])
def test_a_column_that_changes_everywhere_does_not_hide_one_that_changed_in_one_row(way):
    frames = months(1)
    # The attack: beside the balance all rows count as changed, and yet the sectors' counts differ by one firm's.
    features = (Feature("balance", "numeric"), Feature("sector", "category", tuple(SECTORS)))
    own = Stability(StabilitySpec(features=features), frames["may"], frames["june"]).local()
    moved = np.asarray(own["after"])[-4:] - np.asarray(own["before"])[-4:]
    assert sorted(moved.tolist()) == [-1, 0, 0, 1]
    assert all(frames["may"].columns["balance"] != frames["june"].columns["balance"])

    assert verdict(frames, ["sector"], way)
    assert verdict(frames, ["balance", "sector"], way)


@pytest.mark.parametrize("way", ["ledger", "dates"])
def test_what_changed_nowhere_or_in_enough_rows_is_compared_as_before(way):
    assert not verdict(months(0), ["balance", "sector"], way)
    assert not verdict(months(FLOOR), ["balance", "sector"], way)
    assert verdict(months(FLOOR - 1), ["balance", "sector"], way)
    # New firms are in every column.
    assert not verdict(months(1, came=FLOOR), ["balance", "sector"], way)
    assert verdict(months(0, came=FLOOR - 1), ["balance", "sector"], way)
