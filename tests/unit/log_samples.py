"""A home with a database and a log, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from federation.primitives.signing import Signer
from gateway.audit.events import Event, EventType
from gateway.audit.log import AuditLog
from gateway.storage.base import Database, metadata
from gateway.storage.tables import audit as _audit  # noqa: F401  (registers its tables)
from gateway.storage.tables import grants as _grants  # noqa: F401


@dataclass
class Someone:
    member: str = "bank-a"
    space: str = "demo"
    seed: bytes = b"\x01" * 32
    signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        self.signer = Signer(self.seed)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def open_database(path: Path) -> Database:
    database = Database.at(path)
    metadata.create_all(database.engine)
    return database


def open_log(home: Path, who: Someone | None = None, clock: Clock | None = None) -> tuple[Database, AuditLog]:
    database = open_database(home / "state.db")
    return database, AuditLog(database, who or Someone(), home / "log", clock=clock or Clock())


def write(database: Database, log: AuditLog, count: int, start: int = 0) -> None:
    events = [
        Event(EventType.ROUND_RELEASED, ("bank-a", "bank-b"), "ab" * 32, bytes(32), {"round": start + number})
        for number in range(count)
    ]
    with database.begin() as connection:
        log.append_many(connection, events)
