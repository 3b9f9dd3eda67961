"""A proposer who can list a bank's firms cannot choose a seed that holds out one of them alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.learning.holdout import held_out
from gateway.datasets.book import DatasetBook
from gateway.datasets.schema import parse_schema
from gateway.storage.base import Database

FIRMS = [f"9150{number:014d}" for number in range(400)]
LEVEL = set(FIRMS[:30])  # the firms of one small level, which the proposer can list
SCHEMA = """
id = "id"
label = "bad"
as_of = "2024-12-31"
[columns.bad]
type = "integer"
disclosure = "aggregate"
"""


@pytest.fixture
def books(tmp_path: Path) -> list[DatasetBook]:
    made = []
    for name in ("one", "two"):
        home = tmp_path / name
        home.mkdir()
        (home / "loans.csv").write_text("id,bad\n" + "".join(f"{firm},{k % 2}\n" for k, firm in enumerate(FIRMS)))
        database = Database.at(home / "state.db")
        database.upgrade()
        book = DatasetBook(database, home)
        book.add("loans", home / "loans.csv", parse_schema(SCHEMA.encode()), now=0)
        made.append(book)
    return made


def alone(ids: list[str], firms: list[str], seed: str) -> list[str]:
    """Return the firms of the level that the seed holds out."""
    held = held_out(ids, seed, 0.05)
    return [firm for firm, out in zip(firms, held.tolist(), strict=True) if out and firm in LEVEL]


def test_the_seed_that_was_found_holds_out_other_firms(books):
    target = FIRMS[7]
    seeds = [seed for seed in map(str, range(3000)) if alone(FIRMS, FIRMS, seed) == [target]]
    assert len(seeds) >= 10  # control: with the identifiers themselves such seeds are found at once
    for book in books:
        frame = book.load_for_job("loans", ["bad"])
        order = book.load("loans", ["bad"]).ids
        assert not set(frame.ids) & set(FIRMS)
        hits = [seed for seed in seeds if target in alone(frame.ids, order, seed)]
        assert len(hits) < len(seeds) / 2  # as often as any other firm: about one in twenty


def test_every_home_has_a_secret_of_its_own_and_keeps_it(books, tmp_path):
    one, two = (book.pseudonyms(FIRMS) for book in books)
    assert not set(one) & set(two) and len(set(one)) == len(FIRMS)
    again = DatasetBook(Database.at(tmp_path / "one" / "state.db"), tmp_path / "one")
    assert again.pseudonyms(FIRMS) == one
