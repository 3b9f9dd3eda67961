"""Sealed envelopes under attack: replayed, reordered, altered, turned to others, held back; and their signed kin."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.encoding import pack, unpack
from federation.primitives.entropy import SystemEntropy
from federation.primitives.sealing import Opener, seal
from federation.primitives.signing import Signer, Verifier
from gateway.storage.base import Database
from gateway.storage.tables.transport import envelope_windows
from gateway.transport import envelope
from gateway.transport.envelope import WINDOW, Envelopes, ReplayWindow, open_signed, sign_envelope, slide


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Member:
    """One member: keys, peer book, database."""

    def __init__(self, name: str, folder: Path, clock: Clock, space: str = "test") -> None:
        self.name, self.clock, self.space = name, clock, space
        self.signer = Signer(SystemEntropy().bytes(32))
        self.openers = [Opener(SystemEntropy().bytes(96))]
        self.approved: dict[str, Member] = {}
        self.path = folder / f"{space}-{name}.db"
        self.database = Database.at(self.path)
        with self.database.begin() as connection:
            envelope_windows.create(connection, checkfirst=True)
        self.envelopes = self.start()

    def start(self) -> Envelopes:
        """A process of this member, started anew."""
        return Envelopes(
            space=self.space,
            member=self.name,
            signer=self.signer,
            openers=lambda: self.openers,
            peers=self,
            window=ReplayWindow(self.database, self.clock),
            clock=self.clock,
            entropy=SystemEntropy(),
        )

    # The port `Peers`.
    def verifier(self, member: str) -> Verifier:
        return self._peer(member).signer.verifier

    def sealing_key(self, member: str) -> bytes:
        return self._peer(member).openers[0].public

    def _peer(self, member: str) -> Member:
        if member not in self.approved:
            raise ChaotianError("NOT_APPROVED", member=member)
        return self.approved[member]


@pytest.fixture
def members(tmp_path: Path) -> tuple[Member, Member, Member, Clock]:
    clock = Clock()
    a, b, c = (Member(name, tmp_path, clock) for name in ("bank-a", "bank-b", "bank-c"))
    for member in (a, b, c):
        member.approved = {other.name: other for other in (a, b, c) if other is not member}
    return a, b, c, clock


Members4 = tuple[Member, Member, Member, Clock]


def code(work: Callable[[], object]) -> str:
    with pytest.raises(ChaotianError) as raised:
        work()
    return raised.value.code


def test_opens_once(members: Members4) -> None:
    a, b, _, _ = members
    sealed = a.envelopes.seal("bank-b", "floors", b"body", lifetime=60)
    head, body = b.envelopes.open("bank-a", sealed)
    assert (head.purpose, head.sequence, body) == ("floors", 1, b"body")
    assert code(lambda: b.envelopes.open("bank-a", sealed)) == "REPLAY"


def test_the_relay_sees_neither_purpose_nor_body(members: Members4) -> None:
    a, _, _, _ = members
    sealed = a.envelopes.seal("bank-b", "exposure-consent", b"body-of-the-letter", lifetime=60)
    for secret in (b"exposure-consent", b"body-of-the-letter", b"bank-a", b"bank-b", b"test"):
        assert secret not in sealed
    other = a.envelopes.seal("bank-b", "exposure-consent", b"body-of-the-letter", lifetime=60)
    assert len(other) == len(sealed) and other != sealed


def test_a_replay_fails_also_after_a_restart_of_the_receiver(members: Members4) -> None:
    a, b, _, _ = members
    sealed = [a.envelopes.seal("bank-b", "p", bytes([i]), lifetime=60) for i in range(5)]
    for one in sealed:
        b.envelopes.open("bank-a", one)
    b.database.close()
    b.database = Database.at(b.path)
    anew = b.start()
    for one in sealed:
        assert code(lambda one=one: anew.open("bank-a", one)) == "REPLAY"  # type: ignore[misc]


def test_a_sender_started_anew_is_heard(members: Members4) -> None:
    a, b, _, _ = members
    b.envelopes.open("bank-a", a.envelopes.seal("bank-b", "p", b"1", lifetime=60))
    head, _ = b.envelopes.open("bank-a", a.start().seal("bank-b", "p", b"2", lifetime=60))
    assert head.sequence == 1


def test_reordered_within_the_window_opens_and_far_behind_it_does_not(members: Members4) -> None:
    a, b, _, _ = members
    first, second, third = (a.envelopes.seal("bank-b", "p", bytes([i]), lifetime=60) for i in range(3))
    for one in (third, first, second):
        b.envelopes.open("bank-a", one)
    for one in (third, first, second):
        assert code(lambda one=one: b.envelopes.open("bank-a", one)) == "REPLAY"  # type: ignore[misc]
    late = a.envelopes.seal("bank-b", "p", b"late", lifetime=60)
    a.envelopes._sequences["bank-b"] += WINDOW
    b.envelopes.open("bank-a", a.envelopes.seal("bank-b", "p", b"far ahead", lifetime=60))
    assert code(lambda: b.envelopes.open("bank-a", late)) == "REPLAY"


def test_an_envelope_held_back_is_refused_once_expired(members: Members4) -> None:
    a, b, _, clock = members
    sealed = a.envelopes.seal("bank-b", "p", b"old", lifetime=60)
    clock.now += 60 + 301
    assert code(lambda: b.envelopes.open("bank-a", sealed)) == "DEADLINE"
    clock.now -= 200_000
    assert code(lambda: b.envelopes.open("bank-a", sealed)) == "MALFORMED"


def test_names_are_bound(members: Members4) -> None:
    """What A sealed to B opens neither as from C, nor at C, nor in another space."""
    a, b, c, _ = members
    sealed = a.envelopes.seal("bank-b", "p", b"body", lifetime=60)
    assert code(lambda: b.envelopes.open("bank-c", sealed)) == "SHARE_INVALID"
    assert code(lambda: c.envelopes.open("bank-a", sealed)) == "SHARE_INVALID"
    c.openers = b.openers  # even with the same sealing key
    assert code(lambda: c.envelopes.open("bank-a", sealed)) == "SHARE_INVALID"
    foreign = Member("bank-b", b.path.parent, b.clock, "elsewhere")
    foreign.openers, foreign.approved = b.openers, b.approved
    assert code(lambda: foreign.envelopes.open("bank-a", sealed)) == "SHARE_INVALID"


def test_only_approved_peers(members: Members4) -> None:
    a, b, _, _ = members
    sealed = a.envelopes.seal("bank-b", "p", b"body", lifetime=60)
    del b.approved["bank-a"]
    assert code(lambda: b.envelopes.open("bank-a", sealed)) == "NOT_APPROVED"
    del a.approved["bank-b"]
    assert code(lambda: a.envelopes.seal("bank-b", "p", b"", lifetime=60)) == "NOT_APPROVED"


def forged(
    sender: str, receiver: Member, signer: Signer, body: bytes, *, sequence: int = 1, signed_as: str = ""
) -> bytes:
    """An envelope whose HPKE layer is right (anybody can seal to a public key), signed by somebody else."""
    head = envelope.Head("p", b"e" * 16, sequence, int(receiver.clock()) + 100)
    public = receiver.openers[0].public
    info = envelope._info("test", sender, receiver.name, head)
    signed_info = envelope._info("test", signed_as or sender, receiver.name, head)
    signature = signer.sign(envelope._INFO_TAG, envelope._statement(signed_info, body))
    parts = [
        seal(
            pack(envelope._HEAD_TAG, envelope._head_fields(head)),
            public,
            envelope._head_info("test", sender, receiver.name),
        ),
        seal(signature + body, public, info),
    ]
    return pack(envelope._SEALED_TAG, [b"1", *parts])


def test_a_sealed_forgery_fails_at_the_signature_and_burns_no_number(members: Members4) -> None:
    a, b, c, _ = members
    assert b.envelopes.open("bank-a", forged("bank-a", b, a.signer, b"true", sequence=9))[1] == b"true"
    assert code(lambda: b.envelopes.open("bank-a", forged("bank-a", b, c.signer, b"false"))) == "SIGNATURE"
    # C's own signature over C's envelope, put into one that says A.
    assert (
        code(lambda: b.envelopes.open("bank-a", forged("bank-a", b, c.signer, b"x", signed_as="bank-c"))) == "SIGNATURE"
    )
    # The forged number 1 was not used up.
    assert b.envelopes.open("bank-a", forged("bank-a", b, a.signer, b"true"))[1] == b"true"


def test_parts_of_two_envelopes_do_not_mix(members: Members4) -> None:
    a, b, _, _ = members
    one = unpack(envelope._SEALED_TAG, a.envelopes.seal("bank-b", "p", b"1", lifetime=60), 3)
    two = unpack(envelope._SEALED_TAG, a.envelopes.seal("bank-b", "p", b"2", lifetime=60), 3)
    assert (
        code(lambda: b.envelopes.open("bank-a", pack(envelope._SEALED_TAG, [b"1", one[1], two[2]]))) == "SHARE_INVALID"
    )
    assert code(lambda: b.envelopes.open("bank-a", pack(envelope._SEALED_TAG, [b"2", one[1], one[2]]))) == "VERSION"


def test_no_changed_or_cut_envelope_opens(members: Members4) -> None:
    a, b, _, _ = members
    sealed = a.envelopes.seal("bank-b", "p", b"body", lifetime=60)
    draw = random.Random(1)
    for position in {*range(60), *draw.sample(range(len(sealed)), 120)}:
        changed = bytearray(sealed)
        changed[position] ^= 1 << draw.randrange(8)
        assert code(lambda data=bytes(changed): b.envelopes.open("bank-a", data)) in {  # type: ignore[misc]
            "MALFORMED",
            "SHARE_INVALID",
            "VERSION",
        }
    for size in draw.sample(range(len(sealed)), 60):
        assert code(lambda data=sealed[:size]: b.envelopes.open("bank-a", data)) == "MALFORMED"  # type: ignore[misc]
    assert code(lambda: b.envelopes.open("bank-a", sealed + b"\0")) == "MALFORMED"
    assert b.envelopes.open("bank-a", sealed)[1] == b"body"


def test_a_replaced_sealing_key_still_opens(members: Members4) -> None:
    a, b, _, _ = members
    sealed = a.envelopes.seal("bank-b", "p", b"body", lifetime=60)
    b.openers.insert(0, Opener(SystemEntropy().bytes(96)))
    assert b.envelopes.open("bank-a", sealed)[1] == b"body"
    newer = a.envelopes.seal("bank-b", "p", b"again", lifetime=60)
    assert b.envelopes.open("bank-a", newer)[1] == b"again"
    last = a.envelopes.seal("bank-b", "p", b"gone", lifetime=60)
    b.openers = [Opener(SystemEntropy().bytes(96))]
    assert code(lambda: b.envelopes.open("bank-a", last)) == "SHARE_INVALID"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 3 * WINDOW), min_size=1, max_size=60))
def test_the_window_takes_each_number_once(numbers: list[int]) -> None:
    """Against a set: a number is taken if it never came and is less than a window behind the highest."""
    highest, seen = numbers[0], envelope._bits(1)
    came = {numbers[0]}
    for number in numbers[1:]:
        expected = number not in came and number > highest - WINDOW
        try:
            highest, seen = slide(highest, seen, number, "x")
            taken = True
        except ChaotianError as error:
            assert error.code == "REPLAY"
            taken = False
        assert taken == expected
        came.add(number)


# --- signed envelopes of coordinator and members ---------------------------------------------------------------------

SIGNED = {
    "space": "test",
    "sender": "platform",
    "receiver": "bank-a",
    "kind": "train.unmask",
    "job": "j1",
    "sequence": 7,
}


def test_a_signed_envelope_says_exactly_what_is_expected() -> None:
    signer, other = Signer(b"1" * 32), Signer(b"2" * 32)
    data = sign_envelope(signer, **SIGNED, body=b"message")  # type: ignore[arg-type]
    assert open_signed(data, verifier=signer.verifier, **SIGNED) == b"message"  # type: ignore[arg-type]
    assert envelope.signed_sequence(data) == 7

    def opened(verifier: Verifier = signer.verifier, **changes: object) -> str:
        return code(lambda: open_signed(data, verifier=verifier, **{**SIGNED, **changes}))  # type: ignore[arg-type]

    assert opened(other.verifier) == "SIGNATURE"
    for changes in (
        {"space": "s"},
        {"sender": "bank-b"},
        {"receiver": "bank-b"},
        {"kind": "train.result"},
        {"job": "j2"},
    ):
        assert opened(**changes) == "MALFORMED", changes
    assert opened(sequence=8) == "REPLAY"


def test_no_changed_signed_envelope_opens() -> None:
    signer = Signer(b"1" * 32)
    data = sign_envelope(signer, **SIGNED, body=b"message")  # type: ignore[arg-type]
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        assert code(
            lambda changed=bytes(changed): open_signed(changed, verifier=signer.verifier, **SIGNED)  # type: ignore
        ) in {"SIGNATURE", "MALFORMED"}
    assert open_signed(data, verifier=signer.verifier, **SIGNED) == b"message"  # type: ignore[arg-type]
