"""The methods `job.*` of the platform's local API, for its operator."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

from federation.errors import ChaotianError
from gateway.jobs.local_api import Params, Registrar, text
from gateway.runtime.context import Runtime
from parties.platform.coordinator import Coordinator
from parties.platform.registry import Registry


def setup_coordinator(runtime: Runtime, registry: Registry) -> Coordinator:
    """Give the platform its jobs; return them."""
    if runtime.hub is None or runtime.identity is None:
        raise ChaotianError("INTERNAL", "jobs are coordinated at the platform")
    coordinator = Coordinator(
        space=runtime.space,
        signer=runtime.identity.signer,
        verifiers=registry.verifiers,
        database=runtime.database,
        hub=runtime.hub,
        clock=runtime.clock,
        logger=runtime.log,
    )
    coordinator.register()
    register_platform(runtime.local, coordinator)
    runtime.add_service(coordinator)
    return coordinator


def register_platform(local: Registrar, coordinator: Coordinator) -> None:
    """Register what the operator may ask."""

    async def propose(params: Params) -> Params:
        return await coordinator.propose(text(params, "toml"))

    def list_(_: Params) -> Params:
        return {"jobs": [row.summary() for row in coordinator.store.all()]}

    def show(params: Params) -> Params:
        return coordinator.show(text(params, "id"))

    async def start(params: Params) -> Params:
        return await coordinator.start_job(text(params, "id"))

    async def cancel(params: Params) -> Params:
        return await coordinator.cancel(text(params, "id"))

    def arrays(params: Params) -> Params:
        return {"npz": base64.b64encode(coordinator.arrays(text(params, "id"))).decode()}

    async def progress(params: Params) -> Params:
        return await coordinator.progress(text(params, "id"))

    def members_only(_: Params) -> Params:
        raise ChaotianError(
            "NOT_PERMITTED", "that is a member's decision or knowledge", hint="Ask it of the member's own node."
        )

    async def watch(params: Params) -> AsyncIterator[Params]:
        async for seen in coordinator.watch(text(params, "id")):
            yield seen

    for name, handler in (
        ("propose", propose), ("list", list_), ("show", show), ("start", start), ("resume", start),
        ("cancel", cancel), ("progress", progress), ("accept", members_only), ("consent", members_only),
        ("result", members_only), ("arrays", arrays),
    ):  # fmt: skip
        local.register(f"job.{name}", handler)
    local.register_watch("job.watch", watch)
