"""A lying platform against production members. Every attack fails, and every test shows that it could have won.

Each attack is a function that returns what the attacker gains. It is played against the members as they are, where it
must raise, and against members with the one defence taken out, where it must gain.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.primitives.encoding import pack, pack_map
from federation.primitives.sealing import Opener, seal
from federation.primitives.signing import Signer, Verifier
from federation.secure_sum import member as member_module
from federation.secure_sum import messages as m
from federation.secure_sum.local import MemoryMarkers
from federation.secure_sum.member import MemberJob, wrap
from federation.secure_sum.terms import Claims, Field, Layout, Terms
from federation.secure_sum.transcript import verify
from tests.attacks.secure_sum_kit import SCALE, Evil, values_of
from tests.support.entropy import SeededEntropy

VALUES = {"a": [1.0, 10.0], "b": [2.0, -20.0], "c": [3.0, 1000.0], "d": [4.5, 7777.25]}


def refused(*codes):
    """Return a context in which a `ChaotianError` with one of `codes` is expected."""
    return pytest.raises(ChaotianError, match="|".join(codes))


# --- two totals of one round -----------------------------------------------------------------------------------


def subtract_one_bank(evil):
    """Release abcd, deny it, repeat without d: the difference is d's input."""
    first = evil.steal(evil.terms("abcd"))
    second = evil.steal(evil.terms("abc", attempt=2))
    return values_of(first - second)


def test_an_attempt_repeated_without_one_bank_after_unmask(monkeypatch):
    with refused("ROUND_SPENT"):
        subtract_one_bank(Evil(VALUES, result_to="platform"))
    monkeypatch.setattr(MemoryMarkers, "released", lambda self, terms: None)
    assert subtract_one_bank(Evil(VALUES, result_to="platform")) == VALUES["d"]


def shares_for_two_attempts(evil, remember=False):
    """Bring two attempts of one round to the statement, and only then ask for the shares of both."""
    first, second = evil.terms("abcd"), evil.terms("abc", attempt=2)
    masked_1, statement_1 = evil.until_statement(first)
    kept = {name: job._attempt for name, job in evil.members.items()}
    masked_2, statement_2 = evil.until_statement(second)
    shares_2 = evil.unmask(second, statement_2)
    if remember:
        for name, job in evil.members.items():
            job._attempt = kept[name]
    shares_1 = evil.unmask(first, statement_1, "abc")
    return values_of(evil.opened(first, masked_1, shares_1) - evil.opened(second, masked_2, shares_2))


def test_shares_asked_for_two_attempts_of_one_round(monkeypatch):
    with refused("LOST"):
        shares_for_two_attempts(Evil(VALUES, result_to="platform"))
    with refused("ROUND_SPENT"):  # even a member that kept the older attempt opens one round once
        shares_for_two_attempts(Evil(VALUES, result_to="platform"), remember=True)
    monkeypatch.setattr(MemoryMarkers, "released", lambda self, terms: None)
    assert shares_for_two_attempts(Evil(VALUES, result_to="platform"), remember=True) == VALUES["d"]


def ask_a_restored_backup(evil, restored):
    """After abcd was released, `restored` come back with a backup from before; repeat the round without d."""
    first = evil.steal(evil.terms("abcd"))
    for name in restored:
        evil.federation.markers[name] = MemoryMarkers()
        evil.members[name] = evil.federation.member(name)
    return values_of(first - evil.steal(evil.terms("abc", attempt=2)))


def test_a_restored_backup_asked_again():
    for restored in ("a", "c", "ab", "bc"):
        with refused("ROUND_SPENT"):
            ask_a_restored_backup(Evil(VALUES, result_to="platform"), restored)
    # Only where every member of the second roster forgot would it work: each of them alone holds the rest.
    assert ask_a_restored_backup(Evil(VALUES, result_to="platform"), "abc") == VALUES["d"]


@pytest.mark.parametrize("stage", ["share_keys", "masked_input", "consistency", "unmask", "result"])
def test_a_restored_backup_never_answers_an_attempt_from_before_it(stage):
    evil = Evil(VALUES)
    evil.steal(evil.terms("abcd"))
    request = next(data for data in evil.view if data.startswith(pack("request", [b"", b""])[:23]))
    evil.federation.markers["a"] = MemoryMarkers()
    evil.members["a"] = evil.federation.member("a")
    with refused("LOST"):
        evil.ask("a", stage, request)


