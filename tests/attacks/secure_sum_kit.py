"""A platform that does as it likes with production members: it makes any request, and opens what it can."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from federation.primitives.encoding import pack, pack_map, unpack, unpack_map
from federation.primitives.masks import Vector, add_streams
from federation.primitives.shamir import Combiner
from federation.secure_sum import messages as m
from federation.secure_sum.local import LocalFederation
from federation.secure_sum.member import wrap
from federation.secure_sum.terms import TERMS_TAG, Terms, roster_of
from federation.secure_sum.transcript import add_up, as_vector
from tests.support.entropy import SeededEntropy
from tests.support.programs import Adder

SCALE = 1 << 16


class Evil:
    """A malicious coordinator over honest members.

    Args:
        values: one vector a member, by name; all members belong to the job.
        options: of `LocalFederation`.
    """

    def __init__(self, values: Mapping[str, Sequence[float]], seed: str = "evil", **options: object) -> None:
        self.values = {name: list(vector) for name, vector in values.items()}
        programs = {name: Adder(vector, rounds=3) for name, vector in self.values.items()}
        self.federation = LocalFederation(programs, SeededEntropy(seed), **options)
        self.members = self.federation.members
        self.view: list[bytes] = []  # everything the platform ever sees

    def terms(self, roster: str, attempt: int = 1, **changes: object) -> Terms:
        """Return terms as an honest platform would make them for `roster`, but for `changes`."""
        federation, program = self.federation, self.federation.programs[roster[0]]
        fields = {
            "space": federation.space, "job": federation.job, "round": 1, "attempt": attempt,
            "operation": program.operation, "purpose": federation.purpose, "layout": program.layout(),
            "state_hash": federation.members[roster[0]].state_hash(),
            "roster": roster_of({name: federation.keys[name].fingerprint for name in roster}),
            "min_members": federation.min_members, "min_rows": federation.min_rows,
            "grants": tuple((name, f"grant-{name}") for name in sorted(roster)),
            "result_to": federation.result_to, "verified": federation.verified,
        }  # fmt: skip
        return Terms(**{**fields, **changes})

    # --- one stage each, for all or for some members -------------------------------------------------------

    def ask(self, name: str, stage: str, request: bytes) -> bytes:
        """Ask one member and see both messages."""
        reply = self.members[name].handle(stage, request)
        self.view += [request, reply]
        return reply

    def advertise(self, terms: Terms, members: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the adverts."""
        request = pack("terms", [terms.encode(), self.federation.platform.sign(TERMS_TAG, terms.encode())])
        return {name: self.ask(name, "advertise_keys", request) for name in members or terms.members}

    def share(self, terms: Terms, adverts: Mapping[str, bytes], members: Sequence[str] | None = None):
        """Return the parcels: sender → receiver → parcel."""
        request = wrap(terms.hash(), pack_map("share_keys", adverts))
        names = members or terms.members
        return {name: unpack_map("parcels", self.ask(name, "share_keys", request)) for name in names}

    def mask(self, terms: Terms, parcels, members: Sequence[str] | None = None) -> dict[str, tuple[bytes, bytes]]:
        """Return (masked input, signature) of each member."""
        out = {}
        for name in members or terms.members:
            body = pack_map("masked_input", {sender: parcels[sender][name] for sender in terms.members})
            reply = self.ask(name, "masked_input", wrap(terms.hash(), body))
            data, _, signature = unpack("chaotian/masked-input/v1", reply, 3)
            out[name] = data, signature
        return out

    def agree(self, terms: Terms, masked, members: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the signatures over the statement."""
        entries = {name: pack("input", [hashlib.sha256(data).digest(), sig]) for name, (data, sig) in masked.items()}
        request = wrap(terms.hash(), pack_map("consistency", entries))
        names = members or terms.members
        return {name: unpack("consistency", self.ask(name, "consistency", request), 2)[1] for name in names}

    def unmask(self, terms: Terms, statement: Mapping[str, bytes], members: Sequence[str] | None = None):
        """Return the shares: opener → owner → share."""
        request = wrap(terms.hash(), pack_map("unmask", statement))
        return {
            name: unpack_map("shares", unpack("unmask", self.ask(name, "unmask", request), 2)[0])
            for name in members or terms.members
        }

    # --- what it can make of it ----------------------------------------------------------------------------

    def until_statement(self, terms: Terms):
        """Run the first four stages; return (masked inputs, statement)."""
        masked = self.mask(terms, self.share(terms, self.advertise(terms)))
        return masked, self.agree(terms, masked)

    def seeds(self, terms: Terms, shares) -> dict[str, bytes]:
        """Return the self-mask seeds from the shares of at least t members."""
        openers = sorted(shares)[: terms.threshold]
        assert len(openers) == terms.threshold, "too few shares"
        index = {name: i + 1 for i, name in enumerate(terms.members)}
        combiner = Combiner([index[name] for name in openers])
        return {
            owner: combiner.combine({index[name]: shares[name][owner] for name in openers}) for owner in terms.members
        }

    def opened(self, terms: Terms, masked, shares) -> Vector:
        """Return the sum without self-masks: the total, under `members` still encrypted."""
        return add_up(terms, {name: data for name, (data, _) in masked.items()}, self.seeds(terms, shares))

    def steal(self, terms: Terms) -> Vector:
        """Run a whole attempt up to unmask and return what `opened` gives."""
        masked, statement = self.until_statement(terms)
        return self.opened(terms, masked, self.unmask(terms, statement))

    def result(self, terms: Terms, masked, shares, total: Vector | None = None, **forged: object) -> bytes:
        """Return a result request; `inputs` and `seeds` may be forged."""
        inputs = forged.get("inputs") or {name: data for name, (data, _) in masked.items()}
        seeds = forged.get("seeds") or self.seeds(terms, shares)
        reported = self.opened(terms, masked, shares) if total is None else total
        transcript = (pack_map("inputs", inputs), pack_map("seeds", seeds)) if terms.verified else (b"", b"")
        return wrap(terms.hash(), pack("result", [reported.tobytes(), *transcript]))


def values_of(vector: Vector) -> list[float]:
    """Return ring elements as values."""
    return [int(v) / SCALE for v in vector.view(np.int64)]


def without_group(terms: Terms, total: Vector, group_key: bytes) -> Vector:
    """Return the total without the group streams, for whoever has the group key."""
    out = total.copy()
    add_streams(out, [(m.group_stream(terms, group_key, i), -1) for i in range(len(terms.members))])
    return out


__all__ = ["SCALE", "Evil", "as_vector", "values_of", "without_group"]
