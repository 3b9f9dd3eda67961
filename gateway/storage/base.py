"""The database of a home: SQLite by default, PostgreSQL by its URL, through SQLAlchemy Core."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, StaticPool, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from federation.errors import ChaotianError
from gateway.storage.files import create_private_file, make_private_directory
from gateway.storage.migrations import newest_revision

BUSY_SECONDS = 10.0  # how long a write waits for another process's write to end
_WRITE = "chaotian_write"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Database:
    """One database; safe to share between threads and to open from several processes.

    Args:
        url: a SQLAlchemy URL, e.g. `sqlite:////home/bank/state.db` or `postgresql+psycopg://…`.
        busy_seconds: how long to wait for a lock before STORAGE.

    Raises:
        ChaotianError: CONFIG for a URL that cannot be used; STORAGE where the file cannot be made.
    """

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        try:
            self._url: URL = make_url(url)
            self._sqlite = self._url.get_backend_name() == "sqlite"
            self._memory = self._sqlite and self._url.database in (None, "", ":memory:")
            self._engine = self._make_engine(busy_seconds)
        except (ArgumentError, NoSuchModuleError, ImportError):
            raise ChaotianError("CONFIG", "the database URL is malformed, or its driver is not installed") from None
        self._busy_seconds = busy_seconds
        # One writer at a time is SQLite's rule; waiting here is cheaper and fairer than its busy loop.
        self._writer = threading.Lock()
        self._holder: int | None = None

    @classmethod
    def at(cls, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Database:
        """Return the SQLite database in the file `path`."""
        return cls(URL.create("sqlite", database=str(path)).render_as_string(False), busy_seconds=busy_seconds)

    @property
    def engine(self) -> Engine:
        """The engine, for migrations."""
        return self._engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One durable transaction that writes: committed and synced when the block ends, undone when it raises.

        It holds the write lock from its start, so what it reads cannot change before it commits. Transactions do
        not nest: pass the connection on instead.

        Raises:
            ChaotianError: STORAGE where the state cannot be read or written (disk full, read-only, locked).
        """
        me = threading.get_ident()
        if self._holder == me:
            raise ChaotianError("INTERNAL", "a transaction was begun inside another one of the same thread")
        serial = self._sqlite
        if serial and not self._writer.acquire(timeout=self._busy_seconds):
            raise ChaotianError("STORAGE", "the database stayed locked by another writer of this process")
        self._holder = me if serial else None
        try:
            with _storage_errors(), self._engine.connect() as connection:
                connection = connection.execution_options(**{_WRITE: True})
                with connection.begin():
                    yield connection
        finally:
            if serial:
                self._holder = None
                self._writer.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view for reading; nothing done in it is kept.

        Raises:
            ChaotianError: STORAGE where the database cannot be read.
        """
        shared = self._memory  # one connection for all: take turns
        if shared and (self._holder == threading.get_ident() or not self._writer.acquire(timeout=self._busy_seconds)):
            raise ChaotianError("INTERNAL", "a database in memory cannot be read while it is being written")
        try:
            with _storage_errors(), self._engine.connect() as connection:
                connection = connection.execution_options(**{_WRITE: False})
                transaction = connection.begin()
                try:
                    yield connection
                finally:
                    transaction.rollback()
        finally:
            if shared:
                self._writer.release()

    def upgrade(self) -> None:
        """Bring the schema to this version's, by Alembic.

        Raises:
            ChaotianError: STORAGE where that fails; VERSION where a newer version of Chaotian wrote the database.
        """
        with _storage_errors(), self.read() as connection:
            if inspect(connection).has_table("alembic_version"):
                current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if current == newest_revision():
                    return
        from gateway.storage.migrations.run import upgrade  # Alembic is slow to import, and rarely has work

        with _storage_errors():
            upgrade(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __repr__(self) -> str:
        return f"Database({self._url.get_backend_name()})"

    def _make_engine(self, busy_seconds: float) -> Engine:
        if not self._sqlite:
            # What SQLite gives by its single writer: transactions that behave as if run one after the other.
            return create_engine(self._url, isolation_level="SERIALIZABLE", pool_pre_ping=True)
        arguments: dict[str, Any] = {"connect_args": {"timeout": busy_seconds, "check_same_thread": False}}
        if self._memory:
            arguments["poolclass"] = StaticPool
        else:
            path = Path(str(self._url.database))
            make_private_directory(path.parent)
            create_private_file(path)  # SQLite gives its -wal and -shm files the mode of the database file
        engine = create_engine(self._url, **arguments)

        @event.listens_for(engine, "connect")
        def _connect(connection: Any, _record: object) -> None:
            connection.isolation_level = None  # the driver's own BEGIN comes too late; ours is below
            cursor = connection.cursor()
            for pragma in (
                f"busy_timeout={int(busy_seconds * 1000)}",
                "journal_mode=WAL",
                "synchronous=FULL",
                "foreign_keys=ON",
                "trusted_schema=OFF",
                "secure_delete=ON",
            ):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            write = connection.get_execution_options().get(_WRITE, True)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine


_REASONS = (
    ("full", "the disk is full"),
    ("readonly", "the database is read-only"),
    ("read-only", "the database is read-only"),
    ("locked", "the database stayed locked by another process"),
    ("malformed", "the database file is damaged"),
    ("not a database", "the file is not a database of this program"),
    ("unable to open", "the database file cannot be opened"),
    ("disk i/o error", "the disk reported an input or output error"),
    ("no such table", "the database is not of this version: start the process of this home once, or run `init` first"),
)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn failures of the database into STORAGE; a broken constraint stays the caller's to judge."""
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeoutError) as error:
        # The driver's text can quote statements and values: only its kind is passed on.
        text = str(error.orig if isinstance(error, DBAPIError) else "locked").lower()
        reason = next((why for key, why in _REASONS if key in text), "the database refused the statement")
        raise ChaotianError("STORAGE", f"the state could not be read or written: {reason}") from error
    except SQLAlchemyError:
        raise
    except OSError as error:
        raise ChaotianError("STORAGE", f"the state could not be written: {os.strerror(error.errno or 0)}") from error
