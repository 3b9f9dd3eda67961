"""Who fills a node's disk and log, keeps others out, or writes into its owner's terminal."""

from __future__ import annotations

import asyncio
import json

import pytest

from federation.errors import ChaotianError
from gateway.audit.events import EventType
from gateway.cli.common import print_json
from gateway.jobs import member, store
from gateway.jobs.document import from_toml
from gateway.jobs.papers import Bundle, propose
from gateway.transport.enrolment import RateLimit
from parties.platform import coordinator
from tests.support.jobs_kit import SPACE, job_toml, with_space


def code(call, *arguments):
    with pytest.raises(ChaotianError) as caught:
        call(*arguments)
    return caught.value.code


def bundle(space, number):
    """A job that the platform proposes in its own name, as the platform hands it out."""
    text = job_toml().encode()
    document = from_toml(text, space=SPACE, proposer="platform", nonce=f"{number:032x}", created=1)
    return document.id, Bundle(propose(document, space.platform), {}, {}, b"", "proposed", "").encode()


@pytest.mark.parametrize("what", ["MAX_A_DAY", "MAX_BYTES_A_DAY"])
def test_a_platform_does_not_fill_a_node_with_proposals(tmp_path, monkeypatch, what):
    async def work(space):
        jobs = space.banks["bank-2"].jobs
        monkeypatch.setattr(store, what, 3 if what == "MAX_A_DAY" else 3 * 700)
        taken = []
        for number in range(8):
            _, data = bundle(space, number)
            try:
                await jobs.on_bundle(data)
                taken.append(data)
            except ChaotianError as error:
                assert error.code == "BACKPRESSURE"
        assert 3 <= len(taken) < 8
        leaves = [event["type"] for event in space.banks["bank-2"].log.events(limit=50)]
        assert len(jobs.store.all()) == leaves.count("job.proposed") == len(taken)
        for data in taken:  # what is known is still heard
            await jobs.on_bundle(data)
        for row in jobs.store.all():  # and a day later there is room again
            with space.banks["bank-2"].database.begin() as connection:
                jobs.store.set(connection, row.id, created=row.created - 90_000)
        await jobs.on_bundle(bundle(space, 99)[1])

    with_space(work, tmp_path)


def test_a_member_that_proposes_and_cancels_all_day_is_stopped_at_the_platform(tmp_path, monkeypatch):
    async def work(space):
        monkeypatch.setattr(coordinator, "MAX_A_DAY", 3)
        for _ in range(3):
            await space.banks["bank-1"].jobs.cancel(await space.propose())
        with pytest.raises(ChaotianError) as caught:
            await space.propose()
        assert caught.value.code == "BACKPRESSURE"
        await space.banks["bank-2"].jobs.propose(job_toml())  # control: others are not kept from it

    with_space(work, tmp_path)


def test_a_member_asks_for_its_papers_one_at_a_time(tmp_path):
    async def work(space):
        await space.propose()
        before, asked = space.coordinator.store.all, []

        def read_all():
            asked.append(1)
            return before()

        space.coordinator.store.all = read_all
        link = space.wire.link("bank-2")
        fetches = [link.request("job.fetch", b"", deadline=5.0) for _ in range(20)]
        answers = await asyncio.gather(*fetches, return_exceptions=True)
        assert len(asked) == 1 and {getattr(answer, "code", "") for answer in answers} == {"", "BACKPRESSURE"}
        assert await link.request("job.fetch", b"", deadline=5.0) == b""  # and afterwards again

    with_space(work, tmp_path)


def test_refusals_do_not_fill_the_log(tmp_path, monkeypatch):
    async def work(space):
        monkeypatch.setattr(member, "MAX_REFUSALS", 5)
        job = await space.propose()
        bank = space.banks["bank-2"]
        for each in space.banks.values():
            await each.jobs.accept(job)
        await space.settle()
        running = member.RunningJob(bank.jobs._home, job, lambda *_: None)
        for _ in range(9):
            with pytest.raises(ChaotianError):
                running._handle(job, "advertise_keys", b"nonsense")
        kinds = [event["type"] for event in bank.log.events(limit=100)]
        assert kinds.count(EventType.ROUND_REFUSED.value) == 5

    with_space(work, tmp_path)


def test_one_address_does_not_use_up_the_enrolments_of_all():
    now = [0.0]
    limit = RateLimit(each=3, all_=6, clock=lambda: now[0])
    for _ in range(3):
        limit.take("attacker")
    for _ in range(100):
        assert code(limit.take, "attacker") == "BACKPRESSURE"
    for _ in range(3):
        limit.take("newcomer")
    assert code(limit.take, "third") == "BACKPRESSURE"  # control: six in all


def test_json_on_a_terminal_steers_nothing(capsys):
    print_json({"name": "bank\x9b2J\x7f\u202e\u2028", "city": "北京", "line": "\x1b[2J"})
    shown = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in shown) and "北京" in shown
    assert json.loads(shown) == {"name": "bank\x9b2J\x7f\u202e\u2028", "city": "北京", "line": "\x1b[2J"}
