"""`chaotian grant`: what this node's owner allows others, and what others allow it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import (
    HomeOption,
    JsonOption,
    clean,
    local_client,
    make_app,
    print_fields,
    print_json,
    print_table,
    show_time,
)

app = make_app("Usage contracts: what may be computed on whose data.")

OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Write the signed grant to this file too, to be handed over by other means."),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The grant's id, or at least its first 8 digits.")]

FILE_LIMIT = 1 << 20
STATES = ("proposed", "active", "revoked")


def call(home: Path | None, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask the node of `home`."""
    return local_client(home).call(method, params)


def read_text(path: Path) -> str:
    """Return the text of a file a person named (at most 1 MiB).

    Raises:
        ChaotianError: NOT_FOUND, OVERSIZED, BAD_DOCUMENT.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ChaotianError("NOT_FOUND", f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise ChaotianError("OVERSIZED", f"{path} has more than {FILE_LIMIT} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ChaotianError("BAD_DOCUMENT", f"{path} is not UTF-8 text") from None


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet, for its owner's eyes only."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ChaotianError("EXISTS", f"{path} exists") from None
    except OSError as error:
        raise ChaotianError("STORAGE", f"{path} cannot be written: {error.strerror}") from None


@app.command()
def propose(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The grant in TOML.")],
    out: OutOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not send it through the platform.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a new grant as owner or grantee and send it to the other party."""
    if out is not None and out.exists():
        raise ChaotianError("EXISTS", f"{out} exists")
    found = call(home, "grant.propose", {"toml": read_text(file), "deliver": not offline})
    _finish(found, out, as_json)


@app.command()
def accept(
    grant: Annotated[str, typer.Argument(metavar="ID|FILE", help="The grant's id, or a file made with --out.")],
    out: OutOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not send it through the platform.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the other party's proposal, or take in the file with its signature."""
    path = Path(grant)
    params: dict[str, Any] = {"deliver": not offline}
    if path.suffix or path.exists():
        params["file"] = read_text(path)
    else:
        params["id"] = grant
    _finish(call(home, "grant.accept", params), out, as_json)


@app.command()
def revoke(grant: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End a grant now, or decline or withdraw a proposal; this node refuses from the moment this returns."""
    _finish(call(home, "grant.revoke", {"id": grant}), None, as_json)


@app.command("list")
def list_(
    state: Annotated[str, typer.Option("--state", help="Only those proposed, active or revoked.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the grants this node holds, newest first."""
    found = call(home, "grant.list", {"state": state})
    if as_json:
        print_json(found)
        return
    if not found["grants"]:
        typer.echo("No grants.")
        return
    rows = []
    for row in found["grants"]:
        state = "expired" if row["exp"] <= found["now"] and row["state"] == "active" else row["state"]
        state += " (not delivered)" if row["undelivered"] else ""
        purposes, parties = ", ".join(row["purposes"]), f"{row['owner']} → {row['grantee']}"
        rows.append((row["id"][:12], state, parties, row["dataset"], purposes, show_time(row["exp"]), row["charges"]))
    print_table(("id", "state", "owner → grantee", "dataset", "purposes", "until", "rounds used"), rows)


@app.command()
def show(grant: IdArgument, out: OutOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what a grant allows, in words."""
    _finish({**call(home, "grant.show", {"id": grant})}, out, as_json)


@app.command()
def explain(
    grant: IdArgument,
    job: Annotated[
        str | None, typer.Option("--job", help="Decide on this job: on the first operation it denies.")
    ] = None,
    request: Annotated[Path | None, typer.Option("--request", help="Decide on the request in this JSON file.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each clause, its verdict on a job, the remedy, what is left, and how far it is kept."""
    params: dict[str, Any] = {"id": grant}
    if job is not None:
        params["job"] = job
    if request is not None:
        try:
            params["request"] = json.loads(read_text(request))
        except (ValueError, RecursionError):
            raise ChaotianError("BAD_DOCUMENT", f"{request} is not JSON") from None
    found = call(home, "grant.explain", params)
    if as_json:
        print_json(found)
        return
    decision = found.get("decision")
    if decision is None:
        _print_terms(found)
        return
    rows = []
    for clause in decision["clauses"]:
        promised = clause["label"] == "Contractual"
        verdict = "promised" if promised else "permit" if clause["permitted"] else f"DENY {clause['code']}"
        rows.append((clause["key"], verdict, clause["rule"], clause["came"], clause["left"], clause["label"]))
    print_table(("clause", "verdict", "the grant says", "the request", "left", "kept"), rows)
    if decision["permitted"]:
        typer.echo("Permitted.")
    for clause in decision["clauses"]:
        if not clause["permitted"]:
            typer.echo(f"Denied by {clean(clause['key'])} ({clause['reason']}): {clean(clause['remedy'])}")


def _finish(found: dict[str, Any], out: Path | None, as_json: bool) -> None:
    if out is not None:
        write_new(out, found["envelope"] + "\n")
    if as_json:
        print_json({key: value for key, value in found.items() if key != "envelope"})
        return
    _print_terms(found)
    other = found["grantee"] if found["proposer"] == found["owner"] else found["owner"]
    if found.get("delivered") is False:
        typer.echo("Not delivered to the other party yet; the node keeps trying. A file made with --out does as well.")
    elif found["state"] == "proposed":
        typer.echo(f"Waits for {other}: chaotian grant accept {found['id'][:12]}")


def _print_terms(found: dict[str, Any]) -> None:
    print_fields({"grant": found["id"], "state": found["state"], **found["summary"]})
    print_table(("clause", "rule", "kept"), [(row["key"], row["rule"], row["label"]) for row in found["terms"]])
    usage = found["usage"]
    typer.echo(f"Rounds used in the period: {usage['calls']}, left: {usage['left']}.")
    if "epsilon" in usage:
        typer.echo(f"Privacy spent in the budget's period: ε = {usage['epsilon']:.4g}.")
    typer.echo("Enforced: the owner's node refuses. Detectable: a breach leaves a trace. Contractual: a promise.")
