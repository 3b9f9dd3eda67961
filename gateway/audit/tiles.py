"""The log as files: tiles of 256 hashes and bundles of 256 entries (c2sp.org/tlog-tiles).

`tile/<L>/<N>` holds the hashes of level L, `tile/entries/<N>` the entries, both with `.p/<W>` while they have
only W of 256. A level-L hash is the root of a full tile of level L-1.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from federation.errors import ChaotianError
from gateway.audit.merkle import EMPTY_ROOT, HASH_BYTES, Frontier, node_hash

WIDTH = 256
MAX_ENTRY = 65535
MAX_BUNDLE = WIDTH * (MAX_ENTRY + 2)
MAX_LEVEL = 7  # 2^62 leaves
_PATH = re.compile(r"tile/(entries|[0-9])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Return the path of a tile (`level` a number) or bundle (`level` "entries"), relative to the log's folder."""
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03d}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if width < WIDTH else "")


def parse_tile_path(path: str) -> tuple[str, int, int] | None:
    """Return (level or "entries", index, width) of a path that `tile_path` gives, else None."""
    match = _PATH.fullmatch(path)
    if not match:
        return None
    level, digits, width = match.groups()
    index = int(digits.replace("/", "").replace("x", ""))
    found = (level, index, int(width or WIDTH))
    return found if tile_path(*found) == path else None


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return entries, each after its length in two bytes, big endian."""
    out: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise ChaotianError("OVERSIZED", f"a leaf has {len(entry)} bytes, at most {MAX_ENTRY} are allowed")
        out += (struct.pack(">H", len(entry)), entry)
    return b"".join(out)


def decode_bundle(data: bytes) -> list[bytes]:
    """Return the entries of `encode_bundle`; a cut or trailing piece is LOG_INVALID."""
    out: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + (int.from_bytes(data[at : at + 2], "big"))
        if at + 2 > len(data) or end > len(data) or len(out) == WIDTH:
            raise ChaotianError("LOG_INVALID", "a bundle of entries is cut short or too long")
        out.append(data[at + 2 : end])
        at = end
    return out


class Levels:
    """The hashes of the rightmost tile of each level: all that a growing log has to keep.

    Args:
        lists: hashes of the partial tiles, lowest level first, each of at most 255.
    """

    def __init__(self, lists: Iterable[list[bytes]] = ()) -> None:
        self.lists = [list(hashes) for hashes in lists]

    @staticmethod
    def widths(size: int) -> list[int]:
        """Return the widths of the partial tiles of a tree of `size` leaves, lowest level first."""
        out = []
        while size:
            out.append(size % WIDTH)
            size //= WIDTH
        return out

    @property
    def size(self) -> int:
        """Number of leaves."""
        return sum(len(hashes) * WIDTH**level for level, hashes in enumerate(self.lists))

    def append(self, leaf: bytes) -> Iterator[tuple[int, int, list[bytes]]]:
        """Add a leaf hash; yield (level, index, hashes) of every tile that is now full, lowest first."""
        size, level = self.size + 1, 0
        while True:
            if level == len(self.lists):
                self.lists.append([])
            self.lists[level].append(leaf)
            if len(self.lists[level]) < WIDTH:
                return
            full, self.lists[level] = self.lists[level], []
            yield level, size // WIDTH ** (level + 1) - 1, full
            leaf, level = full_root(full), level + 1

    def frontier(self) -> Frontier:
        """Return the frontier of the tree."""
        hashes: list[bytes] = []
        for level in reversed(self.lists):
            part = Frontier()
            for value in level:
                part.append(value)
            data = part.encode()
            hashes += [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
        return Frontier(self.size, hashes)

    def root(self) -> bytes:
        """Return the Merkle tree hash."""
        return self.frontier().root() if self.size else EMPTY_ROOT


def full_root(hashes: list[bytes]) -> bytes:
    """Return the root of a full subtree over its hashes (their number a power of two)."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def read_limited(path: Path, limit: int) -> bytes:
    """Return the content of the regular file `path`; LOG_INVALID where it is missing, special or over `limit` bytes."""
    name = path.name if path.name in ("checkpoint", "key") else "/".join(path.parts[-4:])
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ChaotianError("LOG_INVALID", f"{name} of the log is not a file of at most {limit} bytes")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        raise ChaotianError("LOG_INVALID", f"{name} of the log is missing or cannot be read") from None
    if len(data) > limit:
        raise ChaotianError("LOG_INVALID", f"{name} of the log is not a file of at most {limit} bytes")
    return data


