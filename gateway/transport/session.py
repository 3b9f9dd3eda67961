"""What two processes know of each other across reconnects: requests under way, replies owed, parts half arrived.

Both sides run the same class. A `Session` lives as long as both processes; connections come and go under it. A
request is handled once: its id is remembered until its deadline, and a repetition is answered with the same reply.
After a reconnect each side names what it has not finished sending (`Resume`), the other says how much of each has
arrived (`Have`), and sending goes on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy
from gateway.transport.frames import (
    ERROR,
    ID_BYTES,
    REPLY,
    REQUEST,
    Assembler,
    Message,
    StreamError,
    error_from_bytes,
    error_to_wire,
    part_frame,
)
from gateway.transport.ports import Limits
from gateway.transport.wire import Wire, WireClosedError
from protos.chaotian.v1 import link_pb2 as pb

_HASH_INLINE = 1 << 20  # bytes; more is hashed in a thread
_WORD_AT_ONCE = 64 * 1024  # bytes of a reply whose arrival is told at once, so that the other side frees it
_REMEMBERED = 65536
_RESUME_AT_ONCE = 4096
_KEPT_REPLIES = 64 << 20  # bytes of replies sent and not yet known to have arrived
log = logging.getLogger("chaotian.transport")


@dataclass(eq=False)
class _Outgoing:
    """A request or reply on its way."""

    id: bytes
    type: int
    kind: str
    request: bytes
    payload: bytes
    digest: bytes
    stream: str
    ends: float  # on the loop's clock
    grace: float | None = None
    future: asyncio.Future[bytes] | None = None
    offset: int = 0  # bytes handed to the current wire
    begun: bool = False
    wire: Wire | None = None


@dataclass(eq=False)
class _Taken:
    """A request that was accepted: it is not handled again."""

    digest: bytes
    ends: float
    reply: _Outgoing | None = None


@dataclass
class Counters:
    """What has passed: bytes of message bodies, and round trip of the last heartbeat in seconds."""

    sent: int = 0
    received: int = 0
    repeated: int = 0
    refused: int = 0
    round_trip: float | None = None


@dataclass
class SessionSettings:
    """How the owner of a session wants it."""

    limits: Limits
    entropy: Entropy
    admit: Callable[[str, str], None]  # (stream, kind): raises NOT_PERMITTED or NOT_FOUND
    handle: Callable[[str, bytes], Awaitable[bytes]]  # (kind, payload)
    away: Callable[[], ChaotianError]  # what a request meets while the other side is away
    peer: str = ""
    forgotten: Callable[[], None] = field(default=lambda: None)


class Session:
    """One peer's process, over any number of connections."""

    def __init__(self, settings: SessionSettings) -> None:
        self.counters = Counters()
        self.wires: dict[str, Wire] = {}
        self.last_heard = time.monotonic()
        self._settings = settings
        self._limits = settings.limits
        self._assembler = Assembler(settings.limits, self._admit)
        self._pending: dict[bytes, _Outgoing] = {}  # requests of ours, by id
        self._replies: dict[bytes, _Outgoing] = {}  # replies of ours that have not arrived yet, by id
        self._taken: OrderedDict[bytes, _Taken] = OrderedDict()
        self._expires: dict[bytes, float] = {}  # of unfinished incoming messages
        self._arrived: list[bytes] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pings: dict[int, float] = {}
        self._reply_bytes = 0
        self._nonce = 0
        self.down_since: float | None = time.monotonic()
        self.closed: ChaotianError | None = None

    # --- asking ------------------------------------------------------------------------------------------

    async def request(
        self, kind: str, payload: bytes, *, stream: str, deadline: float, grace: float | None = None
    ) -> bytes:
        """Ask the other side and return its reply; see `Link.request` and `Hub.request`."""
        if self.closed:
            raise self.closed
        limit = self._limits.message.get(stream)
        if limit is None:
            raise ChaotianError("INTERNAL", f"there is no stream {stream}")
        if len(payload) > limit:
            raise ChaotianError(
                "OVERSIZED", f"a message on {stream} has {len(payload)} bytes, at most {limit} are allowed"
            )
        if not deadline > 0:
            raise ChaotianError("DEADLINE", f"there was no time left to ask for {kind}")
        deadline = min(deadline, self._limits.deadline_most)
        loop = asyncio.get_running_loop()
        message = _Outgoing(
            self._settings.entropy.bytes(ID_BYTES), REQUEST, kind, b"", payload, b"", stream, loop.time() + deadline
        )
        message.grace = grace
        message.future = loop.create_future()
        try:
            async with asyncio.timeout(deadline):
                message.digest = await _sha256(payload)
                self._pending[message.id] = message
                if stream not in self.wires:
                    self._watch_absence(message)
                await self._send(message)
                return await message.future
        except TimeoutError:
            if stream not in self.wires:
                raise self._settings.away() from None
            raise ChaotianError(
                "DEADLINE", f"no answer to {kind} came within {deadline:.3g} s", member=self._settings.peer
            ) from None
        finally:
            self._pending.pop(message.id, None)

    async def _send(self, message: _Outgoing) -> None:
        """Send what is left of a message over the wire that is open now; without one it waits for `attach`."""
        wire = self.wires.get(message.stream)
        if wire is None or message.wire is wire:
            return
        message.wire = wire
        total = len(message.payload)
        loop = asyncio.get_running_loop()
        try:
            while True:
                size = min(self._limits.frame, total - message.offset)
                await wire.take_credit(size)
                if message.wire is not wire or message.id not in self._owner(message):
                    return
                frame = part_frame(
                    id=message.id,
                    type=message.type,
                    kind=message.kind,
                    request=message.request,
                    payload=message.payload,
                    digest=message.digest,
                    offset=message.offset,
                    size=size,
                    deadline=message.ends - loop.time(),
                )
                message.offset += size
                message.begun = True
                self.counters.sent += size
                await wire.send(frame)
                if message.offset >= total:
                    return
        except WireClosedError:
            return

    def _owner(self, message: _Outgoing) -> dict[bytes, _Outgoing]:
        return self._pending if message.type == REQUEST else self._replies

    # --- connections ---------------------------------------------------------------------------------------

    def attach(self, wires: dict[str, Wire]) -> None:
        """Use these streams from now on; what was under way on earlier ones is resumed."""
        for wire in self.wires.values():
            wire.close()
        self.wires = dict(wires)
        self.down_since = None
        self.last_heard = time.monotonic()
        for stream, wire in wires.items():
            wire.arrived = self._arrived
            unfinished = [m.id for m in (*self._pending.values(), *self._replies.values()) if m.stream == stream]
            for first in range(0, len(unfinished), _RESUME_AT_ONCE):
                wire.word(pb.Frame(resume=pb.Resume(ids=unfinished[first : first + _RESUME_AT_ONCE])))

    def detach(self, wires: dict[str, Wire]) -> bool:
        """These streams are over (none named: all, left open for a last word); returns whether none is left."""
        for wire in wires.values():
            wire.close()
        if self.wires and all(self.wires.get(stream) is wire for stream, wire in wires.items()):
            self.wires = {}
            self.down_since = time.monotonic()
            for message in list(self._pending.values()):
                self._watch_absence(message)
            return True
        return False

    def renewed(self) -> None:
        """The other side is a new process: forget what the old one knew.

        What it had received whole may or may not have been carried out, so it fails; the rest is sent anew.
        """
        for message in list(self._pending.values()):
            if message.begun and message.offset >= len(message.payload):
                self._fail(message, self._settings.away())
            message.offset, message.begun, message.wire = 0, False, None
        self._replies.clear()
        self._reply_bytes = 0
        self._taken.clear()
        for identifier in self._assembler.unfinished():
            self._assembler.drop(identifier)
        self._expires.clear()
        self._arrived.clear()

    def close(self, error: ChaotianError) -> None:
        """End the session: whatever still waits fails with `error`."""
        self.closed = error
        for wire in self.wires.values():
            wire.close()
        self.wires = {}
        for message in list(self._pending.values()):
            self._fail(message, error)
        for task in list(self._tasks):
            task.cancel()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way in either direction."""
        return not (self._pending or self._assembler.held or any(r.wire is None for r in self._replies.values()))

    @property
    def quiet_until(self) -> float:
        """When the last thing that could be resumed ends, on the loop's clock."""
        ends = [m.ends for m in (*self._pending.values(), *self._replies.values())]
        ends += [taken.ends for taken in self._taken.values() if taken.reply is None]
        return max((*ends, *self._expires.values()), default=0.0)

    def _watch_absence(self, message: _Outgoing) -> None:
        """Fail a request whose grace passes while the other side is away."""
        if message.grace is None or self.down_since is None:
            return
        since = self.down_since
        left = since + message.grace - time.monotonic()

        def lost() -> None:
            if self.down_since == since:
                self._fail(message, self._settings.away())

        if left <= 0:
            lost()
        else:
            asyncio.get_running_loop().call_later(left, lost)

    @staticmethod
    def _fail(message: _Outgoing, error: ChaotianError) -> None:
        if message.future is not None and not message.future.done():
            message.future.set_exception(error)

    # --- being told ----------------------------------------------------------------------------------------

    def receive(self, wire: Wire, frame: Any) -> None:
        """Take one frame from a wire.

        Raises:
            StreamError: the connection must end.
        """
        self.last_heard = time.monotonic()
        for identifier in frame.arrived:
            self._forget_reply(identifier)
        if frame.credit:
            wire.give_credit(frame.credit)
        body = frame.WhichOneof("body")
        if body == "part":
            self._take_part(wire, frame.part)
        elif body == "ping":
            wire.word(pb.Frame(pong=pb.Pong(nonce=frame.ping.nonce)))
        elif body == "pong":
            sent = self._pings.pop(frame.pong.nonce, None)
            if sent is not None:
                self.counters.round_trip = time.monotonic() - sent
        elif body == "resume":
            if len(frame.resume.ids) > _RESUME_AT_ONCE:
                raise StreamError("MALFORMED", "too many messages were resumed at once")
            arrivals = [
                pb.Arrival(id=i, offset=self._assembler.have(i), whole=i in self._taken) for i in frame.resume.ids
            ]
            wire.word(pb.Frame(have=pb.Have(arrivals=arrivals)))
        elif body == "have":
            for arrival in frame.have.arrivals:
                self._go_on(wire, arrival)
        elif body != "word":
            raise StreamError("MALFORMED", f"a frame with {body or 'nothing known'} came in the middle of a stream")

    def _take_part(self, wire: Wire, part: Any) -> None:
        size = len(part.body)
        wire.allowance -= size
        if wire.allowance < 0:
            raise StreamError("MALFORMED", f"more bytes came on {wire.stream} than were allowed")
        wire.consumed += size
        self.counters.received += size
        if wire.consumed * 2 >= wire.window:
            wire.word(pb.Frame(word=pb.Word()))
        taken = self._taken.get(part.id) if part.type == REQUEST else None
        if taken is not None:
            self._repeated(wire, part, taken)
            return
        try:
            message = self._assembler.add(wire.stream, part)
        except StreamError:
            raise
        except ChaotianError as error:
            self._refuse(wire, part, error)
            return
        if message is None:
            if part.offset == 0:
                left = min(part.deadline / 1000, self._limits.deadline_most)
                self._expires[part.id] = asyncio.get_running_loop().time() + left
            return
        self._expires.pop(message.id, None)
        if message.type == REQUEST:
            self._take_request(message)
        else:
            self._take_reply(wire, message)

    def _admit(self, stream: str, type_: int, kind: str, request: bytes) -> bool:
        if type_ == REQUEST:
            self._settings.admit(stream, kind)
            return True
        return request in self._pending  # else it came too late: nobody waits for it

    def _take_request(self, message: Message) -> None:
        ends = asyncio.get_running_loop().time() + min(message.deadline, self._limits.deadline_most)
        taken = _Taken(message.digest, ends)
        self._taken[message.id] = taken
        while len(self._taken) > _REMEMBERED:
            self._taken.popitem(last=False)
        self._start(self._handle(message, taken))

    async def _handle(self, message: Message, taken: _Taken) -> None:
        """Run the handler of a request and send its reply; the request's memory counts until then."""
        try:
            type_, payload = await self._answer(message, taken.ends)
            # The requester gives up at its deadline; a reply is kept a moment longer for one that is just resuming.
            reply = _Outgoing(
                self._settings.entropy.bytes(ID_BYTES),
                type_,
                "",
                message.id,
                payload,
                await _sha256(payload),
                message.stream,
                max(taken.ends, asyncio.get_running_loop().time() + 1.0),
            )
            taken.reply = reply
            self._keep_reply(reply)
            await self._send(reply)
        finally:
            self._assembler.release(message)

    async def _answer(self, message: Message, ends: float) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout_at(ends):
                payload = await self._settings.handle(message.kind, message.payload)
            limit = self._limits.message[message.stream]
            if len(payload) > limit:
                raise ChaotianError(
                    "OVERSIZED",
                    f"the reply to {message.kind} has {len(payload)} bytes, on {message.stream} {limit} are allowed",
                )
            return REPLY, payload
        except ChaotianError as error:
            return ERROR, error_to_wire(error).SerializeToString()
        except TimeoutError:
            late = ChaotianError("DEADLINE", f"{message.kind} was not done in time")
            return ERROR, error_to_wire(late).SerializeToString()
        except Exception as unforeseen:
            log.error("handler failed", extra={"kind": message.kind}, exc_info=unforeseen)
            failure = ChaotianError("INTERNAL", f"{message.kind} failed in a way nobody foresaw")
            return ERROR, error_to_wire(failure).SerializeToString()

    def _take_reply(self, wire: Wire, message: Message) -> None:
        self._arrived.append(message.id)
        if len(message.payload) >= _WORD_AT_ONCE or len(self._arrived) >= 256:
            wire.word(pb.Frame(word=pb.Word()))
        asked = self._pending.get(message.request)
        if asked is None or asked.future is None or asked.future.done():
            return
        if message.type == REPLY:
            asked.future.set_result(message.payload)
        else:
            asked.future.set_exception(error_from_bytes(message.payload))

    def _repeated(self, wire: Wire, part: Any, taken: _Taken) -> None:
        """The same request once more: never handled again; answered again where the answer is still here."""
        self.counters.repeated += 1
        reply = taken.reply
        if part.digest != taken.digest or (reply is not None and reply.id not in self._replies):
            self._refuse(wire, part, ChaotianError("REPLAY", "a message id came a second time"))
        elif part.offset == 0 and reply is not None and reply.begun:
            reply.offset, reply.wire = 0, None
            self._start(self._send(reply))

    def _refuse(self, wire: Wire, part: Any, error: ChaotianError) -> None:
        self.counters.refused += 1
        self._expires.pop(part.id, None)
        log.warning("message refused", extra={"peer": self._settings.peer, "code": error.code, "kind": part.kind[:80]})
        if part.type in (REPLY, ERROR):
            asked = self._pending.get(part.request)
            if asked is not None:
                self._fail(asked, ChaotianError(error.code, error.detail, member=self._settings.peer))
            return
        body = error_to_wire(error).SerializeToString()
        if wire.try_credit(len(body)):  # else the requester waits for its deadline
            wire.word(
                part_frame(
                    id=self._settings.entropy.bytes(ID_BYTES),
                    type=ERROR,
                    kind="",
                    request=part.id,
                    payload=body,
                    digest=hashlib.sha256(body).digest(),
                    offset=0,
                    size=len(body),
                    deadline=10.0,
                )
            )

    # --- resuming -----------------------------------------------------------------------------------------------

    def _go_on(self, wire: Wire, arrival: Any) -> None:
        message = self._pending.get(arrival.id) or self._replies.get(arrival.id)
        if message is None or message.wire is wire or message.stream != wire.stream:
            return
        if arrival.whole:  # a request: only its reply is missing
            message.offset, message.wire = len(message.payload), wire
            return
        if arrival.offset > len(message.payload):
            raise StreamError("MALFORMED", "more of a message has arrived than was sent")
        message.offset = arrival.offset
        self._start(self._send(message))

    def _forget_reply(self, identifier: bytes) -> None:
        reply = self._replies.pop(identifier, None)
        if reply is not None:
            self._reply_bytes -= len(reply.payload)

    def _keep_reply(self, reply: _Outgoing) -> None:
        """Keep a reply until it has arrived; where too much is kept, the oldest that were sent go."""
        self._replies[reply.id] = reply
        self._reply_bytes += len(reply.payload)
        if self._reply_bytes > _KEPT_REPLIES:
            for old in [r for r in self._replies.values() if r.begun and r.offset >= len(r.payload)]:
                if self._reply_bytes <= _KEPT_REPLIES:
                    break
                self._forget_reply(old.id)

    # --- keeping watch ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a heartbeat: ping, and forget what has ended."""
        now = asyncio.get_running_loop().time()
        control = self.wires.get("control")
        if control is not None:
            self._nonce += 1
            self._pings[self._nonce] = time.monotonic()
            if len(self._pings) > 64:
                self._pings.pop(next(iter(self._pings)))
            control.word(pb.Frame(ping=pb.Ping(nonce=self._nonce)))
        for identifier in [i for i, ends in self._expires.items() if ends < now]:
            self._expires.pop(identifier, None)
            self._assembler.drop(identifier)
        for identifier in [i for i, reply in self._replies.items() if reply.ends < now]:
            self._forget_reply(identifier)
        for identifier in [i for i, taken in self._taken.items() if taken.ends + 1.0 < now and taken.reply]:
            self._taken.pop(identifier, None)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _sha256(payload: bytes) -> bytes:
    if len(payload) <= _HASH_INLINE:
        return hashlib.sha256(payload).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(payload).digest())
