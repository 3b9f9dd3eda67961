"""A node that breaks the protocol: what the platform makes of wrong hellos, frames and messages."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from typing import Any

import grpc
import pytest

from gateway.transport import streams
from gateway.transport.hub import Hub
from gateway.transport.ports import STREAMS, VERSION, Limits
from gateway.transport.tls import channel_credentials, channel_options
from protos.chaotian.v1 import link_pb2 as pb
from tests.integration.transport_kit import QUICK, Space, echo_caller, run, until


class Raw:
    """A client that speaks frames by hand."""

    def __init__(self, space: Space, port: int, member: str = "bank-x", session: bytes | None = None) -> None:
        tls = space.tls(member)
        self.channel = grpc.aio.secure_channel(
            f"127.0.0.1:{port}", channel_credentials(tls), options=list(channel_options(tls.host))
        )
        self.session = session or os.urandom(16)
        self.calls: dict[str, Any] = {}

    async def open(self, stream: str, **changes: Any) -> Any:
        call = self.channel.stream_stream(streams.method(stream), request_serializer=None, response_deserializer=None)()
        self.calls[stream] = call
        hello = {"versions": [VERSION], "session": self.session, "connection": 1, "credit": 1 << 20, **changes}
        await call.write(streams.encode(pb.Frame(hello=pb.Hello(**hello))))
        return await self.read(stream)

    async def read(self, stream: str, *wanted: str) -> Any:
        """Return the next frame of one of the wanted kinds; None at the end."""
        while True:
            data = await asyncio.wait_for(self.calls[stream].read(), 5)
            if data is streams.END:
                return None
            frame = streams.decode(data)
            if not wanted or frame.WhichOneof("body") in wanted:
                return frame

    async def open_all(self) -> None:
        for stream in STREAMS:
            assert (await self.open(stream)).WhichOneof("body") == "welcome"

    async def send(self, stream: str, frame: Any) -> None:
        await self.calls[stream].write(frame if isinstance(frame, bytes) else streams.encode(frame))


def raw(test: Any, **limits: Any) -> None:
    async def work() -> None:
        space = Space()
        space.limits = dataclasses.replace(QUICK, dead_after=30.0, **limits)
        async with space.hub() as (hub, port), space.link(port, "bank-a") as good:
            hub.on("echo", ["bank"], echo_caller)
            await good.wait_connected(5)
            client = Raw(space, port)
            try:
                await test(hub, client)
            finally:
                await client.channel.close(None)
            # Whatever one member does, the others do not notice.
            assert await good.request("echo", b"fine", deadline=5) == b"bank/bank-a:fine"

    run(work())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"versions": [99]}, "VERSION"),
        ({"versions": []}, "VERSION"),
        ({"session": b"short"}, "MALFORMED"),
        ({"credit": 0}, "MALFORMED"),
        ({"credit": 1 << 60}, "MALFORMED"),
    ],
)
def test_bad_hello(changes: dict[str, Any], expected: str) -> None:
    async def test(hub: Hub, client: Raw) -> None:
        frame = await client.open("control", **changes)
        assert frame.goodbye.error.code == expected
        assert await client.read("control") is None

    raw(test)


def test_garbage_and_faults_end_the_stream_with_a_code() -> None:
    def part(**changes: Any) -> Any:
        header: dict[str, Any] = {"id": os.urandom(16), "type": 1, "kind": "echo", "total": 1, "digest": bytes(32)}
        return pb.Frame(part=pb.Part(**{**header, "deadline": 1000, "body": b"x", **changes}))

    async def test(hub: Hub, client: Raw) -> None:
        for bad in (
            b"\xff\xff\xff garbage",
            pb.Frame(),
            pb.Frame(hello=pb.Hello()),
            part(id=b"short"),
            part(body=bytes(300_000), total=300_000),
            pb.Frame(word=pb.Word(), credit=1 << 50),
            pb.Frame(resume=pb.Resume(ids=[b"i" * 16] * 5000)),
        ):
            client.session, client.calls = os.urandom(16), {}
            await client.open_all()
            await until(lambda: "bank-x" in hub.connected())
            await client.send("control", bad)
            frame = await client.read("control", "goodbye")
            assert frame.goodbye.error.code == "MALFORMED", bad
            assert await client.read("control") is None
            await until(lambda: "bank-x" not in hub.connected())

    raw(test)


def test_more_bytes_than_allowed_end_the_stream() -> None:
    raw(lambda hub, client: overrun(client), credit={"control": 50_000, "queries": 1 << 20, "bulk": 1 << 20})


async def overrun(client: Raw) -> None:
    await client.open_all()
    header = {"id": os.urandom(16), "type": 1, "kind": "echo", "total": 60_000, "digest": bytes(32)}
    await client.send("control", pb.Frame(part=pb.Part(**header, deadline=9000, body=bytes(60_000))))
    frame = await client.read("control", "goodbye")
    assert frame.goodbye.error.code == "MALFORMED"


def test_a_bad_message_is_refused_and_the_connection_goes_on() -> None:
    async def test(hub: Hub, client: Raw) -> None:
        await client.open_all()
        good = {"type": 1, "kind": "echo", "total": 2, "digest": hashlib.sha256(b"ok").digest(), "deadline": 5000}
        for changes, expected in (
            ({"digest": bytes(32)}, "MALFORMED"),
            ({"kind": "nothing"}, "NOT_FOUND"),
            ({"total": 2 << 20}, "OVERSIZED"),
            ({"offset": 7}, "MALFORMED"),
            ({"type": 7}, "MALFORMED"),
            ({"deadline": 0}, "MALFORMED"),
        ):
            identifier = os.urandom(16)
            part = pb.Part(**{"id": identifier, **good, "body": b"ok", **changes})
            await client.send("control", pb.Frame(part=part))
            reply = (await client.read("control", "part")).part
            assert (reply.request, pb.Error.FromString(reply.body).code) == (identifier, expected)
        identifier = os.urandom(16)
        frame = pb.Frame(part=pb.Part(id=identifier, **good, body=b"ok"))
        await client.send("control", frame)
        first = (await client.read("control", "part")).part
        assert (first.type, first.body) == (2, b"bank/bank-x:ok")
        # The same again: the same reply, while it is not known to have arrived; afterwards it is a replay.
        await client.send("control", frame)
        again = (await client.read("control", "part")).part
        assert (again.id, again.body) == (first.id, first.body)
        await client.send("control", pb.Frame(word=pb.Word(), arrived=[first.id]))
        await client.send("control", frame)
        late = (await client.read("control", "part")).part
        assert pb.Error.FromString(late.body).code == "REPLAY"

    raw(test)


def test_frames_before_all_streams_are_open() -> None:
    async def test(hub: Hub, client: Raw) -> None:
        await client.open("control")
        await client.send("control", pb.Frame(ping=pb.Ping(nonce=1)))
        frame = await client.read("control", "goodbye")
        assert frame.goodbye.error.code == "MALFORMED"

    raw(test)


def test_streams_that_are_never_completed_are_closed() -> None:
    async def test(hub: Hub, client: Raw) -> None:
        await client.open("control")
        frame = await client.read("control", "goodbye")
        assert frame.goodbye.error.code == "DEADLINE"

    raw(test, handshake=1.0)


def test_an_older_connection_of_a_session_cannot_take_over() -> None:
    async def test(hub: Hub, client: Raw) -> None:
        await client.open_all()
        old = Raw.__new__(Raw)
        old.channel, old.session, old.calls = client.channel, client.session, {}
        frame = await old.open("control")
        assert frame.goodbye.error.code == "REPLAY"

    raw(test)


def test_limits_are_sane() -> None:
    limits = Limits()
    assert limits.frame == 256 * 1024 and limits.message == {"control": 1 << 20, "queries": 1 << 20, "bulk": 96 << 20}
    assert limits.dead_after <= 3.0
    assert all(limits.credit[stream] >= 2 * limits.frame for stream in STREAMS)
