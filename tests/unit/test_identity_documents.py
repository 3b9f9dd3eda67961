from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.sealing import Opener
from federation.primitives.signing import Signer
from gateway.identity.authority import CertificateAuthority
from gateway.identity.certificates import (
    check_certificate,
    generate_tls_key,
    make_csr,
    platform_host,
    public_fingerprint,
    read_certificate,
    read_csr,
    renewal_due,
)
from gateway.identity.directory import Directory, Entry, Listing, SignedEntry
from gateway.identity.fields import b64, unb64
from gateway.identity.fingerprints import parse_fingerprint, show_fingerprint
from gateway.identity.invitation import Invitation, check_address
from gateway.identity.names import PeerName, check_city
from tests.support.spaces import START, Space

NAME = PeerName("yu", "bank", "bank-a")
DIRECTORY_KEY = Signer(bytes([7]) * 32)
COORDINATOR = Signer(bytes([8]) * 32)
AUTHORITY = CertificateAuthority.create("yu", START)


def code(action) -> str:
    with pytest.raises(ChaotianError) as caught:
        action()
    return caught.value.code


# --- names and fingerprints -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "chaotian://yu/bank",
        "chaotian://yu/bank/a/b",
        "chaotian://yu/bank/",
        "chaotian://yu/bank/a?x",
        "chaotian://yu/bank/a#x",
        "chaotian://yu:1/bank/a",
        "chaotian://yu/bank/A",
        "chaotian://yu/bank/-a",
        "chaotian://yu/bank/a-",
        "chaotian://yu/bank/a\n",
        "chaotian://yu/bank/" + "a" * 64,
        "https://yu/bank/a",
        "chaotian://yu/bank/重",
        "chaotian://yu/bank/а",  # Cyrillic
    ],
)
def test_names_are_strict(uri: str) -> None:
    assert code(lambda: PeerName.parse(uri)) == "MALFORMED"


def test_a_name_comes_back_from_its_uri() -> None:
    assert PeerName.parse(NAME.uri) == NAME


@pytest.mark.parametrize("city", ["", " x", "x\n", "x" * 65, "a\u0301", "\x1b[2J", "a\u202eb"])
def test_cities_are_printable(city: str) -> None:
    assert code(lambda: check_city(city)) == "MALFORMED"


def test_fingerprints_are_shown_whole() -> None:
    fingerprint = bytes(range(32))
    shown = show_fingerprint(fingerprint)
    assert shown.split() == [f"{a:02x}{a + 1:02x}" for a in range(0, 32, 2)]
    assert parse_fingerprint(shown) == parse_fingerprint(shown.upper().replace(" ", ":")) == fingerprint
    assert code(lambda: parse_fingerprint(shown[:-1])) == "USAGE"
    assert code(lambda: parse_fingerprint("g" * 64)) == "USAGE"
    assert code(lambda: parse_fingerprint("")) == "USAGE"


