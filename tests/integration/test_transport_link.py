"""Link and hub over real TLS on real ports: what they carry, what they survive, whom they refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import ssl
import time
from typing import Any

import grpc
import pytest

from federation.errors import ChaotianError
from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.ports import STREAMS, Caller
from gateway.transport.tls import ClientTls, channel_credentials, channel_options, check_negotiated
from tests.integration.transport_kit import QUICK, Space, code, echo, echo_caller, run, until


class Proxy:
    """A TCP relay between node and platform whose connections the test can cut, or hold still."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.writers: list[asyncio.StreamWriter] = []
        self.bytes = 0
        self.cut_after: int | None = None

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.cut()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self.writers += [writer, far_writer]
        await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer), return_exceptions=True)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.flowing.wait()
            self.bytes += len(data)
            if self.cut_after is not None and self.bytes > self.cut_after:
                self.cut_after = None
                self.cut()
                return
            writer.write(data)
            await writer.drain()
        writer.close()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


# --- carrying ------------------------------------------------------------------------------------------------------


def test_requests_both_ways_and_errors_as_they_are() -> None:
    async def work() -> None:
        space = Space()

        async def refuse(_: bytes) -> bytes:
            raise ChaotianError("NO_GRANT", "not today", hint="ask", member="bank-a")

        async def broken(_: bytes) -> bytes:
            raise RuntimeError("secret value 42")

        async with space.hub() as (hub, port), space.link(port) as link:
            hub.on("echo", ["bank"], echo_caller)
            link.on("echo", echo)
            link.on("refuse", refuse)
            link.on("broken", broken)
            assert await link.request("echo", b"hello", deadline=5) == b"bank/bank-a:hello"
            assert await link.request("echo", b"", stream="queries", deadline=5) == b"bank/bank-a:"
            assert await hub.request("bank-a", "echo", b"\0" * 1000, deadline=5) == b"\0" * 1000
            with pytest.raises(ChaotianError) as raised:
                await hub.request("bank-a", "refuse", b"", deadline=5)
            error = raised.value
            assert (error.code, error.detail, error.hint, error.member) == ("NO_GRANT", "not today", "ask", "bank-a")
            with pytest.raises(ChaotianError) as raised:
                await hub.request("bank-a", "broken", b"", deadline=5)
            assert raised.value.code == "INTERNAL" and "42" not in str(raised.value)
            assert await code(hub.request("bank-a", "nothing", b"", deadline=5)) == "NOT_FOUND"
            assert await code(link.request("nothing", b"", deadline=5)) == "NOT_FOUND"
            assert await code(hub.request("bank-z", "echo", b"", deadline=5)) == "PEER_UNREACHABLE"
            await until(lambda: link.round_trip is not None)
            info = hub.connected()["bank-a"]
            assert (info.role, info.received > 0) == ("bank", True)

    run(work())


def test_services_are_open_to_named_roles_only() -> None:
    async def work() -> None:
        space = Space()
        async with (
            space.hub() as (hub, port),
            space.link(port, "bank-a") as bank,
            space.link(port, "tax", tls=space.tls("tax", "government")) as office,
        ):
            hub.on("banks", ["bank"], echo_caller)
            hub.on("nobody", [], echo_caller)
            assert await bank.request("banks", b"", deadline=5) == b"bank/bank-a:"
            assert await code(office.request("banks", b"", deadline=5)) == "NOT_PERMITTED"
            assert await code(bank.request("nobody", b"", deadline=5)) == "NOT_PERMITTED"
            with pytest.raises(TypeError):
                hub.on("text", "bank", echo_caller)

    run(work())


