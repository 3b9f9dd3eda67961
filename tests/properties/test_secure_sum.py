"""The state machines as a whole: totals exact, and no changed, cut or random message is ever taken."""

import copy
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum import messages as m
from federation.secure_sum.local import LocalFederation, run_in_process
from federation.secure_sum.terms import STAGES, Claims, Field, Layout, Terms, threshold_for
from tests.support.entropy import SeededEntropy
from tests.support.programs import Adder


def clone(attempt):
    """Return a copy that a handler may spoil."""
    twin = copy.copy(attempt)
    for name, value in vars(attempt).items():
        if isinstance(value, dict | set):
            setattr(twin, name, copy.copy(value))
        elif name == "running" and value is not None:
            twin.running = value.copy()
    return twin


def recorded():
    """Run a round of three and keep, at each stage, what a member and the coordinator held before it."""
    names = ("a", "b", "c")
    ours = LocalFederation({n: Adder([i + 0.5, -7], 2) for i, n in enumerate(names)}, SeededEntropy("fuzz"))
    round_ = ours.coordinator(ours.plan(1, names))
    queue, requests, replies = round_.begin(), {}, {}
    while queue:
        send = queue.pop(0)
        job = ours.members[send.member]
        if send.member == "b":
            requests[send.stage] = (send.request, clone(job._attempt) if job._attempt else None)
        reply = job.handle(send.stage, send.request)
        if send.member == "b":
            replies[send.stage] = (reply, clone(round_._attempt))
        queue += round_.reply(send.member, send.attempt, send.stage, reply)
    assert round_.outcome.progress == "continue"
    ours.programs["b"].totals.clear()
    ours.markers["b"].attempts.clear()
    ours.markers["b"].rounds.clear()
    return ours, round_, requests, replies


OURS, ROUND, REQUESTS, REPLIES = recorded()


def member_takes(stage, request):
    """Return whether b, as it was before the stage, takes the request; other errors than coded ones come through."""
    job = OURS.members["b"]
    job.round, job._last_result, job._last_roster, job._asked = 1, m.NOTHING, None, (0, 0)
    job._state, job._layout, job._state_key = None, None, b""
    OURS.programs["b"].totals.clear()
    OURS.markers["b"].attempts.clear()
    OURS.markers["b"].rounds.clear()
    before = REQUESTS[stage][1]
    job._attempt = clone(before) if before is not None else None
    try:
        job.handle(stage, request)
    except ChaotianError as error:
        assert error.code != "INTERNAL", error.__cause__
        return False
    return True


def coordinator_takes(stage, reply):
    try:
        getattr(ROUND, f"_take_{stage}")(clone(REPLIES[stage][1]), "b", reply)
    except ChaotianError:
        return False
    return True


TAKERS = {"request": (member_takes, REQUESTS), "reply": (coordinator_takes, REPLIES)}
directions = pytest.mark.parametrize("direction", TAKERS)
stages = pytest.mark.parametrize("stage", STAGES)


@directions
@stages
def test_the_right_message_is_taken(direction, stage):
    """Control for the three tests below."""
    takes, recorded_ = TAKERS[direction]
    assert takes(stage, recorded_[stage][0])


@directions
@stages
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_message_changed_in_one_byte_is_never_taken(direction, stage, data):
    takes, recorded_ = TAKERS[direction]
    message = recorded_[stage][0]
    place = data.draw(st.integers(0, len(message) - 1))
    changed = message[:place] + bytes([message[place] ^ data.draw(st.integers(1, 255))]) + message[place + 1 :]
    assert not takes(stage, changed)


@directions
@stages
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_message_cut_short_or_drawn_out_is_never_taken(direction, stage, data):
    takes, recorded_ = TAKERS[direction]
    message = recorded_[stage][0]
    assert not takes(stage, message[: data.draw(st.integers(0, len(message) - 1))])
    assert not takes(stage, message + data.draw(st.binary(min_size=1, max_size=9)))


