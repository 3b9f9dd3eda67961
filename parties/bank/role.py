"""The role `bank`: takes part in federated jobs over its own rows. Found by its entry point."""

from __future__ import annotations

import asyncio

from gateway.jobs.wiring import setup_jobs
from gateway.runtime.context import Runtime


class BankRole:
    """See `gateway.runtime.context.Role`."""

    name = "bank"

    async def setup(self, runtime: Runtime) -> None:
        """Register grants, log and jobs."""
        await asyncio.to_thread(setup_jobs, runtime)


ROLE = BankRole()
