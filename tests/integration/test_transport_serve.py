"""The serving processes: enrolment, directory, renewal, revocation, SIGKILL, one process per home."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.errors import ChaotianError
from gateway.identity.certificates import platform_host
from gateway.identity.home import Home, NodeConfig, PlatformConfig
from gateway.identity.node import NodeKeys
from gateway.transport.enrolment import METHOD, RateLimit, enrol
from gateway.transport.local import LocalClient
from gateway.transport.tls import channel_options
from parties.platform import administration
from parties.platform.registry import Registry
from protos.chaotian.v1 import link_pb2 as pb


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def code(work: Callable[[], object]) -> str:
    with pytest.raises(ChaotianError) as raised:
        work()
    return raised.value.code


def until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - start


class Process:
    """A serving process."""

    def __init__(self, kind: str, home: Path) -> None:
        self.errors = (home.parent / f"{home.name}.err").open("a+")
        self.process = subprocess.Popen(
            [str(Path(sys.executable).parent / "chaotian"), kind, "serve", "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.home = home
        timer = threading.Timer(30, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        timer.cancel()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.errors.close()

    def log(self) -> list[dict[str, Any]]:
        lines = Path(self.errors.name).read_text().splitlines()
        assert not [line for line in lines if "Traceback" in line], lines
        return [json.loads(line) for line in lines if line.startswith("{")]


class Space:
    """A platform process, and homes of nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port, enrol_port = free_port(), free_port()
        config = PlatformConfig(
            space="test",
            address=f"127.0.0.1:{port}",
            enrol_address=f"127.0.0.1:{enrol_port}",
            listen=f"127.0.0.1:{port}",
            enrol_listen=f"127.0.0.1:{enrol_port}",
        )
        self.home = folder / "platform"
        self.registry: Registry = administration.create(self.home, config)
        self.platform = Process("platform", self.home)
        self.nodes: dict[str, Process] = {}

    def invite(self, member: str, role: str = "bank") -> str:
        return administration.enrolment(self.registry).invite(member=member, role=role, city="Chongqing", valid=600)

    def node(self, member: str) -> Path:
        home = self.folder / member
        opened, box = Home.create(home, NodeConfig())
        NodeKeys(opened.database, box).create()
        opened.finish()
        return home

    def join(self, member: str) -> Process:
        home = self.node(member)
        enrol(home, self.invite(member))
        self.nodes[member] = Process("node", home)
        return self.nodes[member]

    def connected(self) -> set[str]:
        members = LocalClient(self.home).call("platform.connections")["members"]
        return {entry["member"] for entry in members}


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    made = Space(tmp_path)
    try:
        yield made
    finally:
        for process in (*made.nodes.values(), made.platform):
            if process.process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.stop()


def test_the_life_of_a_space(space: Space) -> None:
    assert space.platform.ready.startswith("ready platform test port=")
    bank = space.join("bank-a")
    assert bank.ready == "ready node test bank bank-a\n"
    other = space.join("bank-b")
    until(lambda: space.connected() == {"bank-a", "bank-b"})
    status = LocalClient(bank.home).call("node.status")
    assert (status["connected"], status["member"], status["pid"]) == (True, "bank-a", bank.process.pid)
    # Everybody sees a newcomer.
    version = space.registry.directory_version()
    until(lambda: LocalClient(bank.home).call("node.status")["directory_version"] == version)

    # One process per home.
    second = Process("node", bank.home)
    assert second.ready == "" and second.stop() == 2
    assert "chaotian: error EXISTS" in (bank.home.parent / "bank-a.err").read_text()
    assert LocalClient(bank.home).call("node.status")["pid"] == bank.process.pid

    # Renewal on the open connection; the platform sees no departure.
    before = status["certificate_expires"]
    renewed = LocalClient(bank.home).call("node.renew")
    assert renewed["not_after"] >= before
    until(lambda: LocalClient(bank.home).call("node.status")["connected"])
    assert space.connected() == {"bank-a", "bank-b"}

    # SIGKILL is noticed when its socket closes.
    other.process.kill()
    assert until(lambda: space.connected() == {"bank-a"}, 3.0) < 2.0
    other.stop()
    space.nodes["bank-b"] = other = Process("node", other.home)
    until(lambda: space.connected() == {"bank-a", "bank-b"})

    # Revocation cuts the open connection within five seconds.
    space.registry.revoke("bank-b")
    assert until(lambda: space.connected() == {"bank-a"}, 5.0) < 5.0
    until(lambda: (LocalClient(other.home).call("node.status")["error"] or {}).get("code") == "CERT_REVOKED")

    # A restarted platform is found again.
    assert space.platform.stop() == 0
    until(lambda: not LocalClient(bank.home).call("node.status")["connected"])
    space.platform = Process("platform", space.home)
    until(lambda: LocalClient(bank.home).call("node.status")["connected"], 20)

    for process in (bank, other):
        assert process.stop() == 0
    for process in (bank, space.platform):
        assert not [line for line in process.log() if line["level"] == "error"], process.home


def test_a_silent_process_is_noticed_and_comes_back(space: Space) -> None:
    """SIGSTOP: the connection stays open, no heartbeat comes."""
    bank = space.join("bank-a")
    until(lambda: space.connected() == {"bank-a"})
    bank.process.send_signal(signal.SIGSTOP)
    try:
        assert until(lambda: space.connected() == set(), 8.0) < 6.0
    finally:
        bank.process.send_signal(signal.SIGCONT)
    until(lambda: space.connected() == {"bank-a"}, 20)


