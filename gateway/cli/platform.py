"""`chaotian platform`: the operator's verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.common import (
    HomeOption,
    JsonOption,
    KeyFileOption,
    PassphraseFileOption,
    administration,
    clean,
    make_app,
    print_fields,
    print_json,
    print_table,
    resolve_home,
    show_time,
)

app = make_app("Set up and run the platform of a space, and invite members.")


@app.command()
def init(
    space: Annotated[str, typer.Option(help="Name of the space, e.g. chongqing.")],
    address: Annotated[str, typer.Option(help="Where members reach the platform.", metavar="HOST:PORT")],
    enrol_address: Annotated[str, typer.Option(help="Where newcomers enrol.", metavar="HOST:PORT")],
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    passphrase_file: PassphraseFileOption = None,
    listen: Annotated[str, typer.Option(help="Interface to bind, if not all.", metavar="HOST:PORT")] = "",
    enrol_listen: Annotated[str, typer.Option(help="The same for enrolment.", metavar="HOST:PORT")] = "",
    certificates_valid: Annotated[str, typer.Option(help="Lifetime of certificates.")] = "90d",
    directory_valid: Annotated[str, typer.Option(help="Lifetime of a directory, at most 24h.")] = "24h",
    as_json: JsonOption = False,
) -> None:
    """Make the platform of a new space: its keys, its certificate authority, its directory."""
    from gateway.identity.fingerprints import show_fingerprint
    from gateway.identity.home import PlatformConfig

    config = PlatformConfig(
        space=space,
        address=address,
        enrol_address=enrol_address,
        listen=listen,
        enrol_listen=enrol_listen,
        certificates_valid=certificates_valid,
        directory_valid=directory_valid,
        key_file=str(key_file.expanduser().absolute()) if key_file else "",
        passphrase_file=str(passphrase_file.expanduser().absolute()) if passphrase_file else "",
    )
    path = resolve_home(home)
    registry = administration().create(path, config)
    said = {
        "space": space,
        "home": str(path),
        "directory_key": show_fingerprint(registry.directory_signer.verifier.fingerprint),
    }
    print_json(said) if as_json else print_fields(said)


@app.command()
def invite(
    member: Annotated[str, typer.Option(help="Name of the new member.")],
    role: Annotated[str, typer.Option(help="Its role, e.g. bank.")],
    city: Annotated[str, typer.Option(help="Its city.")],
    home: HomeOption = None,
    valid: Annotated[str, typer.Option(help="How long the invitation may be used.")] = "24h",
    out: Annotated[Path | None, typer.Option(help="File to write; else it is printed.", metavar="FILE")] = None,
) -> None:
    """Make an invitation: a single-use text for one named member, to be handed over safely."""
    from gateway.identity.home import parse_duration
    from gateway.storage.files import write_atomic

    seconds = parse_duration(valid, what="--valid")
    module = administration()
    registry = module.open_registry(resolve_home(home))
    if out is not None and out.exists():
        # Checked before the invitation is made, so that no second one is left open.
        from federation.errors import ChaotianError

        raise ChaotianError("EXISTS", f"{out} exists already")
    text = module.enrolment(registry).invite(member=member, role=role, city=city, valid=seconds)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out.expanduser().absolute(), text.encode(), replace=False)
        typer.echo(f"the invitation of {clean(member)} is in {clean(str(out))}; it works once, within {clean(valid)}")


@app.command()
def serve(home: HomeOption = None) -> None:
    """Run the platform until it is stopped."""
    from gateway.runtime import serve_platform

    raise typer.Exit(serve_platform(resolve_home(home)))


@app.command()
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the space, its addresses and the fingerprint of its directory key."""
    from gateway.identity.fingerprints import show_fingerprint

    registry = administration().open_registry(resolve_home(home))
    said = {
        "space": registry.space,
        "address": registry.config.address,
        "enrol_address": registry.config.enrol_address,
        "directory_key": show_fingerprint(registry.directory_signer.verifier.fingerprint),
        "directory_version": registry.directory_version(),
        "members": sum(record.status == "active" for record in registry.members()),
    }
    print_json(said) if as_json else print_fields(said)


@app.command()
def events(
    home: HomeOption = None,
    after: Annotated[int, typer.Option(help="Only events after this number.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """List what happened in the register: invitations, enrolments, renewals, revocations."""
    found = administration().open_registry(resolve_home(home)).events(after)
    if as_json:
        print_json({"events": [vars(event) for event in found]})
        return
    rows = [(event.id, show_time(event.time), event.kind, event.member, event.detail) for event in found]
    print_table(("number", "time", "event", "member", "detail"), rows)