def test_a_big_message_leaves_questions_quick() -> None:
    async def work() -> None:
        space = Space()
        big = os.urandom(20 << 20)
        async with space.hub() as (hub, port), space.link(port) as link:
            link.on("echo", echo)
            await link.wait_connected(5)
            vector = asyncio.create_task(hub.request("bank-a", "echo", big, stream="bulk", deadline=40))
            answered = 0
            while not vector.done():
                assert await hub.request("bank-a", "echo", b"q", stream="queries", deadline=5) == b"q"
                answered += 1
            assert await vector == big
            assert answered > 10, "questions waited for the vector"

    run(work())


def test_limits_of_streams() -> None:
    async def work() -> None:
        space = Space()

        async def grow(_: bytes) -> bytes:
            return b"x" * (2 << 20)

        async with space.hub() as (hub, port), space.link(port) as link:
            link.on("echo", echo)
            link.on("grow", grow)
            await link.wait_connected(5)
            for stream, size in (("control", (1 << 20) + 1), ("queries", (1 << 20) + 1), ("bulk", (96 << 20) + 1)):
                assert await code(hub.request("bank-a", "echo", bytes(size), stream=stream, deadline=5)) == "OVERSIZED"
            assert await code(hub.request("bank-a", "grow", b"", deadline=5)) == "OVERSIZED"
            assert len(await hub.request("bank-a", "grow", b"", stream="bulk", deadline=5)) == 2 << 20
            exact = b"x" * (1 << 20)
            assert await hub.request("bank-a", "echo", exact, deadline=5) == exact

    run(work())


def test_a_handler_that_never_answers_is_a_deadline_and_cancelled() -> None:
    async def work() -> None:
        space, ended = Space(), asyncio.Event()

        async def never(_: bytes) -> bytes:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()
            return b""

        async with space.hub() as (hub, port), space.link(port) as link:
            link.on("never", never)
            link.on("echo", echo)
            await link.wait_connected(5)
            start = time.monotonic()
            assert await code(hub.request("bank-a", "never", b"", deadline=0.4)) == "DEADLINE"
            assert time.monotonic() - start < 2
            await asyncio.wait_for(ended.wait(), 3)
            assert await hub.request("bank-a", "echo", b"still here", deadline=5) == b"still here"

    run(work())


def test_a_requester_that_gives_up_does_no_harm_to_the_stream() -> None:
    async def work() -> None:
        space = Space()
        async with space.hub() as (hub, port), space.link(port) as link:
            link.on("echo", echo)
            await link.wait_connected(5)
            events: list[bool] = []
            link.on_change(events.append)
            tasks = [
                asyncio.create_task(hub.request("bank-a", "echo", bytes(8 << 20), stream="bulk", deadline=20))
                for _ in range(4)
            ]
            await asyncio.sleep(0.02)
            for task in tasks[:3]:
                task.cancel()
            assert len(await tasks[3]) == 8 << 20
            assert await hub.request("bank-a", "echo", b"x", stream="bulk", deadline=5) == b"x"
            assert events == [], "the connection broke"

    run(work())


def test_many_requests_at_once() -> None:
    async def work() -> None:
        space = Space()
        async with space.hub() as (hub, port), space.link(port) as link:
            link.on("echo", echo)
            await link.wait_connected(5)
            asked = [os.urandom(100 + 317 * i) for i in range(500)]
            replies = await asyncio.gather(
                *(hub.request("bank-a", "echo", a, stream=STREAMS[i % 3], deadline=30) for i, a in enumerate(asked))
            )
            assert replies == asked

    run(work())


