"""A platform and some banks in one process: real keys, papers, SQL, DuckDB and protocols; only the network is a double.

`Wire` implements the ports of Hub and Link over function calls and can lose, delay, repeat and forge messages.
"""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.entropy import SystemEntropy
from federation.primitives.signing import Signer, Verifier
from gateway.audit.log import AuditLog
from gateway.datasets.book import DatasetBook
from gateway.datasets.schema import parse_schema
from gateway.grants.book import GrantBook
from gateway.grants.catalogue import OPERATIONS, UNBOUNDED
from gateway.grants.document import Grant
from gateway.grants.signed import GrantEnvelope
from gateway.jobs.models import ModelStore
from gateway.jobs.node import NodeJobs
from gateway.storage.base import Database
from gateway.transport.ports import Caller
from parties.platform.coordinator import Coordinator
from tests.support.split import fix_split

ROOT = Path(__file__).resolve().parents[2]
SPACE = "test"
BANKS = ("bank-1", "bank-2", "bank-3", "bank-4")
FILES = ("bank-1", "bank-2", "bank-3", "test")
COLUMNS = ("x1", "x4", "x7", "x13", "x17")
log = logging.getLogger("test")


_COMMON = {
    "kind", "purpose", "members", "exposed", "dataset", "after", "test", "min_members", "min_rows", "result_to",
    "stage_seconds",
}  # fmt: skip


def job_toml(members=BANKS, **changes: Any) -> str:
    """Return the TOML of a job: of a scorecard over `loans` unless `changes` say otherwise."""
    fields = {
        "kind": "scorecard", "purpose": "credit-risk-model", "members": list(members), "dataset": "loans",
        "stage_seconds": 5.0,
    } | changes  # fmt: skip
    if fields["kind"] == "scorecard":
        fields = {"label": "y", "features": list(COLUMNS), "seed": "1"} | fields
    heads = [name for name in fields if name in _COMMON]
    rest = [name for name in fields if name not in _COMMON]
    lines = [f"{name} = {to_toml(fields[name])}" for name in heads]
    return "\n".join([*lines, "[params]", *(f"{name} = {to_toml(fields[name])}" for name in rest)])


