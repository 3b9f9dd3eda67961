"""Finished models of a home: one file each, named by its version hash, never changed."""

from __future__ import annotations

import json
from pathlib import Path

from federation.errors import ChaotianError
from federation.learning.model import Model
from gateway.storage.files import make_private_directory, read_limited, write_atomic

FOLDER = "models"
LIMIT = 16 << 20
ARRAYS_LIMIT = 256 << 20
_HEX = frozenset("0123456789abcdef")


class ModelStore:
    """Models under HOME/models.

    Args:
        home: the home folder.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def save(self, model: Model) -> str:
        """Keep `model`, durably, and return its id (the version hash); saving it again changes nothing."""
        make_private_directory(self._folder)
        try:
            write_atomic(self._path(model.version), encode(model), replace=False)
        except ChaotianError as error:
            if error.code != "EXISTS":
                raise
        return model.version

    def save_arrays(self, identifier: str, data: bytes) -> str:
        """Keep the trained arrays of a `fedavg` job (an .npz file), durably; return their place below the home.

        Args:
            identifier: hash of the arrays, 64 hex digits.
        """
        make_private_directory(self._folder)
        path = self._folder / f"{identifier}.npz"
        write_atomic(path, data, replace=True)
        return f"{FOLDER}/{path.name}"

    def arrays(self, identifier: str) -> bytes:
        """Return the .npz file of the arrays with that hash; NOT_FOUND where it is gone."""
        return read_limited(self._folder / f"{identifier}.npz", ARRAYS_LIMIT, code="NOT_FOUND")

    def get(self, text: str) -> Model:
        """Return the model whose id begins with `text`, or the one of the job whose id does.

        Raises:
            ChaotianError: NOT_FOUND, USAGE where several fit, MODEL_HASH where the file was changed.
        """
        if len(text) < 4 or not set(text) <= _HEX:
            raise ChaotianError("NOT_FOUND", "a model is named by at least four hex digits of its id or its job's")
        found = {path.stem: self._read(path) for path in self._files() if path.stem.startswith(text)}
        if len(text) < 64 or not found:  # else no other file need be read: one that is damaged is not in the way
            found |= {model.version: model for model in self.all() if _job(model, text) == text}
        if not found:
            raise ChaotianError("NOT_FOUND", f"there is no model {text[:64]}", hint="See `chaotian model list`.")
        if len(found) > 1:
            raise ChaotianError("USAGE", f"{len(found)} models begin with {text[:64]}", hint="Give more digits.")
        return next(iter(found.values()))

    def all(self) -> list[Model]:
        """Return all models, by id."""
        return [self._read(path) for path in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []

    @staticmethod
    def _read(path: Path) -> Model:
        model = read_model(path)
        if model.version != path.stem:
            raise ChaotianError("MODEL_HASH", f"the file {path.name[:80]} holds another model than its name says")
        return model

    def _path(self, version: str) -> Path:
        return self._folder / f"{version}.json"


def encode(model: Model) -> bytes:
    """Return a model as indented JSON, for people and programs."""
    return (json.dumps(dict(model.document), indent=2, ensure_ascii=False) + "\n").encode()


def read_model(path: Path) -> Model:
    """Return the model in a file, its hash checked.

    Raises:
        ChaotianError: NOT_FOUND where it cannot be read, BAD_DOCUMENT, MODEL_HASH.
    """
    data = read_limited(path, LIMIT, code="NOT_FOUND")
    try:
        return Model.load(json.loads(data))
    except (ValueError, RecursionError):
        raise ChaotianError("BAD_DOCUMENT", f"{path.name} is not JSON") from None


def _job(model: Model, text: str) -> str:
    return str(model.document.get("job", ""))[: len(text)]
