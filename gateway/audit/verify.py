"""Checking a copy of somebody's log, offline: needs the folder and the owner's key, no node.

Checked are the checkpoint's signature, every entry's form and hash, every tile of every level, the root; where
given, that the log extends an earlier checkpoint, and that disclosed payloads are those committed to.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.signing import Verifier
from gateway.audit.events import Leaf, commit, pseudonym_of
from gateway.audit.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, verify_consistency
from gateway.audit.note import MAX_NOTE, Checkpoint, NoteKey, peek_origin
from gateway.audit.tiles import WIDTH, Levels, TileReader, parse_tile_path, read_limited, tile_path

MAX_DISCLOSURE = 256 << 20
MAX_LISTED = 20


@dataclass
class Report:
    """What a verified copy holds; times in seconds since the epoch, UTC."""

    origin: str
    size: int
    root: str
    fingerprint: str  # of the key that signed
    pinned: bool  # whether the caller named that key, rather than taking the copy's own word
    first: float | None = None
    last: float | None = None
    clock_steps_back: int = 0  # leaves whose time lies before the one of their predecessor
    types: dict[str, int] = field(default_factory=dict)
    files: int = 0
    extra: list[str] = field(default_factory=list)  # files that belong to no tree of this log, at most 20
    extends: int | None = None  # size of the earlier checkpoint it was shown to extend
    disclosed: int = 0
    parties: dict[str, str] = field(default_factory=dict)  # pseudonym to name, as disclosed and checked

    def document(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def verify_copy(
    path: Path,
    key: NoteKey | Verifier | bytes | None = None,
    *,
    known: bytes | None = None,
    disclosure: Mapping[str, Any] | None = None,
) -> Report:
    """Check the log in the folder `path` and return what it holds.

    Args:
        path: folder with `checkpoint`, `key` and `tile/`.
        key: who must have signed: a note key, an identity key, or the 32-byte fingerprint of one. None takes the
            key that lies in the folder: then the caller must compare the report's fingerprint.
        known: an earlier checkpoint (signed note) of the same log that this one must extend.
        disclosure: a document of `AuditLog.disclose` to check.

    Raises:
        ChaotianError: LOG_INVALID or SIGNATURE where anything does not fit; NOT_FOUND where there is no log.
    """
    if not (path / "checkpoint").is_file():
        raise ChaotianError("NOT_FOUND", "there is no log in that folder: it has no file `checkpoint`")
    note = read_limited(path / "checkpoint", MAX_NOTE)
    trusted = _key(path, key, peek_origin(note))
    checkpoint = Checkpoint.open(note, trusted)
    report = Report(
        checkpoint.origin, checkpoint.size, checkpoint.root.hex(), trusted.verifier.fingerprint.hex(), key is not None
    )
    reader = TileReader(path, checkpoint.size)
    _walk(reader, checkpoint, report)
    _extras(path, reader, report)
    if known is not None:
        report.extends = check_extends(reader, checkpoint, known, trusted)
    if disclosure is not None:
        _disclosed(reader, checkpoint, disclosure, report)
    return report


def _key(path: Path, key: NoteKey | Verifier | bytes | None, origin: str) -> NoteKey:
    if isinstance(key, NoteKey):
        return key
    if isinstance(key, Verifier):
        return NoteKey(origin, key)
    try:
        found = NoteKey.decode(read_limited(path / "key", 4096).decode())
    except UnicodeDecodeError:
        raise ChaotianError("LOG_INVALID", "the key file of the log is not text") from None
    if found.name != origin:
        raise ChaotianError("LOG_INVALID", f"the copy holds the key of {found.name}, but a checkpoint of {origin}")
    if key is not None and found.verifier.fingerprint != key:
        raise ChaotianError("SIGNATURE", f"the copy's key is not the expected one of {origin}: fingerprints differ")
    return found


def _walk(reader: TileReader, checkpoint: Checkpoint, report: Report) -> None:
    """Hash every entry and compare every tile on the way up."""
    levels, types, before = Levels(), Counter[str](), -1
    for index in range(-(-checkpoint.size // WIDTH)):
        hashes = reader.tile(0, index)
        report.files += 1
        for at, entry in enumerate(reader.entries(index)):
            hashed = leaf_hash(entry)
            if hashed != hashes[at]:
                raise ChaotianError("LOG_INVALID", f"leaf {index * WIDTH + at} is not the one in the tree")
            leaf = Leaf.decode(entry)
            types[leaf.type] += 1
            report.clock_steps_back += leaf.time < before
            before = leaf.time
            if report.first is None:
                report.first = leaf.time / 1000
            for level, tile, full in levels.append(hashed):
                _compare(reader, level, tile, full, report)
    for level, part in enumerate(levels.lists):
        if part:
            _compare(reader, level, checkpoint.size // WIDTH ** (level + 1), part, report)
    if levels.root() != checkpoint.root:
        raise ChaotianError("LOG_INVALID", "the leaves do not lead to the root that the checkpoint names")
    report.last = before / 1000 if before >= 0 else None
    report.types = dict(sorted(types.items()))


def _compare(reader: TileReader, level: int, index: int, hashes: list[bytes], report: Report) -> None:
    report.files += 1
    if reader.tile(level, index) != hashes:
        raise ChaotianError("LOG_INVALID", f"{tile_path(level, index, len(hashes))} does not fit the leaves")


def _extras(path: Path, reader: TileReader, report: Report) -> None:
    """Older partial tiles must be beginnings of the present ones; anything else unknown is listed."""
    for folder, directories, names in os.walk(path, followlinks=False):
        directories[:] = [name for name in directories if name != ".tmp"]
        for name in names:
            relative = (Path(folder) / name).relative_to(path).as_posix()
            if relative in ("checkpoint", "key", ".lock"):
                continue
            parsed = parse_tile_path(relative)
            level = 0 if parsed is None or parsed[0] == "entries" else int(parsed[0])
            width = 0 if parsed is None else reader.width(level, parsed[1])
            if parsed is None or parsed[2] > width:
                if len(report.extra) < MAX_LISTED:
                    report.extra.append(relative)
            elif parsed[2] < width:
                older = TileReader(path, (parsed[1] * WIDTH + parsed[2]) * WIDTH**level)
                same = (
                    older.entries(parsed[1]) == reader.entries(parsed[1])[: parsed[2]]
                    if parsed[0] == "entries"
                    else older.tile(level, parsed[1]) == reader.tile(level, parsed[1])[: parsed[2]]
                )
                if not same:
                    raise ChaotianError("LOG_INVALID", f"{relative} is of another history of this log")


def check_extends(reader: TileReader, checkpoint: Checkpoint, known: bytes, key: NoteKey) -> int:
    """Check that the tree of `reader` extends the earlier signed checkpoint `known`; return its size."""
    old = Checkpoint.open(known, key)
    if old.size > checkpoint.size:
        raise ChaotianError(
            "LOG_INVALID", f"the log was rolled back: it had {old.size} leaves and now has {checkpoint.size}"
        )
    proof = consistency_proof(reader.subtree, old.size, checkpoint.size)
    verify_consistency(old.size, old.root, checkpoint.size, checkpoint.root, proof)
    return old.size


def compare_checkpoints(first: Checkpoint, second: Checkpoint) -> None:
    """Refuse two signed checkpoints of one log that show at once that it has two histories."""
    same_size = first.size == second.size and first.root != second.root
    if first.origin == second.origin and (
        same_size or any(c.size == 0 and c.root != EMPTY_ROOT for c in (first, second))
    ):
        raise ChaotianError("LOG_INVALID", f"{first.origin} has signed two different logs of {first.size} leaves")


def _disclosed(reader: TileReader, checkpoint: Checkpoint, document: Mapping[str, Any], report: Report) -> None:
    bad = ChaotianError("LOG_INVALID", "the disclosure does not have the form of `audit export --disclose`")
    try:
        if set(document) != {"v", "origin", "leaves", "parties"} or document["v"] != 1:
            raise bad
        if document["origin"] != checkpoint.origin:
            raise ChaotianError("LOG_INVALID", "the disclosure is of another log")
        names = {pseudonym_of(bytes.fromhex(opening), name): name for name, opening in document["parties"].items()}
        seen: set[str] = set()
        for leaf in document["leaves"]:
            index = leaf["index"]
            if set(leaf) != {"index", "payload", "salt"} or type(index) is not int:
                raise bad
            if not 0 <= index < checkpoint.size:
                raise ChaotianError("LOG_INVALID", f"leaf {index} was disclosed, but the copy does not hold it")
            published = Leaf.decode(reader.entries(index // WIDTH)[index % WIDTH])
            salt, payload = bytes.fromhex(leaf["salt"]), canonical_json(leaf["payload"])
            if len(salt) != 32 or commit(salt, payload) != published.commitment:
                raise ChaotianError("LOG_INVALID", f"the disclosed payload of leaf {index} is not the one committed to")
            seen |= set(published.parties)
            report.disclosed += 1
    except (KeyError, TypeError, ValueError, AttributeError):
        raise bad from None
    if not set(names) <= seen:
        raise ChaotianError("LOG_INVALID", "a disclosed name stands behind no pseudonym of the disclosed leaves")
    report.parties = names


def read_disclosure(path: Path) -> Mapping[str, Any]:
    """Return the disclosure in the file `path`; anything that is not a JSON object is LOG_INVALID."""
    try:
        document = json.loads(read_limited(path, MAX_DISCLOSURE))
    except (ValueError, RecursionError):
        raise ChaotianError("LOG_INVALID", "the disclosure is not JSON") from None
    if not isinstance(document, dict):
        raise ChaotianError("LOG_INVALID", "the disclosure is not a JSON object")
    return document
