"""Envelopes between members that the relay cannot read, and signed envelopes between coordinator and member.

A sealed envelope is two HPKE ciphertexts (RFC 9180): a head with purpose, epoch, sequence number and expiry, and the
body, whose `info` binds version, suite, space, sender, receiver and the head. Inside the body stands an Ed25519
signature over the same fields and the body's digest; it is verified before anything of the body is parsed. The relay
sees sender, receiver, size and time.

Epochs are random for every start of the sender's process; within one, sequence numbers begin at 1. The receiver
keeps a window of 1,024 numbers for each epoch in its database and opens no envelope twice, also after a restart. An
envelope that was held back is refused once it has expired.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import delete, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.encoding import pack, unpack
from federation.primitives.entropy import Entropy
from federation.primitives.sealing import SUITE_NAME, Opener, seal
from federation.primitives.signing import SIGNATURE_BYTES, Signer, Verifier
from gateway.storage.base import Database
from gateway.storage.tables.transport import envelope_windows as windows

VERSION = b"1"
EPOCH_BYTES = 16
WINDOW = 1024
CLOCK_SKEW_SECONDS = 300
MAX_LIFETIME_SECONDS = 25 * 3600
_HEAD_TAG = "chaotian/v1/envelope-head"
_INFO_TAG = "chaotian/v1/envelope"
_SEALED_TAG = "chaotian/v1/sealed-envelope"
_SIGNED_TAG = "chaotian/v1/signed-envelope"
_MAX_PURPOSE = 80


class Peers(Protocol):
    """What an envelope needs of the node's peer book."""

    def verifier(self, member: str) -> Verifier:
        """Return the identity key of a member that this node's owner has approved, or raise NOT_APPROVED."""
        ...

    def sealing_key(self, member: str) -> bytes:
        """Return its sealing key, likewise."""
        ...


@dataclass(frozen=True)
class Head:
    """What only sender and receiver see of an envelope besides its body."""

    purpose: str
    epoch: bytes
    sequence: int
    expires: int  # Unix seconds


