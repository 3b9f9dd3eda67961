from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from federation.errors import CATALOGUE, ChaotianError
from gateway.cli import main as cli
from gateway.identity.invitation import Invitation

COMMAND = Path(sys.executable).parent / "chaotian"
PLATFORM = ("--space", "yu", "--address", "localhost:7443", "--enrol-address", "localhost:7444")


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAOTIAN_HOME", raising=False)
    monkeypatch.delenv("CHAOTIAN_PASSPHRASE_FILE", raising=False)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the verb `node show` raise `error`."""
    from gateway.cli import node

    app = typer.Typer()

    @app.command()
    def show() -> None:
        raise error

    @app.command()
    def other() -> None:
        """A second verb, so that this stays a group."""

    monkeypatch.setattr(node, "app", app)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_code_has_its_exit_status_and_two_lines(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ChaotianError(name, "what came"))
    assert cli.run(["node", "show"]) == CATALOGUE[name].blame.value
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"chaotian: error {name}: what came\nhint: {CATALOGUE[name].remedy}\n"


def test_an_error_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ChaotianError("MALFORMED", "a\x1b[2Jb\nchaotian: error OK: c", hint="d\re\u202e", member="m"))
    cli.run(["node", "show"])
    err = capsys.readouterr().err
    assert err.splitlines() == ["chaotian: error MALFORMED: m: a [2Jb chaotian: error OK: c", "hint: d e "]


def test_the_unforeseen_has_no_traceback_and_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ValueError("hunter2"))
    assert cli.run(["node", "show"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("chaotian: error INTERNAL: ValueError")
    assert "hunter2" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["--debug", "node", "show"], ["node", "--debug", "show"], ["node", "show", "--debug"]]
)
def test_debug_shows_where(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ValueError("hunter2"))
    assert cli.run(arguments) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-2].startswith("chaotian: error INTERNAL")


def test_interruption_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert cli.run(["node", "show"]) == 1
    assert "chaotian: error INTERRUPTED: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["node"],
        ["nosuch"],
        ["node", "nosuch"],
        ["node", "show", "--nosuch"],
        ["node", "show", "extra"],
        ["node", "enrol"],
        ["platform", "init"],
        ["platform", "events", "--after", "x"],
        ["platform", "events", "--after", "-1"],
        ["node", "show"],
        ["member", "approve", "x"],
        ["node", "show", "--home"],
        ["--home", "x"],
        ["\x00"],
        ["node", "show", "\udcff"],
    ],
)
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("chaotian: error USAGE: ")
    assert lines[-1].startswith("hint: ")


def commands() -> list[list[str]]:
    """Return every verb there is."""
    import click

    found = [[]]
    root = typer.main.get_command(cli.app)
    context = click.Context(root)
    for name in root.list_commands(context):
        _, group, _ = root.resolve_command(context, [name])
        found.append([name])
        found += [[name, verb] for verb in getattr(group, "commands", {})]
    return found


@pytest.mark.parametrize("verb", commands(), ids=" ".join)
def test_every_verb_has_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*verb, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"Usage: {' '.join(['chaotian', *verb])}" in shown.out
    assert shown.err == ""


def test_every_group_that_is_installed_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["--help"])
    shown = capsys.readouterr().out
    folder = Path(cli.__file__).parent
    for name, summary in cli.GROUPS.items():
        assert (f"  {name} " in shown and summary in shown) == (folder / f"{name}.py").exists()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == "chaotian 0.1.0\n"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from gateway.cli.main import run; run(['--help']); run(['node', '--help']);"
        "print(sorted({n.split('.')[0] for n in sys.modules} & set(sys.argv[1:])))"
    )
    heavy = ["grpc", "flwr", "duckdb", "pandas", "numpy", "sklearn", "sqlalchemy", "ibis", "cryptography", "alembic"]
    done = subprocess.run(
        [sys.executable, "-c", script, *heavy], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def test_an_operator_and_a_member_set_up(tmp_path: Path) -> None:
    platform, node = str(tmp_path / "p"), str(tmp_path / "n")
    done = run("platform", "init", "--home", platform, *PLATFORM, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)["directory_key"]
    assert run("platform", "init", "--home", platform, *PLATFORM).stderr.startswith("chaotian: error EXISTS: ")
    out = tmp_path / "a.txt"
    invite = ("platform", "invite", "--member", "bank-a", "--role", "bank", "--city", "重庆", "--valid", "1h")
    assert run(*invite, "--out", str(out), environment={"CHAOTIAN_HOME": platform}).returncode == 0
    assert out.stat().st_mode & 0o777 == 0o600
    invitation = Invitation.parse(out.read_text())
    assert (invitation.member, invitation.city) == ("bank-a", "重庆")
    assert "".join(shown.split()) == invitation.directory_key.fingerprint.hex()
    again = run(*invite, "--out", str(out), "--home", platform)
    assert (again.returncode, "error EXISTS" in again.stderr) == (2, True)
    events = json.loads(run("platform", "events", "--home", platform, "--json").stdout)["events"]
    assert [event["kind"] for event in events] == ["invited"]
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery\n")
    passphrase.chmod(0o600)
    made = run("node", "init", "--home", node, "--passphrase-file", str(passphrase), "--json")
    assert made.returncode == 0, made.stderr
    kept = json.loads(run("node", "show", "--home", node, "--json").stdout)
    assert kept["fingerprint"] == json.loads(made.stdout)["fingerprint"]
    assert kept["enrolled"] is False
    out.chmod(0o600)
    out.write_text(out.read_text().replace("重庆", "北京"))
    changed = run("node", "enrol", str(out), "--home", node)
    assert (changed.returncode, "error INVITATION" in changed.stderr) == (4, True)
    other = tmp_path / "other"
    other.write_text("wrong battery staple\n")
    other.chmod(0o600)
    wrong = run("node", "show", "--home", node, environment={"CHAOTIAN_PASSPHRASE_FILE": str(other)})
    assert (wrong.returncode, "error PASSPHRASE" in wrong.stderr) == (2, True)
    assert run("member", "list", "--home", node).stderr.startswith("chaotian: error CONFIG: ")
    assert json.loads(run("member", "list", "--home", platform, "--json").stdout) == {"members": []}
    gone = run("member", "revoke", "bank-z", "--home", platform)
    assert (gone.returncode, "error NOT_FOUND" in gone.stderr) == (2, True)


def test_a_fingerprint_told_otherwise_stops_enrolment(tmp_path: Path) -> None:
    platform, node, out = str(tmp_path / "p"), str(tmp_path / "n"), tmp_path / "a.txt"
    run("platform", "init", "--home", platform, *PLATFORM)
    run("platform", "invite", "--member", "a", "--role", "bank", "--city", "x", "--out", str(out), "--home", platform)
    run("node", "init", "--home", node)
    done = run("node", "enrol", str(out), "--home", node, "--fingerprint", "ab" * 32)
    assert (done.returncode, "error INVITATION" in done.stderr) == (4, True)


def test_a_terminal_without_chinese_is_no_failure(tmp_path: Path) -> None:
    platform = str(tmp_path / "p")
    run("platform", "init", "--home", platform, *PLATFORM)
    run("platform", "invite", "--member", "a", "--role", "bank", "--city", "重庆", "--home", platform)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = run("platform", "events", "--home", platform, environment=plain)
    assert done.returncode == 0
    assert "\\u91cd\\u5e86" in done.stdout


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} --help | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_real_process_with_one_error(tmp_path: Path) -> None:
    script = (
        "import time, gateway.cli.node as node\n"
        "node.resolve_home = lambda home: (print('ready', flush=True), time.sleep(60))\n"
        "from gateway.cli.main import main\n"
        "main(['node', 'show'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.strip().splitlines()[0].startswith("chaotian: error INTERRUPTED")
    assert time.monotonic() - began < 10
