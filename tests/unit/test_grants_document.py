"""A grant is read in one form only; everything unknown or not enforced is refused, by its key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.entropy import SystemEntropy
from gateway.grants.catalogue import RESERVED_DISCLOSURES, RESERVED_FIELDS
from gateway.grants.document import Grant
from gateway.grants.proposal import Surroundings, grant_from_toml
from gateway.grants.signed import GrantEnvelope, Revocation
from tests.unit.grant_samples import DOCUMENT, GRANTEE, NOW, OWNER, SCHEMA, TOML, document, grant, signed


def refused(found: Any, code: str = "BAD_DOCUMENT", key: str = "") -> ChaotianError:
    with pytest.raises(ChaotianError) as caught:
        Grant.from_document(found)
    assert caught.value.code == code, caught.value
    assert key in caught.value.detail
    return caught.value


def test_id_is_the_digest_of_the_canonical_content() -> None:
    found = grant()
    assert found.content == canonical_json(DOCUMENT)
    assert found.id == hashlib.sha256(found.content).hexdigest()
    assert Grant.parse(found.content) == found
    assert found.document() == DOCUMENT
    with pytest.raises(TypeError):
        found.columns["name"] = "aggregate"  # type: ignore[index]


def walk(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [found for name, part in items for found in [(*path, name), *walk(part, (*path, name))]]


@pytest.mark.parametrize("path", walk(DOCUMENT), ids=lambda path: ".".join(map(str, path)))
def test_every_field_is_typed_and_bound_into_the_id(path: tuple[Any, ...]) -> None:
    """Whatever value of another type stands in a field's place is refused; a missing field too."""
    wrong: list[Any] = [None, True, False, 1.5, -1, "", "\x00", "x" * 100_000, [], {}, [[]], {"a": 1}, 10**15, "A b"]
    original: Any = DOCUMENT
    for name in path:
        original = original[name]
    for value in wrong:
        if value == original and type(value) is type(original):
            continue
        found = document()
        at: Any = found
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        if (path == ("legal_basis", "reference") and value in ("", "A b")) or (path == ("duties",) and value == []):
            assert Grant.from_document(found).id != grant().id
        else:
            with pytest.raises(ChaotianError) as caught:
                Grant.from_document(found)
            assert caught.value.code in ("BAD_DOCUMENT", "OVERSIZED")
            assert len(str(caught.value)) < 600
    found = document()
    at = found
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    if (path[0] in ("columns", "duties") and len(path) > 1) or path == ("dataset", "as_of_max_age"):
        assert Grant.from_document(found).id != grant().id
    else:
        refused(found)


@pytest.mark.parametrize("field", sorted(RESERVED_FIELDS))
def test_fields_of_later_versions_are_refused_and_say_so(field: str) -> None:
    for value in ({}, None, 0, [], "x"):
        found = document(**{field.replace(".", "__"): value})
        error = refused(found, "NOT_ENFORCED", field.rsplit(".", maxsplit=1)[-1])
        assert "does not enforce" in error.detail


@pytest.mark.parametrize("word", sorted(RESERVED_DISCLOSURES))
def test_disclosure_classes_of_later_versions(word: str) -> None:
    refused(document(columns__amount=word), "NOT_ENFORCED", "columns.amount")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"more": 1}, "more"),
        ({"dataset__rows": 1}, "dataset.rows"),
        ({"ops__rounds": 1}, "ops[0].rounds"),
        ({"quota__total": 1}, "quota.total"),
        ({"revocation__note": "x"}, "revocation.note"),
        ({"columns__amount": "everything"}, "columns.amount"),
        ({"purposes": ["marketing"]}, "purposes"),
        ({"duties": ["be-nice"]}, "duties"),
        ({"ops__op": "boosting"}, "ops[0].op"),
        ({"ops__out": "rows"}, "ops[0].out"),
        ({"ops__result_to": "everybody"}, "ops[0].result_to"),
        ({"ops__min_members": 2}, "ops[0].min_members"),
        ({"legal_basis__basis": "because"}, "legal_basis.basis"),
        ({"quota__per": "decade"}, "quota.per"),
        ({"quota__calls": 0}, "quota.calls"),
        ({"dataset__grade": 6}, "dataset.grade"),
        ({"dataset__schema": SCHEMA.upper()}, "dataset.schema"),
        ({"exp": DOCUMENT["nbf"]}, "exp"),
        ({"exp": DOCUMENT["nbf"] + 11 * 366 * 86_400}, "exp"),
        ({"roles": ["bank", "bank"]}, "roles"),
        ({"purposes": ["model-validation", "credit-risk-model"]}, "purposes"),
        ({"grantee_keys": ["ab" * 32] * 2}, "grantee_keys"),
        ({"ops": DOCUMENT["ops"] * 2}, "ops"),
        ({"v": 2}, "v"),
        ({"v": True}, "v"),
        ({"owner": "Bank-A"}, "owner"),
        ({"owner": "bank-а"}, "owner"),  # a Cyrillic letter
    ],
)
def test_wrong_values_name_their_key(changes: dict[str, Any], key: str) -> None:
    assert refused(document(**changes)).detail.startswith(key)