# --- surviving -----------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed_and_nothing_is_delivered_twice() -> None:
    """Connections are cut at many points of a transfer in both directions; each message arrives exactly once."""

    async def work() -> None:
        space = Space()
        space.limits = dataclasses.replace(QUICK, grace=10.0)
        seen: dict[bytes, int] = {}

        async def count(payload: bytes) -> bytes:
            seen[payload[:16]] = seen.get(payload[:16], 0) + 1
            await asyncio.sleep(0.01)
            return payload[:16]

        async def count_caller(_: Caller, payload: bytes) -> bytes:
            return await count(payload)

        async with space.hub() as (hub, port), Proxy(port) as proxy, space.link(proxy.port) as link:
            hub.on("count", ["bank"], count_caller)
            link.on("count", count)
            await link.wait_connected(5)
            for attempt in range(6):
                proxy.cut_after = proxy.bytes + 300_000 * (attempt + 1)
                payloads = [os.urandom(16) + bytes((600_000, 50, 3_000_000)[i % 3]) for i in range(6)]
                work = [
                    (link.request if i % 2 else lambda *a, **k: hub.request("bank-a", *a, **k))(
                        "count", payload, stream="bulk", deadline=20
                    )
                    for i, payload in enumerate(payloads)
                ]
                assert await asyncio.gather(*work) == [payload[:16] for payload in payloads]
                assert proxy.cut_after is None, "the connection was not cut"
            assert set(seen.values()) == {1}

    run(work())


def test_bulk_goes_on_where_it_stopped() -> None:
    async def work() -> None:
        space = Space()
        space.limits = dataclasses.replace(QUICK, grace=10.0)
        big = os.urandom(12 << 20)
        async with space.hub() as (hub, port), Proxy(port) as proxy, space.link(proxy.port) as link:

            async def size(_: Caller, payload: bytes) -> bytes:
                return str(len(payload)).encode()

            hub.on("size", ["bank"], size)
            await link.wait_connected(5)
            before = proxy.bytes
            proxy.cut_after = before + (9 << 20)
            assert await link.request("size", big, stream="bulk", deadline=30) == str(len(big)).encode()
            # Sent again is at most what was under way when it was cut: the credit of the stream and buffers.
            assert proxy.bytes - before < len(big) + (7 << 20)

    run(work())


def test_a_restarted_platform_is_found_again() -> None:
    """The hub's object goes on (its port closes and opens): what was under way is answered, once."""

    async def work() -> None:
        space, calls = Space(), 0
        space.limits = dataclasses.replace(QUICK, grace=10.0)

        async def slow(_: Caller, payload: bytes) -> bytes:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.3)
            return payload

        async with space.hub() as (hub, port):
            hub.on("slow", ["bank"], slow)
            async with space.link(port) as link:
                await link.wait_connected(5)
                await hub.stop(0)
                fresh = Hub(space, limits=space.limits)
                fresh.on("slow", ["bank"], slow)
                waiting = asyncio.create_task(link.request("slow", b"sent while away", deadline=20))
                await asyncio.sleep(0.2)
                async with space.hub(port, fresh):
                    assert await waiting == b"sent while away"
                    assert calls == 1
                    assert link.connected

    run(work())


def test_a_request_taken_by_a_platform_that_died_is_not_sent_to_its_successor() -> None:
    async def work() -> None:
        space, calls = Space(), 0

        async def never(_: Caller, payload: bytes) -> bytes:
            nonlocal calls
            calls += 1
            await asyncio.sleep(3600)
            return b""

        async with space.hub() as (hub, port):
            hub.on("never", ["bank"], never)
            async with space.link(port) as link:
                await link.wait_connected(5)
                waiting = asyncio.create_task(link.request("never", b"", deadline=20))
                await until(lambda: calls == 1)
                await hub.stop(0)
                fresh = Hub(space, limits=space.limits)
                fresh.on("never", ["bank"], never)
                async with space.hub(port, fresh):
                    assert await code(waiting) == "PLATFORM_UNREACHABLE"
                    assert calls == 1, "it may have been carried out: only its author may repeat it"

    run(work())


