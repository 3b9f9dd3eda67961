"""Masks: AES-256-CTR keystreams (NIST SP 800-38A) added to vectors over Z/2^32 or Z/2^64.

A key serves one stream only (HKDF-SHA256, RFC 5869, with the terms, a label and indices as info), so the counter
begins at zero. Streams are made in blocks that stay in the processor's cache: 5 to 7 GB/s on a core with AES-NI.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from federation.primitives.encoding import pack

Vector = NDArray[np.uint64] | NDArray[np.uint32]
BLOCK_BYTES = 256 << 10
_ZEROS = bytes(BLOCK_BYTES)


def derive(secret: bytes, terms_hash: bytes, label: str, indices: Sequence[int] = (), length: int = 32) -> bytes:
    """Return a key for one use: HKDF-SHA256 with info = (terms hash, label, indices), `length` bytes."""
    info = pack("chaotian/derive/v1", [terms_hash, label.encode(), *(index.to_bytes(8, "big") for index in indices)])
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def ring_dtype(ring_bits: int) -> np.dtype[Any]:
    """Return the little-endian unsigned type of Z/2^ring_bits."""
    return np.dtype("<u8") if ring_bits == 64 else np.dtype("<u4")


def raw(vector: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous vector, without a copy."""
    return vector.view(np.uint8).data


def add_streams(vector: Vector, streams: Iterable[tuple[bytes, int]]) -> None:
    """Add keystreams to `vector` in place, modulo its ring.

    Args:
        vector: contiguous, of `ring_dtype`.
        streams: (32-byte key, +1 or -1) pairs.
    """
    # Reusing one key for one stream only makes the all-zero counter block safe.
    ciphers = [(Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor(), sign) for key, sign in streams]
    step = BLOCK_BYTES // vector.itemsize
    buffer = bytearray(BLOCK_BYTES)
    stream = np.frombuffer(buffer, dtype=vector.dtype)
    zeros = memoryview(_ZEROS)
    for start in range(0, vector.size, step):
        block = vector[start : start + step]
        size = block.nbytes
        for cipher, sign in ciphers:
            cipher.update_into(zeros[:size], memoryview(buffer)[:size])
            if sign > 0:
                np.add(block, stream[: block.size], out=block)
            else:
                np.subtract(block, stream[: block.size], out=block)
