"""What `make test` checks before pytest: lint, format, types, walls, drift of the generated wire types."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS = {
    "lint": [str(BIN / "ruff"), "check", "."],
    "format": [str(BIN / "ruff"), "format", "--check", "."],
    "types": [str(BIN / "mypy")],
    "walls": [str(BIN / "lint-imports")],
    "generated code": [sys.executable, "-m", "protos.generate", "--check"],
}


def main() -> int:
    """Run every check, print one line each, and the output of those that fail; return the exit status."""
    failed = 0
    for name, command in CHECKS.items():
        start = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        print(f"{name:15s} {'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - start:.1f} s", flush=True)
        if done.returncode:
            failed += 1
            print(done.stdout[-8000:] + done.stderr[-8000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
