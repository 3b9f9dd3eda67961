"""Bad input to every kind of job between nodes: each has a defined outcome, at the owner or at all members alike."""

from __future__ import annotations

import numpy as np
import pytest

from federation.errors import ChaotianError
from tests.support.jobs_kit import with_space

THREE = ("bank-1", "bank-2", "bank-3")


def columns_of(bank: str) -> dict[str, list]:
    """Return 300 rows with what goes wrong in practice; bank-3 has no bad loans."""
    rng = np.random.default_rng(THREE.index(bank))
    n, bads = 300, 0 if bank == "bank-3" else 90
    amount = rng.normal(0, 1, n).round(6)
    sector = ["farm" if i % 3 else "trade" for i in range(n)]
    sector[:8] = ["rare"] * 8  # 24 over all banks: below the floor of 30
    return {
        "id": [f"{bank}-{i}" for i in range(n)],
        "y": [int(i < bads) for i in range(n)],
        "amount": amount.tolist(),
        "fixed": [5.0] * n,
        "few": (rng.integers(0, 4, n)).tolist(),
        "splits": [float(abs(v) + 1 if i < bads else -abs(v) - 1) for i, v in enumerate(amount)],
        "holes": ["" if i % 10 == 0 else value for i, value in enumerate(rng.normal(0, 1, n).round(6).tolist())],
        "sector": sector,
        "odd": ["x" if i % 2 else "new" if bank == "bank-2" else "z" for i in range(n)],
        # a code that one bank describes as a number
        "code": [i % 40 for i in range(n)] if bank == "bank-2" else [f"c{i % 2}" for i in range(n)],
    }


def category(name: str, *levels: str) -> dict:
    return {"name": name, "levels": list(levels)}


SECTOR = category("sector", "farm", "trade", "rare")
AMOUNT = {"name": "amount", "type": "numeric"}


def prepared(space) -> None:
    for name in THREE:
        space.give(name, "shapes", columns_of(name))
        if name != "bank-1":
            space.grant(name, dataset="shapes")


def test_what_an_owner_sees_of_its_own_rows_before_anything_leaves(tmp_path):
    async def work(space):
        prepared(space)

        async def refusal(bank: str, **changes) -> ChaotianError:
            job = await space.propose(members=list(THREE), **{"dataset": "shapes", **changes})
            with pytest.raises(ChaotianError) as caught:
                await space.banks[bank].jobs.accept(job)
            shown = space.banks[bank].jobs.show(job)["obstacles"]
            assert caught.value.code in [entry["code"] for entry in shown]  # and said before one tries
            return caught.value

        binning = {"kind": "binning", "label": "y"}
        found = await refusal("bank-2", **binning, features=[AMOUNT, category("code", "c0", "c1")])
        assert found.code == "DATA_TYPE" and "code" in found.detail
        found = await refusal("bank-2", **binning, features=[category("odd", "x", "z")])
        assert found.code == "DATA_TYPE" and "150 rows" in found.detail and "x, z" in found.hint
        assert "new" not in found.detail + found.hint
        found = await refusal("bank-2", **binning, features=[{"name": "turnover", "type": "numeric"}])
        assert found.code == "GRANT_DENIED" and "turnover" in found.detail  # the grant is asked first
        found = await refusal("bank-1", **binning, features=[{"name": "turnover", "type": "numeric"}])
        assert found.code == "DATA_COLUMN" and "turnover" in found.detail
        found = await refusal("bank-3", kind="scorecard", label="y", features=[AMOUNT, {"name": "holes"}])
        assert found.code == "DATA_MISSING" and "holes" in found.detail
        found = await refusal("bank-2", kind="evaluate", model="a" * 64)
        assert found.code == "MODEL_MISSING"
        found = await refusal("bank-2", kind="profile", features=[AMOUNT], dataset="shapes@7")
        assert found.code == "NOT_FOUND"

    with_space(work, tmp_path)


