"""The member directory: who belongs to a space, in one signed, versioned document that expires.

The platform signs the whole; each member signs its own entry, so the platform can leave out or invent members but not
change one. Invented members are met by approval (peers.py), omissions and rollbacks here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.primitives.sealing import PUBLIC_BYTES, load_public
from federation.primitives.signing import SIGNATURE_BYTES, Signer, Verifier
from gateway.identity.certificates import CLOCK_SKEW_SECONDS
from gateway.identity.fields import Fields, b64
from gateway.identity.names import PLATFORM, check_city, check_name

ENTRY_TAG = "chaotian/v1/directory-entry"
DIRECTORY_TAG = "chaotian/v1/directory"
DIRECTORY_SECONDS = 24 * 3600
MAX_DIRECTORY = 8 << 20
MAX_MEMBERS = 2000
MAX_SERIALS = 64
ACTIVE, REVOKED = "active", "revoked"
_ENTRY = ["v", "space", "member", "role", "city", "identity_key", "sealing_key", "version"]  # fmt: skip
_DIRECTORY = ["v", "space", "version", "issued", "expires", "directory_key", "coordinator", "entries"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entry:
    """What a member says of itself.

    Args:
        space: the space.
        member: its name.
        role: its role.
        city: its city.
        identity_key: the key it signs with.
        sealing_key: the raw public key (1,216 bytes) to which others seal what is meant for it.
        version: counts up with every change of the entry, from 1.
    """

    space: str
    member: str
    role: str
    city: str
    identity_key: Verifier
    sealing_key: bytes
    version: int

    @property
    def fingerprint(self) -> bytes:
        """Fingerprint of the identity key: 32 bytes, what owners compare and approve."""
        return self.identity_key.fingerprint

    def document(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {
            "v": 1,
            "space": self.space,
            "member": self.member,
            "role": self.role,
            "city": self.city,
            "identity_key": b64(self.identity_key.public),
            "sealing_key": b64(self.sealing_key),
            "version": self.version,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.document() == other.document()

    def __hash__(self) -> int:
        return hash((self.space, self.member, self.version))

    def sign(self, signer: Signer) -> SignedEntry:
        """Return the entry signed by its own identity key."""
        if signer.verifier.public != self.identity_key.public:
            raise ValueError("an entry is signed by the identity key it names")
        return SignedEntry(self, signer.sign(ENTRY_TAG, canonical_json(self.document())))

    @classmethod
    def from_document(cls, document: Any) -> Entry:
        """Return the entry of `document()`; anything else is MALFORMED."""
        read = Fields(document, _ENTRY, code="MALFORMED", what="a directory entry")
        read.one("v", 1)
        member, role = check_name(read.text("member"), "member"), check_name(read.text("role"), "role")
        if PLATFORM in (member, role):
            raise ChaotianError("MALFORMED", "a directory entry cannot have the platform's name")
        sealing_key = read.data("sealing_key", PUBLIC_BYTES)
        load_public(sealing_key)
        return cls(
            space=check_name(read.text("space"), "space"),
            member=member,
            role=role,
            city=check_city(read.text("city")),
            identity_key=Verifier(read.data("identity_key", 33)),
            sealing_key=sealing_key,
            version=read.integer("version", least=1, most=2**31 - 1),
        )


@dataclass(frozen=True)
class SignedEntry:
    """An entry and the member's own signature over it (65 bytes)."""

    entry: Entry
    signature: bytes

    def verify(self) -> Entry:
        """Return the entry if its signature is its own.

        Raises:
            ChaotianError: SIGNATURE, naming the member.
        """
        message = canonical_json(self.entry.document())
        self.entry.identity_key.verify(ENTRY_TAG, message, self.signature, member=self.entry.member)
        return self.entry

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"entry": self.entry.document(), "signature": b64(self.signature)}

    def to_bytes(self) -> bytes:
        """Return its canonical JSON."""
        return canonical_json(self.document())

    @classmethod
    def from_document(cls, document: Any) -> SignedEntry:
        """Return the signed entry of `document()`, its signature not yet verified; anything else is MALFORMED."""
        read = Fields(document, ("entry", "signature"), code="MALFORMED", what="a signed entry")
        return cls(Entry.from_document(read.raw("entry")), read.data("signature", SIGNATURE_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedEntry:
        """Return the signed entry of `to_bytes()`, its signature verified.

        Raises:
            ChaotianError: MALFORMED, BAD_DOCUMENT, SIGNATURE.
        """
        signed = cls.from_document(parse_canonical_json(data, limit=16 * 1024))
        signed.verify()
        return signed


@dataclass(frozen=True)
class Listing:
    """One member in the directory.

    Args:
        signed: its entry.
        status: `active` or `revoked`, as the platform says.
        serials: serial numbers (hexadecimal) of its certificates that are in force.
    """

    signed: SignedEntry
    status: str
    serials: tuple[str, ...]

    @property
    def entry(self) -> Entry:
        """What the member says of itself."""
        return self.signed.entry

    @property
    def active(self) -> bool:
        """Whether the member is not revoked."""
        return self.status == ACTIVE


@dataclass(frozen=True)
class Directory:
    """A directory that was verified, except where a docstring says otherwise.

    Args:
        space: the space.
        version: counts up with every publication.
        issued: Unix seconds.
        expires: Unix seconds.
        directory_key: the key that signed it.
        coordinator: identity key of the platform's coordinator, which signs terms.
        members: listings by member name, revoked ones included.
        digest: SHA-256 of the signed content in hexadecimal.
        data: the whole document as it came.
    """

    space: str
    version: int
    issued: int
    expires: int
    directory_key: Verifier
    coordinator: Verifier
    members: Mapping[str, Listing]
    digest: str
    data: bytes

    @staticmethod
    def build(
        *,
        space: str,
        version: int,
        issued: int,
        expires: int,
        coordinator: Verifier,
        listings: Iterable[Listing],
        signer: Signer,
    ) -> bytes:
        """Return a directory signed by `signer`, the directory key."""
        entries = sorted(listings, key=lambda listing: listing.entry.member)
        content = {
            "v": 1,
            "space": space,
            "version": version,
            "issued": issued,
            "expires": expires,
            "directory_key": b64(signer.verifier.public),
            "coordinator": b64(coordinator.public),
            "entries": [
                {**listing.signed.document(), "status": listing.status, "serials": sorted(listing.serials)}
                for listing in entries
            ],
        }
        signature = signer.sign(DIRECTORY_TAG, canonical_json(content))
        return canonical_json({"directory": content, "signature": b64(signature)})

    @classmethod
    def verify(
        cls, data: bytes, *, space: str, directory_key: bytes, now: float, known: Directory | None = None
    ) -> Directory:
        """Return the directory in `data` if everything about it can be trusted.

        Args:
            data: the document.
            space: the space this node belongs to.
            directory_key: the pinned directory key (33 bytes).
            now: Unix seconds.
            known: the newest directory this node has verified before.

        Raises:
            ChaotianError: DIRECTORY for another key or space, a signature that does not verify, a document that is
                expired, from the future, older than `known`, different under the same version, or that drops a
                member or brings back an older entry of one.
        """
        directory = cls.read(data, space=space, directory_key=directory_key)
        if now >= directory.expires:
            raise _wrong("it has expired", hint="Check the clock; the platform publishes a new one every few hours.")
        if directory.issued > now + CLOCK_SKEW_SECONDS:
            raise _wrong("it is from the future", hint="Check this machine's clock.")
        if known is not None:
            directory._check_follows(known)
        return directory

    @classmethod
    def read(cls, data: bytes, *, space: str, directory_key: bytes) -> Directory:
        """Return the directory in `data` with all signatures verified, whatever its age.

        Raises:
            ChaotianError: DIRECTORY.
        """
        try:
            return cls._read(data, space, directory_key)
        except ChaotianError as error:
            if error.code == "DIRECTORY":
                raise
            raise ChaotianError("DIRECTORY", f"the member directory: {error.detail}", member=error.member) from None

    @classmethod
    def _read(cls, data: bytes, space: str, directory_key: bytes) -> Directory:
        outer = Fields(
            parse_canonical_json(data, limit=MAX_DIRECTORY),
            ("directory", "signature"),
            code="DIRECTORY",
            what="the member directory",
        )
        content = outer.raw("directory")
        read = Fields(content, _DIRECTORY, code="DIRECTORY", what="the member directory")
        if read.data("directory_key", 33) != directory_key:
            raise _wrong("it is signed by another key than the one pinned at enrolment")
        signer = Verifier(directory_key)
        message = canonical_json(content)
        signer.verify(DIRECTORY_TAG, message, outer.data("signature", SIGNATURE_BYTES))
        read.one("v", 1)
        if read.text("space") != space:
            raise _wrong("it is of another space")
        issued = read.integer("issued")
        listings = [_listing(item, space) for item in read.items("entries", MAX_MEMBERS)]
        names = [listing.entry.member for listing in listings]
        if names != sorted(set(names)):
            raise _wrong("its members are not sorted and single")
        if len({listing.entry.identity_key.public for listing in listings}) != len(listings):
            raise _wrong("two members have the same identity key")
        return cls(
            space=space,
            version=read.integer("version", least=1),
            issued=issued,
            expires=read.integer("expires", least=issued, most=issued + DIRECTORY_SECONDS),
            directory_key=signer,
            coordinator=Verifier(read.data("coordinator", 33)),
            members=dict(zip(names, listings, strict=True)),
            digest=hashlib.sha256(message).hexdigest(),
            data=bytes(data),
        )

    def _check_follows(self, known: Directory) -> None:
        if self.version < known.version:
            raise _wrong(f"version {self.version} is older than version {known.version}, which is known")
        if self.version == known.version and self.digest != known.digest:
            raise _wrong(f"version {self.version} has two contents", hint="The platform shows members different lists.")
        for member, before in known.members.items():
            after = self.members.get(member)
            if after is None:
                raise _wrong("a member is missing that was listed before", member=member)
            if after.entry.identity_key.public != before.entry.identity_key.public:
                continue  # enrolled anew under the same name: approval is needed anew
            if after.entry.version < before.entry.version:
                raise _wrong("it brings back an older entry", member=member)
            if after.entry.version == before.entry.version and after.entry != before.entry:
                raise _wrong("a member's entry has two contents under one version", member=member)

    def changes_since(self, known: Directory | None) -> list[tuple[str, str]]:
        """Return (member, change) for what differs from `known`.

        Changes are `joined`, `revoked`, `restored`, `new identity key`, `new sealing key`, `entry changed`, and for the
        platform `new coordinator key`.
        """
        changes: list[tuple[str, str]] = []
        if known is not None and known.coordinator.public != self.coordinator.public:
            changes.append((PLATFORM, "new coordinator key"))
        for member, after in self.members.items():
            before = known.members.get(member) if known else None
            if before is None:
                changes.append((member, "joined"))
                if not after.active:
                    changes.append((member, "revoked"))
                continue
            if before.status != after.status:
                changes.append((member, "restored" if after.active else "revoked"))
            if before.entry.identity_key.public != after.entry.identity_key.public:
                changes.append((member, "new identity key"))
            elif before.entry.sealing_key != after.entry.sealing_key:
                changes.append((member, "new sealing key"))
            elif before.entry != after.entry:
                changes.append((member, "entry changed"))
        return changes


def _listing(item: Any, space: str) -> Listing:
    read = Fields(item, ("entry", "signature", "status", "serials"), code="DIRECTORY", what="a directory entry")
    signed = SignedEntry.from_document({"entry": read.raw("entry"), "signature": read.raw("signature")})
    signed.verify()
    if signed.entry.space != space:
        raise _wrong("an entry was signed for another space", member=signed.entry.member)
    status = read.text("status")
    if status not in (ACTIVE, REVOKED):
        raise _wrong("an entry has an unknown status", member=signed.entry.member)
    serials = read.items("serials", MAX_SERIALS)
    if not all(isinstance(s, str) and 0 < len(s) <= 40 and set(s) <= set("0123456789abcdef") for s in serials):
        raise _wrong("an entry has a malformed certificate serial", member=signed.entry.member)
    return Listing(signed, status, tuple(serials))


def _wrong(why: str, *, member: str = "", hint: str = "") -> ChaotianError:
    return ChaotianError("DIRECTORY", f"the member directory is refused: {why}", member=member, hint=hint)
