"""The role `platform`: relay, enrolment, directory, coordinator. Found by its entry point."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.identity.platform import PlatformKeys
from gateway.runtime.context import Runtime
from parties.platform.jobs_api import setup_coordinator
from parties.platform.registry import Registry
from parties.platform.server import PlatformServer


class PlatformRole:
    """See `gateway.runtime.context.Role`."""

    name = "platform"

    async def setup(self, runtime: Runtime) -> None:
        """Open the register, and put its services behind the hub."""

        def open_registry() -> Registry:
            keys = PlatformKeys(runtime.database, runtime.box, runtime.space)
            return Registry(runtime.database, keys, runtime.config, clock=runtime.clock)  # type: ignore[arg-type]

        registry = await asyncio.to_thread(open_registry)
        runtime.registry = registry
        runtime.identity = await asyncio.to_thread(registry.identity)
        hub = runtime.hub
        assert hub is not None

        async def connections(_: dict[str, Any]) -> dict[str, Any]:
            return {
                "members": [
                    {
                        "member": info.member,
                        "role": info.role,
                        "since": info.since,
                        "round_trip_seconds": info.round_trip,
                        "sent_bytes": info.sent,
                        "received_bytes": info.received,
                    }
                    for info in hub.connected().values()
                ]
            }

        runtime.local.register("platform.connections", connections)
        setup_coordinator(runtime, registry)
        runtime.add_service(PlatformServer(runtime, registry))


ROLE = PlatformRole()
