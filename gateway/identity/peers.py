"""The others, as this node sees them: the newest directory it verified, and whom its owner approved."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from federation.errors import ChaotianError
from federation.primitives.signing import Verifier
from gateway.identity.certificates import CLOCK_SKEW_SECONDS
from gateway.identity.directory import Directory, Listing
from gateway.identity.invitation import Invitation
from gateway.identity.names import check_name
from gateway.storage.base import Database
from gateway.storage.hot import Hot
from gateway.storage.tables.identity import approvals as approvals_table
from gateway.storage.tables.identity import directory as directory_table
from gateway.storage.tables.identity import directory_changes, membership

# Asked in every round of every job, built once: building a statement takes longer than running it.
_DIGEST = Hot(select(directory_table.c.digest))
_APPROVED = Hot(select(approvals_table.c.member, approvals_table.c.fingerprint))


@dataclass(frozen=True)
class Change:
    """Something that changed from one directory to the next: (directory version, Unix seconds, member, what)."""

    id: int
    version: int
    time: int
    member: str
    change: str


class Directories:
    """The newest directory this node has verified, in its database.

    Args:
        database: the node's database.
        clock: Unix seconds.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._cached: Directory | None = None

    def accept(self, data: bytes) -> Directory:
        """Verify a directory that came from the platform, keep it, and return it.

        Raises:
            ChaotianError: DIRECTORY; CONFIG where this node has not enrolled.
        """
        now = self._clock()
        with self._database.begin() as connection:
            space, key = _pinned(connection)
            known = self._stored(connection)
            directory = Directory.verify(data, space=space, directory_key=key, now=now, known=known)
            if known is None or directory.digest != known.digest:
                store_directory(connection, directory, known, int(now))
        self._cached = directory
        return directory

    def latest(self) -> Directory | None:
        """Return the newest verified directory, even where it has expired."""
        with self._database.read() as connection:
            return self._stored(connection)

    def current(self) -> Directory:
        """Return the newest verified directory.

        Raises:
            ChaotianError: DIRECTORY where there is none, it has expired, or this machine's clock is behind it.
        """
        with self._database.read() as connection:
            return self.current_in(connection)

    def current_in(self, connection: Connection) -> Directory:
        """Return the newest verified directory as the caller's transaction sees it; errors as for `current`."""
        directory = self._stored(connection)
        if directory is None:
            raise ChaotianError(
                "DIRECTORY", "this node has no member directory yet", hint="Enrol, then start the node."
            )
        if self._clock() >= directory.expires:
            raise ChaotianError(
                "DIRECTORY", "the member directory has expired", hint="The node gets a new one when it is connected."
            )
        if directory.issued > self._clock() + CLOCK_SKEW_SECONDS:
            # A clock set back would keep what has expired and what was revoked in force.
            raise ChaotianError(
                "DIRECTORY", "the member directory is from the future", hint="Check this machine's clock."
            )
        return directory

    def changes(self, after: int = 0, limit: int = 1000) -> list[Change]:
        """Return what changed in the directory, oldest first, beginning after the id `after`."""
        with self._database.read() as connection:
            statement = select(directory_changes).where(directory_changes.c.id > after)
            rows = connection.execute(statement.order_by(directory_changes.c.id).limit(limit))
            return [Change(**row) for row in rows.mappings()]

    def _stored(self, connection: Connection) -> Directory | None:
        row = _DIGEST.first(connection)
        if row is None:
            return None
        if self._cached is None or self._cached.digest != row.digest:
            data = connection.execute(select(directory_table.c.data)).scalar_one()
            space, key = _pinned(connection)
            self._cached = Directory.read(data, space=space, directory_key=key)
        return self._cached


class Approvals:
    """Whose fingerprints this node's owner has compared and approved.

    Args:
        database: the node's database.
        clock: Unix seconds.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def approve(self, member: str, fingerprint: bytes) -> None:
        """Approve this identity key (its 32-byte fingerprint) of `member`, in place of an earlier one."""
        check_name(member, "member", code="USAGE")
        if len(fingerprint) != 32:
            raise ChaotianError("USAGE", "a fingerprint has 32 bytes")
        row = {"member": member, "fingerprint": fingerprint.hex(), "approved": int(self._clock())}
        with self._database.begin() as connection:
            connection.execute(delete(approvals_table).where(approvals_table.c.member == member))
            connection.execute(insert(approvals_table).values(**row))

    def revoke(self, member: str) -> bool:
        """Take the approval of `member` back; return whether there was one."""
        with self._database.begin() as connection:
            gone = connection.execute(delete(approvals_table).where(approvals_table.c.member == member))
            return bool(gone.rowcount)

    def all(self) -> dict[str, bytes]:
        """Return the approved fingerprint (32 bytes) of each member."""
        with self._database.read() as connection:
            return self.all_in(connection)

    @staticmethod
    def all_in(connection: Connection) -> dict[str, bytes]:
        """Return the same as the caller's transaction sees it."""
        return {row.member: bytes.fromhex(row.fingerprint) for row in _APPROVED.all(connection)}


