"""A PostgreSQL server of its own for a test: a folder, a Unix socket, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
WHY_NOT = "PostgreSQL is not installed (Debian: apt-get install postgresql)"


@contextmanager
def server(password: str = "") -> Iterator[str]:
    """Give the address of a fresh server whose database and user are `postgres`; with a password where one is given."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    binaries, data = BINARIES[-1].parent, folder / "data"
    who = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if who:
        account = pwd.getpwnam(who)
        os.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o755)

    def run(*command: object) -> None:
        done = subprocess.run([str(word) for word in command], user=who, capture_output=True, text=True, timeout=120,
                              cwd="/tmp", env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]

    try:
        secret = folder / "password"
        secret.write_text(password or "none")
        secret.chmod(0o644)
        kind = "scram-sha-256" if password else "trust"
        run(binaries / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--no-sync", f"--auth={kind}",
            f"--pwfile={secret}")  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=10"
        run(binaries / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "-t", "100", "start")
        try:
            yield f"postgresql:///postgres?host={folder}&user=postgres"
        finally:
            run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "-t", "60", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
