"""Hundreds of seeded schedules of faults; `make soak` runs 10,000."""

import os
from collections import Counter

import pytest

from federation.secure_sum import messages
from federation.secure_sum.local import MemoryMarkers
from tests.simulation.world import CRASHES, KINDS, Markers, Schedule, World

# Schedules that once failed; the comment says what they found.
FROZEN: list[Schedule] = []


def play(schedule: Schedule) -> str:
    try:
        return World(schedule).run()
    except Exception as error:
        raise AssertionError(f"{schedule}: {type(error).__name__}: {error}") from error


def test_without_faults_every_job_ends_well():
    for members in (3, 4, 6):
        assert play(Schedule(members, members)) == ""


@pytest.mark.parametrize("batch", range(12))
def test_random_schedules(batch):
    codes = Counter(play(Schedule.drawn(seed)) for seed in range(batch * 25, batch * 25 + 25))
    # A simulation in which nothing ends well, or nothing fails, tests nothing.
    assert codes[""] >= 5 and codes[""] < 25, codes


@pytest.mark.parametrize("kind", KINDS + CRASHES)
def test_one_fault_in_every_stage_costs_at_most_one_of_four(kind):
    codes = Counter(play(Schedule(7, single=(number, kind))) for number in range(1, 48, 5))
    if kind not in ("forge", "replay", "truncate", "journal full"):
        assert set(codes) == {""}, codes


def test_frozen():
    for schedule in FROZEN:
        play(schedule)


def test_markers_that_forget_are_found_out(monkeypatch):
    """Control: without the durable marker a platform that restarts gets a second total, and the invariant sees it."""
    monkeypatch.setattr(Markers, "spent", lambda self, job, round_: False)
    monkeypatch.setattr(Markers, "last_attempt", lambda self, job, round_: 0)
    monkeypatch.setattr(MemoryMarkers, "released", lambda self, terms: None)
    monkeypatch.setattr(World, "_start_coordinator", forgets_its_journal(World._start_coordinator))
    with pytest.raises(AssertionError, match="twice"):
        for number in range(32, 48):
            play(Schedule(11, single=(number, "coordinator")))


def forgets_its_journal(start):
    def started(world):
        world.journal.record = None
        start(world)

    return started


def test_masks_that_do_not_cancel_are_found_out(monkeypatch):
    """Control: a wrong mask gives a wrong total, and the simulation sees it."""
    monkeypatch.setattr(messages, "pair_key", lambda *arguments: os.urandom(32))
    with pytest.raises(AssertionError):
        play(Schedule(1))


@pytest.mark.soak
@pytest.mark.parametrize("batch", range(100))
def test_soak(batch):
    for seed in range(100_000 + batch * 100, 100_000 + batch * 100 + 100):
        play(Schedule.drawn(seed))
