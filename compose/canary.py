"""Looks for an owner's values wherever they must not be: in files of others, in messages, in a process's memory.

A value is looked for as text, as float64 in both byte orders, as fixed point at the scales in use, and each of these
in base64; gzip streams are opened. `found: 0` means something only beside a control: the same scanner must hit the
owner's own database and a build with masks off.
"""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CHUNK = 8 << 20
SCALES = (0, 16, 32)


@dataclass
class Scan:
    """What was searched and what was found.

    Args:
        searched: bytes looked at.
        hits: (where, pattern name), at most one a place and pattern.
    """

    searched: int = 0
    hits: set[tuple[str, str]] = field(default_factory=set)

    @property
    def found(self) -> int:
        """Number of hits."""
        return len(self.hits)


def patterns(
    texts: Iterable[str] = (), numbers: Iterable[float] = (), vectors: Iterable[bytes] = ()
) -> dict[str, bytes]:
    """Return what to look for, by name.

    Args:
        texts: identifiers, at least 6 characters each.
        numbers: raw values, best with many digits.
        vectors: contiguous bytes of unmasked vectors, at least 8 each.

    An encoding with fewer than 5 bytes other than 0x00 and 0xff is left out: it is found by accident in a gigabyte.
    """
    out: dict[str, bytes] = {}
    for i, text in enumerate(texts):
        out[f"text {i}"] = text.encode()
    for i, number in enumerate(numbers):
        out[f"number {i} as float64"] = struct.pack("<d", number)
        out[f"number {i} as float64, big endian"] = struct.pack(">d", number)
        for scale in SCALES:
            fixed = round(number * 2**scale)
            if abs(fixed) < 1 << 63:
                out[f"number {i} as fixed point 2^{scale}"] = struct.pack("<q", fixed)
    for i, vector in enumerate(vectors):
        out[f"vector {i}"] = bytes(vector)
    out = {name: raw for name, raw in out.items() if len(raw) - raw.count(0) - raw.count(0xFF) >= 5}
    for name, raw in list(out.items()):
        # Base64 has three alignments; the middle of each is the same whatever stands around it.
        for shift in range(3):
            encoded = base64.b64encode(bytes(shift) + raw)
            core = encoded[(0, 2, 3)[shift] : len(encoded) - (4 if encoded.endswith(b"=") else 0)]
            if len(core) >= 8:
                out[f"{name} in base64, alignment {shift}"] = core
    return out


class Canary:
    """The scanner. All patterns are looked for in one pass, some hundred megabytes a second.

    Args:
        wanted: bytes by name, at least 8 each, as `patterns` gives them.
    """

    def __init__(self, wanted: dict[str, bytes]) -> None:
        self.wanted = wanted
        self._overlap = max(map(len, wanted.values())) - 1
        # Every pattern has four bytes by which it is noticed: those of most variety, as runs of zeros are everywhere.
        self._keys: dict[int, list[tuple[int, str]]] = {}
        for name, raw in wanted.items():
            at = max(range(len(raw) - 3), key=lambda i: (len(set(raw[i : i + 4])), raw[i : i + 4].count(0) == 0))
            self._keys.setdefault(int.from_bytes(raw[at : at + 4], "little"), []).append((at, name))
        self._sorted = np.array(sorted(self._keys), dtype=np.uint32)
        self._first = np.zeros(1 << 16, dtype=bool)
        self._first[self._sorted & 0xFFFF] = True
        self._second = np.zeros(1 << 16, dtype=bool)
        self._second[self._sorted >> 16] = True

    def data(self, where: str, data: bytes, scan: Scan, *, depth: int = 0) -> None:
        """Search one piece of memory, and the gzip streams in it."""
        scan.searched += len(data)
        for name in self._found(data):
            scan.hits.add((where, name))
        if depth:
            return
        at = data.find(b"\x1f\x8b\x08")
        while at >= 0:
            with contextlib.suppress(zlib.error):
                self.data(f"{where} (gzip)", zlib.decompressobj(31).decompress(data[at:], 64 << 20), scan, depth=1)
            at = data.find(b"\x1f\x8b\x08", at + 3)

    def _found(self, data: bytes) -> set[str]:
        """Return the names of the patterns in `data`."""
        found: set[str] = set()
        if data.count(0) == len(data):  # memory that was never used
            return found
        for offset in range(2):
            count = (len(data) - offset) // 2
            if count < 1:
                continue
            pairs = np.frombuffer(data, dtype="<u2", count=count, offset=offset)
            places = np.flatnonzero(self._first[pairs[:-1]] & self._second[pairs[1:]])
            words = pairs[places].astype(np.uint32) | pairs[places + 1].astype(np.uint32) << np.uint32(16)
            nearest = np.minimum(np.searchsorted(self._sorted, words), len(self._sorted) - 1)
            for index in np.flatnonzero(self._sorted[nearest] == words):
                place = int(places[index]) * 2 + offset
                for at, name in self._keys[int(words[index])]:
                    begin = place - at
                    if begin >= 0 and data.startswith(self.wanted[name], begin):
                        found.add(name)
        return found

    def chunks(self, where: str, chunks: Iterable[bytes], scan: Scan) -> None:
        """Search a stream of chunks, across their borders."""
        tail = b""
        for chunk in chunks:
            self.data(where, tail + chunk, scan)
            scan.searched -= len(tail)
            tail = (tail + chunk)[-self._overlap :]

    def folder(self, root: Path, scan: Scan) -> None:
        """Search every regular file below `root`, which may be a file itself."""
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    self.chunks(str(path), iter(lambda file=file: file.read(CHUNK), b""), scan)

    def process(self, pid: int, scan: Scan) -> None:
        """Search the readable memory of a running process (Linux, same user or root)."""
        self.chunks(f"memory of process {pid}", _memory(pid), scan)


def _memory(pid: int) -> Iterator[bytes]:
    """Yield the private and anonymous memory of a process, region after region."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, permissions, *_ = line.split()
            # What is mapped read-only from a library's file cannot hold a member's data.
            if "r" not in permissions or "w" not in permissions or "[v" in line:
                continue
            low, high = (int(part, 16) for part in span.split("-"))
            while low < high:
                try:
                    memory.seek(low)
                    chunk = memory.read(min(CHUNK, high - low))
                except (OSError, ValueError, OverflowError):
                    break
                if not chunk:
                    break
                yield chunk
                low += len(chunk)
