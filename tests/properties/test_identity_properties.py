"""Documents of identity under arbitrary input: they come back as they went, or fail with one coded error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.sealing import Opener
from federation.primitives.signing import Signer
from gateway.identity.authority import CertificateAuthority
from gateway.identity.certificates import read_certificate, read_csr
from gateway.identity.directory import DIRECTORY_TAG, Directory, Entry, Listing, SignedEntry
from gateway.identity.enrolment import EnrolmentReply, EnrolmentRequest
from gateway.identity.fields import b64, unb64
from gateway.identity.fingerprints import parse_fingerprint, show_fingerprint
from gateway.identity.invitation import Invitation, check_address
from gateway.identity.names import PeerName
from gateway.storage.secrets import SecretBox

NOW = 1_800_000_000
KEY = Signer(bytes([7]) * 32)
AUTHORITY = CertificateAuthority.create("yu", NOW)
MEMBER = Signer(bytes([9]) * 32)
SEALING = Opener(bytes([9]) * 96).public

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "platform")
cities = st.sampled_from(["重庆", "Zürich", "São Paulo", "成都市高新区", "x", 'O\'Brien "quoted" \\ town'])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


class FixedEntropy:
    """For these tests only: the nonce is what the property is not about."""

    def bytes(self, count: int) -> bytes:
        return bytes(count)


def coded(action: Any, *codes: str) -> None:
    with pytest.raises(ChaotianError) as caught:
        action()
    assert caught.value.code in codes


@given(names, names, names, cities, st.binary(min_size=32, max_size=32), st.integers(1, 10**6))
def test_invitations_come_back(space: str, member: str, role: str, city: str, token: bytes, valid: int) -> None:
    authority = AUTHORITY.certificate_pem
    invitation = Invitation(
        space, member, role, city, "h:1", "[::1]:2", authority, KEY.verifier, token, NOW, NOW + valid
    )
    assert Invitation.parse(invitation.render(KEY)).document() == invitation.document()


@given(st.text(max_size=400))
def test_other_texts_are_no_invitations(text: str) -> None:
    body = f"-----BEGIN CHAOTIAN INVITATION-----\n{text}\n-----END CHAOTIAN INVITATION-----"
    coded(lambda: Invitation.parse(text), "INVITATION")
    coded(lambda: Invitation.parse(body), "INVITATION")


@given(json_values)
def test_signed_documents_of_any_shape_are_refused_in_one_way(content: Any) -> None:
    """Even the owner of the directory key can cause no other failure than a coded one."""
    try:
        message = canonical_json(content)
    except ChaotianError:
        return
    signature = KEY.sign(DIRECTORY_TAG, message)
    data = canonical_json({"directory": content, "signature": b64(signature)})
    key = KEY.verifier.public
    coded(lambda: Directory.read(data, space="yu", directory_key=key), "DIRECTORY")
    text = Invitation._text(_example(), message, KEY.sign("chaotian/v1/invitation", message))
    coded(lambda: Invitation.parse(text), "INVITATION")
    for read in (SignedEntry.from_bytes, EnrolmentRequest.from_bytes, EnrolmentReply.from_bytes):
        coded(lambda read=read: read(message), "MALFORMED", "BAD_DOCUMENT")


def _example() -> Invitation:
    authority = AUTHORITY.certificate_pem
    return Invitation("yu", "a", "bank", "x", "h:1", "h:2", authority, KEY.verifier, bytes(32), NOW, NOW + 1)


def _paths(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [at, *(path for key, value in inner for path in _paths(value, (*at, key)))]


@settings(max_examples=200)
@given(st.data())
def test_a_directory_with_anything_in_any_place_is_accepted_or_refused(data: Any) -> None:
    entry = Entry("yu", "bank-a", "bank", "重庆", MEMBER.verifier, SEALING, 1).sign(MEMBER)
    built = Directory.build(
        space="yu",
        version=1,
        issued=NOW,
        expires=NOW + 60,
        coordinator=MEMBER.verifier,
        listings=[Listing(entry, "active", ("ab",))],
        signer=KEY,
    )
    content = json.loads(built)["directory"]
    path = data.draw(st.sampled_from(_paths(content)[1:]))
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = data.draw(json_values)
    try:
        signature = KEY.sign(DIRECTORY_TAG, canonical_json(content))
        changed = canonical_json({"directory": content, "signature": b64(signature)})
        directory = Directory.verify(changed, space="yu", directory_key=KEY.verifier.public, now=NOW)
    except ChaotianError as error:
        assert error.code in ("DIRECTORY", "BAD_DOCUMENT")
    else:
        for listing in directory.members.values():
            assert listing.signed.verify().member == "bank-a"


@given(st.binary(max_size=300))
def test_other_bytes_are_nothing(data: bytes) -> None:
    key = KEY.verifier.public
    coded(lambda: Directory.read(data, space="yu", directory_key=key), "DIRECTORY")
    coded(lambda: read_certificate(data), "MALFORMED")
    coded(lambda: read_csr(data.decode("latin-1")), "MALFORMED")
    for read in (SignedEntry.from_bytes, EnrolmentRequest.from_bytes, EnrolmentReply.from_bytes):
        coded(lambda read=read: read(data), "MALFORMED", "BAD_DOCUMENT")


@given(names, names, names)
def test_names_come_back(space: str, role: str, member: str) -> None:
    name = PeerName(space, role, member)
    assert PeerName.parse(name.uri) == name


@given(st.text(max_size=80))
def test_names_have_one_form(text: str) -> None:
    try:
        name = PeerName.parse(text)
    except ChaotianError as error:
        assert error.code == "MALFORMED"
    else:
        assert name.uri == text


@given(st.text(max_size=40))
def test_addresses_pass_or_are_refused(text: str) -> None:
    try:
        assert check_address(text) == text
    except ChaotianError as error:
        assert error.code == "MALFORMED"


@given(st.binary(min_size=32, max_size=32))
def test_fingerprints_come_back(data: bytes) -> None:
    assert parse_fingerprint(show_fingerprint(data)) == data


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=30))
def test_base64_has_one_text_for_each_value(text: str) -> None:
    try:
        assert b64(unb64(text)) == text
    except ChaotianError as error:
        assert error.code == "MALFORMED"


@given(st.binary(max_size=200), st.tuples(*[st.text(max_size=5)] * 3), st.tuples(*[st.text(max_size=5)] * 3))
def test_secrets_open_in_their_own_place_only(secret: bytes, here: tuple[str, ...], there: tuple[str, ...]) -> None:
    box = SecretBox(bytes(32), FixedEntropy())

    def place(names: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(("table", "row", "column"), names, strict=True))

    sealed = box.seal(secret, **place(here))
    assert box.open(sealed, **place(here)) == secret
    if here != there:
        coded(lambda: box.open(sealed, **place(there)), "STORAGE")
