"""The life of a job as data: which events lead where, and that every end is an end."""

from __future__ import annotations

import itertools

import pytest

from federation.errors import ChaotianError
from gateway.jobs import states

EVENTS = sorted({event for _, event in states.TRANSITIONS})
STATES = (*states.OPEN, *states.ENDED)


def test_every_state_can_be_reached_and_every_open_one_left():
    reached, queue = {states.PROPOSED}, [states.PROPOSED]
    while queue:
        at = queue.pop()
        for (state, _), target in states.TRANSITIONS.items():
            if state == at and target not in reached:
                reached.add(target)
                queue.append(target)
    assert reached == set(STATES)
    assert all(any((state, event) in states.TRANSITIONS for event in ("cancel",)) for state in states.OPEN)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_what_is_not_written_down_is_refused(state, event):
    if (state, event) in states.TRANSITIONS:
        assert states.follow(state, event) == states.TRANSITIONS[state, event]
        assert state in states.OPEN
        return
    with pytest.raises(ChaotianError) as caught:
        states.follow(state, event)
    expected = "CANCELLED" if state == "cancelled" else "JOB_STATE"
    if (state, event) == ("proposed", "start"):
        expected = "NOT_ACCEPTED"
    assert caught.value.code == expected