def two_groups(evil):
    """Show abc and def two attempts of their own: a total for each."""
    first, second = evil.terms("abc"), evil.terms("def", attempt=2)
    return values_of(evil.steal(first)), values_of(evil.steal(second))


def test_the_floor_decides_whether_a_round_can_have_two_totals():
    values = {name: [float(i)] for i, name in enumerate("abcdef")}
    assert Claims.of(6, 3).one_total == -1
    assert two_groups(Evil(values, result_to="platform")) == ([3.0], [12.0])  # stated: two groups, nobody alone
    floor = next(f for f in range(3, 7) if Claims.of(6, f).one_total >= 0)
    with refused("TOO_FEW_MEMBERS"):
        two_groups(Evil(values, result_to="platform", min_members=floor))


def split_by_unmask(evil):
    """Take just enough shares of abcd, and let those that were not asked take part in a second attempt."""
    first = evil.terms("abcd")
    masked, statement = evil.until_statement(first)
    shares = evil.unmask(first, statement, "abc")
    return evil.opened(first, masked, shares), evil.steal(evil.terms("bcd", attempt=2))


def test_members_that_were_not_asked_to_unmask_are_too_few_for_a_second_attempt(monkeypatch):
    assert Claims.of(4, 3).one_total == 1
    with refused("ROUND_SPENT"):
        split_by_unmask(Evil(VALUES, result_to="platform"))
    monkeypatch.setattr(MemoryMarkers, "released", lambda self, terms: None)
    first, second = split_by_unmask(Evil(VALUES, result_to="platform"))
    assert values_of(first - second) == VALUES["a"]


# --- two views -------------------------------------------------------------------------------------------------


def two_rosters_to_two_halves(evil):
    """Show abcd to a and b, and abcde to c, d and e; then open a's shares."""
    small, large = evil.terms("abcd"), evil.terms("abcde")
    adverts = {**evil.advertise(small, "ab"), **evil.advertise(large, "cde")}
    for_small = {name: adverts[name] for name in "abcd"}
    parcels = {**evil.share(small, for_small, "ab"), **evil.share(large, adverts, "cde")}
    masked = evil.mask(small, parcels, "ab")
    masked |= dict.fromkeys("cd", (b"", b""))  # c and d signed theirs for other terms
    statement = {**evil.agree(small, masked, "ab"), "c": b"", "d": b""}
    return evil.unmask(small, statement, "ab")


def test_two_rosters_shown_to_two_halves(monkeypatch):
    values = {**VALUES, "e": [1.0, 1.0]}
    with refused("WRONG_TERMS"):
        two_rosters_to_two_halves(Evil(values))
    # Control: terms that do not bind the roster, and keys that are not hashed; then signatures are all that is left.
    monkeypatch.setattr(Terms, "hash", lambda self: bytes(32))
    monkeypatch.setattr(m, "adverts_hash", lambda adverts: bytes(32))
    with refused("SIGNATURE"):
        two_rosters_to_two_halves(Evil(values))
    monkeypatch.setattr(Verifier, "verify", lambda self, tag, message, signature, member="": message)
    assert set(two_rosters_to_two_halves(Evil(values))) == {"a", "b"}


def two_keys_of_a_colluder(evil):
    """d colludes and shows a and b one mask key, c another; what c masks towards d is then d's choice alone."""
    terms = evil.terms("abcd")
    adverts = evil.advertise(terms)
    other = m.Advert.decode(adverts["d"], "d", evil.federation.keys["d"], terms)
    swapped = m.Advert(**{**other.__dict__, "mask": Opener(bytes(range(96))).public[-32:]})
    second = {**adverts, "d": swapped.encode(evil.federation.signers["d"])}
    parcels = {**evil.share(terms, adverts, "abd"), **evil.share(terms, second, "c")}
    masked = evil.mask(terms, parcels)
    return evil.unmask(terms, evil.agree(terms, masked), "a")


def test_two_sets_of_keys_shown_to_two_halves(monkeypatch):
    with refused("SIGNATURE"):
        two_keys_of_a_colluder(Evil(VALUES))
    monkeypatch.setattr(m, "adverts_hash", lambda adverts: bytes(32))
    assert set(two_keys_of_a_colluder(Evil(VALUES))) == {"a"}


