"""`chaotian audit`: this node's log, and checking anybody's copy of one offline."""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.errors import ChaotianError
from federation.primitives.signing import Verifier
from gateway.cli.common import HomeOption, JsonOption, make_app, print_json, print_table, show_time
from gateway.cli.grant import call, read_text, write_new

app = make_app("The audit log: show one's own, check a copy of anybody's.")


def read_key(text: str) -> Any:
    """Return the key that --key names: a fingerprint of 64 hex digits, or a file with a note key or an identity key.

    Raises:
        ChaotianError: USAGE for anything else.
    """
    from gateway.audit.note import NoteKey

    digits = re.sub(r"[\s:]", "", text[:512]).lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits):
        return bytes.fromhex(digits)
    if not Path(text).is_file():
        raise ChaotianError("USAGE", "--key takes a whole fingerprint (64 hex digits) or a file that holds a key")
    content = read_text(Path(text)).strip()
    digits = re.sub(r"[\s:]", "", content).lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits):
        return bytes.fromhex(digits)
    try:
        if re.fullmatch(r"[0-9a-f]{66}", digits):
            return Verifier(bytes.fromhex(digits))
        if "+" in content:
            return NoteKey.decode(content)
        return Verifier(base64.b64decode(content, validate=True))
    except (ChaotianError, ValueError, binascii.Error):
        raise ChaotianError(
            "USAGE", f"{text} holds no key: expected name+id+base64, or 33 bytes in hex or base64"
        ) from None


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the copy, with `checkpoint` and `tile/`.")],
    key: Annotated[str | None, typer.Option("--key", help="The owner's fingerprint, or a file with its key.")] = None,
    known: Annotated[
        Path | None, typer.Option("--known", help="An earlier checkpoint that the log must extend.")
    ] = None,
    disclosed: Annotated[
        Path | None, typer.Option("--disclosed", help="Payloads the owner disclosed (audit disclose), to be checked.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a copy of a log: signature, entries, hashes. Needs no node; exit status 5 where anything is wrong."""
    from gateway.audit.verify import read_disclosure, verify_copy

    report = verify_copy(
        path,
        read_key(key) if key is not None else None,
        known=read_text(known).encode() if known is not None else None,
        disclosure=read_disclosure(disclosed) if disclosed is not None else None,
    )
    if as_json:
        print_json({"verified": True, **report.document()})
        return
    from gateway.identity.fingerprints import show_fingerprint

    typer.echo(f"The log {report.origin} verifies: {report.size} leaves in {report.files} tiles, root {report.root}")
    typer.echo(f"signed by  {show_fingerprint(bytes.fromhex(report.fingerprint))}")
    if not report.pinned:
        typer.echo("That key came with the copy: compare its fingerprint with the owner's, or give it with --key.")
    for name, count in report.types.items():
        typer.echo(f"  {name:24} {count}")
    if report.extends is not None:
        typer.echo(f"It extends the earlier checkpoint of {report.extends} leaves.")
    if report.disclosed:
        typer.echo(f"{report.disclosed} disclosed payloads are those the log committed to.")
    if report.clock_steps_back:
        typer.echo(f"Note: the owner's clock stepped back {report.clock_steps_back} times.")
    if report.extra:
        typer.echo(f"Note: {len(report.extra)} files do not belong to the log, e.g. {report.extra[0]}")


@app.command()
def show(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, the newest.")] = 50,
    kind: Annotated[str, typer.Option("--type", help="Only events of this type, e.g. round.released.")] = "",
    grant: Annotated[str, typer.Option("--grant", help="Only events under this grant (its whole id).")] = "",
    after: Annotated[int, typer.Option("--after", help="Only those after this index, the oldest first.")] = -1,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show this node's own log with what its leaves commit to."""
    found = call(home, "audit.show", {"limit": limit, "type": kind, "grant": grant, "after": after})
    if as_json:
        print_json(found)
        return
    rows = []
    for event in found["events"]:
        details = ", ".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in event["payload"].items()
        )
        parties = ", ".join(event["parties"])
        rows.append(
            (event["index"], show_time(event["time"]), event["type"], parties, event["grant"][:12], details[:300])
        )
    print_table(("leaf", "time", "type", "parties", "grant", "details"), rows)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the copy.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy this node's published log to a folder that anybody can verify."""
    from gateway.audit.export import export_log

    found = call(home, "audit.publish", {})
    checkpoint = export_log(Path(found["folder"]), directory)
    if as_json:
        print_json({**found, "size": checkpoint.size, "root": checkpoint.root.hex(), "folder": str(directory)})
        return
    typer.echo(f"{checkpoint.size} leaves of {checkpoint.origin} in {directory}")
    typer.echo(f"Check with: chaotian audit verify {directory} --key {found['fingerprint']}")


@app.command()
def disclose(
    indices: Annotated[list[int], typer.Argument(metavar="LEAF…", help="Which leaves.")],
    out: Annotated[Path, typer.Option("--out", help="New file for payloads and salts.")],
    parties: Annotated[bool, typer.Option("--parties", help="Open the pseudonyms in these leaves too.")] = False,
    home: HomeOption = None,
) -> None:
    """Write payloads and salts of leaves to a file, for somebody who holds a copy of the log."""
    found = call(home, "audit.disclose", {"indices": indices, "parties": parties})
    write_new(out, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    typer.echo(f"{len(found['leaves'])} leaves in {out}; a name once opened stays open in every leaf.")
