"""The relay: carries sealed envelopes between members. It sees sender, receiver, size and time, and keeps nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from federation.errors import ChaotianError
from gateway.transport.hub import Hub
from gateway.transport.members import DELIVER, SEND, Relayed
from gateway.transport.ports import Caller


@dataclass
class _Queue:
    messages: int = 0
    bytes: int = 0
    of: Counter[str] = field(default_factory=Counter)  # messages by sender


class Relay:
    """Installs itself on the hub.

    Args:
        hub: the platform's hub.
        roles: the roles that may use it.
        most_messages: under way to one destination, at most half of them from one sender; more is BACKPRESSURE.
        most_bytes: likewise, in bytes.
        longest: seconds that a request may take at most.
    """

    def __init__(
        self,
        hub: Hub,
        roles: Collection[str],
        *,
        most_messages: int = 64,
        most_bytes: int = 192 << 20,
        longest: float = 3600.0,
    ) -> None:
        self._hub = hub
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._longest = longest
        self._queues: dict[str, _Queue] = defaultdict(_Queue)
        hub.on(SEND, roles, self._send)

    async def _send(self, caller: Caller, data: bytes) -> bytes:
        message = Relayed.from_bytes(data)
        receiver, size = message.name, len(message.sealed)
        if receiver == caller.member:
            raise ChaotianError("MALFORMED", "a member does not write to itself through the relay")
        if receiver not in self._hub.connected():
            raise ChaotianError("PEER_UNREACHABLE", f"{receiver} is not connected", member=receiver)
        queue = self._queues[receiver]
        if queue.messages and (queue.messages >= self._most_messages or queue.bytes + size > self._most_bytes):
            raise ChaotianError("BACKPRESSURE", f"the queue to {receiver} is full", member=receiver)
        if queue.of[caller.member] >= max(1, self._most_messages // 2):  # a sender must not keep all others out
            raise ChaotianError("BACKPRESSURE", f"too many messages to {receiver} are under way", member=receiver)
        queue.of[caller.member] += 1
        queue.messages += 1
        queue.bytes += size
        left = min(message.left, self._longest)
        forwarded = Relayed(caller.member, left, message.bulk, message.sealed)
        try:
            return await self._hub.request(
                receiver, DELIVER, forwarded.to_bytes(), stream=forwarded.stream, deadline=left
            )
        finally:
            queue.of[caller.member] -= 1
            queue.messages -= 1
            queue.bytes -= size
            if not queue.messages:
                self._queues.pop(receiver, None)
