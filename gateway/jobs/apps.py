"""Flower apps that are installed at this node, by name and by the hash of their source. None ever comes from the wire.

An app is a `flwr.clientapp.ClientApp` that a package offers under the entry point group `chaotian.apps`. A job names it
with the SHA-256 of its source, so that a member accepts the code that it read and no other.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from federation.errors import ChaotianError
from federation.primitives.encoding import digest
from federation.rounds.flower import ClientApp

GROUP = "chaotian.apps"
OWN = {"mlp": "federation.rounds.mlp_app:app"}  # comes with the node
MAX_SOURCE = 16 << 20  # bytes of one app
_loaded: dict[str, str] = {}  # place -> digest of the source that this process runs: Python imports a module once


@dataclass(frozen=True)
class InstalledApp:
    """One installed app.

    Args:
        name: under which jobs name it.
        place: `module:attribute`.
        digest: 64 hex digits; empty where its source cannot be read.
    """

    name: str
    place: str
    digest: str


def installed() -> list[InstalledApp]:
    """Return all installed apps, by name. An entry point cannot take the name of one that comes with the node."""
    places = {point.name: point.value for point in entry_points(group=GROUP)} | OWN
    return [InstalledApp(name, place, _digest_or_none(place)) for name, place in sorted(places.items())]


def find(name: str) -> InstalledApp:
    """Return the app of a name; APP_UNKNOWN where there is none, or its source cannot be read."""
    for app in installed():
        if app.name == name and app.digest:
            return app
    raise ChaotianError("APP_UNKNOWN", f"no app {name} is installed here")


def load(name: str, hashed: str) -> ClientApp:
    """Return the installed app of that name and hash.

    Raises:
        ChaotianError: APP_UNKNOWN where it is not installed or is another, or was replaced since this process imported
            it; APP_FAILED where it cannot be imported.
    """
    app = find(name)
    if app.digest != hashed:
        raise ChaotianError(
            "APP_UNKNOWN", f"the app {name} installed here is {app.digest[:16]}, the job names {hashed[:16]}"
        )
    if _loaded.setdefault(app.place, hashed) != hashed:
        hint = "Start the node again."
        raise ChaotianError("APP_UNKNOWN", f"the app {name} was replaced, and this process runs the old one", hint=hint)
    module, _, attribute = app.place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # foreign code
        raise ChaotianError("APP_FAILED", f"the app {name} cannot be imported: {type(error).__name__}") from None
    if not isinstance(found, ClientApp):
        raise ChaotianError("APP_FAILED", f"the app {name} is no Flower ClientApp")
    return found


def _digest_or_none(place: str) -> str:
    try:
        return source_digest(place)
    except (ChaotianError, OSError, ImportError, ValueError, AttributeError):
        return ""


def source_digest(place: str) -> str:
    """Return SHA-256 over the source of an app's module, or of all `.py` files of its package: 64 hex digits.

    Libraries that it imports from elsewhere are not in it.

    Raises:
        ChaotianError: APP_UNKNOWN, OVERSIZED.
    """
    module = place.partition(":")[0]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ChaotianError("APP_UNKNOWN", f"the source of {module} cannot be read")
    fields, size = [place.encode()], 0
    for name, path in _files(Path(spec.origin)):
        data = path.read_bytes()
        size += len(data)
        if size > MAX_SOURCE:
            raise ChaotianError("OVERSIZED", f"the source of {module} has more than {MAX_SOURCE} bytes")
        fields += (name.encode(), data)
    return digest("chaotian/app/v1", fields).hex()


def _files(origin: Path) -> Iterator[tuple[str, Path]]:
    if origin.name != "__init__.py":
        yield origin.name, origin
        return
    for path in sorted(origin.parent.rglob("*.py")):
        yield path.relative_to(origin.parent).as_posix(), path
