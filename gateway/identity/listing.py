"""The members of a space as one node knows them, and which of them it has approved."""

from __future__ import annotations

from typing import Any

from federation.errors import ChaotianError
from gateway.identity.fingerprints import show_fingerprint
from gateway.identity.node import own_entry
from gateway.identity.peers import Approvals, Directories
from gateway.storage.base import Database


def known_members(database: Database) -> tuple[list[dict[str, Any]], str]:
    """Return what the node of this database knows of each member, and a warning where its directory is out of date.

    Raises:
        ChaotianError: CONFIG where the node has not enrolled.
    """
    own = own_entry(database)
    if own is None:
        raise ChaotianError("CONFIG", "this node has not enrolled", hint="Run `chaotian node enrol INVITATION` first.")
    directories = Directories(database)
    directory, warning = directories.latest(), ""
    try:
        directories.current()
    except ChaotianError as error:
        warning = f"{error.detail}; {error.hint}"
    approvals = Approvals(database).all()
    found = []
    for member, listing in (directory.members if directory else {}).items():
        approved = approvals.get(member)
        state = "no" if approved is None else "yes" if approved == listing.entry.fingerprint else "no: its key changed"
        found.append(
            {
                "member": member,
                "role": listing.entry.role,
                "city": listing.entry.city,
                "status": listing.status,
                "approved": "this node" if member == own.member else state,
                "fingerprint": show_fingerprint(listing.entry.fingerprint),
                "entry_version": listing.entry.version,
                "certificates": list(listing.serials),
            }
        )
    return found, warning
