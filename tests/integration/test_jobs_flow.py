"""A job from proposal to result over the ports of hub and link, and what keeps one from running."""

from __future__ import annotations

import pytest

from federation.errors import ChaotianError
from tests.support.jobs_kit import BANKS, with_space


async def code_of(awaitable) -> str:
    with pytest.raises(ChaotianError) as caught:
        await awaitable
    return caught.value.code


def test_four_banks_train_a_scorecard(tmp_path):
    async def work(space):
        job = await space.run()
        row = space.coordinator.store.get(job)
        assert row.state == "done", (row.code, row.detail)
        results = {name: space.banks[name].jobs.result(job[:6]) for name in BANKS}
        assert len({result["model"] for result in results.values()}) == 1
        for name, result in results.items():
            figures = result["holdout"]["federated"]
            assert 0.6 < figures["auc"] < 0.9 and result["holdout"]["local"]["auc"] > 0.5
            assert result["roster"] == list(BANKS) and result["rounds"] >= 4
            assert space.banks[name].jobs.store.get(job).state == "done"
            assert not list((space.banks[name].home / "jobs").glob("*"))
            assert (space.banks[name].home / "models" / f"{result['model']}.json").exists()
        kinds = [event["type"] for event in space.banks["bank-2"].log.events(limit=200)]
        rounds = results["bank-2"]["rounds"]
        assert kinds.count("round.answered") == kinds.count("round.released") == rounds
        assert kinds[:2] == ["job.proposed", "job.accepted"] and kinds[-1] == "job.finished"
        progress = await space.coordinator.progress(job)
        assert len(progress["progress"]["rounds"]) == rounds and not progress["progress"]["losses"]
        assert sorted(r["seconds"] for r in progress["progress"]["rounds"])[rounds // 2] < 1.0

    with_space(work, tmp_path)
