"""What an attempt is about: layout of the vector, roster, floors; signed by the coordinator, bound into every key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, digest, parse_canonical_json

STAGES = ("advertise_keys", "share_keys", "masked_input", "consistency", "unmask", "result")
RESULT_TO = ("members", "platform", "both")
MIN_ROSTER = 3
MAX_ROSTER = 1000
MAX_SLOTS = 1 << 27
VERIFIED_BYTES = 64 << 20  # a transcript up to this size is added up again by every member
TERMS_TAG = "chaotian/terms/v1"


@dataclass(frozen=True)
class Field:
    """One named part of the vector.

    Args:
        name: unique within the layout.
        length: how many values, at least 1.
        scale_bits: a value is sent as round(value · 2^scale_bits); 0 to 64.
        bound: every member's own value lies in [-bound, bound], in units; else OVERFLOW.
    """

    name: str
    length: int
    scale_bits: int
    bound: int

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 64 or not 1 <= self.length <= MAX_SLOTS:
            raise ChaotianError("MALFORMED", "a field needs a name of 1 to 64 characters and a length of at least 1")
        if not 0 <= self.scale_bits <= 64 or not 1 <= self.bound < 1 << 512:
            raise ChaotianError("MALFORMED", f"field {self.name} has a scale or a bound out of range")


@dataclass(frozen=True)
class Layout:
    """The vector of a round: ring, fields in order, and the largest roster it can be summed over.

    A value takes one ring element where bound · 2^scale · members stays below a quarter of the ring, and else
    as many balanced limbs (31 bits each, 15 in the 32-bit ring) as it needs; no total can wrap.
    """

    ring_bits: int
    fields: tuple[Field, ...]
    members: int = 32

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if self.ring_bits not in (32, 64) or not names or len(set(names)) != len(names):
            raise ChaotianError("MALFORMED", "a layout needs a ring of 32 or 64 bits and fields with unique names")
        if not 1 <= self.members <= MAX_ROSTER or self.slots > MAX_SLOTS:
            raise ChaotianError("MALFORMED", f"a layout holds at most {MAX_SLOTS} slots for {MAX_ROSTER} members")

    @property
    def limb_bits(self) -> int:
        """Width of a limb: 31 bits, or 15 in the 32-bit ring."""
        return 31 if self.ring_bits == 64 else 15

    def limbs(self, field: Field) -> int:
        """How many ring elements one value of `field` takes."""
        scaled = field.bound << field.scale_bits
        if scaled * self.members < 1 << (self.ring_bits - 2):
            return 1
        return -(-(scaled.bit_length() + 1) // self.limb_bits)

    @property
    def slots(self) -> int:
        """Length of the vector in ring elements."""
        return sum(field.length * self.limbs(field) for field in self.fields)

    @property
    def byte_length(self) -> int:
        """Length of the vector in bytes."""
        return self.slots * self.ring_bits // 8

    def document(self) -> dict[str, Any]:
        """Return the layout as a JSON document (bounds as decimal strings)."""
        fields = [
            {"name": f.name, "length": f.length, "scale_bits": f.scale_bits, "bound": str(f.bound)} for f in self.fields
        ]
        return {"ring_bits": self.ring_bits, "members": self.members, "fields": fields}

    @classmethod
    def from_document(cls, document: Any) -> Layout:
        """Return the layout of `document`; anything else is MALFORMED."""
        try:
            if type(document["ring_bits"]) is not int or type(document["members"]) is not int:
                raise ValueError
            fields = []
            for part in document["fields"]:
                if set(part) != {"name", "length", "scale_bits", "bound"} or len(part["bound"]) > 160:
                    raise ValueError
                if type(part["length"]) is not int or type(part["scale_bits"]) is not int:
                    raise ValueError
                fields.append(Field(str(part["name"]), part["length"], part["scale_bits"], int(part["bound"])))
            if set(document) != {"ring_bits", "members", "fields"}:
                raise ValueError
            return cls(document["ring_bits"], tuple(fields), document["members"])
        except (TypeError, KeyError, ValueError):
            raise ChaotianError("MALFORMED", "expected a layout") from None

    def encode(self) -> bytes:
        """Return the canonical bytes of the layout."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return canonical_json(self.document())

    def hash(self) -> bytes:
        """Return SHA-256 of the canonical bytes: 32 bytes."""
        return hashlib.sha256(self._encoded).digest()

    @classmethod
    def decode(cls, data: bytes) -> Layout:
        """Return the layout of `encode`; anything else is MALFORMED."""
        layout = cls.from_document(_document(data, "a layout"))
        if layout.encode() != data:
            raise ChaotianError("MALFORMED", "expected a layout in its one encoding")
        return layout


