"""The platform's record of a job's run: checkpoint after each round, journal of a round in unmask, restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from federation.rounds.strategy import Phase
from gateway.storage.base import Database
from gateway.storage.tables.jobs import job_runs

ATTEMPTS_A_START = 2000  # more than a round can take: every member lost costs one


@dataclass(frozen=True)
class Run:
    """Where a job's run stands on disk.

    Args:
        starts: how often it was started or resumed.
        phase: the status after the last round.
        members: who is still in.
        operation: operation kind of the next round.
        journal: record of a round in unmask, or None.
        model: what a `fedavg` job goes on from, or None.
    """

    job: str
    starts: int
    phase: Phase
    members: tuple[str, ...]
    operation: str
    journal: bytes | None
    model: bytes | None = None

    @property
    def first_attempt(self) -> int:
        """Number of the first attempt of any round in this start: above all that came before."""
        return (self.starts - 1) * ATTEMPTS_A_START + 1


class RunStore:
    """Runs of the platform on SQL.

    Args:
        database: of the platform.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, job: str, members: tuple[str, ...]) -> Run:
        """Note one more start of a job and return where it goes on."""
        with self._database.begin() as connection:
            row = connection.execute(select(job_runs).where(job_runs.c.job == job)).one_or_none()
            if row is None:
                values = {"starts": 1, "phase": _text(Phase(), ""), "members": json.dumps(list(members))}
                connection.execute(insert(job_runs).values(job=job, **values))
                return Run(job, 1, Phase(), members, "", None)
            starts = row.starts + 1
            connection.execute(update(job_runs).where(job_runs.c.job == job).values(starts=starts))
            phase, operation = _phase(row.phase)
            return Run(job, starts, phase, tuple(json.loads(row.members)), operation, row.journal, row.model)

    def checkpoint(
        self, job: str, phase: Phase, members: tuple[str, ...], operation: str, model: bytes | None = None
    ) -> None:
        """Keep the status after a round; the journal of that round ends with it."""
        text = json.dumps(list(members))
        self._set(job, phase=_text(phase, operation), members=text, journal=None, model=model)

    def model(self, job: str) -> bytes | None:
        """Return what the last checkpoint of a `fedavg` job kept, or None."""
        with self._database.read() as connection:
            query = select(job_runs.c.model).where(job_runs.c.job == job)
            found: bytes | None = connection.execute(query).scalar_one_or_none()
        return found

    def save_progress(self, job: str, progress: dict[str, Any]) -> None:
        """Keep the progress of a run that ended."""
        self._set(job, progress=json.dumps(progress))

    def progress(self, job: str) -> dict[str, Any] | None:
        """Return the progress of a run that ended, or None."""
        with self._database.read() as connection:
            text = connection.execute(select(job_runs.c.progress).where(job_runs.c.job == job)).scalar_one_or_none()
        return json.loads(text) if text else None

    def journal(self, job: str) -> SqlJournal:
        """Return the journal of a job."""
        return SqlJournal(lambda record: self._set(job, journal=record))

    def _set(self, job: str, **values: Any) -> None:
        with self._database.begin() as connection:
            connection.execute(update(job_runs).where(job_runs.c.job == job).values(**values))


class SqlJournal:
    """What lets a round in unmask be finished after a crash of the platform.

    Clearing it is left to the checkpoint of the round, in one transaction with it: between the two a crash would
    forget a result that members already have.
    """

    def __init__(self, write: Callable[[bytes | None], None]) -> None:
        self._write = write

    def save(self, record: bytes) -> None:
        """Make `record` durable."""
        self._write(record)

    def clear(self) -> None:
        """Leave it to the checkpoint, or to the end of the job."""

    def forget(self) -> None:
        """Delete the record at the end of the job."""
        self._write(None)


def _text(phase: Phase, operation: str) -> str:
    return json.dumps({**phase.record(), "operation": operation})


def _phase(text: str) -> tuple[Phase, str]:
    values = json.loads(text)
    operation = str(values.pop("operation"))
    return Phase.from_record(values), operation
