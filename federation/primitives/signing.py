"""Signatures that outlive a connection: Ed25519 (RFC 8032) behind a type byte, over domain-tagged input.

The type byte leaves room for ML-DSA-44 (FIPS 204) and SM2 without another format.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from federation.errors import ChaotianError
from federation.primitives.encoding import pack

ED25519 = 0x01
SIGNATURE_BYTES = 65


class Verifier:
    """A public identity key.

    Args:
        public: 33 bytes: the type byte, then the raw key.
    """

    def __init__(self, public: bytes) -> None:
        if len(public) != 33 or public[0] != ED25519:
            raise ChaotianError("MALFORMED", "expected an identity key of 33 bytes that begins with type 1 (Ed25519)")
        self.public = bytes(public)
        # A round verifies some fifty signatures: libsodium takes two thirds of OpenSSL's time and lets other threads
        # run meanwhile. It also refuses keys of small order, under which a signature says nothing.
        self._key = VerifyKey(self.public[1:])

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the type byte and the raw key: 32 bytes."""
        return hashlib.sha256(self.public).digest()

    def verify(self, tag: str, message: bytes, signature: bytes, *, member: str = "") -> bytes:
        """Return `message` if the signature over (tag, message) is good.

        Raises:
            ChaotianError: SIGNATURE, naming `member`.
        """
        if len(signature) == SIGNATURE_BYTES and signature[0] == ED25519:
            try:
                self._key.verify(pack(tag, [message]), bytes(signature[1:]))
            except BadSignatureError:
                pass
            else:
                return message
        raise ChaotianError(
            "SIGNATURE", f"the signature of {member or 'the sender'} over {tag} does not verify", member=member
        )


class Signer:
    """A private identity key; it cannot be printed.

    Args:
        secret: the 32 raw bytes of an Ed25519 private key.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.verifier = Verifier(bytes([ED25519]) + self._key.public_key().public_bytes_raw())

    def sign(self, tag: str, message: bytes) -> bytes:
        """Return the signature over (tag, message): the type byte, then 64 bytes."""
        return bytes([ED25519]) + self._key.sign(pack(tag, [message]))

    def secret_bytes(self) -> bytes:
        """Return the 32 raw bytes, for sealing at rest only."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"Signer({self.verifier.fingerprint.hex()[:16]}…)"
