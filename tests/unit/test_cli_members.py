"""`chaotian member` in the home of a node that is not running, and in the platform's."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gateway.cli import main as cli
from gateway.identity.fingerprints import show_fingerprint
from tests.support.spaces import Clock, Space


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.delenv("CHAOTIAN_HOME", raising=False)
    monkeypatch.delenv("CHAOTIAN_PASSPHRASE_FILE", raising=False)
    space = Space(tmp_path, clock=Clock(time.time()))
    for member in ("bank-a", "bank-b"):
        space.join(member)
    space.spread()
    return space


def members(space: Space, home: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert cli.run(["member", "list", "--json", "--home", str(space.path / home)]) == 0
    return {record["member"]: record for record in json.loads(capsys.readouterr().out)["members"]}


def test_an_approval_counts_at_once_for_a_running_node(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(space.path / "bank-a")
    running = space.nodes["bank-a"].peers
    shown = show_fingerprint(space.nodes["bank-b"].fingerprint())
    assert members(space, "bank-a", capsys)["bank-b"]["approved"] == "no"
    assert members(space, "bank-a", capsys)["bank-b"]["fingerprint"] == shown
    assert cli.run(["member", "approve", "bank-b", "--fingerprint", shown, "--home", home]) == 0
    assert list(running.approved()) == ["bank-a", "bank-b"]
    assert members(space, "bank-a", capsys)["bank-b"]["approved"] == "yes"
    assert cli.run(["member", "revoke", "bank-b", "--home", home]) == 0
    assert list(running.approved()) == ["bank-a"]
    assert cli.run(["member", "revoke", "bank-b", "--home", home]) == 2


def test_another_fingerprint_is_not_approved(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(space.path / "bank-a")
    shown = show_fingerprint(space.nodes["bank-a"].fingerprint())
    assert cli.run(["member", "approve", "bank-b", "--fingerprint", shown, "--home", home]) == 3
    assert "error NOT_APPROVED: bank-b" in capsys.readouterr().err
    assert cli.run(["member", "approve", "bank-b", "--fingerprint", shown[:20], "--home", home]) == 2
    assert cli.run(["member", "approve", "nobody", "--fingerprint", shown, "--home", home]) == 2
    assert cli.run(["member", "approve", "bank-b", "--home", home]) == 2  # no terminal to ask at
    assert list(space.nodes["bank-a"].peers.approved()) == ["bank-a"]


def test_a_changed_key_is_shown(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    node = space.nodes["bank-a"]
    node.peers.approve("bank-b", space.nodes["bank-b"].fingerprint())
    space.registry.revoke("bank-b")
    space.join("bank-b", folder="again")
    node.directories.accept(space.registry.directory())
    assert members(space, "bank-a", capsys)["bank-b"]["approved"] == "no: its key changed"


def test_the_operator_ends_a_membership(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(space.path / "platform")
    serial = space.nodes["bank-b"].identity().certificate.serial
    assert cli.run(["member", "revoke", "bank-b", "--home", home]) == 0
    assert members(space, "platform", capsys)["bank-b"]["status"] == "revoked"
    assert space.registry.is_revoked("bank-b", serial)
    assert cli.run(["member", "approve", "bank-a", "--fingerprint", "ab" * 32, "--home", home]) == 2


def test_an_expired_directory_is_listed_with_a_warning(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    node = space.nodes["bank-a"]
    space.clock.now = time.time() - 90_000
    registry = space.registry
    with registry.database.begin() as connection:
        old = registry.publish(connection)
    node.directories.accept(old)
    assert cli.run(["member", "list", "--home", str(space.path / "bank-a")]) == 0
    shown = capsys.readouterr()
    assert "bank-b" in shown.out
    assert "chaotian: warning: the member directory has expired" in shown.err


def test_one_member_is_shown(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    for home in ("bank-a", "platform"):
        assert cli.run(["member", "show", "bank-b", "--home", str(space.path / home)]) == 0
        assert "重庆" in capsys.readouterr().out
        assert cli.run(["member", "show", "nobody", "--home", str(space.path / home)]) == 2


def test_a_node_shows_itself(space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["node", "show", "--json", "--home", str(space.path / "bank-a")]) == 0
    shown = json.loads(capsys.readouterr().out)
    identity = space.nodes["bank-a"].identity()
    assert shown["fingerprint"] == show_fingerprint(identity.signer.verifier.fingerprint)
    assert shown["certificate_serial"] == identity.certificate.serial
    assert (shown["space"], shown["member"], shown["role"]) == ("yu", "bank-a", "bank")
