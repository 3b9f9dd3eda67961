"""What a curious platform and colluding members can compute from everything they see: played, not argued."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from federation.primitives import masks
from federation.primitives.masks import add_streams, derive
from federation.secure_sum import messages as m
from federation.secure_sum.terms import Claims, state_digest
from tests.attacks.secure_sum_kit import SCALE, Evil, values_of, without_group

VALUES = {name: [round(value * SCALE) / SCALE, other] for name, value, other in [
    ("a", 123456.7, 31.5), ("b", 200000.1, -77.25), ("c", 345678.9, 1000.0), ("d", 400000.45, 7777.25),
    ("e", 599999.9, 1.0)]}  # fmt: skip


def federation(names="abcd", **options):
    return Evil({name: VALUES[name] for name in names}, **options)


def whole_round(evil):
    """Run a round to its end; return terms, masked inputs, shares."""
    terms = evil.terms("".join(evil.values))
    masked, statement = evil.until_statement(terms)
    shares = evil.unmask(terms, statement)
    request = evil.result(terms, masked, shares)
    for name in terms.members:
        evil.ask(name, "result", request)
    return terms, masked, shares


def forms(value):
    """Return the byte forms under which a number could stand in a message."""
    scaled, number = int(value * SCALE), np.float64(value)
    return {
        scaled.to_bytes(8, "little", signed=True), scaled.to_bytes(8, "big", signed=True), number.tobytes(),
        number.tobytes()[::-1], str(scaled).encode(), repr(float(value)).encode(),
    }  # fmt: skip


def test_nothing_the_platform_sees_holds_the_total_or_an_input():
    evil = federation()
    whole_round(evil)
    seen = b"\x00".join(evil.view)
    total = sum(VALUES[name][0] for name in "abcd")
    secrets = [total, *(VALUES[name][0] for name in "abcd")]
    assert not any(form in seen for value in secrets for form in forms(value))
    # Control: with result_to platform the opened total is found by the same scan; so is an input without masks.
    shown = federation(result_to="both")
    whole_round(shown)
    assert any(form in b"\x00".join(shown.view) for form in forms(total))


def test_no_input_is_found_by_the_scan_only_because_of_the_masks(monkeypatch):
    """Control: the same scan hits when the masks are off."""
    monkeypatch.setattr("federation.secure_sum.member.add_streams", lambda vector, streams: list(streams))
    evil = federation()
    evil.mask(t := evil.terms("abcd"), evil.share(t, evil.advertise(t)))
    assert all(any(form in b"".join(evil.view) for form in forms(VALUES[name][0])) for name in "abcd")


def test_the_opened_total_is_still_encrypted_and_one_colluding_member_decrypts_it():
    evil = federation()
    terms, total = evil.terms("abcd"), None
    masked, statement = evil.until_statement(terms)
    key = evil.members["c"]._attempt.group_key
    total = evil.opened(terms, masked, evil.unmask(terms, statement))
    expected = [sum(VALUES[name][i] for name in "abcd") for i in range(2)]
    assert not any(abs(value - known) < 1e-3 for value, known in zip(values_of(total), expected, strict=True))
    assert values_of(without_group(terms, total, key)) == expected  # the stated limit, and the control


def tried(evil, key):
    """Return the counts that fit the hashes a platform sees in a round, and whether a state it guessed right does.

    Args:
        key: group key it has; None for the true one.
    """
    terms = evil.terms("abcd")
    masked, statement = evil.until_statement(terms)
    shares = evil.unmask(terms, statement)
    key = evil.members["a"]._attempt.group_key if key is None else key
    request = evil.result(terms, masked, shares)
    statuses = [m.Status.decode(evil.ask(n, "result", request), terms, n, evil.federation.keys[n]) for n in "abcd"]
    assert len({(status.last_result, status.state_hash) for status in statuses}) == 1
    totals = [np.array([count * SCALE, 0], "<u8").tobytes() for count in range(100)]
    fits = [i for i, total in enumerate(totals) if m.result_hash(terms, total, key) == statuses[0].last_result]
    guessed = evil.federation.programs["a"].state()
    keys = (b"", m.state_key(terms, key))
    return fits, any(state_digest(guessed, state_key) == statuses[0].state_hash for state_key in keys)


def test_a_small_count_cannot_be_tried_out_against_the_hashes_the_platform_sees():
    few = {"a": [3.0, 0.0], "b": [0.0, 0.0], "c": [5.0, 0.0], "d": [9.0, 0.0]}
    assert tried(Evil(few), m.NOTHING) == ([], False)
    assert tried(Evil(few), None) == ([17], True)  # control: with the group key, that any one member could give it


def test_commitments_and_confirmation_do_not_give_the_group_key():
    """The platform may try what it has as the group key: commitments, confirmations, hashes, public keys."""
    evil = federation()
    terms, masked, shares = whole_round(evil)
    total = evil.opened(terms, masked, shares)
    expected = [sum(VALUES[name][i] for name in "abcd") for i in range(2)]
    tries = {part for message in evil.view for part in (message[i : i + 32] for i in range(0, len(message) - 31))}
    tries = set(list(tries)[:4000]) | set(re.findall(rb"(?s).{32}", b"".join(evil.view)[:65536]))
    assert len(tries) > 4000
    assert not any(values_of(without_group(terms, total, key)) == expected for key in tries)


def total_modulo(evil, slots):
    """Read the total modulo n, n a power of two: what n equal group streams would leave of it."""
    terms = evil.terms("abcd")
    total = evil.steal(terms)
    return [int(value) % 4 for value in total[:slots]]


def test_the_total_is_not_read_modulo_n_from_the_group_masks(monkeypatch):
    slots = 128
    values = {name: [(3 * i + k) / SCALE for i in range(slots)] for k, name in enumerate("abcd")}
    known = [sum(round(values[name][i] * SCALE) for name in "abcd") % 4 for i in range(slots)]
    ours = Counter(a == b for a, b in zip(total_modulo(Evil(values), slots), known, strict=True))[True]
    assert ours < slots // 2  # one in four by chance
    # Control: with one stream common to all members, n times the stream is 0 modulo n.
    monkeypatch.setattr(m, "group_stream", lambda terms, key, index: derive(key, terms.hash(), "group", [0]))
    assert total_modulo(Evil(values), slots) == known


def strip(evil, terms, masked, seeds, target, colluders):
    """Take everything off `target`'s masked input that the colluders and the platform know."""
    vector = np.frombuffer(masked[target][0], dtype="<u8").copy()
    index = terms.members.index(target)
    streams = [(m.self_stream(terms, seeds[target], index), -1)]
    for name in colluders:
        known = evil.kept[name]
        streams.append((m.group_stream(terms, known["group_key"], index), -1)) if name == colluders[0] else None
        other = terms.members.index(name)
        low, high = min(index, other), max(index, other)
        streams.append((known["pairs"][target], -1 if index == low else 1))
        assert low != high
    add_streams(vector, streams)
    return values_of(vector)


