"""`chaotian node`: the verbs of a member's own node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import (
    HomeOption,
    JsonOption,
    KeyFileOption,
    PassphraseFileOption,
    local_client,
    make_app,
    print_fields,
    print_json,
    resolve_home,
    show_time,
)

app = make_app("Set up, enrol and run a member's node.")


@app.command()
def init(
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    passphrase_file: PassphraseFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a node: its keys, sealed, and its database."""
    from gateway.identity.fingerprints import show_fingerprint
    from gateway.identity.home import Home, NodeConfig
    from gateway.identity.node import NodeKeys

    config = NodeConfig(
        key_file=str(key_file.expanduser().absolute()) if key_file else "",
        passphrase_file=str(passphrase_file.expanduser().absolute()) if passphrase_file else "",
    )
    path = resolve_home(home)
    made, box = Home.create(path, config)
    keys = NodeKeys(made.database, box)
    keys.create()
    made.finish()
    said = {"home": str(path), "fingerprint": show_fingerprint(keys.fingerprint())}
    print_json(said) if as_json else print_fields(said)


@app.command()
def enrol(
    invitation: Annotated[Path, typer.Argument(help="File with the invitation; - reads it from standard input.")],
    home: HomeOption = None,
    fingerprint: Annotated[
        str, typer.Option(help="Fingerprint of the directory key as the operator told it; compared.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Join a space with an invitation."""
    from gateway.identity.fingerprints import parse_fingerprint, show_fingerprint
    from gateway.identity.invitation import MAX_TEXT, Invitation
    from gateway.storage.files import read_limited

    if str(invitation) == "-":
        data = sys.stdin.buffer.read(4 * MAX_TEXT)
    else:
        data = read_limited(invitation, 4 * MAX_TEXT, code="INVITATION")
    parsed = Invitation.parse(data.decode("utf-8", errors="replace"))
    key = parsed.directory_key.fingerprint
    if fingerprint and parse_fingerprint(fingerprint) != key:
        raise ChaotianError(
            "INVITATION",
            "the invitation's directory key is not the one whose fingerprint was given",
            hint="Do not use this invitation; tell the operator.",
        )
    path = resolve_home(home)
    from gateway.transport.enrolment import enrol as enrol_at_platform  # gRPC: only once the text is found good

    enrol_at_platform(path, parsed)
    said = {"member": parsed.member, "space": parsed.space, "directory_key": show_fingerprint(key)}
    print_json(said) if as_json else print_fields(said)


@app.command()
def serve(home: HomeOption = None) -> None:
    """Run the node until it is stopped."""
    from gateway.runtime import serve_node

    raise typer.Exit(serve_node(resolve_home(home)))


@app.command()
def renew(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Have the running node renew its certificate now."""
    said = local_client(home).call("node.renew", {})
    print_json(said) if as_json else print_fields(said)


@app.command()
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show who this node is, its fingerprint, certificate and directory."""
    from gateway.identity.fingerprints import show_fingerprint
    from gateway.identity.home import Home
    from gateway.identity.node import NodeKeys, own_entry

    opened = Home.node(resolve_home(home))
    keys = NodeKeys(opened.database, opened.unlock())
    said: dict[str, Any] = {
        "home": str(opened.path),
        "fingerprint": show_fingerprint(keys.fingerprint()),
        "enrolled": own_entry(opened.database) is not None,
    }
    if said["enrolled"]:
        identity = keys.identity()
        directory = keys.directories.latest()
        said |= {
            "space": identity.space,
            "member": identity.member,
            "role": identity.role,
            "city": identity.city,
            "platform": opened.config.address or identity.address,
            "directory_key": show_fingerprint(identity.directory_key.fingerprint),
            "certificate_serial": identity.certificate.serial,
            "certificate_expires": identity.certificate.not_after,
            "directory_version": directory.version if directory else 0,
            "directory_expires": directory.expires if directory else 0,
        }
    if as_json:
        print_json(said)
        return
    print_fields({name: show_time(value) if name.endswith("_expires") else value for name, value in said.items()})
