"""The command `chaotian`: finds the verb, and prints every failure in one form.

Verbs live in one module each and are imported when they are used, so that `--help` is quick.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import click
import typer
import typer.core
from typer.core import TyperGroup

from federation.errors import ChaotianError

GROUPS = {
    "platform": "Set up and run the platform of a space, and invite members.",
    "node": "Set up, enrol and run a member's node.",
    "member": "See the members of the space; approve or revoke them.",
    "data": "Describe and check the data sets of this node.",
    "features": "Compute credit features from a monthly ledger.",
    "grant": "Say who may compute what with this node's data.",
    "job": "Propose, accept, run and watch federated jobs.",
    "app": "See the Flower apps that are installed here.",
    "audit": "Read and verify the log of what left a node.",
    "model": "Show, export and use trained models.",
    "score": "Score a file or a dataset with a model.",
    "lab": "Try a whole federation on one machine, over your own files.",
}


INTERRUPTED = 130  # what Typer makes of Ctrl-C
typer.core.HAS_RICH = False  # else it writes `\[required]` into help that no Rich prints


def _module(name: str) -> str:
    return f"gateway.cli.{name}"


class LazyGroup(TyperGroup):
    """The groups of verbs by name; a group's module is imported only when one of its verbs is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the groups that are installed, in a newcomer's order."""
        return [name for name in GROUPS if find_spec(_module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return name and summary of a group, without importing it: enough for help."""
        return click.Group(cmd_name, help=GROUPS[cmd_name]) if cmd_name in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the real group that is to run."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or command is None:
            return name, command, rest
        group = typer.main.get_command(import_module(_module(name)).app)
        group.name = name
        return name, group, rest


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chaotian {version('chaotian')}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from (on any verb).")] = False,
) -> None:
    """Chaotian: compute together on data that never leaves its owner."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status (see `run`), which says who has to act."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit status.

    0 done, 2 wrong use, 3 refused by policy, 4 peer or network, 5 integrity, 1 anything else.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character shows its escape, not a failure
            stream.reconfigure(errors="backslashreplace")
    arguments, debug = _take_debug(arguments)
    try:
        _check_text(arguments)
        result: Any = typer.main.get_command(app).main(arguments, prog_name="chaotian", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED:
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except ChaotianError as error:
        return report(error, debug)
    except click.UsageError as error:
        return report(_usage(error), debug)
    except click.ClickException as error:
        return report(ChaotianError("USAGE", error.format_message()), debug)
    except (click.Abort, KeyboardInterrupt) as error:
        return report(ChaotianError("INTERRUPTED"), debug, error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has left: there is nobody to tell
        return 1
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except OSError as error:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return report(ChaotianError("STORAGE", f"{error.strerror or 'a file cannot be used'}{where}"), debug, error)
    except MemoryError as error:
        return report(ChaotianError("INTERNAL", "this machine has too little free memory"), debug, error)
    except Exception as error:
        # Its text may quote a value: only its kind is shown unless --debug asks for more.
        return report(ChaotianError("INTERNAL", f"{type(error).__name__} where none was expected"), debug, error)


def report(error: ChaotianError, debug: bool = False, cause: BaseException | None = None) -> int:
    """Print an error and its remedy on stderr, one line each, and return the exit status."""
    if debug:
        traceback.print_exception(cause or error)
    member = f"{error.member}: " if error.member and error.member not in error.detail else ""
    sys.stderr.write(f"chaotian: error {error.code}: {_line(member + error.detail)}\nhint: {_line(error.hint)}\n")
    sys.stderr.flush()
    return error.exit_status


def _line(text: str) -> str:
    """Return `text` as one line that cannot steer a terminal: parts of it may come from a peer."""
    return "".join(c if c.isprintable() else " " for c in text)[:2000]


def _check_text(arguments: list[str]) -> None:
    """Refuse bytes that are no text: no name, id or document may hold them, and they cannot be shown."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ChaotianError(
                "USAGE", f"argument {number} is not UTF-8 text", hint="Rename it, or type it."
            ) from None


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return kept + arguments[end:], len(kept) != end


def _usage(error: click.UsageError) -> ChaotianError:
    path = error.ctx.command_path if error.ctx else "chaotian"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        return ChaotianError("USAGE", "a verb is missing", hint=f"See `{path} --help`.")
    return ChaotianError("USAGE", error.format_message(), hint=f"See `{path} --help`.")


if __name__ == "__main__":
    main()
