"""The grants a node holds, their states and counters, on SQL.

Every method that changes something takes the caller's connection: a charge, the marker of the round and the log leaf
are one transaction, so a crash leaves all of them or none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from gateway.grants.catalogue import PERIODS
from gateway.grants.decision import Decision, Usage, UseRequest, decide, no_grant
from gateway.grants.document import Grant
from gateway.grants.signed import GrantEnvelope, Revocation
from gateway.storage.hot import Hot
from gateway.storage.tables.grants import grant_charges, grants

# (state, event) -> state; anything else is refused.
TRANSITIONS = {
    ("proposed", "accept"): "active",
    ("active", "accept"): "active",
    ("proposed", "revoke"): "revoked",
    ("active", "revoke"): "revoked",
    ("revoked", "revoke"): "revoked",
}
MAX_PROPOSALS = 200  # open ones of one member
_CACHED = 256

# What every round of every job asks, built once: building a statement takes longer than running it.
_THIS = grants.c.id == bindparam("grant")
_READ = Hot(select(grants).where(_THIS))
_LOCK = Hot(update(grants).where(_THIS).values(charges=grants.c.charges).returning(*grants.c))
_ADVANCE = Hot(update(grants).where(_THIS).values(charges=grants.c.charges + 1))
_CHARGE = Hot(insert(grant_charges).inline(), tuple(c.name for c in grant_charges.columns if c.name != "id"))
_SINCE = (grant_charges.c.grant_id == bindparam("grant"), grant_charges.c.charged_at > bindparam("since"))
_COUNT = Hot(select(func.count().label("calls")).select_from(grant_charges).where(*_SINCE))
_LOSS = Hot(select(func.coalesce(func.sum(grant_charges.c.loss), 0.0).label("loss")).where(*_SINCE))
_SAME = Hot(
    select(grant_charges.c.round).where(
        grant_charges.c.grant_id == bindparam("grant"),
        grant_charges.c.job == bindparam("job"),
        grant_charges.c.round == bindparam("round"),
        grant_charges.c.purpose == bindparam("purpose"),
    )
)


@dataclass(frozen=True)
class GrantRecord:
    """One grant as this node holds it; times in seconds since the epoch, UTC."""

    grant: Grant
    envelope: GrantEnvelope
    state: str
    proposer: str
    proposed_at: int
    accepted_at: int | None
    revoked_at: int | None
    revoked_by: str | None
    revocation: Revocation | None
    undelivered: str
    charges: int

    def document(self) -> dict[str, Any]:
        """Return state and counters as JSON values."""
        return {
            "id": self.grant.id,
            "state": self.state,
            "owner": self.grant.owner,
            "grantee": self.grant.grantee,
            "proposer": self.proposer,
            "dataset": self.grant.dataset.id,
            "purposes": list(self.grant.purposes),
            "nbf": self.grant.nbf,
            "exp": self.grant.exp,
            "proposed_at": self.proposed_at,
            "accepted_at": self.accepted_at,
            "revoked_at": self.revoked_at,
            "revoked_by": self.revoked_by,
            "undelivered": self.undelivered,
            "charges": self.charges,
        }


class GrantBook:
    """Stores, counts and decides; safe to share between threads.

    Args:
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parsed: dict[str, tuple[bytes, Grant]] = {}

    def add(self, connection: Connection, envelope: GrantEnvelope, *, proposer: str, undelivered: str = "") -> None:
        """Store a new proposal.

        Raises:
            ChaotianError: EXISTS where it is there already; BACKPRESSURE for too many open ones of `proposer`.
        """
        grant = envelope.grant
        if connection.execute(select(grants.c.id).where(grants.c.id == grant.id)).one_or_none() is not None:
            raise ChaotianError("EXISTS", f"grant {grant.id[:16]} is stored already")
        open_ = select(func.count()).where(grants.c.proposer == proposer, grants.c.state == "proposed")
        if connection.execute(open_).scalar_one() >= MAX_PROPOSALS:
            raise ChaotianError(
                "BACKPRESSURE", f"{proposer} has {MAX_PROPOSALS} open proposals", hint="Accept or revoke some first."
            )
        connection.execute(
            insert(grants).values(
                id=grant.id,
                state="proposed",
                owner=grant.owner,
                grantee=grant.grantee,
                proposer=proposer,
                dataset=grant.dataset.id,
                content=grant.content,
                signatures=envelope.encode(),
                proposed_at=int(self._clock()),
                undelivered=undelivered,
                charges=0,
            )
        )

    def find(self, connection: Connection, prefix: str) -> GrantRecord:
        """Return the grant whose id begins with `prefix` (at least 8 hex digits).

        Raises:
            ChaotianError: NOT_FOUND, also where several begin so.
        """
        if not 8 <= len(prefix) <= 64 or any(char not in "0123456789abcdef" for char in prefix):
            raise ChaotianError("NOT_FOUND", "a grant is named by at least the first 8 hexadecimal digits of its id")
        last = prefix + "g"  # sorts after every hexadecimal continuation
        query = select(grants).where(grants.c.id >= prefix, grants.c.id < last).limit(2)
        rows = connection.execute(query).all()
        if len(rows) != 1:
            raise ChaotianError("NOT_FOUND", f"{'several grants begin' if rows else 'no grant begins'} with {prefix}")
        return self._record(rows[0])

    def records(self, connection: Connection, *, state: str = "", limit: int = 1000) -> list[GrantRecord]:
        """Return grants, newest first."""
        query = select(grants).order_by(grants.c.proposed_at.desc(), grants.c.id).limit(limit)
        if state:
            query = query.where(grants.c.state == state)
        return [self._record(row) for row in connection.execute(query)]

    def undelivered(self, connection: Connection) -> list[GrantRecord]:
        """Return grants of which the counterpart has not confirmed the newest step."""
        rows = connection.execute(select(grants).where(grants.c.undelivered != "").limit(1000))
        return [self._record(row) for row in rows]

    def covering(self, connection: Connection, *, owner: str, grantee: str, dataset: str) -> list[GrantRecord]:
        """Return the active grants of `owner` to `grantee` over `dataset`, newest first: candidates for a job."""
        query = select(grants).where(
            grants.c.owner == owner,
            grants.c.grantee == grantee,
            grants.c.dataset == dataset,
            grants.c.state == "active",
        )
        rows = connection.execute(query.order_by(grants.c.accepted_at.desc(), grants.c.id))
        return [self._record(row) for row in rows]

    def accept(self, connection: Connection, envelope: GrantEnvelope, *, undelivered: str = "") -> None:
        """Make a stored proposal active; `envelope` carries both signatures, verified by the caller."""
        record = self.find(connection, envelope.grant.id)
        self._step(
            connection,
            record,
            "accept",
            signatures=envelope.encode(),
            accepted_at=record.accepted_at or int(self._clock()),
            undelivered=undelivered,
        )

    def revoke(
        self, connection: Connection, grant_id: str, revocation: Revocation | None, *, by: str, undelivered: str = ""
    ) -> None:
        """End a grant, from this transaction's commit on."""
        record = self.find(connection, grant_id)
        if record.state == "revoked":
            return
        self._step(
            connection,
            record,
            "revoke",
            revoked_at=int(self._clock()),
            revoked_by=by,
            revocation=canonical_json(revocation.document()) if revocation else None,
            undelivered=undelivered,
        )

    @staticmethod
    def _step(connection: Connection, record: GrantRecord, event: str, **values: Any) -> None:
        state = TRANSITIONS.get((record.state, event))
        if state is None:
            code = "GRANT_REVOKED" if record.state == "revoked" else "NOT_PERMITTED"
            raise ChaotianError(code, f"a grant that is {record.state} cannot take the step {event}")
        connection.execute(update(grants).where(grants.c.id == record.grant.id).values(state=state, **values))

    @staticmethod
    def delivered(connection: Connection, grant_id: str, step: str) -> None:
        """Note that the counterpart has confirmed `step`, unless a newer one waits."""
        query = update(grants).where(grants.c.id == grant_id, grants.c.undelivered == step)
        connection.execute(query.values(undelivered=""))

    def usage(self, connection: Connection, grant_id: str, request: UseRequest | None, *, now: float) -> Usage:
        """Return state and counters of a grant at `now`, and whether `request` has been charged before.

        The period is a sliding one: the quota holds in *any* hour, day or month, not by the calendar.
        """
        return self._usage(connection, self.find(connection, grant_id), request, now)

    @staticmethod
    def _usage(connection: Connection, record: GrantRecord, request: UseRequest | None, now: float) -> Usage:
        period = PERIODS[record.grant.per]
        since = -1 if period is None else int((now - period) * 1000)
        calls = _COUNT.all(connection, {"grant": record.grant.id, "since": since})[0].calls
        loss = 0.0
        if record.grant.budget is not None:
            within = PERIODS[record.grant.budget.period]
            since = -1 if within is None else int((now - within) * 1000)
            loss = float(_LOSS.all(connection, {"grant": record.grant.id, "since": since})[0].loss)
        if request is None:
            return Usage(record.state, calls, loss=loss)
        same = {"grant": record.grant.id, "job": request.job, "round": request.round, "purpose": request.purpose}
        return Usage(record.state, calls, _SAME.first(connection, same) is not None, loss)

    def decide(self, connection: Connection, grant_id: str, request: UseRequest) -> Decision:
        """Return what the grant says to `request` now; charges nothing. An unknown grant denies."""
        row = _READ.first(connection, {"grant": grant_id})
        if row is None:
            return no_grant(request)
        record, now = self._record(row), self._clock()
        return decide(record.grant, request, now=now, usage=self._usage(connection, record, request, now))

    def charge(self, connection: Connection, grant_id: str, request: UseRequest) -> Decision:
        """Decide and, where permitted, reserve one round of the quota in the caller's transaction.

        The same (job, round, purpose) is charged once, whatever the attempt.

        Raises:
            ChaotianError: the first denial; then nothing was charged.
        """
        # Reading by an update takes the row's lock first: two transactions never count the same free place.
        row = _LOCK.first(connection, {"grant": grant_id})
        if row is None:
            decision = no_grant(request)
            decision.check()
            return decision
        record, now = self._record(row), self._clock()
        usage = self._usage(connection, record, request, now)
        decision = decide(record.grant, request, now=now, usage=usage)
        decision.check()
        if usage.charged:
            return decision
        _CHARGE.all(
            connection,
            {
                "grant_id": grant_id,
                "job": request.job,
                "round": request.round,
                "purpose": request.purpose,
                "operation": request.operation,
                "charged_at": int(now * 1000),
                "loss": request.loss,
            },
        )
        _ADVANCE.all(connection, {"grant": grant_id})
        return decision

    def _record(self, row: Row[Any]) -> GrantRecord:
        content = bytes(row.content)
        cached = self._parsed.get(row.id)
        if cached is None or cached[0] != content:
            grant = Grant.parse(content)
            if (grant.id, grant.owner, grant.grantee) != (row.id, row.owner, row.grantee):
                raise ChaotianError("STORAGE", f"the stored content of grant {row.id[:16]} is not that grant's")
            if len(self._parsed) >= _CACHED:
                self._parsed.clear()
            self._parsed[row.id] = cached = (content, grant)
        grant = cached[1]
        revocation = Revocation.from_document(json.loads(row.revocation)) if row.revocation else None
        signatures = json.loads(row.signatures)["signatures"]
        parts = {
            party: (bytes.fromhex(value["key"]), bytes.fromhex(value["signature"]))
            for party, value in signatures.items()
        }
        return GrantRecord(
            grant,
            GrantEnvelope(grant, parts),
            row.state,
            row.proposer,
            row.proposed_at,
            row.accepted_at,
            row.revoked_at,
            row.revoked_by,
            revocation,
            row.undelivered,
            row.charges,
        )
