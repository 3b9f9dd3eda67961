"""Messages cut into frames and put together again, with every frame checked. Pure: no network and no clock.

A message is one request or one reply. Its parts carry the same header, come in order on one stream, and may be mixed
with the parts of other messages. `Assembler` accepts them, keeps count of the memory they hold, and says with a coded
error what is wrong; an error concerns one message unless it is a `StreamError`, after which the stream must end.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from federation.errors import CATALOGUE, ChaotianError
from gateway.transport.ports import Limits
from protos.chaotian.v1 import link_pb2 as pb

REQUEST, REPLY, ERROR = pb.PART_TYPE_REQUEST, pb.PART_TYPE_REPLY, pb.PART_TYPE_ERROR
ID_BYTES = 16
DIGEST_BYTES = 32
KIND_CHARACTERS = 80
MAX_DEADLINE = 2**32 - 1  # milliseconds
_TEXT = 2000  # of an error's detail or hint


class StreamError(ChaotianError):
    """A fault after which nothing on this stream can be trusted to be in step."""


@dataclass(eq=False)
class Message:
    """One whole message that has arrived."""

    id: bytes
    type: int
    kind: str
    request: bytes
    digest: bytes
    deadline: float  # seconds left when its first part was sent
    payload: bytes
    stream: str


@dataclass(eq=False)
class _Partial:
    header: tuple[Any, ...]
    total: int
    deadline: float
    stream: str
    hash: Any = field(default_factory=hashlib.sha256)
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


def part_frame(
    *,
    id: bytes,
    type: int,
    kind: str,
    request: bytes,
    payload: bytes,
    digest: bytes,
    offset: int,
    size: int,
    deadline: float,
) -> Any:
    """Return the frame of `payload[offset:offset + size]`; `deadline` in seconds left."""
    milliseconds = max(1, min(MAX_DEADLINE, int(deadline * 1000)))
    whole = offset == 0 and size == len(payload)
    part = pb.Part(
        id=id,
        type=type,
        kind=kind,
        request=request,
        total=len(payload),
        offset=offset,
        digest=digest,
        deadline=milliseconds,
        body=payload if whole else payload[offset : offset + size],
    )
    return pb.Frame(part=part)


def error_to_wire(error: ChaotianError) -> Any:
    """Return the wire form of an error."""
    return pb.Error(
        code=error.code, detail=error.detail[:_TEXT], hint=error.hint[:_TEXT], member=error.member[:KIND_CHARACTERS]
    )


def error_from_wire(error: Any) -> ChaotianError:
    """Return the error that the other side raised; what is not printable is left out, an unknown code is INTERNAL."""

    def clean(text: str, most: int) -> str:
        return "".join(character for character in text[:most] if character.isprintable())

    code = error.code if error.code in CATALOGUE else "INTERNAL"
    return ChaotianError(
        code,
        clean(error.detail, _TEXT),
        hint=clean(error.hint, _TEXT),
        member=clean(error.member, KIND_CHARACTERS),
    )


def error_from_bytes(payload: bytes) -> ChaotianError:
    """Return the error whose wire form `payload` is; anything else is MALFORMED."""
    try:
        return error_from_wire(pb.Error.FromString(payload))
    except Exception:  # protobuf raises its own DecodeError, which is no public name in every version
        return ChaotianError("MALFORMED", "expected an error, got bytes that are none")


class Assembler:
    """Puts the parts of one peer's messages together.

    Args:
        limits: sizes that the peer must keep to.
        admit: called with (stream, type, kind, request id) of each new message; raises ChaotianError to refuse it, and
            returns False for one that is to be dropped without a word (a reply nobody waits for any more).
    """

    def __init__(self, limits: Limits, admit: Callable[[str, int, str, bytes], bool]) -> None:
        self._limits = limits
        self._admit = admit
        self._partials: dict[bytes, _Partial] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self.buffered = 0  # bytes of requests that are arriving or being handled
        self.held = 0  # requests that are arriving or being handled

    def add(self, stream: str, part: Any) -> Message | None:
        """Take one part; return its message when it is whole.

        Raises:
            StreamError: MALFORMED; the stream must end.
            ChaotianError: MALFORMED, REPLAY, OVERSIZED, BACKPRESSURE or what `admit` raised; this message is refused,
                its later parts are dropped silently, and everything else goes on.
        """
        identifier = part.id
        if len(identifier) != ID_BYTES:
            raise StreamError("MALFORMED", f"expected a message id of {ID_BYTES} bytes, got {len(identifier)}")
        if len(part.body) > self._limits.frame:
            raise StreamError(
                "MALFORMED", f"a frame carries {len(part.body)} bytes, at most {self._limits.frame} are allowed"
            )
        if identifier in self._refused:
            return None
        try:
            partial = self._partials.get(identifier)
            if partial is None:
                return self._first(stream, part)
            return self._next(stream, part, partial)
        except ChaotianError:
            self.drop(identifier)
            self._refused[identifier] = None
            if len(self._refused) > 4096:
                self._refused.popitem(last=False)
            raise

    def _first(self, stream: str, part: Any) -> Message | None:
        _check_header(part)
        if part.offset != 0:
            raise ChaotianError("MALFORMED", f"a message began at offset {part.offset}, not at 0")
        most = self._limits.message[stream]
        if part.total > most:
            raise ChaotianError(
                "OVERSIZED", f"a message on {stream} has {part.total} bytes, at most {most} are allowed"
            )
        if not self._admit(stream, part.type, part.kind, part.request):
            self._refused[part.id] = None
            if len(self._refused) > 4096:
                self._refused.popitem(last=False)
            return None
        request = part.type == REQUEST
        if request and (
            self.held >= self._limits.requests or (self.held and self.buffered + part.total > self._limits.buffered)
        ):
            raise ChaotianError("BACKPRESSURE", f"{self.held} requests are arriving or being handled already")
        body = part.body
        if len(body) == part.total:
            if hashlib.sha256(body).digest() != part.digest:
                raise ChaotianError("MALFORMED", "a message does not match its digest")
            if request:
                self.held += 1
                self.buffered += part.total
            return Message(part.id, part.type, part.kind, part.request, part.digest, part.deadline / 1000, body, stream)
        partial = _Partial(_header(part), part.total, part.deadline / 1000, stream)
        self._partials[part.id] = partial
        if request:
            self.held += 1
            self.buffered += part.total
        return self._next(stream, part, partial)

    def _next(self, stream: str, part: Any, partial: _Partial) -> Message | None:
        if _header(part) != partial.header or stream != partial.stream:
            raise ChaotianError("MALFORMED", "the parts of a message have different headers")
        if part.offset < partial.size:
            raise ChaotianError("REPLAY", f"a part at offset {part.offset} came again")
        if part.offset > partial.size:
            raise ChaotianError("MALFORMED", f"expected the part at offset {partial.size}, got {part.offset}")
        body = part.body
        if not body:
            raise ChaotianError("MALFORMED", "a part of an unfinished message is empty")
        if partial.size + len(body) > partial.total:
            raise ChaotianError("MALFORMED", f"a message is longer than the {partial.total} bytes it announced")
        partial.parts.append(body)
        partial.size += len(body)
        partial.hash.update(body)
        if partial.size < partial.total:
            return None
        if partial.hash.digest() != part.digest:
            raise ChaotianError("MALFORMED", "a message does not match its digest")
        del self._partials[part.id]  # its bytes stay counted until `release`
        payload = b"".join(partial.parts)
        return Message(part.id, part.type, part.kind, part.request, part.digest, partial.deadline, payload, stream)

    def have(self, identifier: bytes) -> int:
        """Return how many bytes of an unfinished message have arrived."""
        partial = self._partials.get(identifier)
        return partial.size if partial else 0

    def release(self, message: Message) -> None:
        """A request that was returned by `add` has been handled: its memory counts no more."""
        self.held -= 1
        self.buffered -= len(message.payload)

    def drop(self, identifier: bytes) -> None:
        """Forget an unfinished message."""
        partial = self._partials.pop(identifier, None)
        if partial is not None and partial.header[0] == REQUEST:
            self.held -= 1
            self.buffered -= partial.total

    def unfinished(self) -> dict[bytes, float]:
        """Return the ids of unfinished messages with the seconds each had left when it began."""
        return {identifier: partial.deadline for identifier, partial in self._partials.items()}


def _header(part: Any) -> tuple[Any, ...]:
    return (part.type, part.kind, part.request, part.total, part.digest)


def _check_header(part: Any) -> None:
    """A header must be that of a request or of a reply, nothing in between."""
    if part.type == REQUEST:
        good = 0 < len(part.kind) <= KIND_CHARACTERS and not part.request
    elif part.type in (REPLY, ERROR):
        good = not part.kind and len(part.request) == ID_BYTES
    else:
        good = False
    if not good or len(part.digest) != DIGEST_BYTES or part.deadline == 0 or len(part.body) > part.total:
        raise ChaotianError("MALFORMED", "expected the header of a request or a reply")
    if len(part.body) == 0 and part.total:
        raise ChaotianError("MALFORMED", "the first part of a message is empty")
