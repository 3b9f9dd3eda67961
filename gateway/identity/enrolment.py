"""What a newcomer sends to enrol, and what it gets: canonical JSON, carried as bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from federation.primitives.encoding import canonical_json, pack, parse_canonical_json
from federation.primitives.signing import SIGNATURE_BYTES, Signer
from gateway.identity.certificates import MAX_PEM
from gateway.identity.directory import MAX_DIRECTORY, SignedEntry
from gateway.identity.fields import Fields, b64, unb64
from gateway.identity.invitation import TOKEN_BYTES

BINDING_TAG = "chaotian/v1/enrolment"
MAX_REQUEST = 64 * 1024


@dataclass(frozen=True)
class EnrolmentRequest:
    """A newcomer's request.

    Args:
        token: of the invitation (32 secret bytes).
        csr_pem: signing request for its TLS key.
        signed: its first directory entry.
        binding: signature of the identity key over token hash, request and entry: the same party holds both keys
            and the invitation.
    """

    token: bytes = field(repr=False)
    csr_pem: str
    signed: SignedEntry
    binding: bytes

    @property
    def token_hash(self) -> str:
        """SHA-256 of the token in hexadecimal."""
        return hashlib.sha256(self.token).hexdigest()

    @classmethod
    def make(cls, token: bytes, csr_pem: str, signed: SignedEntry, signer: Signer) -> EnrolmentRequest:
        """Return a request bound together by `signer`, the newcomer's identity key."""
        return cls(token, csr_pem, signed, signer.sign(BINDING_TAG, _bound(token, csr_pem, signed)))

    def verify(self) -> EnrolmentRequest:
        """Return itself if entry and binding are signed by the entry's identity key.

        Raises:
            ChaotianError: SIGNATURE.
        """
        entry = self.signed.verify()
        message = _bound(self.token, self.csr_pem, self.signed)
        entry.identity_key.verify(BINDING_TAG, message, self.binding, member=entry.member)
        return self

    def to_bytes(self) -> bytes:
        """Return its canonical JSON."""
        return canonical_json(
            {
                "v": 1,
                "token": b64(self.token),
                "csr": self.csr_pem,
                "entry": self.signed.document(),
                "binding": b64(self.binding),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> EnrolmentRequest:
        """Return the request of `to_bytes()`, not yet verified.

        Raises:
            ChaotianError: MALFORMED, BAD_DOCUMENT, OVERSIZED.
        """
        document = parse_canonical_json(data, limit=MAX_REQUEST)
        read = Fields(
            document, ["v", "token", "csr", "entry", "binding"], code="MALFORMED", what="an enrolment request"
        )
        read.one("v", 1)
        return cls(
            token=read.data("token", TOKEN_BYTES),
            csr_pem=read.text("csr", MAX_PEM),
            signed=SignedEntry.from_document(read.raw("entry")),
            binding=read.data("binding", SIGNATURE_BYTES),
        )


@dataclass(frozen=True)
class EnrolmentReply:
    """The platform's reply.

    Args:
        certificate_pem: the newcomer's certificate.
        directory: the member directory, with the newcomer in it.
    """

    certificate_pem: str
    directory: bytes

    def to_bytes(self) -> bytes:
        """Return its canonical JSON."""
        return canonical_json({"v": 1, "certificate": self.certificate_pem, "directory": b64(self.directory)})

    @classmethod
    def from_bytes(cls, data: bytes) -> EnrolmentReply:
        """Return the reply of `to_bytes()`, nothing in it verified.

        Raises:
            ChaotianError: MALFORMED, BAD_DOCUMENT, OVERSIZED.
        """
        document = parse_canonical_json(data, limit=2 * MAX_DIRECTORY)
        read = Fields(document, ("v", "certificate", "directory"), code="MALFORMED", what="an enrolment reply")
        read.one("v", 1)
        return cls(read.text("certificate", MAX_PEM), unb64(read.text("directory", 2 * MAX_DIRECTORY)))


def _bound(token: bytes, csr_pem: str, signed: SignedEntry) -> bytes:
    return pack(BINDING_TAG, [hashlib.sha256(token).digest(), csr_pem.encode(), signed.to_bytes()])
