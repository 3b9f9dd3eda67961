"""`python -m bench [NAME …]`: run benches, all that are there by default; see bench/RESULTS.md."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from bench import report
from federation.errors import ChaotianError

# In the order they are run; those of parts that are not built yet are simply not there.
NAMES = (
    "exactness",
    "secure-sum",
    "rounds",
    "jobs",
    "scale",
    "eligibility",
    "encrypted-score",
    "grants",
    "sealed-bundle",
    "attest",
    "pledge",
    "intersection",
    "boosting",
    "scoring",
)


def module_of(name: str) -> str:
    """Return the module of a bench: `secure-sum` is `bench.secure_sum`."""
    return f"bench.{name.replace('-', '_')}"


def present() -> list[str]:
    """Return the names of the benches that are there."""
    return [name for name in NAMES if find_spec(module_of(name))]


def chosen(names: Sequence[str]) -> list[str]:
    """Return the benches to run.

    Raises:
        ChaotianError: USAGE for a name that is none.
    """
    there = present()
    for name in names:
        if name not in there:
            raise ChaotianError("USAGE", f"there is no bench named {name!r}", hint=f"Choose from: {', '.join(there)}.")
    return list(dict.fromkeys(names)) or there


def show(name: str, results: list[dict[str, object]], seconds: float, console: Console) -> None:
    """Print a bench's results."""
    table = Table(title=f"{name} ({seconds:.0f} s)", title_justify="left", header_style="bold")
    for column in ("case", "ours", "peer", "unit", "better", "runs, from – to", "note"):
        table.add_column(column, overflow="fold")
    for result in results:
        table.add_row(*report.cells(result))
    console.print(table)


def main(arguments: Sequence[str]) -> int:
    """Run the benches named and return the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        for name in chosen(arguments):
            console.print(f"[bold]{name}[/bold] …")
            start = time.perf_counter()
            out = report.ROOT / "out" / "bench"
            out.mkdir(parents=True, exist_ok=True)
            results = import_module(module_of(name)).run(out)
            report.write(name, results, out)
            show(name, results, time.perf_counter() - start, console)
    except ChaotianError as error:
        print(f"chaotian: error {error.code}: {error.detail}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("chaotian: error CANCELLED: the bench was interrupted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
