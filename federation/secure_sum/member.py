"""A member's side of the secure sum: one `MemberJob` over all rounds and attempts of a job.

After Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS 2017), with the
additions against an active server; an attempt completes only with the inputs of its whole roster, so mask keys are
never shared out. What is private lives in memory until the round ends; durable are only the two markers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from federation.errors import ChaotianError
from federation.primitives import fixed_point
from federation.primitives.encoding import (
    Buffer,
    canonical_json,
    pack,
    pack_in_place,
    pack_map,
    unpack,
    unpack_map,
    unpack_views,
)
from federation.primitives.entropy import Entropy
from federation.primitives.masks import Vector, add_streams, raw
from federation.primitives.sealing import SECRET_BYTES, Opener, seal
from federation.primitives.shamir import split
from federation.primitives.signing import Signer
from federation.secure_sum import messages as m
from federation.secure_sum.program import Contribution, JobView, Markers, Program
from federation.secure_sum.terms import MIN_ROSTER, STAGES, TERMS_TAG, VERIFIED_BYTES, Layout, Terms, state_digest
from federation.secure_sum.transcript import as_vector, verify

# What may follow what: a request for any other stage is out of order.
NEXT = dict(pairwise(STAGES))


@dataclass
class _Attempt:
    """What a member holds in memory for one attempt; none of it is ever written down."""

    terms: Terms
    index: int
    after_loss: bool
    opener: Opener | None
    mask_key: X25519PrivateKey | None
    self_seed: bytes
    group_part: bytes
    pair_seeds: dict[str, bytes]
    stage: str = STAGES[0]
    replies: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    own: m.Advert | None = None
    advert: bytes = b""  # the own one, signed
    adverts: dict[str, m.Advert] = field(default_factory=dict)
    adverts_hash: bytes = b""
    shares: dict[str, bytes] = field(default_factory=dict)  # of each owner's seed, for this member
    group_key: bytes = m.NOTHING
    streams: list[tuple[bytes, int]] = field(default_factory=list)  # keys and signs of the own masks
    signature: bytes = b""  # over the masked vector
    input_digest: bytes = b""
    digests: dict[str, bytes] = field(default_factory=dict)
    statement: bytes = b""
    statement_signature: bytes = b""
    parcel: bytes = b""  # to itself: it carries the commitment to the own share

    def forget(self) -> None:
        """Drop what could open this attempt later; replies stay, so that a repeated request is answered alike."""
        self.opener, self.mask_key = None, None
        self.self_seed = self.group_part = b""
        self.group_key = m.NOTHING
        self.pair_seeds, self.shares, self.streams = {}, {}, []

    def __repr__(self) -> str:
        return f"_Attempt(round={self.terms.round}, attempt={self.terms.attempt}, stage={self.stage})"


class MemberJob:
    """One member's side of one job.

    Args:
        member: this member's name.
        view: what this member itself knows of the job and agreed to.
        signer: its identity key.
        program: the job's arithmetic over this member's own rows.
        markers: the two durable commits of a round.
        entropy: source of randomness.
    """

    def __init__(
        self, *, member: str, view: JobView, signer: Signer, program: Program, markers: Markers, entropy: Entropy
    ) -> None:
        self.member, self.view, self.program = member, view, program
        self.round = 1
        self.failure: ChaotianError | None = None
        self._signer, self._markers, self._entropy = signer, markers, entropy
        self._last_result = m.NOTHING
        self._state_key = b""  # from the group key of the last result: without it the state's hash could be tried out
        self._last_roster: tuple[str, ...] | None = None
        self._roster_changes = 0
        self._attempt: _Attempt | None = None
        self._asked = (0, 0)  # highest (round, attempt) begun since the start of this process
        # This round's own values: the same in every attempt of the round, and in memory only.
        self._own: Mapping[str, Contribution] | None = None
        # What the program derived: it changes with `advance` and `restore` only, and is asked for at every stage.
        self._state: bytes | None = None
        self._layout: Layout | None = None

    # --- position, for going on after a restart ------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return where the job stands after the last verified result: canonical JSON.

        Totals' successors stand in it and the key of the state's hash: it is for this member's own disk alone.
        """
        return canonical_json(
            {
                "round": self.round,
                "last_result": self._last_result.hex(),
                "last_roster": list(self._last_roster) if self._last_roster is not None else None,
                "roster_changes": self._roster_changes,
                "state_key": self._state_key.hex(),
                "state": self._derived_state().decode(),
            }
        )

    def restore(self, snapshot: bytes) -> None:
        """Take up the position of `snapshot`; whatever was under way stays lost."""
        try:
            position = json.loads(snapshot)
            roster, state = position["last_roster"], position["state"].encode()
            round_, changes = int(position["round"]), int(position["roster_changes"])
            last_result = bytes.fromhex(position["last_result"])
            last_roster = tuple(str(name) for name in roster) if roster is not None else None
            state_key = bytes.fromhex(position["state_key"])
            if round_ < 1 or changes < 0 or len(last_result) != 32 or len(state_key) not in (0, 32):
                raise ValueError
            self.program.restore(state)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise ChaotianError("STORAGE", "the stored position of the job cannot be read") from None
        self.round, self._roster_changes = round_, changes
        self._last_result, self._last_roster, self._state_key = last_result, last_roster, state_key
        self._attempt = self._own = self._state = self._layout = None

    def moved(self) -> None:
        """Look again at what the program derives: between two rounds it has taken up something new.

        Raises:
            ChaotianError: REPLAY where this round's own values are made already.
        """
        if self._own is not None:
            raise ChaotianError("REPLAY", "the own values of this round are made already")
        self._attempt = self._state = self._layout = None

    def _derived_state(self) -> bytes:
        if self._state is None:
            self._state = self.program.state()
        return self._state

    def state_hash(self) -> bytes:
        """Return the hash (32 bytes) under which the derived state stands in terms, adverts and statuses."""
        return state_digest(self._derived_state(), self._state_key)

    def _derived_layout(self) -> Layout:
        if self._layout is None:
            self._layout = self.program.layout()
        return self._layout

    # --- the one door --------------------------------------------------------------------------------------

    def handle(self, stage: str, request: bytes) -> bytes:
        """Answer one stage request.

        A repeated request gets the byte-identical reply; anything that does not belong to the attempt at hand gets
        LOST or REPLAY and changes nothing. Any other refusal ends the attempt: its secrets are dropped.

        Args:
            stage: one of `STAGES`.
            request: for `advertise_keys` the signed terms, else `wrap(terms hash, body)`.

        Raises:
            ChaotianError: whose `member` names the culprit where there is one.
        """
        if stage not in STAGES:
            raise ChaotianError("MALFORMED", "the stage is none of the six")
        try:
            return self._answer(stage, request)
        except ChaotianError:
            raise
        except Exception as error:
            # A program or a store that fails in a way nobody foresaw ends the attempt like any other refusal.
            self._attempt = None
            raise ChaotianError("INTERNAL", f"{type(error).__name__} in stage {stage}") from error

    def _answer(self, stage: str, request: bytes) -> bytes:
        fingerprint = hashlib.sha256(request).digest()
        if stage == "advertise_keys":
            attempt = self._attempt
            if attempt is not None and attempt.replies.get(stage, (b"",))[0] == fingerprint:
                return attempt.advert
            self._attempt = attempt = self._begin(request)
            reply = attempt.advert
        else:
            terms_hash, body = unpack_views("request", request, 2)
            attempt = self._attempt
            if attempt is None or attempt.terms.hash() != terms_hash:
                raise ChaotianError("LOST", "this member holds nothing of that attempt (any more)")
            if stage in attempt.replies:
                if attempt.replies[stage][0] == fingerprint:
                    return attempt.replies[stage][1] if stage != "masked_input" else self._masked(attempt)
                raise ChaotianError("REPLAY", f"stage {stage} was answered already, to another request")
            if NEXT.get(attempt.stage) != stage:
                raise ChaotianError("REPLAY", f"stage {stage} does not follow {attempt.stage}")
            try:
                reply = getattr(self, f"_{stage}")(attempt, body)
            except ChaotianError:
                if stage != "result":  # a right result may still come
                    self._attempt = None
                raise
        # Megabytes of masked vector are not kept: that reply is made again where it is asked for again.
        attempt.replies[stage] = (fingerprint, reply if stage != "masked_input" else b"")
        attempt.stage = stage
        if stage == STAGES[-1]:
            attempt.forget()
        return bytes(reply)

    # --- 1 advertise_keys ----------------------------------------------------------------------------------

    def _begin(self, request: bytes) -> _Attempt:
        """Check the terms against what this member knows, and make fresh keys for the attempt."""
        encoded, signature = unpack("terms", request, 2)
        self.view.coordinator.verify(TERMS_TAG, encoded, signature, member="the platform")
        terms = Terms.decode(encoded)
        self._check_terms(terms)
        random = self._entropy.bytes
        index = terms.members.index(self.member)
        opener, mask_key = Opener(random(SECRET_BYTES)), X25519PrivateKey.from_private_bytes(random(32))
        attempt = _Attempt(
            terms=terms,
            index=index,
            after_loss=self._last_roster is not None and terms.members != self._last_roster,
            opener=opener,
            mask_key=mask_key,
            self_seed=random(32),
            group_part=random(32) if terms.group else m.NOTHING,
            pair_seeds={name: random(32) for name in terms.members if name != self.member},
        )
        attempt.own = m.Advert(
            terms_hash=terms.hash(),
            member=self.member,
            channel=opener.public,
            mask=mask_key.public_key().public_bytes_raw(),
            seed_commitment=m.commit("seed", terms, index, attempt.self_seed),
            group_commitment=m.commit("group", terms, index, attempt.group_part) if terms.group else m.NOTHING,
            last_result=self._last_result,
            state_hash=terms.state_hash,
            layout_hash=terms.layout.hash(),
        )
        attempt.advert = attempt.own.encode(self._signer)
        self._asked = (terms.round, terms.attempt)
        return attempt

    def _check_terms(self, terms: Terms) -> None:
        """Hold the terms against this member's own knowledge; nothing of them is taken on trust."""
        view = self.view

        def wrong(what: str) -> ChaotianError:
            return ChaotianError("WRONG_TERMS", f"{what} in the terms is not what this member agreed to or derived")

        if terms.space != view.space or terms.job != view.job or terms.purpose != view.purpose:
            raise wrong("space, job or purpose")
        if self._markers.spent(terms.job, terms.round):
            raise ChaotianError("ROUND_SPENT", f"round {terms.round} was released already")
        if self.failure is not None or self.program.done():
            raise ChaotianError("LOST", "the job has ended at this member")
        if terms.round != self.round:
            raise ChaotianError("LOST", f"this member stands before round {self.round}, not {terms.round}")
        last = self._markers.last_attempt(terms.job, terms.round)
        if terms.attempt <= last or (terms.round, terms.attempt) <= self._asked:
            raise ChaotianError("LOST", f"attempt {terms.attempt} of round {terms.round} is over for this member")
        if terms.min_members != view.min_members or terms.min_rows != view.min_rows:
            raise wrong("a floor")
        if terms.result_to != view.result_to:
            raise wrong("result_to")
        if not terms.verified and not view.unverified:
            raise wrong("a total that is not verified")
        if terms.noise != view.noise:
            raise wrong("the noise")
        if terms.verified and terms.result_to != "platform":
            size = terms.layout.byte_length * len(terms.roster)
            if size > VERIFIED_BYTES:
                raise ChaotianError("UNVERIFIABLE", f"the transcript would have {size} bytes, at most {VERIFIED_BYTES}")
        if terms.operation != self.program.operation or terms.layout != self._derived_layout():
            raise wrong("operation or layout")
        if terms.state_hash != self.state_hash():
            raise ChaotianError("STATE_MISMATCH", "the terms name a state this member did not derive")
        self._check_roster(terms)

    def _check_roster(self, terms: Terms) -> None:
        """Count only peers this member approved, under the keys of its own directory."""
        view = self.view
        if self.member not in terms.members or len(terms.members) < max(MIN_ROSTER, view.min_members):
            raise ChaotianError("TOO_FEW_MEMBERS", f"the roster has {len(terms.members)} members")
        for name, fingerprint in terms.roster:
            if name not in view.members:
                raise ChaotianError("NOT_APPROVED", f"{name} is not an approved member of this job", member=name)
            if view.members[name].fingerprint != fingerprint:
                raise ChaotianError(
                    "WRONG_TERMS", f"the terms name another key for {name} than the directory", member=name
                )
        if any(view.grants.get(name) != grant for name, grant in terms.grants):
            raise ChaotianError("WRONG_TERMS", "the terms name other grants than the members accepted under")
        if self._last_roster is not None and terms.members != self._last_roster:
            if not set(terms.members) <= set(self._last_roster):
                raise ChaotianError("WRONG_TERMS", "a member that a round was released without stays out for the job")
            if self._roster_changes + 1 > view.max_roster_changes:
                raise ChaotianError("ROSTER_CHANGES", f"at most {view.max_roster_changes} changes are allowed")

    # --- 2 share_keys --------------------------------------------------------------------------------------

    def _share_keys(self, attempt: _Attempt, body: Buffer) -> bytes:
        """Check all adverts against the own directory, then seal shares and seeds to each peer."""
        terms = attempt.terms
        adverts = m.request_map("share_keys", terms, body)
        if adverts[self.member] != attempt.advert:
            raise ChaotianError("WRONG_TERMS", "the platform shows another advert of this member than it sent")
        own = attempt.own
        assert own is not None
        for name, data in adverts.items():
            if name == self.member:
                attempt.adverts[name] = own
                continue
            advert = m.Advert.decode(data, name, self.view.members[name], terms, try_keys=False)
            same = (advert.last_result, advert.state_hash, advert.layout_hash)
            if same != (own.last_result, own.state_hash, own.layout_hash):
                raise ChaotianError(
                    "STATE_MISMATCH", f"{name} stands elsewhere in the job than this member", member=name
                )
            attempt.adverts[name] = advert
        attempt.adverts_hash = m.adverts_hash(adverts)
        floors = self.program.floors() if attempt.after_loss else b""
        shares = split(attempt.self_seed, terms.threshold, len(terms.roster), self._entropy)
        attempt.shares[self.member] = shares[attempt.index]
        parcels: dict[str, bytes] = {}
        for index, name in enumerate(terms.members):
            commitment = m.commit_share(terms, attempt.index, index, shares[index])
            sealed = b""
            if name != self.member:
                package = m.Package(shares[index], attempt.pair_seeds[name], attempt.group_part, floors)
                info = m.package_info(terms, attempt.adverts_hash, self.member, name)
                sealed = seal(package.encode(), attempt.adverts[name].channel, info)
            signed = m.Parcel.signed_body(terms, attempt.adverts_hash, self.member, name, sealed, commitment)
            parcels[name] = m.Parcel(sealed, commitment, self._signer.sign(m.SHARE, signed)).encode()
        attempt.parcel = parcels[self.member]
        return pack_map("parcels", parcels)

    # --- 3 masked_input ------------------------------------------------------------------------------------

    def _masked_input(self, attempt: _Attempt, body: Buffer) -> bytes:
        """Open what the peers sealed, check floors, mask the own vector; recorded before it leaves."""
        terms, me = attempt.terms, attempt.index
        parcels = m.request_map("masked_input", terms, body)
        if parcels[self.member] != attempt.parcel:
            raise ChaotianError("WRONG_TERMS", "the platform shows another parcel of this member than it sent")
        assert attempt.opener is not None
        packages: dict[str, m.Package] = {}
        for index, name in enumerate(terms.members):
            if name == self.member:
                continue
            parcel = m.Parcel.decode(parcels[name])
            signed = m.Parcel.signed_body(
                terms, attempt.adverts_hash, name, self.member, parcel.sealed, parcel.commitment
            )
            self.view.members[name].verify(m.SHARE, signed, parcel.signature, member=name)
            info = m.package_info(terms, attempt.adverts_hash, name, self.member)
            package = m.Package.decode(attempt.opener.open(parcel.sealed, info, member=name), name)
            if m.commit_share(terms, index, me, package.share) != parcel.commitment:
                raise ChaotianError("SHARE_INVALID", f"the share of {name} is not the one it committed to", member=name)
            advert = attempt.adverts[name]
            if terms.group and m.commit("group", terms, index, package.group_part) != advert.group_commitment:
                raise ChaotianError("SHARE_INVALID", f"the group part of {name} is not as committed", member=name)
            packages[name] = package
            attempt.shares[name] = package.share
        if attempt.after_loss:
            floors = {name: package.floors for name, package in packages.items()}
            try:
                self.program.check_floors({**floors, self.member: self.program.floors()})
            except ChaotianError as error:
                if error.code == "FLOOR_LOST" or error.member not in packages:
                    raise
                # Nobody but the receivers can read floors: without the name the receiver would be the one to go.
                raise ChaotianError("SHARE_INVALID", error.detail, member=error.member) from None
        if self._own is None:
            self._own = self.program.local()
        attempt.streams = self._streams(attempt, packages)
        reply = self._masked(attempt)
        self._commit(self._markers.answered, terms, self.snapshot())
        return reply

    def _commit(self, write: Callable[..., None], *arguments: object) -> None:
        """Write a marker; where that fails, in whatever way, nothing leaves."""
        try:
            write(*arguments)
        except ChaotianError:
            raise
        except Exception as error:
            raise ChaotianError("STORAGE", f"a marker could not be written: {type(error).__name__}") from error

    def _masked(self, attempt: _Attempt) -> bytes:
        """Return the own values of the round under the attempt's masks, signed: always the same bytes, or nothing."""
        own, terms = self._own, attempt.terms
        if own is None or not attempt.streams:
            raise ChaotianError("LOST", "the round is over at this member")

        def write(body: memoryview) -> list[bytes]:
            vector = fixed_point.encode(terms.layout, own, out=as_vector(terms, body))
            add_streams(vector, attempt.streams)
            digest = hashlib.sha256(body).digest()
            # Other values under the same masks would show the platform the difference.
            if attempt.input_digest not in (b"", digest):
                raise ChaotianError("LOST", "the values of this round have changed since they were masked")
            attempt.input_digest = digest
            attempt.signature = self._signer.sign(
                m.MASKED, m.masked_body(terms, attempt.adverts_hash, self.member, digest)
            )
            return [digest, attempt.signature]

        return pack_in_place(m.MASKED_INPUT, terms.layout.byte_length, write)

    def _streams(self, attempt: _Attempt, packages: Mapping[str, m.Package]) -> list[tuple[bytes, int]]:
        """Return the keystreams that mask this member's vector: self, one a pair, and the own group stream."""
        terms, me = attempt.terms, attempt.index
        assert attempt.mask_key is not None
        streams = [(m.self_stream(terms, attempt.self_seed, me), 1)]
        for index, name in enumerate(terms.members):
            if name == self.member:
                continue
            try:
                public = X25519PublicKey.from_public_bytes(attempt.adverts[name].mask)
                agreed = attempt.mask_key.exchange(public)
            except ValueError:
                raise ChaotianError("MALFORMED", f"{name} advertised a weak mask key", member=name) from None
            mine, theirs = attempt.pair_seeds[name], packages[name].pair_seed
            low, high = min(me, index), max(me, index)
            seeds = (mine, theirs) if me == low else (theirs, mine)
            streams.append((m.pair_key(terms, low, high, agreed, *seeds), 1 if me == low else -1))
        if terms.group:
            parts = {name: package.group_part for name, package in packages.items()}
            attempt.group_key = m.group_key(terms, {**parts, self.member: attempt.group_part})
            streams.append((m.group_stream(terms, attempt.group_key, me), 1))
        return streams

    # --- 4 consistency -------------------------------------------------------------------------------------

    def _consistency(self, attempt: _Attempt, body: Buffer) -> bytes:
        """Sign one statement over terms, keys, inputs and group key: what all members must have seen alike."""
        terms = attempt.terms
        for name, entry in m.request_map("consistency", terms, body).items():
            vector_digest, signature = unpack("input", entry, 2)
            if len(vector_digest) != 32:
                raise ChaotianError("MALFORMED", "a digest has 32 bytes", member=name)
            attempt.digests[name] = vector_digest
            if name == self.member:
                if (vector_digest, signature) != (attempt.input_digest, attempt.signature):
                    raise ChaotianError("TRANSCRIPT", "the platform shows another masked input of this member")
            else:
                signed = m.masked_body(terms, attempt.adverts_hash, name, vector_digest)
                self.view.members[name].verify(m.MASKED, signed, signature, member=name)
        confirmed = m.confirm(terms, attempt.group_key)
        attempt.statement = m.statement(terms, attempt.adverts_hash, attempt.digests, confirmed)
        attempt.statement_signature = self._signer.sign(m.STATEMENT, attempt.statement)
        return pack("consistency", [confirmed, attempt.statement_signature])

    # --- 5 unmask ------------------------------------------------------------------------------------------

    def _unmask(self, attempt: _Attempt, body: Buffer) -> bytes:
        """Open the shares of all self-mask seeds, once a round, after every member signed the same statement."""
        terms = attempt.terms
        for name, signature in m.request_map("unmask", terms, body).items():
            if name == self.member:
                if signature != attempt.statement_signature:
                    raise ChaotianError("TRANSCRIPT", "the platform shows another statement of this member")
            else:
                self.view.members[name].verify(m.STATEMENT, attempt.statement, signature, member=name)
        # From here on the round counts as released, whatever the platform makes of it.
        self._commit(self._markers.released, terms)
        shares = pack_map("shares", attempt.shares)
        return pack("unmask", [shares, self._signer.sign(m.UNMASK, m.unmask_body(terms, shares))])

    # --- 6 result ------------------------------------------------------------------------------------------

    def _result(self, attempt: _Attempt, body: Buffer) -> bytes:
        """Add the transcript up again, decrypt the total, derive the next step, and say where this member stands."""
        terms = attempt.terms
        totals: Mapping[str, list[int]] = {}
        result_hash = m.result_hash(terms, b"", attempt.group_key)
        if terms.result_to != "platform":
            total = self._total(attempt, body)
            result_hash = m.result_hash(terms, raw(total), attempt.group_key)
            totals = fixed_point.Totals(terms.layout, total)
        elif any(len(part) for part in unpack_views("result", body, 3)):
            raise ChaotianError("MALFORMED", "under result_to platform a result request is empty")
        # The position moves before the program does: whatever it raises, no result is taken in twice.
        self._own = self._state = self._layout = None
        self._last_result = result_hash
        if terms.group:
            self._state_key = m.state_key(terms, attempt.group_key)
        if self._last_roster is not None and self._last_roster != terms.members:
            self._roster_changes += 1
        self._last_roster = terms.members
        self.round += 1
        try:
            self.program.advance(totals)
            status = self._status()
        except ChaotianError as error:
            self.failure = error
        except Exception as error:
            self.failure = ChaotianError("INTERNAL", f"{type(error).__name__} in the job's next step")
        if self.failure is not None:
            status = m.Status(self._last_result, terms.state_hash, m.FAILED, code=self.failure.code)
        return status.encode(terms, self.member, self._signer)

    def _total(self, attempt: _Attempt, body: Buffer) -> Vector:
        """Return the decrypted total of a result request."""
        terms = attempt.terms
        reported, inputs, seeds = unpack_views("result", body, 3)
        if terms.verified:
            total = verify(
                terms,
                reported,
                m.request_views("inputs", terms, inputs),
                m.request_map("seeds", terms, seeds),
                digests=attempt.digests,
                commitments={name: advert.seed_commitment for name, advert in attempt.adverts.items()},
            )
        else:
            if inputs or seeds:
                raise ChaotianError("MALFORMED", "an unverified result carries no transcript")
            total = as_vector(terms, reported).copy()
        if terms.group:
            streams = [(m.group_stream(terms, attempt.group_key, i), -1) for i in range(len(terms.roster))]
            add_streams(total, streams)
        return total

    def _status(self) -> m.Status:
        state = self.state_hash()
        if self.program.done():
            return m.Status(self._last_result, state, m.DONE)
        layout = self._derived_layout().encode()
        return m.Status(self._last_result, state, m.CONTINUE, layout=layout, operation=self.program.operation)


def wrap(terms_hash: bytes, body: bytes) -> bytes:
    """Return a stage request for the attempt with these terms."""
    return pack("request", [terms_hash, body])


def unwrap_parcels(data: bytes, terms: Terms) -> dict[str, bytes]:
    """Return the parcels of a `share_keys` reply, one for each member of the roster."""
    parcels = unpack_map("parcels", data)
    if tuple(parcels) != terms.members:
        raise ChaotianError("MALFORMED", "a share_keys reply must name exactly the roster")
    return parcels