def spy(evil, monkeypatch):
    """Let every member's streams be noted, as a colluder would note its own."""
    evil.kept = {name: {"pairs": {}} for name in evil.values}
    real = m.pair_key

    def noted(terms, low, high, *rest):
        key = real(terms, low, high, *rest)
        for mine, other in ((low, high), (high, low)):
            evil.kept[terms.members[mine]]["pairs"][terms.members[other]] = key
        return key

    monkeypatch.setattr(m, "pair_key", noted)


@pytest.mark.parametrize("names", ["abcd", "abcde"])
def test_colluding_members_do_not_open_anothers_input(names, monkeypatch):
    evil = federation(names)
    spy(evil, monkeypatch)
    terms = evil.terms(names)
    masked, statement = evil.until_statement(terms)
    for name in names:
        evil.kept[name]["group_key"] = evil.members[name]._attempt.group_key
    seeds = evil.seeds(terms, evil.unmask(terms, statement))
    colluders = names[1 : 1 + Claims.of(len(names)).curious_colluding]
    left = strip(evil, terms, masked, seeds, "a", colluders)
    assert not any(abs(x - y) < 1e-3 for x, y in zip(left, VALUES["a"], strict=True))
    # Control: all the others together have it, by these very steps.
    assert strip(evil, terms, masked, seeds, "a", names[1:]) == VALUES["a"]


