"""The release ledger: may this roster's total be released, beside everything that was released before?

Two totals over nearly the same rows or members show their difference. The rule (docs/protocols/jobs.md) compares the
release at hand with every earlier one of another job over the same dataset, the same class of operation and an
overlapping set of columns; coefficients, penalty, edges and job id make no difference to it.

Operations that count or sum columns as they are make one class: a histogram of four banks beside the counts of a
profile of three shows the fourth just as well as a second histogram would. A trained update is one of them: one step
of gradient descent over all rows is a sum of columns. What is summed at derived coefficients (`scorecard.newton`) is
compared with its own kind alone; the counts of its job stand in the ledger beside it.

Trained updates are compared with each other more strictly, as the proposer chooses what an update is: jobs over the
same rows and members may differ in what one member sends alone. What a privacy budget bounds is not compared at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from federation.errors import ChaotianError

COUNTING = frozenset(
    {
        "binning.counts",
        "columns.histogram",
        "evaluate.scores",
        "fedavg.update",
        "profile.counts",
        "profile.moments",
        "scorecard.counts",
        "scorecard.moments",
        "stability.counts",
    }
)

TRAINED = "fedavg.update"


def class_of(operation: str) -> frozenset[str]:
    """Return the operations whose totals the rule compares with those of `operation`, itself among them."""
    return COUNTING if operation in COUNTING else frozenset({operation})


@dataclass(frozen=True)
class Release:
    """One released total, as far as the rule looks at it.

    Args:
        job: the job it belongs to; within one job rounds are exempt.
        dataset: id of the dataset at this node.
        operation: kind of operation, e.g. `scorecard.newton`.
        columns: columns that entered.
        members: the roster that was released.
        exact: whether no privacy budget bounds what it shows.
    """

    job: str
    dataset: str
    operation: str
    columns: frozenset[str]
    members: frozenset[str]
    exact: bool = True

    def compares_with(self, other: Release) -> bool:
        """Whether the rule looks at the two together."""
        return (
            self.exact
            and other.exact
            and self.job != other.job
            and self.dataset == other.dataset
            and other.operation in class_of(self.operation)
            and bool(self.columns & other.columns)
        )

    def exposes(self, other: Release, min_members: int) -> frozenset[str]:
        """Return the members whose own part the two, which compare, may show together.

        All of both rosters where both are trained updates; else those by which the rosters differ, where these are few.
        """
        if self.operation == other.operation == TRAINED:
            return self.members | other.members
        apart = self.members ^ other.members
        return apart if len(apart) < min_members else frozenset()


@dataclass(frozen=True)
class Earlier:
    """An earlier release and the number of rows this node has added, removed or changed since."""

    release: Release
    rows_changed: int


def check_release(
    release: Release, earlier: Iterable[Earlier], *, min_members: int, min_rows: int, consents: Collection[str]
) -> None:
    """Refuse a release that an earlier one would turn into a statement about few rows or few members.

    For an earlier release with member set S', d rows changed, and S the member set at hand:
    S = S' and d = 0 is allowed; 0 < d < `min_rows` is refused; S ≠ S' is refused while their symmetric difference has
    fewer than `min_members` members, unless each of them consented for itself. Two jobs of trained updates are refused
    unless every member of S and S' consented.

    Args:
        release: the one at hand.
        earlier: every release of the ledger; those that do not compare are passed over.
        consents: members that signed an exposure consent for this job.

    Raises:
        ChaotianError: RELEASE_DIFFERENCE, naming the exposed member where it is one.
    """
    for past in earlier:
        if not release.compares_with(past.release):
            continue
        if 0 < past.rows_changed < min_rows:
            raise ChaotianError(
                "RELEASE_DIFFERENCE",
                f"{past.rows_changed} rows changed since job {past.release.job[:12]} was released; the difference of "
                f"the two totals would show them (at least {min_rows} are needed)",
                hint="Run it on the unchanged rows, or after more rows have changed.",
            )
        exposed = sorted(release.exposes(past.release, min_members) - set(consents))
        if exposed:
            names = ", ".join(exposed)
            if release.operation == past.release.operation == TRAINED:
                why = "two jobs without noise may differ in what one member sends alone"
                way = f"Propose it with noise, under grants with a budget, or ask {names} for an exposure consent"
            else:
                apart = len(release.members ^ past.release.members)
                why = f"the two rosters differ by {apart} of at least {min_members} members"
                way = f"Ask {names} for an exposure consent"
            raise ChaotianError(
                "RELEASE_DIFFERENCE",
                f"beside job {past.release.job[:12]} this total would show the part of {names}: {why}",
                hint=f"{way}: `chaotian job consent {release.job[:12]}`.",
                member=exposed[0],
            )
