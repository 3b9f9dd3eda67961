"""Whatever a person types or a file holds: every verb answers with one coded error and a hint, never a traceback."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import click
import pytest
import typer

from compose.space import CHAOTIAN, Member
from gateway.cli.main import app, run
from tests.integration.faults_kit import ROOT, Faulty, Outcome

ERROR = re.compile(r"^chaotian: error [A-Z][A-Z_]+: .")

# FILE takes one of the bad files, ID one of the bad ids, NEW a path that does not exist, TEXT a bad name.
VERBS: tuple[tuple[str, ...], ...] = (
    ("node", "init", "--key-file", "FILE", "--home", "NEW"),
    ("node", "init", "--passphrase-file", "FILE", "--home", "NEW"),
    ("node", "init", "--home", "FILE"),
    ("node", "enrol", "FILE"),
    ("node", "enrol", "FILE", "--fingerprint", "ID"),
    ("node", "serve", "--home", "FILE"),
    ("node", "show", "--home", "FILE"),
    ("node", "renew", "--home", "FILE"),
    ("platform", "init", "--space", "TEXT", "--address", "127.0.0.1:1", "--enrol-address", "127.0.0.1:2",
     "--home", "NEW"),
    ("platform", "init", "--space", "s", "--address", "TEXT", "--enrol-address", "127.0.0.1:2", "--home", "NEW"),
    ("platform", "init", "--space", "s", "--address", "127.0.0.1:1", "--enrol-address", "127.0.0.1:2",
     "--key-file", "FILE", "--home", "NEW"),
    ("platform", "init", "--space", "s", "--address", "127.0.0.1:1", "--enrol-address", "127.0.0.1:2",
     "--certificates-valid", "TEXT", "--home", "NEW"),
    ("platform", "invite", "--member", "TEXT", "--role", "bank", "--city", "x"),
    ("platform", "invite", "--member", "m", "--role", "TEXT", "--city", "x", "--home", "FILE"),
    ("platform", "serve", "--home", "FILE"),
    ("platform", "show", "--home", "FILE"),
    ("platform", "events", "--home", "FILE"),
    ("member", "list", "--home", "FILE"),
    ("member", "show", "TEXT"),
    ("member", "approve", "TEXT", "--fingerprint", "ID"),
    ("member", "approve", "bank-1"),
    ("member", "revoke", "TEXT"),
    ("data", "add", "swept", "FILE", "--schema", "SCHEMA"),
    ("data", "add", "swept", "CSV", "--schema", "FILE"),
    ("data", "add", "TEXT", "CSV", "--schema", "SCHEMA"),
    ("data", "check", "FILE", "--schema", "SCHEMA"),
    ("data", "check", "CSV", "--schema", "FILE"),
    ("data", "check", "TEXT", "--schema", "SCHEMA"),
    ("data", "check", "CSV", "--schema", "SCHEMA", "--sheet", "TEXT", "--table", "TEXT", "--password-file", "FILE"),
    ("data", "list", "--home", "FILE"),
    ("data", "show", "TEXT"),
    ("features", "list", "TEXT"),
    ("features", "show", "TEXT"),
    ("features", "compute", "TEXT", "--out", "swept"),
    ("features", "compute", "FILE", "--out", "swept", "--schema", "SCHEMA", "--at", "2024-12"),
    ("features", "compute", "none", "--out", "TEXT", "--at", "TEXT", "--column", "TEXT"),
    ("grant", "propose", "FILE"),
    ("grant", "accept", "FILE"),
    ("grant", "accept", "ID"),
    ("grant", "revoke", "ID"),
    ("grant", "show", "ID"),
    ("grant", "list", "--state", "TEXT"),
    ("grant", "explain", "ID"),
    ("grant", "explain", "ID", "--job", "ID"),
    ("grant", "explain", "ID", "--request", "FILE"),
    ("job", "propose", "FILE"),
    ("job", "show", "ID"),
    ("job", "accept", "ID"),
    ("job", "accept", "ID", "--grant", "ID"),
    ("job", "consent", "ID"),
    ("job", "start", "ID"),
    ("job", "resume", "ID"),
    ("job", "cancel", "ID"),
    ("job", "watch", "ID"),
    ("job", "result", "ID"),
    ("job", "result", "ID", "--column", "TEXT"),
    ("job", "list", "--home", "FILE"),
    ("audit", "verify", "FILE"),
    ("audit", "verify", "NEW", "--key", "ID"),
    ("audit", "verify", "LOG", "--key", "FILE"),
    ("audit", "verify", "LOG", "--known", "FILE"),
    ("audit", "verify", "LOG", "--disclosed", "FILE"),
    ("audit", "export", "FILE"),
    ("audit", "disclose", "99999999", "--out", "NEW"),
    ("audit", "disclose", "-1", "--out", "NEW"),
    ("audit", "show", "--limit", "TEXT"),
    ("model", "list", "--home", "FILE"),
    ("model", "show", "FILE"),
    ("model", "show", "ID"),
    ("model", "export", "ID", "--out", "NEW"),
    ("model", "export", "FILE", "--out", "NEW"),
    ("model", "import", "FILE"),
    ("model", "score", "--model", "FILE", "--data", "CSV", "--out", "NEW"),
    ("model", "score", "--model", "ID", "--data", "FILE", "--out", "NEW"),
    ("model", "use", "FILE", "--purpose", "credit-risk-model"),
    ("model", "use", "ID", "--purpose", "TEXT"),
    ("model", "rollback", "--purpose", "TEXT", "--label", "TEXT"),
    ("model", "history", "--home", "FILE"),
    ("model", "card", "FILE", "--out", "NEW"),
    ("model", "card", "ID"),
    ("model", "report", "FILE", "--out", "NEW"),
    ("model", "report", "ID", "--data", "TEXT"),
    ("score", "FILE", "CSV", "--out", "NEW"),
    ("score", "FILE", "--out", "NEW"),
    ("score", "ID", "FILE", "--out", "NEW"),
    ("score", "TEXT", "--out", "NEW"),
    ("score", "TEXT", "TEXT", "--out", "NEW", "--schema", "FILE"),
    ("score", "CSV", "--out", "NEW", "--reasons", "TEXT"),
    ("lab", "train", "--job", "TEXT", "--split", "rows", "--member", "a=x.csv", "--out", "NEW"),
    ("lab", "train", "--job", "scorecard", "--split", "rows", "--member", "TEXT", "--test", "FILE", "--out", "NEW"),
    ("lab", "train", "--job", "scorecard", "--split", "rows", "--member", "a=CSV", "--id", "id", "--label", "y",
     "--out", "FILE"),
    ("lab", "sum", "--members", "TEXT"),
    ("lab", "sum", "--members", "2", "--length", "10"),
    ("lab", "sum", "--members", "-1"),
    ("lab", "sum", "--length", "0"),
    ("lab", "sum", "--lost-at", "TEXT"),
    ("lab", "sum", "--members", "4", "--length", "10", "--lost", "4"),
    ("lab", "sum", "--ring", "7"),
    ("TEXT",),
    ("job", "TEXT"),
    ("job", "show"),
)  # fmt: skip
IDS = ("", "f" * 64, "0" * 8, "zz", "Ü" * 9, "../../etc/passwd", "-", "a\x00b", "%s%n", "1" * 5000)
TEXTS = ("", "no such", "Ü", "../x", "a" * 300, "\x1b[31m", "-5", "1e9", "a\nb", "\udcff")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are not what any verb wants."""
    folder = tmp_path_factory.mktemp("bad")
    chance = random.Random(7)
    contents = {
        "random": chance.randbytes(5000),
        "empty": b"",
        "text": b"hello\n" * 3,
        "json": b'{"v": 1, "a": [[[]]]}',
        "deep.json": b"[" * 100_000,
        "toml": b'kind = "scorecard"\n[[features]]\nname = 3\n',
        "long-line": b"x" * 3_000_000,
        "nul.csv": b"id,y,x1\n\x00\x00,1,2\n",
        "numbers.toml": b"a = " + b"9" * 10_000,
        "hex": b"ab" * 33,
    }
    found = {}
    for name, data in contents.items():
        found[name] = folder / name
        found[name].write_bytes(data)
    with (folder / "huge").open("wb") as file:
        file.truncate(8 << 30)
    closed = folder / "closed"
    closed.write_bytes(b"x")
    closed.chmod(0)
    loop = folder / "loop"
    loop.symlink_to(loop)
    (folder / "folder").mkdir()
    extra = {name: folder / name for name in ("huge", "closed", "loop", "folder", "missing")}
    return found | extra | {"null": Path("/dev/null"), "below a file": found["text"] / "x"}


