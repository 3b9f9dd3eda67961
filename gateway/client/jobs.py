"""Jobs from Python: propose, look, accept, start, wait, result."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd

from federation.errors import ChaotianError
from gateway.client.connection import CALL_SECONDS, START_SECONDS, Connection, check_deadline
from gateway.client.documents import Document, toml_text
from gateway.client.progress import bar
from gateway.client.results import JobResult, JobView
from gateway.jobs import states

WAIT_SECONDS = 3600.0
LOOK_SECONDS = 0.4  # between two looks at a job that runs
LOOK_DEADLINE = 30.0  # for one look, and what the last one has at least: a busy node is not an absent one
LOOK_LEAST = 5.0
PASSING = ("PLATFORM_UNREACHABLE", "BACKPRESSURE", "DEADLINE")  # a job outlives these; whoever waits for it does too
STAGES = ("advertise_keys", "share_keys", "masked_input", "consistency", "unmask", "result")

Progress = bool | Callable[[Mapping[str, Any]], object]
"""True: a bar in notebooks and terminals; False: nothing; or a function that takes what `job.progress` answers."""


class Job:
    """A job as this member's node knows it; made by `Client.propose` and `client.jobs.get`.

    Example:
        >>> job = client.propose("scorecard.toml")
        >>> job.accept()
        >>> job.wait_for_acceptances().start().wait()
        >>> job.result().coefficients
    """

    def __init__(self, connection: Connection, job: str) -> None:
        self._connection = connection
        self.id = job

    def __repr__(self) -> str:
        return f"<Job {self.id[:12]}>"

    def show(self, *, deadline: float = CALL_SECONDS) -> JobView:
        """Return what the job is, its state, who has accepted, and exactly what would leave this node."""
        return JobView(self._call("job.show", deadline))

    def accept(self, *, grant: str = "", exposure_consent: bool = False, deadline: float = START_SECONDS) -> Job:
        """Accept for this member: signed, and bound to the dataset as it is now and to a grant.

        Args:
            grant: compute under this grant, where several fit.
            exposure_consent: agree that this result, beside an earlier one, may show this member's own part.

        Raises:
            ChaotianError: NO_GRANT, GRANT_DENIED, NOT_APPROVED, RELEASE_DIFFERENCE, and of the data.
        """
        self._call("job.accept", deadline, exposure_consent=exposure_consent, grant=grant)
        return self

    def consent(self, *, deadline: float = CALL_SECONDS) -> Job:
        """Consent to being exposed by this job's results beside those of an earlier job."""
        self._call("job.consent", deadline)
        return self

    def start(self, *, deadline: float = START_SECONDS) -> Job:
        """Start the job once all have accepted; for the member that proposed it."""
        self._call("job.start", deadline)
        return self

    def resume(self, *, deadline: float = START_SECONDS) -> Job:
        """Go on with a job that a restart of the platform interrupted."""
        self._call("job.resume", deadline)
        return self

    def cancel(self, *, deadline: float = CALL_SECONDS) -> Job:
        """End the job for everybody."""
        self._call("job.cancel", deadline)
        return self

    def wait_for_acceptances(self, *, progress: Progress = True, deadline: float = WAIT_SECONDS) -> Job:
        """Wait until every member has accepted.

        Raises:
            ChaotianError: DEADLINE naming who has not; the job's own end where it failed or was cancelled.
        """
        with watcher(progress) as shown:
            waiting = Acceptances(shown, deadline)
            while not waiting.see(self.look("job.show", waiting.left)):
                time.sleep(waiting.pause)
        return self

    def wait(self, *, progress: Progress = True, deadline: float = WAIT_SECONDS) -> Job:
        """Wait until the job is over, for everybody and at this node.

        The job needs nobody who waits: interrupt this (Ctrl-C), or let the deadline pass, and it runs on.

        Args:
            progress: True for a bar in notebooks and terminals, or a function that takes what is known of the job.
            deadline: seconds.

        Raises:
            ChaotianError: DEADLINE; CANCELLED; the job's own code where it failed.
        """
        with watcher(progress) as shown:
            waiting = Ending(shown, deadline)
            while not waiting.see(self.look("job.progress", waiting.left)):
                time.sleep(waiting.pause)
        return self

    def result(self, *, deadline: float = CALL_SECONDS) -> JobResult:
        """Return what the finished job brought this member, as pandas tables.

        Raises:
            ChaotianError: JOB_STATE while there is none; the job's own code where it failed.
        """
        return JobResult(self._call("job.result", deadline), self._connection.path)

    def _call(self, method: str, deadline: float, **params: Any) -> dict[str, Any]:
        return self._connection.call(method, {"id": self.id, **params}, deadline=deadline)

    def look(self, method: str, left: float) -> dict[str, Any] | None:
        """Return what `method` answers; None where something is in the way that passes."""
        try:
            return self._call(method, min(LOOK_DEADLINE, left + LOOK_LEAST))
        except ChaotianError as error:
            if error.code not in PASSING:
                raise
            return None


