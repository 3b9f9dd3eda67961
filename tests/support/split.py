"""The same rows held out in every run of the tests: a home draws the secret that decides it by itself otherwise."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import insert, select

from gateway.identity.home import Home
from gateway.storage.base import Database
from gateway.storage.tables.datasets import dataset_split


def fix_split(database: Database, member: str) -> None:
    """Give a database that has none yet a secret that follows from the member's name."""
    with database.begin() as connection:
        if connection.execute(select(dataset_split.c.key)).one_or_none() is None:
            connection.execute(insert(dataset_split).values(id=1, key=hashlib.sha256(member.encode()).digest()))


def fix_split_of(home: Path, member: str) -> None:
    """Do the same to the home of a node that does not run."""
    database = Home.node(home).database
    database.upgrade()
    fix_split(database, member)
    database.close()
