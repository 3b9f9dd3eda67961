"""TLS keys, signing requests and certificates (X.509, RFC 5280), read strictly.

A member's certificate holds one subject alternative name, `chaotian://SPACE/ROLE/MEMBER`; the platform's holds DNS
names and addresses besides. Subject names are empty of meaning and never read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.errors import ChaotianError
from gateway.identity.names import PLATFORM, PeerName

MAX_PEM = 16 * 1024
CLOCK_SKEW_SECONDS = 300
_PARSE_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


@dataclass(frozen=True)
class CertificateInfo:
    """What a certificate says.

    Args:
        name: whom it speaks for.
        serial: its serial number, lower-case hexadecimal without leading zeros.
        not_before: start of validity, Unix seconds.
        not_after: end of validity, Unix seconds.
        key_fingerprint: SHA-256 of its public key (SubjectPublicKeyInfo): 32 bytes.
    """

    name: PeerName
    serial: str
    not_before: int
    not_after: int
    key_fingerprint: bytes


def platform_host(space: str) -> str:
    """Return the DNS name that every platform certificate of `space` holds, whatever its address: set it as the
    TLS target name, so that a node trusts the space's platform and not an address."""
    return f"{PLATFORM}.{space}.chaotian"


def generate_tls_key() -> ec.EllipticCurvePrivateKey:
    """Return a new ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the private key as unencrypted PKCS#8 PEM: for sealing at rest and for the TLS library's memory."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key of `key_to_pem`."""
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ChaotianError("STORAGE", "a stored TLS key is not an elliptic-curve key")
    return key


def public_fingerprint(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return SHA-256 of the SubjectPublicKeyInfo: 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def common_name(name: PeerName) -> x509.Name:
    """Return the subject of a certificate: a label for people, cut to X.509's 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name.member[:64])])


def make_csr(key: ec.EllipticCurvePrivateKey, name: PeerName) -> str:
    """Return a PKCS#10 signing request (RFC 2986, PEM) for `name`."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name(name))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name.uri)]), critical=True)
        .sign(key, SHA256())
    )
    return request.public_bytes(Encoding.PEM).decode()


def read_csr(pem: str) -> tuple[PeerName, ec.EllipticCurvePublicKey]:
    """Return the name and key of a signing request whose own signature is good.

    Raises:
        ChaotianError: MALFORMED unless it asks for exactly one chaotian:// name with a P-256 key and nothing else.
    """
    try:
        if len(pem) > MAX_PEM:
            raise ValueError
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        extensions = list(request.extensions)
        good = request.is_signature_valid
    except (*_PARSE_ERRORS, x509.UnsupportedGeneralNameType):
        raise ChaotianError("MALFORMED", "expected a certificate signing request in PEM form") from None
    if not good:
        raise ChaotianError("MALFORMED", "the certificate signing request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ChaotianError("MALFORMED", "a certificate signing request must hold an ECDSA P-256 key")
    if len(extensions) != 1 or not isinstance(extensions[0].value, x509.SubjectAlternativeName):
        raise ChaotianError("MALFORMED", "a certificate signing request asks for one name and nothing else")
    names = list(extensions[0].value)
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise ChaotianError("MALFORMED", "a certificate signing request asks for one chaotian:// name")
    return PeerName.parse(names[0].value), key


def load_certificate(certificate: bytes | str) -> x509.Certificate:
    """Return the certificate in PEM or DER form; anything else is MALFORMED."""
    data = certificate.encode() if isinstance(certificate, str) else bytes(certificate)
    try:
        if len(data) > MAX_PEM:
            raise ValueError
        if data.lstrip().startswith(b"-----"):
            if data.count(b"-----BEGIN") != 1:
                raise ValueError
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except _PARSE_ERRORS:
        raise ChaotianError("MALFORMED", "expected one X.509 certificate in PEM or DER form") from None


def read_certificate(certificate: bytes | str) -> CertificateInfo:
    """Return what a certificate says, without judging who issued it or when.

    Raises:
        ChaotianError: MALFORMED unless it has exactly one chaotian:// name, a P-256 key, no right to issue others,
            and, unless it is the platform's, no other name.
    """
    loaded = load_certificate(certificate)
    try:
        key = loaded.public_key()
        alternative = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        constraints = loaded.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = loaded.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (*_PARSE_ERRORS, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType):
        raise ChaotianError("MALFORMED", "the certificate lacks a name, constraint or usage it must have") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ChaotianError("MALFORMED", "the certificate's key is not ECDSA P-256")
    if constraints.ca or ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ChaotianError("MALFORMED", "the certificate is not one for a member")
    uris = alternative.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ChaotianError("MALFORMED", f"the certificate has {len(uris)} chaotian:// names, expected one")
    name = PeerName.parse(uris[0])
    if (name.role == PLATFORM) != (name.member == PLATFORM):
        raise ChaotianError("MALFORMED", "the certificate gives a member the platform's name")
    if name.role != PLATFORM and len(list(alternative)) != 1:
        raise ChaotianError("MALFORMED", "a member's certificate holds no other name")
    return CertificateInfo(
        name=name,
        serial=f"{loaded.serial_number:x}",
        not_before=int(loaded.not_valid_before_utc.timestamp()),
        not_after=int(loaded.not_valid_after_utc.timestamp()),
        key_fingerprint=public_fingerprint(key),
    )


def check_certificate(certificate: bytes | str, authority_pem: str, now: float) -> CertificateInfo:
    """Return what a certificate says if `authority_pem` issued it and it is valid at `now` (Unix seconds).

    Raises:
        ChaotianError: MALFORMED, SIGNATURE (another issuer, or changed), CERT_EXPIRED.
    """
    info = read_certificate(certificate)
    try:
        load_certificate(certificate).verify_directly_issued_by(load_certificate(authority_pem))
    except (InvalidSignature, ValueError, TypeError):
        raise ChaotianError(
            "SIGNATURE", "the certificate was not issued by the authority of this space", member=info.name.member
        ) from None
    if now >= info.not_after:
        raise ChaotianError("CERT_EXPIRED", "the certificate has expired", member=info.name.member)
    if now < info.not_before:
        raise ChaotianError("CERT_EXPIRED", "the certificate is not valid yet", member=info.name.member)
    return info


def renewal_due(info: CertificateInfo, now: float) -> bool:
    """Return whether at most a third of the lifetime is left."""
    return renewal_in(info, now) <= 0


def renewal_in(info: CertificateInfo, now: float) -> float:
    """Return the seconds until a third of the lifetime is left; negative where less is.

    The lifetime counts from issue, not from the start of validity, which lies a clock skew's margin earlier.
    """
    issued = info.not_before + CLOCK_SKEW_SECONDS
    return info.not_after - now - (info.not_after - issued) / 3
