"""What the verbs share: the home folder, output as tables or JSON, and the connection to a running node."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.errors import ChaotianError

if TYPE_CHECKING:
    from gateway.transport.local import LocalClient

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="CHAOTIAN_HOME", help="Folder of the node or platform.", metavar="DIR"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file", help="File with the 32-byte key that opens the secrets; made if missing.", metavar="FILE"
    ),
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File with the passphrase that opens the secrets; or set CHAOTIAN_PASSPHRASE_FILE.",
        metavar="FILE",
    ),
]


def make_app(summary: str) -> typer.Typer:
    """Return an empty group of verbs in this program's style."""
    return typer.Typer(
        help=summary, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def resolve_home(home: Path | None) -> Path:
    """Return the home folder as an absolute path.

    Raises:
        ChaotianError: USAGE where none was named.
    """
    if home is None:
        raise ChaotianError("USAGE", "no home folder was named", hint="Give --home DIR, or set CHAOTIAN_HOME.")
    return home.expanduser().absolute()


def local_client(home: Path | None) -> LocalClient:
    """Return a client of the node or platform that runs in `home`.

    Raises:
        ChaotianError: USAGE; NODE_NOT_RUNNING at the first call where it does not run.
    """
    from gateway.transport.local import LocalClient

    return LocalClient(resolve_home(home))


def administration() -> Any:
    """Return the platform role's module `administration`, found through the role's entry point.

    Raises:
        ChaotianError: CONFIG where the platform role is not installed.
    """
    for entry in entry_points(group="chaotian.roles", name="platform"):
        return import_module(entry.module.rpartition(".")[0] + ".administration")
    raise ChaotianError("CONFIG", "the platform role is not installed", hint="Run `make setup`.")


def print_json(data: Any) -> None:
    """Print `data` as indented JSON; characters of any script are kept, those that steer a terminal are escaped."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table; where the output is not a terminal it is not folded to a width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else 400, soft_wrap=not sys.stdout.isatty()).print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        shown = ("no", "yes")[value] if isinstance(value, bool) else str(value)
        typer.echo(f"{name:<{width}}  {clean(shown)}")


def clean(text: str) -> str:
    """Return `text` without characters that could steer a terminal; it may come from a peer."""
    return "".join(c if c.isprintable() else " " for c in text)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    typer.echo(f"chaotian: warning: {clean(text)}", err=True)


def show_time(seconds: float | None) -> str:
    """Return a time (Unix seconds) for people, in UTC; `-` for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "-"
