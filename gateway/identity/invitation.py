"""Invitations: one printable text that lets one named member join one space once.

It carries what a newcomer must know out of band: where the platform is, which authority to trust, and the key that
signs the directory. That key also signs the invitation, so no field can be changed alone; who replaces the
key too is found out by comparing its fingerprint with the operator's, by telephone.
"""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.primitives.signing import SIGNATURE_BYTES, Signer, Verifier
from gateway.identity.authority import check_authority
from gateway.identity.certificates import CLOCK_SKEW_SECONDS
from gateway.identity.fields import Fields, b64, unb64
from gateway.identity.fingerprints import show_fingerprint
from gateway.identity.names import PLATFORM, check_city, check_name

TAG = "chaotian/v1/invitation"
TOKEN_BYTES = 32
MAX_TEXT = 32 * 1024
MAX_ADDRESS = 255 + 6
_BEGIN, _END = "-----BEGIN CHAOTIAN INVITATION-----", "-----END CHAOTIAN INVITATION-----"
_NAMES = (
    *("v", "space", "member", "role", "city", "address", "enrol_address"),
    *("authority", "directory_key", "token", "issued", "expires"),
)


@dataclass(frozen=True)
class Invitation:
    """What an invitation says.

    Args:
        space: the space to join.
        member: the name it gives.
        role: the role it gives.
        city: the member's city.
        address: HOST:PORT of the platform for members.
        enrol_address: HOST:PORT for enrolment.
        authority_pem: certificate of the space's authority.
        directory_key: the key that signs the member directory.
        token: 32 secret bytes; who holds them may enrol.
        issued: Unix seconds.
        expires: Unix seconds.
    """

    space: str
    member: str
    role: str
    city: str
    address: str
    enrol_address: str
    authority_pem: str
    directory_key: Verifier
    token: bytes = field(repr=False)
    issued: int
    expires: int

    @property
    def token_hash(self) -> str:
        """SHA-256 of the token in hexadecimal: what the platform keeps."""
        return hashlib.sha256(self.token).hexdigest()

    def check(self, now: float) -> Invitation:
        """Return itself if it is valid at `now`.

        Raises:
            ChaotianError: INVITATION.
        """
        if now >= self.expires:
            raise ChaotianError("INVITATION", "the invitation has expired")
        if now < self.issued - CLOCK_SKEW_SECONDS:
            raise ChaotianError("INVITATION", "the invitation is from the future", hint="Check this machine's clock.")
        return self

    def document(self, *, with_token: bool = True) -> dict[str, Any]:
        """Return it as a JSON object; without its token it is no secret."""
        return {
            "v": 1,
            "space": self.space,
            "member": self.member,
            "role": self.role,
            "city": self.city,
            "address": self.address,
            "enrol_address": self.enrol_address,
            "authority": self.authority_pem,
            "directory_key": b64(self.directory_key.public),
            "token": b64(self.token if with_token else bytes(TOKEN_BYTES)),
            "issued": self.issued,
            "expires": self.expires,
        }

    def render(self, signer: Signer) -> str:
        """Return the printable text, signed by the directory key."""
        if signer.verifier.public != self.directory_key.public:
            raise ValueError("an invitation is signed by the directory key it names")
        content = canonical_json(self.document())
        return self._text(content, signer.sign(TAG, content))

    def _text(self, content: bytes, signature: bytes) -> str:
        body = b64(signature + content)
        until = datetime.fromtimestamp(self.expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        lines = [
            f"Invitation for {self.member} ({self.role}, {self.city}) to join the space {self.space}.",
            f"Single use, valid until {until}. Who holds this text may enrol in that name: keep it secret.",
            "Compare this fingerprint of the directory key with the operator by another way, such as a telephone:",
            *textwrap.wrap(show_fingerprint(self.directory_key.fingerprint), 40),
            _BEGIN,
            *textwrap.wrap(body, 76),
            _END,
        ]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Return the invitation in `text`, whose every character must be as rendered but for ends of lines.

        Raises:
            ChaotianError: INVITATION.
        """
        try:
            return cls._parse(text)
        except ChaotianError as error:
            if error.code == "INVITATION":
                raise
            raise ChaotianError("INVITATION", f"the invitation is damaged or changed: {error.detail}") from None

    @classmethod
    def _parse(cls, text: str) -> Invitation:
        if len(text) > MAX_TEXT:
            raise ChaotianError("INVITATION", f"the invitation is longer than {MAX_TEXT} characters")
        lines = [line.rstrip() for line in text.strip().splitlines()]
        if lines.count(_BEGIN) != 1 or lines.count(_END) != 1 or lines.index(_BEGIN) > lines.index(_END):
            raise ChaotianError("INVITATION", "the text holds no invitation")
        data = unb64("".join(lines[lines.index(_BEGIN) + 1 : lines.index(_END)]))
        signature, content = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        invitation = cls.from_document(parse_canonical_json(content, limit=MAX_TEXT))
        invitation.directory_key.verify(TAG, content, signature)
        if lines != invitation._text(content, signature).splitlines():
            raise ChaotianError("INVITATION", "the lines for people do not say what the invitation says")
        return invitation

    @classmethod
    def from_document(cls, document: Any) -> Invitation:
        """Return the invitation of `document()`; anything else is MALFORMED."""
        read = Fields(document, _NAMES, code="MALFORMED", what="the invitation")
        read.one("v", 1)
        space = check_name(read.text("space"), "space")
        member, role = check_name(read.text("member"), "member"), check_name(read.text("role"), "role")
        if PLATFORM in (member, role):
            raise ChaotianError("MALFORMED", "an invitation cannot give the platform's name")
        issued = read.integer("issued")
        return cls(
            space=space,
            member=member,
            role=role,
            city=check_city(read.text("city")),
            address=check_address(read.text("address")),
            enrol_address=check_address(read.text("enrol_address")),
            authority_pem=check_authority(read.text("authority", 8192), space),
            directory_key=Verifier(read.data("directory_key", 33)),
            token=read.data("token", TOKEN_BYTES),
            issued=issued,
            expires=read.integer("expires", least=issued),
        )


def check_address(address: str, *, code: str = "MALFORMED") -> str:
    """Return `address` if it has the form HOST:PORT (an IPv6 host in brackets).

    Raises:
        ChaotianError: `code`.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    fits = bool(host) and bool(colon) and len(address) <= MAX_ADDRESS and (bracketed or ":" not in host)
    plain = host.isascii() and all(c.isalnum() or c in ".-_:[]" for c in host)
    if not (fits and plain and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ChaotianError(code, "an address has the form HOST:PORT", hint="For example: platform.example:7443")
    return address


def address_host(address: str) -> str:
    """Return the host of HOST:PORT, without brackets."""
    return check_address(address).rpartition(":")[0].strip("[]")
