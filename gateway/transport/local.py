"""The local API of a node or platform: gRPC on a Unix socket. (Signatures first; the body follows.)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any


class LocalServer:
    """The node's side: methods by name; handlers raise ChaotianError."""

    def register(
        self, method: str, handler: Callable[[dict[str, Any]], Awaitable[dict[str, Any]] | dict[str, Any]]
    ) -> None:
        """Answer `method`; a plain function runs in a thread."""

    def register_watch(
        self, method: str, handler: Callable[[dict[str, Any]], AsyncIterator[dict[str, Any]]]
    ) -> None: ...


class LocalClient:
    """The program's side, synchronous."""

    def __init__(self, home: Path) -> None: ...
    def call(self, method: str, params: dict[str, Any] | None = None, *, deadline: float = 30.0) -> dict[str, Any]:
        raise NotImplementedError

    def watch(
        self, method: str, params: dict[str, Any] | None = None, *, deadline: float = 24 * 3600.0
    ) -> Iterator[dict[str, Any]]:
        raise NotImplementedError
