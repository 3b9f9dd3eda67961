from __future__ import annotations

import os
from pathlib import Path

import pytest

from federation.errors import ChaotianError
from federation.primitives.sealing import seal
from gateway.identity.certificates import generate_tls_key
from gateway.identity.directory import Directory
from gateway.identity.enrolment import EnrolmentReply, EnrolmentRequest
from gateway.identity.home import Home, NodeConfig, PlatformConfig
from gateway.identity.invitation import Invitation
from gateway.identity.names import PeerName
from gateway.identity.node import NodeKeys
from tests.support.spaces import Space

HOUR = 3600


def code(action) -> str:
    with pytest.raises(ChaotianError) as caught:
        action()
    return caught.value.code


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(tmp_path)


def approve(node: NodeKeys, space: Space, *members: str) -> None:
    for member in members:
        node.peers.approve(member, space.nodes[member].fingerprint())


# --- enrolment, the node's side -------------------------------------------------------------------------


def test_a_node_knows_who_it_is_after_enrolling(space: Space) -> None:
    node = space.node("bank-a")
    assert code(node.identity) == "CONFIG"
    fingerprint = node.fingerprint()
    identity = space.join("bank-b").identity()
    assert (identity.space, identity.role, identity.member, identity.city) == ("yu", "bank", "bank-b", "重庆")
    assert identity.certificate.name == identity.name
    assert identity.signer.verifier.fingerprint == space.nodes["bank-b"].fingerprint() != fingerprint
    assert identity.address == "platform.example:7443"
    shown = repr(identity)
    assert "PRIVATE" not in shown
    assert "BEGIN" not in shown


def test_enrolling_twice_is_refused(space: Space) -> None:
    node = space.join("bank-a")
    invitation = Invitation.parse(space.invite("bank-b"))
    assert code(lambda: node.enrolment_request(invitation)) == "EXISTS"


def test_an_expired_invitation_is_not_even_sent(space: Space) -> None:
    invitation = Invitation.parse(space.invite("bank-a", valid=60))
    space.clock.now += 60
    assert code(lambda: space.node("bank-a").enrolment_request(invitation)) == "INVITATION"


def test_replies_that_are_not_for_this_node_are_refused(space: Space, tmp_path: Path) -> None:
    node, other = space.node("bank-a"), space.node("other")
    invitation, second = Invitation.parse(space.invite("bank-a")), Invitation.parse(space.invite("bank-b"))
    mine = space.enrolment.enrol(node.enrolment_request(invitation))
    theirs = space.enrolment.enrol(other.enrolment_request(second))
    before = space.registry.directory()
    assert code(lambda: node.enrolled(invitation, EnrolmentReply(theirs.certificate_pem, before))) == "MALFORMED"
    stranger = Space(tmp_path / "stranger")
    foreign = stranger.join("bank-a").identity().certificate_pem
    assert code(lambda: node.enrolled(invitation, EnrolmentReply(foreign, before))) == "SIGNATURE"
    wrong = EnrolmentReply(mine.certificate_pem, stranger.registry.directory())
    assert code(lambda: node.enrolled(invitation, wrong)) == "DIRECTORY"
    key = generate_tls_key().public_key()
    swapped = space.registry.authority.issue(key, PeerName("yu", "bank", "bank-a"), space.clock(), 60)
    assert code(lambda: node.enrolled(invitation, EnrolmentReply(swapped, before))) == "MALFORMED"
    assert code(node.identity) == "CONFIG"
    assert node.enrolled(invitation, EnrolmentReply(mine.certificate_pem, before)).member == "bank-a"


def test_a_platform_that_swaps_the_newcomers_key_is_noticed(space: Space) -> None:
    node = space.node("bank-a")
    invitation = Invitation.parse(space.invite("bank-a"))
    reply = space.enrolment.enrol(node.enrolment_request(invitation))
    empty = Directory.build(
        space="yu",
        version=9,
        issued=int(space.clock()),
        expires=int(space.clock()) + 60,
        coordinator=space.registry.coordinator.verifier,
        listings=[],
        signer=space.registry.directory_signer,
    )
    assert code(lambda: node.enrolled(invitation, EnrolmentReply(reply.certificate_pem, empty))) == "DIRECTORY"


