from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import select, update

from federation.errors import ChaotianError
from gateway.storage.base import Database
from gateway.storage.files import read_limited, read_secret_file, write_atomic
from gateway.storage.secrets import Argon2, KeySource, SecretBox
from gateway.storage.tables.secrets import secret_box

CHEAP = Argon2(passes=1, memory_kib=64, lanes=1)
PLACE = {"table": "node_keys", "row": "identity", "column": "sealed"}


def secret_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "home" / "state.db")
    database.upgrade()
    return database


@pytest.fixture(params=["passphrase", "key-file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> KeySource:
    content = b"correct horse\n" if request.param == "passphrase" else os.urandom(32)
    return KeySource(request.param, secret_file(tmp_path / "secret", content))


def test_what_is_sealed_opens_after_unlocking(database: Database, source: KeySource) -> None:
    sealed = SecretBox.create(database, source, argon2=CHEAP).seal(b"secret", **PLACE)
    assert SecretBox.unlock(database, source).open(sealed, **PLACE) == b"secret"
    assert b"secret" not in sealed


def test_another_passphrase_or_key_is_refused(database: Database, source: KeySource) -> None:
    SecretBox.create(database, source, argon2=CHEAP)
    other = b"wrong battery\n" if source.kind == "passphrase" else os.urandom(32)
    secret_file(source.path, other)
    with pytest.raises(ChaotianError) as caught:
        SecretBox.unlock(database, source)
    assert caught.value.code == "PASSPHRASE"
    assert caught.value.exit_status == 2


def test_the_other_kind_is_refused(database: Database, source: KeySource, tmp_path: Path) -> None:
    SecretBox.create(database, source, argon2=CHEAP)
    kind = "key-file" if source.kind == "passphrase" else "passphrase"
    with pytest.raises(ChaotianError) as caught:
        SecretBox.unlock(database, KeySource(kind, secret_file(tmp_path / "other", bytes(32))))
    assert caught.value.code == "PASSPHRASE"


def test_a_secret_opens_in_its_own_place_only(database: Database, source: KeySource) -> None:
    box = SecretBox.create(database, source, argon2=CHEAP)
    sealed = box.seal(b"secret", **PLACE)
    for name in PLACE:
        with pytest.raises(ChaotianError, match="STORAGE"):
            box.open(sealed, **{**PLACE, name: "other"})
    for at in range(len(sealed)):
        with pytest.raises(ChaotianError, match="STORAGE"):
            box.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], **PLACE)
        with pytest.raises(ChaotianError, match="STORAGE"):
            box.open(sealed[:at], **PLACE)
    assert box.seal(b"secret", **PLACE) != sealed


def test_places_cannot_be_shifted(database: Database, source: KeySource) -> None:
    box = SecretBox.create(database, source, argon2=CHEAP)
    sealed = box.seal(b"x", table="ab", row="c", column="d")
    with pytest.raises(ChaotianError):
        box.open(sealed, table="a", row="bc", column="d")


def test_the_passphrase_changes_without_sealing_anew(database: Database, source: KeySource, tmp_path: Path) -> None:
    sealed = SecretBox.create(database, source, argon2=CHEAP).seal(b"secret", **PLACE)
    new = KeySource("passphrase", secret_file(tmp_path / "new", b"another passphrase"))
    SecretBox.change(database, source, new, argon2=CHEAP)
    assert SecretBox.unlock(database, new).open(sealed, **PLACE) == b"secret"
    with pytest.raises(ChaotianError, match="PASSPHRASE"):
        SecretBox.unlock(database, source)


def test_a_home_has_one_box(database: Database, source: KeySource) -> None:
    SecretBox.create(database, source, argon2=CHEAP)
    with pytest.raises(ChaotianError, match="EXISTS"):
        SecretBox.create(database, source, argon2=CHEAP)


def test_default_costs_are_those_of_the_rfc(database: Database, tmp_path: Path) -> None:
    SecretBox.create(database, KeySource("passphrase", secret_file(tmp_path / "p", b"correct horse")))
    with database.read() as connection:
        costs = json.loads(connection.execute(select(secret_box.c.parameters)).scalar_one())
    assert costs == {"passes": 3, "memory_kib": 65536, "lanes": 4}


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "[]",
        '{"passes":1}',
        '{"passes":1000000,"memory_kib":64,"lanes":1}',
        '{"passes":1,"memory_kib":1e12,"lanes":1}',
    ],
)
def test_hostile_costs_are_refused(database: Database, tmp_path: Path, parameters: str) -> None:
    source = KeySource("passphrase", secret_file(tmp_path / "p", b"correct horse"))
    SecretBox.create(database, source, argon2=CHEAP)
    with database.begin() as connection:
        connection.execute(update(secret_box).values(parameters=parameters))
    with pytest.raises(ChaotianError, match="STORAGE"):
        SecretBox.unlock(database, source)


@pytest.mark.parametrize("kind", ["passphrase", "key-file"])
def test_sources_that_cannot_be(database: Database, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "secret"
    with pytest.raises(ChaotianError, match="CONFIG"):
        KeySource(kind, path).read()
    for content in (b"", b"short", bytes(5000)):
        with pytest.raises(ChaotianError) as caught:
            KeySource(kind, secret_file(path, content)).read()
        assert caught.value.code in ("PASSPHRASE", "CONFIG")
    secret_file(path, bytes(32)).chmod(0o640)
    with pytest.raises(ChaotianError, match="other users") as caught:
        KeySource(kind, path).read()
    assert "chmod 600" in caught.value.hint
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(ChaotianError, match="not a regular file"):
        KeySource(kind, path).read()


def test_nothing_secret_is_shown(database: Database, source: KeySource) -> None:
    assert repr(SecretBox.create(database, source, argon2=CHEAP)) == "SecretBox(…)"


def test_atomic_writing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    write_atomic(path, b"two")
    with pytest.raises(ChaotianError, match="EXISTS"):
        write_atomic(path, b"three", replace=False)
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ChaotianError, match=r"STORAGE.*No space"):
        write_atomic(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_reading_is_limited(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "file", bytes(100))
    assert len(read_limited(path, 100)) == 100
    with pytest.raises(ChaotianError, match="CONFIG"):
        read_secret_file(path, 99)
    with pytest.raises(ChaotianError, match="CONFIG"):
        read_limited(Path("/dev/zero"), 10)
