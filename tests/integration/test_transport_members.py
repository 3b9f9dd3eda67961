"""Requests from member to member through the real relay, over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from federation.errors import ChaotianError
from federation.primitives.entropy import SystemEntropy
from federation.primitives.sealing import Opener
from federation.primitives.signing import Signer, Verifier
from gateway.storage.base import Database
from gateway.storage.tables.transport import envelope_windows
from gateway.transport.envelope import Envelopes, ReplayWindow
from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.members import DELIVER, SEND, Members, Relayed
from gateway.transport.ports import Caller
from parties.platform.relay import Relay
from tests.integration.transport_kit import QUICK, Space, code, run


class Keys:
    """What the directory would say: everybody's keys, and who approved whom."""

    def __init__(self, names: list[str]) -> None:
        self.signers = {name: Signer(SystemEntropy().bytes(32)) for name in names}
        self.openers = {name: Opener(SystemEntropy().bytes(96)) for name in names}
        self.refused: set[tuple[str, str]] = set()


class Peers:
    def __init__(self, keys: Keys, own: str) -> None:
        self.keys, self.own = keys, own

    def verifier(self, member: str) -> Verifier:
        self.check(member)
        return self.keys.signers[member].verifier

    def sealing_key(self, member: str) -> bytes:
        self.check(member)
        return self.keys.openers[member].public

    def check(self, member: str) -> None:
        if member not in self.keys.signers or (self.own, member) in self.keys.refused:
            raise ChaotianError("NOT_APPROVED", member=member)


@contextlib.asynccontextmanager
async def three(tmp_path: Path, **relay: Any) -> AsyncIterator[tuple[Hub, dict[str, Link], Keys, list[Relayed]]]:
    names = ["bank-a", "bank-b", "bank-c"]
    space, keys, carried = Space(), Keys(names), []
    space.limits = dataclasses.replace(QUICK, dead_after=10.0)
    async with contextlib.AsyncExitStack() as stack:
        hub, port = await stack.enter_async_context(space.hub())
        Relay(hub, ["bank"], **relay)
        plain = hub._handlers[SEND][1]

        async def watched(caller: Caller, data: bytes) -> bytes:
            carried.append(Relayed.from_bytes(data))
            return await plain(caller, data)

        hub._handlers[SEND] = (hub._handlers[SEND][0], watched)
        links = {}
        for name in names:
            database = Database.at(tmp_path / f"{name}.db")
            with database.begin() as connection:
                envelope_windows.create(connection)
            link = await stack.enter_async_context(space.link(port, name))
            envelopes = Envelopes(
                space="test",
                member=name,
                signer=keys.signers[name],
                openers=lambda name=name: [keys.openers[name]],  # type: ignore[misc]
                peers=Peers(keys, name),
                window=ReplayWindow(database, time.time),
                clock=time.time,
                entropy=SystemEntropy(),
            )
            Members(link, envelopes)
            links[name] = link
        for link in links.values():
            await link.wait_connected(5)
        yield hub, links, keys, carried


def test_ask_and_answer(tmp_path: Path) -> None:
    async def work() -> None:
        async with three(tmp_path) as (_hub, links, _, carried):

            async def twice(sender: str, payload: bytes) -> bytes:
                return sender.encode() + b":" + payload * 2

            async def refuse(sender: str, payload: bytes) -> bytes:
                raise ChaotianError("FLOOR_LOST", "too few", hint="merge", member="bank-b")

            links["bank-b"].on_member("twice", twice)
            links["bank-b"].on_member("refuse", refuse)
            asks = [
                links["bank-a"].ask_member("bank-b", "twice", b"subject-4711-%d" % i, deadline=10) for i in range(20)
            ]
            assert await asyncio.gather(*asks) == [b"bank-a:" + b"subject-4711-%d" % i * 2 for i in range(20)]
            with pytest.raises(ChaotianError) as raised:
                await links["bank-a"].ask_member("bank-b", "refuse", b"", deadline=10)
            error = raised.value
            assert (error.code, error.detail, error.hint, error.member) == ("FLOOR_LOST", "too few", "merge", "bank-b")
            assert await code(links["bank-a"].ask_member("bank-b", "nothing", b"", deadline=10)) == "NOT_FOUND"
            assert all(b"subject" not in message.sealed and b"twice" not in message.sealed for message in carried)
            big = bytes(3 << 20)
            assert len(await links["bank-a"].ask_member("bank-b", "twice", big, deadline=30)) == 6 * (1 << 20) + 7

    run(work())


