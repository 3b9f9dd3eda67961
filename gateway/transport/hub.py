"""The platform's side of the connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import grpc

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy, SystemEntropy
from gateway.transport import streams
from gateway.transport.frames import StreamError
from gateway.transport.ports import STREAMS, VERSION, Admission, Caller, ConnectionInfo, Limits, PlatformHandler
from gateway.transport.session import Session, SessionSettings
from gateway.transport.tls import check_negotiated, peer_certificate, server_credentials, server_options
from gateway.transport.wire import Wire
from protos.chaotian.v1 import link_pb2 as pb

log = logging.getLogger("chaotian.transport")
_KEPT = 60.0  # seconds that a session without connection and without work is kept


class _Connection:
    """Three streams of one member, from one connection of one process."""

    def __init__(self, caller: Caller, session: bytes, number: int, own: bytes, address: str) -> None:
        self.caller = caller
        self.session = session
        self.number = number
        self.own = own  # our session id, told in Welcome
        self.address = address
        self.since = time.time()
        self.began = time.monotonic()
        self.wires: dict[str, Wire] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.closing = False


class _Member:
    """One process of a member, over its connections."""

    def __init__(self, session: Session, theirs: bytes, own: bytes, caller: Caller) -> None:
        self.session = session
        self.theirs = theirs
        self.own = own
        self.caller = caller
        self.connection: _Connection | None = None


class Hub:
    """All connected members of a space.

    Args:
        admission: who may connect, asked on every stream and every second; without one (see `use_admission`), nobody.
        limits: sizes and times.
        entropy: source of ids.
    """

    def __init__(
        self, admission: Admission | None = None, *, limits: Limits | None = None, entropy: Entropy | None = None
    ) -> None:
        self._admission = admission
        self._limits = limits or Limits()
        self._entropy = entropy or SystemEntropy()
        self._handlers: dict[str, tuple[frozenset[str], PlatformHandler]] = {}
        self._members: dict[str, _Member] = {}
        self._opening: dict[tuple[str, bytes, int], _Connection] = {}
        self._watchers: list[Callable[[str, bool], None]] = []
        self._server: grpc.aio.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._closers: set[asyncio.Task[None]] = set()

    # --- life ----------------------------------------------------------------------------------------------

    async def start(
        self,
        bind: str,
        *,
        tls: Callable[[], tuple[bytes, bytes]],
        authority: bytes,
        extend: Callable[[grpc.aio.Server], None] | None = None,
    ) -> int:
        """Open the main port and return its number.

        Args:
            bind: `address:port`; port 0 chooses one.
            tls: returns private key and certificate chain (PEM), see `server_credentials`.
            authority: certificate of the authority that clients' certificates must come from, PEM.
            extend: adds further services before the port opens.

        Raises:
            ChaotianError: CONFIG where the port cannot be opened.
        """
        server = grpc.aio.server(options=list(server_options()))
        handlers = {
            streams.METHODS[stream]: grpc.stream_stream_rpc_method_handler(
                self._servicer(stream), request_deserializer=None, response_serializer=streams.encode
            )
            for stream in STREAMS
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(streams.SERVICE, handlers),))
        if extend is not None:
            extend(server)
        try:
            port = server.add_secure_port(bind, server_credentials(tls, authority))
        except RuntimeError:
            port = 0
        if port == 0:
            raise ChaotianError("CONFIG", f"the port {bind} cannot be opened", hint="Choose a free port.")
        await server.start()
        self._server = server
        self._task = asyncio.create_task(self._watch())
        return port

    async def stop(self, grace: float = 2.0) -> None:
        """Say goodbye to all members and close the port."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        error = ChaotianError("PLATFORM_UNREACHABLE", "the platform is stopping")
        open_ = [member.connection for member in self._members.values() if member.connection is not None]
        await asyncio.gather(*(self._close(c, error) for c in (*open_, *self._opening.values())))
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None
        for member in self._members.values():
            member.session.close(error)

    def use_admission(self, admission: Admission) -> None:
        """Ask `admission` from now on who may connect."""
        self._admission = admission

    # --- asking and answering ------------------------------------------------------------------------------

    async def request(
        self,
        member: str,
        kind: str,
        payload: bytes,
        *,
        stream: str = "control",
        deadline: float,
        grace: float | None = None,
    ) -> bytes:
        """Ask a member and return its reply.

        Args:
            member: its name.
            kind: what is asked.
            payload: at most 1 MiB on `control` and `queries`, 96 MiB on `bulk`.
            stream: `control`, `queries` or `bulk`.
            deadline: seconds from now.
            grace: how long the request outlives its connection, in seconds (default 2; 0: not at all).

        Raises:
            ChaotianError: what the member answered with; PEER_UNREACHABLE when it is not connected or does not come
                back within `grace`; LOST when its process was started anew meanwhile; DEADLINE; OVERSIZED.
        """
        known = self._members.get(member)
        if known is None:
            raise ChaotianError("PEER_UNREACHABLE", f"{member} is not connected", member=member)
        return await known.session.request(
            kind, payload, stream=stream, deadline=deadline, grace=self._limits.grace if grace is None else grace
        )

    def on(self, kind: str, roles: Collection[str], handler: PlatformHandler) -> None:
        """Answer requests of `kind` from members of these roles; an empty list means nobody."""
        if isinstance(roles, str):
            raise TypeError("roles are a collection of names")
        if kind in self._handlers:
            raise ValueError(f"two handlers for {kind}")
        self._handlers[kind] = (frozenset(roles), handler)

    def connected(self) -> Mapping[str, ConnectionInfo]:
        """Return who is connected now, by name."""
        return {
            name: ConnectionInfo(
                member=name,
                role=member.connection.caller.role,
                since=member.connection.since,
                address=member.connection.address,
                round_trip=member.session.counters.round_trip,
                sent=member.session.counters.sent,
                received=member.session.counters.received,
                certificate_serial=member.connection.caller.serial,
            )
            for name, member in self._members.items()
            if member.connection is not None
        }

    def on_change(self, watcher: Callable[[str, bool], None]) -> None:
        """Call `watcher(member, connected)` on the event loop at every arrival and departure."""
        self._watchers.append(watcher)

    async def disconnect(self, member: str, code: str) -> None:
        """End a member's connection with an error code; its requests under way fail with PEER_UNREACHABLE."""
        known = self._members.pop(member, None)
        if known is None:
            return
        connection, known.connection = known.connection, None
        known.session.detach({})
        known.session.close(ChaotianError("PEER_UNREACHABLE", f"{member} was disconnected ({code})", member=member))
        if connection is not None:
            await self._close(connection, ChaotianError(code, member=member))
            self._tell(member, False)

    def _tell(self, member: str, connected: bool) -> None:
        for watcher in self._watchers:
            watcher(member, connected)

    # --- streams -------------------------------------------------------------------------------------------

    def _servicer(self, stream: str) -> Any:
        async def serve(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await self._serve(stream, context)

        return serve

    async def _serve(self, stream: str, context: Any) -> None:
        """Serve one stream from Hello to its end."""
        try:
            async with asyncio.timeout(self._limits.handshake):
                caller = await self._authenticate(context)
                connection, wire = await self._open(stream, caller, context)
        except ChaotianError as error:
            log.warning("stream refused", extra={"code": error.code, "peer": error.member, "stream": stream})
            with contextlib.suppress(Exception):
                await context.write(streams.goodbye(error))
            return
        except TimeoutError:
            return
        try:
            await self._read(connection, wire, context)
        except StreamError as error:
            log.warning("stream ended", extra={"code": error.code, "peer": caller.member, "detail": error.detail})
            await self._close(connection, error)
        except asyncio.CancelledError:
            # Either the member is gone, or `_close` ends this stream, and then it ends in order.
            if not connection.closing:
                raise
        finally:
            if not connection.closing:
                self._ended(connection)

    async def _authenticate(self, context: Any) -> Caller:
        facts = context.auth_context()
        check_negotiated(facts)
        pem = peer_certificate(facts)
        if self._admission is None:
            raise ChaotianError("NOT_PERMITTED", "the platform admits nobody yet")
        return await asyncio.to_thread(self._admission.admit, pem)

    async def _open(self, stream: str, caller: Caller, context: Any) -> tuple[_Connection, Wire]:
        data = await context.read()
        if data is streams.END:
            raise ChaotianError("MALFORMED", "the stream ended before Hello", member=caller.member)
        frame = streams.decode(data)
        hello = frame.hello
        if frame.WhichOneof("body") != "hello" or len(hello.session) != streams.SESSION_BYTES:
            raise ChaotianError("MALFORMED", "expected Hello as the first frame", member=caller.member)
        if VERSION not in hello.versions:
            raise ChaotianError(
                "VERSION", f"the platform speaks version {VERSION}, the node {list(hello.versions)[:8]}"
            )
        if not 0 < hello.credit <= 1 << 30:
            raise ChaotianError("MALFORMED", "Hello gives no sensible credit", member=caller.member)
        connection = self._connection_of(caller, hello, context.peer())
        if stream in connection.wires or connection.closing:
            raise ChaotianError("REPLAY", f"{stream} is open already", member=caller.member)
        wire = Wire(
            stream,
            context.write,
            outgoing=hello.credit,
            incoming=self._limits.credit[stream],
            ended=lambda: self._ended(connection),
        )
        connection.wires[stream] = wire
        task = asyncio.current_task()
        assert task is not None
        connection.tasks[stream] = task
        welcome = pb.Welcome(version=VERSION, session=connection.own, credit=self._limits.credit[stream])
        wire.word(pb.Frame(welcome=welcome))
        if len(connection.wires) == len(STREAMS):
            self._complete(connection)
        return connection, wire

    def _connection_of(self, caller: Caller, hello: Any, address: str) -> _Connection:
        key = (caller.member, hello.session, hello.connection)
        connection = self._opening.get(key)
        if connection is not None:
            if connection.caller != caller:
                raise ChaotianError("REPLAY", "one connection has two certificates", member=caller.member)
            return connection
        if sum(1 for member, *_ in self._opening if member == caller.member) >= 4:
            raise ChaotianError("BACKPRESSURE", "too many connections are being opened", member=caller.member)
        known = self._members.get(caller.member)
        same = known is not None and known.theirs == hello.session
        current = known.connection if known is not None and same else None
        if current is not None and hello.connection <= current.number:
            raise ChaotianError("REPLAY", "a later connection is open already", member=caller.member)
        own = known.own if known is not None and same else self._entropy.bytes(streams.SESSION_BYTES)
        connection = _Connection(caller, hello.session, hello.connection, own, address)
        self._opening[key] = connection
        return connection

    def _complete(self, connection: _Connection) -> None:
        """All three streams are open: they carry the member's session from now on."""
        caller = connection.caller
        self._opening.pop((caller.member, connection.session, connection.number), None)
        known = self._members.get(caller.member)
        old = known.connection if known is not None else None
        if known is not None and known.own != connection.own:
            known.session.close(ChaotianError("LOST", f"{caller.member} was started anew", member=caller.member))
            known = None
        if known is None:
            known = _Member(self._new_session(caller), connection.session, connection.own, caller)
            self._members[caller.member] = known
        known.caller = caller
        known.connection = connection
        known.session.attach(connection.wires)
        if old is not None:
            self._close_soon(old, ChaotianError("REPLAY", "a later connection has taken over", member=caller.member))
        log.info("connected", extra={"peer": caller.member, "role": caller.role})
        if old is None or old.session != connection.session:
            if old is not None:
                self._tell(caller.member, False)
            self._tell(caller.member, True)

    async def _read(self, connection: _Connection, wire: Wire, context: Any) -> None:
        while True:
            data = await context.read()
            if data is streams.END:
                return
            frame = streams.decode(data)
            if streams.goodbye_error(frame) is not None:
                return
            known = self._members.get(connection.caller.member)
            if known is None or known.connection is not connection:
                if len(connection.wires) < len(STREAMS):
                    raise StreamError("MALFORMED", "a frame came before all streams were open")
                return
            known.session.receive(wire, frame)

    def _ended(self, connection: _Connection) -> None:
        """One stream of a connection is over, and so is the connection."""
        self._close_soon(connection, None)

    def _close_soon(self, connection: _Connection, error: ChaotianError | None) -> None:
        if connection.closing:
            return
        task = asyncio.get_running_loop().create_task(self._close(connection, error))
        self._closers.add(task)
        task.add_done_callback(self._closers.discard)

    async def _close(self, connection: _Connection, error: ChaotianError | None) -> None:
        if connection.closing:
            return
        connection.closing = True
        caller = connection.caller
        self._opening.pop((caller.member, connection.session, connection.number), None)
        known = self._members.get(caller.member)
        if known is not None and known.connection is connection:
            known.connection = None
            known.session.detach({})
            log.info("disconnected", extra={"peer": caller.member, "code": error.code if error else ""})
            self._tell(caller.member, False)
        current = asyncio.current_task()
        if error is not None:
            for wire in connection.wires.values():
                with contextlib.suppress(StreamError):
                    wire.word(streams.goodbye(error))
            await asyncio.gather(*(wire.drain(0.5) for wire in connection.wires.values()))
        for wire in connection.wires.values():
            wire.close()
        for task in connection.tasks.values():
            if task is not current:
                task.cancel()

    def _new_session(self, caller: Caller) -> Session:
        member = caller.member

        def admit(stream: str, kind: str) -> None:
            known = self._handlers.get(kind)
            if known is None:
                raise ChaotianError("NOT_FOUND", f"the platform has no service {kind}")
            if self._caller(member, caller).role not in known[0]:
                raise ChaotianError("NOT_PERMITTED", f"{kind} is not open to this role")

        async def handle(kind: str, payload: bytes) -> bytes:
            return await self._handlers[kind][1](self._caller(member, caller), payload)

        return Session(
            SessionSettings(
                limits=self._limits,
                entropy=self._entropy,
                admit=admit,
                handle=handle,
                away=lambda: ChaotianError("PEER_UNREACHABLE", f"{member} is not connected", member=member),
                peer=member,
            )
        )

    def _caller(self, member: str, first: Caller) -> Caller:
        known = self._members.get(member)
        return known.caller if known is not None else first

    # --- keeping watch -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Heartbeats, silent members, revoked certificates, sessions that have ended."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._limits.heartbeat)
            late = time.monotonic() - before > 2 * self._limits.heartbeat  # this process stood still, not the others
            try:
                self._beat(late)
                await self._cut_refused()
            except Exception as error:
                log.error("keeping watch failed", exc_info=error)

    def _beat(self, late: bool) -> None:
        now, loop_now = time.monotonic(), asyncio.get_running_loop().time()
        for name, member in list(self._members.items()):
            session = member.session
            try:
                session.tick()
            except StreamError as error:
                if member.connection is not None:
                    self._close_soon(member.connection, error)
            if member.connection is not None:
                if not late and now - session.last_heard > self._limits.dead_after:
                    log.warning("member is silent", extra={"peer": name})
                    self._close_soon(member.connection, ChaotianError("PEER_UNREACHABLE", "no heartbeat came"))
            elif session.down_since is not None and now - session.down_since > _KEPT and session.quiet_until < loop_now:
                session.close(ChaotianError("PEER_UNREACHABLE", f"{name} is not connected", member=name))
                del self._members[name]
        for connection in list(self._opening.values()):
            if now - connection.began > self._limits.handshake:
                self._close_soon(connection, ChaotianError("DEADLINE", "not all streams were opened in time"))

    async def _cut_refused(self) -> None:
        open_ = {m.connection.caller.serial: name for name, m in self._members.items() if m.connection is not None}
        if not open_ or self._admission is None:
            return
        for serial in await asyncio.to_thread(self._admission.refused, list(open_)):
            name = open_.get(serial)
            if name is not None:
                log.warning("certificate revoked: disconnected", extra={"peer": name})
                await self.disconnect(name, "CERT_REVOKED")