class Jobs:
    """The jobs of this space that concern this member."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def propose(self, document: Document, *, deadline: float = CALL_SECONDS) -> Job:
        """Propose a job to its members.

        Args:
            document: a dict with the fields of docs/jobs, a path, or TOML text; `gateway.client.documents` has helpers.

        Raises:
            ChaotianError: BAD_DOCUMENT naming the field; PLATFORM_UNREACHABLE.
        """
        found = self._connection.call("job.propose", {"toml": toml_text(document, "job")}, deadline=deadline)
        return Job(self._connection, str(found["id"]))

    def get(self, job: str, *, deadline: float = CALL_SECONDS) -> Job:
        """Return the job whose id begins with `job`; NOT_FOUND, or USAGE where several do."""
        return Job(self._connection, str(self._connection.call("job.show", {"id": job}, deadline=deadline)["id"]))

    def list(self, *, deadline: float = CALL_SECONDS) -> pd.DataFrame:
        """Return the jobs this node knows, the newest first: kind, purpose, proposer, members, state, code, created."""
        found = self._connection.call("job.list", deadline=deadline)["jobs"]
        columns = ["id", "kind", "purpose", "proposer", "members", "state", "code", "created"]
        table = pd.DataFrame(found, columns=columns)
        return table.assign(created=pd.to_datetime(table["created"], unit="s", utc=True)).set_index("id")


# --- waiting, without the waiting itself: the same for programs that block and for those that do not ----------------


class Waiting(ABC):
    """What is seen while somebody waits.

    Args:
        shown: told of everything new.
        deadline: seconds from now.
    """

    look_seconds = LOOK_SECONDS

    def __init__(self, shown: Callable[[Mapping[str, Any] | None], None], deadline: float) -> None:
        self._shown, self._deadline = shown, check_deadline(deadline)
        self._end = time.monotonic() + self._deadline
        self._last: Mapping[str, Any] | None = None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(self._end - time.monotonic(), 0.0)

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return min(self.look_seconds, self.left)

    def see(self, seen: Mapping[str, Any] | None) -> bool:
        """Take a look's outcome, None where there was none; return whether it is over.

        Raises:
            ChaotianError: DEADLINE, or how the job ended.
        """
        self._shown(seen)
        self._last = seen or self._last
        if seen is not None and self._over(seen):
            return True
        if time.monotonic() >= self._end:
            raise ChaotianError("DEADLINE", f"after {self._deadline:g} s {self._late(self._last)}")
        return False

    @abstractmethod
    def _over(self, seen: Mapping[str, Any]) -> bool:
        """Return whether what was waited for is there; raise how the job ended."""

    @abstractmethod
    def _late(self, seen: Mapping[str, Any] | None) -> str:
        """Return what is still missing, for the error of a deadline."""


class Ending(Waiting):
    """Until a job is over, for everybody and at this node."""

    def _over(self, seen: Mapping[str, Any]) -> bool:
        own = seen["own"]
        if seen["state"] not in states.ENDED or own["state"] in (states.RUNNING, states.ACCEPTED):
            return False
        _refuse_end(seen["state"], seen["code"], own["detail"] or seen["detail"])
        return True

    def _late(self, seen: Mapping[str, Any] | None) -> str:
        state = seen["state"] if seen is not None else "out of sight"
        return f"the job is {state}; it needs nobody who waits"


class Acceptances(Waiting):
    """Until all members have accepted."""

    look_seconds = 2.0  # a node works out what would leave it every time it shows a job

    def _over(self, seen: Mapping[str, Any]) -> bool:
        if seen["state"] in (states.FAILED, states.CANCELLED):
            _refuse_end(seen["state"], seen["code"], seen["detail"])
        return seen["state"] in (states.RUNNING, states.DONE) or not _missing(seen)

    def _late(self, seen: Mapping[str, Any] | None) -> str:
        return f"{', '.join(_missing(seen)) if seen is not None else 'somebody'} has not accepted"


def _missing(seen: Mapping[str, Any]) -> list[str]:
    return [member for member in seen["document"]["members"] if member not in seen["accepted"]]


def _refuse_end(state: str, code: str, detail: str) -> None:
    if state == states.CANCELLED:
        raise ChaotianError("CANCELLED", detail)
    if state == states.FAILED:
        raise ChaotianError(code, detail)


@contextmanager
def watcher(progress: Progress) -> Iterator[Callable[[Mapping[str, Any] | None], None]]:
    """Give a function that takes what is seen of a job: it moves a bar, or tells a function of the caller's.

    Args:
        progress: as for `Job.wait`.
    """
    told = progress if callable(progress) else None
    with bar(progress is True, keep=True) as show:

        def see(seen: Mapping[str, Any] | None) -> None:
            if seen is None:
                show("the platform is away; the job goes on when it is back", 0, 1)
                return
            if told is not None:
                told(seen)
            show(*(_accepting(seen) if "document" in seen else _running(seen)))

        try:
            yield see
        except (KeyboardInterrupt, asyncio.CancelledError):
            show("no longer watched: the job runs on", 0, 1)
            raise
        except ChaotianError as error:
            show(f"{error.code}: {error.detail}", 0, 1)
            raise


def _accepting(seen: Mapping[str, Any]) -> tuple[str, float, float]:
    missing, members = _missing(seen), seen["document"]["members"]
    text = f"waiting for {', '.join(missing)} to accept" if missing else "all have accepted"
    return text, len(members) - len(missing), len(members)


def _running(seen: Mapping[str, Any]) -> tuple[str, float, float]:
    """Return in words where a job is, and how far its round is; how many rounds there will be nobody knows."""
    state, progress = seen["state"], seen.get("progress") or {}
    rounds = progress.get("rounds") or []
    if state in states.ENDED:
        how = f"{state}: {len(rounds)} rounds in {progress.get('seconds', 0.0):.1f} s" if rounds else state
        return how, float(state == states.DONE), 1.0
    if not progress.get("round"):
        return state, 0.0, 1.0
    stage = progress.get("stage", "")
    done = STAGES.index(stage) + 1 if stage in STAGES else 0
    late = [name for name, m in progress["members"].items() if m["state"] == "waiting" and m["seconds"] > 2.0]
    lost = [name for name, m in progress["members"].items() if m["state"] == "lost"]
    text = f"round {progress['round']}: {progress.get('operation', '')}, {stage}"
    text += f"; late: {', '.join(late)}" if late else ""
    text += f"; lost: {', '.join(lost)}" if lost else ""
    return text, done, len(STAGES)
