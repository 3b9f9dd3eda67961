"""The register of a space: members, their certificates and entries, and the directory that publishes them.

No network here: every method is one transaction, callable from any thread or process that can open the platform's
secrets. Who calls was authenticated before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, delete, func, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.signing import Signer, Verifier
from gateway.identity.certificates import CertificateInfo, check_certificate, read_certificate, read_csr
from gateway.identity.directory import (
    ACTIVE,
    DIRECTORY_SECONDS,
    MAX_MEMBERS,
    MAX_SERIALS,
    REVOKED,
    Directory,
    Entry,
    Listing,
    SignedEntry,
)
from gateway.identity.home import PlatformConfig
from gateway.identity.invitation import address_host
from gateway.identity.names import PeerName
from gateway.identity.platform import PlatformIdentity, PlatformKeys
from gateway.storage.base import Database
from gateway.storage.tables.registry import certificates, invitations, members, published_directory, registry_events


@dataclass(frozen=True)
class MemberRecord:
    """One member as the register knows it. Times are Unix seconds; `fingerprint` is that of its identity key."""

    member: str
    role: str
    city: str
    fingerprint: bytes
    status: str
    entry_version: int
    enrolled: int
    changed: int
    certificate_expires: int


@dataclass(frozen=True)
class Event:
    """Something that happened in the register (Unix seconds): `invited enrolled renewed rotated revoked`."""

    id: int
    time: int
    kind: str
    member: str
    detail: str


class Registry:
    """The register of one space.

    Args:
        database: the platform's database.
        keys: the platform's keys.
        config: names, addresses and lifetimes.
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        keys: PlatformKeys,
        config: PlatformConfig,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.config = config
        self.clock = clock
        self.space = config.space
        self.authority = keys.authority()
        self.directory_signer = keys.directory_signer()
        self.coordinator: Signer = keys.coordinator()
        self._keys = keys

    @property
    def authority_pem(self) -> str:
        """Certificate of the space's authority."""
        return self.authority.certificate_pem

    def tls(self) -> tuple[bytes, str]:
        """Return the platform's TLS key and certificate (PEM), renewed in time: ask again at least daily."""
        hosts = [address_host(self.config.address), address_host(self.config.enrol_address)]
        return self._keys.tls(hosts, self.config.certificate_seconds)

    def identity(self) -> PlatformIdentity:
        """Return who the platform is now."""
        key, certificate = self.tls()
        return PlatformIdentity(
            space=self.space,
            signer=self.coordinator,
            directory_key=self.directory_signer.verifier,
            tls_key_pem=key,
            certificate_pem=certificate,
            authority_pem=self.authority_pem,
        )

    # --- members ----------------------------------------------------------------------------------------

    def admit(self, certificate: bytes | str) -> MemberRecord:
        """Return the member for whom a client certificate speaks.

        Raises:
            ChaotianError: MALFORMED, SIGNATURE, CERT_EXPIRED; NOT_PERMITTED where the space, member or role is
                another than registered; CERT_REVOKED.
        """
        info = check_certificate(certificate, self.authority_pem, self.clock())
        with self.database.read() as connection:
            record = self._record(connection, info.name)
            self._check_not_revoked(connection, info)
        return record

    def is_revoked(self, member: str, serial: str | int) -> bool:
        """Return whether a certificate no longer speaks for `member`; one never issued to it counts as revoked."""
        text = serial if isinstance(serial, str) else f"{serial:x}"
        with self.database.read() as connection:
            return not connection.execute(
                select(certificates.c.serial)
                .join(members, members.c.member == certificates.c.member)
                .where(
                    certificates.c.serial == text,
                    certificates.c.member == member,
                    certificates.c.revoked.is_(None),
                    members.c.status == ACTIVE,
                )
            ).first()

    def refused(self, serials: Collection[int]) -> set[int]:
        """Return those of the serial numbers whose certificates are revoked, expired or were never issued."""
        texts = [f"{serial:x}" for serial in serials]
        with self.database.read() as connection:
            good = connection.scalars(
                select(certificates.c.serial)
                .join(members, members.c.member == certificates.c.member)
                .where(
                    certificates.c.serial.in_(texts),
                    certificates.c.revoked.is_(None),
                    certificates.c.not_after > int(self.clock()),
                    members.c.status == ACTIVE,
                )
            ).all()
        return set(serials) - {int(serial, 16) for serial in good}

    def members(self) -> list[MemberRecord]:
        """Return all members by name, revoked ones included."""
        latest = (
            select(certificates.c.member, func.max(certificates.c.not_after).label("expires"))
            .group_by(certificates.c.member)
            .subquery()
        )
        with self.database.read() as connection:
            rows = connection.execute(
                select(members, latest.c.expires)
                .join(latest, latest.c.member == members.c.member, isouter=True)
                .order_by(members.c.member)
            ).all()
        return [
            MemberRecord(
                member=row.member,
                role=row.role,
                city=row.city,
                fingerprint=Verifier(row.identity_key).fingerprint,
                status=row.status,
                entry_version=row.entry_version,
                enrolled=row.enrolled,
                changed=row.changed,
                certificate_expires=row.expires or 0,
            )
            for row in rows
        ]

    def verifiers(self) -> dict[str, Verifier]:
        """Return the identity keys of the members that are not revoked."""
        with self.database.read() as connection:
            active = select(members.c.member, members.c.identity_key).where(members.c.status == ACTIVE)
            return {row.member: Verifier(row.identity_key) for row in connection.execute(active)}

    def renew(self, caller: PeerName, csr_pem: str) -> str:
        """Return a new certificate (PEM) for an authenticated member; its earlier ones stay valid to their end.

        Raises:
            ChaotianError: MALFORMED; NOT_PERMITTED where the request names another than the caller; CERT_REVOKED;
                QUOTA where it holds too many valid certificates.
        """
        name, key = read_csr(csr_pem)
        if name != caller:
            raise ChaotianError("NOT_PERMITTED", "a member renews its own certificate only", member=caller.member)
        with self.database.begin() as connection:
            self._record(connection, caller)
            if len(self._serials(connection, caller.member)) >= MAX_SERIALS:
                raise ChaotianError("QUOTA", "this member holds too many valid certificates", member=caller.member)
            certificate = self.issue(connection, key, caller)
            self.note(connection, "renewed", caller.member, read_certificate(certificate).serial)
            self.publish(connection)
        return certificate

    def rotate(self, caller: PeerName, signed: SignedEntry) -> bytes:
        """Publish a member's changed entry and return the new directory; repeating it changes nothing.

        Raises:
            ChaotianError: SIGNATURE; NOT_PERMITTED where anything but sealing key and version differs; REPLAY for an
                older version; CERT_REVOKED.
        """
        entry = signed.verify()
        with self.database.begin() as connection:
            self._record(connection, caller)
            row = connection.execute(select(members).where(members.c.member == caller.member)).one()
            known = stored_entry(row.entry, row.entry_signature).entry
            same = (entry.space, entry.member, entry.role, entry.city, entry.identity_key.public)
            if same != (known.space, known.member, known.role, known.city, known.identity_key.public):
                raise ChaotianError("NOT_PERMITTED", "an entry may change its sealing key only", member=caller.member)
            if entry.version == known.version and entry.sealing_key == known.sealing_key:
                return self.in_force(connection)
            if entry.version <= known.version:
                raise ChaotianError("REPLAY", f"entry version {entry.version} was used before", member=caller.member)
            connection.execute(
                update(members).where(members.c.member == caller.member).values(**self.entry_row(signed))
            )
            self.note(connection, "rotated", caller.member, f"entry version {entry.version}")
            return self.publish(connection)

    def revoke(self, member: str) -> None:
        """Revoke a member and all its certificates; repeating it changes nothing.

        Raises:
            ChaotianError: NOT_FOUND.
        """
        now = int(self.clock())
        with self.database.begin() as connection:
            status = connection.execute(select(members.c.status).where(members.c.member == member)).scalar()
            if status is None:
                raise ChaotianError("NOT_FOUND", "the space has no member of that name", member=member)
            if status == REVOKED:
                return
            connection.execute(update(members).where(members.c.member == member).values(status=REVOKED, changed=now))
            connection.execute(
                update(certificates)
                .where(certificates.c.member == member, certificates.c.revoked.is_(None))
                .values(revoked=now)
            )
            # An invitation still open would let the member straight back in.
            connection.execute(
                update(invitations)
                .where(invitations.c.member == member, invitations.c.used_by.is_(None), invitations.c.expires > now)
                .values(expires=now)
            )
            self.note(connection, "revoked", member, "")
            self.publish(connection)

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return what happened, oldest first, beginning after the id `after`."""
        with self.database.read() as connection:
            statement = select(registry_events).where(registry_events.c.id > after).order_by(registry_events.c.id)
            return [Event(**row) for row in connection.execute(statement.limit(limit)).mappings()]

    # --- the directory ----------------------------------------------------------------------------------

    def directory(self) -> bytes:
        """Return the directory in force, signed anew when half of its life is over."""
        with self.database.read() as connection:
            data = self._fresh(connection)
        if data is not None:
            return data
        with self.database.begin() as connection:
            return self.in_force(connection)

    def directory_version(self) -> int:
        """Return the version of the directory in force (0: none yet); it changes with every publication."""
        with self.database.read() as connection:
            return connection.execute(select(published_directory.c.version)).scalar() or 0

    def publish(self, connection: Connection) -> bytes:
        """Sign and store the next version of the directory, inside the caller's transaction, and return it."""
        now = int(self.clock())
        version = (connection.execute(select(published_directory.c.version)).scalar() or 0) + 1
        listings = [
            Listing(
                stored_entry(row.entry, row.entry_signature),
                row.status,
                tuple(self._serials(connection, row.member)[-MAX_SERIALS:]),
            )
            for row in connection.execute(select(members)).all()
        ]
        expires = now + self._directory_seconds()
        data = Directory.build(
            space=self.space,
            version=version,
            issued=now,
            expires=expires,
            coordinator=self.coordinator.verifier,
            listings=listings,
            signer=self.directory_signer,
        )
        connection.execute(delete(published_directory))
        connection.execute(insert(published_directory).values(id=1, version=version, expires=expires, data=data))
        return data

    def in_force(self, connection: Connection) -> bytes:
        """Return the directory in force, inside the caller's transaction, signed anew where half its life is over."""
        return self._fresh(connection) or self.publish(connection)

    # --- pieces for enrolment.py ------------------------------------------------------------------------

    def issue(self, connection: Connection, key: ec.EllipticCurvePublicKey, name: PeerName) -> str:
        """Issue and register a certificate, inside the caller's transaction, and return it (PEM)."""
        pem = self.authority.issue(key, name, self.clock(), self.config.certificate_seconds)
        info = read_certificate(pem)
        row = {"serial": info.serial, "pem": pem, "not_before": info.not_before, "not_after": info.not_after}
        connection.execute(insert(certificates).values(member=name.member, **row))
        return pem

    def entry_row(self, signed: SignedEntry) -> dict[str, object]:
        """Return the columns of `members` that come from an entry."""
        return {
            "entry": canonical_json(signed.entry.document()),
            "entry_signature": signed.signature,
            "entry_version": signed.entry.version,
            "changed": int(self.clock()),
        }

    def note(self, connection: Connection, kind: str, member: str, detail: str) -> None:
        """Write down an event, inside the caller's transaction."""
        row = {"time": int(self.clock()), "kind": kind, "member": member, "detail": detail}
        connection.execute(insert(registry_events).values(**row))

    def check_room(self, connection: Connection) -> None:
        """Refuse a member more than a directory may list."""
        if connection.execute(select(func.count()).select_from(members)).scalar_one() >= MAX_MEMBERS:
            raise ChaotianError("QUOTA", f"a space has at most {MAX_MEMBERS} members")

    def _directory_seconds(self) -> int:
        return min(self.config.directory_seconds, DIRECTORY_SECONDS)

    def _fresh(self, connection: Connection) -> bytes | None:
        row = connection.execute(select(published_directory.c.expires, published_directory.c.data)).first()
        if row is None or row.expires - self.clock() <= self._directory_seconds() / 2:
            return None
        return bytes(row.data)

    def _serials(self, connection: Connection, member: str) -> list[str]:
        """Return the serials of a member's valid certificates, oldest first."""
        valid = (
            certificates.c.member == member,
            certificates.c.revoked.is_(None),
            certificates.c.not_after > int(self.clock()),
        )
        statement = select(certificates.c.serial).where(*valid).order_by(certificates.c.not_before)
        return list(connection.scalars(statement))

    def _check_not_revoked(self, connection: Connection, info: CertificateInfo) -> None:
        row = connection.execute(
            select(certificates.c.member, certificates.c.revoked).where(certificates.c.serial == info.serial)
        ).first()
        if row is None or row.member != info.name.member or row.revoked is not None:
            raise ChaotianError("CERT_REVOKED", "this certificate is not in force", member=info.name.member)

    def _record(self, connection: Connection, name: PeerName) -> MemberRecord:
        row = connection.execute(select(members).where(members.c.member == name.member)).first()
        if name.space != self.space or row is None or row.role != name.role:
            raise ChaotianError("NOT_PERMITTED", "this space has no such member in that role", member=name.member)
        if row.status != ACTIVE:
            raise ChaotianError("CERT_REVOKED", f"{name.member} has been revoked", member=name.member)
        return MemberRecord(
            member=row.member,
            role=row.role,
            city=row.city,
            fingerprint=Verifier(row.identity_key).fingerprint,
            status=row.status,
            entry_version=row.entry_version,
            enrolled=row.enrolled,
            changed=row.changed,
            certificate_expires=0,
        )


def stored_entry(entry: bytes, signature: bytes) -> SignedEntry:
    """Return an entry as the register stored it."""
    return SignedEntry(Entry.from_document(json.loads(entry)), bytes(signature))
