"""The signed envelope of a stage: what the platform asks one member, and what that member answers.

The connection is authenticated already; the signature makes a request or reply provable afterwards and ties it to
job, sender and receiver, so that nothing can be moved from one to another.
"""

from __future__ import annotations

import hashlib

from federation.errors import ChaotianError
from federation.primitives.encoding import pack, unpack
from federation.primitives.signing import Signer, Verifier

REQUEST = "chaotian/job/stage-request/v1"
REPLY = "chaotian/job/stage-reply/v1"


def _signed(space: str, job: str, sender: str, receiver: str, body: bytes) -> bytes:
    fields = [name.encode() for name in (space, job, sender, receiver)]
    return pack("stage", [*fields, hashlib.sha256(body).digest()])


def seal_stage(tag: str, space: str, job: str, sender: str, receiver: str, body: bytes, signer: Signer) -> bytes:
    """Return `body` in its envelope.

    Args:
        tag: `REQUEST` or `REPLY`.
        body: a Flower message as bytes.
    """
    signature = signer.sign(tag, _signed(space, job, sender, receiver, body))
    return pack(tag, [job.encode(), signature, body])


def open_stage(tag: str, space: str, sender: str, receiver: str, data: bytes, key: Verifier) -> tuple[str, bytes]:
    """Return (job, body) of an envelope that `sender` signed for `receiver`.

    Raises:
        ChaotianError: MALFORMED or SIGNATURE, naming the sender.
    """
    raw, signature, body = unpack(tag, data, 3)
    try:
        job = raw.decode("ascii")
    except UnicodeDecodeError:
        raise ChaotianError("MALFORMED", "an envelope names its job in ASCII", member=sender) from None
    key.verify(tag, _signed(space, job, sender, receiver, body), signature, member=sender)
    return job, body
