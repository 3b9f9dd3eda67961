"""Messages of the six stages: strict encodings, and what is signed in each.

Requests go from the coordinator to a member, replies back. Every reply that peers rely on carries the member's
own signature over (terms hash, …), so that the coordinator only carries it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from federation.errors import CATALOGUE, ChaotianError
from federation.primitives.encoding import Buffer, digest, pack, unpack, unpack_map_views
from federation.primitives.masks import derive
from federation.primitives.sealing import check_exchange_key, check_public
from federation.primitives.shamir import SHARE_BYTES
from federation.primitives.signing import Signer, Verifier
from federation.secure_sum.terms import Layout, Terms

ADVERTISE, SHARE, MASKED = "chaotian/advertise/v1", "chaotian/share/v1", "chaotian/masked/v1"
STATEMENT, UNMASK, STATUS = "chaotian/statement/v1", "chaotian/unmask/v1", "chaotian/status/v1"
MASKED_INPUT = "chaotian/masked-input/v1"  # of 24 characters: the vector behind it is aligned to 8 bytes
CONTINUE, DONE, FAILED = b"continue", b"done", b"failed"
MAX_SEALED = 256 << 10  # bytes of one parcel: shares and seeds are 200, the rest is room for floors
NOTHING = bytes(32)  # stands for "no earlier result" and for "no group key"


def commit(label: str, terms: Terms, index: int, secret: bytes) -> bytes:
    """Return the SHA-256 commitment to a secret of full entropy (hiding, because nobody can guess 256 bits)."""
    return digest("chaotian/commit/v1", [label.encode(), terms.hash(), index.to_bytes(8, "big"), secret])


def commit_share(terms: Terms, dealer: int, receiver: int, share: bytes) -> bytes:
    """Return the commitment to the share that `dealer` made for `receiver` (indices from 0)."""
    indices = dealer.to_bytes(8, "big") + receiver.to_bytes(8, "big")
    return digest("chaotian/commit-share/v1", [terms.hash(), indices, share])


@dataclass(frozen=True)
class Advert:
    """Reply to `advertise_keys`: fresh public keys, commitments, and where this member stands in the job.

    Args:
        channel: MLKEM768-X25519 key to which the peers seal (1,216 bytes).
        mask: X25519 key of the pairwise masks (32 bytes).
        seed_commitment: to the self-mask seed.
        group_commitment: to the part g_i of the group key; `NOTHING` where there is none.
        last_result: hash of the last verified result; `NOTHING` in the first round.
        state_hash: hash of the derived state this round starts from.
        layout_hash: SHA-256 of the layout this member derived for the round.
    """

    terms_hash: bytes
    member: str
    channel: bytes
    mask: bytes
    seed_commitment: bytes
    group_commitment: bytes
    last_result: bytes
    state_hash: bytes
    layout_hash: bytes

    def _body(self) -> bytes:
        return pack(
            ADVERTISE,
            [
                self.terms_hash,
                self.member.encode(),
                self.channel,
                self.mask,
                self.seed_commitment,
                self.group_commitment,
                self.last_result,
                self.state_hash,
                self.layout_hash,
                CONTINUE,
            ],
        )

    def encode(self, signer: Signer) -> bytes:
        """Return the advert, signed."""
        body = self._body()
        return pack("advert", [body, signer.sign(ADVERTISE, body)])

    @classmethod
    def decode(cls, data: bytes, member: str, key: Verifier, terms: Terms, *, try_keys: bool = True) -> Advert:
        """Return the advert of `member` for `terms`, or raise MALFORMED, SIGNATURE or WRONG_TERMS naming it.

        Args:
            try_keys: whether to find out now that its keys cannot be used; a peer finds out when it uses them.
        """
        body, signature = unpack("advert", data, 2)
        parts = unpack(ADVERTISE, key.verify(ADVERTISE, body, signature, member=member), 10)
        if any(len(part) != 32 for part in parts[3:9]) or parts[9] != CONTINUE:
            raise ChaotianError("MALFORMED", "an advert has parts of the wrong length", member=member)
        advert = cls(parts[0], member, *parts[2:9])
        if parts[0] != terms.hash() or parts[1] != member.encode():
            raise ChaotianError("WRONG_TERMS", f"{member} advertised its keys for other terms", member=member)
        try:
            # At the platform, so that a key nobody can use costs its owner the place and not the others.
            if try_keys:
                check_public(advert.channel)
                check_exchange_key(advert.mask)
        except ChaotianError as error:
            raise ChaotianError(error.code, f"{member} advertised a key that cannot be used", member=member) from None
        return advert


def adverts_hash(adverts: Mapping[str, bytes]) -> bytes:
    """Return the hash of all advertised keys of the roster."""
    fields: list[bytes] = []
    for name in sorted(adverts):
        fields += (name.encode(), hashlib.sha256(adverts[name]).digest())
    return digest("chaotian/adverts/v1", fields)


@dataclass(frozen=True)
class Parcel:
    """What one member seals to one peer in `share_keys`, with the commitment to the share inside and a signature."""

    sealed: bytes
    commitment: bytes
    signature: bytes

    @staticmethod
    def signed_body(
        terms: Terms, adverts: bytes, sender: str, receiver: str, sealed: bytes, commitment: bytes
    ) -> bytes:
        """Return what the sender signs."""
        parts = [terms.hash(), adverts, sender.encode(), receiver.encode(), hashlib.sha256(sealed).digest(), commitment]
        return pack(SHARE, parts)

    def encode(self) -> bytes:
        """Return the parcel's bytes."""
        return pack("parcel", [self.sealed, self.commitment, self.signature])

    @classmethod
    def decode(cls, data: bytes) -> Parcel:
        """Return the parcel of `encode`."""
        sealed, commitment, signature = unpack("parcel", data, 3)
        if len(commitment) != 32:
            raise ChaotianError("MALFORMED", "a commitment has 32 bytes")
        if len(sealed) > MAX_SEALED:
            raise ChaotianError("OVERSIZED", f"a parcel has {len(sealed)} bytes, at most {MAX_SEALED} are allowed")
        return cls(sealed, commitment, signature)


