"""Signatures of owner and grantee beside the content of a grant; what is verified has its own type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, pack, parse_canonical_json
from federation.primitives.signing import SIGNATURE_BYTES, Signer, Verifier
from gateway.grants.document import MAX_BYTES, Grant

PARTIES = ("owner", "grantee")
TAGS = {party: f"chaotian/grant/v1/{party}" for party in PARTIES}
REVOKE_TAG = "chaotian/grant/v1/revoke"
MAX_ENVELOPE = MAX_BYTES + 4096


@dataclass(frozen=True)
class GrantEnvelope:
    """A grant with what signatures came along, none of them checked yet.

    Args:
        grant: the content, already strict.
        signatures: party -> (public key of 33 bytes, signature of 65 bytes).
    """

    grant: Grant
    signatures: Mapping[str, tuple[bytes, bytes]]

    def encode(self) -> bytes:
        """Return the canonical JSON of grant and signatures."""
        signatures = {
            party: {"key": key.hex(), "signature": signature.hex()}
            for party, (key, signature) in self.signatures.items()
        }
        return canonical_json({"v": 1, "grant": self.grant.document(), "signatures": signatures})

    @classmethod
    def decode(cls, data: bytes) -> GrantEnvelope:
        """Return the envelope of `encode`; errors as `Grant.parse`."""
        return cls.from_document(parse_canonical_json(data, limit=MAX_ENVELOPE))

    @classmethod
    def from_text(cls, text: str) -> GrantEnvelope:
        """Return the envelope of a file, which may be pretty-printed; the grant inside still has one form only."""
        if len(text) > 4 * MAX_ENVELOPE:
            raise ChaotianError("OVERSIZED", f"a grant file has at most {4 * MAX_ENVELOPE} characters")
        try:
            document = json.loads(text, object_pairs_hook=_single)
        except (ValueError, RecursionError):
            raise ChaotianError("BAD_DOCUMENT", "the file is not a signed grant: it is not JSON") from None
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> GrantEnvelope:
        """Return the envelope of a JSON object; errors as `Grant.parse`."""
        bad = ChaotianError("BAD_DOCUMENT", "expected a signed grant: v, grant, signatures{owner, grantee}")
        if not isinstance(document, dict) or set(document) != {"v", "grant", "signatures"}:
            raise bad
        if type(document["v"]) is not int or document["v"] != 1:
            raise bad
        found = document["signatures"]
        if not isinstance(found, dict) or not set(found) <= set(PARTIES):
            raise bad
        signatures = {}
        for party, value in found.items():
            try:
                key, signature = bytes.fromhex(value["key"]), bytes.fromhex(value["signature"])
                if set(value) != {"key", "signature"} or len(signature) != SIGNATURE_BYTES:
                    raise bad
                signatures[party] = (Verifier(key).public, signature)
            except (KeyError, TypeError, ValueError):
                raise bad from None
        return cls(Grant.from_document(document["grant"]), signatures)

    def sign(self, party: str, signer: Signer) -> GrantEnvelope:
        """Return the envelope with `signer`'s signature as owner or grantee."""
        entry = (signer.verifier.public, signer.sign(TAGS[party], self.grant.content))
        return GrantEnvelope(self.grant, {**self.signatures, party: entry})

    def merge(self, other: GrantEnvelope) -> GrantEnvelope:
        """Return the envelope with the signatures of both; those of `other` win."""
        if other.grant.content != self.grant.content:
            raise ChaotianError("SIGNATURE", "the signatures are of another grant")
        return GrantEnvelope(self.grant, {**self.signatures, **other.signatures})

    def check(self, party: str, verifier: Verifier) -> None:
        """Check one party's signature against the key this node knows for it.

        Raises:
            ChaotianError: SIGNATURE, naming the party's member.
        """
        member = self.grant.owner if party == "owner" else self.grant.grantee
        if party not in self.signatures:
            raise ChaotianError("SIGNATURE", f"the {party} {member} has not signed the grant", member=member)
        key, signature = self.signatures[party]
        if key != verifier.public:
            raise ChaotianError("SIGNATURE", f"the grant is not signed by the known key of {member}", member=member)
        if party == "grantee" and verifier.fingerprint.hex() not in self.grant.grantee_keys:
            raise ChaotianError("SIGNATURE", f"the key of {member} is not among grantee_keys", member=member)
        verifier.verify(TAGS[party], self.grant.content, signature, member=member)

    def verify(self, owner: Verifier, grantee: Verifier) -> SignedGrant:
        """Return the grant as trusted if both parties signed it with these keys; else SIGNATURE."""
        self.check("owner", owner)
        self.check("grantee", grantee)
        return SignedGrant(self.grant, owner.fingerprint, grantee.fingerprint)


@dataclass(frozen=True)
class SignedGrant:
    """A grant whose two signatures have been verified; made by `GrantEnvelope.verify` only."""

    grant: Grant
    owner_fingerprint: bytes
    grantee_fingerprint: bytes


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


@dataclass(frozen=True)
class Revocation:
    """One party's signed statement that a grant ends; `at` in seconds since the epoch, UTC."""

    grant: str
    by: str
    at: int
    key: bytes
    signature: bytes

    @classmethod
    def make(cls, grant: str, by: str, at: int, signer: Signer) -> Revocation:
        """Return the statement of member `by`, signed."""
        return cls(grant, by, at, signer.verifier.public, signer.sign(REVOKE_TAG, _revoked(grant, by, at)))

    def verify(self, verifier: Verifier) -> None:
        """Check it against the key this node knows for `by`; SIGNATURE."""
        if self.key != verifier.public:
            raise ChaotianError(
                "SIGNATURE", f"the revocation is not signed by the known key of {self.by}", member=self.by
            )
        verifier.verify(REVOKE_TAG, _revoked(self.grant, self.by, self.at), self.signature, member=self.by)

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "grant": self.grant,
            "by": self.by,
            "at": self.at,
            "key": self.key.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_document(cls, value: Any) -> Revocation:
        """Return the revocation of `document`; anything else is BAD_DOCUMENT."""
        try:
            if set(value) != {"grant", "by", "at", "key", "signature"} or type(value["at"]) is not int:
                raise ValueError
            if not all(isinstance(value[name], str) for name in ("grant", "by", "key", "signature")):
                raise ValueError
            return cls(
                value["grant"], value["by"], value["at"], bytes.fromhex(value["key"]), bytes.fromhex(value["signature"])
            )
        except (TypeError, KeyError, ValueError):
            raise ChaotianError("BAD_DOCUMENT", "expected a revocation: grant, by, at, key, signature") from None


def _revoked(grant: str, by: str, at: int) -> bytes:
    return pack("revocation", [grant.encode(), by.encode(), str(at).encode()])
