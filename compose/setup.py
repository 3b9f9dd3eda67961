"""Makes `.venv` from one of the hash-locked requirement sets: `python3 compose/setup.py runtime|test|peer`.

Runs on the plain interpreter, before anything is installed: standard library only.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def refuse(sentence: str) -> None:
    """Say in one sentence why this cannot go on, and stop with exit status 2."""
    sys.stderr.write(f"chaotian: error CONFIG: {sentence}\n")
    sys.exit(2)


def main() -> None:
    """Make the environment and install the set named on the command line."""
    if not ((3, 11) <= sys.version_info[:2] <= (3, 13)) or sys.implementation.name != "cpython":
        found = f"{sys.implementation.name} {sys.version.split()[0]}"
        refuse(f"Chaotian needs CPython 3.11, 3.12 or 3.13, this is {found}; try `make PYTHON=python3.12 setup`.")
    wanted = sys.argv[1]
    python = VENV / "bin" / "python"
    if not python.exists():
        try:
            import ensurepip  # noqa: F401
            import venv

            venv.create(VENV, with_pip=True, clear=VENV.exists())
        except (ImportError, subprocess.CalledProcessError):
            name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            refuse(f"this Python cannot make virtual environments; install the package {name} and try again.")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print(f"Installing the {wanted} set into .venv (about a minute the first time)", flush=True)
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / f"{wanted}.txt")], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True)
    (VENV / f".{wanted}").touch()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        refuse(f"installing failed (pip exit status {error.returncode}); its message stands above.")