def test_what_all_members_find_alike(tmp_path):
    async def work(space):
        prepared(space)
        bank = space.banks["bank-2"]

        async def run(**changes) -> str:
            return await space.run(members=list(THREE), dataset="shapes", **changes)

        async def ends(code: str, **changes) -> None:
            job = await run(**changes)
            assert {space.banks[name].jobs.store.get(job).code for name in THREE} == {code}
            with pytest.raises(ChaotianError) as caught:
                bank.jobs.result(job)
            assert caught.value.code == code and caught.value.hint

        async def result(**changes) -> dict:
            return bank.jobs.result(await run(**changes))

        card = {"kind": "scorecard", "label": "y", "holdout": 0.0}
        fixed, splits = {"name": "fixed", "type": "numeric"}, {"name": "splits", "type": "numeric"}
        await ends("CONSTANT_FEATURE", **card, features=[AMOUNT, fixed])
        await ends("FEW_VALUES", **card, features=[AMOUNT, {"name": "few", "type": "numeric"}])
        await ends("SEPARABLE", **card, features=[splits], penalty=0)
        found = await result(**card, features=[splits, SECTOR], penalty=1)  # a penalty makes it finite
        model = bank.jobs._models.get(found["model"]).document
        assert {part["name"]: part.get("merged") for part in model["coding"]}["sector"] == ["rare"]
        found = await result(**card, features=[AMOUNT, {"name": "holes"}], impute="mean")
        assert found["training"] == {"rows": 900, "bads": 180, "min_rows": 30, "holdout": 0.0}
        assert space.banks["bank-3"].jobs.result(found["id"])["holdout"]["local"] == {"code": "ONE_CLASS"}

        # Under weights of evidence a constant column is left out, a small level merged, a missing value a bin.
        found = await result(**card, coding="woe", features=[AMOUNT, fixed, SECTOR, {"name": "holes"}])
        model = bank.jobs._models.get(found["model"]).document
        assert model["left_out"] == ["fixed"]
        await ends("CONSTANT_FEATURE", **card, coding="woe", features=[fixed])
        binned = (await result(kind="binning", label="y", features=[fixed, SECTOR, {"name": "holes"}]))["result"]
        bins = {entry["name"]: entry for entry in binned["columns"]}
        assert bins["fixed"]["constant"] and bins["fixed"]["information_decimal"] == "0.0"
        assert min(sum(pair) for entry in binned["columns"] for pair in entry["counts"]) >= 30
        assert bins["holes"]["missing"] >= 0

        # A profile counts what other kinds refuse; cells below the floor are not shown.
        seen = (await result(kind="profile", features=[fixed, SECTOR, category("odd", "x", "z")]))["result"]
        profile = {entry["name"]: entry for entry in seen["columns"]}
        assert profile["fixed"]["constant"] and profile["fixed"]["sd"] == 0.0
        assert profile["odd"]["violations"] == 150
        assert min(profile["sector"]["levels"].values()) >= 30 and profile["sector"]["merged"] >= 1

    with_space(work, tmp_path)


def without_grant(space):
    """Return bank-2 after it took back its grant."""
    bank = space.banks["bank-2"]
    with bank.database.begin() as connection:
        for record in bank.grants.records(connection):
            bank.grants.revoke(connection, record.grant.id, None, by="bank-2")
    return bank


def test_a_grant_covers_every_operation_of_a_job_or_none(tmp_path):
    async def work(space):
        bank = without_grant(space)
        space.grant("bank-2", operations=["scorecard", "evaluate"])
        job = await space.propose(kind="scorecard", label="y", features=["x1"], coding="woe")
        with pytest.raises(ChaotianError) as caught:
            await bank.jobs.accept(job)
        assert caught.value.code == "GRANT_DENIED"
        assert "columns.histogram, binning.counts" in caught.value.detail
        assert '"binning", "columns", "scorecard"' in caught.value.hint
        assert [entry["code"] for entry in bank.jobs.show(job)["obstacles"]] == ["GRANT_DENIED"]
        raw = await space.propose(kind="scorecard", label="y", features=["x1"])
        await bank.jobs.accept(raw)  # the same grant covers this one

    with_space(work, tmp_path)


def test_the_fewest_roster_changes_of_all_operations_hold(tmp_path):
    async def work(space):
        bank = without_grant(space)
        common = {"out": "total", "min_members": 3, "min_rows": 30, "max_rounds": 60, "result_to": "members"}
        changes = {"binning": 3, "columns": 0, "scorecard": 3}
        space.grant("bank-2", ops=[{**common, "op": op, "max_roster_changes": n} for op, n in changes.items()])
        job = await space.accepted(kind="scorecard", label="y", features=["x1", "x4"], coding="woe")
        stages = {"count": 0}

        async def tamper(member, kind, payload):
            if kind == "job.stage":
                stages["count"] += 1
                if stages["count"] == 3 * 24 + 10:  # in the fourth round, a step of the iteration
                    space.wire.away.add("bank-4")
            return payload

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "failed"  # two of four are left
        assert bank.jobs.store.get(job).code == "ROSTER_CHANGES"

    with_space(work, tmp_path)


