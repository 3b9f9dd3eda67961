"""Copying a log's folder so that the copy verifies, even while the log grows."""

from __future__ import annotations

from pathlib import Path

from federation.errors import ChaotianError
from gateway.audit.note import MAX_NOTE, Checkpoint
from gateway.audit.tiles import (
    WIDTH,
    Levels,
    TileReader,
    TileWriter,
    encode_bundle,
    read_limited,
    tile_path,
)


def export_log(source: Path, target: Path) -> Checkpoint:
    """Copy checkpoint, key and exactly the files that checkpoint needs from `source` to the new folder `target`.

    The checkpoint is read first: all it needs was written before it. The copy is not verified here.

    Raises:
        ChaotianError: NOT_FOUND without a log; EXISTS where `target` is not empty; STORAGE.
    """
    if not (source / "checkpoint").is_file():
        raise ChaotianError("NOT_FOUND", "this node has not published a log yet")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ChaotianError("EXISTS", f"{target} exists and is not an empty folder")
    note = read_limited(source / "checkpoint", MAX_NOTE)
    lines = note.decode(errors="replace").split("\n\n")[0].split("\n")
    checkpoint = Checkpoint.parse("\n".join(lines) + "\n")
    reader, writer = TileReader(source, checkpoint.size), TileWriter(target)
    for level in range(len(Levels.widths(checkpoint.size))):
        for index in range(-(-(checkpoint.size // WIDTH**level) // WIDTH)):
            width = reader.width(level, index)
            writer.write(tile_path(level, index, width), b"".join(reader.tile(level, index)))
            if level == 0:
                writer.write(tile_path("entries", index, width), encode_bundle(reader.entries(index)))
    writer.write("key", read_limited(source / "key", 4096))
    writer.write("checkpoint", note)
    writer.sync()
    writer.close()
    return checkpoint
