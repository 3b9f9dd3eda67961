"""A job from proposal to result over the ports of hub and link, and what keeps one from running."""

from __future__ import annotations

import asyncio

import pytest

from federation.errors import ChaotianError
from gateway.jobs.papers import CANCELLATION, Cancellation, sign_paper
from tests.support.jobs_kit import BANKS, SPACE, with_space


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


def test_nothing_starts_before_everybody_accepted(tmp_path):
    async def work(space):
        job = await space.propose()
        assert await code_of(space.coordinator.start_job(job)) == "NOT_ACCEPTED"
        for name in BANKS[:3]:
            await space.banks[name].jobs.accept(job[:8])
        assert await code_of(space.coordinator.start_job(job)) == "NOT_ACCEPTED"
        await space.banks["bank-4"].jobs.accept(job)
        await space.settle()
        assert space.coordinator.store.get(job).state == "accepted"
        # Only the proposer and the operator start it.
        assert await code_of(space.banks["bank-2"].jobs.start_job(job)) == "NOT_PERMITTED"
        await space.banks["bank-1"].jobs.start_job(job)
        assert await space.ended(job) == "done"
        assert await code_of(space.coordinator.start_job(job)) == "JOB_STATE"

    with_space(work, tmp_path)


def test_show_says_what_leaves_and_what_stands_in_the_way(tmp_path):
    async def work(space):
        job = await space.propose()
        space.approvals["bank-2"].discard("bank-4")
        shown = space.banks["bank-2"].jobs.show(job[:8])
        rounds = {entry["operation"]: entry for entry in shown["leaves"]["rounds"]}
        assert rounds["scorecard.newton"]["fields"] == {"loss": 1, "gradient": 6, "hessian": 21}
        assert rounds["scorecard.counts"]["bytes_exact"] and len(shown["leaves"]["claims"]) >= 5
        assert [entry["code"] for entry in shown["obstacles"]] == ["NOT_APPROVED"]
        with pytest.raises(ChaotianError) as caught:
            await space.banks["bank-2"].jobs.accept(job)
        assert (caught.value.code, caught.value.member) == ("NOT_APPROVED", "bank-4")

    with_space(work, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"coding": "woe"},
        {"kind": "profile", "features": ["x1", "x4"]},
        {"kind": "binning", "features": ["x1", "x4"], "label": "y", "edges": {"x1": [0.0]}},
        {"kind": "stability", "features": ["x1", "x4"], "after": "loans"},
    ],
    ids=lambda changes: "-".join(map(str, list(changes.values())[:1])) or "scorecard",
)
def test_the_preview_names_the_rounds_that_really_run(tmp_path, changes):
    async def work(space):
        job = await space.propose(**changes)
        rounds = space.banks["bank-1"].jobs.show(job)["leaves"]["rounds"]
        shown = {entry["operation"]: entry["fields"] for entry in rounds}
        for name in BANKS:
            await space.banks[name].jobs.accept(job)
        await space.settle()
        seen = {}
        watched = space.coordinator._make_run

        def make(row):
            run = watched(row)
            begin = run.progress.begin_round

            def note(round_, operation, fields, members):
                seen[operation] = fields
                begin(round_, operation, fields, members)

            run.progress.begin_round = note
            return run

        space.coordinator._make_run = make
        await space.coordinator.start_job(job)
        await space.ended(job)
        assert list(seen) == list(shown)  # in order
        for entry in rounds:
            fields = seen[entry["operation"]]
            assert list(fields) == list(entry["fields"])
            assert all(fields[name] <= length for name, length in entry["fields"].items())
            assert fields == entry["fields"] or not entry["bytes_exact"]
        assert changes or seen == shown  # without bins there is nothing that only the totals tell

    with_space(work, tmp_path)


