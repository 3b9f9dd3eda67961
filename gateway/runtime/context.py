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
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from federation.errors import ChaotianError
from gateway.identity.home import NodeConfig, PlatformConfig
from gateway.identity.node import NodeIdentity, NodeKeys
from gateway.identity.peers import PeerBook
from gateway.identity.platform import PlatformIdentity
from gateway.storage.base import Database
from gateway.storage.secrets import SecretBox
from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.local import LocalServer

GROUP = "chaotian.roles"
PLATFORM = "platform"


class Service(Protocol):
    """Something that runs as long as the process: started in the order of adding, stopped in reverse."""

    async def start(self) -> None:
        """Begin; returns when it is ready."""
        ...

    async def stop(self) -> None:
        """End, within a few seconds."""
        ...


@dataclass
class Runtime:
    """One serving process. A node has `link`, `keys` and `peers`; the platform has `hub` and `registry`.

    Args:
        home: the folder.
        role: of this member; `platform` at the platform.
        member: its name.
        space: the space.
        config: what the configuration file says.
        database: the home's database.
        box: seals secrets at rest.
        identity: who this process is at the start (a node's certificate and sealing keys change: see `keys`).
        local: the local API; register methods in `setup`.
        clock: Unix seconds.
        log: the product's logger.
        link: the connection to the platform.
        keys: the node's keys.
        peers: whom its owner has approved.
        hub: the connections of all members.
        registry: the platform's register; set by its role.
        stopping: set when the process is to end.
        ready: words for the line that says the process is ready.
    """

    home: Path
    role: str
    member: str
    space: str
    config: NodeConfig | PlatformConfig
    database: Database
    box: SecretBox
    identity: NodeIdentity | PlatformIdentity | None
    local: LocalServer
    clock: Callable[[], float]
    log: logging.Logger
    link: Link | None = None
    keys: NodeKeys | None = None
    peers: PeerBook | None = None
    hub: Hub | None = None
    registry: Any = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    services: list[Service] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)

    def add_service(self, service: Service) -> None:
        """Start `service` with the process and stop it at its end."""
        self.services.append(service)


class Role(Protocol):
    """What an entry point of the group `chaotian.roles` names."""

    name: str

    async def setup(self, runtime: Runtime) -> None:
        """Register handlers and services."""
        ...


def installed_roles() -> frozenset[str]:
    """Return the names of the member roles that are installed here, the platform left out."""
    return frozenset(point.name for point in entry_points(group=GROUP)) - {PLATFORM}


def load_role(name: str) -> Role:
    """Return the role plug-in of that name.

    Raises:
        ChaotianError: CONFIG where none is installed.
    """
    for point in entry_points(group=GROUP, name=name):
        return cast(Role, point.load())
    raise ChaotianError(
        "CONFIG",
        f"no installed package offers the role {name}",
        hint=f"Installed: {', '.join(sorted(installed_roles())) or 'none'}. Install the package of this role.",
    )
