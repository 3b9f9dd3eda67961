"""Requests from member to member through the relay: sealed there, sealed back, each reply bound to its request.

The relay carries `relay.send` from the asker (receiver, sealed request) and `relay.deliver` to the receiver (sender,
sealed request); the replies take the same way back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass

from federation.errors import CATALOGUE, ChaotianError
from federation.primitives.encoding import pack, unpack
from gateway.transport.envelope import Envelopes
from gateway.transport.link import Link

SEND, DELIVER = "relay.send", "relay.deliver"
RELAY_TAG = "chaotian/v1/relay"
_REPLY_TAG = "chaotian/v1/member-reply"
_REPLY = "/reply"
_SMALL = 900 * 1024  # bytes; more goes over the bulk stream
_DEFAULT_LIFETIME = 3600.0
log = logging.getLogger("chaotian.transport")


@dataclass(frozen=True)
class Relayed:
    """What the relay sees of a message.

    Args:
        name: the receiver in `relay.send`, the sender in `relay.deliver`.
        left: seconds left to answer.
        bulk: whether message and reply go over the bulk stream.
        sealed: the envelope.
    """

    name: str
    left: float
    bulk: bool
    sealed: bytes

    @property
    def stream(self) -> str:
        """The stream it goes over."""
        return "bulk" if self.bulk else "queries"

    def to_bytes(self) -> bytes:
        """Return its encoding."""
        milliseconds = max(1, int(self.left * 1000)).to_bytes(8, "big")
        return pack(RELAY_TAG, [self.name.encode(), milliseconds, bytes([self.bulk]), self.sealed])

    @classmethod
    def from_bytes(cls, data: bytes) -> Relayed:
        """Return the message of `to_bytes`; anything else is MALFORMED."""
        name, milliseconds, bulk, sealed = unpack(RELAY_TAG, data, 4)
        if not 0 < len(name) <= 63 or not name.isascii() or len(milliseconds) != 8 or bulk not in (b"\0", b"\1"):
            raise ChaotianError("MALFORMED", "expected a relayed message with a member's name and a deadline")
        return cls(name.decode(), int.from_bytes(milliseconds, "big") / 1000, bulk == b"\1", sealed)


class Members:
    """The two directions of member-to-member requests of one node; installs itself on its link.

    Args:
        link: the node's link.
        envelopes: seals and opens.
    """

    def __init__(self, link: Link, envelopes: Envelopes) -> None:
        self._link = link
        self._envelopes = envelopes
        link.use_envelopes(self._ask)
        link.on(DELIVER, self._deliver)

    async def _ask(self, member: str, purpose: str, payload: bytes, deadline: float, bulk: bool) -> bytes:
        """Seal, relay, open the reply; the errors of the receiver's handler come back as they were raised."""
        ends = time.monotonic() + deadline
        sealed = await asyncio.to_thread(self._envelopes.seal, member, purpose, payload, lifetime=deadline)
        left = ends - time.monotonic()
        message = Relayed(member, left, bulk or len(sealed) > _SMALL, sealed)
        answer = await self._link.request(SEND, message.to_bytes(), stream=message.stream, deadline=left)
        head, body = await asyncio.to_thread(self._envelopes.open, member, answer)
        request, code, detail, hint, blamed, result = unpack(_REPLY_TAG, body, 6)
        if head.purpose != purpose + _REPLY or request != hashlib.sha256(sealed).digest():
            raise ChaotianError("REPLAY", f"the reply of {member} belongs to another request", member=member)
        if code:
            raise _error(code, detail, hint, blamed)
        return result

    async def _deliver(self, data: bytes) -> bytes:
        message = Relayed.from_bytes(data)
        sender, sealed = message.name, message.sealed
        head, body = await asyncio.to_thread(self._envelopes.open, sender, sealed)
        request = hashlib.sha256(sealed).digest()
        try:
            handler = self._link.member_handlers.get(head.purpose)
            if handler is None:
                raise ChaotianError("NOT_FOUND", f"this member has no service {head.purpose}")
            try:
                async with asyncio.timeout(message.left):
                    result = await handler(sender, body)
            except TimeoutError:
                raise ChaotianError("DEADLINE", f"{head.purpose} was not done in time") from None
            reply = [request, b"", b"", b"", b"", result]
        except ChaotianError as error:
            reply = [request, *(t.encode() for t in (error.code, error.detail, error.hint, error.member)), b""]
        except Exception as unforeseen:
            log.error("handler failed", extra={"kind": head.purpose}, exc_info=unforeseen)
            failure = ChaotianError("INTERNAL", f"{head.purpose} failed in a way nobody foresaw")
            reply = [request, b"INTERNAL", failure.detail.encode(), b"", b"", b""]
        packed = pack(_REPLY_TAG, reply)
        return await asyncio.to_thread(
            self._envelopes.seal, sender, head.purpose + _REPLY, packed, lifetime=_DEFAULT_LIFETIME
        )


def _error(code: bytes, detail: bytes, hint: bytes, member: bytes) -> ChaotianError:
    def clean(text: bytes, most: int) -> str:
        return "".join(c for c in text[:most].decode("utf-8", "replace") if c.isprintable())

    name = clean(code, 40)
    return ChaotianError(
        name if name in CATALOGUE else "INTERNAL", clean(detail, 2000), hint=clean(hint, 2000), member=clean(member, 63)
    )
