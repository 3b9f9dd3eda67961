"""What the log records, and the leaf that commits to it.

A leaf is canonical JSON of type, time, pseudonyms of the parties, grant id, hash of the exchange, and
HMAC-SHA256(salt, payload). Payload, salt and names stay with the owner, who may disclose them leaf by leaf.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, pack, parse_canonical_json

SALT_BYTES = 32
MAX_PAYLOAD = 32 * 1024
MAX_PARTIES = 1000
MAX_ENTRY = 65535  # c2sp.org/tlog-tiles: entries have a 16-bit length
MAX_TIME = 1 << 53
_TYPE = re.compile(r"[a-z][a-z_]{0,30}\.[a-z][a-z_]{0,30}")
_HEX32 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"commitment", "exchange", "grant", "parties", "time", "type", "v"}


class EventType(Enum):
    """Every kind of event a node records; a name never changes its meaning."""

    LOG_OPENED = "log.opened"
    MEMBER_ENROLLED = "member.enrolled"
    MEMBER_APPROVED = "member.approved"
    MEMBER_WITHDRAWN = "member.withdrawn"
    MEMBER_REVOKED = "member.revoked"
    DIRECTORY_ACCEPTED = "directory.accepted"
    GRANT_PROPOSED = "grant.proposed"
    GRANT_ACCEPTED = "grant.accepted"
    GRANT_REVOKED = "grant.revoked"
    GRANT_DENIED = "grant.denied"
    JOB_PROPOSED = "job.proposed"
    JOB_ACCEPTED = "job.accepted"
    JOB_REFUSED = "job.refused"
    JOB_STARTED = "job.started"
    JOB_FINISHED = "job.finished"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    EXPOSURE_CONSENTED = "exposure.consented"
    ROUND_ANSWERED = "round.answered"
    ROUND_RELEASED = "round.released"
    ROUND_REFUSED = "round.refused"
    MODEL_STORED = "model.stored"
    MODEL_USED = "model.used"


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Args:
        type: what kind.
        parties: names of the members concerned, in a meaningful order; published as pseudonyms.
        grant: id of the grant it happened under, 64 hex digits, or empty.
        exchange: SHA-256 of what was exchanged (terms, document), 32 bytes, or empty.
        payload: details as JSON values, free of raw data and subjects; committed to, not published.
    """

    type: EventType
    parties: tuple[str, ...] = ()
    grant: str = ""
    exchange: bytes = b""
    payload: Mapping[str, Any] = field(default_factory=dict)


def opening_of(pseudonym_key: bytes, party: str) -> bytes:
    """Return the 32 bytes that open the pseudonym of `party` in this log, and of nobody else."""
    return hmac.digest(pseudonym_key, pack("chaotian/log/party/v1", [party.encode()]), hashlib.sha256)


def pseudonym_of(opening: bytes, party: str) -> str:
    """Return the pseudonym of `party` as 64 hex digits: the same in all leaves of a log, another in every log."""
    return hmac.digest(opening, pack("chaotian/log/pseudonym/v1", [party.encode()]), hashlib.sha256).hex()


def commit(salt: bytes, payload: bytes) -> str:
    """Return HMAC-SHA256(salt, payload) as 64 hex digits."""
    return hmac.digest(salt, payload, hashlib.sha256).hex()


@dataclass(frozen=True)
class Leaf:
    """A leaf as everybody may see it; times in milliseconds since the epoch, UTC."""

    type: str
    time: int
    parties: tuple[str, ...]
    grant: str
    exchange: str
    commitment: str

    def encode(self) -> bytes:
        """Return the bytes that are hashed; canonical JSON written out, as all its values are plain ASCII.

        Raises:
            ChaotianError: BAD_DOCUMENT where a field has not its form.
        """
        self._check("BAD_DOCUMENT")
        parties = ",".join(f'"{party}"' for party in self.parties)
        entry = (
            f'{{"commitment":"{self.commitment}","exchange":"{self.exchange}","grant":"{self.grant}",'
            f'"parties":[{parties}],"time":{self.time},"type":"{self.type}","v":1}}'
        ).encode()
        if len(entry) > MAX_ENTRY:
            raise ChaotianError("OVERSIZED", f"a leaf has {len(entry)} bytes, at most {MAX_ENTRY} are allowed")
        return entry

    def _check(self, code: str) -> None:
        good = (
            _TYPE.fullmatch(self.type)
            and type(self.time) is int
            and 0 <= self.time < MAX_TIME
            and len(self.parties) <= MAX_PARTIES
            and all(_HEX32.fullmatch(party) for party in self.parties)
            and (not self.grant or _HEX32.fullmatch(self.grant))
            and (not self.exchange or _HEX32.fullmatch(self.exchange))
            and _HEX32.fullmatch(self.commitment)
        )
        if not good:
            raise ChaotianError(code, f"a leaf of type {self.type[:64]!r} has a field that has not its form")

    @classmethod
    def decode(cls, entry: bytes) -> Leaf:
        """Return the leaf of `encode`; anything else is LOG_INVALID. Types of later versions are let through."""
        try:
            document = parse_canonical_json(entry, limit=MAX_ENTRY)
        except ChaotianError as error:
            raise ChaotianError("LOG_INVALID", f"a leaf of the log is malformed: {error.detail}") from None
        if not isinstance(document, dict) or set(document) != _FIELDS or document["v"] != 1:
            raise ChaotianError("LOG_INVALID", "a leaf of the log does not have the fields of version 1")
        texts = [document[name] for name in ("type", "grant", "exchange", "commitment")]
        parties = document["parties"]
        if not isinstance(parties, list) or not all(isinstance(text, str) for text in [*texts, *parties]):
            raise ChaotianError("LOG_INVALID", "a leaf of the log has a field of another type")
        leaf = cls(texts[0], document["time"], tuple(parties), texts[1], texts[2], texts[3])
        leaf._check("LOG_INVALID")
        return leaf


def payload_bytes(payload: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a payload, at most 32 KiB."""
    data = canonical_json(dict(payload))
    if len(data) > MAX_PAYLOAD:
        raise ChaotianError("OVERSIZED", f"an event's payload has {len(data)} bytes, at most {MAX_PAYLOAD} are allowed")
    return data
