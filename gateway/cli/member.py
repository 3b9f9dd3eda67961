"""`chaotian member`: who belongs to the space, and who of them counts for this node.

In a node's home `approve` and `revoke` say whom this node's owner trusts; in the platform's home `revoke` ends a
membership. Both write to the home's database, which a running process reads afresh, so they work with and without one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import (
    HomeOption,
    JsonOption,
    administration,
    clean,
    make_app,
    print_fields,
    print_json,
    print_table,
    resolve_home,
    show_time,
    warn,
)

app = make_app("See the members of the space; approve or revoke them.")
NameArgument = Annotated[str, typer.Argument(help="Name of the member.")]
_COLUMNS = ("member", "role", "city", "status", "approved", "fingerprint")


@app.command(name="list")
def list_members(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the members of the space."""
    path = resolve_home(home)
    found = _members(path)
    if as_json:
        print_json({"members": found})
        return
    columns = [name for name in _COLUMNS if all(name in record for record in found)]
    print_table(columns, [[record[name] for name in columns] for record in found])


@app.command()
def show(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one member."""
    record = _find(_members(resolve_home(home)), name)
    if as_json:
        print_json(record)
        return
    times = ("enrolled", "changed", "certificate_expires")
    print_fields({key: show_time(value) if key in times else value for key, value in record.items()})


@app.command()
def approve(
    name: NameArgument,
    home: HomeOption = None,
    fingerprint: Annotated[
        str, typer.Option(help="The member's fingerprint, as it told you by another way; all 64 digits.")
    ] = "",
) -> None:
    """Approve a member's key after comparing its fingerprint: only then does it count for this node."""
    from gateway.identity.fingerprints import parse_fingerprint
    from gateway.identity.node import peer_book

    database = _node_home(resolve_home(home)).database
    database.upgrade()
    if fingerprint:
        peer_book(database).approve(name, parse_fingerprint(fingerprint))
    else:
        shown = _find(_members(resolve_home(home)), name)["fingerprint"]
        if not sys.stdin.isatty():
            raise ChaotianError(
                "USAGE", "the fingerprint to approve is missing", hint="Ask the member for it; give --fingerprint."
            )
        typer.echo(f"{clean(name)}\n{shown}")
        typer.confirm("Has the member told you exactly this fingerprint by another way?", abort=True)
        peer_book(database).approve(name, parse_fingerprint(shown))
    typer.echo(f"{clean(name)} is approved.")


@app.command()
def revoke(name: NameArgument, home: HomeOption = None) -> None:
    """In a node's home: take an approval back. In the platform's home: end the membership."""
    from gateway.identity.home import Home
    from gateway.identity.peers import Approvals

    path = resolve_home(home)
    opened = Home.either(path)
    if opened.kind == "platform":
        administration().open_registry(path).revoke(name)
        typer.echo(f"{clean(name)} is revoked; its connections end within seconds.")
        return
    opened.database.upgrade()
    if not Approvals(opened.database).revoke(name):
        raise ChaotianError("NOT_FOUND", "this node has approved no member of that name", member=clean(name)[:63])
    typer.echo(f"{clean(name)} is no longer approved.")


def _node_home(path: Path) -> Any:
    from gateway.identity.home import Home

    opened = Home.either(path)
    if opened.kind != "node":
        raise ChaotianError("USAGE", "members are approved by nodes", hint="Give the home of a node.")
    return opened


def _members(path: Path) -> list[dict[str, Any]]:
    """Return what the home at `path` knows of each member."""
    from gateway.identity.fingerprints import show_fingerprint
    from gateway.identity.home import Home
    from gateway.identity.listing import known_members

    opened = Home.either(path)
    if opened.kind == "platform":
        records = administration().open_registry(path).members()
        return [{**vars(record), "fingerprint": show_fingerprint(record.fingerprint)} for record in records]
    opened.database.upgrade()
    found, warning = known_members(opened.database)
    if warning:
        warn(warning)
    return found


def _find(records: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for record in records:
        if record["member"] == name:
            return record
    raise ChaotianError("NOT_FOUND", "no member of that name is known here", hint="See `chaotian member list`.")