@dataclass(frozen=True)
class Package:
    """The inside of a parcel: share of the self-mask seed, seed for the pair, g_i, and the sender's floors."""

    share: bytes
    pair_seed: bytes
    group_part: bytes
    floors: bytes

    def encode(self) -> bytes:
        """Return the package's bytes."""
        return pack("package", [self.share, self.pair_seed, self.group_part, self.floors])

    @classmethod
    def decode(cls, data: bytes, member: str) -> Package:
        """Return the package of `member`, or raise SHARE_INVALID naming it."""
        try:
            share, pair_seed, group_part, floors = unpack("package", data, 4)
        except ChaotianError:
            share = pair_seed = group_part = floors = b""
        if len(share) != SHARE_BYTES or len(pair_seed) != 32 or len(group_part) != 32:
            raise ChaotianError("SHARE_INVALID", f"what {member} sealed has the wrong form", member=member)
        return cls(share, pair_seed, group_part, floors)


def package_info(terms: Terms, adverts: bytes, sender: str, receiver: str) -> bytes:
    """Return the HPKE info a package is bound to."""
    return pack("chaotian/package/v1", [terms.hash(), adverts, sender.encode(), receiver.encode()])


def masked_body(terms: Terms, adverts: bytes, member: str, vector_digest: bytes) -> bytes:
    """Return what a member signs about its masked input."""
    return pack(MASKED, [terms.hash(), adverts, member.encode(), vector_digest])


def confirm(terms: Terms, group_key: bytes) -> bytes:
    """Return what shows that two members hold the same gk, and shows nothing of it; `NOTHING` where there is none."""
    return hashlib.sha256(b"confirm" + group_key).digest() if terms.group else NOTHING


def statement(terms: Terms, adverts: bytes, digests: Mapping[str, bytes], confirmed: bytes) -> bytes:
    """Return the statement every roster member signs in `consistency`.

    Args:
        digests: SHA-256 of each member's masked input.
        confirmed: what `confirm` gives.
    """
    fields: list[bytes] = []
    for name in sorted(digests):
        fields += (name.encode(), digests[name])
    return pack(STATEMENT, [terms.hash(), adverts, digest("chaotian/inputs/v1", fields), confirmed])


def unmask_body(terms: Terms, shares: bytes) -> bytes:
    """Return what a member signs about the shares it opens."""
    return pack(UNMASK, [terms.hash(), hashlib.sha256(shares).digest()])