def test_messages_come_back_from_their_bytes(space: Space) -> None:
    node = space.node("bank-a")
    request = node.enrolment_request(Invitation.parse(space.invite("bank-a")))
    data = request.to_bytes()
    assert EnrolmentRequest.from_bytes(data).verify() == request
    assert "token" not in repr(request)
    for wrong in (b"", b"{}", data[:-1], data + b" ", b"x" * 100_000, data.replace(b'"v":1', b'"v":2')):
        assert code(lambda wrong=wrong: EnrolmentRequest.from_bytes(wrong)) in (
            "MALFORMED",
            "BAD_DOCUMENT",
            "OVERSIZED",
        )
        assert code(lambda wrong=wrong: EnrolmentReply.from_bytes(wrong)) in ("MALFORMED", "BAD_DOCUMENT", "OVERSIZED")


# --- who counts -----------------------------------------------------------------------------------------


def test_nobody_counts_before_approval(space: Space) -> None:
    node = space.join("bank-a")
    space.join("bank-b")
    space.spread()
    assert list(node.peers.approved()) == ["bank-a"]
    assert code(lambda: node.peers.sealing_key("bank-b")) == "NOT_APPROVED"
    approve(node, space, "bank-b")
    assert list(node.peers.approved()) == ["bank-a", "bank-b"]
    assert node.peers.approved()["bank-b"].fingerprint == space.nodes["bank-b"].fingerprint()
    assert node.peers.sealing_key("bank-b") == space.nodes["bank-b"].identity().opener.public
    node.approvals.revoke("bank-b")
    assert list(node.peers.approved()) == ["bank-a"]


def test_only_the_listed_fingerprint_is_approved(space: Space) -> None:
    node = space.join("bank-a")
    space.join("bank-b")
    space.spread()
    assert code(lambda: node.peers.approve("bank-b", os.urandom(32))) == "NOT_APPROVED"
    assert code(lambda: node.peers.approve("bank-z", os.urandom(32))) == "NOT_FOUND"
    assert node.approvals.all() == {}


def test_a_revoked_member_counts_no_more(space: Space) -> None:
    node = space.join("bank-a")
    space.join("bank-b")
    space.spread()
    approve(node, space, "bank-b")
    space.registry.revoke("bank-b")
    space.spread()
    assert list(node.peers.approved()) == ["bank-a"]
    assert code(lambda: node.peers.verifier("bank-b")) == "CERT_REVOKED"
    assert code(lambda: approve(node, space, "bank-b")) == "CERT_REVOKED"
    assert [(change.member, change.change) for change in node.directories.changes()][-1] == ("bank-b", "revoked")


def test_a_changed_key_needs_approval_anew(space: Space) -> None:
    node = space.join("bank-a")
    space.join("bank-b")
    space.spread()
    approve(node, space, "bank-b")
    space.registry.revoke("bank-b")
    space.join("bank-b", folder="bank-b-again")
    space.spread()
    assert list(node.peers.approved()) == ["bank-a"]
    assert code(lambda: node.peers.sealing_key("bank-b")) == "NOT_APPROVED"
    approve(node, space, "bank-b")
    assert list(node.peers.approved()) == ["bank-a", "bank-b"]


def test_an_expired_directory_stops_everything(space: Space) -> None:
    node = space.join("bank-a")
    space.clock.now += 24 * HOUR
    assert code(node.peers.approved) == "DIRECTORY"
    assert code(node.peers.coordinator) == "DIRECTORY"
    assert node.directories.latest() is not None
    space.spread()
    assert list(node.peers.approved()) == ["bank-a"]


def test_a_directory_is_kept_over_a_restart_and_not_rolled_back(space: Space) -> None:
    node = space.join("bank-a")
    old = space.registry.directory()
    space.join("bank-b")
    space.spread()
    fresh = Home.node(space.path / "bank-a")
    again = NodeKeys(fresh.database, fresh.unlock(), clock=space.clock)
    assert again.directories.current().version == node.directories.current().version
    assert code(lambda: again.directories.accept(old)) == "DIRECTORY"
    assert "bank-b" in again.directories.current().members


def test_a_stranger_in_ones_own_name_is_noticed(space: Space) -> None:
    node = space.join("bank-a")
    space.registry.revoke("bank-a")
    space.join("bank-a", folder="thief")
    node.directories.accept(space.registry.directory())
    assert code(node.peers.approved) == "DIRECTORY"


# --- rotation and renewal -------------------------------------------------------------------------------


