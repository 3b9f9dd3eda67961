"""A grant, a request it permits, and two nodes that exchange grants, for tests."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.signing import Verifier
from gateway.grants.book import GrantBook
from gateway.grants.decision import UseRequest
from gateway.grants.document import Grant
from gateway.grants.exchange import GrantExchange
from gateway.grants.signed import GrantEnvelope
from tests.unit.log_samples import Clock, Someone, open_log

NOW = 1_800_000_000.0
OWNER, GRANTEE = Someone("bank-a"), Someone("bank-b", seed=b"\x02" * 32)
SCHEMA = "5c" * 32
DAY = 86_400

DOCUMENT: dict[str, Any] = {
    "v": 1,
    "iv": "00112233445566778899aabbccddeeff",
    "space": "demo",
    "owner": "bank-a",
    "grantee": "bank-b",
    "grantee_keys": [GRANTEE.signer.verifier.fingerprint.hex()],
    "roles": ["bank"],
    "dataset": {"id": "loans", "schema": SCHEMA, "grade": 3, "as_of_max_age": 90 * DAY},
    "columns": {"amount": "aggregate", "default": "aggregate", "name": "never", "行业": "aggregate"},
    "purposes": ["credit-risk-model"],
    "legal_basis": {"basis": "dsl-business-data", "reference": "contract 2026-17"},
    "ops": [
        {
            "op": "scorecard",
            "out": "total",
            "min_members": 3,
            "min_rows": 30,
            "max_rounds": 40,
            "max_roster_changes": 1,
            "result_to": "members",
        }
    ],
    "quota": {"calls": 5, "per": "day"},
    "nbf": int(NOW) - DAY,
    "exp": int(NOW) + 30 * DAY,
    "duties": ["no-reidentification"],
    "revocation": {"by": "owner", "queries": "stop", "training": "stop"},
}

TOML = """
grantee = "bank-b"
roles = ["bank"]
purposes = ["credit-risk-model"]
legal_basis = "dsl-business-data"
exp = "30d"
duties = ["no-onward-transfer", "human-review"]

[dataset]
id = "loans"
as_of_max_age = "90d"

[columns]
amount = "aggregate"
default = "aggregate"
"行业" = "aggregate"

[[ops]]
op = "scorecard"
max_rounds = 40

[quota]
calls = 100
per = "month"
"""


def document(**changes: Any) -> dict[str, Any]:
    """Return the sample document; a key such as `dataset__grade` reaches into an object, `ops__x` into the first op."""
    found = copy.deepcopy(DOCUMENT)
    for path, value in changes.items():
        *above, last = path.split("__")
        at: Any = found
        for name in above:
            at = at[name]
            at = at[0] if isinstance(at, list) else at
        at[last] = value
    return found


def grant(**changes: Any) -> Grant:
    return Grant.from_document(document(**changes))


def signed(found: Grant) -> GrantEnvelope:
    return GrantEnvelope(found, {}).sign("owner", OWNER.signer).sign("grantee", GRANTEE.signer)


REQUEST: dict[str, Any] = {
    "space": "demo",
    "owner": "bank-a",
    "requester": "bank-b",
    "requester_key": GRANTEE.signer.verifier.fingerprint.hex(),
    "requester_role": "bank",
    "dataset": "loans",
    "schema": SCHEMA,
    "grade": 3,
    "as_of": NOW - 10 * DAY,
    "columns": ("amount", "default"),
    "purpose": "credit-risk-model",
    "operation": "scorecard.newton",
    "job": "ab" * 32,
    "round": 1,
    "result_to": "members",
    "min_members": 3,
    "min_rows": 30,
    "members": ("bank-a", "bank-b", "bank-c"),
    "roster_changes": 0,
}


def request(**changes: Any) -> UseRequest:
    return UseRequest(**{**REQUEST, **changes})


class Peers:
    def __init__(self, **known: Verifier) -> None:
        self.known = known

    def approved(self) -> dict[str, Verifier]:
        return {name.replace("_", "-"): key for name, key in self.known.items()}

    def coordinator(self) -> Verifier:
        return Someone("platform", seed=b"\x08" * 32).signer.verifier


class Wire:
    """Carries messages between the links of nodes in one process; `cut` loses them."""

    def __init__(self) -> None:
        self.links: dict[str, WireLink] = {}
        self.cut = False
        self.sent: list[tuple[str, str, bytes]] = []


class WireLink:
    def __init__(self, wire: Wire, member: str) -> None:
        self.wire, self.member = wire, member
        self.handlers: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {}
        self.connected = True
        wire.links[member] = self

    def on_member(self, purpose: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self.handlers[purpose] = handler

    async def ask_member(self, member: str, purpose: str, payload: bytes, *, deadline: float) -> bytes:
        if self.wire.cut or member not in self.wire.links:
            raise ChaotianError("PEER_UNREACHABLE", member=member)
        self.wire.sent.append((self.member, member, payload))
        return await self.wire.links[member].handlers[purpose](self.member, payload)


class Methods:
    """A local API without a socket."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def register(self, method: str, handler: Any) -> None:
        self.handlers[method] = handler

    async def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.handlers[method](params)
        return found


class Node:
    """One member's grants with database, log and local API."""

    def __init__(self, home: Path, who: Someone, wire: Wire | None, clock: Clock, **peers: Verifier) -> None:
        home.mkdir(exist_ok=True)
        self.database, self.log = open_log(home, who, clock)
        self.book = GrantBook(clock=clock)
        self.peers = Peers(**peers)
        self.exchange = GrantExchange(
            database=self.database,
            book=self.book,
            log=self.log,
            identity=who,
            peers=self.peers,
            link=WireLink(wire, who.member) if wire else None,
            clock=clock,
            dataset=lambda name: {"schema": SCHEMA, "grade": 3} if name == "loans" else None,
        )
        self.call = Methods()
        self.exchange.register(self.call)

    def state(self, grant_id: str) -> str:
        with self.database.read() as connection:
            return self.book.find(connection, grant_id).state


def two_nodes(folder: Path) -> tuple[Node, Node, Wire, Clock]:
    wire, clock = Wire(), Clock(NOW)
    keys = {"bank_a": OWNER.signer.verifier, "bank_b": GRANTEE.signer.verifier}
    return Node(folder / "a", OWNER, wire, clock, **keys), Node(folder / "b", GRANTEE, wire, clock, **keys), wire, clock
