"""`chaotian job`: propose, look at, accept, run and watch federated jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from rich.console import RenderableType

app = make_app("Propose, accept, run and watch federated jobs.")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or enough of its first digits.")]
FILE_LIMIT = 1 << 20
START_SECONDS = 180.0
ENDED = ("done", "failed", "cancelled")


def _call(home: Path | None, method: str, params: dict[str, Any], deadline: float = 60.0) -> dict[str, Any]:
    return local_client(home).call(method, params, deadline=deadline)


def _read(path: Path) -> str:
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


@app.command()
def propose(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The job in TOML.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose a job to its members, as a member or as the operator."""
    found = _call(home, "job.propose", {"toml": _read(file)})
    if as_json:
        print_json(found)
        return
    typer.echo(f"proposed job {found['id']}")
    typer.echo(f"to {', '.join(found['members'])}; each accepts it with: chaotian job accept {found['id'][:12]}")


@app.command("list")
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the jobs this home knows, newest first."""
    found = _call(home, "job.list", {})
    if as_json:
        print_json(found)
        return
    rows = [
        (
            job["id"][:12],
            job["kind"],
            job["purpose"],
            job["proposer"],
            ", ".join(job["members"]),
            job["state"] + (f" ({job['code']})" if job["code"] else ""),
            show_time(job["created"]),
        )
        for job in found["jobs"]
    ]
    print_table(("job", "kind", "purpose", "proposer", "members", "state", "proposed"), rows)


@app.command()
def show(job: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a job: what it is, and exactly what would leave this node."""
    found = _call(home, "job.show", {"id": job})
    if as_json:
        print_json(found)
        return
    document = found["document"]
    print_fields(
        {
            "job": found["id"],
            "state": found["state"] + (f" ({found['code']}: {found['detail']})" if found["code"] else ""),
            "kind": document["kind"] + (f": {found['title']}" if found.get("title") else ""),
            "purpose": document["purpose"],
            "proposer": document["proposer"],
            "members": ", ".join(document["members"]),
            "exposed": ", ".join(document["exposed"]) or "nobody",
            "accepted by": ", ".join(found["accepted"]) or "nobody yet",
            "exposure consent of": ", ".join(found["consented"]) or "nobody",
            "dataset": document["dataset"],
            **({"second date": document["after"]} if document["after"] else {}),
            **({"compared on": document["test"]} if document["test"] else {}),
            **_parameters(document["params"]),
            "floors": f"{document['min_members']} members, {document['min_rows']} rows",
            "result to": document["result_to"],
            "grant": found.get("grant") or "-",
        }
    )
    columns = found.get("columns") or document["params"].get("features") or []
    if columns:
        print_table(
            ("column", "type", "levels"),
            [(f["name"], f["type"], ", ".join(f.get("levels", []))) for f in columns],
            title="\nColumns that are read",
        )
    if found.get("leaves"):
        _show_leaves(found["leaves"])
    for obstacle in found["obstacles"]:
        typer.echo(clean(f"\nin the way: {obstacle['code']}: {obstacle['detail']}\nhint: {obstacle['hint']}"))


