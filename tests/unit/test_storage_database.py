from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import IntegrityError

import gateway.storage.tables  # noqa: F401
from federation.errors import ChaotianError
from gateway.storage.base import Database, metadata
from gateway.storage.migrations import newest_revision
from gateway.storage.migrations.run import configuration

things = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("data", LargeBinary))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "home" / "state.db", busy_seconds=0.3)
    with database.begin() as connection:
        things.metadata.create_all(connection)
    return database


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(things)).scalar_one()


def test_a_transaction_commits_whole_or_not_at_all(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(insert(things).values(id=1))
    with pytest.raises(RuntimeError), database.begin() as connection:
        connection.execute(insert(things).values(id=2))
        raise RuntimeError
    assert count(database) == 1


def test_reading_keeps_nothing(database: Database) -> None:
    with database.read() as connection:
        connection.execute(insert(things).values(id=1))
    assert count(database) == 0


def test_commits_are_synced(database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_files_are_private(database: Database, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert home.stat().st_mode & 0o777 == 0o700
    with database.begin() as connection:
        connection.execute(insert(things).values(id=1))
        names = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
    assert {"state.db", "state.db-wal", "state.db-shm"} <= set(names)
    assert set(names.values()) == {0o600}


def test_a_broken_constraint_is_the_callers(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(insert(things).values(id=1))
    with pytest.raises(IntegrityError), database.begin() as connection:
        connection.execute(insert(things).values(id=1))


def test_a_lock_held_elsewhere_ends_in_storage(database: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "home" / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(ChaotianError, match=r"STORAGE.*locked"), database.begin():
        pass
    assert time.monotonic() - began < 5
    assert count(database) == 0  # reading goes on meanwhile
    other.execute("ROLLBACK")
    with database.begin() as connection:
        connection.execute(insert(things).values(id=1))


def test_writers_of_one_process_take_turns(database: Database) -> None:
    patient = Database(str(database.engine.url.render_as_string(False)), busy_seconds=30)

    def add() -> None:
        for _ in range(20):
            with patient.begin() as connection:
                largest = connection.execute(select(func.max(things.c.id))).scalar() or 0
                connection.execute(insert(things).values(id=largest + 1))

    threads = [threading.Thread(target=add) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(patient) == 100


def test_transactions_do_not_nest(database: Database) -> None:
    with pytest.raises(ChaotianError, match="INTERNAL"), database.begin(), database.begin():
        pass
    with database.begin() as connection:  # and the lock is free again
        connection.execute(insert(things).values(id=1))


def test_a_full_disk_ends_in_storage_and_loses_nothing(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(insert(things).values(id=1))
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    with database.read() as connection:
        pass
    with pytest.raises(ChaotianError, match=r"STORAGE.*disk is full"), database.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        connection.execute(insert(things).values(id=2, data=bytes(1 << 20)))
    assert count(database) == 1


def test_a_file_size_limit_ends_in_storage_and_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from sqlalchemy import text
from federation.errors import ChaotianError
from gateway.storage.base import Database
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
database = Database.at(Path({str(tmp_path / "home" / "state.db")!r}))
with database.begin() as connection:
    connection.execute(text("CREATE TABLE t (data BLOB)"))
    connection.execute(text("INSERT INTO t VALUES (x'01')"))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    with database.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (zeroblob(3000000))"))
except ChaotianError as error:
    print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "STORAGE", done.stderr
    with Database.at(tmp_path / "home" / "state.db").read() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 1


def test_a_commit_survives_a_kill(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from sqlalchemy import text
from gateway.storage.base import Database
database = Database.at(Path({str(tmp_path / "home" / "state.db")!r}))
with database.begin() as connection:
    connection.execute(text("CREATE TABLE t (id INTEGER)"))
with database.begin() as connection:
    connection.execute(text("INSERT INTO t VALUES (1)"))
with database.begin() as connection:
    connection.execute(text("INSERT INTO t VALUES (2)"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    with Database.at(tmp_path / "home" / "state.db").read() as connection:
        assert connection.execute(text("SELECT id FROM t")).scalars().all() == [1]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, os.urandom(8192)])
def test_a_damaged_file_ends_in_storage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(ChaotianError, match="STORAGE"):
        Database.at(tmp_path / "state.db").upgrade()


@pytest.mark.parametrize("url", ["", "nonsense", "nosuch://x/y", "mysql+nosuch://h/d"])
def test_a_wrong_url_ends_in_config(url: str) -> None:
    with pytest.raises(ChaotianError) as caught:
        Database(url)
    assert caught.value.code == "CONFIG"


def test_errors_quote_no_value(database: Database) -> None:
    with pytest.raises(ChaotianError) as caught, database.begin() as connection:
        connection.execute(text("SELECT nosuch FROM things WHERE data = :secret"), {"secret": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert caught.value.code == "STORAGE"


def test_a_database_in_memory_takes_turns() -> None:
    database = Database("sqlite://")
    with database.begin() as connection:
        things.metadata.create_all(connection)
        connection.execute(insert(things).values(id=1))
    assert count(database) == 1


def test_migrations_lead_to_the_live_tables(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "home" / "state.db")
    database.upgrade()
    database.upgrade()
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        difference = compare_metadata(context, metadata)
    assert difference == [], "run `python -m gateway.storage.migrations.generate`"


def test_migrations_import_nothing_of_the_live_tables() -> None:
    import gateway.storage.migrations.versions as versions

    files = list(Path(versions.__path__[0]).glob("[0-9]*.py"))
    assert files
    for path in files:
        imports = {line for line in path.read_text().splitlines() if line.startswith(("import", "from"))}
        assert imports == {"import sqlalchemy as sa", "from alembic import op"}


def test_the_newest_revision_is_alembics_head() -> None:
    assert newest_revision() == ScriptDirectory.from_config(configuration()).get_current_head()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "home" / "state.db")
    database.upgrade()
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ChaotianError) as caught:
        database.upgrade()
    assert caught.value.code == "VERSION"


def test_two_processes_upgrade_one_database(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from gateway.storage.base import Database
Database.at(Path({str(tmp_path / "home" / "state.db")!r})).upgrade()
"""
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
