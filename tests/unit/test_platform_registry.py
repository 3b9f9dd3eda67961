from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from federation.errors import ChaotianError
from federation.primitives.signing import Signer
from gateway.identity.certificates import generate_tls_key, make_csr
from gateway.identity.directory import Directory, Entry
from gateway.identity.enrolment import EnrolmentReply, EnrolmentRequest
from gateway.identity.invitation import Invitation
from gateway.identity.names import PeerName
from tests.support.spaces import Space

ROOT = Path(__file__).parents[2]


def code(action) -> str:
    with pytest.raises(ChaotianError) as caught:
        action()
    return caught.value.code


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(tmp_path)


def request(space: Space, folder: str, text: str) -> EnrolmentRequest:
    return space.node(folder).enrolment_request(Invitation.parse(text))


def directory(space: Space) -> Directory:
    key = space.registry.directory_signer.verifier.public
    return Directory.verify(space.registry.directory(), space="yu", directory_key=key, now=space.clock())


# --- invitations are honoured once ----------------------------------------------------------------------


def test_an_invitation_is_used_once(space: Space) -> None:
    text = space.invite("bank-a")
    space.enrolment.enrol(request(space, "one", text))
    assert code(lambda: space.enrolment.enrol(request(space, "two", text))) == "INVITATION"
    assert [record.member for record in space.registry.members()] == ["bank-a"]


def test_the_same_keys_get_their_certificate_again(space: Space) -> None:
    asked = request(space, "one", space.invite("bank-a"))
    first, again = space.enrolment.enrol(asked), space.enrolment.enrol(asked)
    assert first == again
    assert len(directory(space).members["bank-a"].serials) == 1


def test_the_same_identity_with_another_tls_key_does_not(space: Space) -> None:
    node = space.node("one")
    invitation = Invitation.parse(space.invite("bank-a"))
    asked = node.enrolment_request(invitation)
    space.enrolment.enrol(asked)
    other = make_csr(generate_tls_key(), PeerName("yu", "bank", "bank-a"))
    with node.database.read() as connection:
        signer = node._signer(connection)
    changed = EnrolmentRequest.make(invitation.token, other, asked.signed, signer)
    assert code(lambda: space.enrolment.enrol(changed)) == "INVITATION"


def test_of_many_at_once_one_gets_in(space: Space) -> None:
    text = space.invite("bank-a")
    asked = [request(space, f"node-{at}", text) for at in range(6)]
    replies: list[EnrolmentReply | str] = []

    def enrol(one: EnrolmentRequest) -> None:
        try:
            replies.append(space.enrolment.enrol(one))
        except ChaotianError as error:
            replies.append(error.code)

    threads = [threading.Thread(target=enrol, args=(one,)) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(type(reply).__name__) for reply in replies) == ["EnrolmentReply"] + ["str"] * 5
    assert [reply for reply in replies if isinstance(reply, str)] == ["INVITATION"] * 5


KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.identity.enrolment import EnrolmentRequest
from parties.platform import administration, registry
opened = administration.open_registry(Path(sys.argv[1]))
opened.clock = lambda: 1_800_000_001.0
enrolment = administration.enrolment(opened)
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "before":
    opened.publish = kill
enrolment.enrol(EnrolmentRequest.from_bytes(Path(sys.argv[2]).read_bytes()))
kill()
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_leaves_all_or_nothing_and_the_same_keys_go_on(space: Space, tmp_path: Path, when: str) -> None:
    text = space.invite("bank-a")
    asked = request(space, "one", text)
    (tmp_path / "request").write_bytes(asked.to_bytes())
    arguments = [str(tmp_path / "platform"), str(tmp_path / "request"), when]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(space.registry.members()) == (when == "after")
    if when == "after":
        assert code(lambda: space.enrolment.enrol(request(space, "two", text))) == "INVITATION"
    assert space.enrolment.enrol(asked).certificate_pem
    assert len(directory(space).members["bank-a"].serials) == 1


def test_expired_foreign_and_changed_invitations_are_refused(space: Space, tmp_path: Path) -> None:
    text = space.invite("bank-a", valid=60)
    asked = request(space, "one", text)
    stranger = Space(tmp_path / "stranger")
    assert code(lambda: stranger.enrolment.enrol(asked)) == "INVITATION"
    space.clock.now += 60
    assert code(lambda: space.enrolment.enrol(asked)) == "INVITATION"
    assert space.registry.members() == []


