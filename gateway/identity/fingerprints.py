"""Fingerprints as people compare them: all 32 bytes, in groups of four hexadecimal digits."""

from __future__ import annotations

import re

from federation.errors import ChaotianError

FINGERPRINT_BYTES = 32


def show_fingerprint(fingerprint: bytes) -> str:
    """Return the 32 bytes as 16 groups of four hexadecimal digits."""
    digits = fingerprint.hex()
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def parse_fingerprint(text: str) -> bytes:
    """Return the bytes of a fingerprint as shown; spaces, colons and letter case do not matter.

    Raises:
        ChaotianError: USAGE unless it is whole: a part of a fingerprint can be matched by search.
    """
    digits = re.sub(r"[\s:]", "", text[:512]).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ChaotianError("USAGE", "a fingerprint has 64 hexadecimal digits", hint="Give the whole fingerprint.")
    return bytes.fromhex(digits)
