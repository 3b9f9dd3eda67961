"""What a job brings to the secure sum, and what a node brings to make it last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from federation.primitives.signing import Verifier
from federation.secure_sum.terms import Layout, Noise, Terms

Contribution = Sequence[float | int | Fraction] | NDArray[np.float64] | NDArray[np.int64]


class Program(Protocol):
    """A job's arithmetic: every member derives the same next step from the same totals."""

    @property
    def operation(self) -> str:
        """Operation kind of the next round, e.g. `scorecard.newton`: key of grants and of the release ledger."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the dataset that enter the next round's vector."""
        ...

    def layout(self) -> Layout:
        """Return the layout of the next round; not called once `done`."""
        ...

    def state(self) -> bytes:
        """Return the derived state: canonical JSON, equal bit for bit at all members."""
        ...

    def done(self) -> bool:
        """Whether no further round is needed."""
        ...

    def local(self) -> Mapping[str, Contribution]:
        """Return this member's own values by field name, unscaled. Private: it never leaves the member."""
        ...

    def advance(self, totals: Mapping[str, list[int]]) -> None:
        """Derive the next state from the pooled totals, which are still scaled by 2^scale_bits.

        Raises:
            ChaotianError: where the job cannot go on; the same at every member.
        """
        ...

    def floors(self) -> bytes:
        """Return which floors this member's own rows meet alone; sealed to the peers after a loss."""
        ...

    def check_floors(self, floors: Mapping[str, bytes]) -> None:
        """Check that the floors still hold for the members of `floors`.

        Raises:
            ChaotianError: FLOOR_LOST.
        """
        ...

    def restore(self, state: bytes) -> None:
        """Take up `state` again, as `state()` gave it."""
        ...


class Markers(Protocol):
    """The two durable commits of a member and round. Both raise, and then nothing leaves."""

    def answered(self, terms: Terms, state: bytes) -> None:
        """Record, before a masked input leaves, that this attempt is answered; charge the grant."""
        ...

    def released(self, terms: Terms) -> None:
        """Record, before shares leave, that the round is spent; check the release ledger; write the log leaf.

        Raises:
            ChaotianError: ROUND_SPENT, RELEASE_DIFFERENCE, ROSTER_CHANGES or a grant's refusal.
        """
        ...

    def last_attempt(self, job: str, round_: int) -> int:
        """Return the highest attempt of the round that was ever answered, 0 for none."""
        ...

    def spent(self, job: str, round_: int) -> bool:
        """Whether the round has been released, whatever the attempt."""
        ...


@dataclass(frozen=True)
class JobView:
    """What this member itself knows of the job and agreed to; terms are held against it.

    Args:
        members: identity keys of this member and of the approved peers that accepted the job, from its own directory.
        grants: the grant each member computes under.
        max_roster_changes: how many losses the grant allows within the job.
        unverified: whether totals may be used without adding up the transcript again.
        noise: what every member adds to its values before they are masked.
    """

    space: str
    job: str
    purpose: str
    members: Mapping[str, Verifier]
    coordinator: Verifier
    min_members: int
    min_rows: int
    result_to: str
    grants: Mapping[str, str]
    max_roster_changes: int
    unverified: bool = False
    noise: Noise | None = None