def test_two_dates_are_bound_and_enter_the_ledger_both(tmp_path):
    async def work(space):
        bank = space.banks["bank-2"]
        for name in space.names:
            space.give_data(name, drop=100)  # loans@2
        before, after = (bank.datasets.get(f"loans@{k}").snapshot for k in (1, 2))
        dates = {"kind": "stability", "features": ["x1", "x4"], "dataset": "loans@1", "after": "loans@2"}
        job = await space.run(**dates)
        assert [binding.snapshot for binding in bank.jobs.store.acceptances(job)["bank-2"].data] == [before, after]
        with bank.database.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT round, part, dataset, snapshot FROM job_releases WHERE job = ?", (job,)
            ).all()
        assert [tuple(row) for row in rows] == [(1, 0, "loans", before), (1, 1, "loans", after)]
        events = [event["type"] for event in bank.log.events(limit=200)]
        assert events.count("round.released") == 1

        # Ten rows less than at the second date: the difference of two totals would show them, in one job or in two.
        space.give_data("bank-2", drop=110)  # loans@3
        for name in ("bank-1", "bank-3", "bank-4"):
            space.give_data(name, drop=200)
        job = await space.propose(**{**dates, "dataset": "loans@2", "after": "loans@3"})
        with pytest.raises(ChaotianError) as caught:
            await bank.jobs.accept(job)
        assert caught.value.code == "RELEASE_DIFFERENCE" and "10 rows" in caught.value.detail
        job = await space.accepted(**{**dates, "after": "loans@3"})
        await space.coordinator.start_job(job)
        await space.ended(job)
        assert bank.jobs.store.get(job).code == "RELEASE_DIFFERENCE"

    with_space(work, tmp_path)


def test_two_dates_in_two_datasets_need_a_grant_for_each(tmp_path):
    async def work(space):
        bank = space.banks["bank-2"]
        for name in THREE:
            space.give(name, "old", columns_of(name), as_of="2024-12-31")
            rows = columns_of(name)
            space.give(name, "new", {**rows, "amount": [value + 1 for value in rows["amount"]]}, as_of="2025-06-30")
            if name != "bank-1":
                space.grant(name, dataset="old")
        job = await space.propose(
            members=list(THREE), kind="stability", features=["amount"], dataset="old@2024-12-31", after="new"
        )
        with pytest.raises(ChaotianError) as caught:
            await bank.jobs.accept(job)
        assert caught.value.code == "NO_GRANT" and "new" in caught.value.detail
        for name in THREE[1:]:
            space.grant(name, dataset="new", quota={"calls": 1, "per": "day"})
        for name in THREE:
            await space.banks[name].jobs.accept(job)
        await space.settle()
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        assert bank.jobs.result(job)["result"]["shifts"][0]["verdict"] == "large"
        data = bank.jobs.store.acceptances(job)["bank-2"].data
        assert [binding.dataset for binding in data] == ["old", "new"] and len({b.grant for b in data}) == 2
        with bank.database.read() as connection:  # each was charged
            assert [bank.grants.usage(connection, b.grant, None, now=space.clock()).calls for b in data] == [1, 1]

    with_space(work, tmp_path)


def test_an_acceptance_for_other_datasets_does_not_count(tmp_path):
    async def work(space):
        from dataclasses import replace

        bank = space.banks["bank-2"]
        job = await space.propose(kind="profile", features=["x1"])
        await bank.jobs.accept(job)
        await space.settle()
        found = space.banks["bank-1"].jobs.store.acceptances(job)["bank-2"]
        for data in (found.data * 2, (replace(found.data[0], dataset="others"),)):
            paper = replace(found, data=data).sign(bank.signer)
            document = space.banks["bank-1"].jobs.store.get(job).document
            with pytest.raises(ChaotianError) as caught:
                space.banks["bank-1"].jobs._check_acceptance(document, "bank-2", paper)
            assert (caught.value.code, caught.value.member) == ("WRONG_TERMS", "bank-2")

    with_space(work, tmp_path)


def test_another_kind_of_job_with_one_bank_less_needs_that_banks_consent(tmp_path):
    async def work(space):
        await space.run(kind="profile", features=["x1", "x4"])
        three = list(space.names[:3])
        binning = {"kind": "binning", "label": "y", "features": ["x1"], "holdout": 0.2, "members": three}
        job = await space.run(**binning)
        row = space.coordinator.store.get(job)
        assert (row.state, row.code) == ("failed", "RELEASE_DIFFERENCE")
        assert "bank-4" in space.banks["bank-2"].jobs.store.get(job).detail
        await space.run(**{**binning, "members": None})  # of all four: held-out rows are no changed rows here
        job = await space.accepted(**binning, exposed=["bank-4"])
        await space.banks["bank-4"].jobs.consent(job)
        await space.settle()
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"

    with_space(work, tmp_path)
