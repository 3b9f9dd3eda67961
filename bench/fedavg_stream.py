"""What the secure sum adds to `fedavg`: a platform and members as processes of their own, over real gRPC and TLS.

The same members, streams, frames, Flower messages and signed envelopes carry either plain arrays, which the platform
averages with Flower's stock strategy, or the masked vectors of the secure sum. Local training is the same addition of
a constant in both, so that what is measured is the exchange. Markers and journal are in memory: the two durable
commits of a round are measured by `make bench NAME=rounds`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import psutil

from federation.errors import ChaotianError
from federation.learning.fedavg import FedAvg
from federation.learning.fedavg_arrays import Arrays, initial_arrays
from federation.learning.fedavg_spec import FedAvgSpec
from federation.primitives.encoding import parse_canonical_json
from federation.primitives.entropy import SystemEntropy
from federation.primitives.signing import Signer, Verifier
from federation.rounds.client_app import make_client_app, run_client_app
from federation.rounds.flower import (
    Grid,
    Message,
    app_message,
    federation_number,
    from_bytes,
    job_context,
    mean_message,
    node_number,
    read_arrays,
    to_arrays,
    to_bytes,
)
from federation.rounds.means import NoGrid, ServerStep, make_strategy, run_rounds
from federation.secure_sum.coordinator import CoordinatorRound, RoundOutcome, RoundPlan, Send
from federation.secure_sum.local import MemoryJournal, MemoryMarkers
from federation.secure_sum.member import MemberJob
from federation.secure_sum.program import JobView
from gateway.identity.authority import CertificateAuthority
from gateway.identity.certificates import check_certificate, generate_tls_key, key_to_pem, platform_host
from gateway.identity.names import PeerName
from gateway.jobs import arrays as wire
from gateway.jobs.progress import Progress
from gateway.jobs.stage import REPLY, REQUEST, open_stage, seal_stage
from gateway.transport.hub import Hub
from gateway.transport.link import Link
from gateway.transport.mean_grid import MeanGrid
from gateway.transport.ports import Caller
from gateway.transport.tls import ClientTls

SPACE, JOB, PLATFORM, PURPOSE = "bench", "f" * 64, "platform", "bench"
ROWS = 1000
STAGE_SECONDS = 60.0


def spec_of(values: int, rounds: int) -> FedAvgSpec:
    """Return a job of so many float32 parameters in two layers; its totals are not added up again by members."""
    wide = values // 1000
    layers = [{"name": "w", "shape": [wide - 1, 1000], "clip": 4.0}, {"name": "b", "shape": [1000], "clip": 4.0}]
    return FedAvgSpec.from_document(
        {
            "app": "bench",
            "digest": "0" * 64,
            "label": "y",
            "features": [{"name": "x", "type": "numeric"}],
            "layers": layers,
            "rounds": rounds,
            "unverified": True,
            "max_weight": ROWS,
        }
    )


def train(round_: int, arrays: Arrays) -> tuple[Arrays, int]:
    """Stand in for local training: a step of the same length everywhere."""
    return {name: array + np.float32(1e-3) for name, array in arrays.items()}, ROWS


@dataclass(frozen=True)
class Setting:
    """What a member's process is told: where the platform is, keys, and the job."""

    member: str
    port: int
    tls: ClientTls
    seeds: Mapping[str, bytes]  # identity keys: a bench has no secrets
    spec: dict[str, Any]
    noise: bool = False

    @property
    def members(self) -> tuple[str, ...]:
        """All members, sorted."""
        return tuple(sorted(name for name in self.seeds if name != PLATFORM))


