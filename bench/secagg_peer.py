"""Flower's SecAgg+ (flwr 1.41), driven in one process: its own client mod against its own server workflow.

Nothing of it is rewritten here: `secaggplus_mod` answers every message, `SecAggPlusWorkflow` runs every stage. What is
ours is the grid that carries messages from one to the other as Python objects, without writing them as bytes: in the
peer's favour, as its wire costs it nothing here while our messages are whole bytes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

logging.getLogger("flwr").setLevel(logging.ERROR)
CLIPPING, TARGET, WEIGHT = 8.0, 1 << 22, 1000


@dataclass(frozen=True)
class PeerRun:
    """One run of the peer: CPU seconds of all members, CPU seconds of the server, and the mean it gave."""

    members: float
    server: float
    uploaded: int
    mean: NDArray[np.float64]

    @property
    def total(self) -> float:
        """CPU seconds of everybody together."""
        return self.members + self.server


class _Proxy(ClientProxy):
    """Stands for one member in Flower's legacy strategy interface; only its number is used."""

    def __init__(self, node: int) -> None:
        super().__init__(str(node))
        self.node_id = node

    get_properties = get_parameters = fit = evaluate = reconnect = lambda self, *args, **kwargs: None  # type: ignore[assignment]


class _Strategy(FedAvg):
    """All members, no start parameters; takes the mean as it is, so that no second averaging is charged to the peer."""

    mean: NDArray[np.float64]

    def __init__(self, nodes: Iterable[int]) -> None:
        super().__init__()
        self._proxies = [_Proxy(node) for node in nodes]

    def configure_fit(self, server_round, parameters, client_manager):  # type: ignore[no-untyped-def]
        return [(proxy, FitIns(Parameters([], ""), {})) for proxy in self._proxies]

    def aggregate_fit(self, server_round, results, failures):  # type: ignore[no-untyped-def]
        assert not failures and len(results) == len(self._proxies)
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


class _Grid(Grid):
    """Carries each message to the member's mod and back, and charges the CPU time to the members."""

    def __init__(self, vectors: Sequence[NDArray[np.float64]]) -> None:
        self.cpu, self.uploaded = 0.0, 0
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in range(2, 2 + len(vectors))
        }
        # What training would have left, ready before the clock starts.
        self._trained = {
            node: compat.fitres_to_recorddict(
                FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vector]), WEIGHT, {}), keep_input=False
            )
            for node, vector in zip(self._contexts, vectors, strict=True)
        }

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self._contexts)

    def _train(self, message: Message, context: Context) -> Message:
        return Message(self._trained.pop(context.node_id), reply_to=message)

    def send_and_receive(self, messages, *, timeout=None):  # type: ignore[no-untyped-def]
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            # The mod takes entries out of its record, and in `setup` all members get the same one: each a copy.
            shared = message.content.config_records
            message.content = RecordDict({name: ConfigRecord(dict(record)) for name, record in shared.items()})
            # Flower keeps the sender's number in a process-wide place: set it to whoever is speaking.
            message.metadata._message_id = f"{message.metadata.group_id}/{node}"
            TaskIdentity.node_id = node
            start = time.process_time()
            reply = secaggplus_mod(message, self._contexts[node], self._train)
            self.cpu += time.process_time() - start
            TaskIdentity.node_id = 1
            self.uploaded += sum(
                len(value)
                for record in reply.content.config_records.values()
                for values in record.values()
                if isinstance(values, list)
                for value in values
                if isinstance(value, bytes)
            )
            replies.append(reply)
        return replies

    set_run = create_message = get_node_ids = get_nodes = push_messages = pull_messages = None  # type: ignore[assignment]
    run = None  # type: ignore[assignment]


def run(vectors: Sequence[NDArray[np.float64]], *, threshold: int) -> PeerRun:
    """Average `vectors` once with all stages of SecAgg+: as many shares as members, nobody lost.

    Args:
        vectors: one a member, of equal length, within ±8.
        threshold: how many shares rebuild a seed.
    """
    before = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    try:
        return _run(vectors, threshold)
    finally:  # it belongs to the whole process
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


def _run(vectors: Sequence[NDArray[np.float64]], threshold: int) -> PeerRun:
    grid = _Grid(vectors)
    strategy = _Strategy(grid.nodes)
    state = RecordDict(
        {
            MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}),
            MAIN_PARAMS_RECORD: ArrayRecord(),
        }
    )
    context = LegacyContext(Context(run_id=1, node_id=1, node_config={}, state=state, run_config={}), strategy=strategy)
    workflow = SecAggPlusWorkflow(
        num_shares=len(vectors),
        reconstruction_threshold=threshold,
        max_weight=float(WEIGHT),
        clipping_range=CLIPPING,
        quantization_range=TARGET,
        modulus_range=1 << 32,
    )
    start = time.process_time()
    workflow(grid, context)
    total = time.process_time() - start
    return PeerRun(grid.cpu, total - grid.cpu, grid.uploaded, strategy.mean)
