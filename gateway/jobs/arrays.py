"""Arrays between two rounds of a `fedavg` job: what the platform offers, and what a member makes of it.

Before each round the platform says by their hash which arrays the strategy goes on from. A member that derived the
same ones itself needs nothing. Else it asks for the total of the round before, or, where noise is on, for the arrays;
one that would have to train on arrays that do not follow from what was released refuses (WRONG_ARRAYS).
"""

from __future__ import annotations

from typing import Any, Protocol

from federation.errors import ChaotianError
from federation.primitives.encoding import Buffer, canonical_json, pack, parse_canonical_json, unpack_views

KIND = "job.arrays"
TAG = "chaotian/job/arrays/v1"  # signature domain of the envelope
OFFER = "offer"  # carries the hash of the arrays; `total` and `arrays` carry what was asked for
FORMS = (OFFER, "total", "arrays")
NEEDS = ("", "total", "arrays")


class TakesArrays(Protocol):
    """A program that trains on arrays; `federation.learning.fedavg.FedAvg` is one."""

    def needs(self, round_: int, hashed: bytes) -> str: ...
    def offered(self, round_: int, data: Buffer) -> None: ...
    def stated(self, round_: int, data: Buffer) -> None: ...


def encode(round_: int, form: str, data: Buffer) -> bytes:
    """Return the body of a request: the round that is to begin, and an offer, a total or arrays."""
    return pack("arrays", [round_.to_bytes(8, "big"), form.encode(), data])


def take(program: TakesArrays, body: Buffer) -> tuple[str, bool]:
    """Let a member's program take a request.

    Returns:
        What it needs (of `NEEDS`), and whether its derived state may have moved.

    Raises:
        ChaotianError: WRONG_ARRAYS, LOST, REPLAY, MALFORMED.
    """
    number, form, data = unpack_views("arrays", body, 3)
    round_ = int.from_bytes(number, "big")
    if len(number) != 8 or bytes(form) not in [known.encode() for known in FORMS]:
        raise ChaotianError("MALFORMED", "arrays come as an offer, a total or themselves")
    if bytes(form) == b"offer":
        if len(data) != 32:
            raise ChaotianError("MALFORMED", "an offer is a hash of 32 bytes")
        return program.needs(round_, bytes(data)), False
    (program.stated if bytes(form) == b"total" else program.offered)(round_, data)
    return "", True


def answer(needs: str, position: dict[str, Any]) -> bytes:
    """Return a member's reply: what it needs, and where it stands."""
    return canonical_json({"needs": needs, "position": position})


def read_answer(data: bytes, member: str) -> tuple[str, bytes]:
    """Return (what the member needs, its position as canonical JSON); anything else is MALFORMED."""
    document = parse_canonical_json(data)
    if not isinstance(document, dict) or set(document) != {"needs", "position"} or document["needs"] not in NEEDS:
        raise ChaotianError("MALFORMED", "expected an answer about arrays", member=member)
    return str(document["needs"]), canonical_json(document["position"])
