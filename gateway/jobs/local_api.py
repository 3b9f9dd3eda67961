"""The methods `job.*` of the local API: the same names at a node and at the platform."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from federation.errors import ChaotianError
from gateway.jobs import states
from gateway.jobs.node import WATCH_SECONDS, NodeJobs

Params = dict[str, Any]


class Registrar(Protocol):
    """The local server, as far as it is used here."""

    def register(self, method: str, handler: Callable[[Params], Awaitable[Params] | Params]) -> None:
        """Answer a method."""
        ...

    def register_watch(self, method: str, handler: Callable[[Params], AsyncIterator[Params]]) -> None:
        """Answer a method with a stream."""
        ...


def text(params: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return a parameter that is a text; USAGE where it is missing or something else."""
    value = params.get(name, default)
    if not isinstance(value, str):
        raise ChaotianError("USAGE", f"the parameter {name} is a text")
    return value


def register_node(local: Registrar, jobs: NodeJobs) -> None:
    """Register what a member's own people may ask of their node."""

    async def propose(params: Params) -> Params:
        return await jobs.propose(text(params, "toml"))

    async def list_(_: Params) -> Params:
        current = await jobs.fetch()
        rows = await asyncio.to_thread(jobs.store.all)
        return {"jobs": [row.summary() for row in rows], "current": current}

    async def show(params: Params) -> Params:
        await jobs.fetch()
        return await asyncio.to_thread(jobs.show, text(params, "id"))

    async def accept(params: Params) -> Params:
        consent = params.get("exposure_consent", False)
        if type(consent) is not bool:
            raise ChaotianError("USAGE", "exposure_consent is true or false")
        return await jobs.accept(text(params, "id"), exposure_consent=consent, grant=text(params, "grant", ""))

    async def start(params: Params) -> Params:
        return await jobs.start_job(text(params, "id"))

    async def resume(params: Params) -> Params:
        return await jobs.start_job(text(params, "id"), "job.resume")

    async def cancel(params: Params) -> Params:
        return await jobs.cancel(text(params, "id"))

    async def consent(params: Params) -> Params:
        return await jobs.consent(text(params, "id"))

    def result(params: Params) -> Params:
        return jobs.result(text(params, "id"))

    def arrays(params: Params) -> Params:
        return {"npz": base64.b64encode(jobs.arrays(text(params, "id"))).decode()}

    async def progress(params: Params) -> Params:
        return await jobs.progress(text(params, "id"))

    async def watch(params: Params) -> AsyncIterator[Params]:
        while True:
            seen = await jobs.progress(text(params, "id"))
            yield seen
            if seen["state"] in states.ENDED and seen["own"]["state"] not in (states.RUNNING, states.ACCEPTED):
                return
            await asyncio.sleep(WATCH_SECONDS)

    for name, handler in (
        ("propose", propose), ("list", list_), ("show", show), ("accept", accept), ("start", start),
        ("resume", resume), ("cancel", cancel), ("consent", consent), ("result", result), ("progress", progress),
        ("arrays", arrays),
    ):  # fmt: skip
        local.register(f"job.{name}", handler)
    local.register_watch("job.watch", watch)
