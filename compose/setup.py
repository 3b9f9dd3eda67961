"""Makes `.venv` from one of the hash-locked requirement sets: `python3 compose/setup.py runtime|test|peer`.

Runs on the plain interpreter, before anything is installed: standard library only.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def refuse(sentence: str) -> NoReturn:
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
    if not usable(python):
        try:
            import ensurepip  # noqa: F401
            import venv

            shutil.rmtree(VENV, ignore_errors=True)
            venv.create(VENV, with_pip=True)
        except (ImportError, subprocess.CalledProcessError):
            name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            refuse(f"this Python cannot make virtual environments; install the package {name} and try again.")
    began = time.monotonic()
    print(f"Installing the {wanted} set into .venv (one to two minutes the first time) ...", flush=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]  # -qq: errors alone
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / f"{wanted}.txt")], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True)
    (VENV / f".{wanted}").touch()
    print(f"Installed in {time.monotonic() - began:.0f} s.", flush=True)


def usable(python: Path) -> bool:
    """Return whether `.venv` is whole, of this interpreter's version, and was made where it stands now.

    The commands in an environment name its folder: one that was moved or copied with the tree would run another's.
    """
    code = "import sys, pip; print(*sys.version_info[:2], sys.prefix)"
    try:
        found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        made_for = next((VENV / "bin").glob("pip*")).read_text(errors="replace")
    except (OSError, StopIteration, subprocess.CalledProcessError):
        return False
    here = f"{sys.version_info[0]} {sys.version_info[1]} {VENV}"
    return found == here and str(VENV) in made_for


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        refuse(
            f"installing failed (pip exit status {error.returncode}), its message stands above; "
            "behind a proxy set HTTPS_PROXY, with a mirror PIP_INDEX_URL, and try again."
        )
