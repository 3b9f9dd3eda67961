"""The node's side of the connection to the platform."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy, SystemEntropy
from gateway.transport import streams
from gateway.transport.frames import StreamError
from gateway.transport.ports import SOFTWARE, STREAMS, VERSION, Limits, MemberHandler, NodeHandler
from gateway.transport.session import Session, SessionSettings
from gateway.transport.tls import ClientTls, channel_credentials, channel_options
from gateway.transport.wire import Wire
from protos.chaotian.v1 import link_pb2 as pb

log = logging.getLogger("chaotian.transport")
_SETTLED = 5.0  # seconds a connection must last before the next reconnect is quick again
# Answers of the platform that waiting does not change: a request fails with them instead of waiting for its deadline.
_FINAL = frozenset({"CERT_REVOKED", "CERT_EXPIRED", "NOT_PERMITTED", "VERSION", "MALFORMED", "SIGNATURE"})

MemberCall = Callable[[str, str, bytes, float, bool], Awaitable[bytes]]


class _Connection:
    """One channel with its three streams."""

    def __init__(self, channel: grpc.aio.Channel, number: int) -> None:
        self.channel = channel
        self.number = number
        self.since = time.monotonic()
        self.wires: dict[str, Wire] = {}
        self.calls: dict[str, Any] = {}
        self.readers: list[asyncio.Task[None]] = []
        self.peer_session = b""
        self.ended: asyncio.Future[ChaotianError] = asyncio.get_running_loop().create_future()

    def end(self, error: ChaotianError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    async def close(self) -> None:
        for wire in self.wires.values():
            wire.close()
        for reader in self.readers:
            reader.cancel()
        for call in self.calls.values():
            call.cancel()
        with contextlib.suppress(Exception):
            await self.channel.close(None)


class Link:
    """One connection to the platform, kept up until `stop`; requests outlive a reconnect.

    Args:
        address: `host:port` of the platform's main port.
        tls: returns the key and certificate to connect with; asked before each connection, so that a renewed
            certificate is taken up.
        limits: sizes and times.
        entropy: source of ids and of the jitter of reconnects.
    """

    def __init__(
        self,
        address: str,
        tls: Callable[[], ClientTls],
        *,
        limits: Limits | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._limits = limits or Limits()
        self._entropy = entropy or SystemEntropy()
        self._id = self._entropy.bytes(streams.SESSION_BYTES)
        self._number = 0
        self._handlers: dict[str, NodeHandler] = {}
        self._member_handlers: dict[str, MemberHandler] = {}
        self._member_call: MemberCall | None = None
        self._watchers: list[Callable[[bool], None]] = []
        self._connection: _Connection | None = None
        self._peer_session = b""
        self._up = asyncio.Event()
        self._wanted = asyncio.Event()  # a new connection is wanted although this one is good
        self._missed = asyncio.Event()  # somebody asks while there is none
        self._stopping = asyncio.Event()
        self._last_error: ChaotianError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._session = Session(
            SessionSettings(
                limits=self._limits,
                entropy=self._entropy,
                admit=self._admit,
                handle=self._handle,
                away=self._away,
                peer="platform",
            )
        )

    # --- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

    async def stop(self, grace: float = 5.0) -> None:
        """Wait at most `grace` seconds for what is under way, then disconnect."""
        ends = time.monotonic() + grace
        while self.connected and not self._session.idle and time.monotonic() < ends:  # noqa: ASYNC110 no event says it
            await asyncio.sleep(0.02)
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._session.close(ChaotianError("PLATFORM_UNREACHABLE", "this node is stopping"))
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    @property
    def connected(self) -> bool:
        """Whether all three streams are open now."""
        return self._up.is_set()

    @property
    def round_trip(self) -> float | None:
        """Seconds of the last heartbeat."""
        return self._session.counters.round_trip

    @property
    def last_error(self) -> ChaotianError | None:
        """Why the last connection ended or was refused; None while connected."""
        return None if self.connected else self._last_error

    def on_change(self, watcher: Callable[[bool], None]) -> None:
        """Call `watcher(connected)` on the event loop whenever the connection comes or goes."""
        self._watchers.append(watcher)

    async def wait_connected(self, seconds: float) -> None:
        """Return when connected; PLATFORM_UNREACHABLE, or what the platform refused with, after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._up.wait()
        except TimeoutError:
            raise self._away() from None

    async def reconnect(self, idle_within: float = 60.0) -> None:
        """Open a new connection with the current certificate and give up the old one without a gap.

        Waits until nothing is under way, at most `idle_within` seconds; what still is then is resumed.
        """
        ends = time.monotonic() + idle_within
        while self.connected and not self._session.idle and time.monotonic() < ends:  # noqa: ASYNC110 no event says it
            await asyncio.sleep(0.05)
        self._wanted.set()

    # --- asking and answering ------------------------------------------------------------------------------

    async def request(self, kind: str, payload: bytes, *, stream: str = "control", deadline: float) -> bytes:
        """Ask the platform and return its reply.

        Args:
            kind: what is asked.
            payload: at most 1 MiB on `control` and `queries`, 96 MiB on `bulk`.
            stream: `control`, `queries` or `bulk`.
            deadline: seconds from now.

        Raises:
            ChaotianError: what the platform answered with; PLATFORM_UNREACHABLE, within seconds where it is away
                already; DEADLINE, OVERSIZED.
        """
        if not self.connected and self._last_error is not None and self._last_error.code in _FINAL:
            raise self._away()
        # A request under way outlives a reconnect. A new one is not kept waiting on a platform known to be away.
        grace, down = None, self._session.down_since
        if down is not None:
            self._missed.set()
            grace = time.monotonic() - down + self._limits.away
        return await self._session.request(kind, payload, stream=stream, deadline=deadline, grace=grace)

    def on(self, kind: str, handler: NodeHandler) -> None:
        """Answer the platform's requests of `kind`."""
        _once(self._handlers, kind, handler)

    def use_envelopes(self, call: MemberCall) -> None:
        """Send sealed requests to members through `call(member, purpose, payload, deadline, bulk)`."""
        self._member_call = call

    async def ask_member(
        self, member: str, purpose: str, payload: bytes, *, deadline: float, bulk: bool = False
    ) -> bytes:
        """Ask another member through the relay, sealed end to end, and return its reply.

        Args:
            member: its name; this node's owner must have approved it.
            purpose: what is asked, as registered there with `on_member`.
            payload: its bytes.
            deadline: seconds from now.
            bulk: set where the reply may exceed 900 KiB; a request of that size goes over `bulk` by itself.

        Raises:
            ChaotianError: what the member answered with; NOT_APPROVED, PEER_UNREACHABLE, BACKPRESSURE, DEADLINE.
        """
        if self._member_call is None:
            raise ChaotianError("INTERNAL", "this node has no keys for sealed envelopes yet")
        return await self._member_call(member, purpose, payload, deadline, bulk)

    def on_member(self, purpose: str, handler: MemberHandler) -> None:
        """Answer other members' sealed requests of `purpose`: `handler(sender, payload) -> reply`."""
        _once(self._member_handlers, purpose, handler)

    @property
    def member_handlers(self) -> dict[str, MemberHandler]:
        """The handlers of `on_member`."""
        return self._member_handlers

    def _admit(self, stream: str, kind: str) -> None:
        if kind not in self._handlers:
            raise ChaotianError("NOT_FOUND", f"this node has no service {kind}")

    async def _handle(self, kind: str, payload: bytes) -> bytes:
        return await self._handlers[kind](payload)

    def _away(self) -> ChaotianError:
        last = self._last_error
        if last is not None and last.code in _FINAL:
            return ChaotianError(last.code, last.detail, hint=last.hint, member=last.member)
        return ChaotianError("PLATFORM_UNREACHABLE", last.detail if last else f"{self._address} does not answer")

    # --- connecting ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep a connection until the node stops."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                connection = await self._dial()
            except ChaotianError as error:
                if self._last_error is None or self._last_error.code != error.code or attempt == 0:
                    log.warning("cannot connect", extra={"code": error.code, "detail": error.detail})
                self._last_error = error
            else:
                reason = await self._keep(connection)
                self._last_error = reason
                log.warning("connection ended", extra={"code": reason.code, "detail": reason.detail})
                if time.monotonic() - connection.since > _SETTLED:
                    attempt = 0
            most = min(self._limits.backoff_most, self._limits.backoff_first * 2 ** min(attempt, 20))
            attempt += 1
            # Full jitter: many nodes that lost the same platform do not come back at once.
            pause = most * int.from_bytes(self._entropy.bytes(4), "big") / 2**32
            least = min(pause, self._limits.heartbeat)
            await asyncio.sleep(least)
            with contextlib.suppress(TimeoutError):  # sooner where somebody asks
                async with asyncio.timeout(pause - least):
                    await self._missed.wait()
            self._missed.clear()

    async def _keep(self, connection: _Connection) -> ChaotianError:
        """Use a connection, and others that replace it without a gap, until one ends by itself."""
        self._use(connection)
        self._wanted.clear()  # this connection has the newest certificate
        while True:
            wanted = asyncio.create_task(self._wanted.wait())
            waited: set[asyncio.Future[Any]] = {connection.ended, wanted}
            try:
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                wanted.cancel()
            if connection.ended.done():
                break
            self._wanted.clear()
            try:
                fresh = await self._dial()
            except ChaotianError as error:
                log.warning("cannot renew the connection", extra={"code": error.code, "detail": error.detail})
                continue
            if connection.ended.done() and fresh.ended.done():
                connection = fresh
                break
            old, connection = connection, fresh
            self._use(connection)
            await old.close()
        self._drop(connection)
        await connection.close()
        return connection.ended.result()

    def _use(self, connection: _Connection) -> None:
        if self._peer_session and connection.peer_session != self._peer_session:
            self._session.renewed()
        self._peer_session = connection.peer_session
        self._connection = connection
        self._session.attach(connection.wires)
        for stream, call in connection.calls.items():
            connection.readers.append(asyncio.create_task(self._read(connection, stream, call)))
        was = self._up.is_set()
        self._up.set()
        self._last_error = None
        if not was:
            self._tell(True)

    def _drop(self, connection: _Connection) -> None:
        if self._session.detach(connection.wires):
            self._up.clear()
            self._tell(False)

    def _tell(self, connected: bool) -> None:
        for watcher in self._watchers:
            watcher(connected)

    async def _dial(self) -> _Connection:
        tls = await asyncio.to_thread(self._tls)
        self._number += 1
        channel = grpc.aio.secure_channel(
            self._address, channel_credentials(tls), options=list(channel_options(tls.host))
        )
        connection = _Connection(channel, self._number)
        try:
            async with asyncio.timeout(self._limits.handshake):
                for stream in STREAMS:
                    await self._open(connection, stream)
            return connection
        except TimeoutError:
            await connection.close()
            raise ChaotianError("PLATFORM_UNREACHABLE", f"{self._address} did not answer in time") from None
        except grpc.aio.AioRpcError as error:
            await connection.close()
            raise _grpc_error(self._address, error) from None
        except BaseException:
            await connection.close()
            raise

    async def _open(self, connection: _Connection, stream: str) -> None:
        """Open one stream: Hello, and the platform's Welcome."""
        open_stream: Any = connection.channel.stream_stream(
            streams.method(stream), request_serializer=streams.encode, response_deserializer=None
        )
        call = open_stream()
        connection.calls[stream] = call
        hello = pb.Hello(
            versions=[VERSION],
            session=self._id,
            connection=connection.number,
            credit=self._limits.credit[stream],
            software=SOFTWARE,
        )
        with contextlib.suppress(asyncio.InvalidStateError):  # the call ended before: reading says why
            await call.write(pb.Frame(hello=hello))
        data = await call.read()
        if data is streams.END:
            code = await call.code()
            raise ChaotianError("PLATFORM_UNREACHABLE", f"{self._address} ended the stream: {code.name}")
        frame = streams.decode(data)
        refusal = streams.goodbye_error(frame)
        if refusal is not None:
            raise refusal
        welcome = frame.welcome
        if frame.WhichOneof("body") != "welcome" or len(welcome.session) != streams.SESSION_BYTES:
            raise ChaotianError("MALFORMED", "the platform did not answer Hello with Welcome")
        if welcome.version != VERSION:
            raise ChaotianError("VERSION", f"the platform chose version {welcome.version}, this node speaks {VERSION}")
        if connection.peer_session and connection.peer_session != welcome.session:
            raise ChaotianError("PLATFORM_UNREACHABLE", "the platform was started anew while this node connected")
        connection.peer_session = welcome.session
        connection.wires[stream] = Wire(
            stream,
            call.write,
            outgoing=welcome.credit,
            incoming=self._limits.credit[stream],
            ended=lambda: connection.end(ChaotianError("PLATFORM_UNREACHABLE", "the connection broke")),
        )

    async def _read(self, connection: _Connection, stream: str, call: Any) -> None:
        wire = connection.wires[stream]
        try:
            while True:
                data = await call.read()
                if data is streams.END:
                    connection.end(ChaotianError("PLATFORM_UNREACHABLE", "the platform closed the connection"))
                    return
                frame = streams.decode(data)
                error = streams.goodbye_error(frame)
                if error is not None:
                    connection.end(error)
                    return
                self._session.receive(wire, frame)
        except StreamError as error:
            with contextlib.suppress(StreamError):
                wire.word(streams.goodbye(error))
            await wire.drain(0.5)
            connection.end(ChaotianError("PLATFORM_UNREACHABLE", f"the platform broke the protocol: {error.detail}"))
        except grpc.aio.AioRpcError as error:
            connection.end(_grpc_error(self._address, error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.error("reading failed", exc_info=error)
            connection.end(ChaotianError("INTERNAL", "reading from the platform failed in a way nobody foresaw"))

    async def _watch(self) -> None:
        """Heartbeats: notice a platform that is silent."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._limits.heartbeat)
            late = time.monotonic() - before > 2 * self._limits.heartbeat  # this process stood still, not the other
            connection = self._connection
            with contextlib.suppress(StreamError):
                self._session.tick()
            if connection is None or not self.connected or late:
                continue
            if time.monotonic() - self._session.last_heard > self._limits.dead_after:
                connection.end(ChaotianError("PLATFORM_UNREACHABLE", "the platform is silent"))


def _once(handlers: dict[str, Any], name: str, handler: Any) -> None:
    if name in handlers:
        raise ValueError(f"two handlers for {name}")
    handlers[name] = handler


def _grpc_error(address: str, error: grpc.aio.AioRpcError) -> ChaotianError:
    """Say in our words why a channel failed; the library's text names hosts and files of its own."""
    text = (error.details() or "").lower()
    if "handshake" in text or "certificate" in text or "ssl" in text:
        return ChaotianError(
            "PLATFORM_UNREACHABLE",
            f"{address} answers, but the TLS handshake failed: it is not this space's platform, or this node's "
            "certificate is not valid there",
            hint="Compare the address and the clock; renew or enrol again if the certificate has expired.",
        )
    return ChaotianError("PLATFORM_UNREACHABLE", f"{address} cannot be reached ({error.code().name})")
