"""The way to a node: its home folder, and the local API of the process that serves it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federation.errors import ChaotianError
from gateway.identity.home import Home, NodeConfig
from gateway.transport.local import LocalClient

CALL_SECONDS = 60.0
START_SECONDS = 180.0


class Connection:
    """One home. Keys stay with the node's process: whoever may open its socket (mode 0600) may ask it for everything.

    Args:
        home: the node's home folder; the environment variable CHAOTIAN_HOME where None.

    Raises:
        ChaotianError: USAGE where no home is named, CONFIG where it is none of a node.
    """

    def __init__(self, home: str | os.PathLike[str] | None) -> None:
        named = home if home is not None else os.environ.get("CHAOTIAN_HOME")
        if not named:
            raise ChaotianError("USAGE", "no home folder was named", hint="Give home=…, or set CHAOTIAN_HOME.")
        self.path = Path(named).expanduser().absolute()
        self.home: Home[NodeConfig] = Home.node(self.path)
        self._local = LocalClient(self.path)

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, deadline: float = CALL_SECONDS
    ) -> dict[str, Any]:
        """Call a method of the local API.

        Raises:
            ChaotianError: what the node answered; NODE_NOT_RUNNING, DEADLINE.
        """
        return self._local.call(method, dict(params or {}), deadline=check_deadline(deadline))

    def close(self) -> None:
        """Close the home's database, where it was opened."""
        if "database" in vars(self.home):
            self.home.database.close()


def check_deadline(deadline: float) -> float:
    """Return a number of seconds; USAGE for one that is none."""
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 < deadline <= 30 * 86400:
        raise ChaotianError("USAGE", "a deadline is a number of seconds above 0, at most 30 days")
    return float(deadline)