def _document(data: bytes, what: str) -> Any:
    """Return the document of canonical JSON that came over the wire; anything else is MALFORMED."""
    try:
        return parse_canonical_json(data)
    except ChaotianError as error:
        if error.code == "OVERSIZED":
            raise
        raise ChaotianError("MALFORMED", f"expected {what} in canonical JSON") from None


def threshold_for(members: int) -> int:
    """Return t = ⌊2n/3⌋ + 1 for a roster of n."""
    return 2 * members // 3 + 1


@dataclass(frozen=True)
class Claims:
    """What holds for n members and threshold t (docs/protocols/secure-sum.md, "What holds"); counts of members.

    The transcript gives a member the coordinator's view, so the coordinator counts beside the colluding members.
    An active platform can pretend losses until only `floor` members are left, so what holds against it is what
    holds for every roster from there to n.

    Args:
        curious_colluding: c up to which a platform that keeps to the protocol learns nothing but the total.
        active_colluding: c up to which a platform that does not learns no member's own input.
        one_total: c up to which such a platform gets at most one total a round; -1 where it may get two of disjoint
            groups, each of at least `floor` members, even alone.
    """

    members: int
    threshold: int
    curious_colluding: int
    active_colluding: int
    lost_at_unmask: int
    floor: int = MIN_ROSTER
    one_total: int = -1

    @classmethod
    def of(cls, members: int, min_members: int | None = None) -> Claims:
        """Return the claims for a roster of `members`.

        Args:
            min_members: the floor of the terms; left out, losses (real or pretended) are left out of account.
        """
        t = threshold_for(members)
        floor = members if min_members is None else min(members, max(MIN_ROSTER, min_members))
        rosters = range(floor, members + 1)
        active = min(min(2 * threshold_for(n) - n - 1, threshold_for(n) - 2) for n in rosters)
        one_total = min(active, floor + threshold_for(floor) - members - 1)
        return cls(members, t, t - 2, active, members - t, floor, max(-1, one_total))

    def sentences(self) -> list[str]:
        """Return the claims in plain words."""
        n, t, floor = self.members, self.threshold, self.floor
        if self.one_total >= 0:
            single = f"An active platform together with {_up_to(self.one_total)} gets at most one total a round."
        else:
            single = f"An active platform may split the members into groups of at least {floor}, a total for each."
        return [
            f"{n} members, threshold {t}: seeds are opened only with the shares of {t} members.",
            f"A curious platform together with {_up_to(self.curious_colluding)} learns nothing but the total.",
            f"An active platform together with {_up_to(self.active_colluding)} learns no member's own input, "
            f"whatever losses it pretends down to {floor} members.",
            single,
            "One member together with the platform can show the platform the total.",
            f"{_up_to(self.lost_at_unmask).capitalize()} may be lost during unmask; "
            "whoever is lost before costs a new attempt.",
        ]


def _up_to(members: int) -> str:
    return {0: "no member", 1: "one member"}.get(members, f"up to {members} members")


@dataclass(frozen=True)
class Noise:
    """Discrete Gaussian noise that every member adds to each value that depends on its rows, before it is masked.

    Args:
        variance: of one member's noise, in squared ring units.
        honest: members whose noise must suffice: below the smallest roster, as the platform may have another's.
    """

    variance: int
    honest: int

    def document(self) -> dict[str, Any]:
        """Return the noise as a JSON document."""
        return {"mechanism": "discrete-gaussian", "variance": str(self.variance), "honest": self.honest}

    @classmethod
    def from_document(cls, document: Any) -> Noise:
        """Return the noise of `document`; ValueError, KeyError or TypeError for anything else."""
        if len(document["variance"]) > 40 or type(document["honest"]) is not int or document["honest"] < 1:
            raise ValueError
        noise = cls(int(document["variance"]), document["honest"])
        if noise.variance < 1 or noise.document() != document:
            raise ValueError
        return noise


