"""A job goes on after restarts: of the platform at any stage, of a bank between and within rounds."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.jobs.position import PositionFile
from tests.support.jobs_kit import BANKS, with_space

STAGES = 24  # requests of a round: six stages at four banks


class Crash:
    """Takes the platform down at the n-th stage request: what was under way is gone, what is on disk stays."""

    def __init__(self, space, at: int, *, after: bool) -> None:
        self.space, self.at, self.after, self.count = space, at, after, 0
        self.happened = asyncio.Event()
        space.wire.tamper, self.replies = self.before, None

    async def before(self, member, kind, payload):
        if kind != "job.stage":
            return payload
        self.count += 1
        if self.count == self.at:
            if self.after:  # the request arrives, its reply finds nobody
                await self.space.wire.at_member[member][kind](payload)
            self.happened.set()
        if self.happened.is_set():
            await asyncio.sleep(3600)
        return payload


async def crash_and_restart(space, job: str, at: int, *, after: bool = False, restart_bank: str = "") -> None:
    crash = Crash(space, at, after=after)
    await space.coordinator.start_job(job)
    await asyncio.wait_for(crash.happened.wait(), 30)
    old = space.coordinator
    run = old._active[job]
    old._stopping = True
    # As SIGKILL would: nothing of the old process may write any more.
    for name in ("checkpoint", "save_progress", "_set"):
        setattr(old.runs, name, lambda *a, **k: None)
    old._follow = lambda *a, **k: None
    run._journal._write = lambda record: None
    run.cancel("PLATFORM_UNREACHABLE")
    for task in list(old._tasks):
        task.cancel()
    await asyncio.gather(*old._tasks, return_exceptions=True)
    space.wire.tamper = None
    if restart_bank:
        await space.banks[restart_bank].jobs.stop()
        space.open_bank(restart_bank)
    space.open_platform()
    await space.coordinator.start()


@pytest.mark.parametrize("at", [1, 4, 10, 13, 16, 17, 20, 22, 24, 27, 34, 41, 46, 190])
@pytest.mark.parametrize("after", [False, True])
def test_the_platform_dies_at_any_stage_and_the_job_goes_on(tmp_path, at, after):
    async def work(space):
        job = await space.accepted()
        await crash_and_restart(space, job, at, after=after)
        assert await space.ended(job) == "done", space.coordinator.store.get(job)
        models = {space.banks[name].jobs.result(job)["model"] for name in BANKS}
        assert len(models) == 1
        assert not (await space.coordinator.progress(job))["progress"]["losses"]
        kinds = [event["type"] for event in space.banks["bank-3"].log.events(limit=400)]
        # Whatever happened, no round was released twice.
        assert kinds.count("round.released") == space.banks["bank-3"].jobs.result(job)["rounds"]

    with_space(work, tmp_path)


def test_a_bank_that_restarts_between_rounds_takes_part_again(tmp_path):
    async def work(space):
        job = await space.accepted()
        # Killed at advertise_keys of the third round: nothing of it has been answered.
        await crash_and_restart(space, job, 2 * STAGES + 1, restart_bank="bank-2")
        assert await space.ended(job) == "done"
        assert space.banks["bank-2"].jobs.store.get(job).state == "done"
        assert len({space.banks[name].jobs.result(job)["model"] for name in BANKS}) == 1

    with_space(work, tmp_path)


def test_a_bank_that_restarts_without_its_position_file_starts_from_its_last_marker(tmp_path):
    async def work(space):
        job = await space.accepted()
        crash = 2 * STAGES + 14  # consistency of the third round: the third masked inputs have left
        await crash_and_restart(space, job, crash, restart_bank="bank-2")
        PositionFile(space.banks["bank-2"].home / "jobs", job).forget()
        assert await space.ended(job) == "done"
        assert space.banks["bank-2"].jobs.store.get(job).state == "done"

    with_space(work, tmp_path)


def test_a_bank_that_restarts_after_the_round_was_released_stays_out_and_the_rest_goes_on(tmp_path):
    async def work(space):
        job = await space.accepted()
        # At the results of the second round: the round is spent, and bank-2 does not know its total.
        await crash_and_restart(space, job, STAGES + 21, restart_bank="bank-2")
        assert await space.ended(job) == "done"
        assert space.banks["bank-1"].jobs.result(job)["roster"] == ["bank-1", "bank-3", "bank-4"]
        assert space.banks["bank-2"].jobs.store.get(job).state == "failed"

    with_space(work, tmp_path)


def test_a_wrong_position_on_file_is_never_used(tmp_path):
    async def work(space):
        job = await space.accepted()
        crash = Crash(space, 2 * STAGES + 1, after=False)
        await space.coordinator.start_job(job)
        await asyncio.wait_for(crash.happened.wait(), 30)
        positions = PositionFile(space.banks["bank-2"].home / "jobs", job)
        kept = positions.load()
        assert kept
        for position in kept:
            altered = position.replace(b'\\"rows\\":', b'\\"rows\\":1', 1)
            assert altered != position
            positions.save(json.loads(position)["round"], altered)
        await space.banks["bank-2"].jobs.stop()
        space.open_bank("bank-2")
        space.wire.tamper = None
        await space.coordinator.stop()
        space.open_platform()
        await space.coordinator.start()
        assert await space.ended(job) == "done"
        assert space.banks["bank-1"].jobs.result(job)["roster"] == ["bank-1", "bank-3", "bank-4"]

    with_space(work, tmp_path)
