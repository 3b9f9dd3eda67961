"""Probing members: whoever cheats loses its own place and nobody else's, and learns nothing of the others."""

import pytest

from federation.errors import ChaotianError
from federation.primitives import shamir
from federation.primitives.encoding import pack, pack_map, unpack, unpack_map
from federation.primitives.sealing import check_exchange_key
from federation.secure_sum import coordinator as coordinator_module
from federation.secure_sum import member as member_module
from federation.secure_sum import messages as m
from federation.secure_sum.local import LocalFederation
from tests.support.entropy import SeededEntropy
from tests.support.programs import Adder

NAMES = ("a", "b", "c", "d")
VALUES = {name: [float(3**i), -2.0 * i] for i, name in enumerate(NAMES)}
LOW_ORDER = (0).to_bytes(32, "little"), (1).to_bytes(32, "little")


def federation(seed="members"):
    return LocalFederation({name: Adder(VALUES[name], 1) for name in NAMES}, SeededEntropy(seed))


def play(cheats, seed="members"):
    """Run a round in which c's replies go through `cheats[stage](federation, terms, reply)`."""
    ours = federation(seed)
    round_ = ours.coordinator(ours.plan(1, NAMES))
    ours.replies = {}  # what c may have overheard
    queue = round_.begin()
    while queue and round_.outcome is None:
        send = queue.pop(0)
        try:
            reply = ours.members[send.member].handle(send.stage, send.request)
            ours.replies[send.member, send.stage] = reply
            if send.member == "c" and send.stage in cheats:
                reply = cheats[send.stage](ours, round_.terms, reply)
        except ChaotianError as error:
            queue += round_.refused(send.member, send.attempt, send.stage, error)
        else:
            queue += round_.reply(send.member, send.attempt, send.stage, reply)
    assert round_.outcome is not None, "the round hangs"
    return ours, round_.outcome


def total(roster):
    return [int(sum(VALUES[name][i] for name in roster) * 2**16) for i in range(2)]


def advert(**changes):
    def cheat(ours, terms, reply):
        honest = m.Advert.decode(reply, "c", ours.keys["c"], terms)
        forged = m.Advert(**{**honest.__dict__, **changes}).encode(ours.signers["c"])
        ours.members["c"]._attempt.advert = forged  # c stands by it
        return forged

    return {"advertise_keys": cheat}


def parcel_to_a(change):
    """Change what c sends to a alone; `change` returns (sealed, commitment, signature or None for a right one)."""

    def cheat(ours, terms, reply):
        parcels = unpack_map("parcels", reply)
        if "a" not in parcels:
            return reply
        # c knows the adverts; so does whoever plays c here.
        adverts = m.adverts_hash(
            {name: job._attempt.advert for name, job in ours.members.items() if name in terms.members}
        )
        sealed, commitment, signature = change(m.Parcel.decode(parcels["a"]))
        body = m.Parcel.signed_body(terms, adverts, "c", "a", sealed, commitment)
        parcels["a"] = m.Parcel(sealed, commitment, signature or ours.signers["c"].sign(m.SHARE, body)).encode()
        return pack_map("parcels", parcels)

    return {"share_keys": cheat}


def statement(ours, terms, reply):
    return pack("consistency", [unpack("consistency", reply, 2)[0], bytes(65)])


def other_group_key(ours, terms, reply):
    attempt = ours.members["c"]._attempt
    confirmed = bytes(range(32))
    body = m.statement(terms, attempt.adverts_hash, attempt.digests, confirmed)
    return pack("consistency", [confirmed, ours.signers["c"].sign(m.STATEMENT, body)])


def other_shares(ours, terms, reply):
    shares = pack_map("shares", {name: bytes(65) + b"\x01" for name in terms.members})
    return pack("unmask", [shares, ours.signers["c"].sign(m.UNMASK, m.unmask_body(terms, shares))])