def _parameters(params: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of a kind as a person reads them; columns have a table of their own."""
    out = {}
    for name, value in params.items():
        if name == "features" or value in ("", {}, []):
            continue
        if isinstance(value, dict):
            out[name] = f"given for {', '.join(value)}"
        elif isinstance(value, list):
            out[name] = ", ".join(map(str, value))
        else:
            out[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return out


def _show_leaves(leaves: dict[str, Any]) -> None:
    rows = [
        (
            entry["operation"],
            entry["times"],
            ", ".join(f"{name} × {length}" for name, length in entry["fields"].items()),
            entry["values"] if entry["bytes_exact"] else f"up to {entry['values']}",
            f"{entry['bytes']}" if entry["bytes_exact"] else f"about {entry['bytes']}",
        )
        for entry in leaves["rounds"]
    ]
    print_table(("round", "times", "values by name", "values", "bytes"), rows, title="\nWhat leaves this node")
    for who, what in leaves["to"].items():
        typer.echo(clean(f"to the {who}: {what}"))
    typer.echo(clean(f"stays here: {leaves['stays']}"))
    for heading, key in (
        ("What can be read from it", "leaks"),
        ("What holds", "claims"),
        ("What holds after one loss", "claims_after_loss"),
    ):
        if leaves[key]:
            typer.echo(f"\n{heading}")
            for sentence in leaves[key]:
                typer.echo(clean(f"- {sentence}"))


@app.command()
def accept(
    job: IdArgument,
    exposure_consent: Annotated[
        bool,
        typer.Option(
            "--exposure-consent", help="Agree that this result, beside an earlier one, may show this member's own part."
        ),
    ] = False,
    grant: Annotated[str, typer.Option("--grant", help="Compute under this grant.", metavar="ID")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept a job for this member: signed, bound to the data as they are now and to a grant."""
    params = {"id": job, "exposure_consent": exposure_consent, "grant": grant}
    _done(_call(home, "job.accept", params, START_SECONDS), as_json, "accepted")


@app.command()
def consent(job: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Consent to being exposed by a job's results beside those of an earlier job."""
    _done(_call(home, "job.consent", {"id": job}), as_json, "consented to exposure by")


@app.command()
def start(job: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Start a job that every member has accepted; for its proposer and the operator."""
    _done(_call(home, "job.start", {"id": job}, START_SECONDS), as_json, "started")


@app.command()
def resume(job: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Go on with a job that a restart of the platform interrupted."""
    _done(_call(home, "job.resume", {"id": job}, START_SECONDS), as_json, "resumed")


@app.command()
def cancel(job: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End a job for everybody."""
    _done(_call(home, "job.cancel", {"id": job}), as_json, "cancelled")


def _done(found: dict[str, Any], as_json: bool, verb: str) -> None:
    if as_json:
        print_json(found)
        return
    job = found["id"][:12]
    then = {
        "accepted": "; once all members have accepted, its proposer or the operator starts it",
        "started": f"; see how it goes with: chaotian job watch {job}",
    }
    typer.echo(f"{verb} job {job}{then.get(verb, '')}")
    if found.get("delivered") is False:
        typer.echo("the platform is away: it gets the signed paper as soon as it is back")


@app.command()
def result(
    job: IdArgument,
    column: Annotated[
        str, typer.Option("--column", metavar="NAME", help="Show the bins, levels or quantiles of this column.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a finished job brought this member: figures over all members, and those on its own rows."""
    found = _call(home, "job.result", {"id": job})
    if as_json:
        print_json(found)
        return
    from gateway.cli.job_tables import show_result

    show_result(found, column)


@app.command()
def arrays(
    job: IdArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the arrays go, as NumPy's .npz.")],
    home: HomeOption = None,
) -> None:
    """Write the trained arrays of a finished fedavg job to a file; also at the platform, where the job gave it them."""
    import base64

    data = base64.b64decode(_call(home, "job.arrays", {"id": job})["npz"])
    try:
        with file.open("xb") as target:
            target.write(data)
    except FileExistsError:
        raise ChaotianError("EXISTS", f"{file} exists already") from None
    except OSError as error:
        raise ChaotianError("STORAGE", f"{file} cannot be written: {error.strerror}") from None
    typer.echo(f"{len(data):,} bytes in {file}")


@app.command()
def watch(job: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Watch a job until it ends: stage of each member, who is late, bytes, seconds, retries, losses."""
    stream = local_client(home).watch("job.watch", {"id": job})
    last = _print_lines(stream, as_json) if as_json or not sys.stdout.isatty() else _live(stream)
    if last and last["state"] == "done" and not as_json:
        typer.echo(f"done; see what it brought with: chaotian job result {last['id'][:12]}")
    if last and last["state"] == "failed":
        raise ChaotianError(last["code"], last.get("own", {}).get("detail") or last["detail"])
    if last and last["state"] == "cancelled":
        raise ChaotianError("CANCELLED", last["detail"])


def _print_lines(stream: Iterator[dict[str, Any]], as_json: bool) -> dict[str, Any] | None:
    """Print one line a change: JSON, or the round and stage."""
    import json

    last, before = None, ""
    for last in stream:
        progress = last["progress"] or {}
        line = (
            json.dumps(last, ensure_ascii=False)
            if as_json
            else f"{last['state']} round {progress.get('round', 0)} {progress.get('operation', '')} "
            f"{progress.get('stage', '')}".rstrip()
        )
        if line != before:
            typer.echo(clean(line))
            before = line
    return last


def _live(stream: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    from rich.live import Live

    last = None
    with Live(refresh_per_second=10) as live:
        for last in stream:
            live.update(_picture(last))
    return last


def _picture(seen: dict[str, Any]) -> RenderableType:
    """Return the state of a job as a table with a line for each member."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    progress = seen["progress"] or {"members": {}, "rounds": [], "losses": []}
    head = f"job {seen['id'][:12]}  {seen['state']}"
    if seen["code"]:
        head += f" ({seen['code']})"
    if progress.get("round"):
        head += f"  round {progress['round']} attempt {progress['attempt']}  {progress['operation']}"
        head += f"  {progress['stage']}  {progress['seconds']:.1f} s"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("member", "", "stage", "answer", "seconds", "received", "sent", "retries", "code"):
        table.add_column(name, justify="right" if name in ("seconds", "received", "sent", "retries") else "left")
    for name, entry in progress["members"].items():
        late = entry["state"] == "waiting" and entry["seconds"] > 2.0
        style = "red" if entry["state"] == "lost" else "yellow" if late else ""
        here = "" if name in seen["connected"] else "away"
        cells = (
            name, here, entry["stage"], "late" if late else entry["state"], f"{entry['seconds']:.3f}",
            str(entry["received"]), str(entry["sent"]), str(entry["retries"]), entry["code"],
        )  # fmt: skip
        table.add_row(*(Text(clean(cell)) for cell in cells), style=style)
    parts: list[RenderableType] = [Text(clean(head), style="bold"), table]
    for loss in progress["losses"]:
        line = f"lost {loss['member']} in round {loss['round']} at {loss['stage']}: {loss['code']}"
        parts.append(Text(clean(line), style="red"))
    if progress["rounds"]:
        newest = progress["rounds"][-1]
        line = f"rounds done: {newest['round']}; the last took {newest['seconds']:.3f} s, {newest['bytes']} bytes"
        parts.append(Text(line))
    return Group(*parts)
