"""Digests of the rows that entered a release, so that two releases can be compared column by column.

A digest is keyed by a secret of the process: it says nothing outside of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.frame import Frame

Digests = NDArray[np.uint64]


def row_digests(frame: Frame, columns: Sequence[str], mask: NDArray[np.bool_], key: bytes) -> Iterator[Digests]:
    """Yield, column by column in the order of their names, one 64-bit digest for each used row, sorted.

    Digest = keyed BLAKE2b of the identifier ⊕ a keyed permutation of the value: of one row two values never have the
    same one, and by chance two of a million rows do once in 37 million cases.

    Args:
        frame: identifiers and columns.
        columns: the columns that enter the release; their order does not matter.
        mask: which rows enter.
        key: 32 secret bytes.

    Raises:
        ChaotianError: DATA_COLUMN; INTERNAL for a key of another length.
    """
    if len(key) != 32:
        raise ChaotianError("INTERNAL", "the key of row digests has 32 bytes")
    used = [name for name, enters in zip(frame.ids, mask.tolist(), strict=True) if enters]
    ids = np.fromiter((_short(name, b"id", key) for name in used), dtype=np.uint64, count=len(used))
    for name in sorted(set(columns)):
        if name not in frame.columns:
            raise ChaotianError("DATA_COLUMN", f"column {name} is not in the data")
        values = _codes(np.asarray(frame.columns[name])[mask], key) ^ np.uint64(_short(name, b"column", key))
        yield np.sort(ids ^ _permuted(values))


def rows_changed(before: Iterable[Digests], after: Iterable[Digests]) -> int:
    """Return how many rows were added, removed or changed in the column in which the fewest were, but at least one.

    Each column is looked at by itself: the totals of a column in which three rows changed show these three, however
    many rows changed in a column beside it. A changed row leaves one digest and brings another; counting the larger
    side counts it once. Where as many other rows came as went, that counts each pair once too, which errs on the side
    of refusing.
    """
    found = [_apart(old, new) for old, new in zip(before, after, strict=True)]
    return min((count for count in found if count), default=0)


def _apart(before: Digests, after: Digests) -> int:
    merged = np.concatenate((before, after))
    merged.sort(kind="stable")  # two sorted runs are merged, not sorted
    return max(len(before), len(after)) - int(np.count_nonzero(merged[1:] == merged[:-1]))


def _short(text: str, role: bytes, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), key=key, digest_size=8, person=role).digest(), "big")


def _codes(values: NDArray[Any], key: bytes) -> Digests:
    """Return 64 bits for each value: those of a number (-0.0 as 0.0), a digest of a text."""
    if values.dtype.kind in "fiub":
        numbers = values.astype(np.float64) + 0.0
        numbers[np.isnan(numbers)] = np.nan  # one pattern of bits for all that are missing
        return numbers.view(np.uint64)
    texts = [str(value) for value in values.tolist()]
    known = {text: _short(text, b"value", key) for text in set(texts)}
    return np.fromiter((known[text] for text in texts), dtype=np.uint64, count=len(texts))


def _permuted(values: Digests) -> Digests:
    """Return the finalizer of SplitMix64 (Steele, Lea, Flood 2014), a permutation that spreads close values."""
    out = values.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        out ^= out >> np.uint64(shift)
        out *= np.uint64(factor)
    return out
