"""Which rows stay out of training: decided by a hash of the identifier, so that a row never changes sides."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federation.primitives.encoding import pack

TAG = "chaotian holdout"


def held_out(ids: Sequence[str], seed: str, share: float) -> NDArray[np.bool_]:
    """Return for each row whether it is held out.

    A row is held out where the first 8 bytes of SHA-256(pack("chaotian holdout", [seed, id])), read as a big-endian
    fraction of 2^64, lie below `share`. The order of rows and the other rows do not matter.

    Args:
        ids: identifiers as text.
        seed: the job's seed.
        share: 0 (nothing held out) to 1.
    """
    limit = int(share * 2.0**64)
    if limit <= 0:
        return np.zeros(len(ids), dtype=np.bool_)
    # All rows share tag, count and seed: they are hashed once (pack of two fields, the second one cut off).
    prefix = hashlib.sha256(pack(TAG, [seed.encode(), b""])[:-8])
    length = struct.Struct(">Q").pack
    out = bytearray()
    for name in ids:
        data = name.encode()
        row = prefix.copy()
        row.update(length(len(data)) + data)
        out += row.digest()[:8]
    fractions = np.frombuffer(bytes(out), dtype=">u8").astype(np.uint64)
    return fractions < np.uint64(limit) if limit < 1 << 64 else np.ones(len(ids), dtype=np.bool_)