def to_toml(value: Any) -> str:
    """Return a value as TOML writes it within a line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {to_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


class Wire:
    """Hub and links of a space, as function calls on one event loop."""

    def __init__(self) -> None:
        self.at_platform: dict[str, Callable[[Caller, bytes], Any]] = {}
        self.at_member: dict[str, dict[str, Callable[[bytes], Any]]] = {}
        self.away: set[str] = set()
        self.down = False
        self.watchers: list[Callable[[str, bool], None]] = []
        self.tamper: Callable[[str, str, bytes], Any] | None = None  # (member, kind, payload) before it arrives
        self.replies: Callable[[str, str, bytes], bytes] | None = None
        self.sent: list[tuple[str, str, str, int]] = []

    # Hub
    async def request(self, member, kind, payload, *, stream="control", deadline):
        self.sent.append((member, kind, stream, len(payload)))
        if member in self.away or member not in self.at_member:
            raise ChaotianError("PEER_UNREACHABLE", member=member)
        try:
            async with asyncio.timeout(deadline):
                if self.tamper is not None:
                    payload = await self.tamper(member, kind, payload)
                reply = await self.at_member[member][kind](payload)
        except TimeoutError:
            raise ChaotianError("DEADLINE", member=member) from None
        if member in self.away:
            raise ChaotianError("PEER_UNREACHABLE", member=member)
        return self.replies(member, kind, reply) if self.replies is not None else reply

    def on(self, kind, roles, handler):
        assert roles
        self.at_platform[kind] = handler

    def connected(self):
        return {name: None for name in self.at_member if name not in self.away}

    def on_change(self, watcher):
        self.watchers.append(watcher)

    def back(self, member):
        self.away.discard(member)
        for watcher in self.watchers:
            watcher(member, True)

    def link(self, member: str) -> Any:
        async def request(kind, payload, *, stream="control", deadline):
            if self.down or member in self.away:
                raise ChaotianError("PLATFORM_UNREACHABLE")
            return await self.at_platform[kind](Caller(member, "bank", SPACE, "1"), payload)

        handlers = self.at_member.setdefault(member, {})
        return SimpleNamespace(request=request, on=lambda kind, handler: handlers.__setitem__(kind, handler))


@dataclass
class Bank:
    name: str
    home: Path
    signer: Signer
    database: Database
    jobs: NodeJobs
    log: AuditLog
    grants: GrantBook
    datasets: DatasetBook


@dataclass
class Space:
    folder: Path
    names: tuple[str, ...] = BANKS
    grantee: str = "bank-1"
    wire: Wire = field(default_factory=Wire)
    banks: dict[str, Bank] = field(default_factory=dict)
    approvals: dict[str, set[str]] = field(default_factory=dict)
    coordinator: Coordinator = field(init=False)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.platform = Signer(SystemEntropy().bytes(32))
        self.signers = {name: Signer(SystemEntropy().bytes(32)) for name in self.names}
        self.keys: dict[str, Verifier] = {name: signer.verifier for name, signer in self.signers.items()}
        for name in self.names:
            self.approvals[name] = set(self.names)
            self.open_bank(name)
            self.give_data(name)
        self.open_platform()
        for name in self.names:
            if name != self.grantee:
                self.grant(name)

    # --- the platform ----------------------------------------------------------------------------------------

    def open_platform(self, **options: Any) -> None:
        (self.folder / "platform").mkdir(parents=True, exist_ok=True)
        database = Database.at(self.folder / "platform" / "state.db")
        database.upgrade()
        self.wire.watchers.clear()
        self.coordinator = Coordinator(
            space=SPACE,
            signer=self.platform,
            verifiers=lambda: self.keys,
            database=database,
            hub=self.wire,
            clock=self.clock,
            logger=log,
            **options,
        )
        self.coordinator.register()

    # --- banks -------------------------------------------------------------------------------------------------

    def open_bank(self, name: str) -> Bank:
        """Start a bank's process, or start it again on the state it has."""
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        database = Database.at(home / "state.db")
        database.upgrade()
        identity = SimpleNamespace(space=SPACE, member=name, signer=self.signers[name])
        audit = AuditLog(database, identity, home / "log", clock=self.clock)
        datasets, grants = DatasetBook(database, home), GrantBook(clock=self.clock)
        fix_split(database, name)
        jobs = NodeJobs(
            identity=identity,
            peers=self.peers(name),
            link=self.wire.link(name),
            database=database,
            log=audit,
            grants=grants,
            datasets=datasets,
            models=ModelStore(home),
            folder=home / "jobs",
            clock=self.clock,
            monotonic=time.monotonic,
            entropy=SystemEntropy(),
            logger=log,
        )
        jobs.register()
        self.banks[name] = Bank(name, home, self.signers[name], database, jobs, audit, grants, datasets)
        return self.banks[name]

    def peers(self, name: str) -> Any:
        def listings():
            return {
                peer: SimpleNamespace(entry=SimpleNamespace(role="bank", identity_key=key), status="active")
                for peer, key in self.keys.items()
            }

        return SimpleNamespace(
            approved=lambda: {peer: self.keys[peer] for peer in self.approvals[name]},
            approved_in=lambda connection: {peer: self.keys[peer] for peer in self.approvals[name]},
            coordinator=lambda: self.platform.verifier,
            listings=listings,
        )

    def give_data(self, name: str, *, drop: int = 0) -> None:
        """Put a part of default_credit into the bank's dataset `loans`, without its first `drop` rows."""
        part = FILES[self.names.index(name) % len(FILES)]
        source = ROOT / "tests/data" / f"default_credit_{part}.csv"
        with source.open() as file:
            rows = list(csv.reader(file))
        path = self.folder / name / f"loans-{drop}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *rows[1 + drop :]])
        lines = ['id = "id"', 'label = "y"']
        for column in rows[0][1:]:
            kind = "integer" if column == "y" else "numeric"
            lines.append(f'[columns.{column}]\ntype = "{kind}"\ndisclosure = "aggregate"')
        self.banks[name].datasets.add("loans", path, parse_schema("\n".join(lines).encode()), now=int(self.clock()))

    def give(self, name: str, dataset: str, columns: dict[str, list[Any]], *, as_of: str = "") -> None:
        """Put columns into a bank's dataset: `id`, `y` (whole numbers), numbers, and texts as categories."""
        path = self.folder / name / f"{dataset}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        lines = ['id = "id"', 'label = "y"'] + ([f'as_of = "{as_of}"'] if as_of else [])
        for column, values in columns.items():
            if column != "id":
                kind = "category" if any(isinstance(value, str) and value for value in values) else "numeric"
                kind = "integer" if column == "y" else kind
                lines.append(f'[columns.{column}]\ntype = "{kind}"\ndisclosure = "aggregate"')
                lines += ['missing = "allow"'] if column != "y" else []
        self.banks[name].datasets.add(dataset, path, parse_schema("\n".join(lines).encode()), now=int(self.clock()))

    def grant(self, owner: str, *, grantee: str = "", **changes: Any) -> str:
        """Make an active grant of `owner` to the proposer."""
        grantee = grantee or self.grantee
        name = changes.pop("dataset", "loans")
        dataset = self.banks[owner].datasets.get(name)
        now = int(self.clock())
        operation = {
            "out": "total", "min_members": 3, "min_rows": 30, "max_rounds": 60,
            "max_roster_changes": 1, "result_to": "members",
        }  # fmt: skip
        limits, operations = changes.pop("op", {}), sorted(changes.pop("operations", OPERATIONS))
        # Trained updates without noise are permitted where a grant says so; these do, unless a test says otherwise.
        exact = {"exact": True} if changes.pop("exact", "budget" not in changes) else {}
        ops = [{"op": op} | operation | limits | (exact if op in UNBOUNDED else {}) for op in operations]
        document = {
            "v": 1, "iv": SystemEntropy().bytes(16).hex(), "space": SPACE, "owner": owner, "grantee": grantee,
            "grantee_keys": [self.keys[grantee].fingerprint.hex()], "roles": ["bank"],
            "dataset": {"id": name, "schema": dataset.schema_digest, "grade": 5},
            "columns": {column.name: "aggregate" for column in dataset.schema.columns},
            "purposes": ["credit-risk-model"], "legal_basis": {"basis": "dsl-business-data", "reference": ""},
            "ops": ops, "quota": {"calls": 1000, "per": "day"},
            "nbf": now - 3600, "exp": now + 86_400, "duties": [],
            "revocation": {"by": "owner", "queries": "stop", "training": "stop"},
        } | changes  # fmt: skip
        envelope = GrantEnvelope(Grant.from_document(document), {})
        envelope = envelope.sign("owner", self.signers[owner]).sign("grantee", self.signers[grantee])
        bank = self.banks[owner]
        with bank.database.begin() as connection:
            bank.grants.add(connection, envelope, proposer=grantee)
            bank.grants.accept(connection, envelope)
        return envelope.grant.id

    # --- ways through --------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the platform has handed round what it had to."""
        for _ in range(50):
            tasks = [task for task in self.coordinator._tasks if not task.done()]
            pushing = [t for t in tasks if "_push" in repr(t.get_coro()) or "_catch_up" in repr(t.get_coro())]
            if not pushing:
                return
            await asyncio.wait(pushing, timeout=5)

    async def propose(self, proposer: str = "bank-1", members=None, **changes: Any) -> str:
        found = await self.banks[proposer].jobs.propose(job_toml(members or self.names, **changes))
        await self.settle()
        return found["id"]

    async def accepted(self, proposer: str = "bank-1", members=None, consenting=(), **changes: Any) -> str:
        job = await self.propose(proposer, members, **changes)
        for name in members or self.names:
            await self.banks[name].jobs.accept(job[:8], exposure_consent=name in consenting)
        await self.settle()
        return job

    async def ended(self, job: str, seconds: float = 60.0) -> str:
        """Wait for the end of a job at the platform and at all nodes; return its state at the platform."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            row = self.coordinator.store.get(job)
            running = [task for task in self.coordinator._tasks if "._run" in repr(task.get_coro())]
            if row.state in ("done", "failed", "cancelled") and not running:
                await self.settle()
                return row.state
            await asyncio.sleep(0.02)
        raise AssertionError(f"the job did not end: {await self.coordinator.progress(job)}")

    async def run(self, **options: Any) -> str:
        job = await self.accepted(**options)
        await self.coordinator.start_job(job)
        await self.ended(job)
        return job

    async def close(self) -> None:
        await self.coordinator.stop()
        for bank in self.banks.values():
            await bank.jobs.stop()


def with_space(work, folder: Path, **options: Any) -> Any:
    """Run `work(space)` on a fresh event loop."""

    async def body() -> Any:
        space = Space(folder, **options)
        await space.coordinator.start()
        try:
            async with asyncio.timeout(240):
                return await work(space)
        finally:
            await space.close()

    return asyncio.run(body())