@directions
@stages
@given(junk=st.binary(max_size=400))
@settings(max_examples=15, deadline=None)
def test_random_bytes_are_never_taken(direction, stage, junk):
    takes, recorded_ = TAKERS[direction]
    assert not takes(stage, junk)
    head = recorded_[stage][0][: len(junk) // 2]
    assert not takes(stage, head + junk)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_every_member_gets_the_exact_total(data):
    members = data.draw(st.integers(3, 6))
    ring, scale = data.draw(st.sampled_from([32, 64])), data.draw(st.integers(0, 20))
    bound = data.draw(st.sampled_from([1, 1000, 10**12, 10**25]))
    value = st.integers(-bound, bound)
    length = data.draw(st.integers(1, 5))
    vectors = [data.draw(st.lists(value, min_size=length, max_size=length)) for _ in range(members)]
    ours = {f"m{i}": Adder(v, 1, bound=bound, scale=scale, ring=ring) for i, v in enumerate(vectors)}
    run_in_process(ours, entropy=SeededEntropy("exact"))
    expected = [sum(column) << scale for column in zip(*vectors, strict=True)]
    assert all(program.totals == [expected] for program in ours.values())


# --- documents -------------------------------------------------------------------------------------------------

LAYOUT = Layout(64, (Field("x", 2, 16, 1000), Field("y", 1, 0, 10**30)))
TERMS = Terms("s", "j", 1, 1, "op", "p", LAYOUT, bytes(32), tuple((n, bytes(32)) for n in "abc"), 3, 30,
              tuple((n, "g") for n in "abc"), "members")  # fmt: skip
BAD_VALUES = [None, True, False, 0, -1, 1.5, "", "x", "1", [], {}, 2**53 - 1, "00" * 32, [["a", "b"]], ["a"]]


@pytest.mark.parametrize("key", sorted(TERMS.document()))
def test_no_term_takes_another_type_or_goes_missing(key):
    document = TERMS.document()
    assert Terms.decode(canonical_json(document)) == TERMS
    for value in BAD_VALUES:
        changed = canonical_json({**document, key: value})
        try:
            again = Terms.decode(changed)
        except ChaotianError as error:
            assert error.code in ("MALFORMED", "TOO_FEW_MEMBERS")
        else:
            assert again.encode() == changed
            assert again.hash() != TERMS.hash() or changed == TERMS.encode()
    for changed in ({k: v for k, v in document.items() if k != key}, {**document, "extra": 1}):
        with pytest.raises(ChaotianError, match="MALFORMED"):
            Terms.decode(canonical_json(changed))


@pytest.mark.parametrize("key", ["ring_bits", "members", "fields", "name", "length", "scale_bits", "bound"])
def test_no_part_of_a_layout_takes_another_type(key):
    for value in [*BAD_VALUES, "+5", " 5", "1_0", "٣", "9" * 161, -(10**9)]:
        document = LAYOUT.document()
        part = document if key in document else document["fields"][0]
        part[key] = value
        encoded = canonical_json(document)
        try:
            assert Layout.decode(encoded).encode() == encoded
        except ChaotianError as error:
            assert error.code == "MALFORMED"


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_random_documents_are_malformed(data):
    for read in (Terms.decode, Layout.decode):
        with pytest.raises(ChaotianError, match="MALFORMED"):
            read(data)
    if data:
        with pytest.raises(ChaotianError):
            Terms.decode(TERMS.encode()[:-1] + data)


def test_two_terms_that_differ_anywhere_differ_in_hash():
    document = TERMS.document()
    assert parse_canonical_json(TERMS.encode()) == document
    other = Terms.decode(canonical_json({**document, "attempt": 2}))
    assert other.hash() != TERMS.hash()


@given(st.integers(3, 200), st.data())
def test_claims_hold_for_every_roster_down_to_the_floor(n, data):
    floor = data.draw(st.integers(3, n))
    claims, without = Claims.of(n, floor), Claims.of(n)
    assert claims.active_colluding <= without.active_colluding <= claims.curious_colluding
    c = claims.active_colluding
    for roster in range(floor, n + 1):
        t = threshold_for(roster)
        assert roster - c >= 2 and t - c >= 2 and 2 * t - c > roster  # two honest inputs, two honest openers
    if claims.one_total >= 0:
        # Two rosters, both opened: the openers of the first stay out of the second, and so it lacks members.
        c = claims.one_total
        assert n - (threshold_for(floor) - c) < floor
    assert all(str(number) for number in claims.sentences())


def test_claims_of_the_demo_and_where_a_floor_matters():
    assert (Claims.of(4, 3).active_colluding, Claims.of(4, 3).one_total) == (1, 1)
    assert Claims.of(5).active_colluding == 2 and Claims.of(5, 3).active_colluding == 1
    assert Claims.of(6, 3).one_total == -1 and Claims.of(6, 4).one_total == 0


def measured(members, values=378):
    """Return (bytes down, bytes up) of the first member by stage, and the size of the journal."""
    names = [f"bank-{i}" for i in range(members)]
    ours = LocalFederation({n: Adder([0.5] * values, 2, scale=32) for n in names}, SeededEntropy("sizes"))
    round_ = ours.coordinator(ours.plan(1, names))
    queue, sizes, journal = round_.begin(), {}, 0
    while queue:
        send = queue.pop(0)
        reply = ours.members[send.member].handle(send.stage, send.request)
        sizes.setdefault(send.stage, (len(send.request), len(reply)))
        journal = len(ours.journal.record or b"") or journal
        queue += round_.reply(send.member, send.attempt, send.stage, reply)
    return sizes, journal


def test_the_sizes_on_the_protocols_page_are_those_of_the_messages():
    page = (Path(__file__).parents[2] / "docs" / "protocols" / "secure-sum.md").read_text()
    sizes, journal = measured(4)
    for stage, (down, up) in sizes.items():
        assert re.search(rf"^\| `{stage}` \|.*\| {down:,} \|.*\| {up:,} \|$", page, re.M), (stage, down, up)
    assert f"**{sum(d for d, _ in sizes.values()):,}**" in page and f"**{sum(u for _, u in sizes.values()):,}**" in page
    assert f"is {journal:,} bytes" in page
    ten, _ = measured(10)
    assert f"{sum(d for d, _ in ten.values()):,} down and {sum(u for _, u in ten.values()):,} up" in page