class Member:
    """One member's side: the same handlers as a node's, without its disk."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.member
        self.spec = FedAvgSpec.from_document(setting.spec)
        signers = {name: Signer(seed) for name, seed in setting.seeds.items()}
        self.signer, self.platform = signers[self.name], signers[PLATFORM].verifier
        self.program = FedAvg(
            self.spec,
            train=train,
            step=lambda: ServerStep(self.spec.strategy, self.spec.options),
            rows=ROWS,
            entropy=SystemEntropy(),
            members=len(setting.members),
        )
        view = JobView(
            space=SPACE,
            job=JOB,
            purpose=PURPOSE,
            members={name: signers[name].verifier for name in setting.members},
            coordinator=self.platform,
            min_members=3,
            min_rows=30,
            result_to="both",
            grants={name: f"grant-{name}" for name in setting.members},
            max_roster_changes=1,
            unverified=True,
        )
        self.job = MemberJob(
            member=self.name,
            view=view,
            signer=self.signer,
            program=self.program,
            markers=MemoryMarkers(),
            entropy=SystemEntropy(),
        )
        self.app = make_client_app(lambda job, stage, request: self.job.handle(stage, request))
        self.context = job_context(JOB, node_number(self.name))

    def stage(self, payload: bytes) -> bytes:
        """Answer one stage."""
        _, body = open_stage(REQUEST, SPACE, PLATFORM, self.name, payload, self.platform)
        reply = to_bytes(run_client_app(self.app, from_bytes(body), self.context))
        return seal_stage(REPLY, SPACE, JOB, self.name, PLATFORM, reply, self.signer)

    def arrays(self, payload: bytes) -> bytes:
        """Take an offer of arrays."""
        _, body = open_stage(wire.TAG, SPACE, PLATFORM, self.name, payload, self.platform)
        needs, moved = wire.take(self.program, body)
        if moved:
            self.job.moved()
        position = {"state_hash": self.job.state_hash().hex()}
        return wire.answer(needs, position)

    def plain(self, payload: bytes) -> bytes:
        """Train on plain arrays and send plain arrays back, in the same envelope."""
        _, body = open_stage(REQUEST, SPACE, PLATFORM, self.name, payload, self.platform)
        asked = from_bytes(body)
        after, rows = train(1, to_arrays(read_arrays(asked)))
        reply = mean_message(JOB, node_number(self.name), 0, 1, after, rows, 0.0)
        return seal_stage(REPLY, SPACE, JOB, self.name, PLATFORM, to_bytes(reply), self.signer)


def member_process(setting: Setting) -> None:
    """Run a member until it is ended."""

    async def serve() -> None:
        member = Member(setting)
        link = Link(f"127.0.0.1:{setting.port}", lambda: setting.tls)
        for kind, handler in (("job.stage", member.stage), (wire.KIND, member.arrays), ("bench.plain", member.plain)):

            async def answer(payload: bytes, handler: Any = handler) -> bytes:
                return await asyncio.to_thread(handler, payload)  # type: ignore[no-any-return]

            link.on(kind, answer)
        await link.start()
        await asyncio.Event().wait()

    asyncio.run(serve())


@dataclass
class Platform:
    """Hub, keys and members of one measurement."""

    members: tuple[str, ...]
    spec: FedAvgSpec
    processes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.authority = CertificateAuthority.create(SPACE, time.time())
        self.seeds = {name: SystemEntropy().bytes(32) for name in (*self.members, PLATFORM)}
        self.signers = {name: Signer(seed) for name, seed in self.seeds.items()}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    # The port `Admission`.
    def admit(self, certificate: bytes) -> Caller:
        """Let in whoever the authority certified."""
        info = check_certificate(certificate, self.authority.certificate_pem, time.time())
        return Caller(info.name.member, info.name.role, info.name.space, info.serial)

    def refused(self, serials: Collection[str]) -> Collection[str]:
        """Refuse nobody."""
        return ()

    def call(self, work: Any) -> Any:
        """Run a coroutine on the hub's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __enter__(self) -> Platform:
        self.thread.start()
        key = generate_tls_key()
        host = platform_host(SPACE)
        names = ["localhost", "127.0.0.1", host]
        chain = self.authority.issue_platform(key.public_key(), names, time.time(), 3600).encode()
        pem, root = key_to_pem(key), self.authority.certificate_pem.encode()
        self.hub = Hub(self)
        port = self.call(self.hub.start("127.0.0.1:0", tls=lambda: (pem, chain), authority=root))
        context = multiprocessing.get_context("spawn")
        for name in self.members:
            own = generate_tls_key()
            certificate = self.authority.issue(own.public_key(), PeerName(SPACE, "bank", name), time.time(), 3600)
            tls = ClientTls(root, key_to_pem(own), certificate.encode(), host)
            setting = Setting(name, port, tls, self.seeds, self.spec.document())
            process = context.Process(target=member_process, args=(setting,), daemon=True)
            process.start()
            self.processes.append(process)
        deadline = time.monotonic() + 60
        while set(self.hub.connected()) != set(self.members):
            if time.monotonic() > deadline:
                raise ChaotianError("DEADLINE", "the members did not connect within 60 s")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(10)
        self.call(self.hub.stop(0.2))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that platform and members have used."""
        found = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return time.process_time() + sum(times.user + times.system for times in found)


class Averaging:
    """Federated averaging, some rounds at a time, either way; both go on from where they were."""

    def __init__(self, platform: Platform) -> None:
        rounds = Rounds(platform)
        self._spec = platform.spec
        self._grids: dict[str, Grid] = {
            "plain": PlainGrid(platform),
            "secure": MeanGrid(
                spec=platform.spec,
                members=len(platform.members),
                rounds=rounds,
                space=SPACE,
                job=JOB,
                loop=platform.loop,
                hub=platform.hub,
                signer=platform.signers[PLATFORM],
                platform=PLATFORM,
                keys=rounds.keys,
                stage_seconds=STAGE_SECONDS,
                progress=Progress(JOB, time.monotonic),
            ),
        }
        self._strategies = {name: make_strategy("FedAvg", {}) for name in self._grids}
        self._at: dict[str, tuple[int, Arrays]] = dict.fromkeys(self._grids, (0, initial_arrays(platform.spec)))

    def secure(self, rounds: int) -> list[float]:
        """Run so many rounds through the secure sum; return the seconds of each."""
        return self._run("secure", rounds)

    def plain(self, rounds: int) -> list[float]:
        """Run so many rounds with plain arrays; return the seconds of each."""
        return self._run("plain", rounds)

    def _run(self, name: str, rounds: int) -> list[float]:
        done, arrays = self._at[name]
        marks = [time.perf_counter()]
        last = run_rounds(
            self._strategies[name],
            self._grids[name],
            arrays,
            first=done + 1,
            rounds=done + rounds,
            timeout=120,
            checkpoint=lambda round_, arrays: marks.append(time.perf_counter()),
        )
        self._at[name] = (done + rounds, last)
        first = initial_arrays(self._spec)
        moved = float(np.abs(last["w"] - first["w"] - np.float32(1e-3 * (done + rounds))).max())
        if moved > 1e-5:
            raise ChaotianError("INTERNAL", f"the trained arrays are off by {moved}")
        return [after - before for before, after in pairwise(marks)]


class Rounds:
    """Rounds of the secure sum without a database."""

    resuming = False

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.keys: dict[str, Verifier] = {name: platform.signers[name].verifier for name in platform.members}
        self.state = b""

    def members(self) -> tuple[str, ...]:
        """Return all members."""
        return self.platform.members

    def placed(self, answers: Mapping[str, bytes | ChaotianError]) -> None:
        """Take the members' common state."""
        states = set()
        for answer in answers.values():
            if isinstance(answer, ChaotianError):
                raise answer
            states.add(bytes.fromhex(parse_canonical_json(answer)["state_hash"]))
        (self.state,) = states

    def open(self, round_: int) -> tuple[CoordinatorRound, list[Send]]:
        """Begin a round."""
        spec, names = self.platform.spec, self.platform.members
        plan = RoundPlan(
            space=SPACE,
            job=JOB,
            round=round_,
            operation="fedavg.update",
            purpose=PURPOSE,
            layout=spec.layout(len(names)),
            state_hash=self.state,
            members=names,
            min_members=3,
            min_rows=30,
            grants={name: f"grant-{name}" for name in names},
            result_to="both",
            verified=False,
        )
        signer = self.platform.signers[PLATFORM]
        current = CoordinatorRound(plan, signer=signer, members=self.keys, journal=MemoryJournal())
        return current, current.begin()

    def closed(self, round_: int, outcome: RoundOutcome) -> None:
        """Refuse a round in which somebody was lost: it would not be comparable."""
        if outcome.error or outcome.losses:
            raise ChaotianError("INTERNAL", f"a round of the bench ended with {outcome.error} {outcome.losses}")