def test_a_bank_whose_peer_is_no_longer_approved_refuses_by_name(tmp_path):
    async def work(space):
        job = await space.accepted()
        space.approvals["bank-3"].discard("bank-2")
        with pytest.raises(ChaotianError) as caught:
            await space.coordinator.start_job(job)
        assert (caught.value.code, caught.value.member) == ("NOT_APPROVED", "bank-3")
        assert "bank-2" in caught.value.detail
        assert space.coordinator.store.get(job).state == "accepted"  # it may be started once that is put right
        space.approvals["bank-3"].add("bank-2")
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"

    with_space(work, tmp_path)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"purposes": ["statistics"]}, "GRANT_DENIED"), ({"op": {"min_members": 5}}, "MIN_MEMBERS"),
     ({"op": {"min_rows": 50}}, "MIN_ROWS")],
)  # fmt: skip
def test_a_grant_that_does_not_cover_the_job_keeps_the_bank_from_accepting(tmp_path, changes, code):
    async def work(space):
        job = await space.propose()
        with space.banks["bank-2"].database.begin() as connection:
            for record in space.banks["bank-2"].grants.records(connection):
                space.banks["bank-2"].grants.revoke(connection, record.grant.id, None, by="bank-2")
        assert await code_of(space.banks["bank-2"].jobs.accept(job)) == "NO_GRANT"
        space.grant("bank-2", **changes)
        assert await code_of(space.banks["bank-2"].jobs.accept(job)) == code

    with_space(work, tmp_path)


def test_a_grant_revoked_in_the_middle_stops_that_bank_and_a_used_up_one_too(tmp_path):
    async def work(space):
        bank = space.banks["bank-2"]
        with bank.database.begin() as connection:
            for record in bank.grants.records(connection):
                bank.grants.revoke(connection, record.grant.id, None, by="bank-2")
        space.grant("bank-2", quota={"calls": 2, "per": "day"})
        job = await space.run()
        progress = (await space.coordinator.progress(job))["progress"]
        assert [(loss["member"], loss["code"]) for loss in progress["losses"]] == [("bank-2", "QUOTA")]
        assert space.coordinator.store.get(job).state == "done"  # three go on
        assert bank.jobs.store.get(job).code == "QUOTA"
        assert space.banks["bank-1"].jobs.result(job)["roster"] == ["bank-1", "bank-3", "bank-4"]

    with_space(work, tmp_path)


def test_a_bank_lost_before_unmask_costs_an_attempt_and_a_second_one_ends_the_job(tmp_path):
    async def work(space):
        job = await space.accepted()
        stages = {"count": 0}

        async def tamper(member, kind, payload):
            if kind == "job.stage":
                stages["count"] += 1
                if stages["count"] == 2 * 24 + 10:  # in the third round, at masked_input
                    space.wire.away.add("bank-4")
            return payload

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        progress = (await space.coordinator.progress(job))["progress"]
        assert [loss["member"] for loss in progress["losses"]] == ["bank-4"]
        assert max(entry["attempts"] for entry in progress["rounds"]) == 2
        assert progress["members"]["bank-1"]["retries"] == 1
        space.wire.tamper = None
        space.wire.back("bank-4")
        await space.settle()
        assert space.banks["bank-4"].jobs.store.get(job).state == "failed"
        # The same job again with all four: the lost bank's part would show, unless it consents.
        again = await space.accepted()
        await space.coordinator.start_job(again)
        assert await space.ended(again) == "failed"
        assert space.coordinator.store.get(again).code == "RELEASE_DIFFERENCE"
        consented = await space.accepted(consenting=("bank-4",))
        await space.coordinator.start_job(consented)
        assert await space.ended(consented) == "done"

    with_space(work, tmp_path)


def test_the_job_again_with_one_bank_less_needs_the_consent_of_that_bank(tmp_path):
    async def work(space):
        await space.run()
        three = BANKS[:3]
        job = await space.accepted(members=three, exposed=["bank-4"])
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "failed"
        assert space.coordinator.store.get(job).code == "RELEASE_DIFFERENCE"
        job = await space.accepted(members=three, exposed=["bank-4"])
        assert await code_of(space.banks["bank-4"].jobs.accept(job)) == "NOT_PERMITTED"
        await space.banks["bank-4"].jobs.consent(job)
        await space.settle()
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"

    with_space(work, tmp_path)


def test_a_late_bank_is_left_behind_after_the_stage_deadline(tmp_path):
    async def work(space):
        job = await space.accepted(stage_seconds=1.0)
        seen = {"count": 0}

        async def tamper(member, kind, payload):
            if kind == "job.stage" and member == "bank-3":
                seen["count"] += 1
                if seen["count"] == 8:
                    await asyncio.sleep(3)
            return payload

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        losses = (await space.coordinator.progress(job))["progress"]["losses"]
        assert [(loss["member"], loss["code"]) for loss in losses] == [("bank-3", "DEADLINE")]

    with_space(work, tmp_path)


