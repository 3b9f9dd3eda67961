"""Sealing to a public key: HPKE (RFC 9180) with MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM, base mode.

Base mode does not authenticate the sender and its API takes no associated data: what must be bound goes into
`info`, and a signature inside or around the sealed bytes says who sealed them. Encapsulation draws from the
library's own generator (the operating system's); it takes no other.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from federation.errors import ChaotianError

SUITE_NAME = "HPKE-MLKEM768X25519-HKDFSHA256-AES256GCM"
SECRET_BYTES = 96  # ML-KEM-768 seed (64), X25519 private key (32)
PUBLIC_BYTES = 1216  # ML-KEM-768 encapsulation key (1,184), X25519 public key (32)
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))  # no secret: it only tells points of low order
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal(plaintext: bytes, public: bytes, info: bytes) -> bytes:
    """Seal `plaintext` to the raw public key `public`, bound to `info`; a weak or malformed key is MALFORMED."""
    try:
        return _SUITE.encrypt(plaintext, load_public(public), info)
    except ValueError:
        raise ChaotianError("MALFORMED", "expected a sealing key that gives a shared secret") from None


def load_public(public: bytes) -> MLKEM768X25519PublicKey:
    """Return the key of `public` (1,216 bytes: ML-KEM-768, then X25519); anything else is MALFORMED."""
    try:
        if len(public) != PUBLIC_BYTES:
            raise ValueError
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:-32]), X25519PublicKey.from_public_bytes(public[-32:])
        )
    except ValueError:
        raise ChaotianError("MALFORMED", "expected a sealing key (MLKEM768-X25519, 1,216 bytes)") from None


def check_public(public: bytes) -> None:
    """Refuse (MALFORMED) a sealing key to which nothing can be sealed: wrong form, or a point of low order."""
    load_public(public)
    check_exchange_key(public[-32:])


def check_exchange_key(public: bytes) -> None:
    """Refuse (MALFORMED) an X25519 key of low order (RFC 7748, section 6.1): every secret with it would be zero."""
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ChaotianError("MALFORMED", "expected an X25519 key that gives a shared secret") from None


class Opener:
    """A private sealing key; it cannot be printed.

    Args:
        secret: 96 bytes: the ML-KEM-768 seed, then the X25519 private key. Uniformly random bytes serve.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ChaotianError("MALFORMED", f"expected {SECRET_BYTES} bytes of a sealing key, got {len(secret)}")
        kem, dh = MLKEM768PrivateKey.from_seed_bytes(secret[:64]), X25519PrivateKey.from_private_bytes(secret[64:])
        self._secret = bytes(secret)
        self._key = MLKEM768X25519PrivateKey(kem, dh)
        self.public = kem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes, *, member: str = "") -> bytes:
        """Return the plaintext of `sealed`.

        Raises:
            ChaotianError: SHARE_INVALID, naming `member`, where it does not open under this key and `info`.
        """
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise ChaotianError(
                "SHARE_INVALID", f"what {member or 'the sender'} sealed does not open", member=member
            ) from None

    def secret_bytes(self) -> bytes:
        """Return the 96 secret bytes, for sealing at rest only."""
        return self._secret

    def __repr__(self) -> str:
        return "Opener(…)"
