"""Counters that survive races and SIGKILL; states that only move forward."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, update

from federation.errors import ChaotianError
from gateway.audit.events import Event, EventType
from gateway.grants.book import MAX_PROPOSALS, GrantBook
from gateway.grants.document import Grant
from gateway.storage.base import Database
from gateway.storage.tables.grants import grant_charges, grants
from tests.unit.grant_samples import DAY, NOW, grant, request, signed
from tests.unit.log_samples import Clock, open_database, open_log


def stored(home: Path, found: Grant, clock: Clock) -> tuple[Database, GrantBook]:
    database, book = open_database(home / "state.db"), GrantBook(clock=clock)
    with database.begin() as connection:
        book.add(connection, signed(found), proposer="bank-b")
        book.accept(connection, signed(found))
    return database, book


def charge(database: Database, book: GrantBook, found: Grant, **changes: object) -> str:
    try:
        with database.begin() as connection:
            book.charge(connection, found.id, request(**changes))
    except ChaotianError as error:
        return error.code
    return ""


def charged(database: Database, found: Grant) -> tuple[int, int]:
    with database.read() as connection:
        rows = len(connection.execute(select(grant_charges)).all())
        return rows, connection.execute(select(grants.c.charges).where(grants.c.id == found.id)).scalar_one()


def test_quota_is_reserved_once_a_round_whatever_the_attempt(tmp_path: Path) -> None:
    found = grant(quota__calls=2)
    database, book = stored(tmp_path, found, Clock(NOW))
    assert [charge(database, book, found, round=1) for _ in range(3)] == ["", "", ""]
    assert charged(database, found) == (1, 1)
    assert charge(database, book, found, round=2) == ""
    assert charge(database, book, found, round=3) == "QUOTA"
    assert charge(database, book, found, round=2) == ""  # a retry stays free when the quota is used up
    assert charge(database, book, found, round=2, job="cd" * 32) == "QUOTA"
    assert charged(database, found) == (2, 2)


def test_the_period_slides(tmp_path: Path) -> None:
    found, clock = grant(quota__calls=2), Clock(NOW)
    database, book = stored(tmp_path, found, clock)
    assert charge(database, book, found, round=1) == ""
    clock.now += DAY / 2
    assert charge(database, book, found, round=2) == ""
    clock.now = NOW + DAY - 0.001
    assert charge(database, book, found, round=3) == "QUOTA"
    clock.now = NOW + DAY
    assert charge(database, book, found, round=3) == ""
    assert charge(database, book, found, round=4) == "QUOTA"
    clock.now = NOW - 3600  # a clock that steps back frees nothing
    assert charge(database, book, found, round=4) == "QUOTA"


def test_a_quota_for_life_never_refills(tmp_path: Path) -> None:
    found, clock = grant(quota={"calls": 1, "per": "grant"}), Clock(NOW)
    database, book = stored(tmp_path, found, clock)
    assert charge(database, book, found, round=1) == ""
    clock.now += 29 * DAY
    assert charge(database, book, found, round=2, as_of=clock.now) == "QUOTA"


@pytest.mark.parametrize("same", [False, True])
def test_racing_transactions_never_exceed_the_quota(tmp_path: Path, same: bool) -> None:
    found = grant(quota__calls=5)
    stored(tmp_path, found, Clock(NOW))
    results: list[str] = []

    def work(number: int) -> None:
        # Its own engine, as another process would have.
        database, book = Database.at(tmp_path / "state.db"), GrantBook(clock=Clock(NOW))
        for round_ in range(1, 6):
            job = "ab" * 32 if same else f"{number:064x}"
            results.append(charge(database, book, found, job=job, round=round_))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert charged(Database.at(tmp_path / "state.db"), found) == (5, 5)
    assert len(results) == 20 and results.count("QUOTA") == (0 if same else 15)


def test_a_charge_is_undone_with_its_transaction(tmp_path: Path) -> None:
    found = grant()
    database, book = stored(tmp_path, found, Clock(NOW))
    with pytest.raises(RuntimeError), database.begin() as connection:
        book.charge(connection, found.id, request())
        raise RuntimeError
    assert charged(database, found) == (0, 0)


def test_sigkill_between_reserve_and_release_leaves_count_and_log_in_step(tmp_path: Path) -> None:
    """A process is killed inside the transaction, after it, and in the middle of many."""
    found = grant(quota__calls=1000)
    stored(tmp_path, found, Clock(NOW))
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from gateway.audit.events import Event, EventType
        from gateway.grants.book import GrantBook
        from tests.unit.grant_samples import NOW, request
        from tests.unit.log_samples import Clock, open_log
        database, log = open_log(Path({str(tmp_path)!r}))
        book, first, where = GrantBook(clock=Clock(NOW)), int(sys.argv[1]), sys.argv[2]
        for round_ in range(first, first + 4):
            with database.begin() as connection:
                book.charge(connection, {found.id!r}, request(round=round_))
                if where == "inside" and round_ == first + 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                log.append(connection, Event(EventType.ROUND_ANSWERED, payload={{"round": round_}}))
            if where == "after" and round_ == first + 2:
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    expected = 0
    for where, kept in (("inside", 2), ("after", 3), ("inside", 2)):
        done = subprocess.run([sys.executable, "-c", script, str(expected + 1), where], timeout=60)
        assert done.returncode == -signal.SIGKILL
        expected += kept
        database, log = open_log(tmp_path)
        assert charged(database, found) == (expected, expected)
        assert [event["payload"]["round"] for event in log.events()] == list(range(1, expected + 1))
        log.materialise()


def test_revocation_holds_from_its_commit_on(tmp_path: Path) -> None:
    found = grant()
    database, book = stored(tmp_path, found, Clock(NOW))
    assert charge(database, book, found, round=1) == ""
    with database.begin() as connection:
        book.revoke(connection, found.id, None, by="bank-a")
    assert charge(database, book, found, round=2) == "GRANT_REVOKED"
    assert charge(database, book, found, round=1) == "GRANT_REVOKED"  # also for a round that was charged
    with database.begin() as connection, pytest.raises(ChaotianError, match="GRANT_REVOKED"):
        book.accept(connection, signed(found))


def test_unknown_and_half_signed_grants_deny(tmp_path: Path) -> None:
    found = grant()
    database, book = open_database(tmp_path / "state.db"), GrantBook(clock=Clock(NOW))
    assert charge(database, book, found) == "NO_GRANT"
    with database.begin() as connection:
        book.add(connection, signed(found), proposer="bank-b")
    assert charge(database, book, found) == "NO_GRANT"
    for bad in (found.id[:32], "", "'; --", "AB" * 32):
        with database.read() as connection:
            assert not book.decide(connection, bad, request()).permitted
    with database.begin() as connection, pytest.raises(ChaotianError, match="EXISTS"):
        book.add(connection, signed(found), proposer="bank-b")


def test_grants_are_found_by_prefix_and_by_what_they_cover(tmp_path: Path) -> None:
    found = grant()
    database, book = stored(tmp_path, found, Clock(NOW))
    with database.read() as connection:
        assert book.find(connection, found.id[:8]).grant == found
        assert [r.grant.id for r in book.covering(connection, owner="bank-a", grantee="bank-b", dataset="loans")] == [
            found.id
        ]
        assert book.covering(connection, owner="bank-a", grantee="bank-c", dataset="loans") == []
        for bad in ("", found.id[:7], "g" * 8, "0" * 64):
            with pytest.raises(ChaotianError, match="NOT_FOUND"):
                book.find(connection, bad)


def test_a_changed_row_is_not_a_grant(tmp_path: Path) -> None:
    found = grant()
    database, book = stored(tmp_path, found, Clock(NOW))
    with database.begin() as connection:
        wider = grant(quota__calls=10**6)
        connection.execute(update(grants).where(grants.c.id == found.id).values(content=wider.content))
    assert charge(database, book, found) == "STORAGE"


def test_one_member_cannot_fill_the_book(tmp_path: Path) -> None:
    database, book = open_database(tmp_path / "state.db"), GrantBook(clock=Clock(NOW))
    with database.begin() as connection:
        for number in range(MAX_PROPOSALS):
            book.add(connection, signed(grant(iv=f"{number:032x}")), proposer="bank-b")
        with pytest.raises(ChaotianError, match="BACKPRESSURE"):
            book.add(connection, signed(grant()), proposer="bank-b")
        book.add(connection, signed(grant()), proposer="bank-c")


def test_leaf_and_charge_are_one_transaction(tmp_path: Path) -> None:
    found = grant(quota__calls=1)
    database, book = stored(tmp_path, found, Clock(NOW))
    _, log = open_log(tmp_path)
    with pytest.raises(ChaotianError, match="QUOTA"), database.begin() as connection:
        log.append(connection, Event(EventType.ROUND_ANSWERED))
        book.charge(connection, found.id, request(round=1))
        book.charge(connection, found.id, request(round=2))
    assert (log.head().size, charged(database, found)) == (0, (0, 0))