@pytest.mark.parametrize(
    "name",
    [
        "amo\u200bunt",
        "amount\u202e",
        " amount",
        "amount\u00a0x",
        "e\u0301",
        "a\x00b",
        "a\nb",
        "\ud800",
        "\ufeffamount",
        "x" * 121,
    ],
)
def test_column_names_that_look_like_others_are_refused(name: str) -> None:
    refused(document(columns={name: "aggregate"}))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ", ", 1),
        lambda text: text.replace('"v":1', '"v":1.0'),
        lambda text: text.replace('"v":1', '"v":1,"v":1'),
        lambda text: text.replace('{"columns"', '{"v":1,"columns"'),
        lambda text: text.replace('"space":"demo"', '"space":"\\u0064emo"'),
        lambda text: text + "\n",
        lambda text: "\ufeff" + text,
        lambda text: text[:-1],
        lambda text: text.replace('"grade":3', '"grade":3e0'),
        lambda text: text.replace('"grade":3', '"grade":NaN'),
        lambda text: text.replace('"grade":3', '"grade":' + "9" * 5000),
        lambda text: "[" * 100_000,
        lambda text: "",
        lambda text: "null",
    ],
)
def test_only_the_canonical_bytes_are_a_grant(change: Any) -> None:
    text = canonical_json(DOCUMENT).decode()
    with pytest.raises(ChaotianError) as caught:
        Grant.parse(change(text).encode())
    assert caught.value.code in ("BAD_DOCUMENT", "OVERSIZED")


def test_huge_documents_are_refused_before_they_are_read() -> None:
    with pytest.raises(ChaotianError, match="OVERSIZED"):
        Grant.parse(b"x" * (64 * 1024 + 1))
    refused(document(columns={f"c{n}": "aggregate" for n in range(2001)}), key="columns")
    refused(document(legal_basis__reference="x" * 70_000), "OVERSIZED")
    with pytest.raises(ChaotianError, match="OVERSIZED"):
        GrantEnvelope.from_text(" " * 1_000_000)


def test_both_signatures_are_needed_and_bound_to_content_and_party() -> None:
    envelope = signed(grant())
    owner, grantee = OWNER.signer.verifier, GRANTEE.signer.verifier
    assert envelope.verify(owner, grantee).grant == grant()
    assert GrantEnvelope.decode(envelope.encode()) == envelope
    assert GrantEnvelope.from_text(json.dumps(json.loads(envelope.encode()), indent=4)) == envelope
    other = grant(quota__calls=6)
    bad = [
        GrantEnvelope(grant(), {}),
        GrantEnvelope(grant(), {"owner": envelope.signatures["owner"]}),
        GrantEnvelope(grant(), dict.fromkeys(("owner", "grantee"), envelope.signatures["owner"])),
        GrantEnvelope(other, envelope.signatures),
        GrantEnvelope(grant(), {}).sign("owner", GRANTEE.signer).sign("grantee", GRANTEE.signer),
        GrantEnvelope(grant(), {}).sign("owner", OWNER.signer).sign("grantee", OWNER.signer),
        GrantEnvelope(grant(), {**envelope.signatures, "owner": (owner.public, envelope.signatures["grantee"][1])}),
        signed(grant(grantee_keys=["ab" * 32])),  # a good signature by a key that the grant does not name
    ]
    for found in bad:
        with pytest.raises(ChaotianError, match="SIGNATURE"):
            found.verify(owner, grantee)
    with pytest.raises(ChaotianError, match="SIGNATURE"):
        envelope.merge(signed(other))


def test_envelopes_are_strict_too() -> None:
    good = json.loads(signed(grant()).encode())
    cases: list[Any] = [
        {**good, "more": 1},
        {**good, "v": 2},
        {**good, "v": True},
        {**good, "signatures": {**good["signatures"], "platform": good["signatures"]["owner"]}},
        {**good, "signatures": {"owner": {"key": "00", "signature": "00" * 65}}},
        {**good, "signatures": {"owner": {**good["signatures"]["owner"], "x": 1}}},
        {**good, "signatures": []},
        [],
        None,
    ]
    for case in cases:
        with pytest.raises(ChaotianError) as caught:
            GrantEnvelope.from_document(case)
        assert caught.value.code in ("BAD_DOCUMENT", "MALFORMED")
    with pytest.raises(ChaotianError, match="BAD_DOCUMENT"):
        GrantEnvelope.from_text('{"v":1,"v":1}')