@pytest.mark.parametrize("change", [{"member": "bank-z"}, {"role": "office"}, {"city": "北京"}, {"space": "xi"}])
def test_an_invitation_gives_no_other_name(space: Space, change: dict[str, str]) -> None:
    invitation = Invitation.parse(space.invite("bank-a"))
    signer, key = Signer(bytes(32)), generate_tls_key()
    base = space.node("one").enrolment_request(invitation).signed.entry
    entry = Entry(**{**vars(base), "identity_key": signer.verifier, **change})
    csr = make_csr(key, PeerName(entry.space, entry.role, entry.member))
    asked = EnrolmentRequest.make(invitation.token, csr, entry.sign(signer), signer)
    assert code(lambda: space.enrolment.enrol(asked)) == "INVITATION"


def test_requests_that_are_not_bound_together_are_refused(space: Space) -> None:
    invitation = Invitation.parse(space.invite("bank-a"))
    mine, other = space.node("one").enrolment_request(invitation), space.node("two").enrolment_request(invitation)
    for asked in (
        EnrolmentRequest(mine.token, other.csr_pem, mine.signed, mine.binding),
        EnrolmentRequest(mine.token, mine.csr_pem, other.signed, mine.binding),
        EnrolmentRequest(bytes(32), mine.csr_pem, mine.signed, mine.binding),
    ):
        assert code(lambda asked=asked: space.enrolment.enrol(asked)) == "SIGNATURE"
    csr = make_csr(generate_tls_key(), PeerName("yu", "bank", "bank-z"))
    signer = Signer(bytes(32))
    entry = Entry(**{**vars(mine.signed.entry), "identity_key": signer.verifier}).sign(signer)
    asked = EnrolmentRequest.make(mine.token, csr, entry, signer)
    assert code(lambda: space.enrolment.enrol(asked)) == "MALFORMED"


def test_invitations_that_cannot_be_given(space: Space) -> None:
    assert code(lambda: space.invite("platform")) == "USAGE"
    assert code(lambda: space.invite("Bank")) == "USAGE"
    assert code(lambda: space.invite("bank", role="platform")) == "USAGE"
    assert code(lambda: space.invite("bank", city="\x1b")) == "USAGE"
    assert code(lambda: space.invite("bank", valid=31 * 86400)) == "USAGE"
    space.join("bank-a")
    assert code(lambda: space.invite("bank-a")) == "EXISTS"


def test_the_token_is_not_kept(space: Space, tmp_path: Path) -> None:
    invitation = Invitation.parse(space.invite("bank-a"))
    space.registry.database.close()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "platform").iterdir())
    assert bytes.fromhex(invitation.token_hash) in stored or invitation.token_hash.encode() in stored
    for form in (invitation.token, invitation.token.hex().encode()):
        assert form not in stored


# --- certificates and entries ---------------------------------------------------------------------------


def test_a_member_is_admitted_until_it_is_revoked(space: Space) -> None:
    certificate = space.join("bank-a").identity()
    serial = certificate.certificate.serial
    assert space.registry.admit(certificate.certificate_pem).member == "bank-a"
    assert space.registry.refused([int(serial, 16), 5]) == {5}
    space.registry.revoke("bank-a")
    space.registry.revoke("bank-a")
    assert space.registry.is_revoked("bank-a", serial)
    assert space.registry.refused([int(serial, 16)]) == {int(serial, 16)}
    assert code(lambda: space.registry.admit(certificate.certificate_pem)) == "CERT_REVOKED"
    assert directory(space).members["bank-a"].status == "revoked"
    assert space.registry.verifiers() == {}
    assert [event.kind for event in space.registry.events()] == ["invited", "enrolled", "revoked"]
    assert code(lambda: space.registry.revoke("bank-z")) == "NOT_FOUND"


def test_who_is_not_registered_is_not_admitted(space: Space, tmp_path: Path) -> None:
    space.join("bank-a")
    key = generate_tls_key().public_key()
    for name in (PeerName("yu", "bank", "bank-z"), PeerName("yu", "office", "bank-a")):
        pem = space.registry.authority.issue(key, name, space.clock(), 60)
        assert code(lambda pem=pem: space.registry.admit(pem)) == "NOT_PERMITTED"
    unregistered = space.registry.authority.issue(key, PeerName("yu", "bank", "bank-a"), space.clock(), 60)
    assert code(lambda: space.registry.admit(unregistered)) == "CERT_REVOKED"
    foreign = Space(tmp_path / "stranger").join("bank-a").identity().certificate_pem
    assert code(lambda: space.registry.admit(foreign)) == "SIGNATURE"
    own = space.nodes["bank-a"].identity().certificate_pem
    space.clock.now += 91 * 86400
    assert code(lambda: space.registry.admit(own)) == "CERT_EXPIRED"


