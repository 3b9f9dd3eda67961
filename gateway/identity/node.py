"""A node's own identity: keys it makes and keeps sealed, its certificate, its entry in the directory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.entropy import Entropy, SystemEntropy
from federation.primitives.sealing import SECRET_BYTES, Opener
from federation.primitives.signing import Signer, Verifier
from gateway.identity.certificates import (
    CertificateInfo,
    check_certificate,
    generate_tls_key,
    key_from_pem,
    key_to_pem,
    make_csr,
    public_fingerprint,
    read_certificate,
    renewal_due,
    renewal_in,
)
from gateway.identity.directory import Directory, Entry, SignedEntry
from gateway.identity.enrolment import EnrolmentReply, EnrolmentRequest
from gateway.identity.invitation import Invitation
from gateway.identity.names import PeerName
from gateway.identity.peers import Approvals, Directories, PeerBook, store_directory
from gateway.storage.base import Database
from gateway.storage.secrets import SecretBox
from gateway.storage.tables.identity import membership, node_keys, sealing_keys

SEALING_SECONDS = 24 * 3600  # a sealing key is replaced after a day
KEEP_SECONDS = 48 * 3600  # and opens for two days more: a directory naming it is valid for one
_IDENTITY, _TLS, _TLS_NEXT = "identity", "tls", "tls-next"


@dataclass(frozen=True)
class NodeIdentity:
    """Who this node is, at one moment.

    Args:
        name: space, role and member.
        city: the member's city.
        signer: signs what outlives a connection.
        openers: open what others seal to this node: the current key first, then those just replaced.
        tls_key_pem: private TLS key (PKCS#8 PEM).
        certificate_pem: its certificate.
        authority_pem: certificate of the space's authority: the only one to trust.
        address: HOST:PORT of the platform.
        directory_key: the pinned key that signs the directory.
    """

    name: PeerName
    city: str
    signer: Signer
    openers: tuple[Opener, ...]
    tls_key_pem: bytes = field(repr=False)
    certificate_pem: str = field(repr=False)
    authority_pem: str = field(repr=False)
    address: str
    directory_key: Verifier

    @property
    def space(self) -> str:
        """The space."""
        return self.name.space

    @property
    def role(self) -> str:
        """The role."""
        return self.name.role

    @property
    def member(self) -> str:
        """The member's name."""
        return self.name.member

    @property
    def opener(self) -> Opener:
        """The current sealing key."""
        return self.openers[0]

    @property
    def certificate(self) -> CertificateInfo:
        """What the certificate says."""
        return read_certificate(self.certificate_pem)


class NodeKeys:
    """Keys and membership of one node, in its database.

    Args:
        database: the node's database.
        box: what opens its secrets.
        entropy: source of randomness for identity and sealing keys (TLS keys come from the TLS library's own).
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        box: SecretBox,
        *,
        entropy: Entropy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self._box = box
        self._entropy = entropy or SystemEntropy()
        self._clock = clock

    def create(self) -> None:
        """Make the node's keys. An existing set is left as it is, so that an interrupted `init` can be repeated."""
        with self.database.begin() as connection:
            if connection.execute(select(node_keys.c.name).where(node_keys.c.name == _IDENTITY)).first():
                return
            self._put_key(connection, _IDENTITY, self._entropy.bytes(32))
            self._put_key(connection, _TLS, key_to_pem(generate_tls_key()))
            self._put_sealing(connection, 1)

    # --- enrolment --------------------------------------------------------------------------------------

    def enrolment_request(self, invitation: Invitation) -> EnrolmentRequest:
        """Return what to send to the platform. Repeating it gives the same keys and entry.

        Raises:
            ChaotianError: INVITATION where it is not valid now; EXISTS where this node is a member already.
        """
        invitation.check(self._clock())
        with self.database.read() as connection:
            if connection.execute(select(membership.c.id)).first():
                raise ChaotianError(
                    "EXISTS", "this node has enrolled already", hint="A second membership needs a home."
                )
            signer = self._signer(connection)
            tls_key = key_from_pem(self._key(connection, _TLS))
            signed = self._first_entry(connection, invitation, signer)
        name = PeerName(invitation.space, invitation.role, invitation.member)
        return EnrolmentRequest.make(invitation.token, make_csr(tls_key, name), signed, signer)

    def enrolled(self, invitation: Invitation, reply: EnrolmentReply) -> NodeIdentity:
        """Check the platform's reply, keep it, and return who this node now is.

        Raises:
            ChaotianError: SIGNATURE, MALFORMED, CERT_EXPIRED for the certificate; DIRECTORY.
        """
        now = self._clock()
        name = PeerName(invitation.space, invitation.role, invitation.member)
        info = check_certificate(reply.certificate_pem, invitation.authority_pem, now)
        known_key = invitation.directory_key.public
        directory = Directory.verify(reply.directory, space=invitation.space, directory_key=known_key, now=now)
        with self.database.begin() as connection:
            signer = self._signer(connection)
            signed = self._first_entry(connection, invitation, signer)
            self._check_own_key(connection, _TLS, info, name)
            listing = directory.members.get(invitation.member)
            if listing is None or listing.entry != signed.entry or not listing.active:
                raise ChaotianError("DIRECTORY", "the member directory does not list this node as it enrolled")
            row = {
                "invitation": canonical_json(invitation.document(with_token=False)).decode(),
                "certificate": reply.certificate_pem,
                "entry": canonical_json(signed.entry.document()),
                "entry_signature": signed.signature,
                "enrolled": int(now),
            }
            if connection.execute(select(membership.c.id)).first():
                raise ChaotianError("EXISTS", "this node has enrolled already")
            connection.execute(insert(membership).values(id=1, **row))
            store_directory(connection, directory, None, int(now))
        return self.identity()

    # --- what the node is -------------------------------------------------------------------------------

    def identity(self) -> NodeIdentity:
        """Return who this node is now.

        Raises:
            ChaotianError: CONFIG where it has not enrolled.
        """
        with self.database.read() as connection:
            row = _membership(connection)
            invitation = Invitation.from_document(json.loads(row["invitation"]))
            return NodeIdentity(
                name=PeerName(invitation.space, invitation.role, invitation.member),
                city=invitation.city,
                signer=self._signer(connection),
                openers=self._openers(connection),
                tls_key_pem=self._key(connection, _TLS),
                certificate_pem=row["certificate"],
                authority_pem=invitation.authority_pem,
                address=invitation.address,
                directory_key=invitation.directory_key,
            )

    def fingerprint(self) -> bytes:
        """Return the fingerprint of the identity key (32 bytes), also before enrolment."""
        with self.database.read() as connection:
            return self._signer(connection).verifier.fingerprint

    def openers(self) -> tuple[Opener, ...]:
        """Return the sealing keys that still open, the current one first."""
        with self.database.read() as connection:
            return self._openers(connection)

    @cached_property
    def directories(self) -> Directories:
        """The directory as this node knows it."""
        return Directories(self.database, clock=self._clock)

    @cached_property
    def approvals(self) -> Approvals:
        """Whom this node's owner has approved."""
        return Approvals(self.database, clock=self._clock)

    @cached_property
    def peers(self) -> PeerBook:
        """Directory and approvals together: who counts."""
        return peer_book(self.database, clock=self._clock)

    # --- renewal and rotation ---------------------------------------------------------------------------

    def renewal_due(self) -> bool:
        """Return whether at most a third of the certificate's lifetime is left."""
        return renewal_due(self.identity().certificate, self._clock())

    def renewal_in(self) -> float:
        """Return the seconds until the certificate is due for renewal; negative where it is."""
        return renewal_in(self.identity().certificate, self._clock())

    def renewal_request(self) -> str:
        """Return a signing request (PEM) for a new TLS key; the old one stays in use until the certificate is here."""
        name = self.identity().name
        with self.database.begin() as connection:
            if not connection.execute(select(node_keys.c.name).where(node_keys.c.name == _TLS_NEXT)).first():
                self._put_key(connection, _TLS_NEXT, key_to_pem(generate_tls_key()))
            return make_csr(key_from_pem(self._key(connection, _TLS_NEXT)), name)

    def renewed(self, certificate_pem: str) -> NodeIdentity:
        """Check a new certificate, put it and its key in use, and return the identity with them.

        Raises:
            ChaotianError: SIGNATURE, MALFORMED, CERT_EXPIRED; CONFIG where no renewal was asked for.
        """
        identity = self.identity()
        info = check_certificate(certificate_pem, identity.authority_pem, self._clock())
        with self.database.begin() as connection:
            self._check_own_key(connection, _TLS_NEXT, info, identity.name)
            pem = self._key(connection, _TLS_NEXT)
            connection.execute(delete(node_keys).where(node_keys.c.name.in_([_TLS, _TLS_NEXT])))
            self._put_key(connection, _TLS, pem)
            connection.execute(update(membership).values(certificate=certificate_pem))
        return self.identity()

    def rotate_sealing(self) -> SignedEntry | None:
        """Replace the sealing key if its day is over; return the entry that the platform still has to publish, if any.

        Call it after every directory and at least hourly. A replaced key opens for 48 hours after this node saw its
        successor published; then it is deleted.
        """
        now = int(self._clock())
        listed = self.directories.latest()
        with self.database.begin() as connection:
            row = _membership(connection)
            signed = _stored_entry(row)
            own = listed.members.get(signed.entry.member) if listed else None
            if own is None or own.entry.version < signed.entry.version:
                return signed
            old = sealing_keys.c.version < signed.entry.version
            connection.execute(update(sealing_keys).where(old, sealing_keys.c.retired.is_(None)).values(retired=now))
            connection.execute(delete(sealing_keys).where(sealing_keys.c.retired <= now - KEEP_SECONDS))
            newest = sealing_keys.c.version == signed.entry.version
            created = connection.execute(select(sealing_keys.c.created).where(newest)).scalar_one()
            if 0 <= now - created < SEALING_SECONDS:
                return None
            version = signed.entry.version + 1
            opener = self._put_sealing(connection, version)
            entry = Entry(
                space=signed.entry.space,
                member=signed.entry.member,
                role=signed.entry.role,
                city=signed.entry.city,
                identity_key=signed.entry.identity_key,
                sealing_key=opener.public,
                version=version,
            )
            signed = entry.sign(self._signer(connection))
            connection.execute(
                update(membership).values(entry=canonical_json(entry.document()), entry_signature=signed.signature)
            )
            return signed

    # --- rows -------------------------------------------------------------------------------------------

    def _first_entry(self, connection: Connection, invitation: Invitation, signer: Signer) -> SignedEntry:
        entry = Entry(
            space=invitation.space,
            member=invitation.member,
            role=invitation.role,
            city=invitation.city,
            identity_key=signer.verifier,
            sealing_key=self._openers(connection)[0].public,
            version=1,
        )
        return entry.sign(signer)

    def _check_own_key(self, connection: Connection, key: str, info: CertificateInfo, name: PeerName) -> None:
        own = public_fingerprint(key_from_pem(self._key(connection, key)).public_key())
        if info.name != name or info.key_fingerprint != own:
            raise ChaotianError("MALFORMED", "the certificate is for another name or key than was asked for")

    def _put_key(self, connection: Connection, name: str, secret: bytes) -> None:
        sealed = self._box.seal(secret, table="node_keys", row=name, column="sealed")
        connection.execute(insert(node_keys).values(name=name, sealed=sealed, created=int(self._clock())))

    def _key(self, connection: Connection, name: str) -> bytes:
        sealed = connection.execute(select(node_keys.c.sealed).where(node_keys.c.name == name)).scalar()
        if sealed is None:
            raise ChaotianError("CONFIG", f"this home has no {name} key", hint="Make a home with `chaotian node init`.")
        return self._box.open(sealed, table="node_keys", row=name, column="sealed")

    def _signer(self, connection: Connection) -> Signer:
        return Signer(self._key(connection, _IDENTITY))

    def _put_sealing(self, connection: Connection, version: int) -> Opener:
        secret = self._entropy.bytes(SECRET_BYTES)
        sealed = self._box.seal(secret, table="sealing_keys", row=str(version), column="sealed")
        connection.execute(insert(sealing_keys).values(version=version, sealed=sealed, created=int(self._clock())))
        return Opener(secret)

    def _openers(self, connection: Connection) -> tuple[Opener, ...]:
        horizon = int(self._clock()) - KEEP_SECONDS
        rows = connection.execute(
            select(sealing_keys.c.version, sealing_keys.c.sealed)
            .where(sealing_keys.c.retired.is_(None) | (sealing_keys.c.retired > horizon))
            .order_by(sealing_keys.c.version.desc())
        ).all()
        place = {"table": "sealing_keys", "column": "sealed"}
        return tuple(Opener(self._box.open(row.sealed, row=str(row.version), **place)) for row in rows)


def own_entry(database: Database) -> Entry | None:
    """Return the entry this node signed last, without opening any secret; None before enrolment."""
    with database.read() as connection:
        row = connection.execute(select(membership.c.entry, membership.c.entry_signature)).mappings().first()
    return _stored_entry(row).entry if row else None


def peer_book(database: Database, *, clock: Callable[[], float] = time.time) -> PeerBook:
    """Return who counts for the node of `database`, without opening any secret.

    Raises:
        ChaotianError: CONFIG where it has not enrolled.
    """
    with database.read() as connection:
        own = _stored_entry(_membership(connection)).entry
    return PeerBook(Directories(database, clock=clock), Approvals(database, clock=clock), own.member, own.identity_key)


def _membership(connection: Connection) -> Any:
    row = connection.execute(select(membership)).mappings().first()
    if row is None:
        raise ChaotianError(
            "CONFIG", "this node has not enrolled in a space", hint="Run `chaotian node enrol INVITATION` first."
        )
    return row


def _stored_entry(row: Any) -> SignedEntry:
    return SignedEntry(Entry.from_document(json.loads(row["entry"])), row["entry_signature"])
