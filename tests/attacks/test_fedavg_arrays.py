"""A platform that chooses what members train on, so that a sum shows one member; and what keeps it from that.

The trap is that of Boenisch et al. (2023) in its smallest form: a rectifier whose bias lets through only rows that one
member has, so that every other update is zero and the sum is that member's own. With different arrays for
different members (Pasquini et al. 2022) it works whatever the rows are.
"""

from __future__ import annotations

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.learning.fedavg import FedAvg
from federation.learning.fedavg_arrays import arrays_digest, encode_arrays, initial_arrays, mean_of
from federation.primitives.encoding import pack, unpack
from federation.primitives.fixed_point import decode_arrays
from gateway.audit.events import EventType
from gateway.jobs import arrays as wire
from gateway.jobs.stage import seal_stage
from tests.integration.test_jobs_fedavg import PARAMS, THREE, to_both
from tests.support.jobs_kit import SPACE, with_space
from tests.support.means import NAMES, NOISE, federation, spec

LAYERS = [
    {"name": "w", "shape": [1, 1], "clip": 10.0},
    {"name": "b", "shape": [1], "clip": 10.0, "init": "zeros"},
]
ROWS = {"a": np.linspace(0.0, 1.0, 60), "b": np.linspace(0.0, 1.5, 80), "c": np.append(np.linspace(0.0, 1.2, 50), 9.7)}
TRAP = {"w": np.full((1, 1), 1.0, np.float32), "b": np.full(1, -9.0, np.float32)}  # only the row at 9.7 passes


def rectifier(rows: np.ndarray):
    """One step of gradient descent of mean(relu(w x + b)) over a member's rows."""

    def train(round_, arrays):
        w, b = float(arrays["w"][0, 0]), float(arrays["b"][0])
        passes = (w * rows + b > 0).astype(float)
        step = {"w": [[-float((passes * rows).mean())]], "b": [-float(passes.mean())]}
        return {name: array + np.asarray(step[name], array.dtype) for name, array in arrays.items()}, len(rows)

    return train


def members(result_to: str = "both", **changes):
    job = spec(layers=LAYERS, **changes)
    return job, federation(job, {name: rectifier(rows) for name, rows in ROWS.items()}, result_to)


def refused(call) -> str:
    with pytest.raises(ChaotianError) as raised:
        call()
    return raised.value.code


def spring(job, local) -> float:
    """Put the trap to every member and run a round; return the value of the victim's row as the platform reads it."""
    for name in NAMES:
        local.programs[name].offered(1, encode_arrays(TRAP))
        local.members[name].moved()
    outcome = local.run_round(local.plan(1, NAMES))
    assert not outcome.error
    totals = decode_arrays(job.layout(3), outcome.total)
    mean, _ = mean_of(job, job.units(3), TRAP, totals)
    return float((mean["w"] - TRAP["w"])[0, 0] / (mean["b"] - TRAP["b"])[0])


def test_chosen_arrays_would_show_one_row_of_one_member(monkeypatch):
    """The control: without the check the platform reads the row, 9.7, from the total."""
    monkeypatch.setattr(FedAvg, "offered", lambda self, round_, data: self._set(dict(TRAP)))
    assert spring(*members()) == pytest.approx(9.7, abs=0.01)


def test_chosen_arrays_are_refused_before_anything_is_trained():
    job, local = members()
    trained = []
    for name in NAMES:
        program = local.programs[name]
        program._train = lambda *_, name=name: trained.append(name)
        assert refused(lambda program=program: program.needs(1, arrays_digest(TRAP))) == "WRONG_ARRAYS"
        assert refused(lambda program=program: program.offered(1, encode_arrays(TRAP))) == "WRONG_ARRAYS"
        assert refused(lambda program=program: program.stated(1, bytes(12))) == "WRONG_ARRAYS"
        assert arrays_digest(program.arrays) == arrays_digest(initial_arrays(job))
    assert not trained


def test_with_noise_chosen_arrays_show_nothing_of_the_row():
    """They are allowed: what they can show is bounded for any arrays, and here drowns."""
    read = []
    for attempt in range(5):
        job, local = members("platform", noise={"multiplier": 2.0, "honest": 2}, seed=str(attempt))
        for name in NAMES:
            local.programs[name]._entropy = type(local.programs[name]._entropy)(f"{name} {attempt}")
        read.append(spring(job, local))
    assert sum(abs(value - 9.7) < 0.5 for value in read) <= 1


@pytest.mark.parametrize("noise", [NOISE, None])
def test_different_arrays_for_different_members_end_the_round(noise):
    """Even where arrays may be the platform's: their hash stands in the state, which must be equal."""
    _, local = members("platform" if noise else "both", **({"noise": noise} if noise else {}))
    if noise:
        local.programs["a"].offered(1, encode_arrays(TRAP))
    else:
        local.programs["a"]._set(dict(TRAP))  # a member that was made to take them by whatever means
    local.members["a"].moved()
    outcome = local.run_round(local.plan(1, NAMES))
    assert outcome.error == "STATE_MISMATCH" and outcome.total is None


