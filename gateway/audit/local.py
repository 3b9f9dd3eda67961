"""The audit methods of a node's local API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from federation.errors import ChaotianError
from gateway.audit.events import EventType
from gateway.audit.log import AuditLog


class Registrar(Protocol):
    """What of `LocalServer` is needed here."""

    def register(
        self, method: str, handler: Callable[[dict[str, Any]], Awaitable[dict[str, Any]] | dict[str, Any]]
    ) -> None: ...


def register_audit(local: Registrar, log: AuditLog, folder: Path) -> None:
    """Register `audit.show`, `audit.publish` and `audit.disclose`.

    Args:
        local: the node's local API.
        log: the node's log.
        folder: where it is published, HOME/log.
    """

    def show(params: dict[str, Any]) -> dict[str, Any]:
        after, limit, type_, grant = (
            params.get("after", -1),
            params.get("limit", 50),
            params.get("type", ""),
            params.get("grant", ""),
        )
        if type(after) is not int or type(limit) is not int or not isinstance(grant, str):
            raise ChaotianError("BAD_DOCUMENT", "after and limit are whole numbers, grant is text")
        known = [kind.value for kind in EventType]
        if type_ and type_ not in known:
            raise ChaotianError("BAD_DOCUMENT", f"there are no events of type {type_!r}; known are {', '.join(known)}")
        return {"origin": log.key.name, "events": log.events(after=after, limit=limit, type_=type_, grant=grant)}

    def publish(_: dict[str, Any]) -> dict[str, Any]:
        checkpoint = log.materialise()
        return {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "folder": str(folder),
            "fingerprint": log.key.verifier.fingerprint.hex(),
        }

    def disclose(params: dict[str, Any]) -> dict[str, Any]:
        indices = params.get("indices")
        if not isinstance(indices, list) or not all(type(index) is int for index in indices):
            raise ChaotianError("BAD_DOCUMENT", "indices is a list of whole numbers")
        return log.disclose(indices, parties=params.get("parties") is True)

    local.register("audit.show", show)
    local.register("audit.publish", publish)
    local.register("audit.disclose", disclose)
