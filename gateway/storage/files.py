"""Files that hold secrets or state: private from the first byte, and replaced whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from federation.errors import ChaotianError


@contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ChaotianError("STORAGE", f"{path}: {os.strerror(error.errno or 0)}") from error


def make_private_directory(path: Path) -> Path:
    """Make the folder `path` with mode 0700 if it is not there; what exists keeps its mode.

    Raises:
        ChaotianError: STORAGE where it cannot be made.
    """
    with _as_storage_error(path):
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
    return path


def create_private_file(path: Path) -> None:
    """Make the empty file `path` with mode 0600 if it is not there, durably; an existing one keeps its mode."""
    with _as_storage_error(path), suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names created, replaced or removed in the folder `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, replace: bool = True) -> None:
    """Write `data` to `path` so that a reader, even after a crash, finds the old file or the new one, whole.

    Args:
        path: the file; its folder must exist.
        data: all its bytes.
        mode: its permissions.
        replace: whether an existing file may be replaced.

    Raises:
        ChaotianError: EXISTS where it may not be replaced; STORAGE where writing fails.
    """
    with _as_storage_error(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise ChaotianError("EXISTS", f"{path} exists already") from None
                temporary.unlink()
            sync_directory(path.parent)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def read_limited(path: Path, limit: int, *, code: str = "CONFIG", private: bool = False) -> bytes:
    """Return the bytes of the regular file `path`, at most `limit` of them.

    Args:
        path: the file.
        limit: most bytes it may have.
        code: the error code for a file that will not do.
        private: whether it must be closed to all users but its owner.

    Raises:
        ChaotianError: `code` where it is missing, not a regular file, unreadable, longer, or open to others.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # never wait for a pipe's writer
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ChaotianError(code, f"{path} is not a regular file")
            if private and mode & 0o077:
                raise ChaotianError(code, f"{path} can be read by other users", hint=f"Run `chmod 600 {path}`.")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not a file name"
        raise ChaotianError(code, f"{path} cannot be read: {why}") from None
    if len(data) > limit:
        raise ChaotianError(code, f"{path} has more than {limit} bytes")
    return data


def read_secret_file(path: Path, limit: int) -> bytes:
    """Return the bytes of a file that only its owner may read; errors as for `read_limited`, with CONFIG."""
    return read_limited(path, limit, private=True)
