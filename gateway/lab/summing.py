"""`chaotian lab sum`: one round of the secure sum over made-up vectors, with its cost, and checked against a plain sum.

Signatures, sealing, masks and commitments are those of production; what is missing is the network and the disk.
The vectors come from a seeded NumPy generator: they are data. Every key and seed comes from `entropy`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from federation.primitives.entropy import Entropy
from federation.primitives.fixed_point import Totals
from federation.secure_sum.coordinator import RoundOutcome, Send
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import MAX_ROSTER, MAX_SLOTS, RESULT_TO, STAGES, VERIFIED_BYTES, Field, Layout
from gateway.lab.metered import Loss, MeteredFederation

FIELD = "values"
BOUND = 8  # made-up values lie within ±8, as SecAgg+ clips them by default
MAX_SCALE_BITS = 40


@dataclass(frozen=True)
class SumSettings:
    """What is to be summed.

    Args:
        members: how many, 1 to 1,000 (the protocol itself refuses fewer than three).
        length: values in each member's vector.
        lost: how many members stop answering.
        lost_at: the first stage they do not answer; the default loses them right after their masked inputs.
        ring: 64 or 32 bits.
        result_to: who reads the total: `platform`, `members` or `both`.
        seed: of the made-up vectors.

    Raises:
        ChaotianError: USAGE.
    """

    members: int
    length: int
    lost: int = 0
    lost_at: str = "consistency"
    ring: int = 64
    result_to: str = "platform"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.members <= MAX_ROSTER:
            raise ChaotianError("USAGE", f"--members is a number from 1 to {MAX_ROSTER}, got {self.members}")
        if not 1 <= self.length <= MAX_SLOTS:
            raise ChaotianError("USAGE", f"--length is a number from 1 to {MAX_SLOTS}, got {self.length}")
        if not 0 <= self.lost <= self.members:
            raise ChaotianError("USAGE", f"--lost is a number from 0 to {self.members} (all members), got {self.lost}")
        if self.lost_at not in STAGES:
            raise ChaotianError("USAGE", f"--lost-at is one of {', '.join(STAGES)}")
        if self.ring not in (32, 64):
            raise ChaotianError("USAGE", f"--ring is 64 or 32, got {self.ring}")
        if self.result_to not in RESULT_TO:
            raise ChaotianError("USAGE", f"--result-to is one of {', '.join(RESULT_TO)}")
        if self.seed < 0:
            raise ChaotianError("USAGE", "--seed is a number of at least 0")

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, sorted as a roster is."""
        return tuple(f"member-{number:04d}" for number in range(1, self.members + 1))

    @property
    def layout(self) -> Layout:
        """One field of `length` values in one ring element each, as fine as the ring allows."""
        room = (1 << (self.ring - 2)) - 1
        scale = min(MAX_SCALE_BITS, (room // (BOUND * self.members)).bit_length() - 1)
        return Layout(self.ring, (Field(FIELD, self.length, scale, BOUND),), members=self.members)

    @property
    def verified(self) -> bool:
        """Whether members add the transcript up again: always where they get one that is not too large for it."""
        return self.result_to != "platform" and self.layout.byte_length * self.members <= VERIFIED_BYTES

    def check_memory(self) -> None:
        """Refuse what this machine cannot hold: per member the vector, the masked one, and what is under way."""
        copies = 3 if self.verified else 2
        needed = self.members * (8 * self.length + copies * self.layout.byte_length) + 6 * self.layout.byte_length
        available = psutil.virtual_memory().available
        if needed > available:
            raise ChaotianError(
                "USAGE",
                f"{self.members} vectors of {self.length} values need about {needed >> 20} MiB, "
                f"{available >> 20} MiB are free",
                hint="Choose fewer members or a shorter vector; a real member holds its own alone.",
            )

    def vectors(self) -> dict[str, NDArray[np.float64]]:
        """Return made-up vectors by member, uniform within ±BOUND: the same for the same seed."""
        return {
            name: np.random.default_rng([self.seed, index]).uniform(-BOUND, BOUND, self.length)
            for index, name in enumerate(self.names)
        }


class VectorSum:
    """A program of one round: the sum of one vector.

    Args:
        layout: of one field, `FIELD`.
        values: this member's vector.
    """

    operation = "lab.sum"
    columns: tuple[str, ...] = (FIELD,)

    def __init__(self, layout: Layout, values: NDArray[Any]) -> None:
        self._layout, self._values = layout, values
        self._done = False
        self.total: NDArray[Any] | None = None

    def layout(self) -> Layout:
        """Return the layout."""
        return self._layout

    def state(self) -> bytes:
        """Return whether the round is over; the total itself is compared through the hash of the last result."""
        return canonical_json({"done": self._done})

    def restore(self, state: bytes) -> None:
        """Take up a state of `state()`."""
        self._done = state == canonical_json({"done": True})

    def done(self) -> bool:
        """Whether the round is over."""
        return self._done

    def local(self) -> Mapping[str, Contribution]:
        """Return the member's vector."""
        return {FIELD: self._values}

    def advance(self, totals: Mapping[str, list[int]]) -> None:
        """Keep the total, where this member gets to see it."""
        if isinstance(totals, Totals):
            self.total = totals.array(FIELD)
        self._done = True

    def floors(self) -> bytes:
        """Return nothing: made-up values stand for no rows."""
        return b""

    def check_floors(self, floors: Mapping[str, bytes]) -> None:
        """Accept: made-up values stand for no rows."""


@dataclass(frozen=True)
class SumResult:
    """What a run cost and gave.

    Args:
        member_seconds: CPU seconds of a member, mean over all that took part.
        coordinator_seconds: CPU seconds of the coordinator.
        wall_seconds: from the first request to the last reply.
        bytes_per_value: bytes a surviving member uploaded over all attempts and stages, by the vector's length.
        equal: whether every total that anybody got is the plain sum of the roster's fixed-point values.
    """

    settings: SumSettings
    outcome: RoundOutcome
    member_seconds: float
    coordinator_seconds: float
    wall_seconds: float
    bytes_per_value: float
    equal: bool

    @property
    def total_seconds(self) -> float:
        """CPU seconds of everybody together."""
        return self.member_seconds * self.settings.members + self.coordinator_seconds

    def document(self) -> dict[str, Any]:
        """Return the result as `chaotian lab sum --json` prints it."""
        settings, outcome = self.settings, self.outcome
        return {
            "members": settings.members,
            "length": settings.length,
            "lost": settings.lost,
            "lost_at": settings.lost_at if settings.lost else None,
            "ring": settings.ring,
            "result_to": settings.result_to,
            "verified": settings.verified,
            "scale_bits": settings.layout.fields[0].scale_bits,
            "attempts": outcome.attempts,
            "summed": len(outcome.roster),
            "cpu_seconds": {"member": round(self.member_seconds, 6), "coordinator": round(self.coordinator_seconds, 6)},
            "wall_seconds": round(self.wall_seconds, 6),
            "bytes_per_value": round(self.bytes_per_value, 4),
            "equal": self.equal,
        }


def plain_sum(layout: Layout, vectors: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the sum of the fixed-point values of `vectors`, with nothing but NumPy and no code of the secure sum."""
    scale = float(1 << layout.fields[0].scale_bits)
    total = np.zeros(layout.fields[0].length, dtype=np.int64)
    for vector in vectors:
        total += np.rint(vector.astype(np.float64) * scale).astype(np.int64)
    return total


def run_sum(
    settings: SumSettings,
    *,
    entropy: Entropy,
    vectors: Mapping[str, NDArray[Any]] | None = None,
    on_request: Callable[[Send], None] = lambda send: None,
) -> SumResult:
    """Run one round and check its total.

    Args:
        settings: what is summed.
        entropy: source of all keys and seeds.
        vectors: by member; made up where left out.
        on_request: called with each request before it is delivered.

    Raises:
        ChaotianError: TOO_FEW_MEMBERS where more are lost than the protocol allows, or the code the round ended with.
    """
    settings.check_memory()
    layout = settings.layout
    given = settings.vectors() if vectors is None else vectors
    programs = {name: VectorSum(layout, given[name]) for name in settings.names}
    federation = MeteredFederation(
        programs,
        entropy,
        job="lab-sum",
        result_to=settings.result_to,
        verified=settings.verified,
        max_roster_changes=max(1, settings.lost),
    )
    loss = Loss(frozenset(settings.names[settings.members - settings.lost :]), settings.lost_at)

    def lose(send: Send) -> bool:
        on_request(send)
        return loss(send)

    plan = federation.plan(1, settings.names)
    start = time.perf_counter()
    outcome = federation.run_metered(plan, lose)
    wall = time.perf_counter() - start
    if outcome.error:
        raise ChaotianError(outcome.error, _why(settings, outcome))
    return SumResult(
        settings=settings,
        outcome=outcome,
        member_seconds=sum(federation.member_seconds.values()) / settings.members,
        coordinator_seconds=federation.coordinator_seconds,
        wall_seconds=wall,
        bytes_per_value=max(federation.sent[name] for name in outcome.survivors) / settings.length,
        equal=_equal(settings, outcome, programs, plain_sum(layout, [given[name] for name in outcome.roster])),
    )


def _equal(
    settings: SumSettings, outcome: RoundOutcome, programs: Mapping[str, VectorSum], expected: NDArray[np.int64]
) -> bool:
    """Compare every total somebody got with the plain sum; nobody having one is not equal."""
    got: list[NDArray[Any] | None] = []
    if settings.result_to != "platform":
        got += [programs[name].total for name in outcome.survivors]
    if settings.result_to != "members":
        signed = np.int64 if settings.ring == 64 else np.int32
        got.append(None if outcome.total is None else outcome.total.view(signed))
    return bool(got) and all(total is not None and np.array_equal(total, expected) for total in got)


def _why(settings: SumSettings, outcome: RoundOutcome) -> str:
    if outcome.error != "TOO_FEW_MEMBERS":
        return ""
    left = settings.members - settings.lost
    if not settings.lost:
        return f"{left} members are too few for a secure sum"
    return f"of {settings.members} members {settings.lost} were lost at {settings.lost_at}: {left} are too few to go on"
