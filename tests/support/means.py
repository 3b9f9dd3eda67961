"""Members of a `fedavg` job without a network: programs, a federation, and a hub that is function calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.fedavg import FedAvg
from federation.learning.fedavg_spec import FedAvgSpec
from federation.primitives.encoding import parse_canonical_json
from federation.rounds.client_app import make_client_app, run_client_app
from federation.rounds.flower import from_bytes, job_context, node_number, to_bytes
from federation.rounds.means import ServerStep
from federation.secure_sum.coordinator import CoordinatorRound, RoundPlan
from federation.secure_sum.local import LocalFederation
from gateway.jobs import arrays as wire
from gateway.jobs.progress import Progress
from gateway.jobs.stage import REPLY, REQUEST, open_stage, seal_stage
from gateway.transport.mean_grid import MeanGrid
from tests.support.entropy import SeededEntropy

NAMES = ("a", "b", "c")
LAYERS = [{"name": "w", "shape": [3, 2], "clip": 1.0}, {"name": "b", "shape": [2], "clip": 0.5, "init": "zeros"}]
NOISE = {"multiplier": 1.0, "honest": 2}


def spec(**changes: Any) -> FedAvgSpec:
    """Return the parameters of a small job."""
    return FedAvgSpec.from_document(
        {
            "app": "test", "digest": "0" * 64, "label": "y", "features": [{"name": "x", "type": "numeric"}],
            "layers": LAYERS, "rounds": 3,
        } | changes
    )  # fmt: skip


def towards(target: float, rows: int = 100) -> Callable[..., Any]:
    """Return a trainer that goes a tenth of the way to the same target in every value."""

    def train(round_: int, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
        return {name: array + (target - array) * np.asarray(0.1, array.dtype) for name, array in arrays.items()}, rows

    return train


def program(job: FedAvgSpec, train: Callable[..., Any], name: str = "", members: int = 3, rows: int = 100) -> FedAvg:
    """Return one member's program."""
    return FedAvg(
        job,
        train=train,
        step=lambda: ServerStep(job.strategy, job.options),
        rows=rows,
        entropy=SeededEntropy(f"noise {name}"),
        members=members,
    )


def federation(job: FedAvgSpec, trainers: Mapping[str, Callable[..., Any]], result_to: str = "both", **settings: Any):
    """Return the members and a platform, in this process."""
    programs = {name: program(job, train, name, len(trainers)) for name, train in trainers.items()}
    return LocalFederation(
        programs,
        SeededEntropy("federation"),
        result_to=result_to,
        verified=result_to == "both" and not job.unverified,
        noise=job.terms_noise(len(trainers)),
        **settings,
    )


class Rounds:
    """What a platform's run is to the grid, without a database."""

    resuming = False

    def __init__(self, local: LocalFederation) -> None:
        self.local, self.names = local, tuple(sorted(local.programs))
        self.state = b""
        self.outcomes: list[Any] = []

    def members(self) -> tuple[str, ...]:
        return self.names

    def placed(self, answers: Mapping[str, Any]) -> None:
        states = {}
        for name, answer in answers.items():
            if not isinstance(answer, ChaotianError):
                states[name] = bytes.fromhex(parse_canonical_json(answer)["state_hash"])
        self.names, self.state = tuple(sorted(states)), next(iter(states.values()))

    def open(self, round_: int) -> tuple[CoordinatorRound, list[Any]]:
        plan = self.local.plan(round_, self.names)
        plan = RoundPlan(**{**{f: getattr(plan, f) for f in plan.__dataclass_fields__}, "state_hash": self.state})
        current = self.local.coordinator(plan)
        return current, current.begin()

    def closed(self, round_: int, outcome: Any) -> None:
        self.outcomes.append(outcome)
        if not outcome.error:
            self.names = outcome.survivors


class FunctionHub:
    """Carries envelopes to members in this process; `away` do not answer."""

    def __init__(self, local: LocalFederation) -> None:
        self.local, self.away, self.sent = local, set(), []
        self.apps = {
            name: make_client_app(lambda job, stage, request, name=name: local.members[name].handle(stage, request))
            for name in local.members
        }

    async def request(self, member: str, kind: str, payload: bytes, *, stream: str = "control", deadline: float):
        self.sent.append((member, kind, stream, len(payload)))
        if member in self.away:
            raise ChaotianError("PEER_UNREACHABLE", member=member)
        space, platform, signer = self.local.space, self.local.platform, self.local.signers[member]
        if kind == wire.KIND:
            _, body = open_stage(wire.TAG, space, "platform", member, payload, platform.verifier)
            job = self.local.members[member]
            needs, moved = wire.take(job.program, body)
            if moved:
                job.moved()
            return wire.answer(needs, {"state_hash": job.state_hash().hex()})
        name, body = open_stage(REQUEST, space, "platform", member, payload, platform.verifier)
        context = job_context(name, node_number(member))
        reply = to_bytes(run_client_app(self.apps[member], from_bytes(body), context))
        return seal_stage(REPLY, space, name, member, "platform", reply, signer)


@contextlib.contextmanager
def mean_grid(local: LocalFederation, job: FedAvgSpec) -> Iterator[tuple[MeanGrid, FunctionHub, Rounds]]:
    """Give a grid over the members of a federation, with a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    hub, rounds = FunctionHub(local), Rounds(local)
    try:
        grid = MeanGrid(
            spec=job, members=len(local.programs), rounds=rounds, space=local.space, job=local.job, loop=loop, hub=hub,
            signer=local.platform, platform="platform", keys=local.keys, stage_seconds=5.0,
            progress=Progress(local.job, time.monotonic),
        )  # fmt: skip
        yield grid, hub, rounds
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