def check(done: Outcome) -> None:
    """Assert the form of a failure."""
    what = (done.command, done.status, done.out[-300:], done.err[-600:])
    assert done.status in (1, 2, 3, 4, 5), what
    lines = done.err.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith("chaotian: error ")), -1)
    assert head >= 0 and ERROR.match(lines[head]), what
    assert lines[head + 1].startswith("hint: ") and len(lines[head + 1]) > 10, what
    assert done.code != "INTERNAL", what
    assert "Traceback" not in done.err and "Traceback" not in done.out, what
    assert not any(ord(c) < 32 and c not in "\n\t" for c in done.err), what


def filled(verb: tuple[str, ...], bad: dict[str, Path], running: Faulty, folder: Path, chance: random.Random):
    """Return the verb with its placeholders filled: once for each bad file, else some times."""
    wanted = [bad[name] for name in sorted(bad)] if "FILE" in verb else list(range(5))
    for number, item in enumerate(wanted):
        words = {
            "FILE": item,
            "ID": chance.choice(IDS),
            "TEXT": chance.choice(TEXTS),
            "NEW": folder / f"new-{chance.randrange(10**9)}-{number}",
            "SCHEMA": running.schema(),
            "CSV": ROOT / "tests" / "data" / "README.md",
            "LOG": running.members["bank-1"].home / "log",
        }
        yield tuple(words.get(word, word) for word in verb)


