"""The log's life: appending, publishing, crashing, resuming, copying, disclosing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from federation.errors import ChaotianError
from gateway.audit import tiles
from gateway.audit.events import Event, EventType
from gateway.audit.export import export_log
from gateway.audit.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from gateway.audit.tiles import Levels, TileReader, TileWriter, parse_tile_path, tile_path
from gateway.audit.verify import verify_copy
from gateway.storage.tables.audit import audit_leaves
from tests.unit.log_samples import Clock, Someone, open_log, write

KEY = Someone().signer.verifier


def test_append_is_part_of_the_callers_transaction(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 3)
    with pytest.raises(RuntimeError), database.begin() as connection:
        assert log.append(connection, Event(EventType.JOB_ACCEPTED)) == 3
        raise RuntimeError
    assert log.head().size == 3
    with database.begin() as connection:
        assert log.append(connection, Event(EventType.JOB_ACCEPTED)) == 3
    assert [event["index"] for event in log.events()] == [0, 1, 2, 3]


def test_indices_have_no_gaps_over_threads(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)

    def work() -> None:
        for _ in range(20):
            write(database, log, 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.materialise()
    assert verify_copy(tmp_path / "log", KEY).size == 160


@pytest.mark.parametrize("steps", [[0], [1], [255, 1], [256], [257, 0, 255], [1, 255, 1, 511], [1000, 3]])
def test_growing_in_steps_gives_the_same_files_as_at_once(tmp_path: Path, steps: list[int]) -> None:
    database, log = open_log(tmp_path)
    total = 0
    for step in steps:
        write(database, log, step, total)
        total += step
        log.materialise()
        report = verify_copy(tmp_path / "log", KEY)
        assert (report.size, report.extra) == (total, [])
    grown = {p: p.read_bytes() for p in (tmp_path / "log").rglob("*") if p.is_file() and ".p" not in str(p.parent)}
    log.materialise(rebuild=True)
    assert {p: p.read_bytes() for p in grown} == grown


def test_large_tree_has_the_layout_of_the_specification() -> None:
    """The example of c2sp.org/tlog-tiles: 70,000 leaves."""
    widths = Levels.widths(70_000)
    assert widths == [112, 17, 1]
    reader = TileReader(Path("/nowhere"), 70_000)
    assert [reader.width(0, 272), reader.width(0, 273), reader.width(1, 0), reader.width(1, 1), reader.width(2, 0)] == [
        256, 112, 256, 17, 1,
    ]  # fmt: skip
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tile_path("entries", 273, 112) == "tile/entries/273.p/112"
    assert parse_tile_path("tile/0/x001/x234/067") == ("0", 1_234_067, 256)
    for bad in ("tile/0/67", "tile/00/067", "tile/0/x000/067", "tile/0/067.p/256", "tile/0/067.p/012", "tile/8a/067"):
        assert parse_tile_path(bad) is None


def test_levels_agree_with_the_frontier_over_three_levels() -> None:
    levels, frontier = Levels(), Frontier()
    for number in range(66_000):
        value = leaf_hash(number.to_bytes(4, "big"))
        list(levels.append(value))
        frontier.append(value)
    assert (levels.size, levels.root()) == (66_000, frontier.root())
    assert levels.frontier().encode() == frontier.encode()


@pytest.mark.parametrize("at", range(9))
def test_a_crash_at_any_file_leaves_a_log_that_verifies_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 300)
    log.materialise()
    write(database, log, 300, 300)
    real, written = TileWriter.write, []

    def dying(self: TileWriter, relative: str, data: bytes) -> None:
        if len(written) == at:
            (tmp_path / "log" / ".tmp" / "file").write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        written.append(relative)
        real(self, relative, data)

    monkeypatch.setattr(TileWriter, "write", dying)
    # The order: entries and tiles as they fill, partial ones, key, checkpoint last.
    try:
        log.materialise()
    except KeyboardInterrupt:
        assert "checkpoint" not in written
        assert verify_copy(tmp_path / "log", KEY).size == 300
    else:
        assert written[-2:] == ["key", "checkpoint"]
    monkeypatch.setattr(TileWriter, "write", real)
    log.materialise()
    report = verify_copy(tmp_path / "log", KEY)
    assert (report.size, report.extra) == (600, [])


def test_partial_tiles_stay_until_their_full_tile_is_published(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 10)
    log.materialise()
    write(database, log, 10)
    log.materialise()
    assert sorted(p.name for p in (tmp_path / "log/tile/0/000.p").iterdir()) == ["10", "20"]
    write(database, log, 240)
    log.materialise()
    assert not (tmp_path / "log/tile/0/000.p").exists()
    assert not (tmp_path / "log/tile/entries/000.p").exists()
    assert verify_copy(tmp_path / "log", KEY).size == 260


@pytest.mark.parametrize("lost", ["tile/0/000.p/200", "tile/entries/000.p/200", "tile", "key"])
def test_lost_files_are_rebuilt_from_the_database(tmp_path: Path, lost: str) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 200)
    log.materialise()
    target = tmp_path / "log" / lost
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    write(database, log, 1)
    log.materialise()
    assert verify_copy(tmp_path / "log", KEY).size == 201


def test_a_restored_backup_is_refused_before_anything_is_signed(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 5)
    database.close()
    shutil.copy(tmp_path / "state.db", tmp_path / "backup.db")
    database, log = open_log(tmp_path)
    write(database, log, 5)
    log.materialise()
    database.close()
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"state.db{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", tmp_path / "state.db")
    database, log = open_log(tmp_path)
    published = (tmp_path / "log/checkpoint").read_bytes()
    with pytest.raises(ChaotianError, match="restored from a backup"):
        log.check_start()
    # Growing past the old size does not help: the history is another one.
    write(database, log, 20, 1000)
    with pytest.raises(ChaotianError, match="do not continue"):
        log.materialise()
    assert (tmp_path / "log/checkpoint").read_bytes() == published


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_changed_database_is_refused(tmp_path: Path, rebuild: bool) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 7)
    log.materialise()
    write(database, log, 2)
    with database.begin() as connection:
        entry = connection.execute(select(audit_leaves.c.entry).where(audit_leaves.c.position == 3)).scalar_one()
        changed = entry.replace(b'"grant":"ab', b'"grant":"cd')
        assert changed != entry
        connection.execute(audit_leaves.update().where(audit_leaves.c.position == 3).values(entry=changed))
    with pytest.raises(ChaotianError, match="LOG_INVALID"):
        log.materialise(rebuild=rebuild)


def test_proofs_lead_to_the_published_checkpoint(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 700)
    first = log.materialise()
    write(database, log, 100)
    for index in (0, 255, 256, 699, 799):
        checkpoint, proof = log.prove(index)
        entry = TileReader(tmp_path / "log", 800).entries(index // 256)[index % 256]
        verify_inclusion(leaf_hash(entry), index, checkpoint.size, proof, checkpoint.root)
    checkpoint, proof = log.prove_consistency(700)
    verify_consistency(700, first.root, checkpoint.size, checkpoint.root, proof)
    began = time.perf_counter()
    for _ in range(100):
        verify_consistency(700, first.root, checkpoint.size, checkpoint.root, proof)
    assert (time.perf_counter() - began) / 100 < 0.001
    with pytest.raises(ChaotianError, match="NOT_FOUND"):
        log.prove(800)


def test_an_export_verifies_while_the_log_has_grown(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 300)
    log.materialise()
    known = (tmp_path / "log/checkpoint").read_bytes()
    write(database, log, 300)
    log.materialise()
    export_log(tmp_path / "log", tmp_path / "copy")
    report = verify_copy(tmp_path / "copy", KEY.fingerprint, known=known)
    assert (report.size, report.extends, report.pinned, report.extra) == (600, 300, True, [])
    with pytest.raises(ChaotianError, match="EXISTS"):
        export_log(tmp_path / "log", tmp_path / "copy")
    with pytest.raises(ChaotianError, match="NOT_FOUND"):
        export_log(tmp_path / "nothing", tmp_path / "other")


def test_disclosure_shows_the_payload_and_only_the_names_asked_for(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 4)
    with database.begin() as connection:
        log.append(connection, Event(EventType.MEMBER_APPROVED, ("bank-c",), payload={"名": "重庆"}))
    log.materialise()
    published = b"".join(p.read_bytes() for p in (tmp_path / "log/tile").rglob("*") if p.is_file())
    for secret in (b"bank-b", b"bank-c", "重庆".encode(), b'round":'):
        assert secret not in published
    document = json.loads(json.dumps(log.disclose([1, 4])))
    report = verify_copy(tmp_path / "log", KEY, disclosure=document)
    assert (report.disclosed, report.parties) == (2, {})
    report = verify_copy(tmp_path / "log", KEY, disclosure=log.disclose([4], parties=True))
    assert list(report.parties.values()) == ["bank-c"]
    with pytest.raises(ChaotianError, match="NOT_FOUND"):
        log.disclose([5])


def test_equal_payloads_give_different_commitments_and_logs_different_pseudonyms(tmp_path: Path) -> None:
    parties, commitments = set(), set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        database, log = open_log(tmp_path / name)
        with database.begin() as connection:
            log.append_many(connection, [Event(EventType.JOB_STARTED, ("bank-b",))] * 2)
        log.materialise()
        for entry in TileReader(tmp_path / name / "log", 2).entries(0):
            leaf = json.loads(entry)
            parties.add(leaf["parties"][0])
            commitments.add(leaf["commitment"])
    assert (len(parties), len(commitments)) == (2, 4)


def test_bad_events_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    bad = [
        (Event(EventType.JOB_STARTED, grant="xyz"), "BAD_DOCUMENT"),
        (Event(EventType.JOB_STARTED, exchange=b"short"), "BAD_DOCUMENT"),
        (Event("job.started"), "BAD_DOCUMENT"),  # type: ignore[arg-type]
        (Event(EventType.JOB_STARTED, ("m",) * 1001), "BAD_DOCUMENT"),
        (Event(EventType.JOB_STARTED, payload={"x": float("nan")}), "BAD_DOCUMENT"),
        (Event(EventType.JOB_STARTED, payload={"x": "a" * 40_000}), "OVERSIZED"),
    ]
    for event, code in bad:
        with pytest.raises(ChaotianError, match=code), database.begin() as connection:
            log.append(connection, event)
    assert log.head().size == 0
    with database.begin() as connection:  # a caller that goes on after a refusal keeps a whole log
        log.append(connection, Event(EventType.JOB_STARTED, tuple(f"{n:063}" for n in range(900))))
        with pytest.raises(ChaotianError):
            log.append_many(connection, [Event(EventType.JOB_STARTED), Event(EventType.JOB_STARTED, grant="x")])
        log.append(connection, Event(EventType.JOB_STARTED))
    log.materialise()
    assert verify_copy(tmp_path / "log", KEY).size == 2


def test_batches_are_fast_enough(tmp_path: Path) -> None:
    database, log = open_log(tmp_path)
    began = time.perf_counter()
    write(database, log, 4000)
    assert 4000 / (time.perf_counter() - began) > 2000


def test_a_full_disk_is_a_coded_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, log = open_log(tmp_path)
    write(database, log, 3)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiles.os, "fsync", full)
    with pytest.raises(ChaotianError, match="STORAGE"):
        log.materialise()
    monkeypatch.undo()
    assert log.materialise().size == 3


def test_sigkill_in_the_middle_of_appending_and_publishing(tmp_path: Path) -> None:
    """Killed at a random moment several times, the log verifies and no leaf is there twice."""
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from tests.unit.log_samples import open_log, write
        database, log = open_log(Path({str(tmp_path)!r}))
        log.check_start()
        print("ready", flush=True)
        while True:
            write(database, log, 3, log.head().size)
            log.materialise()
        """
    )
    size = 0
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        until = time.monotonic() + 30
        while not (tmp_path / "log/checkpoint").exists() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.05 + 0.03 * turn)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (tmp_path / "log/checkpoint").exists():
            assert verify_copy(tmp_path / "log", KEY).size >= size
        _, log = open_log(tmp_path)
        log.check_start()
        size = log.head().size
    assert size > 0 and size % 3 == 0
    rounds = [event["payload"]["round"] for event in log.events(after=0, limit=10_000)]
    assert rounds == list(range(1, size))
    assert verify_copy(tmp_path / "log", KEY).size == size


def test_a_clock_that_steps_back_is_reported_not_refused(tmp_path: Path) -> None:
    clock = Clock()
    database, log = open_log(tmp_path, clock=clock)
    write(database, log, 1)
    clock.now -= 60
    write(database, log, 1)
    log.materialise()
    assert verify_copy(tmp_path / "log", KEY).clock_steps_back == 1