def test_sealing_keys_rotate_daily_and_old_ones_open_for_two_days(space: Space) -> None:
    node = space.join("bank-a")
    first = node.identity().opener
    letter = seal(b"hello", first.public, b"")
    assert node.rotate_sealing() is None
    space.clock.now += 24 * HOUR
    signed = node.rotate_sealing()
    assert signed is not None
    assert signed.entry.version == 2
    assert node.rotate_sealing() == signed  # until it is published
    node.directories.accept(space.registry.rotate(node.identity().name, signed))
    assert node.rotate_sealing() is None
    assert node.identity().opener.public == signed.entry.sealing_key != first.public
    space.clock.now += 48 * HOUR - 1
    assert [opener for opener in node.openers() if opener.public == first.public]
    assert node.openers()[-1].open(letter, b"") == b"hello"
    space.clock.now += 1
    assert not [opener for opener in node.openers() if opener.public == first.public]


def test_a_key_is_kept_as_long_as_its_successor_is_not_published(space: Space) -> None:
    node = space.join("bank-a")
    first = node.identity().opener.public
    space.clock.now += 24 * HOUR
    node.rotate_sealing()
    space.clock.now += 30 * 24 * HOUR
    assert node.rotate_sealing() is not None
    assert node.openers()[-1].public == first


def test_certificates_renew_without_a_gap(space: Space) -> None:
    node = space.join("bank-a")
    old = node.identity()
    assert not node.renewal_due()
    space.clock.now += 60 * 24 * HOUR
    assert node.renewal_due()
    csr = node.renewal_request()
    assert node.identity().tls_key_pem == old.tls_key_pem
    new = node.renewed(space.registry.renew(old.name, csr))
    assert new.tls_key_pem != old.tls_key_pem
    assert not node.renewal_due()
    for identity in (old, new):
        assert not space.registry.is_revoked("bank-a", identity.certificate.serial)


def test_a_renewal_is_for_the_key_that_was_asked_for(space: Space) -> None:
    node = space.join("bank-a")
    old = node.identity()
    assert code(lambda: node.renewed(old.certificate_pem)) == "CONFIG"
    node.renewal_request()
    assert code(lambda: node.renewed(old.certificate_pem)) == "MALFORMED"
    assert node.identity().certificate_pem == old.certificate_pem


# --- homes ----------------------------------------------------------------------------------------------


def test_a_home_is_private_and_made_once(tmp_path: Path) -> None:
    home, _box = Home.create(tmp_path / "home", NodeConfig(), environment={})
    home.finish()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "home").iterdir()} == {0}
    assert code(lambda: Home.create(tmp_path / "home", NodeConfig(), environment={})) == "EXISTS"


def test_an_interrupted_init_can_be_repeated(tmp_path: Path) -> None:
    home, box = Home.create(tmp_path / "home", NodeConfig(), environment={})
    NodeKeys(home.database, box).create()
    home, box = Home.create(tmp_path / "home", NodeConfig(), environment={})
    NodeKeys(home.database, box).create()
    home.finish()
    assert NodeKeys(home.database, Home.node(tmp_path / "home").unlock()).fingerprint()


def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    assert code(lambda: Home.create(tmp_path / "home", NodeConfig(), environment={})) == "CONFIG"


def test_configurations_come_back_and_unknown_keys_do_not(tmp_path: Path) -> None:
    config = PlatformConfig(space="yu", address="a:1", enrol_address="b:2", database='sqlite:////x"\\y\n')
    home = Home(tmp_path, config)
    home.finish()
    assert Home.platform(tmp_path).config == config
    file = tmp_path / "platform.toml"
    for text in (
        '[platform]\nspace = "yu"\nadress = "a:1"\n',
        '[platform]\nspace = "yu"\n',
        '[platform]\nspace = "YU"\naddress = "a:1"\nenrol_address = "b:2"\n',
        '[platform]\nspace = "yu"\naddress = "a"\nenrol_address = "b:2"\n',
        '[platform]\nspace = "yu"\naddress = "a:1"\nenrol_address = "b:2"\ndirectory_valid = "25h"\n',
        '[platform]\nspace = "yu"\naddress = "a:1"\nenrol_address = "b:2"\nkey_file = "a"\npassphrase_file = "b"\n',
        '[platform]\nspace = 5\naddress = "a:1"\nenrol_address = "b:2"\n',
        '[other]\nspace = "yu"\n',
        "platform = 5\n",
        "\x00",
        "[[[",
        "x" * 100_000,
    ):
        file.write_text(text)
        assert code(lambda: Home.platform(tmp_path)) == "CONFIG", text[:80]
