"""The Merkle tree of RFC 9162 section 2.1 over SHA-256: hashes, inclusion and consistency proofs, verification.

A tree of n leaves is kept as its *frontier*: the roots of its maximal full subtrees, largest first, one for each
one-bit of n. A frontier is enough to append and to know the root; proofs need the hashes of the leaves below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from federation.errors import ChaotianError

HASH_BYTES = 32
MAX_SIZE = 1 << 62
EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]  # (height, index) -> root of the full subtree of 2^height leaves at that index


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry): 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right): 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that can only grow.

    Args:
        size: number of leaves.
        hashes: roots of the maximal full subtrees, largest first; as many as `size` has one-bits.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._hashes = list(hashes)
        if not 0 <= size <= MAX_SIZE or len(self._hashes) != size.bit_count():
            raise ChaotianError("LOG_INVALID", "the frontier of the log does not fit its size")

    @classmethod
    def decode(cls, size: int, data: bytes) -> Frontier:
        """Return the frontier whose `encode` gave `data`."""
        if len(data) % HASH_BYTES:
            raise ChaotianError("LOG_INVALID", "the frontier of the log is cut short")
        return cls(size, [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)])

    def encode(self) -> bytes:
        """Return the hashes, largest subtree first, 32 bytes each."""
        return b"".join(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add the leaf whose hash is `leaf` (32 bytes)."""
        at = self.size
        while at & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            at >>= 1
        self._hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the Merkle tree hash: 32 bytes."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Return the Merkle tree hash over leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def subtree_of(leaves: Sequence[bytes]) -> Subtree:
    """Return the reader of full subtrees over leaf hashes held in memory (each is computed once)."""
    known: dict[tuple[int, int], bytes] = {}

    def read(height: int, index: int) -> bytes:
        if height == 0:
            return leaves[index]
        if (height, index) not in known:
            known[height, index] = node_hash(read(height - 1, 2 * index), read(height - 1, 2 * index + 1))
        return known[height, index]

    return read


def range_root(read: Subtree, begin: int, end: int) -> bytes:
    """Return MTH(D[begin:end]); `begin` is a multiple of the smallest power of two that is at least end - begin."""
    size = end - begin
    if size == 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return read(height, begin >> height)
    split = 1 << (size - 1).bit_length() - 1
    return node_hash(range_root(read, begin, begin + split), range_root(read, begin + split, end))


def inclusion_proof(read: Subtree, index: int, size: int) -> list[bytes]:
    """Return PATH(index, D[size]) of RFC 9162 section 2.1.3.1, leaf end first."""
    if not 0 <= index < size <= MAX_SIZE:
        raise ChaotianError("NOT_FOUND", f"the log has {size} leaves; there is no leaf {index}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        split = begin + (1 << (end - begin - 1).bit_length() - 1)
        if index < split:
            path.append(range_root(read, split, end))
            end = split
        else:
            path.append(range_root(read, begin, split))
            begin = split
    return path[::-1]


def consistency_proof(read: Subtree, old: int, new: int) -> list[bytes]:
    """Return PROOF(old, D[new]) of RFC 9162 section 2.1.4.1; empty where old is 0 or equals new."""
    if not 0 <= old <= new <= MAX_SIZE:
        raise ChaotianError("NOT_FOUND", f"there is no proof from {old} leaves to {new}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    begin, end, known = 0, new, True
    while old != end:
        split = begin + (1 << (end - begin - 1).bit_length() - 1)
        if old <= split:
            path.append(range_root(read, split, end))
            end = split
        else:
            path.append(range_root(read, begin, split))
            begin, known = split, False
    if not known:
        path.append(range_root(read, begin, end))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash `leaf` stands at `index` in the tree (size, root); RFC 9162 section 2.1.3.2.

    Raises:
        ChaotianError: LOG_INVALID.
    """
    _check_hashes([leaf, root, *proof])
    if not 0 <= index < size <= MAX_SIZE:
        raise ChaotianError("LOG_INVALID", "an inclusion proof names a leaf outside the tree")
    at, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ChaotianError("LOG_INVALID", "an inclusion proof is too long")
        if at & 1 or at == last:
            result = node_hash(sibling, result)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        at, last = at >> 1, last >> 1
    if last or result != root:
        raise ChaotianError("LOG_INVALID", "an inclusion proof does not lead to the checkpoint's root")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (new, new_root) extends the tree (old, old_root); RFC 9162 section 2.1.4.2.

    Raises:
        ChaotianError: LOG_INVALID.
    """
    _check_hashes([old_root, new_root, *proof])
    bad = ChaotianError("LOG_INVALID", f"the log of {new} leaves does not extend the one of {old} leaves")
    if not 0 <= old <= new <= MAX_SIZE:
        raise bad
    if old == new or old == 0:
        if proof or (old_root != new_root if old == new else old_root != EMPTY_ROOT):
            raise bad
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise bad
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    from_old = from_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise bad
        if at & 1 or at == last:
            from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            from_new = node_hash(from_new, sibling)
        at, last = at >> 1, last >> 1
    if last or from_old != old_root or from_new != new_root:
        raise bad


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > 130 or any(len(value) != HASH_BYTES for value in hashes):
        raise ChaotianError("LOG_INVALID", "a proof consists of at most 128 hashes of 32 bytes")
