"""The local API on a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from federation.errors import ChaotianError
from gateway.transport.local import LocalClient, LocalServer, socket_path


def serve(home: Path, check: Callable[[], None]) -> None:
    """Run a server with a few methods, and `check` in a thread beside it."""

    async def work() -> None:
        server = LocalServer(home)

        async def add(params: dict[str, Any]) -> dict[str, Any]:
            return {"sum": params["a"] + params["b"]}

        async def slow(_: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(60)
            return {}

        async def refuse(_: dict[str, Any]) -> dict[str, Any]:
            raise ChaotianError("NO_GRANT", "detail", hint="hint", member="bank-a")

        async def count(params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
            for number in range(params["to"]):
                yield {"number": number}
            if params.get("fail"):
                raise ChaotianError("CANCELLED")

        server.register("add", add)
        server.register("slow", slow)
        server.register("refuse", refuse)
        server.register("thread", lambda _: {"main": threading.current_thread() is threading.main_thread()})
        server.register("broken", lambda _: {"x": 1 / 0})
        server.register("unjson", lambda _: {"x": float("nan")})
        server.register("size", lambda params: {"size": len(params["text"])})
        server.register_watch("count", count)
        with pytest.raises(ValueError, match="two handlers"):
            server.register("count", add)
        await server.start()
        try:
            async with asyncio.timeout(40):
                await asyncio.to_thread(check)
        finally:
            await server.stop()

    asyncio.run(work())


def code(work: Callable[[], object]) -> str:
    with pytest.raises(ChaotianError) as raised:
        work()
    return raised.value.code


def test_calls_watches_and_errors(tmp_path: Path) -> None:
    client = LocalClient(tmp_path)

    def check() -> None:
        assert client.call("add", {"a": 1, "b": 2}) == {"sum": 3}
        assert client.call("thread") == {"main": False}
        with pytest.raises(ChaotianError) as raised:
            client.call("refuse")
        error = raised.value
        assert (error.code, error.detail, error.hint, error.member) == ("NO_GRANT", "detail", "hint", "bank-a")
        assert code(lambda: client.call("broken")) == "INTERNAL"
        assert code(lambda: client.call("unjson")) == "INTERNAL"
        assert code(lambda: client.call("add", {"a": 1})) == "INTERNAL"
        assert code(lambda: client.call("nothing")) == "NOT_FOUND"
        assert code(lambda: client.call("slow", deadline=0.3)) == "DEADLINE"
        assert code(lambda: client.call("add", {"a": float("inf")})) == "INTERNAL"
        assert client.call("size", {"text": "汉" * 1_000_000}) == {"size": 1_000_000}
        assert code(lambda: client.call("size", {"text": "x" * (33 << 20)})) == "OVERSIZED"
        assert [item["number"] for item in client.watch("count", {"to": 3})] == [0, 1, 2]
        failing = client.watch("count", {"to": 1, "fail": True})
        assert next(failing) == {"number": 0}
        assert code(lambda: next(failing)) == "CANCELLED"
        early = client.watch("count", {"to": 10_000_000})
        assert next(early) == {"number": 0}
        early.close()  # somebody pressed ^C
        assert code(lambda: list(client.watch("nothing"))) == "NOT_FOUND"
        assert client.call("add", {"a": 1, "b": 2}) == {"sum": 3}

    serve(tmp_path, check)
    assert code(lambda: client.call("add")) == "NODE_NOT_RUNNING"


def test_the_socket_is_private_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    assert code(lambda: LocalClient(tmp_path).call("add", deadline=3)) == "NODE_NOT_RUNNING"

    def check() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert LocalClient(tmp_path).call("add", {"a": 1, "b": 2}) == {"sum": 3}
        second = LocalServer(tmp_path)
        assert code(lambda: asyncio.run(second.start())) == "EXISTS"
        assert LocalClient(tmp_path).call("add", {"a": 1, "b": 2}) == {"sum": 3}

    serve(tmp_path, check)
    assert not path.exists()


def test_a_home_with_a_long_path(tmp_path: Path) -> None:
    home = tmp_path / ("d" * 90) / ("e" * 90)
    home.mkdir(parents=True)

    def check() -> None:
        path = socket_path(home)
        assert len(str(path)) <= 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert LocalClient(home).call("add", {"a": 1, "b": 2}) == {"sum": 3}

    serve(home, check)
    serve(home, check)
    assert code(lambda: LocalClient(home).call("add")) == "NODE_NOT_RUNNING"


def test_garbage(tmp_path: Path) -> None:
    def check() -> None:
        from protos.chaotian.v1 import local_pb2 as pb

        with grpc.insecure_channel(f"unix:{socket_path(tmp_path)}") as channel:
            call = channel.unary_unary("/chaotian.v1.Local/Call")
            for data, expected in (
                (b"\xff\xff", "MALFORMED"),
                (pb.LocalRequest(version=9, method="add").SerializeToString(), "VERSION"),
                (pb.LocalRequest(version=1, method="add", params=b"[1]").SerializeToString(), "MALFORMED"),
                (pb.LocalRequest(version=1, method="add", params=b"[" * 100_000).SerializeToString(), "MALFORMED"),
                (pb.LocalRequest(version=1, method="m" * 10_000).SerializeToString(), "NOT_FOUND"),
            ):
                assert pb.LocalReply.FromString(call(data, timeout=5)).error.code == expected
        plain = socket.socket(socket.AF_UNIX)
        plain.connect(str(socket_path(tmp_path)))
        plain.sendall(os.urandom(1000))
        plain.close()
        assert json.dumps(LocalClient(tmp_path).call("add", {"a": 1, "b": 2})) == '{"sum": 3}'

    serve(tmp_path, check)
