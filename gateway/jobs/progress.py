"""What may be watched of a running job: who is at which stage, who is late, bytes, seconds, retries, losses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

KEPT_ROUNDS = 200


@dataclass
class MemberProgress:
    """One member, as the platform sees it. Bytes are of stage requests and replies, envelopes included."""

    stage: str = ""
    state: str = "idle"  # idle, waiting, answered, lost
    since: float = 0.0
    seconds: float = 0.0  # to answer the last stage
    received: int = 0  # bytes from the member
    sent: int = 0  # bytes to the member
    retries: int = 0
    code: str = ""


@dataclass
class Progress:
    """Progress of one run; written by the round's thread, read by any.

    Args:
        job: the job's id.
        clock: seconds, monotonic.
        changed: called after each change, from the writer's thread.
    """

    job: str
    clock: Callable[[], float]
    changed: Callable[[], None] = lambda: None
    members: dict[str, MemberProgress] = field(default_factory=dict)
    round: int = 0
    attempt: int = 0
    stage: str = ""
    operation: str = ""
    fields: dict[str, int] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    began: float = 0.0
    ended: float | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._round_began = 0.0
        self._bytes = 0
        self.began = self.clock()

    def begin_round(self, round_: int, operation: str, fields: dict[str, int], members: Iterable[str]) -> None:
        """A round begins with these members."""
        with self._lock:
            self.round, self.operation, self.fields = round_, operation, fields
            self.attempt, self.stage = 0, ""
            self._round_began, self._bytes = self.clock(), 0
            for name in members:
                self.members.setdefault(name, MemberProgress())
        self.changed()

    def asked(self, member: str, attempt: int, stage: str, size: int) -> None:
        """A stage request of `size` bytes is on its way to `member`."""
        with self._lock:
            entry = self.members.setdefault(member, MemberProgress())
            if attempt != self.attempt and self.attempt:
                for other in self.members.values():
                    other.retries += other.state != "lost"
            self.attempt, self.stage = attempt, stage
            entry.stage, entry.state, entry.since, entry.code = stage, "waiting", self.clock(), ""
            entry.sent += size
            self._bytes += size

    def answered(self, member: str, size: int) -> None:
        """A reply of `size` bytes came."""
        with self._lock:
            entry = self.members[member]
            entry.state, entry.seconds = "answered", self.clock() - entry.since
            entry.received += size
            self._bytes += size

    def refused(self, member: str, code: str) -> None:
        """The member refused, or no answer came."""
        with self._lock:
            entry = self.members[member]
            entry.state, entry.code, entry.seconds = "lost", code, self.clock() - entry.since

    def tell(self) -> None:
        """Say that something changed: once a batch of events, not once an event."""
        self.changed()

    def end_round(self, attempts: int, losses: Iterable[tuple[str, int, str, str]], code: str) -> None:
        """The round ended; `losses` are (member, attempt, stage, code)."""
        with self._lock:
            seconds = self.clock() - self._round_began
            for member, attempt, stage, why in losses:
                self.losses.append(
                    {"round": self.round, "member": member, "attempt": attempt, "stage": stage, "code": why}
                )
                self.members.setdefault(member, MemberProgress()).state = "lost"
            self.rounds.append(
                {
                    "round": self.round,
                    "operation": self.operation,
                    "attempts": attempts,
                    "seconds": round(seconds, 6),
                    "bytes": self._bytes,
                    "code": code,
                }
            )
            del self.rounds[:-KEPT_ROUNDS]
            self.stage = ""
        self.changed()

    def end(self) -> None:
        """The run ended."""
        with self._lock:
            self.ended = self.clock()
        self.changed()

    def document(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        with self._lock:
            now = self.clock() if self.ended is None else self.ended
            return {
                "job": self.job,
                "round": self.round,
                "attempt": self.attempt,
                "stage": self.stage,
                "operation": self.operation,
                "fields": dict(self.fields),
                "seconds": round(now - self.began, 3),
                "members": {
                    name: {
                        "stage": entry.stage,
                        "state": entry.state,
                        "seconds": round(now - entry.since if entry.state == "waiting" else entry.seconds, 4),
                        "received": entry.received,
                        "sent": entry.sent,
                        "retries": entry.retries,
                        "code": entry.code,
                    }
                    for name, entry in sorted(self.members.items())
                },
                "rounds": list(self.rounds),
                "losses": list(self.losses),
            }
