"""Names of spaces, roles and members, and the URI that a certificate carries for them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from federation.errors import ChaotianError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_URI = re.compile(r"chaotian://([a-z0-9-]{1,63})/([a-z0-9-]{1,63})/([a-z0-9-]{1,63})")
PLATFORM = "platform"  # both the role and the member name of the platform; no invitation can carry it
MAX_CITY = 64


def check_name(name: str, what: str, *, code: str = "MALFORMED") -> str:
    """Return `name` if it can name a space, role or member.

    That is 1 to 63 lower-case letters, digits and hyphens, none at its ends: a DNS label (RFC 1123), so
    that no two names look alike and all fit a URI, a file name and a certificate unchanged.

    Raises:
        ChaotianError: `code`, naming `what`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ChaotianError(
            code, f"a {what} name has 1 to 63 lower-case letters, digits and inner hyphens", hint="For example: bank-a"
        )
    return name


def check_city(city: str, *, code: str = "MALFORMED") -> str:
    """Return `city` if it is 1 to 64 printable characters of any script in normal form (NFC)."""
    if (
        not isinstance(city, str)
        or not 1 <= len(city) <= MAX_CITY
        or not city.isprintable()
        or city != city.strip()
        or not unicodedata.is_normalized("NFC", city)
    ):
        raise ChaotianError(code, f"a city has 1 to {MAX_CITY} printable characters (NFC)")
    return city


@dataclass(frozen=True, order=True)
class PeerName:
    """Who a certificate speaks for.

    Args:
        space: the federation.
        role: what kind of member, e.g. `bank`.
        member: the organisation.
    """

    space: str
    role: str
    member: str

    def __post_init__(self) -> None:
        check_name(self.space, "space")
        check_name(self.role, "role")
        check_name(self.member, "member")

    @property
    def uri(self) -> str:
        """`chaotian://SPACE/ROLE/MEMBER`, the subject alternative name."""
        return f"chaotian://{self.space}/{self.role}/{self.member}"

    @classmethod
    def parse(cls, uri: str) -> PeerName:
        """Return the name in `uri`; anything but its exact form is MALFORMED."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise ChaotianError("MALFORMED", "expected a name of the form chaotian://SPACE/ROLE/MEMBER")
        return cls(*match.groups())