class ReplayWindow:
    """Which envelopes have come, in the receiver's database.

    Args:
        database: the node's database.
        clock: Unix seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._purged = 0.0

    def take(self, sender: str, head: Head) -> None:
        """Record an envelope as opened, durably.

        Raises:
            ChaotianError: REPLAY where it has come before, or is too old for the window to tell.
        """
        key = (windows.c.sender == sender) & (windows.c.epoch == head.epoch)
        with self._database.begin() as connection:
            row = connection.execute(select(windows).where(key)).mappings().first()
            if row is None:
                row_new = {"sender": sender, "epoch": head.epoch, "highest": head.sequence}
                seen = _bits(1)
                connection.execute(insert(windows).values(**row_new, seen=seen, last_expires=head.expires))
            else:
                highest, seen = slide(int(row["highest"]), bytes(row["seen"]), head.sequence, sender)
                connection.execute(
                    update(windows)
                    .where(key)
                    .values(highest=highest, seen=seen, last_expires=max(int(row["last_expires"]), head.expires))
                )
            now = self._clock()
            if now - self._purged > 3600:
                # Envelopes of these epochs have expired, all of them: the clock refuses them from now on.
                connection.execute(delete(windows).where(windows.c.last_expires < now - 2 * MAX_LIFETIME_SECONDS))
                self._purged = now


def slide(highest: int, seen: bytes, sequence: int, sender: str) -> tuple[int, bytes]:
    """Return the window after `sequence`: bit i of `seen` stands for highest - i.

    Raises:
        ChaotianError: REPLAY.
    """
    bits = int.from_bytes(seen, "big")
    if sequence > highest:
        return sequence, _bits((bits << (sequence - highest) | 1) if sequence - highest < WINDOW else 1)
    behind = highest - sequence
    if behind >= WINDOW or bits >> behind & 1:
        raise ChaotianError("REPLAY", f"an envelope of {sender} came a second time or too late", member=sender)
    return highest, _bits(bits | 1 << behind)


def _bits(value: int) -> bytes:
    return (value & ((1 << WINDOW) - 1)).to_bytes(WINDOW // 8, "big")


class Envelopes:
    """Seals and opens what this node exchanges with other members. Its methods block (database): call in a thread.

    Args:
        space: the space.
        member: this node's member.
        signer: its identity key.
        openers: returns its sealing keys, the current one first.
        peers: whom its owner has approved.
        window: what has been opened already.
        clock: Unix seconds.
        entropy: source of the epoch.
    """

    def __init__(
        self,
        *,
        space: str,
        member: str,
        signer: Signer,
        openers: Callable[[], Sequence[Opener]],
        peers: Peers,
        window: ReplayWindow,
        clock: Callable[[], float],
        entropy: Entropy,
    ) -> None:
        self._space = space
        self._member = member
        self._signer = signer
        self._openers = openers
        self._peers = peers
        self._window = window
        self._clock = clock
        self._epoch = entropy.bytes(EPOCH_BYTES)
        self._sequences: dict[str, int] = {}
        self._lock = threading.Lock()

    def seal(self, receiver: str, purpose: str, body: bytes, *, lifetime: float) -> bytes:
        """Seal `body` to an approved member; it opens once, within `lifetime` seconds (and a clock skew of 300 s).

        Raises:
            ChaotianError: NOT_APPROVED, NOT_FOUND, CERT_REVOKED, DIRECTORY.
        """
        public = self._peers.sealing_key(receiver)
        with self._lock:
            sequence = self._sequences.get(receiver, 0) + 1
            self._sequences[receiver] = sequence
        expires = int(self._clock() + min(lifetime, MAX_LIFETIME_SECONDS)) + CLOCK_SKEW_SECONDS
        head = Head(purpose, self._epoch, sequence, expires)
        packed = pack(_HEAD_TAG, _head_fields(head))
        info = _info(self._space, self._member, receiver, head)
        signature = self._signer.sign(_INFO_TAG, _statement(info, body))
        return pack(
            _SEALED_TAG,
            [
                VERSION,
                seal(packed, public, _head_info(self._space, self._member, receiver)),
                seal(signature + body, public, info),
            ],
        )

    def open(self, sender: str, sealed: bytes) -> tuple[Head, bytes]:
        """Open what `sender` sealed to this node; returns its head and its body.

        Raises:
            ChaotianError: NOT_APPROVED; MALFORMED; SHARE_INVALID where it does not open under this node's keys and
                these names; SIGNATURE; DEADLINE where it has expired; REPLAY.
        """
        verifier = self._peers.verifier(sender)
        version, sealed_head, sealed_body = unpack(_SEALED_TAG, sealed, 3)
        if version != VERSION:
            raise ChaotianError("VERSION", "the envelope has a version this node does not know", member=sender)
        opener, packed = self._open_head(sender, sealed_head)
        head = _parse_head(packed, sender)
        info = _info(self._space, sender, self._member, head)
        plain = opener.open(sealed_body, info, member=sender)
        if len(plain) < SIGNATURE_BYTES:
            raise ChaotianError("MALFORMED", "the envelope holds no signature", member=sender)
        signature, body = plain[:SIGNATURE_BYTES], plain[SIGNATURE_BYTES:]
        verifier.verify(_INFO_TAG, _statement(info, body), signature, member=sender)
        now = self._clock()
        if head.expires < now:
            raise ChaotianError("DEADLINE", "the envelope came after it had expired", member=sender)
        if head.expires > now + MAX_LIFETIME_SECONDS + 2 * CLOCK_SKEW_SECONDS:
            raise ChaotianError("MALFORMED", "the envelope is valid for too long: is a clock wrong?", member=sender)
        self._window.take(sender, head)
        return head, body

    def _open_head(self, sender: str, sealed: bytes) -> tuple[Opener, bytes]:
        info = _head_info(self._space, sender, self._member)
        failure = ChaotianError("SHARE_INVALID", "this node has no sealing key", member=sender)
        for opener in self._openers():
            try:
                return opener, opener.open(sealed, info, member=sender)
            except ChaotianError as error:
                failure = error
        raise failure


def _head_fields(head: Head) -> list[bytes]:
    return [head.purpose.encode(), head.epoch, struct.pack(">Q", head.sequence), struct.pack(">Q", head.expires)]


def _parse_head(packed: bytes, sender: str) -> Head:
    purpose, epoch, sequence, expires = unpack(_HEAD_TAG, packed, 4)
    try:
        if not 0 < len(purpose) <= _MAX_PURPOSE or len(epoch) != EPOCH_BYTES or len(sequence) != 8 or len(expires) != 8:
            raise ValueError
        head = Head(
            purpose.decode(), epoch, int(struct.unpack(">Q", sequence)[0]), int(struct.unpack(">Q", expires)[0])
        )
        if not 0 < head.sequence < 2**62 or head.expires >= 2**62:
            raise ValueError
    except ValueError:
        raise ChaotianError("MALFORMED", "the head of an envelope is malformed", member=sender) from None
    return head


def _head_info(space: str, sender: str, receiver: str) -> bytes:
    return pack(_HEAD_TAG, [VERSION, SUITE_NAME.encode(), space.encode(), sender.encode(), receiver.encode()])


def _info(space: str, sender: str, receiver: str, head: Head) -> bytes:
    names = [VERSION, SUITE_NAME.encode(), space.encode(), sender.encode(), receiver.encode()]
    return pack(_INFO_TAG, names + _head_fields(head))


def _statement(info: bytes, body: bytes) -> bytes:
    return pack(_INFO_TAG, [info, hashlib.sha256(body).digest()])


# --- signed, not sealed: coordinator and member -----------------------------------------------------------------


def sign_envelope(
    signer: Signer, *, space: str, sender: str, receiver: str, kind: str, job: str, sequence: int, body: bytes
) -> bytes:
    """Return `body` with the sender's signature over space, both names, kind, job, sequence and the body's digest."""
    fields = _signed_fields(space, sender, receiver, kind, job, sequence)
    signature = signer.sign(_SIGNED_TAG, pack(_SIGNED_TAG, [*fields, hashlib.sha256(body).digest()]))
    return pack(_SIGNED_TAG, [*fields, body, signature])


def open_signed(
    data: bytes,
    *,
    verifier: Verifier,
    space: str,
    sender: str,
    receiver: str,
    kind: str,
    job: str,
    sequence: int,
) -> bytes:
    """Return the body of a signed envelope that is exactly the one expected.

    Args:
        data: the envelope.
        verifier: the identity key of `sender`, from this node's own directory.
        space, sender, receiver, kind, job, sequence: what it must say.

    Raises:
        ChaotianError: MALFORMED; SIGNATURE; REPLAY where only its sequence number is another.
    """
    *fields, body, signature = unpack(_SIGNED_TAG, data, 9)
    statement = pack(_SIGNED_TAG, [*fields, hashlib.sha256(body).digest()])
    verifier.verify(_SIGNED_TAG, statement, signature, member=sender)
    expected = _signed_fields(space, sender, receiver, kind, job, sequence)
    if fields[:-1] != expected[:-1]:
        raise ChaotianError("MALFORMED", f"a signed envelope for something else than {kind} came", member=sender)
    if fields[-1] != expected[-1]:
        raise ChaotianError("REPLAY", f"a signed envelope of {kind} came out of order", member=sender)
    return body


def signed_sequence(data: bytes) -> int:
    """Return the sequence number that a signed envelope claims, unverified: to look up what to expect."""
    fields = unpack(_SIGNED_TAG, data, 9)
    if len(fields[6]) != 8:
        raise ChaotianError("MALFORMED", "a signed envelope has no sequence number")
    return int(struct.unpack(">Q", fields[6])[0])


def _signed_fields(space: str, sender: str, receiver: str, kind: str, job: str, sequence: int) -> list[bytes]:
    texts = [text.encode() for text in (space, sender, receiver, kind, job)]
    return [VERSION, *texts, struct.pack(">Q", sequence)]