def test_a_node_started_anew_is_lost_for_what_was_under_way() -> None:
    async def work() -> None:
        space, began = Space(), asyncio.Event()

        async def never(_: bytes) -> bytes:
            began.set()
            await asyncio.sleep(3600)
            return b""

        async with space.hub() as (hub, port), Proxy(port) as proxy:
            events: list[tuple[str, bool]] = []
            hub.on_change(lambda *event: events.append(event))
            async with space.link(proxy.port) as link:
                link.on("never", never)
                await link.wait_connected(5)
                waiting = asyncio.create_task(hub.request("bank-a", "never", b"", deadline=20, grace=10))
                await began.wait()
                proxy.flowing.clear()  # its end is not noticed
                async with space.link(port) as second:
                    await second.wait_connected(5)
                    assert await code(waiting) == "LOST"
                    assert events == [("bank-a", True), ("bank-a", False), ("bank-a", True)]
                proxy.flowing.set()

    run(work())


def test_grace_and_silence() -> None:
    async def work() -> None:
        space = Space()
        space.limits = dataclasses.replace(QUICK, backoff_first=3.0, grace=0.5)

        async def never(_: bytes) -> bytes:
            await asyncio.sleep(3600)
            return b""

        async with space.hub() as (hub, port), Proxy(port) as proxy, space.link(proxy.port) as link:
            link.on("never", never)
            await link.wait_connected(5)
            at_once = asyncio.create_task(hub.request("bank-a", "never", b"", deadline=20, grace=0))
            patient = asyncio.create_task(hub.request("bank-a", "never", b"", deadline=20))
            await asyncio.sleep(0.1)
            # A peer that is silent without closing: noticed by the missing heartbeat.
            start = time.monotonic()
            proxy.flowing.clear()
            assert await code(at_once) == "PEER_UNREACHABLE"
            assert QUICK.dead_after * 0.6 < time.monotonic() - start < QUICK.dead_after + 2
            assert "bank-a" not in hub.connected()
            assert not patient.done()
            assert await code(patient) == "PEER_UNREACHABLE"
            await until(lambda: not link.connected)
            proxy.flowing.set()

    run(work())


def test_a_closed_connection_is_noticed_at_once() -> None:
    async def work() -> None:
        space = Space()
        space.limits = dataclasses.replace(QUICK, dead_after=30.0, heartbeat=10.0, backoff_first=5.0)
        async with space.hub() as (hub, port), Proxy(port) as proxy, space.link(proxy.port) as link:
            await link.wait_connected(5)
            proxy.cut()
            await until(lambda: not hub.connected() and not link.connected, 1.0)

    run(work())


def test_a_new_certificate_is_taken_up_without_a_gap() -> None:
    async def work() -> None:
        space = Space()
        current = [space.tls("bank-a")]
        async with space.hub() as (hub, port):
            hub.on("echo", ["bank"], echo_caller)
            link = Link(f"127.0.0.1:{port}", lambda: current[0], limits=QUICK)
            link.on("echo", echo)
            await link.start()
            try:
                await link.wait_connected(5)
                before = hub.connected()["bank-a"].certificate_serial
                events: list[Any] = []
                hub.on_change(lambda *event: events.append(event))
                link.on_change(events.append)
                current[0] = space.tls("bank-a")
                stop = asyncio.Event()

                async def questions() -> int:
                    count = 0
                    while not stop.is_set():
                        assert await hub.request("bank-a", "echo", b"x" * 300_000, stream="bulk", deadline=5, grace=0)
                        assert await link.request("echo", b"y", deadline=5) == b"bank/bank-a:y"
                        count += 1
                    return count

                asking = asyncio.create_task(questions())
                await asyncio.sleep(0.1)
                await link.reconnect(idle_within=0.2)
                await until(lambda: hub.connected()["bank-a"].certificate_serial != before)
                await asyncio.sleep(0.1)
                stop.set()
                assert await asking > 2
                assert events == [], "somebody saw the connection go"
            finally:
                await link.stop(0.2)

    run(work())


# --- refusing ------------------------------------------------------------------------------------------------------