def test_a_false_total_is_refused_where_members_add_up_and_believed_where_they_do_not():
    for unverified in (False, True):
        _, local = members(unverified=unverified)
        current = local.coordinator(local.plan(1, NAMES))
        queue, codes = current.begin(), []
        while queue and current.outcome is None:
            send = queue.pop(0)
            if send.stage == "result" and current._attempt.total is not None:
                request = bytearray(send.request)
                at = request.find(current._attempt.total.tobytes())
                request[at] ^= 1  # one unit of one value
                send = type(send)(send.member, send.attempt, send.stage, bytes(request))
            try:
                reply = local.members[send.member].handle(send.stage, send.request)
            except ChaotianError as error:
                codes.append(error.code)
                queue += current.refused(send.member, send.attempt, send.stage, error)
                continue
            queue += current.reply(send.member, send.attempt, send.stage, reply)
        assert ("TRANSCRIPT" in codes) is not unverified
        assert bool(current.outcome.error) is not unverified


def test_noise_that_was_not_agreed_on_is_refused():
    _, local = members("platform", noise=NOISE)
    plan = local.plan(1, NAMES)
    for wrong in (None, type(plan.noise)(plan.noise.variance * 4, plan.noise.honest)):
        other = type(plan)(**{**{f: getattr(plan, f) for f in plan.__dataclass_fields__}, "noise": wrong})
        current = local.coordinator(other)
        send = current.begin()[0]
        assert refused(lambda send=send: local.members[send.member].handle(send.stage, send.request)) == "WRONG_TERMS"


def test_a_node_refuses_chosen_arrays_and_writes_it_into_its_log(tmp_path):
    """Over envelopes that the platform signed as it should: the members end the job, each with a leaf."""

    async def work(space):
        to_both(space)
        job = await space.accepted(members=THREE, **PARAMS)
        document = space.coordinator.store.get(job).document
        trap = {name: array + 1 for name, array in initial_arrays(document.plan.spec).items()}

        async def tamper(member, kind, payload):
            if kind != wire.KIND:
                return payload
            body = wire.encode(1, wire.OFFER, arrays_digest(trap))
            return seal_stage(wire.TAG, SPACE, job, "platform", member, body, space.platform)

        space.wire.tamper = tamper
        await space.coordinator.start_job(job)
        await space.ended(job)
        row = space.coordinator.store.get(job)
        assert (row.state, row.code) == ("failed", "WRONG_ARRAYS")
        assert not [kind for _, kind, _, _ in space.wire.sent if kind == "job.stage"]  # not one stage was asked
        for name in THREE:
            space.wire.tamper = None
            bank = space.banks[name]
            for form, data in (("arrays", encode_arrays(trap)), ("total", bytes(8))):
                body = wire.encode(1, form, data)
                payload = seal_stage(wire.TAG, SPACE, job, "platform", name, body, space.platform)
                with pytest.raises(ChaotianError):
                    await bank.jobs.on_arrays(payload)
            refusals = [event for event in bank.log.events(limit=100) if event["type"] == EventType.ROUND_REFUSED.value]
            assert refusals and refusals[0]["payload"]["code"] == "WRONG_ARRAYS"

    with_space(work, tmp_path, names=THREE)


def test_arrays_in_a_forged_or_moved_envelope_are_not_looked_at(tmp_path):
    async def work(space):
        to_both(space)
        job, other = await space.accepted(members=THREE, **PARAMS), await space.accepted(members=THREE, **PARAMS)
        bank = space.banks["bank-2"]
        body = wire.encode(1, wire.OFFER, bytes(32))
        for payload in (
            seal_stage(wire.TAG, SPACE, job, "platform", "bank-2", body, space.signers["bank-1"]),
            seal_stage(wire.TAG, SPACE, job, "platform", "bank-3", body, space.platform),
            seal_stage("chaotian/job/stage-request/v1", SPACE, job, "platform", "bank-2", body, space.platform),
        ):
            with pytest.raises(ChaotianError) as raised:
                await bank.jobs.on_arrays(payload)
            assert raised.value.code in ("SIGNATURE", "MALFORMED")
        moved = seal_stage(wire.TAG, SPACE, job, "platform", "bank-2", body, space.platform)
        fields = unpack(wire.TAG, moved, 3)

        with pytest.raises(ChaotianError) as raised:
            await bank.jobs.on_arrays(pack(wire.TAG, [other.encode(), *fields[1:]]))
        assert raised.value.code == "SIGNATURE"

    with_space(work, tmp_path, names=THREE)


def test_an_app_that_is_another_than_agreed_is_not_run(tmp_path):
    async def work(space):
        to_both(space)
        job = await space.propose(members=THREE, **PARAMS | {"digest": "1" * 64})
        with pytest.raises(ChaotianError) as raised:
            await space.banks["bank-1"].jobs.accept(job)
        assert raised.value.code == "APP_UNKNOWN"

    with_space(work, tmp_path, names=THREE)


def test_grants_that_keep_totals_from_the_platform_keep_the_job_from_running(tmp_path):
    """The default of a grant is `members`; one bank's suffices."""

    async def work(space):
        for name in ("bank-2",):
            space.grant(name, op={"result_to": "both"})
        job = await space.propose(members=THREE, **PARAMS)
        await space.banks["bank-2"].jobs.accept(job)
        with pytest.raises(ChaotianError) as raised:
            await space.banks["bank-3"].jobs.accept(job)
        assert raised.value.code == "GRANT_DENIED" and "result_to" in raised.value.detail
        with pytest.raises(ChaotianError):
            await space.coordinator.start_job(job)

    with_space(work, tmp_path, names=THREE)
