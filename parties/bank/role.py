"""The role `bank`. Found by its entry point."""

from __future__ import annotations

from gateway.runtime.context import Runtime


class BankRole:
    """See `gateway.runtime.context.Role`."""

    name = "bank"

    async def setup(self, runtime: Runtime) -> None:
        """Register what a bank offers besides what every node does (`gateway.runtime.upkeep`)."""


ROLE = BankRole()
