"""A seeded source of bytes for tests; product code cannot import it."""

import hashlib


class SeededEntropy:
    """SHAKE-256 of a seed and a counter."""

    def __init__(self, seed: int | str) -> None:
        self._seed, self._count = str(seed).encode(), 0

    def bytes(self, count: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + b"/" + str(self._count).encode()).digest(count)
