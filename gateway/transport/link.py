"""The node's side of the connection to the platform. (Signatures first; the body follows.)"""

from __future__ import annotations

from gateway.transport.ports import MemberHandler, NodeHandler


class Link:
    """One connection to the platform, kept up until `stop`; requests outlive a reconnect."""

    async def start(self) -> None: ...
    async def stop(self, grace: float = 5.0) -> None: ...
    @property
    def connected(self) -> bool: ...
    async def wait_connected(self, timeout: float) -> None:
        """PLATFORM_UNREACHABLE (or the platform's refusal) after `timeout` seconds."""

    async def request(self, kind: str, payload: bytes, *, stream: str = "control", deadline: float) -> bytes:
        """Ask the platform; `deadline` in seconds from now."""
        raise NotImplementedError

    def on(self, kind: str, handler: NodeHandler) -> None: ...
    async def ask_member(self, member: str, purpose: str, payload: bytes, *, deadline: float) -> bytes:
        raise NotImplementedError

    def on_member(self, purpose: str, handler: MemberHandler) -> None: ...
