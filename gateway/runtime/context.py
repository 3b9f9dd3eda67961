"""What a role plug-in is given when its process starts.

A role is found by its entry point in the group `chaotian.roles`: an object with `name: str` and
`async def setup(self, runtime: Runtime) -> None`, which registers handlers and services. It is called once, before
the node dials the platform or the platform opens its ports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.local import LocalServer


class Service(Protocol):
    """Something that runs as long as the process: started in the order of adding, stopped in reverse."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass
class Runtime:
    """One serving process. A node has `link` and `peers`; the platform has `hub`."""

    home: Path
    role: str
    member: str
    config: dict[str, Any]  # the parsed config.toml of the home
    database: Any  # gateway.storage.Database
    identity: Any  # NodeIdentity of a node, PlatformIdentity of the platform
    peers: Any  # PeerBook, None at the platform
    link: Link | None
    hub: Hub | None
    local: LocalServer
    clock: Callable[[], float]  # seconds since the epoch, UTC
    log: logging.Logger
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    services: list[Service] = field(default_factory=list)

    def add_service(self, service: Service) -> None:
        """Start `service` with the process and stop it at its end."""
        self.services.append(service)


class Role(Protocol):
    """What an entry point of the group `chaotian.roles` names."""

    name: str

    async def setup(self, runtime: Runtime) -> None: ...
