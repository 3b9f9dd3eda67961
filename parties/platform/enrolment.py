"""Invitations and enrolment: how a member joins the space."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Row, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy, SystemEntropy
from gateway.identity.certificates import public_fingerprint, read_certificate, read_csr
from gateway.identity.directory import ACTIVE, REVOKED
from gateway.identity.enrolment import EnrolmentReply, EnrolmentRequest
from gateway.identity.invitation import TOKEN_BYTES, Invitation
from gateway.identity.names import PLATFORM, PeerName, check_city, check_name
from gateway.storage.tables.registry import certificates, invitations, members
from parties.platform.registry import Registry

MAX_INVITATION_SECONDS = 30 * 86400


class Enrolment:
    """Makes invitations and honours each of them once.

    Args:
        registry: the register of the space.
        entropy: source of the tokens.
    """

    def __init__(self, registry: Registry, *, entropy: Entropy | None = None) -> None:
        self._registry = registry
        self._entropy = entropy or SystemEntropy()

    def invite(self, *, member: str, role: str, city: str, valid: int) -> str:
        """Return the text of a new invitation, valid for `valid` seconds; only a hash of its token is kept.

        Raises:
            ChaotianError: USAGE; EXISTS where the space has an active member of that name.
        """
        registry = self._registry
        check_name(member, "member", code="USAGE")
        check_name(role, "role", code="USAGE")
        check_city(city, code="USAGE")
        if PLATFORM in (member, role):
            raise ChaotianError("USAGE", "the name platform is the platform's own")
        if not 1 <= valid <= MAX_INVITATION_SECONDS:
            raise ChaotianError("USAGE", "an invitation is valid for 1 second to 30 days")
        now = int(registry.clock())
        invitation = Invitation(
            space=registry.space,
            member=member,
            role=role,
            city=city,
            address=registry.config.address,
            enrol_address=registry.config.enrol_address,
            authority_pem=registry.authority_pem,
            directory_key=registry.directory_signer.verifier,
            token=self._entropy.bytes(TOKEN_BYTES),
            issued=now,
            expires=now + valid,
        )
        with registry.database.begin() as connection:
            self._check_free(connection, member, "EXISTS")
            row = {"member": member, "role": role, "city": city, "issued": now, "expires": now + valid}
            connection.execute(insert(invitations).values(token_hash=invitation.token_hash, **row))
            registry.note(connection, "invited", member, f"{role}, {city}")
        return invitation.render(registry.directory_signer)

    def enrol(self, request: EnrolmentRequest) -> EnrolmentReply:
        """Enrol a newcomer in one transaction: token used, certificate issued, directory published, or nothing.

        The same keys asking again with the same invitation, whose first reply was lost, get the same certificate.

        Raises:
            ChaotianError: INVITATION for a token that is unknown, expired or used, or that was given for another name;
                SIGNATURE, MALFORMED for a request that is not what it must be.
        """
        registry = self._registry
        name, key = read_csr(request.csr_pem)
        entry = request.verify().signed.entry
        if (entry.space, entry.role, entry.member) != (name.space, name.role, name.member) or entry.version != 1:
            raise ChaotianError("MALFORMED", "the signing request and the directory entry name different members")
        with registry.database.begin() as connection:
            row = connection.execute(select(invitations).where(invitations.c.token_hash == request.token_hash)).first()
            if row is None:
                raise ChaotianError("INVITATION", "the invitation is not one of this space")
            if name != PeerName(registry.space, row.role, row.member) or entry.city != row.city:
                raise ChaotianError("INVITATION", "the invitation was given for another name, role or city")
            if registry.clock() >= row.expires:
                raise ChaotianError("INVITATION", "the invitation has expired")
            if row.used_by is not None:
                return self._again(connection, row, request, key)
            return self._join(connection, request, name, key)

    def _join(
        self, connection: Connection, request: EnrolmentRequest, name: PeerName, key: ec.EllipticCurvePublicKey
    ) -> EnrolmentReply:
        registry, signed = self._registry, request.signed
        self._check_free(connection, name.member, "INVITATION")
        identity = signed.entry.identity_key
        if connection.execute(select(members.c.member).where(members.c.identity_key == identity.public)).first():
            raise ChaotianError(
                "INVITATION",
                "this identity key has been a member before",
                hint="Make a new home with `chaotian node init` and enrol from it.",
            )
        registry.check_room(connection)
        now = int(registry.clock())
        row: dict[str, object] = {"role": name.role, "city": signed.entry.city, "identity_key": identity.public}
        row |= {"status": ACTIVE, "enrolled": now, **registry.entry_row(signed)}
        gone = connection.execute(select(members.c.member).where(members.c.member == name.member)).first()
        if gone:  # revoked earlier, and invited again under the same name with new keys
            connection.execute(update(members).where(members.c.member == name.member).values(**row))
        else:
            connection.execute(insert(members).values(member=name.member, **row))
        certificate = registry.issue(connection, key, name)
        connection.execute(
            update(invitations)
            .where(invitations.c.token_hash == request.token_hash)
            .values(used_by=identity.fingerprint.hex(), used=now)
        )
        registry.note(connection, "enrolled", name.member, identity.fingerprint.hex())
        return EnrolmentReply(certificate, registry.publish(connection))

    def _again(
        self, connection: Connection, row: Row[Any], request: EnrolmentRequest, key: ec.EllipticCurvePublicKey
    ) -> EnrolmentReply:
        """Answer a repeated request: the reply to the first one may have been lost."""
        own = request.signed.entry.identity_key.fingerprint.hex()
        if row.used_by == own:
            held = connection.execute(
                select(certificates.c.pem)
                .join(members, members.c.member == certificates.c.member)
                .where(
                    certificates.c.member == row.member,
                    certificates.c.revoked.is_(None),
                    certificates.c.not_after > int(self._registry.clock()),
                    members.c.status == ACTIVE,
                )
            ).scalars()
            for pem in held:
                if read_certificate(pem).key_fingerprint == public_fingerprint(key):
                    return EnrolmentReply(pem, self._registry.in_force(connection))
        raise ChaotianError("INVITATION", "the invitation has been used")

    def _check_free(self, connection: Connection, member: str, code: str) -> None:
        status = connection.execute(select(members.c.status).where(members.c.member == member)).scalar()
        if status not in (None, REVOKED):
            raise ChaotianError(code, f"the space has an active member {member} already", member=member)
