"""Messages cut into parts and put together again; every way in which a part can be wrong."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from gateway.transport.frames import (
    ERROR,
    REPLY,
    REQUEST,
    Assembler,
    StreamError,
    error_from_bytes,
    error_from_wire,
    error_to_wire,
    part_frame,
)
from gateway.transport.ports import Limits
from gateway.transport.streams import decode, encode
from protos.chaotian.v1 import link_pb2 as pb

SMALL = Limits(frame=1000, message={"control": 5000, "queries": 5000, "bulk": 50_000}, buffered=100_000, requests=8)


def assembler(limits: Limits = SMALL) -> Assembler:
    return Assembler(limits, lambda *_: True)


def cut(payload: bytes, size: int = 1000, type_: int = REQUEST, **changes: Any) -> list[Any]:
    header = {
        "id": os.urandom(16),
        "type": type_,
        "kind": "test" if type_ == REQUEST else "",
        "request": b"" if type_ == REQUEST else os.urandom(16),
        "digest": hashlib.sha256(payload).digest(),
        "deadline": 5.0,
        **changes,
    }
    return [
        part_frame(payload=payload, offset=offset, size=min(size, len(payload) - offset), **header).part
        for offset in range(0, max(1, len(payload)), size)
    ]


@settings(max_examples=100, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=12_000), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    size=st.integers(1, 1000),
)
def test_mixed_messages_arrive_whole(payloads: list[bytes], seed: int, size: int) -> None:
    queues = [cut(payload, max(size, 50)) for payload in payloads]
    ids = {queue[0].id: payload for queue, payload in zip(queues, payloads, strict=True)}
    order, arrived, taker = random.Random(seed), {}, assembler()
    while any(queues):
        part = order.choice([queue for queue in queues if queue]).pop(0)
        message = taker.add("bulk", decode(encode(pb.Frame(part=part))).part)
        if message is not None:
            arrived[message.id] = message.payload
            taker.release(message)
    assert arrived == ids
    assert (taker.held, taker.buffered, taker.unfinished()) == (0, 0, {})


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_never_escapes_as_anything_but_a_coded_error(data: bytes) -> None:
    taker = assembler()
    try:
        frame = decode(data)
        message = taker.add("control", frame.part)
        assert message is None or message.payload == frame.part.body
    except ChaotianError as error:
        assert error.code in {"MALFORMED", "OVERSIZED"}
    error_code = error_from_bytes(data).code
    assert isinstance(error_code, str)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7), size=st.integers(1, 4000))
def test_a_changed_bit_never_changes_a_message_unseen(position: int, bit: int, size: int) -> None:
    """Whatever bit of an encoded part is turned: the body arrives as it was, or not at all."""
    payload = bytes(range(256)) * (size // 256 + 1)
    taker = assembler()
    parts = cut(payload[:size])
    arrived = []
    for index, part in enumerate(parts):
        data = bytearray(encode(pb.Frame(part=part)))
        if index == position % len(parts):
            data[position % len(data)] ^= 1 << bit
        try:
            message = taker.add("bulk", decode(bytes(data)).part)
        except ChaotianError:
            continue
        if message is not None:
            arrived.append(message.payload)
    assert arrived in ([], [payload[:size]])


def bad_headers() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("no type", {"type": 0}),
        ("unknown type", {"type": 9}),
        ("request without kind", {"kind": ""}),
        ("kind too long", {"kind": "k" * 81}),
        ("request that answers", {"request": b"r" * 16}),
        ("reply with kind", {"type": REPLY, "kind": "k", "request": b"r" * 16}),
        ("reply to nothing", {"type": REPLY, "kind": ""}),
        ("error to half an id", {"type": ERROR, "kind": "", "request": b"r" * 15}),
        ("short digest", {"digest": b"d" * 31}),
        ("another digest", {"digest": b"d" * 32}),
    ]


@pytest.mark.parametrize(("name", "changes"), bad_headers())
def test_bad_headers(name: str, changes: dict[str, Any]) -> None:
    taker = assembler()
    with pytest.raises(ChaotianError) as raised:
        taker.add("control", cut(b"x", **changes)[0])
    assert raised.value.code == "MALFORMED" and not isinstance(raised.value, StreamError), name
    assert taker.held == taker.buffered == 0


def test_an_id_of_another_length_ends_the_stream() -> None:
    with pytest.raises(StreamError):
        assembler().add("control", cut(b"x", id=b"i" * 15)[0])


def test_a_frame_over_the_limit_ends_the_stream() -> None:
    with pytest.raises(StreamError):
        assembler().add("bulk", cut(b"x" * 1001, 1001)[0])


def code_of(taker: Assembler, parts: list[Any]) -> str:
    with pytest.raises(ChaotianError) as raised:
        for part in parts:
            assert taker.add("bulk", part) is None
    assert not isinstance(raised.value, StreamError)
    assert taker.held == taker.buffered == 0, "what was refused must free its memory"
    return raised.value.code


def test_duplicate_reordered_and_truncated_parts() -> None:
    first, second, third = cut(b"x" * 2500)
    assert code_of(assembler(), [first, first]) == "REPLAY"
    assert code_of(assembler(), [first, third]) == "MALFORMED"
    assert code_of(assembler(), [second]) == "MALFORMED"
    short = cut(b"x" * 2500)
    short[1].body = b""
    assert code_of(assembler(), short) == "MALFORMED"
    long = cut(b"x" * 2500)
    long[2].body += b"y"
    assert code_of(assembler(), long) == "MALFORMED"
    header = cut(b"x" * 2500)
    header[1].total = 2600
    assert code_of(assembler(), header) == "MALFORMED"
    kind = cut(b"x" * 2500)
    kind[2].kind = "other"
    assert code_of(assembler(), kind) == "MALFORMED"
    body = cut(b"x" * 2500)
    body[1].body = b"y" * 1000
    assert code_of(assembler(), body) == "MALFORMED"


def test_a_refused_message_is_refused_once_and_others_go_on() -> None:
    taker = assembler()
    bad, good = cut(b"x" * 3000), cut(b"y" * 3000)
    bad[1].offset = 2000
    results = []
    for index in range(3):
        for part in (bad[index], good[index]):
            try:
                message = taker.add("bulk", part)
                results.append(message.payload if message else None)
            except ChaotianError as error:
                results.append(error.code)
    assert results == [None, None, "MALFORMED", None, None, b"y" * 3000]


def test_oversized_and_backpressure() -> None:
    taker = assembler()
    with pytest.raises(ChaotianError) as raised:
        taker.add("control", cut(b"x" * 5001)[0])
    assert raised.value.code == "OVERSIZED"
    for _ in range(2):
        assert taker.add("bulk", cut(b"x" * 50_000)[0]) is None
    with pytest.raises(ChaotianError) as raised:
        taker.add("bulk", cut(b"x" * 2000)[0])
    assert raised.value.code == "BACKPRESSURE"
    for identifier in list(taker.unfinished()):
        taker.drop(identifier)
    for _ in range(8):
        assert taker.add("control", cut(b"x")[0])
    with pytest.raises(ChaotianError) as raised:
        taker.add("control", cut(b"x")[0])
    assert raised.value.code == "BACKPRESSURE"


def test_a_part_on_another_stream_is_refused() -> None:
    taker = assembler()
    first, second, *_ = cut(b"x" * 3000)
    taker.add("bulk", first)
    with pytest.raises(ChaotianError) as raised:
        taker.add("queries", second)
    assert raised.value.code == "MALFORMED"


def test_errors_cross_the_wire_as_they_are() -> None:
    error = ChaotianError("NOT_APPROVED", "detail 细节", hint="hint", member="bank-a")
    back = error_from_bytes(error_to_wire(error).SerializeToString())
    assert (back.code, back.detail, back.hint, back.member) == (error.code, error.detail, error.hint, error.member)


def test_an_error_cannot_write_to_the_terminal() -> None:
    back = error_from_wire(pb.Error(code="NO_SUCH", detail="a\x1b[2Jb\r\n", hint="c" * 5000, member="m" * 500))
    assert back.code == "INTERNAL" and "\x1b" not in back.detail and "\n" not in back.detail
    assert len(back.hint) <= 2000 and len(back.member) <= 80
