"""What the transport and its neighbours know of each other: callers, connections, limits, and who may connect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

STREAMS = ("control", "queries", "bulk")
VERSION = 1
SOFTWARE = "chaotian/0.1"


@dataclass(frozen=True)
class Caller:
    """Who sent a request: taken from the client certificate, never from the message."""

    member: str
    role: str
    space: str
    serial: str  # of the certificate, hexadecimal
    city: str = ""


@dataclass(frozen=True)
class ConnectionInfo:
    """One connected member, as the platform sees it."""

    member: str
    role: str
    since: float  # seconds since the epoch, UTC
    address: str
    round_trip: float | None  # seconds, of the last heartbeat; None before the first
    sent: int  # bytes of message bodies
    received: int
    certificate_serial: str


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes and times in seconds that both sides keep to."""

    frame: int = 256 * 1024  # of a message's body in one frame
    message: dict[str, int] = field(
        default_factory=lambda: {"control": 1 << 20, "queries": 1 << 20, "bulk": 96 * (1 << 20)}
    )
    credit: dict[str, int] = field(
        default_factory=lambda: {"control": 2 << 20, "queries": 2 << 20, "bulk": 4 << 20}
    )  # of parts under way on a stream
    buffered: int = 256 << 20  # of requests of one peer that are arriving or being handled
    requests: int = 4096  # of one peer that are arriving or being handled
    heartbeat: float = 1.0
    dead_after: float = 3.0  # without a word from the other side
    grace: float = 2.0  # how long the platform waits for a member to come back
    away: float = 4.0  # how long a new request of a node waits for a platform that is away
    handshake: float = 10.0
    backoff_first: float = 0.1
    backoff_most: float = 15.0
    deadline_most: float = 24 * 3600.0


class Admission(Protocol):
    """Who may connect to the platform. Both methods may block: they are called in a thread."""

    def admit(self, certificate: bytes) -> Caller:
        """Return whom the PEM certificate of a connection names.

        Raises:
            ChaotianError: NOT_PERMITTED (not of this space, not known, not the current role), CERT_REVOKED.
        """
        ...

    def refused(self, serials: Collection[str]) -> Collection[str]:
        """Return those of the certificate serials whose open connections must end."""
        ...


NodeHandler = Callable[[bytes], Awaitable[bytes]]
MemberHandler = Callable[[str, bytes], Awaitable[bytes]]
PlatformHandler = Callable[[Caller, bytes], Awaitable[bytes]]