def test_certificates_may_live_for_seconds(tmp_path: Path) -> None:
    space = Space(tmp_path, certificates_valid="3s")
    node = space.join("bank-a")
    space.clock.now += 2
    assert node.renewal_due()
    node.renewed(space.registry.renew(node.identity().name, node.renewal_request()))
    space.clock.now += 2
    assert space.registry.admit(node.identity().certificate_pem).member == "bank-a"


def test_a_member_renews_only_itself(space: Space) -> None:
    name = space.join("bank-a").identity().name
    csr = make_csr(generate_tls_key(), PeerName("yu", "bank", "bank-b"))
    assert code(lambda: space.registry.renew(name, csr)) == "NOT_PERMITTED"
    space.registry.revoke("bank-a")
    own = make_csr(generate_tls_key(), name)
    assert code(lambda: space.registry.renew(name, own)) == "CERT_REVOKED"


def test_certificates_of_one_member_are_bounded(space: Space) -> None:
    name = space.join("bank-a").identity().name
    for _ in range(63):
        space.registry.renew(name, make_csr(generate_tls_key(), name))
    assert code(lambda: space.registry.renew(name, make_csr(generate_tls_key(), name))) == "QUOTA"


def test_an_entry_changes_forward_only_and_only_its_sealing_key(space: Space) -> None:
    node = space.join("bank-a")
    name, signer = node.identity().name, node.identity().signer
    entry = directory(space).members["bank-a"].entry
    other = space.node("spare").openers()[0].public

    def rotate(**changes: object) -> bytes:
        return space.registry.rotate(name, Entry(**{**vars(entry), **changes}).sign(signer))

    version = space.registry.directory_version()
    rotate()  # the same again changes nothing
    assert space.registry.directory_version() == version
    assert code(lambda: rotate(sealing_key=other)) == "REPLAY"
    assert code(lambda: rotate(version=2, city="北京")) == "NOT_PERMITTED"
    assert code(lambda: rotate(version=2, role="office")) == "NOT_PERMITTED"
    assert code(lambda: rotate(version=2, member="bank-b")) == "NOT_PERMITTED"
    rotate(version=2, sealing_key=other)
    assert directory(space).members["bank-a"].entry.sealing_key == other
    assert code(rotate) == "REPLAY"


def test_an_entry_is_not_rotated_with_another_key(space: Space) -> None:
    node = space.join("bank-a")
    entry = directory(space).members["bank-a"].entry
    thief = Signer(bytes(32))
    forged = Entry(**{**vars(entry), "identity_key": thief.verifier, "version": 2}).sign(thief)
    assert code(lambda: space.registry.rotate(node.identity().name, forged)) == "NOT_PERMITTED"


def test_the_directory_is_signed_anew_well_before_it_expires(space: Space) -> None:
    first = directory(space)
    space.clock.now += 11 * 3600
    assert directory(space).version == first.version
    space.clock.now += 2 * 3600
    second = directory(space)
    assert second.version == first.version + 1
    assert second.expires - space.clock() == 24 * 3600


def test_a_revoked_member_comes_back_with_a_new_invitation_and_new_keys_only(space: Space) -> None:
    spare = space.invite("bank-a")
    node = space.join("bank-a")
    space.registry.revoke("bank-a")
    assert code(lambda: space.enrolment.enrol(request(space, "sneak", spare))) == "INVITATION"
    invitation = Invitation.parse(space.invite("bank-a"))
    signer = node.identity().signer
    entry = directory(space).members["bank-a"].entry
    csr = make_csr(generate_tls_key(), PeerName("yu", "bank", "bank-a"))
    old_keys = EnrolmentRequest.make(invitation.token, csr, entry.sign(signer), signer)
    assert code(lambda: space.enrolment.enrol(old_keys)) == "INVITATION"
    again = space.join("bank-a", space.invite("bank-a"), folder="again")
    assert directory(space).members["bank-a"].active
    assert space.registry.is_revoked("bank-a", node.identity().certificate.serial)
    assert not space.registry.is_revoked("bank-a", again.identity().certificate.serial)


def test_the_platforms_own_certificate_is_renewed_in_time(space: Space) -> None:
    first = space.registry.tls()
    assert space.registry.tls() == first
    space.clock.now += 60 * 86400
    assert space.registry.tls() != first
    assert space.registry.identity().name == PeerName("yu", "platform", "platform")