@dataclass(frozen=True)
class Terms:
    """The terms of one attempt. Member names are unique and sorted; their order gives the indices."""

    space: str
    job: str
    round: int
    attempt: int
    operation: str
    purpose: str
    layout: Layout
    state_hash: bytes
    roster: tuple[tuple[str, bytes], ...]
    min_members: int
    min_rows: int
    grants: tuple[tuple[str, str], ...]
    result_to: str
    verified: bool = True
    noise: Noise | None = None

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Names of the roster, in order."""
        return tuple(name for name, _ in self.roster)

    @property
    def threshold(self) -> int:
        """t for this roster."""
        return threshold_for(len(self.roster))

    @property
    def group(self) -> bool:
        """Whether the total stays encrypted towards the platform."""
        return self.result_to == "members"

    def document(self) -> dict[str, Any]:
        """Return the terms as a JSON document."""
        return {
            "v": 1,
            "space": self.space,
            "job": self.job,
            "round": self.round,
            "attempt": self.attempt,
            "operation": self.operation,
            "purpose": self.purpose,
            "layout": self.layout.document(),
            "state_hash": self.state_hash.hex(),
            "roster": [[name, fingerprint.hex()] for name, fingerprint in self.roster],
            "threshold": self.threshold,
            "min_members": self.min_members,
            "min_rows": self.min_rows,
            "grants": [list(pair) for pair in self.grants],
            "result_to": self.result_to,
            "verified": self.verified,
            "noise": None if self.noise is None else self.noise.document(),
        }

    def _texts(self) -> tuple[str, ...]:
        return self.space, self.job, self.operation, self.purpose, self.result_to

    def encode(self) -> bytes:
        """Return the canonical bytes of the terms."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return canonical_json(self.document())

    def hash(self) -> bytes:
        """Return the 32 bytes that every key and signature of the attempt is bound to."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        return digest(TERMS_TAG, [self._encoded])

    @classmethod
    def decode(cls, data: bytes) -> Terms:
        """Return the terms of `encode`; anything else is MALFORMED."""
        document = _document(data, "terms of an attempt")
        try:
            terms = cls(
                space=document["space"],
                job=document["job"],
                round=document["round"],
                attempt=document["attempt"],
                operation=document["operation"],
                purpose=document["purpose"],
                layout=Layout.from_document(document["layout"]),
                state_hash=bytes.fromhex(document["state_hash"]),
                roster=tuple((str(name), bytes.fromhex(key)) for name, key in document["roster"]),
                min_members=document["min_members"],
                min_rows=document["min_rows"],
                grants=tuple((str(name), str(grant)) for name, grant in document["grants"]),
                result_to=document["result_to"],
                verified=document["verified"],
                noise=None if document["noise"] is None else Noise.from_document(document["noise"]),
            )
            # Bytes, not documents, are compared: `true` equals 1 in Python, and what was signed are bytes.
            if terms.encode() != data or not all(isinstance(text, str) for text in terms._texts()):
                raise ValueError
        except (TypeError, KeyError, ValueError, AttributeError):
            raise ChaotianError("MALFORMED", "expected terms of an attempt") from None
        return terms.checked()

    def checked(self) -> Terms:
        """Return these terms if they are well formed in themselves.

        Raises:
            ChaotianError: MALFORMED or TOO_FEW_MEMBERS.
        """
        names = list(self.members)
        numbers = (self.round, self.attempt, self.min_members, self.min_rows)
        if any(type(number) is not int or number < 1 for number in numbers) or type(self.verified) is not bool:
            raise ChaotianError("MALFORMED", "round, attempt and floors are whole numbers of at least 1")
        if names != sorted(set(names)) or len(self.state_hash) != 32 or any(len(key) != 32 for _, key in self.roster):
            raise ChaotianError("MALFORMED", "the roster is sorted, its names are unique, and hashes have 32 bytes")
        if [name for name, _ in self.grants] != names:
            raise ChaotianError("MALFORMED", "terms name one grant for each member of the roster")
        if self.result_to not in RESULT_TO:
            raise ChaotianError("MALFORMED", "result_to has a value that is not known")
        if self.noise is not None and self.noise.honest >= self.min_members:
            raise ChaotianError("MALFORMED", "noise counts on fewer members than the smallest roster has")
        if len(names) < max(MIN_ROSTER, self.min_members):
            floor = max(MIN_ROSTER, self.min_members)
            raise ChaotianError("TOO_FEW_MEMBERS", f"the roster has {len(names)} members, at least {floor} are needed")
        if len(names) > self.layout.members:
            raise ChaotianError("MALFORMED", f"the layout is for {self.layout.members} members, {len(names)} are named")
        return self


def state_digest(state: bytes, key: bytes = b"") -> bytes:
    """Return the 32-byte hash under which a derived state stands in terms and messages.

    Args:
        key: from the group key of the last result, empty before the first: the platform sees the hash, and a state of a
            few counts could be tried out.
    """
    return hashlib.sha256(b"chaotian/state/v1\x00" + key + state).digest()


def roster_of(members: Mapping[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Return (name, fingerprint) pairs sorted by name."""
    return tuple(sorted(members.items()))
