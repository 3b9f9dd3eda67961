"""`chaotian node serve` and `chaotian platform serve`: one process per home, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from federation.errors import ChaotianError
from federation.primitives.entropy import SystemEntropy
from gateway.identity.certificates import platform_host
from gateway.identity.home import Home
from gateway.identity.node import NodeKeys
from gateway.runtime.context import PLATFORM, Role, Runtime, load_role
from gateway.runtime.upkeep import Upkeep, status
from gateway.telemetry.logs import configure
from gateway.transport.envelope import Envelopes, ReplayWindow
from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.local import LocalServer
from gateway.transport.members import Members
from gateway.transport.tls import ClientTls

_STOP_SECONDS = 15.0  # for all services together


def serve_node(home: Path) -> int:
    """Run the node of `home` until SIGTERM or SIGINT; returns the exit status.

    Raises:
        ChaotianError: CONFIG where it has no home, has not enrolled, or its role is not installed; EXISTS where it runs
            already; PASSPHRASE, STORAGE.
    """
    _leave_no_core()
    with _only_one(home):
        return uvloop.run(_serve(home, _node))  # a message costs about half of what it does on asyncio's own loop


def serve_platform(home: Path) -> int:
    """Run the platform of `home`, likewise."""
    _leave_no_core()
    with _only_one(home):
        return uvloop.run(_serve(home, _platform))


def _leave_no_core() -> None:
    """Write no memory to disk where the process dies: keys and rows are in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the lock of a home: two processes of one member would spend one round twice."""
    if not home.is_dir():
        raise ChaotianError("CONFIG", f"there is no home at {home}")
    try:
        handle = os.open(home / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ChaotianError("STORAGE", f"{home}: {os.strerror(error.errno or 0)}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ChaotianError("EXISTS", f"another process serves {home} already", hint="Stop it first.") from None
        yield
    finally:
        os.close(handle)


async def _node(home_path: Path) -> tuple[Runtime, Role]:
    home = await asyncio.to_thread(Home.node, home_path)
    box = await asyncio.to_thread(home.unlock)
    keys = NodeKeys(home.database, box)
    identity = await asyncio.to_thread(keys.identity)
    role = load_role(identity.role)

    def tls() -> ClientTls:
        now = keys.identity()
        return ClientTls(
            now.authority_pem.encode(), now.tls_key_pem, now.certificate_pem.encode(), platform_host(now.space)
        )

    link = Link(home.config.address or identity.address, tls)
    runtime = Runtime(
        home=home_path,
        role=identity.role,
        member=identity.member,
        space=identity.space,
        config=home.config,
        database=home.database,
        box=box,
        identity=identity,
        local=LocalServer(home_path),
        clock=time.time,
        log=configure(),
        link=link,
        keys=keys,
        peers=keys.peers,
    )
    envelopes = Envelopes(
        space=identity.space,
        member=identity.member,
        signer=identity.signer,
        openers=keys.openers,
        peers=keys.peers,
        window=ReplayWindow(home.database, time.time),
        clock=time.time,
        entropy=SystemEntropy(),
    )
    Members(link, envelopes)
    upkeep = Upkeep(link, keys)
    runtime.add_service(upkeep)
    since = time.time()

    async def renew(_: dict[str, Any]) -> dict[str, Any]:
        return await upkeep.renew()

    runtime.local.register("node.status", lambda _: status(link, keys, since))
    runtime.local.register("node.renew", renew)
    runtime.ready += ["node", identity.space, identity.role, identity.member]
    return runtime, role


async def _platform(home_path: Path) -> tuple[Runtime, Role]:
    home = await asyncio.to_thread(Home.platform, home_path)
    box = await asyncio.to_thread(home.unlock)
    runtime = Runtime(
        home=home_path,
        role=PLATFORM,
        member=PLATFORM,
        space=home.config.space,
        config=home.config,
        database=home.database,
        box=box,
        identity=None,
        local=LocalServer(home_path),
        clock=time.time,
        log=configure(),
        hub=Hub(),
    )
    runtime.ready += ["platform", home.config.space]
    return runtime, load_role(PLATFORM)


async def _serve(home: Path, build: Any) -> int:
    """Build, start, wait, stop."""
    runtime, role = await build(home)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _asked_to_stop, runtime)
    started: list[Any] = []
    try:
        await role.setup(runtime)
        for service in (*runtime.services, *([runtime.link] if runtime.link else []), runtime.local):
            started.append(service)
            await service.start()
        sys.stdout.write(f"ready {' '.join(runtime.ready)}\n")
        sys.stdout.flush()
        await runtime.stopping.wait()
        runtime.log.info("stopping")
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                for service in reversed(started):
                    await _stop(runtime, service)
        await asyncio.to_thread(runtime.database.close)
    return 0


async def _stop(runtime: Runtime, service: Any) -> None:
    try:
        await service.stop()
    except ChaotianError as error:
        runtime.log.warning("a service did not stop", extra={"code": error.code})
    except Exception as error:
        runtime.log.error("a service did not stop", exc_info=error)


def _asked_to_stop(runtime: Runtime) -> None:
    if runtime.stopping.is_set():  # asked twice: somebody is in a hurry; what is durable is durable already
        os._exit(1)
    runtime.stopping.set()
