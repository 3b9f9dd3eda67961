"""The platform's side of the connections. (Signatures first; the body follows.)"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from gateway.transport.ports import ConnectionInfo, PlatformHandler


class Hub:
    """All connected members of a space."""

    async def request(
        self,
        member: str,
        kind: str,
        payload: bytes,
        *,
        stream: str = "control",
        deadline: float,
        grace: float | None = None,
    ) -> bytes:
        """Ask a member; `deadline` in seconds from now.

        PEER_UNREACHABLE when it is not connected, or its connection ends and it is not back within `grace` seconds
        (default 2); LOST when its process has been started anew meanwhile; DEADLINE when no answer came.
        """
        raise NotImplementedError

    def on(self, kind: str, roles: Collection[str], handler: PlatformHandler) -> None: ...
    def connected(self) -> Mapping[str, ConnectionInfo]: ...
    def on_change(self, watcher: Callable[[str, bool], None]) -> None:
        """Call `watcher(member, connected)` on the event loop at every arrival and departure."""

    async def disconnect(self, member: str, code: str) -> None: ...
