"""Whoever alters, cuts, forks or rolls back a log, or a copy of one, is found out."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.errors import ChaotianError
from gateway.audit.events import Leaf
from gateway.audit.note import Checkpoint, NoteKey
from gateway.audit.tiles import TileReader, decode_bundle, encode_bundle
from gateway.audit.verify import compare_checkpoints, verify_copy
from tests.unit.log_samples import Someone, open_log, write

OWNER, STRANGER = Someone(), Someone(seed=b"\x09" * 32)
KEY = OWNER.signer.verifier


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    database, log = open_log(home)
    write(database, log, 400)
    log.materialise()
    shutil.copy(home / "log/checkpoint", home / "earlier")
    write(database, log, 200, 400)
    log.materialise()
    (home / "disclosed.json").write_text(json.dumps(log.disclose([5, 599], parties=True)))
    return home


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original / "log", tmp_path / "copy"))


def refused(copy: Path, *codes: str, **arguments: object) -> ChaotianError:
    with pytest.raises(ChaotianError) as caught:
        verify_copy(copy, arguments.pop("key", KEY), **arguments)  # type: ignore[arg-type]
    assert caught.value.code in (codes or ("LOG_INVALID",))
    assert caught.value.exit_status == (2 if codes == ("NOT_FOUND",) else 5)
    return caught.value


def test_the_untouched_copy_verifies(copy: Path) -> None:
    assert verify_copy(copy, KEY).size == 600


def test_every_file_is_covered_byte_by_byte(copy: Path) -> None:
    """Flipping one bit anywhere, in any file the tree needs, is found."""
    for path in sorted(p for p in copy.rglob("*") if p.is_file() and p.name not in (".lock", "key")):
        data = path.read_bytes()
        for at in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            refused(copy, "LOG_INVALID", "SIGNATURE")
        for shorter in (data[:-1], b"", data + b"\0"):
            path.write_bytes(shorter)
            refused(copy, "LOG_INVALID", "SIGNATURE")
        path.write_bytes(data)
    assert verify_copy(copy, KEY).size == 600


def test_every_missing_file_is_noticed(copy: Path) -> None:
    required = {"tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"}
    required |= {"tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"}
    for relative in sorted(required):
        data = (copy / relative).read_bytes()
        (copy / relative).unlink()
        refused(copy)
        (copy / relative).write_bytes(data)
    (copy / "checkpoint").unlink()
    refused(copy, "NOT_FOUND")


FIELDS: dict[str, Callable[[Leaf], dict[str, object]]] = {
    "type": lambda leaf: {"type": "round.refused"},
    "time": lambda leaf: {"time": leaf.time + 1},
    "parties": lambda leaf: {"parties": leaf.parties[::-1]},
    "grant": lambda leaf: {"grant": "ef" * 32},
    "exchange": lambda leaf: {"exchange": "ef" * 32},
    "commitment": lambda leaf: {"commitment": "ef" * 32},
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_leaf_is_bound(copy: Path, field: str) -> None:
    path = copy / "tile/entries/001"
    entries = decode_bundle(path.read_bytes())
    leaf = Leaf.decode(entries[17])
    values = {name: getattr(leaf, name) for name in FIELDS}
    entries[17] = Leaf(**{**values, **FIELDS[field](leaf)}).encode()  # type: ignore[arg-type]
    path.write_bytes(encode_bundle(entries))
    assert "leaf 273" in refused(copy).detail


def test_leaves_cannot_be_swapped_dropped_or_doubled(copy: Path) -> None:
    path = copy / "tile/entries/000"
    entries = decode_bundle(path.read_bytes())
    for changed in (
        [entries[1], entries[0], *entries[2:]],
        entries[1:],
        [entries[0], *entries[:-1]],
        [*entries, b"{}"],
    ):
        path.write_bytes(b"".join(struct.pack(">H", len(entry)) + entry for entry in changed))
        refused(copy)


def test_a_log_rewritten_whole_by_a_stranger(copy: Path, tmp_path: Path) -> None:
    database, log = open_log(tmp_path, STRANGER)
    write(database, log, 600)
    log.materialise()
    forged = tmp_path / "log"
    assert verify_copy(forged).pinned is False  # consistent in itself: only the key tells
    refused(forged, "SIGNATURE")
    refused(forged, "SIGNATURE", key=KEY.fingerprint)
    refused(forged, "SIGNATURE", key=NoteKey("chaotian/demo/bank-a", KEY))
    # The owner's key file beside the stranger's checkpoint, and the reverse.
    shutil.copy(copy / "key", forged / "key")
    refused(forged, "SIGNATURE", key=None)


def test_a_log_of_another_member_is_not_taken_for_this_one(tmp_path: Path) -> None:
    database, log = open_log(tmp_path, Someone("bank-b", seed=OWNER.seed))
    write(database, log, 1)
    log.materialise()
    refused(tmp_path / "log", "SIGNATURE", "LOG_INVALID", key=NoteKey("chaotian/demo/bank-a", KEY))


def test_truncated_with_the_earlier_checkpoint_is_seen_by_who_knows_the_later(original: Path, copy: Path) -> None:
    later = (copy / "checkpoint").read_bytes()
    shutil.copy(original / "earlier", copy / "checkpoint")
    assert verify_copy(copy, KEY).size == 400  # true, but old
    assert "rolled back" in refused(copy, known=later).detail


def test_a_fork_does_not_extend_the_earlier_checkpoint(original: Path, tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 600)
    log.materialise()
    assert verify_copy(tmp_path / "log", KEY).size == 600
    refused(tmp_path / "log", known=(original / "earlier").read_bytes())
    notes = [Checkpoint.open((home / "log/checkpoint").read_bytes(), NoteKey("chaotian/demo/bank-a", KEY))
             for home in (original, tmp_path)]  # fmt: skip
    with pytest.raises(ChaotianError, match="two different logs"):
        compare_checkpoints(*notes)
    compare_checkpoints(notes[0], notes[0])


def test_a_known_checkpoint_of_somebody_else_does_not_count(copy: Path) -> None:
    known = Checkpoint("chaotian/demo/bank-a", 1, TileReader(copy, 600).tile(0, 0)[0]).sign(STRANGER.signer)
    refused(copy, "SIGNATURE", known=known)


def test_a_leftover_tile_of_another_history_is_noticed(copy: Path) -> None:
    (copy / "tile/0/000.p").mkdir(exist_ok=True)
    (copy / "tile/0/000.p/2").write_bytes(b"\x05" * 64)
    refused(copy)
    (copy / "tile/0/000.p/2").unlink()
    (copy / "tile/0/900").write_bytes(b"later")
    (copy / "notes.txt").write_text("x")
    assert verify_copy(copy, KEY).extra == ["notes.txt", "tile/0/900"]


def test_huge_and_special_files_end_in_a_coded_error(copy: Path) -> None:
    (copy / "checkpoint").write_bytes(b"x" * 200_000)
    refused(copy)
    shutil.rmtree(copy / "tile/0")
    (copy / "checkpoint").write_text("chaotian/demo/bank-a\n" * 100)
    refused(copy, "LOG_INVALID", "SIGNATURE")
    size = Checkpoint("chaotian/demo/bank-a", 1 << 62, bytes(32)).sign(OWNER.signer)
    (copy / "checkpoint").write_bytes(size)
    refused(copy)
    (copy / "checkpoint").unlink()
    (copy / "checkpoint").mkdir()
    refused(copy, "NOT_FOUND")


DISCLOSURES: dict[str, Callable[[dict], object]] = {
    "payload": lambda d: d["leaves"][0]["payload"].update(round=7),
    "salt": lambda d: d["leaves"][0].update(salt="00" * 32),
    "short salt": lambda d: d["leaves"][0].update(salt="00"),
    "not hex": lambda d: d["leaves"][0].update(salt="zz" * 32),
    "other leaf": lambda d: d["leaves"][0].update(index=6),
    "beyond": lambda d: d["leaves"][0].update(index=600),
    "negative": lambda d: d["leaves"][0].update(index=-1),
    "boolean": lambda d: d["leaves"][0].update(index=True),
    "extra": lambda d: d.update(more=1),
    "origin": lambda d: d.update(origin="chaotian/demo/bank-b"),
    "name": lambda d: d["parties"].update({"bank-z": "00" * 32}),
    "renamed": lambda d: d["parties"].update({"bank-z": d["parties"].pop("bank-b")}),
    "leaves": lambda d: d.update(leaves=3),
}


@pytest.mark.parametrize("case", DISCLOSURES)
def test_false_disclosures(original: Path, copy: Path, case: str) -> None:
    document = json.loads((original / "disclosed.json").read_text())
    assert verify_copy(copy, KEY, disclosure=document).disclosed == 2
    DISCLOSURES[case](document)
    refused(copy, disclosure=document)