class PeerBook:
    """Who counts for this node: listed in its own directory, not revoked, and approved by its owner.

    Args:
        directories: the directory as this node knows it.
        approvals: whom its owner approved.
        member: this node's member.
        own: this node's identity key.
    """

    def __init__(self, directories: Directories, approvals: Approvals, member: str, own: Verifier) -> None:
        self._directories = directories
        self._approvals = approvals
        self._member = member
        self._own = own

    def approved(self) -> dict[str, Verifier]:
        """Return the identity keys of all members that count, this one included, read afresh.

        Raises:
            ChaotianError: DIRECTORY where it has expired, or lists another key in this member's name.
        """
        return self._approved(self._approvals.all(), self._directories.current())

    def approved_in(self, connection: Connection) -> dict[str, Verifier]:
        """Return the same as the caller's transaction sees it."""
        return self._approved(self._approvals.all_in(connection), self._directories.current_in(connection))

    def _approved(self, approvals: Mapping[str, bytes], directory: Directory) -> dict[str, Verifier]:
        listings = self._checked(directory)
        keys = {
            member: listing.entry.identity_key
            for member, listing in listings.items()
            if listing.active and approvals.get(member) == listing.entry.fingerprint
        }
        return dict(sorted({**keys, self._member: self._own}.items()))

    def sealing_key(self, member: str) -> bytes:
        """Return the sealing key (1,216 bytes) of a member that counts.

        Raises:
            ChaotianError: NOT_FOUND, CERT_REVOKED, NOT_APPROVED, naming the member; DIRECTORY.
        """
        return self._counting(member).entry.sealing_key

    def verifier(self, member: str) -> Verifier:
        """Return the identity key of a member that counts; errors as for `sealing_key`."""
        return self._counting(member).entry.identity_key

    def coordinator(self) -> Verifier:
        """Return the identity key of the platform's coordinator, from the directory."""
        return self._directories.current().coordinator

    def listings(self) -> dict[str, Listing]:
        """Return all listings, approved or not, revoked or not."""
        return dict(self._listings())

    def approve(self, member: str, fingerprint: bytes) -> None:
        """Approve `member` if the directory lists exactly this fingerprint for it.

        Raises:
            ChaotianError: NOT_FOUND, CERT_REVOKED; NOT_APPROVED where the fingerprint is another.
        """
        listing = self._listed(member)
        if listing.entry.fingerprint != fingerprint:
            raise ChaotianError(
                "NOT_APPROVED",
                "the fingerprint given is not the one the directory lists for this member",
                member=member,
                hint="Do not approve it until the member explains the difference.",
            )
        self._approvals.approve(member, fingerprint)

    def _counting(self, member: str) -> Listing:
        listing = self._listed(member)
        if member != self._member and self._approvals.all().get(member) != listing.entry.fingerprint:
            raise ChaotianError("NOT_APPROVED", f"this node's owner has not approved {member}", member=member)
        return listing

    def _listed(self, member: str) -> Listing:
        listing = self._listings().get(member)
        if listing is None:
            raise ChaotianError("NOT_FOUND", "the directory lists no member of that name", member=member)
        if not listing.active:
            raise ChaotianError("CERT_REVOKED", f"{member} has been revoked", member=member)
        return listing

    def _listings(self) -> dict[str, Listing]:
        return self._checked(self._directories.current())

    def _checked(self, directory: Directory) -> dict[str, Listing]:
        listings = dict(directory.members)
        own = listings.get(self._member)
        if own is not None and own.entry.identity_key.public != self._own.public:
            raise ChaotianError(
                "DIRECTORY",
                "the member directory lists another identity key in this node's name",
                member=self._member,
                hint="Somebody else has enrolled in your name: tell the other members and the operator.",
            )
        return listings


def store_directory(connection: Connection, new: Directory, known: Directory | None, now: int) -> None:
    """Replace the stored directory by `new` and write down what changed."""
    row = {"version": new.version, "digest": new.digest, "data": new.data, "received": now}
    connection.execute(delete(directory_table))
    connection.execute(insert(directory_table).values(id=1, **row))
    changes = [
        {"version": new.version, "time": now, "member": member, "change": change}
        for member, change in new.changes_since(known)
    ]
    if changes:
        connection.execute(insert(directory_changes), changes)


def _pinned(connection: Connection) -> tuple[str, bytes]:
    text = connection.execute(select(membership.c.invitation)).scalar()
    if text is None:
        raise ChaotianError("CONFIG", "this node has not enrolled in a space")
    invitation = Invitation.from_document(json.loads(text))
    return invitation.space, invitation.directory_key.public
