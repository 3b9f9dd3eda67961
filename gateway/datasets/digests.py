"""Digests of the rows that entered a release, so that two releases can be compared without keeping the rows.

A digest is keyed by a secret of the node: without it nobody, who gets hold of the release ledger, can try out rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.frame import Frame
from federation.primitives.encoding import pack

Digests = NDArray[np.uint64]


def row_digests(frame: Frame, columns: Sequence[str], mask: NDArray[np.bool_], key: bytes) -> Digests:
    """Return one 64-bit digest for each used row, sorted.

    Digest = first 8 bytes of keyed BLAKE2b over identifier and used values, each with its length before it; the
    names of the columns go into the key. By chance two of a million rows have the same one once in 37 million cases.

    Args:
        frame: identifiers and columns.
        columns: the columns that enter the release; their order does not matter.
        mask: which rows enter.
        key: 32 secret bytes of this node.
    """
    if len(key) != 32:
        raise ChaotianError("INTERNAL", "the key of row digests has 32 bytes")
    names = sorted(set(columns))
    parts = []
    for name in names:
        if name not in frame.columns:
            raise ChaotianError("DATA_COLUMN", f"column {name} is not in the data")
        values = np.asarray(frame.columns[name])[mask]
        if values.dtype.kind in "fiub":
            # Fixed width: 8 bytes each, -0.0 as 0.0
            parts.append((values.astype(">f8") + 0.0).astype(">f8").tobytes())
        else:
            parts.append(b"")
    texts = {
        i: [str(value).encode() for value in np.asarray(frame.columns[name])[mask].tolist()]
        for i, name in enumerate(names)
        if not parts[i] and mask.any()
    }
    rows_key = hashlib.blake2b(pack("chaotian row digest", [name.encode() for name in names]), key=key).digest()
    base = hashlib.blake2b(key=rows_key, digest_size=8)
    ids = [name.encode() for name, used in zip(frame.ids, mask, strict=True) if used]
    out = bytearray()
    for at, identifier in enumerate(ids):
        row = base.copy()
        row.update(len(identifier).to_bytes(8, "big") + identifier)
        for i, part in enumerate(parts):
            if i in texts:
                text = texts[i][at]
                row.update(len(text).to_bytes(8, "big") + text)
            else:
                row.update(part[8 * at : 8 * at + 8])
        out += row.digest()
    return np.sort(np.frombuffer(bytes(out), dtype=">u8").astype(np.uint64))


def rows_changed(before: Digests, after: Digests) -> int:
    """Return how many rows were added, removed or changed from `before` to `after`.

    A changed row leaves one digest and brings another; counting the larger side counts it once. Where as many other
    rows came as went, that counts each pair once too, which errs on the side of refusing.
    """
    gone = len(before) - len(np.intersect1d(before, after))
    come = len(after) - len(np.intersect1d(before, after))
    return max(gone, come)
