"""A whole space on one machine: a platform and members, one process and one home folder each, over real TLS.

For `chaotian lab … --processes`, and for demo, integration tests and benches; everything goes through the command line
that a person types.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHAOTIAN = [str(Path(sys.executable).parent / "chaotian")]
READY_SECONDS = 30.0


class CommandError(RuntimeError):
    """A command that did not exit with 0.

    Args:
        status: its exit status.
        code: the error code on its standard error, where there was one.
    """

    def __init__(self, command: list[str], status: int, stderr: str) -> None:
        self.status, self.stderr = status, stderr
        head = next((line for line in stderr.splitlines() if line.startswith("chaotian: error ")), "")
        self.code = head.removeprefix("chaotian: error ").split(":")[0]
        super().__init__(f"`chaotian {' '.join(command)}` exited with {status}\n{stderr.strip()}")


@dataclass
class Member:
    """One organisation of the space: its home folder and its process.

    Args:
        name: member name; `platform` for the platform.
    """

    name: str
    role: str
    city: str
    home: Path
    process: subprocess.Popen[str] | None = None
    logs: list[Path] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id, 0 when it never ran."""
        return self.process.pid if self.process else 0


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Space:
    """A platform and its members.

    Args:
        root: folder that takes all homes; made if missing.
        name: name of the space.
        serving: the program that runs nodes and platform, `chaotian` itself unless a test puts its own before it.
    """

    def __init__(self, root: Path, name: str = "demo", *, serving: Sequence[str] = CHAOTIAN) -> None:
        self.root, self.name, self.serving = root, name, serving
        root.mkdir(parents=True, exist_ok=True)
        self.platform = Member("platform", "platform", "Chongqing", root / "platform")
        self.members: dict[str, Member] = {}

    # --- commands ------------------------------------------------------------------------------------------

    def run(self, member: Member | None, *command: str | Path, timeout: float = 120.0) -> str:
        """Run one `chaotian` command with the member's home; return its standard output."""
        words = [str(word) for word in command]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
        if member is not None:
            env["CHAOTIAN_HOME"] = str(member.home)
        done = subprocess.run(  # noqa: S603  (our own program, no shell)
            [*CHAOTIAN, *words], env=env, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise CommandError(words, done.returncode, done.stderr)
        return done.stdout

    def json(self, member: Member | None, *command: str | Path, timeout: float = 120.0) -> Any:
        """Run one command with `--json` and return what it printed."""
        return json.loads(self.run(member, *command, "--json", timeout=timeout))

    # --- set-up --------------------------------------------------------------------------------------------

    def key_file(self, member: Member) -> Path:
        """Return the member's key file, which seals its keys at rest; made on first use, outside its home."""
        path = self.root / "keys" / f"{member.name}.key"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        return path

    def start_platform(self, *options: str) -> None:
        """Make the platform, with further options of `platform init`, and start it."""
        main, enrol = free_ports(2)
        address, enrol_address = f"127.0.0.1:{main}", f"127.0.0.1:{enrol}"
        self.run(self.platform, "platform", "init", "--space", self.name, "--address", address,
                 "--enrol-address", enrol_address, "--key-file", self.key_file(self.platform), *options)  # fmt: skip
        self.serve(self.platform)

    def add(self, name: str, role: str, city: str) -> Member:
        """Invite a member, make its keys at its own home, and enrol it. It is not started."""
        member = Member(name, role, city, self.root / name)
        invitation = self.root / "invitations" / f"{name}.txt"
        invitation.parent.mkdir(mode=0o700, exist_ok=True)
        self.run(self.platform, "platform", "invite", "--member", name, "--role", role, "--city", city,
                 "--out", invitation)  # fmt: skip
        self.run(member, "node", "init", "--key-file", self.key_file(member))
        self.run(member, "node", "enrol", invitation)
        self.members[name] = member
        return member

    def approve_all(self) -> None:
        """Let every owner approve the fingerprints of all others, which each read off its own node."""
        fingerprints = {m.name: self.json(m, "node", "show")["fingerprint"] for m in self.members.values()}

        def approve(member: Member) -> None:
            for name, fingerprint in fingerprints.items():
                if name != member.name:
                    self._approve(member, name, fingerprint)

        self.each(approve, self.members.values())

    def _approve(self, member: Member, name: str, fingerprint: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.run(member, "member", "approve", name, "--fingerprint", fingerprint)
                return
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # the directory that lists it is on its way

    def each(self, action: Any, items: Iterable[Any], workers: int = 2) -> list[Any]:
        """Run `action` for all items, a few at a time; raises the first failure."""
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(action, items))

    # --- processes -----------------------------------------------------------------------------------------

    def serve(self, member: Member) -> None:
        """Start the member's process and wait until it says that it is ready."""
        kind = "platform" if member.role == "platform" else "node"
        log = self.root / "logs" / f"{member.name}-{len(member.logs) + 1}.log"
        log.parent.mkdir(exist_ok=True)
        member.logs.append(log)
        env = {**os.environ, "CHAOTIAN_HOME": str(member.home), "PYTHONUNBUFFERED": "1"}
        out = log.with_suffix(".out")
        with log.open("w") as stderr, out.open("w") as stdout:
            member.process = subprocess.Popen(  # noqa: S603  (our own program, no shell)
                [*self.serving, kind, "serve"], env=env, stdout=stdout, stderr=stderr, text=True
            )
        deadline = time.monotonic() + READY_SECONDS
        while "ready" not in out.read_text():
            if member.process.poll() is not None or time.monotonic() > deadline:
                raise CommandError([kind, "serve"], member.process.poll() or -1, log.read_text()[-4000:])
            time.sleep(0.02)

    def kill(self, member: Member) -> None:
        """End the member's process the hard way: SIGKILL, no goodbye."""
        assert member.process is not None
        member.process.send_signal(signal.SIGKILL)
        member.process.wait(10)

    def stop(self) -> None:
        """Stop every process: politely, then the hard way."""
        running = [m for m in (*self.members.values(), self.platform) if m.process and m.process.poll() is None]
        for member in running:
            assert member.process is not None
            member.process.terminate()
        for member in running:
            assert member.process is not None
            try:
                member.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill(member)


@contextmanager
def space(root: Path, name: str = "demo") -> Iterator[Space]:
    """A space whose processes end with the block."""
    made = Space(root, name)
    try:
        yield made
    finally:
        made.stop()
