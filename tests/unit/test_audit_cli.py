"""`chaotian grant` and `chaotian audit` as a person types them, against nodes without a socket."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from federation.errors import ChaotianError
from gateway.audit.local import register_audit
from gateway.cli import audit as audit_cli
from gateway.cli import grant as grant_cli
from tests.unit.grant_samples import OWNER, TOML, Node, request, two_nodes

app = typer.Typer()
app.add_typer(grant_cli.app, name="grant")
app.add_typer(audit_cli.app, name="audit")


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    a, b, _, _ = two_nodes(tmp_path)
    homes = {}
    for node, name in ((a, "a"), (b, "b")):
        register_audit(node.call, node.log, tmp_path / name / "log")
        homes[tmp_path / name] = node.call

    class Client:
        def __init__(self, home: Path) -> None:
            self.methods = homes[home]

        def call(self, method: str, params: dict[str, Any] | None = None, *, deadline: float = 30.0) -> dict[str, Any]:
            found = self.methods.handlers[method](json.loads(json.dumps(params or {})))
            answer: dict[str, Any] = asyncio.run(found) if inspect.isawaitable(found) else found
            return json.loads(json.dumps(answer))  # type: ignore[no-any-return]

    monkeypatch.setattr("gateway.transport.local.LocalClient", Client)
    monkeypatch.setenv("COLUMNS", "200")
    return a, b


def run(home: Path | None, *words: object) -> Result:
    env = {"CHAOTIAN_HOME": str(home)} if home else {}
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def good(home: Path | None, *words: object) -> str:
    result = run(home, *words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(home: Path | None, *words: object) -> tuple[str, int]:
    result = run(home, *words)
    assert isinstance(result.exception, ChaotianError), result.output
    return result.exception.code, result.exception.exit_status


def test_a_grants_life_on_the_command_line(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    home_a, home_b = tmp_path / "a", tmp_path / "b"
    (tmp_path / "g.toml").write_text(TOML)
    made = json.loads(good(home_a, "grant", "propose", tmp_path / "g.toml", "--json", "--out", tmp_path / "g.json"))
    assert made["state"] == "proposed" and (tmp_path / "g.json").stat().st_mode & 0o777 == 0o600
    shown = good(home_b, "grant", "show", made["id"][:12])
    for text in ("to whom", "how long", "Contractual", "Enforced", "行业", "at least 3 members", "Waits for bank-b"):
        assert text in shown
    assert "active" in good(home_b, "grant", "accept", made["id"][:12])
    listed = good(home_a, "grant", "list")
    assert made["id"][:12] in listed and "bank-a → bank-b" in listed
    assert json.loads(good(home_a, "grant", "list", "--state", "proposed", "--json"))["grants"] == []
    asked = request(min_rows=1)
    (tmp_path / "r.json").write_text(json.dumps(asked.__dict__))
    explained = good(home_a, "grant", "explain", made["id"], "--request", tmp_path / "r.json")
    assert "DENY MIN_ROWS" in explained and "min_rows of at least 30" in explained and "promised" in explained
    assert "revoked" in good(home_a, "grant", "revoke", made["id"])
    assert refused(home_b, "grant", "accept", made["id"]) == ("GRANT_REVOKED", 3)


def test_accepting_a_file(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(TOML)
    good(tmp_path / "a", "grant", "propose", tmp_path / "g.toml", "--offline", "--out", tmp_path / "1.json")
    good(tmp_path / "b", "grant", "accept", tmp_path / "1.json", "--offline", "--out", tmp_path / "2.json")
    assert "active" in good(tmp_path / "a", "grant", "accept", tmp_path / "2.json")
    assert refused(tmp_path / "a", "grant", "propose", tmp_path / "g.toml", "--out", tmp_path / "1.json") == (
        "EXISTS",
        2,
    )


def test_wrong_use(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    home = tmp_path / "a"
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "big.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    assert refused(home, "grant", "propose", tmp_path / "none.toml") == ("NOT_FOUND", 2)
    assert refused(home, "grant", "propose", tmp_path / "bad.toml") == ("BAD_DOCUMENT", 2)
    assert refused(home, "grant", "propose", tmp_path / "big.toml")[0] == "OVERSIZED"
    assert refused(home, "grant", "show", "0" * 64) == ("NOT_FOUND", 2)
    assert refused(None, "grant", "list") == ("USAGE", 2)
    assert refused(home, "audit", "show", "--type", "nothing.happened") == ("BAD_DOCUMENT", 2)


def test_a_hostile_text_is_not_interpreted(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(TOML.replace('"行业"', '"[bold]x[/bold]"'))
    made = json.loads(good(tmp_path / "a", "grant", "propose", tmp_path / "g.toml", "--json"))
    assert "[bold]x[/bold]" in good(tmp_path / "b", "grant", "show", made["id"])


def test_showing_exporting_verifying_and_disclosing_a_log(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    home = tmp_path / "a"
    (tmp_path / "g.toml").write_text(TOML)
    for _ in range(3):
        good(home, "grant", "propose", tmp_path / "g.toml")
    assert good(home, "audit", "show").count("grant.proposed") == 3
    assert len(json.loads(good(home, "audit", "show", "--limit", "2", "--json"))["events"]) == 2
    assert "3 leaves" in good(home, "audit", "export", tmp_path / "copy")
    good(home, "audit", "disclose", "0", "2", "--parties", "--out", tmp_path / "d.json")
    fingerprint = OWNER.signer.verifier.fingerprint.hex()
    (tmp_path / "key.hex").write_text(OWNER.signer.verifier.public.hex() + "\n")
    (tmp_path / "print").write_text(" ".join(fingerprint[at : at + 4] for at in range(0, 64, 4)).upper())
    for key in (fingerprint, tmp_path / "key.hex", tmp_path / "print", tmp_path / "copy/key"):
        assert "verifies: 3 leaves" in good(None, "audit", "verify", tmp_path / "copy", "--key", key)
    assert "compare its fingerprint" in good(None, "audit", "verify", tmp_path / "copy")
    report = json.loads(
        good(None, "audit", "verify", tmp_path / "copy", "--key", fingerprint, "--json",
             "--disclosed", tmp_path / "d.json", "--known", tmp_path / "copy/checkpoint")
    )  # fmt: skip
    assert report["verified"] and report["disclosed"] == 2 and report["extends"] == 3
    assert set(report["parties"].values()) == {"bank-a", "bank-b"}
    assert refused(None, "audit", "verify", tmp_path / "copy", "--key", "ab" * 32) == ("SIGNATURE", 5)
    assert refused(None, "audit", "verify", tmp_path / "copy", "--key", "nonsense") == ("USAGE", 2)
    assert refused(None, "audit", "verify", tmp_path / "g.toml") == ("NOT_FOUND", 2)
    bundle = next((tmp_path / "copy/tile/entries").rglob("3"))
    bundle.write_bytes(bundle.read_bytes().replace(b"grant.proposed", b"grant.accepted", 1))
    assert refused(None, "audit", "verify", tmp_path / "copy", "--key", fingerprint) == ("LOG_INVALID", 5)