@pytest.mark.parametrize(
    "address", ["", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a b:1", "a/b:1", "::1:5", "重:1", "a:１"]
)
def test_addresses_are_strict(address: str) -> None:
    assert code(lambda: check_address(address)) == "MALFORMED"


# --- certificates ---------------------------------------------------------------------------------------


def test_a_certificate_says_who_it_is_for() -> None:
    key = generate_tls_key()
    name, public = read_csr(make_csr(key, NAME))
    pem = AUTHORITY.issue(public, name, START, 60)
    info = check_certificate(pem, AUTHORITY.certificate_pem, START)
    assert (info.name, info.not_after - info.not_before) == (NAME, 360)
    assert info.key_fingerprint == public_fingerprint(key.public_key())
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    assert read_certificate(der) == info


def test_validity_allows_a_skewed_clock_and_ends_on_time() -> None:
    pem = AUTHORITY.issue(generate_tls_key().public_key(), NAME, START, 60)
    check_certificate(pem, AUTHORITY.certificate_pem, START - 299)
    check_certificate(pem, AUTHORITY.certificate_pem, START + 59)
    assert code(lambda: check_certificate(pem, AUTHORITY.certificate_pem, START + 60)) == "CERT_EXPIRED"
    assert code(lambda: check_certificate(pem, AUTHORITY.certificate_pem, START - 301)) == "CERT_EXPIRED"


def test_renewal_is_due_when_a_third_is_left() -> None:
    info = read_certificate(AUTHORITY.issue(generate_tls_key().public_key(), NAME, START, 90))
    assert not renewal_due(info, START + 59)
    assert renewal_due(info, START + 60)


def test_another_authority_is_refused() -> None:
    other = CertificateAuthority.create("yu", START)
    pem = other.issue(generate_tls_key().public_key(), NAME, START, 60)
    assert code(lambda: check_certificate(pem, AUTHORITY.certificate_pem, START)) == "SIGNATURE"


def test_the_authority_issues_in_its_own_space_and_never_the_platforms_name() -> None:
    key = generate_tls_key().public_key()
    for name in (PeerName("xi", "bank", "a"), PeerName("yu", "platform", "a"), PeerName("yu", "bank", "platform")):
        assert code(lambda name=name: AUTHORITY.issue(key, name, START, 60)) == "MALFORMED"


def test_an_expired_authority_issues_nothing() -> None:
    authority = CertificateAuthority.create("yu", START, lifetime=10)
    key = generate_tls_key().public_key()
    info = read_certificate(authority.issue(key, NAME, START, 60))
    assert info.not_after == START + 10
    assert code(lambda: authority.issue(key, NAME, START + 10, 60)) == "CERT_EXPIRED"


def test_the_platforms_certificate_holds_its_hosts() -> None:
    pem = AUTHORITY.issue_platform(
        generate_tls_key().public_key(), [platform_host("yu"), "::1", "p.example"], START, 60
    )
    assert check_certificate(pem, AUTHORITY.certificate_pem, START).name == PeerName("yu", "platform", "platform")
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["platform.yu.chaotian", "p.example"]


def test_every_changed_byte_of_a_certificate_is_noticed() -> None:
    """But for one that says nothing: the count of unused bits of the signature (X.690, 8.6.2)."""
    pem = AUTHORITY.issue(generate_tls_key().public_key(), NAME, START, 60)
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    signature = x509.load_pem_x509_certificate(pem.encode()).signature
    unused_bits = len(der) - len(signature) - 1
    for at in set(range(len(der))) - {unused_bits}:
        changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        assert code(lambda changed=changed: check_certificate(changed, AUTHORITY.certificate_pem, START)) in (
            "MALFORMED",
            "SIGNATURE",
        ), at


def forge(names: list[x509.GeneralName], *, ca: bool = False, key=None, usage: bool = True) -> str:
    """Return a certificate of the right authority that it should never have issued."""
    key = key or generate_tls_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.load_pem_x509_certificate(AUTHORITY.certificate_pem.encode()).subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(datetime.fromtimestamp(START, UTC))
        .not_valid_after(datetime.fromtimestamp(START, UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(AUTHORITY.key, SHA256()).public_bytes(Encoding.PEM).decode()


URI = x509.UniformResourceIdentifier(NAME.uri)


@pytest.mark.parametrize(
    "pem",
    [
        forge([]),
        forge([URI, URI]),
        forge([URI, x509.DNSName("x")]),
        forge([x509.DNSName("x")]),
        forge([x509.UniformResourceIdentifier("chaotian://yu/bank/platform")]),
        forge([x509.UniformResourceIdentifier("chaotian://yu/platform/bank-a")]),
        forge([x509.UniformResourceIdentifier("https://yu/bank/bank-a")]),
        forge([URI], ca=True),
        forge([URI], usage=False),
        forge([URI], key=ec.generate_private_key(ec.SECP384R1())),
        forge([URI], key=ed25519.Ed25519PrivateKey.generate()),
        forge([URI]) + forge([URI]),
        "",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "x" * 100_000,
    ],
)
def test_certificates_of_another_shape_are_malformed(pem: str) -> None:
    assert code(lambda: read_certificate(pem)) == "MALFORMED"


def test_the_forging_of_these_tests_can_succeed() -> None:
    assert check_certificate(forge([URI]), AUTHORITY.certificate_pem, START + 1).name == NAME


def csr(key, *extensions: x509.ExtensionType) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "pem",
    [
        csr(generate_tls_key()),
        csr(generate_tls_key(), x509.SubjectAlternativeName([URI, URI])),
        csr(generate_tls_key(), x509.SubjectAlternativeName([x509.DNSName("x")])),
        csr(generate_tls_key(), x509.SubjectAlternativeName([URI]), x509.BasicConstraints(ca=True, path_length=None)),
        csr(ec.generate_private_key(ec.SECP384R1()), x509.SubjectAlternativeName([URI])),
        "",
        "重庆",
        "x" * 100_000,
    ],
)
def test_signing_requests_of_another_shape_are_malformed(pem: str) -> None:
    assert code(lambda: read_csr(pem)) == "MALFORMED"


def test_a_signing_request_signed_by_another_key_is_malformed() -> None:
    good = x509.load_pem_x509_csr(make_csr(generate_tls_key(), NAME).encode()).public_bytes(Encoding.DER)
    changed = good[:-1] + bytes([good[-1] ^ 1])
    pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + b64(changed) + "\n-----END CERTIFICATE REQUEST-----\n"
    assert code(lambda: read_csr(pem)) == "MALFORMED"


# --- invitations ----------------------------------------------------------------------------------------


def invitation(**changes: object) -> Invitation:
    fields = {
        "space": "yu",
        "member": "bank-a",
        "role": "bank",
        "city": "重庆",
        "address": "p.example:7443",
        "enrol_address": "[::1]:7444",
        "authority_pem": AUTHORITY.certificate_pem,
        "directory_key": DIRECTORY_KEY.verifier,
        "token": bytes(range(32)),
        "issued": int(START),
        "expires": int(START) + 60,
    }
    return Invitation(**{**fields, **changes})


def test_an_invitation_comes_back_from_its_text() -> None:
    text = invitation().render(DIRECTORY_KEY)
    for shape in (text, text.replace("\n", "\r\n"), "\n\n" + text + "\n"):
        parsed = Invitation.parse(shape)
        assert parsed.document() == invitation().document()
    assert text.isprintable() is False
    assert all(line.isprintable() and len(line) <= 120 for line in text.splitlines())
    assert "token" not in repr(parsed)


def test_an_invitation_is_valid_for_its_time() -> None:
    parsed = invitation()
    parsed.check(START)
    parsed.check(START - 299)
    assert code(lambda: parsed.check(START + 60)) == "INVITATION"
    assert code(lambda: parsed.check(START - 301)) == "INVITATION"


@pytest.mark.parametrize("field", sorted(invitation().document()))
def test_every_changed_field_of_an_invitation_is_noticed(field: str) -> None:
    document = invitation().document()
    other = {"v": 2, "issued": 5, "expires": int(START) + 1, "token": b64(bytes(32)), "city": "北京"}
    other |= {"authority": CertificateAuthority.create("yu", START).certificate_pem}
    other |= {"directory_key": b64(Signer(bytes(32)).verifier.public)}
    document[field] = other.get(
        field, str(document[field]).replace("b", "c").replace("p", "q").replace("y", "z").replace("1", "2")
    )
    assert document != invitation().document()
    content = canonical_json(document)
    signature = DIRECTORY_KEY.sign("chaotian/v1/invitation", canonical_json(invitation().document()))
    assert code(lambda: Invitation.parse(invitation()._text(content, signature))) == "INVITATION"


def test_every_changed_character_of_an_invitation_is_noticed() -> None:
    text = invitation().render(DIRECTORY_KEY)
    for at, character in enumerate(text.rstrip()):
        if character != "\n":
            changed = text[:at] + ("A" if character != "A" else "B") + text[at + 1 :]
            assert code(lambda changed=changed: Invitation.parse(changed)) == "INVITATION", at


@pytest.mark.parametrize("text", ["", "x" * 1_000_000, "-----BEGIN CHAOTIAN INVITATION-----", "\0" * 50])
def test_texts_that_are_no_invitation(text: str) -> None:
    assert code(lambda: Invitation.parse(text)) == "INVITATION"


def test_an_invitation_cannot_give_the_platforms_name() -> None:
    for changes in ({"member": "platform"}, {"role": "platform"}):
        text = invitation(**changes).render(DIRECTORY_KEY)
        assert code(lambda text=text: Invitation.parse(text)) == "INVITATION"


# --- entries and directories ----------------------------------------------------------------------------

SIGNERS = {name: Signer(bytes([at]) * 32) for at, name in enumerate(("bank-a", "bank-b", "bank-c"), 1)}
OPENERS = {name: Opener(bytes([at]) * 96) for at, name in enumerate(SIGNERS, 1)}


def signed(name: str, **changes: object) -> SignedEntry:
    fields = {"space": "yu", "member": name, "role": "bank", "city": "重庆", "version": 1}
    fields |= {"identity_key": SIGNERS[name].verifier, "sealing_key": OPENERS[name].public}
    return Entry(**{**fields, **changes}).sign(SIGNERS[name])


def listings(**changes: object) -> list[Listing]:
    return [Listing(signed(name), "active", ("ab12",)) for name in SIGNERS]


def build(version: int = 1, who: list[Listing] | None = None, **changes: object) -> bytes:
    fields = {"space": "yu", "issued": int(START), "expires": int(START) + 3600, "signer": DIRECTORY_KEY}
    fields |= {"coordinator": COORDINATOR.verifier, "listings": listings() if who is None else who}
    return Directory.build(version=version, **{**fields, **changes})


def verify(data: bytes, now: float = START, known: Directory | None = None) -> Directory:
    return Directory.verify(data, space="yu", directory_key=DIRECTORY_KEY.verifier.public, now=now, known=known)


def test_a_directory_is_read_as_it_was_built() -> None:
    directory = verify(build())
    assert list(directory.members) == ["bank-a", "bank-b", "bank-c"]
    assert directory.members["bank-b"].entry == signed("bank-b").entry
    assert directory.coordinator.public == COORDINATOR.verifier.public
    assert directory.changes_since(None) == [(name, "joined") for name in SIGNERS]


def test_a_directory_is_valid_for_its_time() -> None:
    verify(build(), START + 3599)
    verify(build(), START - 299)
    for now in (START + 3600, START - 301):
        assert code(lambda now=now: verify(build(), now)) == "DIRECTORY"
    assert code(lambda: verify(build(expires=int(START) + 86401))) == "DIRECTORY"
    assert code(lambda: verify(build(expires=int(START) - 1))) == "DIRECTORY"


def test_foreign_directories_are_refused() -> None:
    assert code(lambda: verify(build(signer=Signer(bytes(32))))) == "DIRECTORY"
    assert code(lambda: verify(build(space="xi", who=[]))) == "DIRECTORY"
    assert code(lambda: verify(build(who=[Listing(signed("bank-a", space="xi"), "active", ())]))) == "DIRECTORY"


def paths(document: object, at: tuple = ()) -> list[tuple]:
    if isinstance(document, dict):
        return [path for key, value in document.items() for path in paths(value, (*at, key))]
    if isinstance(document, list):
        return [path for key, value in enumerate(document) for path in paths(value, (*at, key))]
    return [at]


@pytest.mark.parametrize("path", paths(json.loads(build(who=listings()[:1]))), ids=str)
@pytest.mark.parametrize("resign", [False, True])
def test_every_changed_field_of_a_directory_is_noticed(path: tuple, resign: bool) -> None:
    """Also where the platform itself signs the change, as long as the field is the member's."""
    document = json.loads(build(who=listings()[:1]))
    place = document
    for step in path[:-1]:
        place = place[step]
    value = place[path[-1]]
    if isinstance(value, int):
        place[path[-1]] = value + 1
    elif len(value) > 40:
        raw = bytearray(unb64(value))
        raw[5] ^= 1
        place[path[-1]] = b64(bytes(raw))
    else:
        place[path[-1]] = value[:-1] + ("b" if value[-1] != "b" else "c")
    if resign:
        if path[0] == "signature":
            return
        document["signature"] = b64(DIRECTORY_KEY.sign("chaotian/v1/directory", canonical_json(document["directory"])))
    mine = path[1:2] == ("entries",) and "serials" not in path
    platforms = path[1:] in (("version",), ("issued",), ("expires",), ("coordinator",)) or "serials" in path
    if resign and platforms and not mine:
        if path[1] != "coordinator":
            verify(canonical_json(document))
        return
    assert code(lambda: verify(canonical_json(document))) == "DIRECTORY"


def test_unknown_fields_and_other_forms_are_refused() -> None:
    document = json.loads(build())
    document["directory"]["entries"][0]["entry"]["note"] = "x"
    document["signature"] = b64(DIRECTORY_KEY.sign("chaotian/v1/directory", canonical_json(document["directory"])))
    for data in (canonical_json(document), build() + b"\n", b"", b"[]", b"null", b"{}", b"[" * 100_000, bytes(9 << 20)):
        assert code(lambda data=data: verify(data)) == "DIRECTORY"


def test_members_are_single() -> None:
    twice = [*listings(), Listing(signed("bank-a", version=2), "active", ())]
    assert code(lambda: verify(build(who=twice))) == "DIRECTORY"
    same_key = Entry(**{**vars(signed("bank-a").entry), "member": "bank-z"}).sign(SIGNERS["bank-a"])
    assert code(lambda: verify(build(who=[*listings(), Listing(same_key, "active", ())]))) == "DIRECTORY"


def test_what_is_known_is_never_rolled_back() -> None:
    known = verify(build(5))
    assert verify(build(5), known=known).digest == known.digest
    verify(build(6), known=known)
    assert code(lambda: verify(build(4), known=known)) == "DIRECTORY"
    assert code(lambda: verify(build(5, coordinator=SIGNERS["bank-a"].verifier), known=known)) == "DIRECTORY"
    assert code(lambda: verify(build(6, who=listings()[:2]), known=known)) == "DIRECTORY"


def test_entries_are_never_rolled_back() -> None:
    new = [Listing(signed("bank-a", version=3), "active", ())]
    known = verify(build(1, who=new))
    older = [Listing(signed("bank-a", version=2), "active", ())]
    assert code(lambda: verify(build(2, who=older), known=known)) == "DIRECTORY"
    other = [Listing(signed("bank-a", version=3, sealing_key=OPENERS["bank-b"].public), "active", ())]
    assert code(lambda: verify(build(2, who=other), known=known)) == "DIRECTORY"


def test_changes_are_told() -> None:
    known = verify(build(1))
    who = [
        Listing(signed("bank-a"), "revoked", ()),
        Listing(signed("bank-b", version=2, sealing_key=OPENERS["bank-a"].public), "active", ()),
        Listing(
            dataclasses.replace(signed("bank-c").entry, identity_key=COORDINATOR.verifier).sign(COORDINATOR),
            "active",
            (),
        ),
    ]
    directory = verify(build(2, who=who, coordinator=SIGNERS["bank-a"].verifier), known=known)
    assert directory.changes_since(known) == [
        ("platform", "new coordinator key"),
        ("bank-a", "revoked"),
        ("bank-b", "new sealing key"),
        ("bank-c", "new identity key"),
    ]


def test_a_space_of_the_support_module_is_one(tmp_path: Path) -> None:
    assert Space(tmp_path).join("bank-a").identity().name == NAME
