"""Randomness as an argument."""

from __future__ import annotations

import os
from typing import Protocol


class Entropy(Protocol):
    """A source of uniformly random bytes."""

    def bytes(self, count: int) -> bytes:
        """Return `count` uniformly random bytes."""
        ...


class SystemEntropy:
    """The operating system's generator: the only source product code uses.

    The seeded source for tests lives in `tests/`, where product code cannot import it.
    """

    def bytes(self, count: int) -> bytes:
        """Return `count` bytes of the operating system's generator."""
        return os.urandom(count)
