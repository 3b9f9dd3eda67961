"""The platform's side of one round: attempts until a result, or an end. Pure: fed with replies and losses.

The coordinator carries messages, checks what can be checked without secrets, adds masked inputs, opens the
self-masks, and hands the still encrypted total on. It is not trusted with anything but to keep going.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from federation.errors import ChaotianError
from federation.primitives.encoding import Buffer, pack, pack_map, unpack, unpack_map, unpack_views
from federation.primitives.masks import Vector, add_streams, raw
from federation.primitives.shamir import SHARE_BYTES, Combiner
from federation.primitives.signing import Signer, Verifier
from federation.secure_sum import messages as m
from federation.secure_sum.member import unwrap_parcels, wrap
from federation.secure_sum.terms import MIN_ROSTER, STAGES, TERMS_TAG, Layout, Noise, Terms, roster_of
from federation.secure_sum.transcript import as_vector, check_seeds

# A member that answers with one of these does so because of the job, not of itself: every member would.
FATAL = frozenset({"FLOOR_LOST", "STATE_MISMATCH", "WRONG_TERMS", "TRANSCRIPT", "UNVERIFIABLE", "RELEASE_DIFFERENCE",
                   "ROSTER_CHANGES", "CANCELLED"})  # fmt: skip


class Journal(Protocol):
    """Where the coordinator keeps what it needs to finish a round in `unmask` after its own crash."""

    def save(self, record: bytes) -> None:
        """Make `record` durable before the first `unmask` request is sent."""
        ...

    def clear(self) -> None:
        """Delete the record: shares, seeds and masked inputs end with the result."""
        ...


@dataclass(frozen=True)
class RoundPlan:
    """What a round is about, before a roster is fixed; see `Terms` for the fields.

    Args:
        members: who is in, sorted.
        first_attempt: number of the first attempt, above any that was ever used for the round.
    """

    space: str
    job: str
    round: int
    operation: str
    purpose: str
    layout: Layout
    state_hash: bytes
    members: tuple[str, ...]
    min_members: int
    min_rows: int
    grants: Mapping[str, str]
    result_to: str = "members"
    verified: bool = True
    noise: Noise | None = None
    first_attempt: int = 1


@dataclass(frozen=True)
class Send:
    """One request to be delivered; its reply is fed back with the same member, attempt and stage."""

    member: str
    attempt: int
    stage: str
    request: bytes


@dataclass(frozen=True)
class Loss:
    """A member that dropped out of an attempt, at which stage and with which code."""

    member: str
    attempt: int
    stage: str
    code: str


@dataclass(frozen=True)
class RoundOutcome:
    """How a round ended.

    Args:
        error: code where the round failed, else empty.
        roster: the members whose inputs the total holds.
        survivors: those of them that took part to the end.
        progress: `continue`, `done` or `failed` as all survivors say; `failed` where `error` is set.
        total: the decoded ring elements, only under result_to `platform` or `both`.
    """

    error: str
    roster: tuple[str, ...]
    survivors: tuple[str, ...]
    attempts: int
    losses: tuple[Loss, ...]
    progress: str = "failed"
    state_hash: bytes = b""
    layout: Layout | None = None
    operation: str = ""
    total: Vector | None = None


@dataclass
class _Attempt:
    """What the coordinator collects in one attempt."""

    terms: Terms
    stage: str
    waiting: set[str]
    alive: set[str]
    replies: dict[str, bytes] = field(default_factory=dict)
    adverts: dict[str, bytes] = field(default_factory=dict)
    adverts_hash: bytes = b""
    commitments: dict[str, bytes] = field(default_factory=dict)  # to self-mask seeds
    parcels: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sender → receiver → parcel
    shares: dict[str, dict[str, bytes]] = field(default_factory=dict)  # sender → receiver → commitment to the share
    seeds: dict[str, bytes] = field(default_factory=dict)
    inputs: dict[str, Buffer] = field(default_factory=dict)  # empty where nobody adds them up again
    digests: dict[str, bytes] = field(default_factory=dict)  # SHA-256 of the inputs
    signatures: dict[str, bytes] = field(default_factory=dict)  # of masked inputs
    confirmed: dict[str, bytes] = field(default_factory=dict)  # what each says of the group key
    statement: dict[str, bytes] = field(default_factory=dict)  # signatures over the statement
    statuses: dict[str, m.Status] = field(default_factory=dict)
    running: Vector | None = None
    total: Vector | None = None


class CoordinatorRound:
    """One round on the platform.

    Args:
        plan: what the round is about.
        signer: the platform's identity key.
        members: identity keys of the plan's members.
        journal: see `Journal`.
    """

    def __init__(self, plan: RoundPlan, *, signer: Signer, members: Mapping[str, Verifier], journal: Journal) -> None:
        self.plan, self.outcome = plan, None
        self.losses: list[Loss] = []
        self.journal_error: ChaotianError | None = None  # where the record could not be deleted after the round
        self._signer, self._keys, self._journal = signer, members, journal
        self._number = plan.first_attempt - 1
        self._attempt: _Attempt | None = None

    outcome: RoundOutcome | None

    @property
    def terms(self) -> Terms | None:
        """The terms of the attempt at hand."""
        return self._attempt.terms if self._attempt else None

    @property
    def stage(self) -> str:
        """The stage at hand, empty before the first and after the last."""
        return self._attempt.stage if self._attempt and self.outcome is None else ""

    @property
    def waiting(self) -> frozenset[str]:
        """Members whose reply to the stage at hand is still missing."""
        return frozenset(self._attempt.waiting) if self._attempt and self.outcome is None else frozenset()

    # --- events --------------------------------------------------------------------------------------------

    def begin(self) -> list[Send]:
        """Start the first attempt."""
        return self._start(self.plan.members)

    def reply(self, member: str, attempt: int, stage: str, reply: bytes) -> list[Send]:
        """Take a member's reply; duplicates and replies to what is over are ignored.

        A reply that cannot be right costs its sender its place, as `lost` does.
        """
        at = self._current(member, attempt, stage)
        if at is None:
            return []
        try:
            getattr(self, f"_take_{stage}")(at, member, reply)
        except ChaotianError as error:
            return self.lost(member, attempt, error.code)
        at.waiting.discard(member)
        return self._advance(at)

    def refused(self, member: str, attempt: int, stage: str, error: ChaotianError) -> list[Send]:
        """Take a member's coded refusal.

        A refusal for the job's sake ends the round; a sealed share that does not open costs the member it names its
        place, any other refusal the one that refuses: all else a member could blame a peer for has been checked here.
        """
        at = self._current(member, attempt, stage)
        if at is None:
            return []
        if error.code in FATAL:
            self.losses.append(Loss(member, attempt, stage, error.code))
            return self._end(error.code)
        sealed = stage == "masked_input" and error.code == "SHARE_INVALID"
        blamed = error.member if sealed and error.member in at.alive else member
        return self.lost(blamed, attempt, error.code)

    def lost(self, member: str, attempt: int, code: str) -> list[Send]:
        """Take the loss of a member: away, late, or wrong."""
        at = self._attempt
        if at is None or self.outcome is not None or attempt != at.terms.attempt or member not in at.alive:
            return []
        self.losses.append(Loss(member, attempt, at.stage, code))
        at.alive.discard(member)
        at.waiting.discard(member)
        if at.stage in ("unmask", "result"):
            if at.stage == "unmask" and len(at.alive | at.replies.keys()) < at.terms.threshold:
                return self._end("TOO_FEW_MEMBERS")
            return self._advance(at)
        # The inputs of the whole roster or none: whoever is left starts afresh, with fresh keys.
        return self._start(tuple(name for name in at.terms.members if name in at.alive))

    # --- attempts and stages -------------------------------------------------------------------------------

    def _current(self, member: str, attempt: int, stage: str) -> _Attempt | None:
        at = self._attempt
        if at is None or self.outcome is not None or attempt != at.terms.attempt or stage != at.stage:
            return None
        return at if member in at.waiting else None

    def _start(self, members: tuple[str, ...]) -> list[Send]:
        self._attempt = None
        if len(members) < max(MIN_ROSTER, self.plan.min_members):
            return self._end("TOO_FEW_MEMBERS", roster=members)
        self._number += 1
        plan = self.plan
        terms = Terms(
            space=plan.space,
            job=plan.job,
            round=plan.round,
            attempt=self._number,
            operation=plan.operation,
            purpose=plan.purpose,
            layout=plan.layout,
            state_hash=plan.state_hash,
            roster=roster_of({name: self._keys[name].fingerprint for name in members}),
            min_members=plan.min_members,
            min_rows=plan.min_rows,
            grants=tuple((name, plan.grants[name]) for name in members),
            result_to=plan.result_to,
            verified=plan.verified,
            noise=plan.noise,
        ).checked()
        self._attempt = _Attempt(terms, STAGES[0], set(members), set(members))
        request = pack("terms", [terms.encode(), self._signer.sign(TERMS_TAG, terms.encode())])
        return [Send(name, self._number, STAGES[0], request) for name in members]

    def _advance(self, at: _Attempt) -> list[Send]:
        """Go on to the next stage once nobody is waited for."""
        if at.waiting or self.outcome is not None:
            return []
        following = STAGES.index(at.stage) + 1
        try:
            if at.stage == "result":
                return self._finish(at)
            if at.stage == "consistency":
                dissenters = self._dissenters(at)
                if dissenters:
                    self.losses += [Loss(name, at.terms.attempt, at.stage, "STATE_MISMATCH") for name in dissenters]
                    return self._start(tuple(name for name in at.terms.members if name not in dissenters))
                self._save(self._record(at))
            elif at.stage == "unmask":
                self._open(at)
        except ChaotianError as error:
            if error.member in at.terms.members:
                self.losses.append(Loss(error.member, at.terms.attempt, at.stage, error.code))
            return self._end(error.code)
        at.stage, at.replies, at.waiting = STAGES[following], {}, set(at.alive)
        if not at.waiting:  # all were lost after they had answered: nobody is left to take the result
            return self._end("TOO_FEW_MEMBERS")
        return self._sends(at, getattr(self, f"_ask_{at.stage}")(at))

    def _sends(self, at: _Attempt, bodies: bytes | Mapping[str, bytes]) -> list[Send]:
        """Return the stage's requests; one that all members get is made once, whatever its size."""
        members = [name for name in at.terms.members if name in at.alive]
        if isinstance(bodies, bytes):
            requests = dict.fromkeys(members, wrap(at.terms.hash(), bodies))
        else:
            requests = {name: wrap(at.terms.hash(), bodies[name]) for name in members}
        return [Send(name, at.terms.attempt, at.stage, requests[name]) for name in members]

    def _end(self, code: str, roster: tuple[str, ...] = ()) -> list[Send]:
        at = self._attempt
        members = at.terms.members if at else roster
        alive = tuple(name for name in members if at is None or name in at.alive)
        self.outcome = RoundOutcome(code, members, alive, self._number, tuple(self.losses))
        self._attempt = None
        self._clear()
        return []

    def _save(self, record: bytes) -> None:
        try:
            self._journal.save(record)
        except ChaotianError:
            raise
        except Exception as error:
            raise ChaotianError("STORAGE", f"the journal could not be written: {type(error).__name__}") from error

    def _clear(self) -> None:
        """Delete the record. The round has ended, so a failure is kept for the platform to report, and not raised."""
        try:
            self._journal.clear()
        except ChaotianError as error:
            self.journal_error = error
        except Exception as error:
            self.journal_error = ChaotianError("STORAGE", f"the journal was not deleted: {type(error).__name__}")

    # --- 1 advertise_keys ----------------------------------------------------------------------------------

    def _take_advertise_keys(self, at: _Attempt, member: str, reply: bytes) -> None:
        advert = m.Advert.decode(reply, member, self._keys[member], at.terms)
        if (advert.state_hash, advert.layout_hash) != (at.terms.state_hash, at.terms.layout.hash()):
            raise ChaotianError("STATE_MISMATCH", f"{member} stands elsewhere in the job", member=member)
        at.adverts[member] = reply
        at.commitments[member] = advert.seed_commitment

    def _ask_share_keys(self, at: _Attempt) -> bytes:
        at.adverts_hash = m.adverts_hash(at.adverts)
        return pack_map("share_keys", at.adverts)

    # --- 2 share_keys --------------------------------------------------------------------------------------

    def _take_share_keys(self, at: _Attempt, member: str, reply: bytes) -> None:
        parcels = unwrap_parcels(reply, at.terms)
        shares = {}
        for name, data in parcels.items():
            parcel = m.Parcel.decode(data)
            # Else a sender could have its receivers refuse, and lose their places, by signing to them alone wrongly.
            signed = m.Parcel.signed_body(at.terms, at.adverts_hash, member, name, parcel.sealed, parcel.commitment)
            self._keys[member].verify(m.SHARE, signed, parcel.signature, member=member)
            shares[name] = parcel.commitment
        at.shares[member] = shares
        at.parcels[member] = parcels

    def _ask_masked_input(self, at: _Attempt) -> dict[str, bytes]:
        parcels, at.parcels = at.parcels, {}
        return {
            receiver: pack_map("masked_input", {sender: parcels[sender][receiver] for sender in at.terms.members})
            for receiver in at.terms.members
        }

    # --- 3 masked_input ------------------------------------------------------------------------------------

    def _take_masked_input(self, at: _Attempt, member: str, reply: bytes) -> None:
        data, claimed, signed_by = unpack_views(m.MASKED_INPUT, reply, 3)
        vector, vector_digest, signature = as_vector(at.terms, data), bytes(claimed), bytes(signed_by)
        # Whoever adds the inputs up again compares them with their digests; where nobody does, a wrong digest shows
        # nothing that a wrong vector would not, and hashing would be a tenth of the round.
        if self._keeps_inputs(at) and hashlib.sha256(data).digest() != vector_digest:
            raise ChaotianError("SIGNATURE", "a masked input is not the one its member signed", member=member)
        if len(vector_digest) != 32:
            raise ChaotianError("MALFORMED", "a digest has 32 bytes", member=member)
        signed = m.masked_body(at.terms, at.adverts_hash, member, vector_digest)
        self._keys[member].verify(m.MASKED, signed, signature, member=member)
        at.digests[member], at.signatures[member] = vector_digest, signature
        at.inputs[member] = data if self._keeps_inputs(at) else b""
        if at.running is None:
            at.running = vector.copy()
        else:
            np.add(at.running, vector, out=at.running)

    def _ask_consistency(self, at: _Attempt) -> bytes:
        entries = {name: pack("input", [at.digests[name], at.signatures[name]]) for name in at.terms.members}
        return pack_map("consistency", entries)

    def _keeps_inputs(self, at: _Attempt) -> bool:
        """Whether members will ask for the signed inputs again; else the running sum is enough."""
        return at.terms.verified and at.terms.result_to != "platform"

    # --- 4 consistency -------------------------------------------------------------------------------------

    def _take_consistency(self, at: _Attempt, member: str, reply: bytes) -> None:
        confirmed, signature = unpack("consistency", reply, 2)
        body = m.statement(at.terms, at.adverts_hash, at.digests, confirmed)
        self._keys[member].verify(m.STATEMENT, body, signature, member=member)
        at.confirmed[member], at.statement[member] = confirmed, signature

    def _dissenters(self, at: _Attempt) -> set[str]:
        """Return who holds another group key than most do. All g_i are committed to, so an honest member cannot."""
        said = list(at.confirmed.values())
        common = max(sorted(set(said)), key=said.count) if at.terms.group else m.NOTHING
        return {name for name, confirmed in at.confirmed.items() if confirmed != common}

    def _ask_unmask(self, at: _Attempt) -> bytes:
        return pack_map("unmask", at.statement)

    # --- 5 unmask ------------------------------------------------------------------------------------------

    def _take_unmask(self, at: _Attempt, member: str, reply: bytes) -> None:
        shares, signature = unpack("unmask", reply, 2)
        self._keys[member].verify(m.UNMASK, m.unmask_body(at.terms, shares), signature, member=member)
        receiver = at.terms.members.index(member)
        for dealer, share in enumerate(m.request_map("shares", at.terms, shares).values()):
            # The dealer committed to each share: whoever opens another one is found out at once.
            committed = at.shares[at.terms.members[dealer]][member]
            if len(share) != SHARE_BYTES or m.commit_share(at.terms, dealer, receiver, share) != committed:
                raise ChaotianError("SHARE_INVALID", f"{member} opened a wrong share", member=member)
        at.replies[member] = shares

    def _open(self, at: _Attempt) -> None:
        """Rebuild the self-mask seeds from t answers and take the self-masks off the sum."""
        terms = at.terms
        answered = [name for name in terms.members if name in at.replies][: terms.threshold]
        combiner = Combiner([terms.members.index(name) + 1 for name in answered])
        shares = {name: m.request_map("shares", terms, at.replies[name]) for name in answered}
        at.seeds = {
            owner: combiner.combine({terms.members.index(name) + 1: shares[name][owner] for name in answered})
            for owner in terms.members
        }
        check_seeds(terms, at.seeds, at.commitments)
        assert at.running is not None
        self_masks = [(m.self_stream(terms, at.seeds[name], i), -1) for i, name in enumerate(terms.members)]
        add_streams(at.running, self_masks)
        at.total, at.running = at.running, None

    def _ask_result(self, at: _Attempt) -> bytes:
        """Under `members` the total is still encrypted; the transcript goes along where members add up again."""
        assert at.total is not None
        if at.terms.result_to == "platform":
            return pack("result", [b"", b"", b""])
        if not at.terms.verified:
            return pack("result", [raw(at.total), b"", b""])
        inputs, seeds = pack_map("inputs", at.inputs), pack_map("seeds", at.seeds)
        return pack("result", [raw(at.total), inputs, seeds])

    # --- 6 result ------------------------------------------------------------------------------------------

    def _take_result(self, at: _Attempt, member: str, reply: bytes) -> None:
        at.statuses[member] = m.Status.decode(reply, at.terms, member, self._keys[member])

    def _finish(self, at: _Attempt) -> list[Send]:
        """All that are left have said where they stand: they must say the same."""
        statuses = {at.statuses[name] for name in at.alive if name in at.statuses}
        if not statuses:
            return self._end("TOO_FEW_MEMBERS")
        if len(statuses) != 1:
            return self._end("STATE_MISMATCH")
        status = statuses.pop()
        public = at.total if at.terms.result_to != "members" else None
        self.outcome = RoundOutcome(
            error=status.code,
            roster=at.terms.members,
            survivors=tuple(name for name in at.terms.members if name in at.alive),
            attempts=self._number,
            losses=tuple(self.losses),
            progress=status.progress.decode(),
            state_hash=status.state_hash,
            layout=Layout.decode(status.layout) if status.layout else None,
            operation=status.operation,
            total=public,
        )
        self._attempt = None
        self._clear()
        return []

    # --- its own crash -------------------------------------------------------------------------------------

    def _record(self, at: _Attempt) -> bytes:
        """Return what is needed to go on at `unmask`: nothing in it opens a mask before the members answer."""
        assert at.running is not None
        shares = {sender: pack_map("commitments", each) for sender, each in at.shares.items()}
        return pack(
            "journal",
            [
                at.terms.encode(),
                pack_map("adverts", at.adverts),
                pack_map("shares", shares),
                pack_map("inputs", at.inputs),
                pack_map("statement", at.statement),
                raw(at.running),
                pack_map("alive", dict.fromkeys(at.alive, b"")),
            ],
        )

    def resume(self, record: bytes) -> list[Send]:
        """Go on at `unmask` from a journal's record, after a restart of the platform.

        Raises:
            ChaotianError: STORAGE where the record is not one of this round; then a new attempt may be begun.
        """
        try:
            at = self._restored(record)
        except ChaotianError as error:
            raise ChaotianError("STORAGE", f"the journal cannot be read: {error.code}") from None
        self._attempt, self._number = at, at.terms.attempt
        return self._sends(at, self._ask_unmask(at))

    def _restored(self, record: bytes) -> _Attempt:
        encoded, adverts, shares, inputs, signatures, running, alive = unpack("journal", record, 7)
        terms = Terms.decode(encoded)
        names = set(unpack_map("alive", alive))
        plan = (self.plan.space, self.plan.job, self.plan.round, self.plan.purpose)
        if (terms.space, terms.job, terms.round, terms.purpose) != plan or not names <= set(terms.members):
            raise ChaotianError("WRONG_TERMS", "the record is of another round")
        if not set(terms.members) <= self._keys.keys():
            raise ChaotianError("NOT_FOUND", "the record names a member that is not known")
        at = _Attempt(terms, "unmask", set(names), names)
        at.adverts = m.request_map("adverts", terms, adverts)
        at.adverts_hash = m.adverts_hash(at.adverts)
        at.commitments = {
            name: m.Advert.decode(data, name, self._keys[name], terms).seed_commitment
            for name, data in at.adverts.items()
        }
        dealt = m.request_map("shares", terms, shares)
        at.shares = {name: m.request_map("commitments", terms, data) for name, data in dealt.items()}
        at.inputs = dict(m.request_map("inputs", terms, inputs))
        at.statement = m.request_map("statement", terms, signatures)
        at.running = as_vector(terms, running).copy()
        return at
