"""The platform's ports and what every member finds behind them: directory, rotation, renewal, relay, health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from federation.errors import ChaotianError
from gateway.identity.certificates import read_certificate
from gateway.identity.directory import SignedEntry
from gateway.identity.enrolment import EnrolmentRequest
from gateway.identity.names import PeerName
from gateway.runtime.context import Runtime, installed_roles
from gateway.runtime.upkeep import DIRECTORY_GET, DIRECTORY_PUSH, IDENTITY_ENTRY, IDENTITY_RENEW
from gateway.transport.enrolment import EnrolmentServer
from gateway.transport.hub import Hub
from gateway.transport.ports import Caller
from gateway.transport.streams import SERVICE
from parties.platform.enrolment import Enrolment
from parties.platform.registry import Registry
from parties.platform.relay import Relay

log = logging.getLogger("chaotian.platform")
# Roles of the plan; a package that brings another one adds it by its entry point.
MEMBER_ROLES = frozenset({"bank", "government", "enterprise"}) | installed_roles()
_POLL = 1.0  # seconds between looks at the directory's version
_TLS_EVERY = 3600.0
_PUSH_SECONDS = 20.0


class RegistryAdmission:
    """The register as the hub's port `Admission`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def admit(self, certificate: bytes) -> Caller:
        """Return whom a client certificate names; see `Registry.admit`."""
        record = self._registry.admit(certificate)
        serial = read_certificate(certificate).serial
        return Caller(record.member, record.role, self._registry.space, serial, record.city)

    def refused(self, serials: Collection[str]) -> Collection[str]:
        """Return those whose certificates are revoked, expired or unknown."""
        return {f"{serial:x}" for serial in self._registry.refused([int(text, 16) for text in serials])}


class PlatformServer:
    """Opens the two ports; a service of the platform's process.

    Args:
        runtime: the process; its hub gets the handlers.
        registry: the register of the space.
    """

    def __init__(self, runtime: Runtime, registry: Registry) -> None:
        assert runtime.hub is not None
        self._runtime = runtime
        self._registry = registry
        self._hub: Hub = runtime.hub
        self._enrolment = EnrolmentServer(self._enrol)
        self._relay = Relay(self._hub, MEMBER_ROLES)
        aio: Any = vars(health)["aio"]  # missing from the stubs
        self._health = aio.HealthServicer()
        self._tls: tuple[bytes, bytes] = (b"", b"")
        self._tls_at = 0.0
        self._pushed: dict[str, int] = {}  # the directory version each member has confirmed
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0
        self.enrol_port = 0
        self._hub.use_admission(RegistryAdmission(registry))
        self._hub.on(DIRECTORY_GET, MEMBER_ROLES, self._directory)
        self._hub.on(IDENTITY_ENTRY, MEMBER_ROLES, self._rotate)
        self._hub.on(IDENTITY_RENEW, MEMBER_ROLES, self._renew)
        self._hub.on_change(self._changed)

    async def start(self) -> None:
        """Open both ports.

        Raises:
            ChaotianError: CONFIG where a port cannot be opened.
        """
        config = self._registry.config
        await self._load_tls()
        self.port = await self._hub.start(
            config.bind(config.address, config.listen),
            tls=lambda: self._tls,
            authority=self._registry.authority_pem.encode(),
            extend=lambda server: health_pb2_grpc.add_HealthServicer_to_server(self._health, server),
        )
        self.enrol_port = await self._enrolment.start(
            config.bind(config.enrol_address, config.enrol_listen), tls=lambda: self._tls
        )
        await self._say(True)
        self._start(self._watch())
        self._runtime.ready += [f"port={self.port}", f"enrol_port={self.enrol_port}"]

    async def stop(self) -> None:
        """Say that it ends, and close both ports."""
        await self._say(False)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._enrolment.stop()
        await self._hub.stop()

    def _enrol(self, document: bytes) -> bytes:
        """Enrol a newcomer; runs in a thread."""
        return Enrolment(self._registry).enrol(EnrolmentRequest.from_bytes(document)).to_bytes()

    # --- what members ask ------------------------------------------------------------------------------------

    async def _directory(self, caller: Caller, _: bytes) -> bytes:
        return await asyncio.to_thread(self._registry.directory)

    async def _rotate(self, caller: Caller, data: bytes) -> bytes:
        name = PeerName(caller.space, caller.role, caller.member)
        return await asyncio.to_thread(lambda: self._registry.rotate(name, SignedEntry.from_bytes(data)))

    async def _renew(self, caller: Caller, data: bytes) -> bytes:
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError:
            raise ChaotianError("MALFORMED", "expected a signing request in PEM form") from None
        name = PeerName(caller.space, caller.role, caller.member)
        return (await asyncio.to_thread(self._registry.renew, name, text)).encode()

    # --- directory, health, certificate ------------------------------------------------------------------------

    def _changed(self, member: str, connected: bool) -> None:
        self._pushed.pop(member, None)
        if connected:
            self._start(self._push(member))

    async def _push(self, member: str) -> None:
        try:
            version = await asyncio.to_thread(self._registry.directory_version)
            data = await asyncio.to_thread(self._registry.directory)
            await self._hub.request(member, DIRECTORY_PUSH, data, stream="bulk", deadline=_PUSH_SECONDS)
            if member in self._hub.connected():
                self._pushed[member] = version
        except ChaotianError as error:
            log.warning("directory not delivered", extra={"peer": member, "code": error.code})

    async def _watch(self) -> None:
        """Push every new directory; keep certificate and health up to date."""
        known, refresh_at = -1, 0.0
        while True:
            await asyncio.sleep(_POLL)
            try:
                if time.monotonic() >= refresh_at:
                    refresh_at = time.monotonic() + 60.0
                    await asyncio.to_thread(self._registry.directory)  # signed anew when half of its life is over
                version = await asyncio.to_thread(self._registry.directory_version)
                if version != known:
                    for member in self._hub.connected():
                        if self._pushed.get(member) != version:
                            self._start(self._push(member))
                    known = version
                # The register makes a new one once a third of the lifetime is left: look often enough not to miss that.
                if time.monotonic() - self._tls_at > min(_TLS_EVERY, self._registry.config.certificate_seconds / 12):
                    await self._load_tls()
                await self._say(True)
            except ChaotianError as error:
                log.warning("the register cannot be read", extra={"code": error.code})
                await self._say(False)
            except Exception as error:
                log.error("keeping watch failed", exc_info=error)
                await self._say(False)

    async def _say(self, serving: bool) -> None:
        """Health: serving only while ports are open and the register can be read."""
        value = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, value)

    async def _load_tls(self) -> None:
        key, chain = await asyncio.to_thread(self._registry.tls)
        self._tls = (key, chain.encode())
        self._tls_at = time.monotonic()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
