"""The one module that touches Flower's private API (flwr 1.41): messages made, written as bytes, and read again.

Public Flower names that the rest of the project uses are passed on from here too, because the two environment
variables below have to be set before `flwr` is imported for the first time. `tests/unit/test_rounds_surface.py`
fails when a name or a signature used here changes.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore.logger import FLOWER_LOGGER
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from federation.errors import CATALOGUE, ChaotianError
from federation.primitives.encoding import pack, unpack_views
from federation.secure_sum.terms import STAGES

__all__ = [
    "Array",
    "ArrayRecord",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Error",
    "Grid",
    "Message",
    "Metadata",
    "MetricRecord",
    "Part",
    "RecordDict",
    "Result",
    "Run",
    "ServerApp",
    "Strategy",
    "app_context",
    "app_message",
    "empty_run",
    "federation_number",
    "from_bytes",
    "job_context",
    "mean_message",
    "node_number",
    "read_arrays",
    "read_mean",
    "read_part",
    "read_reply",
    "read_status",
    "refusal_message",
    "reply_message",
    "round_message",
    "run_number",
    "stage_message",
    "status_message",
    "strategy_class",
    "to_arrays",
    "to_bytes",
    "to_record",
]

RECORD = "stage"  # the one record of a stage message
STATUS = "status"  # the one record of a status message
ROUND_TYPE = "train.round"
SPLIT, SPLIT_BYTES = "chaotian/flower/split/v1", 64 << 10
REFUSED = 1000  # Flower error codes of ours start above Flower's own (0 to 999)
TTL_SECONDS = 3600.0
MAX_NAME = 128


@functools.lru_cache(maxsize=4096)
def _number(domain: str, name: str) -> int:
    """Return a stable positive 63-bit number for `name` (Flower ids are int64; 0 and 1 are Flower's own)."""
    value = int.from_bytes(hashlib.sha256(f"chaotian/{domain}/v1\x00{name}".encode()).digest()[:8], "big") >> 1
    return value if value > 1 else value + 2


def node_number(member: str) -> int:
    """Return the Flower node id of a member: from SHA-256 of its name, the same in every process."""
    return _number("node", member)


def federation_number(space: str) -> int:
    """Return the Flower node id under which the grid hands on what the federation answered as a whole."""
    return _number("federation", space)


def run_number(job: str) -> int:
    """Return the Flower run id of a job."""
    return _number("run", job)


@dataclass(frozen=True)
class Part:
    """What a stage message carries: names for people and programs, and the opaque bytes of the secure sum."""

    job: str
    stage: str
    payload: bytes


def _metadata(
    job: str, source: int, target: int, kind: str, group: str, at: float, message_id: str, reply_to: str = ""
) -> Metadata:
    # `Message(...)` without metadata would take run and node from a process-wide TaskIdentity: wrong as soon as two
    # jobs run in one process, so everything is set explicitly.
    return Metadata(
        run_id=run_number(job),
        message_id=message_id,
        src_node_id=source,
        dst_node_id=target,
        reply_to_message_id=reply_to,
        group_id=group,
        created_at=at,
        ttl=TTL_SECONDS,
        message_type=kind,
    )


def stage_message(job: str, source: int, target: int, group: str, part: Part, at: float) -> Message:
    """Return the message `train.<stage>` that carries one stage's request to one member.

    Args:
        job: the job's id.
        source: Flower node id of the federation.
        target: Flower node id of the member.
        group: round and attempt, for people.
        part: what is carried.
        at: seconds since the epoch.
    """
    if part.stage not in STAGES:
        raise ChaotianError("MALFORMED", "a stage message names one of the six stages")
    # Round, attempt and stage tell it from every other message of the job: megabytes need not be hashed once more.
    small = part.payload if len(part.payload) <= SPLIT_BYTES else b""
    identity = hashlib.sha256("\x00".join((job, str(target), group, part.stage)).encode() + small).hexdigest()
    content = RecordDict({RECORD: ConfigRecord({"job": part.job, "payload": part.payload})})
    metadata = _metadata(job, source, target, f"train.{part.stage}", group, at, identity)
    return Message(content=content, metadata=metadata)


def _answer_metadata(message: Message) -> Metadata:
    # The time is that of the question: a repeated question gets the same answer byte for byte.
    asked = message.metadata
    return Metadata(
        run_id=asked.run_id,
        message_id=hashlib.sha256(b"reply\x00" + asked.message_id.encode()).hexdigest(),
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=asked.created_at,
        ttl=asked.ttl,
        message_type=asked.message_type,
    )


def reply_message(message: Message, job: str, payload: bytes) -> Message:
    """Return the reply to `message` that carries `payload`."""
    content = RecordDict({RECORD: ConfigRecord({"job": job, "payload": payload})})
    return Message(content=content, metadata=_answer_metadata(message))


def refusal_message(message: Message, error: ChaotianError) -> Message:
    """Return the reply that carries a code and the member it blames: never the text of an error."""
    reason = f"{error.code}\n{error.member}"
    return Message(error=Error(REFUSED, reason), metadata=_answer_metadata(message))


def read_part(message: Message) -> Part:
    """Return what a stage message or its reply carries.

    Raises:
        ChaotianError: MALFORMED, or for a refusal its code with `member` set to the member it blames.
    """
    if message.has_error():
        code, _, member = (message.error.reason or "").partition("\n")
        if message.error.code != REFUSED or code not in CATALOGUE or len(member) > MAX_NAME:
            raise ChaotianError("MALFORMED", "a refusal has a code that is not in the catalogue")
        raise ChaotianError(code, member=member)
    category, _, stage = message.metadata.message_type.partition(".")
    content = message.content
    if category != "train" or stage not in STAGES or list(content) != [RECORD]:
        raise ChaotianError("MALFORMED", "expected a stage message with one record")
    record = content[RECORD]
    if not isinstance(record, ConfigRecord) or set(record) != {"job", "payload"}:
        raise ChaotianError("MALFORMED", "a stage message has a record with the fields job and payload")
    job, payload = record["job"], record["payload"]
    if not isinstance(job, str) or not isinstance(payload, bytes) or len(job) > MAX_NAME:
        raise ChaotianError("MALFORMED", "a stage message names a job and carries bytes")
    if message.metadata.run_id != run_number(job):
        raise ChaotianError("MALFORMED", "a stage message's run is not that of its job")
    return Part(job, stage, payload)


def read_reply(asked: Message, reply: Message) -> bytes:
    """Return the payload of `reply` if it answers `asked`: same run, stage and message, from the member asked.

    Raises:
        ChaotianError: MALFORMED, or the refusal's code.
    """
    want, have = asked.metadata, reply.metadata
    same = (
        have.src_node_id == want.dst_node_id
        and have.dst_node_id == want.src_node_id
        and have.run_id == want.run_id
        and have.message_type == want.message_type
        and have.reply_to_message_id == want.message_id
        and have.group_id == want.group_id
    )
    if not same:
        raise ChaotianError("MALFORMED", "a reply does not answer the message that was sent")
    return read_part(reply).payload


def round_message(
    job: str, source: int, target: int, round_: int, status: dict[str, str | int | bool], at: float
) -> Message:
    """Return the message by which a strategy asks the grid for one round; it holds the last status and no arrays."""
    content = RecordDict({STATUS: ConfigRecord(dict(status))})
    metadata = _metadata(job, source, target, ROUND_TYPE, str(round_), at, f"{job}/{round_}/{target}")
    return Message(content=content, metadata=metadata)


def status_message(
    job: str, federation: int, target: int, round_: int, status: dict[str, str | int | bool], at: float
) -> Message:
    """Return the one message a round answers with: from the federation's id, with a status and no member's content."""
    content = RecordDict({STATUS: ConfigRecord(dict(status))})
    metadata = _metadata(job, federation, target, ROUND_TYPE, str(round_), at, f"{job}/{round_}/status")
    return Message(content=content, metadata=metadata)


def read_status(message: Message) -> dict[str, str | int | bool]:
    """Return the status that `round_message` and `status_message` carry; anything else is MALFORMED."""
    if message.has_error() or list(message.content) != [STATUS]:
        raise ChaotianError("MALFORMED", "expected a status message with one record")
    record = message.content[STATUS]
    if not isinstance(record, ConfigRecord):
        raise ChaotianError("MALFORMED", "a status holds no arrays and no metrics")
    return {str(name): value for name, value in record.items()}


# --- arrays and apps (`fedavg`) ---------------------------------------------------------------------------------------

TRAIN, EVALUATE = "train", "evaluate"
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"  # the stock strategies' names of records
EXAMPLES = "num-examples"


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return arrays as Flower's record."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def to_arrays(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the arrays of a record.

    Raises:
        ChaotianError: MALFORMED where one is no NumPy array.
    """
    try:
        return {str(name): array.numpy() for name, array in record.items()}
    except Exception:  # what NumPy raises on bytes that are no array
        raise ChaotianError("MALFORMED", "an array record holds something else than NumPy arrays") from None


def app_message(
    job: str, node: int, kind: str, round_: int, arrays: Mapping[str, NDArray[Any]], config: Any
) -> Message:
    """Return the message by which a member asks its own installed app to train or to evaluate.

    Args:
        kind: `TRAIN` or `EVALUATE`.
        config: what the job's document says; `server-round` is added, as stock strategies do.
    """
    content = RecordDict({ARRAYS: to_record(arrays), CONFIG: ConfigRecord({**config, "server-round": round_})})
    metadata = _metadata(job, node, node, kind, str(round_), 0.0, f"{job}/{kind}/{round_}")
    return Message(content=content, metadata=metadata)


def app_context(job: str, node: int, config: Any, state: RecordDict) -> Context:
    """Return the context in which an installed app runs: the job's config, and this member's rows in `state`."""
    return Context(run_id=run_number(job), node_id=node, node_config={}, state=state, run_config=dict(config))


def read_arrays(message: Message) -> ArrayRecord:
    """Return the one array record of a message of a strategy; MALFORMED for any other."""
    found = list(message.content.array_records.values()) if message.has_content() else []
    if len(found) != 1:
        raise ChaotianError("MALFORMED", "expected a message with one array record")
    return found[0]


def mean_message(
    job: str, federation: int, target: int, round_: int, arrays: Mapping[str, NDArray[Any]], weight: int, at: float
) -> Message:
    """Return the one message a round of `fedavg` answers with: the mean, and `num-examples` = the summed weight."""
    content = RecordDict({ARRAYS: to_record(arrays), METRICS: MetricRecord({EXAMPLES: weight})})
    metadata = _metadata(job, federation, target, TRAIN, str(round_), at, f"{job}/{round_}/mean")
    return Message(content=content, metadata=metadata)


def read_mean(content: RecordDict) -> tuple[dict[str, NDArray[Any]], int]:
    """Return arrays and `num-examples` of what an app or a round answered.

    Raises:
        ChaotianError: MALFORMED where there is not one array record and one metric record with a whole number.
    """
    arrays, metrics = list(content.array_records.values()), list(content.metric_records.values())
    if len(arrays) != 1 or len(metrics) != 1 or type(metrics[0].get(EXAMPLES)) not in (int, float):
        raise ChaotianError("MALFORMED", f"expected one array record, and one metric record with {EXAMPLES}")
    examples = metrics[0][EXAMPLES]
    if not isinstance(examples, int | float) or examples != int(examples):
        raise ChaotianError("MALFORMED", f"{EXAMPLES} is a whole number")
    return to_arrays(arrays[0]), int(examples)


def strategy_class(name: str) -> type[Strategy]:
    """Return Flower's strategy of that name; the caller has checked the name against its own list."""
    found: type[Strategy] = getattr(strategies, name)
    return found


def be_a_task() -> None:
    """Let stock strategies make messages in this process: `Message(...)` asks for a process-wide identity.

    The numbers are never looked at: envelopes carry the real job and nodes.
    """
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0


be_a_task()
FLOWER_LOGGER.setLevel("ERROR")  # progress is the coordinator's to show


def to_bytes(message: Message) -> bytes:
    """Return the wire form of a message. It is signed as bytes, in an envelope; it is never encoded again.

    A stage's payload of many bytes goes behind the message that it belongs to: Flower's codec would copy it five times.
    """
    payload = _large_payload(message)
    if payload:
        rest = ConfigRecord({**message.content[RECORD], "payload": b""})
        message = Message(content=RecordDict({RECORD: rest}), metadata=message.metadata)
    data: bytes = message_to_proto(message).SerializeToString(deterministic=True)
    return pack(SPLIT, [data, payload]) if payload else data


def _large_payload(message: Message) -> bytes:
    """Return the payload of a stage message where it is worth being sent apart, else nothing."""
    if not message.has_content() or list(message.content) != [RECORD]:
        return b""
    record = message.content[RECORD]
    payload = record.get("payload") if isinstance(record, ConfigRecord) else None
    return payload if isinstance(payload, bytes) and len(payload) > SPLIT_BYTES else b""


def from_bytes(data: bytes) -> Message:
    """Return the message of `to_bytes`; anything else is MALFORMED."""
    if data[:1] == b"\0":  # no protobuf message begins so
        rest, payload = unpack_views(SPLIT, data, 2)
        if bytes(rest[:1]) == b"\0":
            raise ChaotianError("MALFORMED", "a message stands within a message")
        message = from_bytes(bytes(rest))
        if len(payload) <= SPLIT_BYTES or not message.has_content() or list(message.content) != [RECORD]:
            raise ChaotianError("MALFORMED", "a payload stands behind a message that has none")
        record = message.content[RECORD]
        if not isinstance(record, ConfigRecord) or record.get("payload") != b"":
            raise ChaotianError("MALFORMED", "a payload stands behind a message that has none")
        record["payload"] = bytes(payload)
        return message
    try:
        message = message_from_proto(ProtoMessage.FromString(data))
        if message.has_content() == message.has_error():
            raise ValueError
    except Exception:  # the decoder raises what protobuf, NumPy and Flower raise: none of it may get through
        raise ChaotianError("MALFORMED", "expected a Flower message") from None
    return message


def job_context(job: str, node: int) -> Context:
    """Return the context of a job's app: no configuration of its own, everything comes from the accepted job."""
    return Context(run_id=run_number(job), node_id=node, node_config={}, state=RecordDict(), run_config={"job": job})


def empty_run(job: str) -> Run:
    """Return Flower's run object for a job."""
    return Run.create_empty(run_number(job))