class TileReader:
    """Reads the tree of `size` leaves from a log's folder; nothing it returns is verified.

    Args:
        folder: the folder that holds `checkpoint` and `tile/`.
        size: number of leaves of the tree to read.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self.size = folder, size
        self._cache: dict[tuple[int, int], list[bytes]] = {}

    def width(self, level: int, index: int) -> int:
        """Return how many hashes tile `index` of `level` has in this tree (0 to 256)."""
        there: int = self.size // WIDTH**level - index * WIDTH
        return max(0, min(WIDTH, there))

    def _read(self, level: int | str, index: int, width: int, limit: int) -> tuple[bytes, bool]:
        """Return a file and whether it is the full one that replaced the partial one."""
        path = self._folder / tile_path(level, index, width)
        if width < WIDTH and not path.exists():
            full = self._folder / tile_path(level, index)
            if full.exists():
                return read_limited(full, limit), True
        return read_limited(path, limit), False

    def tile(self, level: int, index: int) -> list[bytes]:
        """Return the hashes of a tile as far as this tree has them."""
        if (level, index) not in self._cache:
            width = self.width(level, index)
            data, full = self._read(level, index, width, WIDTH * HASH_BYTES)
            if len(data) != (WIDTH if full else width) * HASH_BYTES:
                raise ChaotianError(
                    "LOG_INVALID", f"{tile_path(level, index, width)} does not hold {width} hashes of 32 bytes"
                )
            if len(self._cache) > 4096:
                self._cache.clear()
            self._cache[level, index] = [data[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(width)]
        return self._cache[level, index]

    def entries(self, index: int) -> list[bytes]:
        """Return the entries of a bundle as far as this tree has them."""
        width = self.width(0, index)
        data, _ = self._read("entries", index, width, MAX_BUNDLE)
        entries = decode_bundle(data)
        if len(entries) < width:
            raise ChaotianError("LOG_INVALID", f"{tile_path('entries', index, width)} does not hold {width} entries")
        return entries[:width]

    def subtree(self, height: int, index: int) -> bytes:
        """Return the root of the full subtree of 2^height leaves at `index` (a `merkle.Subtree`)."""
        level, up = divmod(height, 8)
        first = index << up
        tile = self.tile(level, first // WIDTH)
        at = first % WIDTH
        return full_root(tile[at : at + (1 << up)])

    def levels(self) -> Levels:
        """Return the rightmost tiles of the tree."""
        lists = []
        for level, width in enumerate(Levels.widths(self.size)):
            lists.append(self.tile(level, self.size // WIDTH ** (level + 1)) if width else [])
        return Levels(lists)


class TileWriter:
    """Writes files of a log so that a crash leaves either the old file or the new one.

    Args:
        folder: the log's folder; made where missing. What a crash left in `.tmp` is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._tmp = folder, folder / ".tmp"
        self._dirty: set[Path] = set()
        try:
            shutil.rmtree(self._tmp, ignore_errors=True)
            self._tmp.mkdir(parents=True)
        except OSError as error:
            raise _storage(error) from None

    def write(self, relative: str, data: bytes) -> None:
        """Write one file durably, except for its directory entry: `sync` does that."""
        target, temporary = self._folder / relative, self._tmp / "file"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise _storage(error) from None
        parent = target.parent
        while parent != self._folder.parent:
            self._dirty.add(parent)
            parent = parent.parent

    def sync(self) -> None:
        """Make all directory entries written so far durable."""
        try:
            for directory in sorted(self._dirty, key=lambda path: -len(path.parts)):
                descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise _storage(error) from None
        self._dirty.clear()

    def drop_partials(self, full: Iterable[str]) -> None:
        """Remove the partial forms of tiles and bundles that are now full."""
        for relative in full:
            shutil.rmtree(self._folder / f"{relative}.p", ignore_errors=True)

    def close(self) -> None:
        """Remove the folder for temporary files."""
        shutil.rmtree(self._tmp, ignore_errors=True)


def _storage(error: OSError) -> ChaotianError:
    return ChaotianError("STORAGE", f"the log's files could not be written: {error.strerror or type(error).__name__}")