def test_a_node_at_rest_is_small(space: Space) -> None:
    bank = space.join("bank-a")
    until(lambda: space.connected() == {"bank-a"})
    maps = Path(f"/proc/{bank.process.pid}/maps").read_text()
    for heavy in ("sklearn", "scipy", "duckdb", "pandas"):
        assert f"/{heavy}/" not in maps, f"{heavy} is loaded at rest"
    size = int(
        next(x for x in Path(f"/proc/{bank.process.pid}/status").read_text().splitlines() if "VmRSS" in x).split()[1]
    )
    assert size < 300_000, f"{size} kB"


def test_enrolment(space: Space) -> None:
    text = space.invite("bank-a")
    home = space.node("bank-a")
    identity = enrol(home, text)
    assert enrol(home, text).certificate_pem == identity.certificate_pem, "repeating it gives the same"
    thief = space.node("thief")
    assert code(lambda: enrol(thief, text)) == "INVITATION"
    assert code(lambda: enrol(thief, "no invitation")) == "INVITATION"
    assert code(lambda: enrol(home, space.invite("bank-z"))) == "EXISTS"

    # The same invitation whose first reply was lost: the node asks again with the same keys.
    lost = space.invite("bank-c")
    third = space.node("bank-c")
    keys = NodeKeys(Home.node(third).database, Home.node(third).unlock())
    from gateway.identity.invitation import Invitation
    from gateway.transport.enrolment import _ask

    first = _ask(Invitation.parse(lost), keys.enrolment_request(Invitation.parse(lost)).to_bytes(), 10)
    assert first
    assert enrol(third, lost).member == "bank-c"

    # Another authority behind the address: no connection, and no token sent.
    invitation = Invitation.parse(space.invite("bank-d"))
    with_other = dataclasses.replace(invitation, space="elsewhere")
    assert code(lambda: _ask(with_other, b"{}", 5)) == "PLATFORM_UNREACHABLE"
    gone = dataclasses.replace(invitation, enrol_address=f"127.0.0.1:{free_port()}")
    assert code(lambda: _ask(gone, b"{}", 5)) == "PLATFORM_UNREACHABLE"
    for garbage in (b"", b"{}", os.urandom(1000), b"[" * 50_000):
        assert code(lambda garbage=garbage: _ask(invitation, garbage, 5)) in {"MALFORMED", "BAD_DOCUMENT"}  # type: ignore[misc]
    assert code(lambda: _ask(invitation, b"x" * 200_000, 5)) in {"BACKPRESSURE", "OVERSIZED"}

    # Guessing is slow.
    codes = [code(lambda: _ask(invitation, b"{}", 5)) for _ in range(25)]
    assert codes[-1] == "BACKPRESSURE"
    # The enrolment port offers nothing else, and the main port nothing without a certificate.
    credentials = grpc.ssl_channel_credentials(invitation.authority_pem.encode())
    options = list(channel_options(platform_host("test")))
    for address, method in ((invitation.enrol_address, "/chaotian.v1.Link/Control"), (invitation.address, METHOD)):
        with grpc.secure_channel(address, credentials, options=options) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(method)(pb.EnrolRequest().SerializeToString(), timeout=3)


def test_health_tells_the_truth(space: Space) -> None:
    home = space.node("bank-a")
    identity = enrol(home, space.invite("bank-a"))
    credentials = grpc.ssl_channel_credentials(
        identity.authority_pem.encode(), identity.tls_key_pem, identity.certificate_pem.encode()
    )
    options = list(channel_options(platform_host("test")))
    with grpc.secure_channel(identity.address, credentials, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def status() -> int:
            return int(stub.Check(health_pb2.HealthCheckRequest(service="chaotian.v1.Link"), timeout=5).status)

        assert status() == health_pb2.HealthCheckResponse.SERVING
        database = space.home / "state.db"
        # The register goes away under the running platform.
        import sqlite3

        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("ALTER TABLE published_directory RENAME TO away")
            until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
            connection.execute("ALTER TABLE away RENAME TO published_directory")
        until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)


def test_refusals_before_serving(tmp_path: Path) -> None:
    from gateway.runtime import serve_node, serve_platform

    assert code(lambda: serve_node(tmp_path / "nowhere")) == "CONFIG"
    assert code(lambda: serve_platform(tmp_path)) == "CONFIG"
    opened, box = Home.create(tmp_path / "fresh", NodeConfig())
    NodeKeys(opened.database, box).create()
    opened.finish()
    assert code(lambda: serve_node(tmp_path / "fresh")) == "CONFIG"  # it has not enrolled


def test_the_rate_limit_counts_each_and_all() -> None:
    now = [0.0]
    limit = RateLimit(each=3, all_=5, clock=lambda: now[0])
    for _ in range(3):
        limit.take("a")
    assert code(lambda: limit.take("a")) == "BACKPRESSURE"  # in vain, so it counts for "a" alone
    limit.take("b")
    limit.take("c")
    assert code(lambda: limit.take("d")) == "BACKPRESSURE"  # five in all
    now[0] += 20
    limit.take("a")
    assert code(lambda: limit.take("a")) == "BACKPRESSURE"
