"""The certificate authority of a space, held by the platform."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.errors import ChaotianError
from gateway.identity.certificates import CLOCK_SKEW_SECONDS, common_name, generate_tls_key, load_certificate
from gateway.identity.names import PLATFORM, PeerName, check_name

DAY = 86400
CERTIFICATE_SECONDS = 90 * DAY
AUTHORITY_SECONDS = 3650 * DAY


class CertificateAuthority:
    """Issues the certificates of one space.

    Args:
        space: the space.
        key: its private key (ECDSA P-256).
        certificate_pem: its self-signed certificate.
    """

    def __init__(self, space: str, key: ec.EllipticCurvePrivateKey, certificate_pem: str) -> None:
        self.space = space
        self.key = key
        self.certificate_pem = certificate_pem
        self._certificate = load_certificate(certificate_pem)

    @classmethod
    def create(cls, space: str, now: float, lifetime: int = AUTHORITY_SECONDS) -> CertificateAuthority:
        """Make the authority of a new space, valid for `lifetime` seconds from `now`."""
        check_name(space, "space")
        key = generate_tls_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{space[:40]} authority")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - DAY))
            .not_valid_after(_time(now + lifetime))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, SHA256())
        )
        return cls(space, key, certificate.public_bytes(Encoding.PEM).decode())

    def issue(self, key: ec.EllipticCurvePublicKey, name: PeerName, now: float, lifetime: int) -> str:
        """Return a certificate (PEM) for a member's key, valid from a clock skew before `now` for `lifetime` seconds.

        Raises:
            ChaotianError: MALFORMED for a name of another space, or the platform's.
        """
        if name.space != self.space or PLATFORM in (name.role, name.member):
            raise ChaotianError("MALFORMED", "the name is not one of a member of this space")
        return self._issue(key, name, now, lifetime, [], server=False)

    def issue_platform(self, key: ec.EllipticCurvePublicKey, hosts: Collection[str], now: float, lifetime: int) -> str:
        """Return the platform's own certificate (PEM), for these DNS names and IP addresses."""
        names = [_general_name(host) for host in dict.fromkeys(hosts)]
        return self._issue(key, PeerName(self.space, PLATFORM, PLATFORM), now, lifetime, names, server=True)

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        name: PeerName,
        now: float,
        lifetime: int,
        hosts: list[x509.GeneralName],
        *,
        server: bool,
    ) -> str:
        end = min(_time(now + lifetime), self._certificate.not_valid_after_utc)
        if end <= _time(now):
            raise ChaotianError("CERT_EXPIRED", "the certificate authority of this space has expired")
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * server
        alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name.uri), *hosts])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(common_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - CLOCK_SKEW_SECONDS))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(alternative, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, SHA256())
        )
        return certificate.public_bytes(Encoding.PEM).decode()

    def __repr__(self) -> str:
        return f"CertificateAuthority({self.space})"


def check_authority(pem: str, space: str) -> str:
    """Return `pem` if it is one self-signed certificate authority.

    Raises:
        ChaotianError: MALFORMED.
    """
    certificate = load_certificate(pem)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        raise ChaotianError("MALFORMED", f"expected the certificate of the authority of {space}") from None
    if not constraints.ca:
        raise ChaotianError("MALFORMED", f"expected the certificate of the authority of {space}")
    return pem


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
