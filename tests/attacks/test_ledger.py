"""The release ledger's rule, and the attacks it is there against: the same total with one bank or a few rows less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from gateway.grants.catalogue import STEPS
from gateway.jobs.ledger import COUNTING, Earlier, Release, check_release

ALL = frozenset({"a", "b", "c", "d"})
PAST = Release("job-1", "loans", "scorecard.newton", frozenset({"x", "y"}), ALL)
NOW = replace(PAST, job="job-2")


def verdict(release, earlier, *, min_members=3, min_rows=30, consents=()):
    try:
        check_release(release, earlier, min_members=min_members, min_rows=min_rows, consents=consents)
    except ChaotianError as error:
        assert error.code == "RELEASE_DIFFERENCE"
        return error.member or "rows"
    return "allowed"


def test_same_members_and_same_rows_may_run_again():
    assert verdict(NOW, [Earlier(PAST, 0)]) == "allowed"


@pytest.mark.parametrize(("rows", "expected"), [(1, "rows"), (29, "rows"), (30, "allowed"), (500, "allowed")])
def test_few_changed_rows_are_refused(rows, expected):
    assert verdict(NOW, [Earlier(PAST, rows)]) == expected


def test_the_job_run_again_with_one_bank_less_names_that_bank():
    assert verdict(replace(NOW, members=ALL - {"d"}), [Earlier(PAST, 0)]) == "d"
    # Enough changed rows of this node do not hide the other bank's part.
    assert verdict(replace(NOW, members=ALL - {"d"}), [Earlier(PAST, 5000)]) == "d"


def test_one_bank_more_is_exposed_just_as_well():
    assert verdict(replace(NOW, members=ALL | {"e"}), [Earlier(PAST, 0)]) == "e"


def test_one_bank_in_place_of_another_exposes_their_difference():
    swapped = replace(NOW, members=ALL - {"d"} | {"e"})
    assert verdict(swapped, [Earlier(PAST, 0)]) == "d"
    assert verdict(swapped, [Earlier(PAST, 0)], consents={"d"}) == "e"
    assert verdict(swapped, [Earlier(PAST, 0)], consents={"d", "e"}) == "allowed"


def test_counts_of_one_kind_of_job_are_held_against_those_of_another():
    """A profile of all banks beside the bins of all but one shows that one's own bins: the ledger's own control."""
    rng = np.random.default_rng(1)
    rows = {name: rng.integers(0, 5, 40) for name in sorted(ALL)}

    def total(names):
        return np.bincount(np.concatenate([rows[name] for name in sorted(names)]), minlength=5)

    assert (total(ALL) - total(ALL - {"d"}) == np.bincount(rows["d"], minlength=5)).all()
    before = replace(PAST, operation="profile.counts")
    smaller = replace(NOW, members=ALL - {"d"})
    steps = {step for steps in STEPS.values() for step in steps}
    for operation in COUNTING:
        assert operation in steps
        assert verdict(replace(smaller, operation=operation), [Earlier(before, 0)]) == "d"
        assert verdict(replace(NOW, operation=operation), [Earlier(before, 29)]) == "rows"
    # Totals at derived coefficients are compared with their own kind: their job's counts are in the ledger as well.
    assert steps - COUNTING == {"scorecard.newton"}
    assert verdict(smaller, [Earlier(before, 0)]) == "allowed"


def test_only_the_exposed_member_can_consent():
    smaller = replace(NOW, members=ALL - {"d"})
    assert verdict(smaller, [Earlier(PAST, 0)], consents={"a", "b", "c"}) == "d"
    assert verdict(smaller, [Earlier(PAST, 0)], consents={"d"}) == "allowed"


def test_consent_of_a_member_does_not_cover_changed_rows():
    assert verdict(replace(NOW, members=ALL - {"d"}), [Earlier(PAST, 5)], consents={"d"}) == "rows"


def test_a_difference_of_enough_members_is_allowed():
    other = replace(NOW, members=frozenset({"a", "e", "f", "g"}))
    assert verdict(other, [Earlier(PAST, 0)]) == "allowed"


@pytest.mark.parametrize(
    ("change", "compared"),
    [
        ({"dataset": "cards"}, False),
        ({"operation": "scorecard.counts"}, False),
        ({"columns": frozenset({"z"})}, False),
        ({"columns": frozenset({"y", "z"})}, True),
        ({"job": "job-1"}, False),
        ({"job": "job-9"}, True),
    ],
)
def test_the_key_is_dataset_operation_and_overlapping_columns_without_the_job(change, compared):
    release = replace(NOW, members=ALL - {"d"}, **change)
    assert (verdict(release, [Earlier(PAST, 0)]) == "d") is compared


names = st.frozensets(st.sampled_from("abcdefgh"), min_size=3)


@settings(max_examples=400, deadline=None)
@given(before=names, now=names, rows=st.integers(0, 100), consents=st.frozensets(st.sampled_from("abcdefgh")),
       min_members=st.integers(3, 6), min_rows=st.integers(30, 60))  # fmt: skip
def test_the_rule_says_what_the_protocol_says(before, now, rows, consents, min_members, min_rows):
    got = verdict(
        replace(NOW, members=now), [Earlier(replace(PAST, members=before), rows)],
        min_members=min_members, min_rows=min_rows, consents=consents,
    )  # fmt: skip
    apart = (before - now) | (now - before)
    few_rows = rows != 0 and rows < min_rows
    few_members = before != now and len(apart) < min_members and not apart <= consents
    assert (got == "allowed") is (not few_rows and not few_members)


@settings(max_examples=200, deadline=None)
@given(rosters=st.lists(names, min_size=1, max_size=4), now=names)
def test_one_refusal_among_many_refuses_and_order_does_not_matter(rosters, now):
    earlier = [Earlier(replace(PAST, job=f"j{i}", members=members), 0) for i, members in enumerate(rosters)]
    release = replace(NOW, members=now)
    alone = [verdict(release, [entry]) for entry in earlier]
    together = verdict(release, earlier)
    assert (together == "allowed") is all(one == "allowed" for one in alone)
    assert (verdict(release, earlier[::-1]) == "allowed") is (together == "allowed")