CHEATS = {
    "a sealing key of the wrong form": advert(channel=bytes(7)),
    "a sealing key with a point of low order": advert(channel=bytes(1184) + LOW_ORDER[0]),
    "a mask key of low order (0)": advert(mask=LOW_ORDER[0]),
    "a mask key of low order (1)": advert(mask=LOW_ORDER[1]),
    "another state": advert(state_hash=bytes(32)),
    "another layout": advert(layout_hash=bytes(32)),
    "a parcel that nobody can open": parcel_to_a(lambda p: (bytes(len(p.sealed)), p.commitment, None)),
    "a parcel signed wrongly to one peer": parcel_to_a(lambda p: (p.sealed, p.commitment, bytes(65))),
    "a share other than committed": parcel_to_a(lambda p: (p.sealed, bytes(32), None)),
    "a parcel of a megabyte": parcel_to_a(lambda p: (bytes(1 << 20), p.commitment, None)),
    "a commitment cut short": parcel_to_a(lambda p: (p.sealed, p.commitment[:5], None)),
    "a vector cut short": {
        "masked_input": lambda o, t, r: pack(m.MASKED_INPUT, [unpack(m.MASKED_INPUT, r)[0][:-1], bytes(32), b""])
    },
    "another vector than the one signed": {
        "masked_input": lambda o, t, r: pack(
            m.MASKED_INPUT, [bytes(len(unpack(m.MASKED_INPUT, r)[0])), *unpack(m.MASKED_INPUT, r)[1:]]
        )
    },
    "a digest cut short": {
        "masked_input": lambda o, t, r: pack(
            m.MASKED_INPUT, [unpack(m.MASKED_INPUT, r)[0], b"", unpack(m.MASKED_INPUT, r)[2]]
        )
    },
    "a masked input of somebody else's": {"masked_input": lambda o, t, r: o.replies["a", "masked_input"]},
    "a statement not signed": {"consistency": statement},
    "another group key": {"consistency": other_group_key},
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_whoever_cheats_before_unmask_loses_its_own_place_alone(cheat):
    ours, outcome = play(CHEATS[cheat])
    assert outcome.roster == outcome.survivors == ("a", "b", "d") and outcome.progress == "done"
    assert {loss.member for loss in outcome.losses} == {"c"}
    assert all(ours.programs[name].totals == [total("abd")] for name in "abd")


@pytest.mark.parametrize("key", LOW_ORDER)
def test_low_order_keys_are_why_the_platform_tries_them(key, monkeypatch):
    """Control: without the check an honest member would be the one to fail and to go."""
    with pytest.raises(ChaotianError):
        check_exchange_key(key)
    monkeypatch.setattr(m, "check_exchange_key", lambda public: None)
    _, outcome = play(advert(mask=key))
    assert outcome.losses[0].member == "a"


def test_a_parcel_signed_wrongly_is_why_the_platform_checks_them(monkeypatch):
    """Control: without the platform's check the receiver refuses and would be the one to go."""
    taken = coordinator_module.CoordinatorRound._take_share_keys

    def careless(self, at, member, reply):
        parcels = member_module.unwrap_parcels(reply, at.terms)
        at.shares[member] = {name: m.Parcel.decode(data).commitment for name, data in parcels.items()}
        at.parcels[member] = parcels

    assert taken is not careless
    monkeypatch.setattr(coordinator_module.CoordinatorRound, "_take_share_keys", careless)
    _, outcome = play(CHEATS["a parcel signed wrongly to one peer"])
    assert outcome.losses[0].member == "a"


@pytest.mark.parametrize("cheat", [other_shares, lambda o, t, r: b"nonsense"])
def test_a_member_that_opens_wrong_shares_is_left_out_and_the_total_stands(cheat):
    ours, outcome = play({"unmask": cheat})
    assert outcome.survivors == ("a", "b", "d") and outcome.roster == NAMES and outcome.progress == "done"
    assert [loss.member for loss in outcome.losses] == ["c"]
    assert all(ours.programs[name].totals == [total("abcd")] for name in "abd")


def test_wrong_shares_would_spoil_the_round_without_a_commitment_to_each(monkeypatch):
    """Control: a coordinator that takes any share opens a wrong seed, and an innocent owner would be named."""

    def careless(self, at, member, reply):
        at.replies[member] = unpack("unmask", reply, 2)[0]

    monkeypatch.setattr(coordinator_module.CoordinatorRound, "_take_unmask", careless)
    _, outcome = play({"unmask": other_shares})
    assert outcome.error == "SHARE_INVALID" and "c" not in {loss.member for loss in outcome.losses}


def deal_badly(secret, threshold, count, entropy):
    """Shares of another secret than the one committed to, each well committed in itself."""
    return shamir.split(bytes(32), threshold, count, entropy)


def test_a_dealer_of_another_secret_is_named(monkeypatch):
    ours = federation()
    dealt = member_module.split
    calls = []

    def split(*arguments):
        calls.append(1)
        return deal_badly(*arguments) if len(calls) == 3 else dealt(*arguments)  # the third dealer is c

    monkeypatch.setattr(member_module, "split", split)
    outcome = ours.run_round(ours.plan(1, NAMES))
    assert outcome.error == "SHARE_INVALID" and [loss.member for loss in outcome.losses] == ["c"]
    assert not any(program.totals for program in ours.programs.values())


def test_a_false_accusation_costs_one_place_and_is_on_record_as_such():
    """Not prevented: the platform cannot open the parcel to see who is right. It can only be seen."""

    class Accuser:
        def __init__(self, job):
            self.job = job

        def handle(self, stage, request):
            if stage == "masked_input":
                raise ChaotianError("SHARE_INVALID", member="a")
            return self.job.handle(stage, request)

    ours = federation()
    ours.members["c"] = Accuser(ours.members["c"])
    outcome = ours.run_round(ours.plan(1, NAMES))
    assert outcome.losses[0].member == "a" and outcome.losses[0].code == "SHARE_INVALID"
    assert outcome.error == "TOO_FEW_MEMBERS"  # the second accusation leaves two


def test_at_unmask_nobody_can_be_accused():
    class Accuser:
        def __init__(self, job):
            self.job = job

        def handle(self, stage, request):
            if stage == "unmask":
                raise ChaotianError("SHARE_INVALID", member="a")
            return self.job.handle(stage, request)

    ours = federation()
    ours.members["c"] = Accuser(ours.members["c"])
    outcome = ours.run_round(ours.plan(1, NAMES))
    assert outcome.survivors == ("a", "b", "d") and outcome.progress == "done"


def test_a_member_lost_after_it_answered_unmask_still_counts_towards_the_threshold():
    ours = federation()
    round_ = ours.coordinator(ours.plan(1, NAMES))
    queue = round_.begin()
    while round_.stage != "unmask":
        queue += ours.deliver(round_, queue.pop(0))
    sends = {send.member: send for send in queue}
    queue = ours.deliver(round_, sends["a"]) + ours.deliver(round_, sends["b"])
    queue += round_.lost("a", 1, "PEER_UNREACHABLE") + round_.lost("b", 1, "PEER_UNREACHABLE")
    queue += round_.lost("d", 1, "PEER_UNREACHABLE") + ours.deliver(round_, sends["c"])
    while queue:
        queue += ours.deliver(round_, queue.pop(0))
    assert round_.outcome.survivors == ("c",) and ours.programs["c"].totals == [total("abcd")]


def test_all_lost_after_unmask_ends_the_round():
    ours = federation()
    round_ = ours.coordinator(ours.plan(1, NAMES))
    queue = round_.begin()
    while round_.stage != "result":
        queue += ours.deliver(round_, queue.pop(0))
    for name in NAMES:
        round_.lost(name, 1, "PEER_UNREACHABLE")
    assert round_.outcome.error == "TOO_FEW_MEMBERS" and ours.journal.record is None


# --- programs that fail ----------------------------------------------------------------------------------------


def test_a_program_that_fails_takes_no_result_in_twice():
    ours = federation()

    def broken(totals):
        ours.programs["a"].totals.append("half a step")
        raise ZeroDivisionError("of a raw value")

    ours.programs["a"].advance = broken
    outcome = ours.run_round(ours.plan(1, NAMES))
    assert outcome.error == "STATE_MISMATCH" and len(ours.programs["a"].totals) == 1
    assert ours.members["a"].failure.code == "INTERNAL" and "raw" not in str(ours.members["a"].failure)


def test_a_member_adds_the_same_values_in_every_attempt_of_a_round():
    """Else one that draws noise in `local` would give two draws of it."""
    ours, calls = federation(), []
    program = ours.programs["a"]
    program.local = lambda: calls.append(1) or {"x": program.values}
    outcome = ours.run_round(
        ours.plan(1, NAMES), lose=lambda send: send.stage == "consistency" and send.member == "d" and send.attempt == 1
    )
    assert outcome.attempts == 2 and len(calls) == 1


def test_values_that_change_after_they_were_masked_are_not_masked_alike_again():
    """Two vectors under the same masks would show the platform the difference of the two."""
    ours = federation()
    round_ = ours.coordinator(ours.plan(1, NAMES))
    queue = round_.begin()
    while round_.stage != "masked_input":
        queue += ours.deliver(round_, queue.pop(0))
    request = next(send for send in queue if send.member == "a").request
    first = ours.members["a"].handle("masked_input", request)
    assert ours.members["a"].handle("masked_input", request) == first  # control
    ours.programs["a"].values[0] += 1.0
    with pytest.raises(ChaotianError, match="LOST"):
        ours.members["a"].handle("masked_input", request)


def test_floors_in_no_agreed_form_cost_their_sender_its_place():
    ours = LocalFederation({name: Adder(VALUES.get(name, [1.0, 1.0]), 2) for name in (*NAMES, "e")},
                           SeededEntropy("floors"), max_roster_changes=2)  # fmt: skip
    outcome = ours.run_round(ours.plan(1, (*NAMES, "e")))

    def check(floors):
        for name, data in floors.items():
            if data == b"nonsense":
                raise ChaotianError("MALFORMED", member=name)

    for program in ours.programs.values():
        program.check_floors = check
    ours.programs["c"].floors = lambda: b"nonsense"
    ours.programs["c"].check_floors = lambda floors: None
    plan = ours.plan(2, outcome.survivors)
    outcome = ours.run_round(plan, lose=lambda send: send.member == "e")
    assert [loss.member for loss in outcome.losses] == ["e", "c"] and outcome.survivors == ("a", "b", "d")