def swap_keys(evil):
    """Stand between a and b: show a a key of the platform's own as b's, and read what a seals to b."""
    terms = evil.terms("abcd")
    adverts = evil.advertise(terms)
    mine = Opener(bytes(range(96)))
    honest = m.Advert.decode(adverts["b"], "b", evil.federation.keys["b"], terms)
    adverts["b"] = m.Advert(**{**honest.__dict__, "channel": mine.public}).encode(Signer(bytes(32)))
    parcels = evil.share(terms, adverts, "a")
    info = m.package_info(terms, m.adverts_hash(adverts), "a", "b")
    return m.Package.decode(mine.open(m.Parcel.decode(parcels["a"]["b"]).sealed, info), "a")


def test_keys_swapped_by_the_coordinator(monkeypatch):
    with refused("SIGNATURE") as error:
        swap_keys(Evil(VALUES))
    assert error.value.member == "b"
    monkeypatch.setattr(Verifier, "verify", lambda self, tag, message, signature, member="": message)
    assert len(swap_keys(Evil(VALUES)).share) == 66


def invent_members(evil, fooled=()):
    """Fill the roster with two members of the platform's own; what is left of the total is a's input."""
    fakes = {name: Signer(SeededEntropy(name).bytes(32)) for name in ("x", "y")}
    federation = evil.federation
    federation.keys.update({name: signer.verifier for name, signer in fakes.items()})
    federation.signers.update(fakes)
    for name in fakes:
        federation.programs[name] = type(federation.programs["a"])([0.0, 0.0], 3)
        federation.markers[name] = MemoryMarkers()
        federation.members[name] = federation.member(name)
    for name in fooled:
        federation.members[name] = federation.member(name)
    return values_of(evil.steal(evil.terms("axy")))


def test_invented_members(monkeypatch):
    evil = Evil(VALUES, result_to="platform")
    own = dict(evil.federation.keys)
    monkeypatch.setattr(evil.members["a"], "view", type(evil.members["a"].view)(
        **{**evil.members["a"].view.__dict__, "members": own}))  # fmt: skip
    with refused("NOT_APPROVED") as error:
        invent_members(evil)
    assert error.value.member in ("x", "y")
    # Control: an owner that approves whatever the platform's directory holds.
    assert invent_members(Evil(VALUES, result_to="platform"), fooled="a") == VALUES["a"]


def test_another_key_under_a_known_name():
    evil = Evil(VALUES)
    terms = evil.terms("abcd")
    roster = tuple((name, key if name != "b" else bytes(32)) for name, key in terms.roster)
    with refused("WRONG_TERMS") as error:
        evil.advertise(replace(terms, roster=roster))
    assert error.value.member == "b"


# --- terms nobody agreed to ------------------------------------------------------------------------------------

CHOSEN = {
    "a state the members did not derive": ({"state_hash": hashlib.sha256(b"beta").digest()}, "STATE_MISMATCH"),
    "a layout of the platform's choice": ({"layout": Layout(64, (Field("x", 2, 16, 1 << 21),))}, "WRONG_TERMS"),
    "another operation": ({"operation": "other.sum"}, "WRONG_TERMS"),
    "another purpose": ({"purpose": "marketing"}, "WRONG_TERMS"),
    "another space": ({"space": "elsewhere"}, "WRONG_TERMS"),
    "another job": ({"job": "other"}, "WRONG_TERMS"),
    "a total for the platform": ({"result_to": "platform"}, "WRONG_TERMS"),
    "a total for both": ({"result_to": "both"}, "WRONG_TERMS"),
    "an unverified total": ({"verified": False}, "WRONG_TERMS"),
    "fewer rows": ({"min_rows": 1}, "WRONG_TERMS"),
    "fewer members": ({"min_members": 1}, "WRONG_TERMS"),
    "other grants": ({"grants": tuple((name, "grant-x") for name in "abcd")}, "WRONG_TERMS"),
    "a later round": ({"round": 2}, "LOST"),
}


@pytest.mark.parametrize("chosen", CHOSEN)
def test_terms_of_the_platforms_choice(chosen, monkeypatch):
    changes, code = CHOSEN[chosen]
    evil = Evil(VALUES)
    with refused(code):
        evil.steal(evil.terms("abcd", **changes))
    monkeypatch.setattr(MemberJob, "_check_terms", lambda self, terms: None)
    evil = Evil(VALUES)
    terms = evil.terms("abcd", **changes)
    total = evil.steal(terms)
    if terms.result_to != "members":
        assert values_of(total) == [10.5, 8767.25]


