"""How grants travel: proposed by one party, accepted by the other, ended by who may; through the relay or by file.

Three messages between members, each sealed and signed by the transport, each repeatable without effect:
`proposed` (grant with the proposer's signature), `accepted` (with both), `revoked` (a signed statement). A step is
committed here first and delivered after; what could not be delivered is tried again until the other confirms it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import Connection

from federation.errors import ChaotianError
from federation.primitives import zcdp
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.primitives.entropy import Entropy, SystemEntropy
from federation.primitives.signing import Signer, Verifier
from gateway.audit.events import Event, EventType
from gateway.grants.book import GrantBook, GrantRecord
from gateway.grants.decision import Usage, UseRequest
from gateway.grants.document import Grant
from gateway.grants.present import view
from gateway.grants.proposal import Surroundings, grant_from_toml
from gateway.grants.signed import MAX_ENVELOPE, GrantEnvelope, Revocation, SignedGrant
from gateway.storage.base import Database

PURPOSE = "grant"
PLATFORM = "platform"  # the operator as grantee; its grants are exchanged by file
DEADLINE = 15.0  # seconds for the counterpart's answer
RETRY = 20.0  # seconds between attempts to deliver what waits
MAX_MESSAGE = 2 * MAX_ENVELOPE

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]] | dict[str, Any]]


class Identity(Protocol):
    """What of `NodeIdentity` is needed here."""

    @property
    def space(self) -> str: ...
    @property
    def member(self) -> str: ...
    @property
    def signer(self) -> Signer: ...


class Peers(Protocol):
    """What of `PeerBook` is needed here."""

    def approved(self) -> Mapping[str, Verifier]: ...
    def coordinator(self) -> Verifier: ...


class MemberLink(Protocol):
    """What of `Link` is needed here."""

    @property
    def connected(self) -> bool: ...
    async def ask_member(self, member: str, purpose: str, payload: bytes, *, deadline: float) -> bytes: ...
    def on_member(self, purpose: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None: ...


class Log(Protocol):
    """What of `AuditLog` is needed here."""

    def append(self, connection: Connection, event: Event) -> int: ...


class Registrar(Protocol):
    """What of `LocalServer` is needed here."""

    def register(self, method: str, handler: Handler) -> None: ...


class GrantExchange:
    """Grants of one node, towards other members and towards its own people. A service of the runtime.

    Args:
        database, book, log: of the home.
        identity: who this node is.
        peers: approved members and their keys, this node's own included.
        link: the connection to the platform; None where grants are exchanged by file only.
        clock: seconds since the epoch, UTC.
        dataset: name -> {"schema": hex, "grade": 1..5} of this node's own datasets, None where there is none.
        job_requests: job id -> what each of its operations would ask of this node, for `grant.explain`; set by the
            jobs.
    """

    def __init__(
        self,
        *,
        database: Database,
        book: GrantBook,
        log: Log,
        identity: Identity,
        peers: Peers,
        link: MemberLink | None,
        clock: Callable[[], float],
        dataset: Callable[[str], Mapping[str, Any] | None] = lambda _: None,
        entropy: Entropy | None = None,
    ) -> None:
        self._database, self._book, self._log = database, book, log
        self._identity, self._peers, self._link = identity, peers, link
        self._clock, self._dataset = clock, dataset
        self._entropy = entropy or SystemEntropy()
        self.job_requests: Callable[[str], Sequence[UseRequest]] | None = None
        self._task: asyncio.Task[None] | None = None

    # --- wiring ----------------------------------------------------------------------------------------

    def register(self, local: Registrar) -> None:
        """Register the methods of the local API, and the handler for other members' messages."""
        for name in ("propose", "list", "show", "accept", "revoke", "explain", "export"):
            local.register(f"grant.{name}", getattr(self, f"local_{name}"))
        if self._link is not None:
            self._link.on_member(PURPOSE, self.on_message)

    async def start(self) -> None:
        """Begin to deliver what waits, every 20 seconds while connected."""
        if self._link is not None and self._task is None:
            self._task = asyncio.create_task(self._deliver_forever())

    async def stop(self) -> None:
        """Stop delivering."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _deliver_forever(self) -> None:
        while True:
            if self._link is not None and self._link.connected:
                with contextlib.suppress(ChaotianError):
                    await self.deliver_pending()
            await asyncio.sleep(RETRY)

    # --- steps of this node (blocking; called in threads) -------------------------------------------------

    def propose(self, grant: Grant) -> GrantRecord:
        """Store and sign a new grant of which this node is a party; both sides at once where it is both.

        Raises:
            ChaotianError: NOT_PERMITTED where it is none, NOT_APPROVED for an unknown counterpart, EXISTS.
        """
        me, signer = self._identity.member, self._identity.signer
        other = self._counterpart(grant)
        if grant.space != self._identity.space:
            raise ChaotianError("BAD_DOCUMENT", f"space: expected {self._identity.space}")
        if other != me:
            self._key(other)
        envelope = GrantEnvelope(grant, {})
        for party in _parties_of(grant, me):
            envelope = envelope.sign(party, signer)
            envelope.check(party, signer.verifier)
        with self._database.begin() as connection:
            self._book.add(connection, envelope, proposer=me, undelivered="" if other == me else "proposed")
            self._append(connection, EventType.GRANT_PROPOSED, grant, by=me)
            if other == me:
                envelope.verify(signer.verifier, signer.verifier)
                self._book.accept(connection, envelope)
                self._append(connection, EventType.GRANT_ACCEPTED, grant, by=me)
            return self._book.find(connection, grant.id)

    def accept(self, grant_id: str) -> GrantRecord:
        """Sign a proposal of the other party.

        Raises:
            ChaotianError: NOT_PERMITTED for an own proposal, GRANT_REVOKED, GRANT_EXPIRED, SIGNATURE, NOT_FOUND.
        """
        me, signer = self._identity.member, self._identity.signer
        with self._database.begin() as connection:
            record = self._book.find(connection, grant_id)
            grant = record.grant
            if record.state == "active":
                return record
            if record.proposer == me:
                other = self._counterpart(grant)
                raise ChaotianError(
                    "NOT_PERMITTED", f"this node proposed the grant: it waits for {other} to accept it", member=other
                )
            if self._clock() >= grant.exp:
                raise ChaotianError("GRANT_EXPIRED", "the proposal has expired")
            envelope = record.envelope
            for party in _parties_of(grant, me):
                envelope = envelope.sign(party, signer)
            self._verify(envelope)
            self._book.accept(connection, envelope, undelivered="accepted")
            self._append(connection, EventType.GRANT_ACCEPTED, grant, by=me)
            return self._book.find(connection, grant.id)

    def revoke(self, grant_id: str) -> GrantRecord:
        """End a grant now, from this node's own copy; proposals may be withdrawn or declined by either party.

        Raises:
            ChaotianError: NOT_PERMITTED where the grant leaves that to the owner; NOT_FOUND.
        """
        me = self._identity.member
        with self._database.begin() as connection:
            record = self._book.find(connection, grant_id)
            grant = record.grant
            if record.state == "revoked":
                return record
            _may_revoke(record, me)
            statement = Revocation.make(grant.id, me, int(self._clock()), self._identity.signer)
            waits = "" if self._counterpart(grant) == me else "revoked"
            self._book.revoke(connection, grant.id, statement, by=me, undelivered=waits)
            self._append(connection, EventType.GRANT_REVOKED, grant, by=me)
            return self._book.find(connection, grant.id)

    # --- steps of the counterpart ---------------------------------------------------------------------------

    def receive(self, envelope: GrantEnvelope, sender: str | None = None) -> GrantRecord:
        """Take in a proposal or an acceptance, from a member or from a file (then `sender` is None).

        Raises:
            ChaotianError: NOT_PERMITTED, NOT_APPROVED, SIGNATURE, NOT_FOUND, GRANT_REVOKED.
        """
        grant, me = envelope.grant, self._identity.member
        other = self._counterpart(grant)
        if other == me or sender not in (None, other) or grant.space != self._identity.space:
            raise ChaotianError(
                "NOT_PERMITTED", "the grant is not between its sender and this node", member=sender or ""
            )
        theirs = "owner" if grant.owner == other else "grantee"
        envelope.check(theirs, self._key(other))
        with self._database.begin() as connection:
            try:
                record = self._book.find(connection, grant.id)
            except ChaotianError as error:
                if error.code != "NOT_FOUND":
                    raise
                record = None
            if record is None:
                # Our own signature may have come along from a life before a restore: it is not taken over.
                proposal = GrantEnvelope(grant, {theirs: envelope.signatures[theirs]})
                self._book.add(connection, proposal, proposer=other)
                self._append(connection, EventType.GRANT_PROPOSED, grant, by=other)
            elif record.state == "proposed" and record.proposer == me:
                complete = record.envelope.merge(GrantEnvelope(grant, {theirs: envelope.signatures[theirs]}))
                self._verify(complete)
                self._book.accept(connection, complete)
                self._append(connection, EventType.GRANT_ACCEPTED, grant, by=other)
            elif record.state == "revoked" and record.revoked_by == me:
                raise ChaotianError("GRANT_REVOKED", "this node has revoked the grant or declined it")
            return self._book.find(connection, grant.id)

    def receive_revocation(self, revocation: Revocation, sender: str) -> str:
        """Take in the other party's revocation; return the state afterwards. An unknown grant has nothing to revoke."""
        with self._database.begin() as connection:
            try:
                record = self._book.find(connection, revocation.grant)
            except ChaotianError:
                return "unknown"
            if sender != revocation.by or sender != self._counterpart(record.grant):
                raise ChaotianError("NOT_PERMITTED", "a grant is revoked by its parties only", member=sender)
            revocation.verify(self._key(sender))
            if record.state == "revoked":
                return record.state
            _may_revoke(record, sender)
            self._book.revoke(connection, record.grant.id, revocation, by=sender)
            self._append(connection, EventType.GRANT_REVOKED, record.grant, by=sender)
            return "revoked"

    async def on_message(self, sender: str, payload: bytes) -> bytes:
        """Answer another member's message (already opened and verified by the transport)."""
        document = parse_canonical_json(payload, limit=MAX_MESSAGE)
        if not isinstance(document, dict) or set(document) != {"v", "step", "body"} or document["v"] != 1:
            raise ChaotianError("MALFORMED", "expected a grant message: v, step, body", member=sender)
        if document["step"] in ("proposed", "accepted"):
            envelope = GrantEnvelope.from_document(document["body"])
            state = (await asyncio.to_thread(self.receive, envelope, sender)).state
        elif document["step"] == "revoked":
            revocation = Revocation.from_document(document["body"])
            state = await asyncio.to_thread(self.receive_revocation, revocation, sender)
        else:
            raise ChaotianError("MALFORMED", "expected a grant message of a known step", member=sender)
        return canonical_json({"v": 1, "state": state})

    # --- delivery --------------------------------------------------------------------------------------

    async def deliver(self, record: GrantRecord) -> bool:
        """Try once to bring the newest step to the counterpart; return whether it is confirmed now."""
        step = record.undelivered
        if not step:
            return True
        if self._link is None:
            return False
        if step == "revoked" and record.revocation is not None:
            body: Any = record.revocation.document()
        else:
            body = parse_canonical_json(record.envelope.encode(), limit=MAX_ENVELOPE)
        message = canonical_json({"v": 1, "step": step, "body": body})
        other = self._counterpart(record.grant)
        try:
            await self._link.ask_member(other, PURPOSE, message, deadline=DEADLINE)
        except ChaotianError as error:
            if error.code not in ("GRANT_REVOKED", "NOT_PERMITTED", "EXISTS"):
                return False
            # The counterpart's answer is final: repeating the step cannot change it.
        await asyncio.to_thread(self._note_delivered, record.grant.id, step)
        return True

    def _note_delivered(self, grant_id: str, step: str) -> None:
        with self._database.begin() as connection:
            self._book.delivered(connection, grant_id, step)

    async def deliver_pending(self) -> int:
        """Try to deliver everything that waits; return how many were confirmed."""
        records = await asyncio.to_thread(self._waiting)
        return sum([await self.deliver(record) for record in records])

    def _waiting(self) -> list[GrantRecord]:
        with self._database.read() as connection:
            return self._book.undelivered(connection)

    # --- local API ------------------------------------------------------------------------------------

    async def local_propose(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"toml": text, "deliver": bool} -> the grant, its state, and the envelope for a file."""
        text = params.get("toml")
        if not isinstance(text, str):
            raise ChaotianError("BAD_DOCUMENT", "expected the TOML text of a grant")
        around = Surroundings(
            self._identity.space, self._identity.member, self._clock(), self._fingerprints, self._dataset
        )

        def work() -> GrantRecord:
            return self.propose(grant_from_toml(text, around, self._entropy))

        record = await asyncio.to_thread(work)
        return await self._answer(record, deliver=params.get("deliver", True) is not False)

    async def local_accept(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"id": text} or {"file": text of an envelope}, "deliver": bool."""
        text = params.get("file")

        def work() -> GrantRecord:
            if text is None:
                return self.accept(_id(params))
            if not isinstance(text, str):
                raise ChaotianError("BAD_DOCUMENT", "expected the text of a signed grant")
            record = self.receive(GrantEnvelope.from_text(text))
            mine = record.state == "proposed" and record.proposer != self._identity.member
            return self.accept(record.grant.id) if mine else record

        return await self._answer(await asyncio.to_thread(work), deliver=params.get("deliver", True) is not False)

    async def local_revoke(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"id": text}; effective before the counterpart is told."""
        record = await asyncio.to_thread(self.revoke, _id(params))
        return await self._answer(record, deliver=params.get("deliver", True) is not False)

    async def local_list(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"state": text?} -> newest first."""
        state = params.get("state", "")
        if state not in ("", "proposed", "active", "revoked"):
            raise ChaotianError("BAD_DOCUMENT", "state is proposed, active or revoked")

        def work() -> list[dict[str, Any]]:
            with self._database.read() as connection:
                return [record.document() for record in self._book.records(connection, state=state)]

        return {"grants": await asyncio.to_thread(work), "now": self._clock()}

    async def local_show(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"id": text} -> content, clauses in words, state, usage."""
        return await asyncio.to_thread(self._show, _id(params))

    async def local_export(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"id": text} -> the envelope, for a file."""
        found = await asyncio.to_thread(self._show, _id(params))
        return {"id": found["id"], "state": found["state"], "envelope": found["envelope"]}

    async def local_explain(self, params: dict[str, Any]) -> dict[str, Any]:
        """{"id": text, "job": text?, "request": object?} -> what the grant says, clause by clause."""
        job, raw = params.get("job"), params.get("request")

        def work() -> dict[str, Any]:
            shown = self._show(_id(params))
            if job is None and raw is None:
                return shown
            requests = self._requests_of(job) if job is not None else [_request(raw)]
            if job is not None and requests[0].requester == self._identity.member:
                # what the proposer would ask of the grant's owner
                requests = [replace(request, owner=shown["owner"]) for request in requests]
            with self._database.read() as connection:
                decisions = [self._book.decide(connection, shown["id"], request) for request in requests]
            # Of a job that is denied the operation that is; else its first one.
            decision = next((found for found in decisions if not found.permitted), decisions[0])
            return {**shown, "decision": decision.document()}

        return await asyncio.to_thread(work)

    def _requests_of(self, job: Any) -> Sequence[UseRequest]:
        if self.job_requests is None or not isinstance(job, str):
            raise ChaotianError("NOT_FOUND", "this node has no such job")
        return self.job_requests(job)

    def _show(self, grant_id: str) -> dict[str, Any]:
        with self._database.read() as connection:
            record = self._book.find(connection, grant_id)
            usage = self._book.usage(connection, record.grant.id, None, now=self._clock())
        left = max(0, record.grant.calls - usage.calls)
        return {
            **record.document(),
            **view(record.grant),
            "usage": {"calls": usage.calls, "left": left, **_spent(record.grant, usage)},
            "envelope": record.envelope.encode().decode(),
        }

    async def _answer(self, record: GrantRecord, *, deliver: bool) -> dict[str, Any]:
        delivered = await self.deliver(record) if deliver else not record.undelivered
        return {**await asyncio.to_thread(self._show, record.grant.id), "delivered": delivered}

    # --- keys ------------------------------------------------------------------------------------------

    def _counterpart(self, grant: Grant) -> str:
        me = self._identity.member
        if me not in (grant.owner, grant.grantee):
            raise ChaotianError("NOT_PERMITTED", f"{me} is neither owner nor grantee of this grant")
        return grant.grantee if grant.owner == me else grant.owner

    def _key(self, member: str) -> Verifier:
        if member == self._identity.member:
            return self._identity.signer.verifier
        if member == PLATFORM:
            return self._peers.coordinator()
        found = self._peers.approved().get(member)
        if found is None:
            raise ChaotianError("NOT_APPROVED", f"{member} is not an approved member here", member=member)
        return found

    def _fingerprints(self, member: str) -> list[str]:
        try:
            return [self._key(member).fingerprint.hex()]
        except ChaotianError as error:
            if error.code != "NOT_APPROVED":
                raise
            return []

    def _verify(self, envelope: GrantEnvelope) -> SignedGrant:
        return envelope.verify(self._key(envelope.grant.owner), self._key(envelope.grant.grantee))

    def _append(self, connection: Connection, kind: EventType, grant: Grant, *, by: str) -> None:
        payload = {"by": by, "dataset": grant.dataset.id, "purposes": list(grant.purposes), "exp": grant.exp}
        parties = (grant.owner, grant.grantee)
        self._log.append(connection, Event(kind, parties, grant.id, bytes.fromhex(grant.id), payload))