def result_hash(terms: Terms, total: Buffer, group: bytes) -> bytes:
    """Return the hash of a verified result: terms and the decoded total.

    The platform sees it. A total of a few counts could be tried out against a plain hash, so under `members` a key from
    the group key goes in first.

    Args:
        group: the attempt's group key, `NOTHING` where there is none and the platform has the total itself.
    """
    key = derive(group, terms.hash(), "result", [terms.attempt])
    return digest("chaotian/result/v1", [terms.hash(), key, hashlib.sha256(total).digest()])


def state_key(terms: Terms, group: bytes) -> bytes:
    """Return the key (32 bytes) of the hash of the state that is derived from this attempt's total."""
    return derive(group, terms.hash(), "state", [terms.attempt])


@dataclass(frozen=True)
class Status:
    """Reply to `result`: where this member stands now. Nothing of the total is in it but a hash of it.

    Args:
        progress: `CONTINUE`, `DONE` or `FAILED`.
        code: the error code where failed, else empty.
        layout: encoded layout of the next round, empty unless `CONTINUE`.
        operation: operation kind of the next round, empty unless `CONTINUE`.
    """

    last_result: bytes
    state_hash: bytes
    progress: bytes
    code: str = ""
    layout: bytes = b""
    operation: str = ""

    def encode(self, terms: Terms, member: str, signer: Signer) -> bytes:
        """Return the status, signed for these terms."""
        parts = [terms.hash(), member.encode(), self.last_result, self.state_hash, self.progress]
        body = pack(STATUS, [*parts, self.code.encode(), self.layout, self.operation.encode()])
        return pack("status", [body, signer.sign(STATUS, body)])

    @classmethod
    def decode(cls, data: bytes, terms: Terms, member: str, key: Verifier) -> Status:
        """Return the status of `member`, or raise naming it."""
        body, signature = unpack("status", data, 2)
        parts = unpack(STATUS, key.verify(STATUS, body, signature, member=member), 8)
        if parts[0] != terms.hash() or parts[1] != member.encode() or len(parts[2]) != 32 or len(parts[3]) != 32:
            raise ChaotianError("WRONG_TERMS", f"{member} reports a status for other terms", member=member)
        if parts[4] not in (CONTINUE, DONE, FAILED):
            raise ChaotianError("MALFORMED", "a status is continue, done or failed", member=member)
        try:
            status = cls(parts[2], parts[3], parts[4], parts[5].decode(), parts[6], parts[7].decode())
            if status.progress == CONTINUE:
                Layout.decode(status.layout)
            sound = {
                CONTINUE: not status.code and 0 < len(status.operation) <= 128,
                DONE: not (status.code or status.layout or status.operation),
                FAILED: status.code in CATALOGUE and not (status.layout or status.operation),
            }[status.progress]
            if not sound:
                raise ValueError
        except (ValueError, ChaotianError):
            raise ChaotianError("MALFORMED", f"the status of {member} does not have its form", member=member) from None
        return status


def pair_key(terms: Terms, low: int, high: int, agreed: bytes, seed_low: bytes, seed_high: bytes) -> bytes:
    """Return the key of the mask between the members of index `low` < `high`.

    Args:
        agreed: their X25519 secret.
        seed_low, seed_high: the seeds each sealed to the other under the hybrid scheme; one unbroken part suffices.
    """
    return derive(pack("pair", [agreed, seed_low, seed_high]), terms.hash(), "pair", [low, high])


def group_key(terms: Terms, parts: Mapping[str, bytes]) -> bytes:
    """Return gk from all g_i in roster order."""
    return derive(pack("group", [parts[name] for name in terms.members]), terms.hash(), "gk")


def group_stream(terms: Terms, key: bytes, index: int) -> bytes:
    """Return the key of member `index`'s own stream. One common stream would show the total modulo n."""
    return derive(key, terms.hash(), "group", [terms.attempt, index])


def self_stream(terms: Terms, seed: bytes, index: int) -> bytes:
    """Return the key of member `index`'s self-mask."""
    return derive(seed, terms.hash(), "self", [index])


def request_map(stage: str, terms: Terms, data: Buffer) -> dict[str, bytes]:
    """Return the map of a stage request; it must name exactly the roster."""
    return {name: bytes(entry) for name, entry in request_views(stage, terms, data).items()}


def request_views(stage: str, terms: Terms, data: Buffer) -> dict[str, memoryview]:
    """Do what `request_map` does without copying the values."""
    entries = unpack_map_views(stage, data)
    if tuple(entries) != terms.members:
        raise ChaotianError("MALFORMED", f"a {stage} request must name exactly the roster")
    return entries