@pytest.mark.parametrize("group", sorted({verb[0] for verb in VERBS}))
def test_bad_input_at_every_verb_is_one_coded_error_with_a_hint(running: Faulty, bad, tmp_path, group):
    running.recover()
    chance = random.Random(group)
    for verb in (verb for verb in VERBS if verb[0] == group):
        for words in filled(verb, bad, running, tmp_path, chance):
            for home in ("bank-1", "platform") if verb[0] in ("job", "member") else ("bank-1",):
                done = running.cli(home, *words)
                if done.status == 0 and verb[:2] in EMPTY_IS_FINE:
                    continue
                check(done)
    # Whatever came, the processes live and answer.
    running.connected()


# Verbs for which some of the files or texts are good: a key file is made where it is missing, a list may be empty.
EMPTY_IS_FINE = {("node", "init"), ("platform", "init"), ("platform", "invite"), ("grant", "list"),
                 ("audit", "export"), ("audit", "show"), ("audit", "verify"), ("model", "list")}  # fmt: skip


def unlisted() -> list[tuple[str, ...]]:
    """Return every verb that is not listed above, with what it requires as placeholders."""
    group = typer.main.get_command(app)
    context = group.make_context("chaotian", ["--help"], resilient_parsing=True)
    known, found = {verb[:2] for verb in VERBS}, []
    for name in group.list_commands(context):
        _, real, _ = group.resolve_command(context, [name])
        for verb, command in getattr(real, "commands", {}).items():  # none: a verb of one word, all listed above
            if (name, verb) in known:
                continue
            words = [name, verb]
            for param in command.params:
                if param.required:
                    words += param.opts[:1] if isinstance(param, click.Option) else []
                    words.append("FILE" if isinstance(param.type, click.Path) else "TEXT")
            found.append(tuple(words))
    return found


def test_verbs_that_came_later_do_as_the_others(running: Faulty, bad, tmp_path):
    running.recover()
    chance = random.Random(3)
    for verb in unlisted():
        for words in filled(verb, bad, running, tmp_path, chance):
            done = running.cli("bank-1", *words)
            if done.status:
                check(done)


def test_a_real_process_says_the_same(tmp_path):
    home = tmp_path / "nothing here"
    for words in (["job", "list"], ["node", "serve"], ["data", "list"], ["nonsense"], ["job", "show", "\udcff"]):
        env = {**os.environ, "CHAOTIAN_HOME": str(home)}
        done = subprocess.run([*CHAOTIAN, *words], env=env, capture_output=True, text=True, timeout=60)
        check(Outcome(tuple(words), done.returncode, done.stdout, done.stderr))


def test_a_home_of_garbage_is_named(tmp_path, bad):
    for kind in ("node", "platform"):
        for name, path in bad.items():
            home = tmp_path / f"{kind} {name}"
            home.mkdir()
            if not path.is_file() or path.stat().st_size > 10**7:
                continue
            (home / f"{kind}.toml").write_bytes(path.read_bytes())
            (home / "state.db").write_bytes(path.read_bytes())
            member = Member(name, "bank", "x", home)
            for verb in ((kind, "show"), (kind, "serve"), ("member", "list"), ("job", "list")):
                check(Faulty(tmp_path / "none").cli(member, *verb))
    assert run(["--version"]) == 0
