"""Stage messages, the member's app with its mods, and the strategy that knows a status alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import CATALOGUE, ChaotianError
from federation.primitives.encoding import pack
from federation.rounds import flower
from federation.rounds.client_app import guard_mod, make_client_app, run_client_app, timing_mod
from federation.rounds.strategy import NEEDS_SINGLE_UPDATES, Phase, PhaseStrategy, check_strategy
from federation.secure_sum.terms import STAGES

JOB = "ab" * 32
FED = flower.federation_number("space")
NODE = flower.node_number("bank-a")
CONTEXT = flower.job_context(JOB, NODE)


def ask(stage="advertise_keys", payload=b"request"):
    return flower.stage_message(JOB, FED, NODE, "1.1", flower.Part(JOB, stage, payload), 5.0)


def code_of(call):
    with pytest.raises(ChaotianError) as caught:
        call()
    return caught.value.code


def test_numbers_are_stable_positive_int64_and_fixed_by_the_name():
    assert flower.node_number("bank-a") == 3869671504579730233
    numbers = {flower.node_number(f"member-{i}") for i in range(1000)}
    assert len(numbers) == 1000 and all(1 < n < 1 << 63 for n in numbers)
    assert flower.node_number("x") != flower.federation_number("x") != flower.run_number("x")


@settings(max_examples=50, deadline=None)
@given(payload=st.binary(max_size=300), stage=st.sampled_from(STAGES))
def test_bytes_and_back(payload, stage):
    message = ask(stage, payload)
    data = flower.to_bytes(message)
    assert flower.read_part(flower.from_bytes(data)) == flower.Part(JOB, stage, payload)
    assert flower.to_bytes(flower.from_bytes(data)) == data


@pytest.mark.parametrize("size", [flower.SPLIT_BYTES, flower.SPLIT_BYTES + 1, 1 << 20])
def test_a_large_payload_stands_behind_its_message(size):
    message = ask(payload=bytes(range(256)) * (size // 256 + 1))
    data = flower.to_bytes(message)
    again = flower.from_bytes(data)
    assert flower.read_part(again) == flower.read_part(message) and again.metadata == message.metadata
    assert flower.to_bytes(again) == data
    for wrong in (data[:-1], data + b"x", pack(flower.SPLIT, [flower.to_bytes(ask()), bytes(1 << 17)]),
                  pack(flower.SPLIT, [flower.to_bytes(ask(payload=b"")), b"short"]), pack(flower.SPLIT, [b"", data]),
                  pack(flower.SPLIT, [data, data])):  # fmt: skip
        assert code_of(lambda wrong=wrong: flower.from_bytes(wrong)) == "MALFORMED"


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_code(data):
    try:
        flower.read_part(flower.from_bytes(data))
    except ChaotianError as error:
        assert error.code in ("MALFORMED", *CATALOGUE)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_read_as_something_well_formed_or_refused(at, bit):
    data = bytearray(flower.to_bytes(ask()))
    data[at % len(data)] ^= 1 << bit
    try:
        flower.read_part(flower.from_bytes(bytes(data)))
    except ChaotianError as error:
        assert error.code == "MALFORMED"


def test_a_message_with_arrays_or_metrics_is_refused():
    message = ask()
    message.content["more"] = flower.ArrayRecord([np.zeros(2)])
    assert code_of(lambda: flower.read_part(message)) == "MALFORMED"
    message = ask()
    message.content[flower.RECORD] = flower.MetricRecord({"job": 1, "payload": 2})
    assert code_of(lambda: flower.read_part(message)) == "MALFORMED"


def test_every_stage_reaches_the_handler_and_comes_back_to_the_question():
    seen = []

    def handler(job, stage, request):
        seen.append((job, stage, request))
        return b"reply to " + stage.encode()

    app = make_client_app(handler)
    for stage in STAGES:
        asked = ask(stage)
        reply = flower.from_bytes(flower.to_bytes(run_client_app(app, asked, CONTEXT)))
        assert flower.read_reply(asked, reply) == b"reply to " + stage.encode()
    assert seen == [(JOB, stage, b"request") for stage in STAGES]


def test_a_reply_to_another_question_is_refused():
    app = make_client_app(lambda job, stage, request: request)
    reply = run_client_app(app, ask(payload=b"one"), CONTEXT)
    assert code_of(lambda: flower.read_reply(ask(payload=b"two"), reply)) == "MALFORMED"
    assert code_of(lambda: flower.read_reply(ask("share_keys", b"one"), reply)) == "MALFORMED"


def test_a_refusal_travels_as_a_code_and_whom_it_blames_without_its_text():
    def handler(job, stage, request):
        raise ChaotianError("SHARE_INVALID", "secret text about row 17", member="bank-c")

    reply = run_client_app(make_client_app(handler), ask(), CONTEXT)
    data = flower.to_bytes(reply)
    assert b"secret" not in data and b"17" not in data
    with pytest.raises(ChaotianError) as caught:
        flower.read_reply(ask(), flower.from_bytes(data))
    assert (caught.value.code, caught.value.member) == ("SHARE_INVALID", "bank-c")


def test_an_unforeseen_failure_travels_as_internal_without_its_text():
    def handler(job, stage, request):
        raise RuntimeError("turnover of firm 4711")

    reply = run_client_app(make_client_app(handler), ask(), CONTEXT)
    assert b"4711" not in flower.to_bytes(reply)
    assert code_of(lambda: flower.read_reply(ask(), reply)) == "INTERNAL"


def test_the_guard_is_the_last_to_touch_the_reply():
    def leaking(message, context, call):
        reply = call(message, context)
        reply.content["leak"] = flower.ArrayRecord([np.arange(3.0)])
        return reply

    app = make_client_app(lambda *_: b"x", mods=[guard_mod(), leaking])
    reply = run_client_app(app, ask(), CONTEXT)
    assert code_of(lambda: flower.read_reply(ask(), reply)) == "MALFORMED"
    unguarded = make_client_app(lambda *_: b"x", mods=[leaking, guard_mod()])
    assert "leak" in run_client_app(unguarded, ask(), CONTEXT).content  # the order matters


def test_the_guard_bounds_both_directions():
    app = make_client_app(lambda *_: b"x" * 20, mods=[guard_mod(max_request=8, max_reply=10)])
    reply = run_client_app(app, ask(payload=b"123456789"), CONTEXT)
    assert code_of(lambda: flower.read_reply(ask(payload=b"123456789"), reply)) == "OVERSIZED"
    assert (
        code_of(lambda: flower.read_reply(ask(payload=b"1"), run_client_app(app, ask(payload=b"1"), CONTEXT)))
        == "OVERSIZED"
    )


def test_timing_reports_seconds_bytes_and_codes():
    ticks, report = iter([1.0, 3.5, 4.0, 4.25]), []
    mod = timing_mod(lambda: next(ticks), lambda *values: report.append(values))

    def handler(job, stage, request):
        if stage == "unmask":
            raise ChaotianError("ROUND_SPENT")
        return b"four"

    app = make_client_app(handler, mods=[guard_mod(), mod])
    run_client_app(app, ask(), CONTEXT)
    run_client_app(app, ask("unmask"), CONTEXT)
    assert report == [(JOB, "advertise_keys", 2.5, 7, 4, ""), (JOB, "unmask", 0.25, 7, 0, "ROUND_SPENT")]


class ScriptedGrid(flower.Grid):
    """Answers with the phases it was given; keeps what it was asked."""

    def __init__(self, phases, source=FED, copies=1):
        self.phases, self.source, self.copies, self.asked = list(phases), source, copies, []

    def set_run(self, run): ...

    @property
    def run(self):
        return flower.empty_run(JOB)

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError

    def get_node_ids(self):
        return [NODE, flower.node_number("bank-b")]

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        self.asked.append(list(messages))
        phase = self.phases.pop(0)
        return [flower.status_message(JOB, self.source, 7, phase.round, phase.record(), 1.0)] * self.copies


def strategy(saved, **more):
    options = {"federation": FED, "source": 7, "max_rounds": 5, "checkpoint": saved.append, "now": lambda: 1.0} | more
    return PhaseStrategy(JOB, **options)


def test_strategy_goes_on_until_the_members_are_done_and_saves_each_phase():
    phases = [Phase(1, "aa", "{}"), Phase(2, "bb", "{}"), Phase(3, "cc", "", True)]
    saved, grid = [], ScriptedGrid(phases)
    app = flower.ServerApp()

    @app.main()
    def main(grid, context):
        strategy(saved).start(grid=grid)

    app(grid, flower.job_context(JOB, 7))
    assert saved == phases
    assert [flower.read_status(asked[0])["state_hash"] for asked in grid.asked] == ["", "aa", "bb"]
    for asked in grid.asked:
        assert {m.metadata.dst_node_id for m in asked} == set(grid.get_node_ids())
        assert all(list(m.content) == [flower.STATUS] for m in asked)


def test_strategy_begins_at_its_checkpoint():
    saved, grid = [], ScriptedGrid([Phase(3, "cc", "", True)])
    strategy(saved, first=Phase(2, "bb", "{}")).start(grid=grid)
    assert flower.read_status(grid.asked[0][0])["state_hash"] == "bb" and saved[-1].round == 3


@pytest.mark.parametrize(
    ("grid", "code"),
    [
        (ScriptedGrid([Phase(i, "a", "{}") for i in range(1, 9)]), "NOT_CONVERGED"),
        (ScriptedGrid([Phase(0, code="TOO_FEW_MEMBERS")]), "TOO_FEW_MEMBERS"),
        (ScriptedGrid([Phase(2, "a", "{}")]), "MALFORMED"),
        (ScriptedGrid([Phase(1, "a", "{}")], source=NODE), "MALFORMED"),
        (ScriptedGrid([Phase(1, "a", "{}")], copies=2), "MALFORMED"),
    ],
)
def test_strategy_stops_with_a_code(grid, code):
    assert code_of(lambda: strategy([]).start(grid=grid)) == code


def test_strategy_takes_no_arrays():
    assert (
        code_of(lambda: strategy([]).start(grid=ScriptedGrid([]), initial_arrays=flower.ArrayRecord([np.ones(2)])))
        == "USAGE"
    )


@pytest.mark.parametrize("record", [{}, Phase().record() | {"more": 1}, Phase().record() | {"round": True},
                                    Phase().record() | {"code": "NO_SUCH_CODE"}])  # fmt: skip
def test_a_status_with_anything_else_is_refused(record):
    assert code_of(lambda: Phase.from_record(record)) == "MALFORMED"


def test_strategies_that_need_single_updates_are_refused_by_name():
    import flwr.serverapp.strategy as stock

    for name in NEEDS_SINGLE_UPDATES:
        assert hasattr(stock, name)
        with pytest.raises(ChaotianError) as caught:
            check_strategy(name)
        assert caught.value.code == "BAD_DOCUMENT" and name in caught.value.detail
    for name in ("PhaseStrategy", "FedAvg", "FedAdam"):
        assert check_strategy(name) == name
    assert code_of(lambda: check_strategy("Nothing")) == "BAD_DOCUMENT"
