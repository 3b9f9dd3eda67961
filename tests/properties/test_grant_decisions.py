"""Restricting a grant, or adding another that must hold too, never permits more."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from gateway.grants.catalogue import DUTIES, PURPOSES
from gateway.grants.decision import Usage, UseRequest, combine, decide
from gateway.grants.document import Grant
from tests.unit.grant_samples import DAY, NOW, document, request

NAMES = ("amount", "default", "name", "行业")

requests = st.fixed_dictionaries(
    {},
    optional={
        "requester": st.sampled_from(["bank-b", "bank-c"]),
        "requester_role": st.sampled_from(["bank", "platform"]),
        "grade": st.integers(1, 4),
        "as_of": st.one_of(st.none(), st.floats(NOW - 100 * DAY, NOW + 2 * DAY)),
        "columns": st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
        "purpose": st.sampled_from(["credit-risk-model", "statistics"]),
        "operation": st.sampled_from(["scorecard.newton", "scorecard.ranges", "boosting.split"]),
        "round": st.integers(0, 45),
        "result_to": st.sampled_from(["members", "platform", "both"]),
        "min_members": st.integers(2, 5),
        "min_rows": st.integers(1, 60),
        "members": st.sampled_from(
            [("bank-a", "bank-b"), ("bank-a", "bank-b", "bank-c"), ("bank-a", "b", "c", "d", "e")]
        ),
        "roster_changes": st.integers(0, 3),
    },
).map(lambda changes: request(**changes))
usages = st.one_of(
    st.just(Usage()),
    st.builds(
        Usage, state=st.sampled_from(["active", "revoked", "proposed"]), calls=st.integers(0, 7), charged=st.booleans()
    ),
)
# Permissive values, some of which an example replaces.
BASE: dict[str, Any] = {
    "dataset__grade": 3,
    "dataset__as_of_max_age": 100 * DAY,
    "columns": {"amount": "aggregate", "default": "aggregate", "行业": "aggregate"},
    "purposes": ["credit-risk-model", "statistics"],
    "ops__min_members": 3,
    "ops__min_rows": 30,
    "ops__max_rounds": 40,
    "ops__max_roster_changes": 1,
    "ops__result_to": "both",
    "quota__calls": 5,
    "nbf": int(NOW) - 5 * DAY,
    "exp": int(NOW) + 5 * DAY,
    "duties": [],
}
grants = st.fixed_dictionaries(
    {},
    optional={
        "dataset__grade": st.integers(1, 5),
        "dataset__as_of_max_age": st.integers(1, 120 * DAY),
        "columns": st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["never", "aggregate"]), min_size=1),
        "purposes": st.sets(st.sampled_from(sorted(PURPOSES)), min_size=1).map(sorted),
        "ops__min_members": st.integers(3, 5),
        "ops__min_rows": st.integers(1, 60),
        "ops__max_rounds": st.integers(1, 45),
        "ops__max_roster_changes": st.integers(0, 3),
        "ops__result_to": st.sampled_from(["members", "platform", "both"]),
        "quota__calls": st.integers(1, 7),
        "nbf": st.integers(int(NOW) - 2 * DAY, int(NOW) + DAY),
        "exp": st.integers(int(NOW) - DAY, int(NOW) + 2 * DAY),
        "duties": st.sets(st.sampled_from(sorted(DUTIES))).map(sorted),
    },
).map(lambda changes: {**BASE, **changes})
times = st.one_of(st.just(NOW), st.floats(NOW - 3 * DAY, NOW + 3 * DAY))


def tighter(changes: dict[str, Any], data: Any) -> dict[str, Any]:
    """Return the changes with one clause made stricter."""
    which = data.draw(st.sampled_from(sorted(changes)))
    value = changes[which]
    if which in ("dataset__grade", "dataset__as_of_max_age", "ops__max_rounds", "quota__calls"):
        value = data.draw(st.integers(1, value))
    elif which == "ops__max_roster_changes":
        value = data.draw(st.integers(0, value))
    elif which in ("ops__min_members", "ops__min_rows", "nbf"):
        value = value + data.draw(st.integers(0, 10))
    elif which == "exp":
        value = value - data.draw(st.integers(0, DAY))
    elif which == "columns":
        value = {**value, data.draw(st.sampled_from(NAMES)): "never"}
    elif which == "purposes":
        value = sorted(data.draw(st.sets(st.sampled_from(value), min_size=1)))
    elif which == "ops__result_to":
        value = data.draw(st.sampled_from(["members", "platform"])) if value == "both" else value
    elif which == "duties":
        value = sorted(DUTIES)
    return {**changes, which: value}


def made(changes: dict[str, Any]) -> Grant | None:
    try:
        return Grant.from_document(document(**changes))
    except ChaotianError as error:
        assert error.code == "BAD_DOCUMENT" and error.detail.startswith("exp")  # it ends before it begins
        return None


def test_the_examples_reach_both_verdicts() -> None:
    """Guards the strategies: a property over denials alone would prove nothing."""
    seen = {True: 0, False: 0}

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(grants, requests, usages)
    def look(changes: dict[str, Any], asked: UseRequest, usage: Usage) -> None:
        found = made(changes)
        if found is not None:
            seen[decide(found, asked, now=NOW, usage=usage).permitted] += 1

    look()
    assert min(seen.values()) >= 10, seen


@settings(max_examples=400, deadline=None)
@given(grants, requests, usages, times, st.data())
def test_a_restriction_never_permits_more(
    changes: dict[str, Any], asked: UseRequest, usage: Usage, now: float, data: Any
) -> None:
    wide, narrow = made(changes), made(tighter(changes, data))
    if wide is None or narrow is None:
        return
    first, second = (decide(found, asked, now=now, usage=usage) for found in (wide, narrow))
    assert first.permitted or not second.permitted
    assert {clause.key for clause in first.denials} <= {clause.key for clause in second.denials}
    assert combine([first, second]).permitted == (first.permitted and second.permitted)


@settings(max_examples=200, deadline=None)
@given(grants, requests, usages, usages, times)
def test_combining_never_permits_more_and_order_does_not_matter(
    changes: dict[str, Any], asked: UseRequest, one: Usage, two: Usage, now: float
) -> None:
    found = made(changes)
    if found is None:
        return
    decisions = [decide(found, asked, now=now, usage=usage) for usage in (one, two)]
    both = combine(decisions)
    assert both.permitted <= decisions[0].permitted and both.permitted <= decisions[1].permitted
    assert both.permitted == combine(decisions[::-1]).permitted
    assert both.permitted == (not both.denials)


@settings(max_examples=200, deadline=None)
@given(grants, requests, times)
def test_more_usage_and_revocation_never_permit_more(changes: dict[str, Any], asked: UseRequest, now: float) -> None:
    found = made(changes)
    if found is None:
        return
    verdicts = [decide(found, asked, now=now, usage=Usage(calls=calls)).permitted for calls in range(9)]
    assert verdicts == sorted(verdicts, reverse=True)
    assert not decide(found, asked, now=now, usage=Usage(state="revoked", charged=True)).permitted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(document())), JSON)
def test_any_value_in_any_field_gives_the_grant_or_a_coded_error(field: str, value: Any) -> None:
    try:
        found = Grant.from_document({**document(), field: value})
    except ChaotianError as error:
        assert error.code in ("BAD_DOCUMENT", "NOT_ENFORCED", "OVERSIZED")
    else:
        assert Grant.parse(found.content) == found