class PlainGrid(NoGrid):
    """Carries plain arrays: one request a member and one reply, over the same streams."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def get_node_ids(self) -> Iterable[int]:
        """Return the members' Flower ids."""
        return [node_number(name) for name in self.platform.members]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send everybody the arrays; return everybody's."""
        platform = self.platform
        arrays = to_arrays(read_arrays(next(iter(messages))))
        ready = []
        for name in platform.members:
            message = app_message(JOB, federation_number(SPACE), "train", 1, arrays, {})
            body = to_bytes(message)
            ready.append(seal_stage(REQUEST, SPACE, JOB, PLATFORM, name, body, platform.signers[PLATFORM]))

        async def ask(name: str, payload: bytes) -> bytes:
            return await platform.hub.request(name, "bench.plain", payload, stream="bulk", deadline=STAGE_SECONDS)

        async def all_of_them() -> list[bytes]:
            return await asyncio.gather(*map(ask, platform.members, ready))

        out = []
        for name, data in zip(platform.members, platform.call(all_of_them()), strict=True):
            _, body = open_stage(REPLY, SPACE, name, PLATFORM, data, platform.signers[name].verifier)
            out.append(from_bytes(body))
        return out


def measure(values: int, members: int, rounds: int) -> tuple[list[float], list[float], tuple[float, float]]:
    """Return seconds a round through the secure sum and of plain arrays, and CPU seconds a round of both.

    Both are taken in turns in the same processes, so that what else the machine does meets both alike.
    """
    turns = max(2, rounds // 4)
    secure: list[float] = []
    plain: list[float] = []
    used = [0.0, 0.0]
    spec = spec_of(values, rounds + turns)
    with Platform(tuple(f"bank-{number}" for number in range(1, members + 1)), spec) as platform:
        driver = Averaging(platform)
        driver.secure(1)
        driver.plain(1)
        for _ in range(turns):
            for kind, (times, work) in enumerate(((plain, driver.plain), (secure, driver.secure))):
                before = platform.cpu_seconds()
                times += work(max(1, rounds // turns))
                used[kind] += platform.cpu_seconds() - before
    return secure, plain, (used[1] / len(secure), used[0] / len(plain))
