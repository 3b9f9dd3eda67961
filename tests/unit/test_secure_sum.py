"""The secure sum over its state machines: totals, losses, limits."""

import numpy as np
import pytest

from federation.errors import ChaotianError
from federation.secure_sum.local import LocalFederation, run_in_process
from federation.secure_sum.terms import STAGES, Claims
from tests.support.entropy import SeededEntropy
from tests.support.programs import Adder

NAMES = ("a", "b", "c", "d")


def programs(rounds=2, **options):
    return {name: Adder([i + 1, -2.5 * i, 1e3], rounds, **options) for i, name in enumerate(NAMES)}


def expected(names, scale=16):
    rows = np.array([[NAMES.index(n) + 1, -2.5 * NAMES.index(n), 1e3] for n in names])
    return [int(v) for v in (rows.sum(axis=0) * 2**scale)]


@pytest.mark.parametrize("options", [{}, {"bound": 10**30}, {"ring": 32, "scale": 4}, {"ring": 32, "scale": 16}])
def test_every_member_gets_the_exact_total(options):
    ours = programs(**options)
    _, outcomes = run_in_process(ours, entropy=SeededEntropy(1))
    assert [o.attempts for o in outcomes] == [1, 1] and outcomes[-1].progress == "done"
    for program in ours.values():
        assert program.totals == [expected(NAMES, options.get("scale", 16))] * 2


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("round_", [1, 2])
def test_one_of_four_may_be_lost_at_any_step(stage, round_):
    ours = programs(rounds=3)
    _, outcomes = run_in_process(
        ours, entropy=SeededEntropy(2), lose=lambda r, send: r == round_ and send.stage == stage and send.member == "c"
    )
    rest = ("a", "b", "d")
    late = stage in ("unmask", "result")
    assert outcomes[round_ - 1].attempts == (1 if late else 2)
    assert outcomes[round_ - 1].losses[0].stage == stage and outcomes[-1].survivors == rest
    totals = [expected(NAMES)] * (round_ - (0 if late else 1))
    totals += [expected(rest)] * (3 - len(totals))
    for name in rest:
        assert ours[name].totals == totals


@pytest.mark.parametrize("second", STAGES)
def test_a_second_loss_ends_the_job_with_its_own_code(second):
    lost = []

    def lose(round_, send):
        if round_ == 2 and send.stage == "masked_input" and send.member == "c" and not lost:
            lost.append("c")
            return True
        return round_ == 3 and send.stage == second and send.member == "a"

    with pytest.raises(ChaotianError) as error:
        run_in_process(programs(rounds=4), entropy=SeededEntropy(3), lose=lose)
    assert error.value.code == "TOO_FEW_MEMBERS"


def test_floors_are_asked_after_a_loss_only():
    ours = programs(rounds=3, floor=False)
    run_in_process(ours, entropy=SeededEntropy(4))
    with pytest.raises(ChaotianError) as error:
        run_in_process(
            programs(rounds=3, floor=False),
            entropy=SeededEntropy(5),
            lose=lambda r, send: r == 2 and send.stage == "consistency" and send.member == "b",
        )
    assert error.value.code == "FLOOR_LOST"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**21, -(2.0**21)])
def test_bad_values_are_refused_and_never_wrapped(value):
    ours = programs()
    ours["b"].values[1] = value
    federation = LocalFederation(ours, SeededEntropy(6))
    outcome = federation.run_round(federation.plan(1, NAMES))
    assert outcome.losses[0].code in ("NOT_FINITE", "OVERFLOW") and outcome.survivors == ("a", "c", "d")


def test_a_repeated_request_gets_the_identical_reply():
    federation = LocalFederation(programs(), SeededEntropy(7))
    round_ = federation.coordinator(federation.plan(1, NAMES))
    queue = round_.begin()
    while queue:
        send = queue.pop(0)
        member = federation.members[send.member]
        first = member.handle(send.stage, send.request)
        assert member.handle(send.stage, send.request) == first
        queue += round_.reply(send.member, send.attempt, send.stage, first)
        assert round_.reply(send.member, send.attempt, send.stage, first) == []
    assert round_.outcome.progress == "continue"


def test_the_coordinator_goes_on_at_unmask_after_its_own_crash():
    ours = programs(rounds=1)
    federation = LocalFederation(ours, SeededEntropy(8))
    plan = federation.plan(1, NAMES)
    round_ = federation.coordinator(plan)
    queue = round_.begin()
    while queue[0].stage != "unmask":
        queue += federation.deliver(round_, queue.pop(0))
    federation.members["a"].handle("unmask", queue[0].request)  # one reply is under way as the platform dies
    again = federation.coordinator(plan)
    queue = again.resume(federation.journal.record)
    while queue:
        queue += federation.deliver(again, queue.pop(0))
    assert again.outcome.progress == "done" and federation.journal.record is None
    assert all(program.totals == [expected(NAMES)] for program in ours.values())


def test_claims_follow_the_threshold():
    claims = {n: (c.threshold, c.curious_colluding, c.active_colluding, c.lost_at_unmask)
              for n in (3, 4, 5) for c in [Claims.of(n)]}  # fmt: skip
    assert claims == {3: (3, 1, 1, 0), 4: (3, 1, 1, 1), 5: (4, 2, 2, 1)}
