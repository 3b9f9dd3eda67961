"""Where a member stands in a job, kept on disk until the job ends here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_DIGEST = hashlib.sha256().digest_size


class PositionFile:
    """The newest position of one job, in two files written in turn: a write that is cut off leaves the other one.

    Nothing waits for the disk: a file that is renamed over another one is flushed first by ext4 and others, and
    that took longer than the rest of the stage. What the first marker of a round keeps is durable; this is for a
    process that is killed between two rounds.

    Args:
        folder: where the files lie; made when needed.
        job: id of the job.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self._folder = folder
        self.paths = (folder / f"{job}.position", folder / f"{job}.position-odd")

    def save(self, round_: int, position: bytes) -> None:
        """Write a position; raises OSError."""
        data = hashlib.sha256(position).digest() + position
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.paths[round_ % 2], os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(handle, data[done:], done)
            os.ftruncate(handle, len(data))
        finally:
            os.close(handle)

    def load(self) -> list[bytes]:
        """Return the positions on file that were written whole, in no order."""
        found = []
        for path in self.paths:
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                found.append(data[_DIGEST:])
        return found

    def forget(self) -> None:
        """Delete the files."""
        for path in self.paths:
            path.unlink(missing_ok=True)
