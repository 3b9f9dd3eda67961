"""What every node does besides its role: keep the directory, rotate its sealing key, renew its certificate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Any

from federation.errors import ChaotianError
from gateway.identity.node import NodeKeys
from gateway.transport.link import Link

log = logging.getLogger("chaotian.upkeep")
DIRECTORY_PUSH, DIRECTORY_GET = "directory.push", "directory.get"
IDENTITY_ENTRY, IDENTITY_RENEW = "identity.entry", "identity.renew"
_EVERY = 600.0  # seconds between looks at what is due; sooner where a certificate is due before
_RETRY = 30.0
_LEAST = 1.0
_DEADLINE = 20.0


class Upkeep:
    """A service of the node.

    Args:
        link: the node's link.
        keys: the node's keys.
    """

    def __init__(self, link: Link, keys: NodeKeys) -> None:
        self._link = link
        self._keys = keys
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        link.on(DIRECTORY_PUSH, self._pushed)
        link.on_change(lambda connected: self._due.set() if connected else None)

    async def start(self) -> None:
        """Begin to keep watch."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _pushed(self, data: bytes) -> bytes:
        directory = await asyncio.to_thread(self._keys.directories.accept, data)
        log.info("directory", extra={"version": directory.version, "count": len(directory.members)})
        self._due.set()
        return b""

    async def _run(self) -> None:
        wait = _EVERY
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._due.wait()
            self._due.clear()
            if not self._link.connected:
                continue
            try:
                await self._refresh_directory()
                await self._publish_entry()
                if await asyncio.to_thread(self._keys.renewal_due):
                    await self.renew()
                wait = await self._next()
            except ChaotianError as error:
                log.warning("upkeep", extra={"code": error.code, "detail": error.detail})
                wait = _RETRY
            except Exception as error:
                log.error("upkeep failed", exc_info=error)
                wait = _RETRY

    async def _next(self) -> float:
        """Return the seconds until something is due again; certificates may be configured to live for minutes."""
        return min(_EVERY, max(_LEAST, await asyncio.to_thread(self._keys.renewal_in)))

    async def _refresh_directory(self) -> None:
        """Fetch the directory where the one here has expired and no push came."""
        try:
            await asyncio.to_thread(self._keys.directories.current)
        except ChaotianError as error:
            if error.code != "DIRECTORY":
                raise
            data = await self._link.request(DIRECTORY_GET, b"", stream="bulk", deadline=_DEADLINE)
            await asyncio.to_thread(self._keys.directories.accept, data)

    async def _publish_entry(self) -> None:
        signed = await asyncio.to_thread(self._keys.rotate_sealing)
        if signed is not None:
            data = await self._link.request(IDENTITY_ENTRY, signed.to_bytes(), stream="bulk", deadline=_DEADLINE)
            await asyncio.to_thread(self._keys.directories.accept, data)

    async def renew(self) -> dict[str, Any]:
        """Get a new certificate over the open connection, and reconnect with it when nothing is under way."""
        async with self._busy:
            request = await asyncio.to_thread(self._keys.renewal_request)
            reply = await self._link.request(IDENTITY_RENEW, request.encode(), deadline=_DEADLINE)
            try:
                text = reply.decode("ascii")
            except UnicodeDecodeError:
                raise ChaotianError("MALFORMED", "the platform sent no certificate") from None
            identity = await asyncio.to_thread(self._keys.renewed, text)
            info = identity.certificate
            log.info("certificate renewed", extra={"serial": info.serial})
            await self._link.reconnect()
            return {"member": identity.member, "serial": info.serial, "not_after": info.not_after}


def status(link: Link, keys: NodeKeys, since: float) -> dict[str, Any]:
    """Return what `node.status` answers; blocks (database)."""
    identity = keys.identity()
    error = link.last_error
    latest = keys.directories.latest()
    return {
        "member": identity.member,
        "role": identity.role,
        "space": identity.space,
        "city": identity.city,
        "pid": os.getpid(),
        "seconds": round(time.time() - since, 3),
        "connected": link.connected,
        "round_trip_seconds": link.round_trip,
        "error": {"code": error.code, "detail": error.detail, "hint": error.hint} if error else None,
        "certificate_expires": identity.certificate.not_after,
        "directory_version": latest.version if latest else None,
    }