def test_terms_need_the_platforms_signature():
    evil = Evil(VALUES)
    evil.federation.platform = Signer(bytes(32))
    with refused("SIGNATURE"):
        evil.advertise(evil.terms("abcd"))


# --- floors after a loss ---------------------------------------------------------------------------------------


def without_floors(evil, sealed=None):
    """Lose d in round 2 and take the floors of b out of what a gets."""
    terms = evil.terms("abcd")
    masked, statement = evil.until_statement(terms)
    shares = evil.unmask(terms, statement)
    request = evil.result(terms, masked, shares)
    for name in "abcd":
        evil.ask(name, "result", request)
    terms = evil.terms("abc", round=2)
    adverts = evil.advertise(terms)
    parcels = evil.share(terms, adverts)
    if sealed is not None:
        parcels["b"]["a"] = sealed(evil, terms, adverts, m.Parcel.decode(parcels["b"]["a"])).encode()
    return evil.mask(terms, parcels)


def reseal(evil, terms, adverts, parcel):
    """Seal another package to a in b's name: the platform knows a's public key."""
    hashed = m.adverts_hash(adverts)
    info = m.package_info(terms, hashed, "b", "a")
    channel = m.Advert.decode(adverts["a"], "a", evil.federation.keys["a"], terms).channel
    package = m.Package(bytes(66), bytes(32), bytes(32), b"\x01")
    sealed, commitment = seal(package.encode(), channel, info), m.commit_share(terms, 1, 0, bytes(66))
    body = m.Parcel.signed_body(terms, hashed, "b", "a", sealed, commitment)
    return m.Parcel(sealed, commitment, Signer(bytes(32)).sign(m.SHARE, body))


def test_floors_cannot_be_hidden_or_forged(monkeypatch):
    evil = Evil(VALUES)
    for program in evil.federation.programs.values():
        program.floor = False
    with refused("FLOOR_LOST"):
        without_floors(evil)
    for tampering in (reseal, lambda e, t, a, p: m.Parcel(b"", p.commitment, p.signature)):
        evil = Evil(VALUES)
        for program in evil.federation.programs.values():
            program.floor = False
        with refused("SIGNATURE"):
            without_floors(evil, tampering)
    # Control: with signatures unchecked the forged floor gets as far as the group key's commitment.
    monkeypatch.setattr(Verifier, "verify", lambda self, tag, message, signature, member="": message)
    with refused("SHARE_INVALID"):
        without_floors(Evil(VALUES), reseal)
    real = m.commit
    monkeypatch.setattr(m, "commit", lambda label, *rest: bytes(32) if label == "group" else real(label, *rest))
    evil = Evil(VALUES)
    for program in evil.federation.programs.values():
        program.floor = False
    with refused("FLOOR_LOST"):
        without_floors(evil, reseal)
    # a took the forged floor and answered; b, whose own view is whole, refused all the same.
    assert evil.federation.markers["a"].last_attempt("local", 2) == 1


def test_floors_never_stand_in_what_the_platform_sees():
    evil = Evil(VALUES)
    marker = b"floors-of-this-member" * 3
    for program in evil.federation.programs.values():
        program.floors = lambda: marker
        program.check_floors = lambda floors: None
    without_floors(evil)
    assert not any(marker in message for message in evil.view)
    assert marker in m.Package(bytes(66), bytes(32), bytes(32), marker).encode()  # control: inside it is in clear


# --- replayed and reordered ------------------------------------------------------------------------------------


def unmask_before_consistency(evil):
    """b, c and d collude and sign an empty statement; a is asked for its shares before it has seen the inputs."""
    terms = evil.terms("abcd")
    evil.mask(terms, evil.share(terms, evil.advertise(terms)))
    signed = {name: evil.federation.signers[name].sign(m.STATEMENT, b"") for name in "bcd"}
    return evil.unmask(terms, {**signed, "a": b""}, "a")


def test_stages_out_of_order(monkeypatch):
    with refused("REPLAY"):
        unmask_before_consistency(Evil(VALUES))
    monkeypatch.setitem(member_module.NEXT, "masked_input", "unmask")
    assert set(unmask_before_consistency(Evil(VALUES))["a"]) == set("abcd")