def _parties_of(grant: Grant, member: str) -> list[str]:
    return [party for party, name in (("owner", grant.owner), ("grantee", grant.grantee)) if name == member]


def _may_revoke(record: GrantRecord, member: str) -> None:
    grant = record.grant
    if record.state == "active" and grant.owner != member and grant.revocation_by != "either":
        raise ChaotianError("NOT_PERMITTED", "the grant leaves its revocation to the owner", member=grant.owner)


def _spent(grant: Grant, usage: Usage) -> dict[str, float]:
    """Return ε that noised rounds have spent within the budget's period; nothing without a budget."""
    return {} if grant.budget is None else {"epsilon": zcdp.epsilon(usage.loss, float(grant.budget.delta))}


def _id(params: Mapping[str, Any]) -> str:
    found = params.get("id")
    if not isinstance(found, str):
        raise ChaotianError("BAD_DOCUMENT", "expected the id of a grant, or its first 8 digits")
    return found


def _request(raw: Any) -> UseRequest:
    """Return the request of a JSON object with exactly the fields of `UseRequest`."""
    try:
        values = dict(raw)
        values["columns"], values["members"] = tuple(values["columns"]), tuple(values["members"])
        request = UseRequest(**values)
    except (TypeError, KeyError, ValueError):
        raise ChaotianError("BAD_DOCUMENT", "expected a request with the fields of UseRequest") from None
    whole = (request.grade, request.round, request.min_members, request.min_rows, request.roster_changes)
    texts = (
        request.space, request.owner, request.requester, request.requester_key, request.requester_role,
        request.dataset, request.schema, request.purpose, request.operation, request.job, request.result_to,
        request.disclosure, request.out, *request.columns, *request.members,
    )  # fmt: skip
    age_good = all(value is None or type(value) in (int, float) for value in (request.as_of, request.loss))
    age_good = age_good and (request.loss is None or 0 <= request.loss < 1e9)
    if (
        not all(type(value) is int for value in whole)
        or not all(isinstance(text, str) for text in texts)
        or not age_good
    ):
        raise ChaotianError("BAD_DOCUMENT", "a field of the request has another type")
    return request
