"""The platform's own keys: the space's authority, the directory key, the coordinator's identity key, its TLS key."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy, SystemEntropy
from federation.primitives.signing import Signer, Verifier
from gateway.identity.authority import CertificateAuthority
from gateway.identity.certificates import (
    generate_tls_key,
    key_from_pem,
    key_to_pem,
    platform_host,
    read_certificate,
    renewal_due,
)
from gateway.identity.names import PLATFORM, PeerName
from gateway.storage.base import Database
from gateway.storage.secrets import SecretBox
from gateway.storage.tables.registry import platform_keys


@dataclass(frozen=True)
class PlatformIdentity:
    """Who the platform is, at one moment.

    Args:
        space: the space it serves.
        signer: the coordinator's identity key: signs terms and what the platform says to members.
        directory_key: the key that signs the directory.
        tls_key_pem: private TLS key (PKCS#8 PEM).
        certificate_pem: its certificate.
        authority_pem: certificate of the space's authority.
    """

    space: str
    signer: Signer
    directory_key: Verifier
    tls_key_pem: bytes = field(repr=False)
    certificate_pem: str = field(repr=False)
    authority_pem: str = field(repr=False)

    @property
    def name(self) -> PeerName:
        """Its name in certificates."""
        return PeerName(self.space, PLATFORM, PLATFORM)

    @property
    def role(self) -> str:
        """`platform`."""
        return PLATFORM

    @property
    def member(self) -> str:
        """`platform`."""
        return PLATFORM


class PlatformKeys:
    """Keys of the platform, in its database.

    Args:
        database: the platform's database.
        box: what opens its secrets.
        space: the space.
        entropy: source of randomness for signing keys.
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        box: SecretBox,
        space: str,
        *,
        entropy: Entropy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._box = box
        self._space = space
        self._entropy = entropy or SystemEntropy()
        self._clock = clock

    def create(self) -> None:
        """Make the keys of a new space. An existing set is left as it is, so an interrupted `init` can be repeated."""
        with self._database.begin() as connection:
            if connection.execute(select(platform_keys.c.name)).first():
                return
            authority = CertificateAuthority.create(self._space, self._clock())
            self._put(connection, "authority", key_to_pem(authority.key), authority.certificate_pem)
            self._put(connection, "directory", self._entropy.bytes(32))
            self._put(connection, "coordinator", self._entropy.bytes(32))

    def authority(self) -> CertificateAuthority:
        """Return the space's certificate authority."""
        with self._database.read() as connection:
            secret, certificate = self._get(connection, "authority")
        return CertificateAuthority(self._space, key_from_pem(secret), certificate or "")

    def directory_signer(self) -> Signer:
        """Return the key that signs the directory and invitations."""
        with self._database.read() as connection:
            return Signer(self._get(connection, "directory")[0])

    def coordinator(self) -> Signer:
        """Return the coordinator's identity key."""
        with self._database.read() as connection:
            return Signer(self._get(connection, "coordinator")[0])

    def tls(self, hosts: Collection[str], lifetime: int) -> tuple[bytes, str]:
        """Return the TLS key (PEM) and certificate (PEM), made anew when a third of the lifetime is left.

        Args:
            hosts: DNS names and addresses at which members reach the platform.
            lifetime: seconds of a new certificate.
        """
        authority = self.authority()
        now = self._clock()
        with self._database.begin() as connection:
            row = connection.execute(select(platform_keys).where(platform_keys.c.name == "tls")).first()
            if row is not None and not renewal_due(read_certificate(row.certificate), now):
                return self._get(connection, "tls")[0], row.certificate
            key = generate_tls_key()
            names = [platform_host(self._space), *hosts]
            certificate = authority.issue_platform(key.public_key(), names, now, lifetime)
            connection.execute(delete(platform_keys).where(platform_keys.c.name == "tls"))
            self._put(connection, "tls", key_to_pem(key), certificate)
            return key_to_pem(key), certificate

    def _put(self, connection: Connection, name: str, secret: bytes, certificate: str | None = None) -> None:
        sealed = self._box.seal(secret, table="platform_keys", row=name, column="sealed")
        row = {"name": name, "sealed": sealed, "certificate": certificate, "created": int(self._clock())}
        connection.execute(insert(platform_keys).values(**row))

    def _get(self, connection: Connection, name: str) -> tuple[bytes, str | None]:
        row = connection.execute(select(platform_keys).where(platform_keys.c.name == name)).first()
        if row is None:
            raise ChaotianError("CONFIG", "this platform has no keys", hint="Make them with `chaotian platform init`.")
        return self._box.open(row.sealed, table="platform_keys", row=name, column="sealed"), row.certificate
