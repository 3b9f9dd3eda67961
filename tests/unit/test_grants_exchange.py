"""Two nodes propose, accept and revoke; messages may be lost, repeated, forged."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from gateway.audit.verify import verify_copy
from gateway.grants.signed import GrantEnvelope, Revocation
from tests.unit.grant_samples import DAY, GRANTEE, NOW, OWNER, TOML, Node, Wire, grant, request, two_nodes
from tests.unit.log_samples import Clock, Someone


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def code_of(coroutine: Any) -> str:
    with pytest.raises(ChaotianError) as caught:
        run(coroutine)
    return caught.value.code


def kinds(node: Node) -> list[str]:
    return [event["type"] for event in node.log.events()]


def test_owner_proposes_grantee_accepts_owner_revokes(tmp_path: Path) -> None:
    a, b, _, _ = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML))
    assert (made["state"], made["delivered"], b.state(made["id"])) == ("proposed", True, "proposed")
    assert code_of(a.call("grant.accept", id=made["id"])) == "NOT_PERMITTED"
    accepted = run(b.call("grant.accept", id=made["id"][:8]))
    assert (accepted["state"], accepted["delivered"], a.state(made["id"])) == ("active", True, "active")
    for node in (a, b):  # both hold both signatures
        envelope = GrantEnvelope.from_text(run(node.call("grant.export", id=made["id"]))["envelope"])
        envelope.verify(OWNER.signer.verifier, GRANTEE.signer.verifier)
    assert code_of(b.call("grant.revoke", id=made["id"])) == "NOT_PERMITTED"
    assert run(a.call("grant.revoke", id=made["id"]))["delivered"]
    assert (a.state(made["id"]), b.state(made["id"])) == ("revoked", "revoked")
    for node in (a, b):
        assert kinds(node) == ["grant.proposed", "grant.accepted", "grant.revoked"]
        node.log.materialise()
    assert verify_copy(tmp_path / "a/log", OWNER.signer.verifier).size == 3
    assert verify_copy(tmp_path / "b/log", GRANTEE.signer.verifier).size == 3


def test_grantee_proposes_and_may_renounce_where_the_grant_says_so(tmp_path: Path) -> None:
    a, b, _, _ = two_nodes(tmp_path)
    text = TOML.replace('grantee = "bank-b"', 'owner = "bank-a"\ngrantee = "bank-b"\nrevocation = {by = "either"}')
    text = text.replace('id = "loans"', f'id = "loans"\ngrade = 3\nschema = "{"5c" * 32}"')
    made = run(b.call("grant.propose", toml=text))
    assert made["owner"] == "bank-a"
    run(a.call("grant.accept", id=made["id"]))
    assert b.state(made["id"]) == "active"
    run(b.call("grant.revoke", id=made["id"]))
    assert a.state(made["id"]) == "revoked"


def test_own_data_in_an_own_job_is_signed_on_both_sides_at_once(tmp_path: Path) -> None:
    a, _, wire, _ = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML.replace("bank-b", "bank-a")))
    assert (made["state"], made["delivered"], wire.sent) == ("active", True, [])
    with a.database.begin() as connection:
        own = request(requester="bank-a", requester_key=OWNER.signer.verifier.fingerprint.hex())
        assert a.book.charge(connection, made["id"], own).permitted
    assert run(a.call("grant.revoke", id=made["id"]))["state"] == "revoked"


def test_offline_by_file(tmp_path: Path) -> None:
    a, b, wire, _ = two_nodes(tmp_path)
    wire.cut = True
    first = run(a.call("grant.propose", toml=TOML, deliver=False))
    assert not first["delivered"]
    second = run(b.call("grant.accept", file=first["envelope"], deliver=False))
    assert second["state"] == "active" and a.state(first["id"]) == "proposed"
    third = run(a.call("grant.accept", file=json.dumps(json.loads(second["envelope"]), indent=2)))
    assert third["state"] == "active"
    again = run(a.call("grant.accept", file=second["envelope"]))  # repeating changes nothing
    assert again["accepted_at"] == third["accepted_at"]
    assert kinds(a) == kinds(b) == ["grant.proposed", "grant.accepted"]


def test_what_was_not_delivered_is_delivered_later(tmp_path: Path) -> None:
    a, b, wire, _ = two_nodes(tmp_path)
    wire.cut = True
    made = run(a.call("grant.propose", toml=TOML))
    assert (made["delivered"], made["undelivered"]) == (False, "proposed")
    wire.cut = False
    assert run(a.exchange.deliver_pending()) == 1 and run(a.exchange.deliver_pending()) == 0
    wire.cut = True
    run(b.call("grant.accept", id=made["id"]))
    run(a.call("grant.revoke", id=made["id"]))  # before it hears of the acceptance: still effective at once
    assert a.state(made["id"]) == "revoked"
    wire.cut = False
    run(b.exchange.deliver_pending())
    assert a.state(made["id"]) == "revoked"
    run(a.exchange.deliver_pending())
    assert b.state(made["id"]) == "revoked"
    for node in (a, b):
        with node.database.read() as connection:
            assert node.book.undelivered(connection) == []


def test_the_service_delivers_by_itself_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.grants.exchange.RETRY", 0.01)
    a, b, wire, _ = two_nodes(tmp_path)
    wire.cut = True
    made = run(a.call("grant.propose", toml=TOML))

    async def scenario() -> None:
        await a.exchange.start()
        await asyncio.sleep(0.05)
        wire.cut = False
        for _ in range(200):
            await asyncio.sleep(0.01)
            if run_state() == "proposed":
                break
        await a.exchange.stop()

    def run_state() -> str:
        try:
            return b.state(made["id"])
        except ChaotianError:
            return ""

    run(scenario())
    assert run_state() == "proposed"


def test_repeated_and_reordered_messages_change_nothing(tmp_path: Path) -> None:
    a, b, wire, _ = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML))
    run(b.call("grant.accept", id=made["id"]))
    run(a.call("grant.revoke", id=made["id"]))
    counts = [node.log.head().size for node in (a, b)]
    for sender, receiver, message in [*wire.sent, *reversed(wire.sent)]:
        try:
            run(wire.links[receiver].handlers["grant"](sender, message))
        except ChaotianError as error:
            assert error.code == "GRANT_REVOKED"
    assert [node.log.head().size for node in (a, b)] == counts
    assert a.state(made["id"]) == b.state(made["id"]) == "revoked"


def test_a_declined_proposal_stays_declined(tmp_path: Path) -> None:
    a, b, wire, _ = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML))
    run(b.call("grant.revoke", id=made["id"]))
    assert a.state(made["id"]) == "revoked"
    assert code_of(b.exchange.on_message("bank-a", wire.sent[0][2])) == "GRANT_REVOKED"
    assert code_of(b.call("grant.accept", id=made["id"])) == "GRANT_REVOKED"


def test_strangers_and_wrong_senders(tmp_path: Path) -> None:
    a, b, wire, clock = two_nodes(tmp_path)
    stranger = Someone("bank-c", seed=b"\x05" * 32)
    made = run(a.call("grant.propose", toml=TOML))
    message = wire.sent[0][2]
    for sender in ("bank-b", "bank-c"):
        assert code_of(b.exchange.on_message(sender, message)) == "NOT_PERMITTED"
    # A grant in which this node is no party.
    assert (
        code_of(Node(tmp_path / "c", stranger, wire, clock).exchange.on_message("bank-a", message)) == "NOT_PERMITTED"
    )
    # The owner's name under a stranger's key.
    forged = GrantEnvelope(grant(), {}).sign("owner", stranger.signer)
    body = {"v": 1, "step": "proposed", "body": json.loads(forged.encode())}
    assert code_of(b.exchange.on_message("bank-a", canonical_json(body))) == "SIGNATURE"
    # No longer approved.
    del b.peers.known["bank_a"]
    assert code_of(b.exchange.on_message("bank-a", message)) == "NOT_APPROVED"
    assert code_of(b.call("grant.accept", id=made["id"])) == "NOT_APPROVED"
    assert code_of(b.call("grant.propose", toml=TOML.replace("bank-b", "bank-a"))) in ("NOT_APPROVED", "BAD_DOCUMENT")


def test_forged_revocations(tmp_path: Path) -> None:
    a, b, _, _ = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML))
    run(b.call("grant.accept", id=made["id"]))

    def send(statement: Revocation, sender: str) -> Any:
        body = canonical_json({"v": 1, "step": "revoked", "body": statement.document()})
        return b.exchange.on_message(sender, body)

    mine = Revocation.make(made["id"], "bank-a", 1, GRANTEE.signer)
    assert code_of(send(mine, "bank-a")) == "SIGNATURE"
    assert code_of(send(Revocation.make(made["id"], "bank-c", 1, GRANTEE.signer), "bank-c")) == "NOT_PERMITTED"
    assert code_of(send(Revocation.make(made["id"], "bank-a", 1, OWNER.signer), "bank-c")) == "NOT_PERMITTED"
    assert b.state(made["id"]) == "active"
    # The grantee has no right to revoke this one, even with a good signature.
    statement = Revocation.make(made["id"], "bank-b", 1, GRANTEE.signer)
    body = canonical_json({"v": 1, "step": "revoked", "body": statement.document()})
    assert code_of(a.exchange.on_message("bank-b", body)) == "NOT_PERMITTED"
    assert a.state(made["id"]) == "active"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"body":1,"step":"proposed","v":1}', b'{"body":{},"step":"x","v":1}',
     b'{"body":null,"step":"revoked","v":1}', b"x" * 1_000_000, b"[" * 50_000],
)  # fmt: skip
def test_messages_of_any_shape_end_in_a_coded_error(tmp_path: Path, payload: bytes) -> None:
    _, b, _, _ = two_nodes(tmp_path)
    assert code_of(b.exchange.on_message("bank-a", payload)) in ("MALFORMED", "BAD_DOCUMENT", "OVERSIZED")


def test_params_of_any_shape_end_in_a_coded_error(tmp_path: Path) -> None:
    a, _, _, _ = two_nodes(tmp_path)
    for method, params in (
        ("propose", {}), ("propose", {"toml": 3}), ("accept", {}), ("accept", {"file": 3}), ("accept", {"file": "x"}),
        ("accept", {"id": "0" * 64}), ("revoke", {"id": None}), ("list", {"state": "open"}), ("show", {"id": "../.."}),
        ("explain", {"id": "0" * 64}),
    ):  # fmt: skip
        assert code_of(a.call(f"grant.{method}", **params)) in ("BAD_DOCUMENT", "NOT_FOUND")


def test_an_expired_proposal_cannot_be_accepted(tmp_path: Path) -> None:
    a, b, _, clock = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML))
    clock.now += 30 * DAY
    assert code_of(b.call("grant.accept", id=made["id"])) == "GRANT_EXPIRED"


def test_a_restored_node_does_not_take_its_old_signature_for_consent(tmp_path: Path) -> None:
    a, b, _, clock = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML))
    run(b.call("grant.accept", id=made["id"]))
    complete = run(a.call("grant.export", id=made["id"]))["envelope"]
    keys = {"bank_a": OWNER.signer.verifier, "bank_b": GRANTEE.signer.verifier}
    restored = Node(tmp_path / "restored", OWNER, Wire(), clock, **keys)
    with pytest.raises(ChaotianError):
        restored.state(made["id"])
    record = restored.exchange.receive(GrantEnvelope.from_text(complete), "bank-b")
    assert record.state == "proposed" and set(record.envelope.signatures) == {"grantee"}


def test_explain_shows_clauses_and_decides_on_a_request(tmp_path: Path) -> None:
    a, _, _, _ = two_nodes(tmp_path)
    made = run(a.call("grant.propose", toml=TOML.replace("bank-b", "bank-a")))
    shown = run(a.call("grant.explain", id=made["id"]))
    assert "decision" not in shown and {row["label"] for row in shown["terms"]} == {"Enforced", "Contractual"}
    assert shown["summary"]["what leaves"].startswith("totals over 3 columns")
    assert shown["usage"] == {"calls": 0, "left": 100}
    own = request(requester="bank-a", requester_key=OWNER.signer.verifier.fingerprint.hex(), min_rows=2)
    raw = {**own.__dict__, "columns": list(own.columns), "members": list(own.members)}
    decision = run(a.call("grant.explain", id=made["id"], request=raw))["decision"]
    assert [c["key"] for c in decision["clauses"] if not c["permitted"]] == ["ops.min_rows"]
    a.exchange.job_requests = lambda job: [own, own]
    assert run(a.call("grant.explain", id=made["id"], job="ab" * 32))["decision"] == decision
    for bad in ({}, {**raw, "x": 1}, {**raw, "grade": "3"}, {**raw, "columns": 3}, {**raw, "as_of": "now"}, 3):
        assert code_of(a.call("grant.explain", id=made["id"], request=bad)) == "BAD_DOCUMENT"
    with a.database.read() as connection:
        assert a.book.usage(connection, made["id"], own, now=NOW).calls == 0  # explaining charges nothing


def test_the_platform_as_grantee_is_known_by_the_coordinators_key(tmp_path: Path) -> None:
    a, _, _, clock = two_nodes(tmp_path)
    text = TOML.replace('"bank-b"', '"platform"').replace('roles = ["bank"]', 'roles = ["platform"]')
    made = run(a.call("grant.propose", toml=text, deliver=False))
    operator = Someone("platform", seed=b"\x08" * 32)
    platform = Node(tmp_path / "p", operator, None, Clock(clock.now), bank_a=OWNER.signer.verifier)
    accepted = run(platform.call("grant.accept", file=made["envelope"]))
    assert run(a.call("grant.accept", file=accepted["envelope"]))["state"] == "active"