def test_a_revocation_is_bound_to_grant_party_and_time() -> None:
    made = Revocation.make("ab" * 32, "bank-a", 5, OWNER.signer)
    made.verify(OWNER.signer.verifier)
    assert Revocation.from_document(made.document()) == made
    for name, value in (("grant", "cd" * 32), ("by", "bank-b"), ("at", 6)):
        with pytest.raises(ChaotianError, match="SIGNATURE"):
            Revocation.from_document({**made.document(), name: value}).verify(OWNER.signer.verifier)
    with pytest.raises(ChaotianError, match="SIGNATURE"):
        made.verify(GRANTEE.signer.verifier)
    for bad in (None, {}, {**made.document(), "at": True}, {**made.document(), "key": 3}, {**made.document(), "x": 1}):
        with pytest.raises(ChaotianError, match="BAD_DOCUMENT"):
            Revocation.from_document(bad)


def from_toml(text: str, member: str = "bank-a") -> Grant:
    def fingerprints(name: str) -> list[str]:
        return [GRANTEE.signer.verifier.fingerprint.hex()] if name == "bank-b" else []

    own = {"schema": SCHEMA, "grade": 3}
    around = Surroundings("demo", member, NOW, fingerprints, lambda name: own if name == "loans" else None)
    return grant_from_toml(text, around, SystemEntropy())


def test_toml_fills_in_what_the_node_knows() -> None:
    found = from_toml(TOML)
    assert (found.owner, found.space, found.nbf, found.exp) == ("bank-a", "demo", NOW, NOW + 30 * 86_400)
    assert found.dataset == grant().dataset
    assert found.grantee_keys == grant().grantee_keys
    assert found.duties == ("human-review", "no-onward-transfer")
    assert (found.ops[0].min_members, found.ops[0].min_rows, found.ops[0].result_to) == (3, 30, "members")
    assert from_toml(TOML).id != found.id  # a fresh iv each time
    trained = TOML.replace('op = "scorecard"', 'op = "fedavg"\nexact = true')
    assert from_toml(trained).ops[0].exact
    assert not from_toml(trained.replace("exact = true", "exact = false")).ops[0].exact
    dated = from_toml(TOML.replace('exp = "30d"', "exp = 2027-06-01T00:00:00+08:00"))
    assert dated.exp == 1_811_779_200


@pytest.mark.parametrize(
    ("old", "new", "code", "key"),
    [
        ('exp = "30d"', "exp = 2027-06-01T00:00:00", "BAD_DOCUMENT", "exp"),
        ('exp = "30d"', 'exp = "soon"', "BAD_DOCUMENT", "exp"),
        ('exp = "30d"', "exp = inf", "BAD_DOCUMENT", "exp"),
        ('exp = "30d"', "", "BAD_DOCUMENT", "exp"),
        ("max_rounds = 40", "max_rounds = 4.0", "BAD_DOCUMENT", "ops"),
        ("max_rounds = 40", "max_rounds = 40\ndp = {}", "NOT_ENFORCED", "ops[0].dp"),
        ("max_rounds = 40", "", "BAD_DOCUMENT", "ops[0].max_rounds"),
        ("max_rounds = 40", "max_rounds = 40\nexact = true", "BAD_DOCUMENT", "ops[0].exact"),
        ('grantee = "bank-b"', 'grantee = "bank-z"', "NOT_APPROVED", "bank-z"),
        ('grantee = "bank-b"', 'grantee = "bank-b"\nspace = "other"', "BAD_DOCUMENT", "space"),
        ('grantee = "bank-b"', 'grantee = "bank-b"\niv = "00"', "BAD_DOCUMENT", "iv"),
        ('id = "loans"', 'id = "cards"', "BAD_DOCUMENT", "dataset.schema"),
        ('amount = "aggregate"', 'amount = "exact"', "NOT_ENFORCED", "columns.amount"),
        ('amount = "aggregate"', "amount = 2027-06-01", "BAD_DOCUMENT", "columns.amount"),
        ("[quota]", "[quota", "BAD_DOCUMENT", "TOML"),
        ("[quota]", "[budget]", "BAD_DOCUMENT", "quota"),
        ("[quota]", "[place]\n[quota]", "NOT_ENFORCED", "place"),
    ],
)
def test_toml_errors_name_the_key(old: str, new: str, code: str, key: str) -> None:
    assert old in TOML
    with pytest.raises(ChaotianError) as caught:
        from_toml(TOML.replace(old, new, 1))
    assert caught.value.code == code, caught.value
    assert key in caught.value.detail


def test_toml_of_any_shape_ends_in_a_coded_error() -> None:
    for text in (
        "",
        "a = 1",
        "[" * 50_000,
        "x" * 70_000,
        "dataset = 1",
        "ops = [1]",
        "revocation = 1",
        "purposes = [1]",
    ):
        with pytest.raises(ChaotianError) as caught:
            from_toml(text)
        assert caught.value.code in ("BAD_DOCUMENT", "OVERSIZED")


def test_the_example_in_the_documentation_is_a_grant() -> None:
    text = Path("docs/grants.md").read_text().split("```toml\n")[1].split("```")[0]
    found = from_toml(text)
    assert found.exp - found.nbf == 90 * 86_400 and found.columns["term"] == "aggregate"
    words = Path("docs/grants.md").read_text()
    assert all(f"`{name}`" in words for name in RESERVED_FIELDS | RESERVED_DISCLOSURES)