def test_the_relay_cannot_replay_swap_or_answer_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        async with three(tmp_path) as (hub, links, _, carried):
            handled: list[bytes] = []

            async def note(sender: str, payload: bytes) -> bytes:
                handled.append(payload)
                return b"done"

            links["bank-b"].on_member("note", note)
            assert await links["bank-a"].ask_member("bank-b", "note", b"once", deadline=10) == b"done"
            again = Relayed("bank-a", 10.0, False, carried[0].sealed)
            assert await code(hub.request("bank-b", DELIVER, again.to_bytes(), deadline=5)) == "REPLAY"
            from_c = dataclasses.replace(again, name="bank-c")
            assert await code(hub.request("bank-b", DELIVER, from_c.to_bytes(), deadline=5)) == "SHARE_INVALID"
            assert await code(hub.request("bank-c", DELIVER, again.to_bytes(), deadline=5)) == "SHARE_INVALID"
            assert await code(hub.request("bank-b", DELIVER, b"garbage", deadline=5)) == "MALFORMED"
            assert handled == [b"once"]

            # A relay that answers with an old reply of B: it opens at A only once, and belongs to another request.
            replies: list[bytes] = []
            plain = hub._handlers[SEND][1]

            async def keep(caller: Caller, data: bytes) -> bytes:
                replies.append(await plain(caller, data))
                if len(replies) == 1:
                    raise ChaotianError("DEADLINE", "the relay keeps the reply")
                return replies[0]

            hub._handlers[SEND] = (frozenset(["bank"]), keep)
            assert await code(links["bank-a"].ask_member("bank-b", "note", b"1", deadline=5)) == "DEADLINE"
            assert await code(links["bank-a"].ask_member("bank-b", "note", b"2", deadline=5)) == "REPLAY"
            assert await code(links["bank-a"].ask_member("bank-b", "note", b"3", deadline=5)) == "REPLAY"

    run(work())


def test_refusals(tmp_path: Path) -> None:
    async def work() -> None:
        async with three(tmp_path, most_messages=4) as (_hub, links, keys, _):
            release = asyncio.Event()

            async def wait(sender: str, payload: bytes) -> bytes:
                await release.wait()
                return b""

            links["bank-b"].on_member("wait", wait)
            keys.refused.add(("bank-b", "bank-c"))
            assert await code(links["bank-c"].ask_member("bank-b", "wait", b"", deadline=5)) == "NOT_APPROVED"
            keys.refused.add(("bank-c", "bank-b"))
            assert await code(links["bank-c"].ask_member("bank-b", "wait", b"", deadline=5)) == "NOT_APPROVED"
            keys.refused.clear()

            waiting = [
                asyncio.create_task(links["bank-a"].ask_member("bank-b", "wait", b"", deadline=10)) for _ in range(2)
            ]
            await asyncio.sleep(0.3)
            # One sender has half of the queue at most: the other is still heard.
            assert await code(links["bank-a"].ask_member("bank-b", "wait", b"", deadline=5)) == "BACKPRESSURE"
            waiting += [
                asyncio.create_task(links["bank-c"].ask_member("bank-b", "wait", b"", deadline=10)) for _ in range(2)
            ]
            await asyncio.sleep(0.3)
            assert await code(links["bank-c"].ask_member("bank-b", "wait", b"", deadline=5)) == "BACKPRESSURE"
            release.set()
            assert await asyncio.gather(*waiting) == [b""] * 4
            assert await links["bank-c"].ask_member("bank-b", "wait", b"", deadline=5) == b""

            release.clear()
            assert await code(links["bank-a"].ask_member("bank-b", "wait", b"", deadline=0.5)) == "DEADLINE"
            await links["bank-b"].stop(0)
            assert await code(links["bank-a"].ask_member("bank-b", "wait", b"", deadline=5)) == "PEER_UNREACHABLE"
            own = Relayed("bank-a", 5.0, False, b"")
            assert await code(links["bank-a"].request(SEND, own.to_bytes(), deadline=5)) == "MALFORMED"

    run(work())