def test_a_revoked_certificate_is_cut_and_refused() -> None:
    async def work() -> None:
        space = Space()
        async with space.hub() as (hub, port), space.link(port) as link:
            link.on("echo", echo)
            hub.on("echo", ["bank"], echo_caller)
            await link.wait_connected(5)
            start = time.monotonic()
            space.revoked.add(hub.connected()["bank-a"].certificate_serial)
            await until(lambda: not hub.connected(), 5.0)
            assert time.monotonic() - start < 5
            await until(lambda: link.last_error is not None)
            assert link.last_error is not None and link.last_error.code == "CERT_REVOKED"
            assert await code(link.request("echo", b"", deadline=2)) == "CERT_REVOKED"
            assert await code(hub.request("bank-a", "echo", b"", deadline=2)) == "PEER_UNREACHABLE"

    run(work())


def refused_with(tls: Any, space: Space) -> str:
    codes: list[str] = []

    async def work() -> None:
        async with space.hub() as (hub, port):
            link = Link(f"127.0.0.1:{port}", lambda: tls, limits=QUICK)
            await link.start()
            try:
                codes.append(await code(link.wait_connected(1.5)))
                assert not hub.connected()
            finally:
                await link.stop(0)

    run(work())
    return codes[0]


def test_foreigners_are_refused() -> None:
    space, other = Space(), Space()
    theirs = other.tls("bank-a")
    assert refused_with(space.tls("bank-a", space="elsewhere"), space) == "NOT_PERMITTED"
    assert refused_with(space.tls("bank-a", "pirate"), space) == "NOT_PERMITTED"
    # A certificate of another authority, none at all, and a platform of another authority: no TLS connection.
    for tls in (
        dataclasses.replace(theirs, authority=space.tls("bank-a").authority),
        ClientTls(space.tls("bank-a").authority, b"", b"", theirs.host),
        theirs,
        dataclasses.replace(space.tls("bank-a"), host="platform.elsewhere.chaotian"),
        space.tls("bank-a", age=7200),
    ):
        assert refused_with(tls, space) == "PLATFORM_UNREACHABLE"


def test_tls_is_1_3_with_the_hybrid_group_or_nothing() -> None:
    async def work() -> None:
        space = Space()
        facts: list[Any] = []

        async def look(request: bytes, context: Any) -> bytes:
            facts.append(context.auth_context())
            return b"seen"

        def extend(server: grpc.aio.Server) -> None:
            handler = grpc.unary_unary_rpc_method_handler(look)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Look": handler}),))

        hub = Hub(space, limits=QUICK)
        port = await hub.start(
            "127.0.0.1:0",
            tls=lambda: (space.platform_key, space.platform_chain),
            authority=space.authority.certificate_pem.encode(),
            extend=extend,
        )
        tls = space.tls("bank-a")
        async with grpc.aio.secure_channel(
            f"127.0.0.1:{port}", channel_credentials(tls), options=list(channel_options(tls.host))
        ) as channel:
            assert await channel.unary_unary("/test/Look")(b"") == b"seen"
        check_negotiated(facts[0])
        assert list(facts[0]["ssl_tls_version"]) == [b"TLSv1.3"]
        assert list(facts[0]["ssl_negotiated_key_exchange_group"]) == [b"X25519MLKEM768"]
        for changed in (
            {"ssl_tls_version": [b"TLSv1.2"]},
            {"ssl_negotiated_key_exchange_group": [b"X25519"]},
            {"ssl_negotiated_key_exchange_group": []},
            {"ssl_tls_version": [b"TLSv1.3", b"TLSv1.3"]},
        ):
            with pytest.raises(ChaotianError) as raised:
                check_negotiated({**facts[0], **changed})
            assert raised.value.code == "VERSION"

        def old() -> str:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["h2"])
            with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as wrapped:
                return str(wrapped.version())

        with pytest.raises(OSError):  # ssl.SSLError is one
            await asyncio.to_thread(old)
        await hub.stop(0)

    run(work())
