"""Jobs of several kinds go on after the platform died in their middle: results as if nothing had happened."""

from __future__ import annotations

import pytest

from tests.integration.test_jobs_restart import STAGES, crash_and_restart
from tests.support.jobs_kit import BANKS, with_space

KINDS = {
    "profile": {"features": ["x1", "x4"]},
    "binning": {"features": ["x1", "x4"], "label": "y"},
    "scorecard": {"features": ["x1", "x4"], "label": "y", "coding": "woe"},
    "stability": {"features": ["x1", "x4"], "dataset": "loans@1", "after": "loans@2"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_changes_nothing(tmp_path, kind):
    async def work(space):
        for name in BANKS:
            space.give_data(name, drop=100)

        def found(job: str):
            results = [space.banks[name].jobs.result(job) for name in BANKS]
            first = results[0].get("result") or space.banks["bank-1"].jobs._models.get(job).document["coefficients"]
            assert len({str(result.get("result") or result["model"]) for result in results}) == 1
            return {key: value for key, value in first.items() if key not in ("job", "version")} if isinstance(
                first, dict) else first  # fmt: skip

        undisturbed = found(await space.run(kind=kind, **KINDS[kind]))
        rounds = 1 if kind == "stability" else 2
        job = await space.accepted(kind=kind, **KINDS[kind])
        await crash_and_restart(space, job, rounds * STAGES - 3)  # near the end of its last, or of its second round
        assert await space.ended(job) == "done", space.coordinator.store.get(job)
        assert found(job) == undisturbed

    with_space(work, tmp_path)