def test_every_earlier_message_replayed_at_every_stage():
    evil = Evil(VALUES)
    evil.until_statement(evil.terms("abcd"))
    old = [(stage, data) for stage in ("share_keys", "masked_input", "consistency", "unmask") for data in evil.view]
    terms = evil.terms("abcd", attempt=2)
    adverts = evil.advertise(terms)
    for stage, data in old:
        with refused("LOST", "MALFORMED"):
            evil.members["a"].handle(stage, data)
    for data in evil.view:
        if data.startswith(pack("terms", [b"", b""])[:21]) and adverts["a"] not in evil.view[: evil.view.index(data)]:
            with refused("LOST"):
                evil.members["a"].handle("advertise_keys", data)
            break
    # Control: none of that disturbed the attempt at hand, and a second, other request for a stage is refused.
    parcels = evil.share(terms, adverts)
    with refused("REPLAY"):
        evil.share(terms, {**adverts, "b": adverts["a"]}, "a")
    masked = evil.mask(terms, parcels)
    assert set(evil.unmask(terms, evil.agree(terms, masked))) == set("abcd")


# --- another total ---------------------------------------------------------------------------------------------


def report(evil, total=lambda v: v, **forged):
    """Run a round and report what `total` makes of it; return the total a takes in."""
    terms = evil.terms("abcd")
    masked, statement = evil.until_statement(terms)
    shares = evil.unmask(terms, statement)
    honest = evil.opened(terms, masked, shares)
    forged = {what: make(terms, masked, shares, evil) for what, make in forged.items()}
    evil.ask("a", "result", evil.result(terms, masked, shares, total(honest), **forged))
    return [value / SCALE for value in evil.federation.programs["a"].totals[-1]]


def one_more(vector):
    out = vector.copy()
    out[0] += np.uint64(SCALE)
    return out


def forged_inputs(terms, masked, shares, evil):
    inputs = {name: data for name, (data, _) in masked.items()}
    return {**inputs, "b": one_more(np.frombuffer(inputs["b"], dtype="<u8")).tobytes()}


def forged_seeds(terms, masked, shares, evil):
    return {**evil.seeds(terms, shares), "b": bytes(32)}


def test_another_total_is_reported(monkeypatch):
    assert report(Evil(VALUES)) == [10.5, 8767.25]
    with refused("TRANSCRIPT"):
        report(Evil(VALUES), one_more)
    with refused("TRANSCRIPT"):
        report(Evil(VALUES), one_more, inputs=forged_inputs)
    with refused("SHARE_INVALID") as error:
        report(Evil(VALUES), seeds=forged_seeds)
    assert error.value.member == "b"
    # Controls: without adding up again, and without holding the inputs against their signed digests, it is taken in.
    assert report(Evil(VALUES, verified=False), one_more) == [11.5, 8767.25]

    def careless(terms, reported, inputs, seeds, *, digests, commitments):
        digests = {name: hashlib.sha256(data).digest() for name, data in inputs.items()}
        return verify(terms, reported, inputs, seeds, digests=digests, commitments=commitments)

    monkeypatch.setattr(member_module, "verify", careless)
    assert report(Evil(VALUES), one_more, inputs=forged_inputs) == [11.5, 8767.25]


def test_a_wrong_result_does_not_spoil_the_right_one():
    evil = Evil(VALUES)
    terms = evil.terms("abcd")
    masked, statement = evil.until_statement(terms)
    shares = evil.unmask(terms, statement)
    with refused("TRANSCRIPT"):
        evil.ask("a", "result", evil.result(terms, masked, shares, one_more(evil.opened(terms, masked, shares))))
    evil.ask("a", "result", evil.result(terms, masked, shares))
    assert evil.federation.programs["a"].totals == [[int(10.5 * SCALE), int(8767.25 * SCALE)]]
    with refused("LOST"):  # what could open the round is gone from memory
        evil.ask("a", "masked_input", next(d for d in evil.view if b"masked_input" in d))


def test_a_request_of_another_member_or_attempt_does_not_open_anything():
    evil = Evil(VALUES)
    terms = evil.terms("abcd")
    _, statement = evil.until_statement(terms)
    for bad in ({**statement, "b": statement["a"]}, {n: s for n, s in statement.items() if n != "d"}):
        other = Evil(VALUES)
        other.until_statement(terms)
        with refused("SIGNATURE", "MALFORMED"):
            other.ask("a", "unmask", wrap(terms.hash(), pack_map("unmask", {**bad})))
        assert not other.federation.markers["a"].spent("local", 1)