@pytest.mark.parametrize("names", ["abc", "abcd", "abcde"])
def test_fewer_than_threshold_shares_do_not_open_a_seed(names):
    """An attempt that is given up before unmask: colluders hold their shares of a's seed."""
    evil = federation(names)
    terms = evil.terms(names)
    evil.mask(terms, evil.share(terms, evil.advertise(terms)))
    held = {name: dict(evil.members[name]._attempt.shares) for name in names}
    seed = evil.members["a"]._attempt.self_seed
    few = dict(list(held.items())[1 : terms.threshold])
    assert len(few) == terms.threshold - 1
    filled = {**few, "a": dict.fromkeys(names, bytes(66))}  # the missing one guessed
    try:
        assert evil.seeds(terms, filled)["a"] != seed
    except Exception as error:
        assert "SHARE_INVALID" in str(error)
    assert evil.seeds(terms, held)["a"] == seed  # control


def test_an_abandoned_attempt_shows_nothing_even_beside_a_finished_one():
    """Masked inputs of attempt 1 minus those of attempt 2, same values: fresh keys, so the difference is noise."""
    evil = federation()
    first, second = evil.terms("abcd"), evil.terms("abcd", attempt=2)
    one = evil.mask(first, evil.share(first, evil.advertise(first)))
    two, _ = evil.until_statement(second)
    for name in "abcd":
        a, b = (np.frombuffer(masked[name][0], dtype="<u8") for masked in (one, two))
        assert not (a == b).any()


def test_every_stream_has_its_own_key(monkeypatch):
    """One key for two streams would show the difference of what they mask. All keys of two attempts are distinct."""
    keys, real = [], masks.derive

    def noted(*arguments, **options):
        keys.append(key := real(*arguments, **options))
        return key

    monkeypatch.setattr(m, "derive", noted)
    evil = federation()
    for attempt in (1, 2):
        terms = evil.terms("abcd", attempt=attempt)
        evil.mask(terms, evil.share(terms, evil.advertise(terms)))
    # A pair's key and the group key are derived at each of their owners: count those once.
    counts = Counter(hashlib.sha256(key).digest() for key in keys)
    assert Counter(counts.values()) == {2: 2 * 6, 1: 2 * 4 + 2 * 4, 4: 2}


def test_no_secret_stays_in_memory_after_the_round():
    evil = federation()
    terms = evil.terms("abcd")
    masked, statement = evil.until_statement(terms)
    seed, key = evil.members["a"]._attempt.self_seed, evil.members["a"]._attempt.group_key
    shares = evil.unmask(terms, statement)
    held = repr(vars(evil.members["a"]._attempt))
    assert repr(seed) in held and repr(key) in held  # control
    evil.ask("a", "result", evil.result(terms, masked, shares))
    left = repr(vars(evil.members["a"]._attempt))
    assert repr(seed) not in left and repr(key) not in left


def test_nothing_private_stands_in_reprs_and_errors():
    evil = federation()
    terms = evil.terms("abcd")
    evil.mask(terms, evil.share(terms, evil.advertise(terms)))
    job = evil.members["a"]
    texts = [repr(job), repr(job._attempt), repr(job._attempt.opener), repr(evil.federation.signers["a"])]
    evil.federation.programs["a"].values[0] = 9.87654e300
    fresh = evil.terms("abcd", attempt=2)
    job._own = None
    with pytest.raises(Exception, match="OVERFLOW") as error:
        evil.mask(fresh, evil.share(fresh, evil.advertise(fresh)))
    texts.append(str(error.value))
    for text in texts:
        assert "9.87" not in text and job._signer.secret_bytes().hex() not in text