@pytest.mark.parametrize("kind", ["flip", "truncate", "swap", "empty"])
def test_a_bank_that_answers_garbage_loses_its_place_and_nothing_else(tmp_path, kind):
    async def work(space):
        job = await space.accepted()
        seen = {"count": 0, "other": b""}

        def replies(member, request, reply):
            if request != "job.stage":
                return reply
            if member == "bank-1":
                seen["other"] = reply
            if member != "bank-2":
                return reply
            seen["count"] += 1
            if seen["count"] != 9:
                return reply
            flipped = bytearray(reply)
            flipped[len(reply) // 2] ^= 1
            return {"flip": bytes(flipped), "truncate": reply[:-7], "swap": seen["other"], "empty": b""}[kind]

        space.wire.replies = replies
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        losses = (await space.coordinator.progress(job))["progress"]["losses"]
        assert [loss["member"] for loss in losses] == ["bank-2"] and losses[0]["code"] in ("SIGNATURE", "MALFORMED")

    with_space(work, tmp_path)


def test_stage_requests_that_come_twice_or_in_the_wrong_order_change_nothing(tmp_path):
    async def work(space):
        job = await space.accepted()
        kept = []

        async def tamper(member, kind, payload):
            if kind == "job.stage" and member == "bank-2":
                handler = space.wire.at_member[member][kind]
                first = await handler(payload)
                assert await handler(payload) == first  # byte for byte
                if kept:
                    await handler(kept[0])  # long over: refused inside, and harmless
                kept.append(payload)
            return payload

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        assert await space.ended(job) == "done"
        assert not (await space.coordinator.progress(job))["progress"]["losses"]

    with_space(work, tmp_path)


def test_a_foreign_or_altered_stage_request_is_not_looked_at(tmp_path):
    async def work(space):
        job = await space.accepted()
        kept = {}

        async def tamper(member, kind, payload):
            if kind == "job.stage":
                kept.setdefault(member, payload)
            return payload

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        await space.ended(job)
        other = await space.accepted()
        stage = space.wire.at_member["bank-2"]["job.stage"]
        altered = bytearray(kept["bank-2"])
        altered[-20] ^= 1
        assert await code_of(stage(b"\x00" * 50)) == "MALFORMED"
        assert await code_of(stage(bytes(altered))) in ("SIGNATURE", "LOST")
        moved = kept["bank-2"].replace(job.encode(), other.encode())
        assert await code_of(stage(moved)) == "SIGNATURE"
        assert await code_of(stage(kept["bank-1"].replace(job.encode(), other.encode()))) == "SIGNATURE"

    with_space(work, tmp_path)


def test_cancelling_ends_a_job_for_everybody(tmp_path):
    async def work(space):
        job = await space.accepted()
        holding = asyncio.Event()

        async def tamper(member, kind, payload):
            if kind == "job.stage" and member == "bank-3":
                holding.set()
                await asyncio.sleep(0.5)
            return payload

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        await holding.wait()
        await space.banks["bank-2"].jobs.cancel(job)
        assert await space.ended(job) == "cancelled"
        await space.settle()
        for name in BANKS:
            assert space.banks[name].jobs.store.get(job).state == "cancelled"
        assert await code_of(space.coordinator.start_job(job)) == "CANCELLED"
        assert await code_of(space.banks["bank-1"].jobs.accept(job)) == "CANCELLED"
        row = space.coordinator.runs.begin(job, BANKS)
        assert row.journal is None

    with_space(work, tmp_path)


def test_a_cancellation_of_somebody_else_is_refused(tmp_path):
    async def work(space):
        job = await space.propose(members=BANKS[:3])
        paper = Cancellation(SPACE, job, "bank-1", 1)
        forged = sign_paper(CANCELLATION, paper.encode(), space.signers["bank-4"])
        link = space.wire.link("bank-4")
        assert await code_of(link.request("job.cancel", forged, deadline=5)) == "NOT_PERMITTED"
        own = Cancellation(SPACE, job, "bank-4", 1).sign(space.signers["bank-4"])
        assert await code_of(link.request("job.cancel", own, deadline=5)) == "NOT_PERMITTED"
        assert space.coordinator.store.get(job).state == "proposed"

    with_space(work, tmp_path)


def test_a_bank_that_accepts_while_the_platform_is_away_is_heard_later(tmp_path):
    async def work(space):
        job = await space.propose()
        space.wire.down = True
        found = await space.banks["bank-2"].jobs.accept(job)
        assert found["delivered"] is False
        space.wire.down = False
        assert "bank-2" not in space.coordinator.store.papers(job, "acceptance")
        space.wire.back("bank-2")
        await space.settle()
        assert "bank-2" in space.coordinator.store.papers(job, "acceptance")

    with_space(work, tmp_path)
