"""A space for transport tests: a real authority, real keys, real servers on real ports."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from federation.errors import ChaotianError
from gateway.identity.authority import CertificateAuthority
from gateway.identity.certificates import (
    check_certificate,
    generate_tls_key,
    key_to_pem,
    platform_host,
)
from gateway.identity.names import PeerName
from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.ports import Caller, Limits
from gateway.transport.tls import ClientTls

QUICK = Limits(heartbeat=0.2, dead_after=1.5, grace=1.0, backoff_first=0.02, backoff_most=0.2, handshake=5.0)


@dataclass
class Space:
    """An authority, and who may connect."""

    name: str = "test"
    roles: Collection[str] = ("bank", "government")
    limits: Limits = QUICK
    revoked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.authority = CertificateAuthority.create(self.name, time.time())
        key = generate_tls_key()
        self.platform_key = key_to_pem(key)
        self.platform_chain = self.authority.issue_platform(
            key.public_key(), ["localhost", "127.0.0.1", platform_host(self.name)], time.time(), 3600
        ).encode()

    def tls(self, member: str, role: str = "bank", space: str = "", age: int = 0) -> ClientTls:
        key = generate_tls_key()
        authority = self.authority
        authority.space = space or self.name  # an authority that would certify a name of another space
        certificate = authority.issue(
            key.public_key(), PeerName(authority.space, role, member), time.time() - age, 3600
        )
        authority.space = self.name
        return ClientTls(
            self.authority.certificate_pem.encode(), key_to_pem(key), certificate.encode(), platform_host(self.name)
        )

    # The port `Admission`.
    def admit(self, certificate: bytes) -> Caller:
        info = check_certificate(certificate, self.authority.certificate_pem, time.time())
        if info.name.space != self.name or info.name.role not in self.roles:
            raise ChaotianError("NOT_PERMITTED", "not of this space", member=info.name.member)
        if info.serial in self.revoked:
            raise ChaotianError("CERT_REVOKED", member=info.name.member)
        return Caller(info.name.member, info.name.role, info.name.space, info.serial)

    def refused(self, serials: Collection[str]) -> Collection[str]:
        return self.revoked & set(serials)

    @contextlib.asynccontextmanager
    async def hub(self, port: int = 0, hub: Hub | None = None) -> AsyncIterator[tuple[Hub, int]]:
        hub = hub or Hub(self, limits=self.limits)
        port = await hub.start(
            f"127.0.0.1:{port}",
            tls=lambda: (self.platform_key, self.platform_chain),
            authority=self.authority.certificate_pem.encode(),
        )
        try:
            yield hub, port
        finally:
            await hub.stop(0.2)

    @contextlib.asynccontextmanager
    async def link(self, port: int, member: str = "bank-a", *, tls: ClientTls | None = None) -> AsyncIterator[Link]:
        tls = tls or self.tls(member)
        link = Link(f"127.0.0.1:{port}", lambda: tls, limits=self.limits)
        await link.start()
        try:
            yield link
        finally:
            await link.stop(0.2)


async def echo(payload: bytes) -> bytes:
    return payload


async def until(condition: object, seconds: float = 5.0) -> None:
    """Wait until `condition()` holds."""
    ends = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.01)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


async def code(work: Coroutine[Any, Any, Any]) -> str:
    """Return the code with which `work` fails."""
    with pytest.raises(ChaotianError) as raised:
        await work
    return raised.value.code


async def echo_caller(caller: Caller, payload: bytes) -> bytes:
    return f"{caller.role}/{caller.member}:".encode() + payload
