"""The platform's side of a job as a Flower `Strategy` that knows a status and nothing else.

The stock `Strategy.start` runs a fixed number of rounds and averages arrays that it sees. Here members derive every
step from a total that stays encrypted towards the platform, so there is nothing to send and nothing to aggregate:
each round is one call of the grid, which answers with one status of the federation as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from federation.errors import CATALOGUE, ChaotianError
from federation.rounds.flower import (
    ArrayRecord,
    ConfigRecord,
    Grid,
    Message,
    MetricRecord,
    Result,
    Strategy,
    read_status,
    round_message,
)

# These choose among the updates of single members, which nobody but the member has here.
NEEDS_SINGLE_UPDATES = frozenset(
    {"Bulyan", "FedMedian", "FedTrimmedAvg", "FedXgbBagging", "FedXgbCyclic", "Krum", "MultiKrum"}
)
# These work on a mean alone; `fedavg` jobs (result_to = platform) may name them.
WORKS_ON_MEANS = frozenset({"FedAdagrad", "FedAdam", "FedAvg", "FedAvgM", "FedProx", "FedYogi"})
PHASES = "PhaseStrategy"


def check_strategy(name: str) -> str:
    """Return `name` if a job may run under the strategy of that name.

    Raises:
        ChaotianError: BAD_DOCUMENT, for a strategy that needs single members' updates and for any that is not known.
    """
    if name in NEEDS_SINGLE_UPDATES:
        raise ChaotianError(
            "BAD_DOCUMENT",
            f"strategy {name} looks at the update of each member; only totals leave a member",
            hint=f"Use one that works on totals: {PHASES}, {', '.join(sorted(WORKS_ON_MEANS))}.",
        )
    if name != PHASES and name not in WORKS_ON_MEANS:
        known = ", ".join([PHASES, *sorted(WORKS_ON_MEANS)])
        raise ChaotianError("BAD_DOCUMENT", "the strategy is not known", hint=f"Known are: {known}.")
    return name


@dataclass(frozen=True)
class Phase:
    """Where the federation stands, as the platform may know it.

    Args:
        round: rounds completed.
        state_hash: hex of the hash of the derived state that all members reported, empty before the first round.
        layout: canonical JSON of the next round's layout, empty before the first round and when done.
        done: whether the members say that no further round is needed.
        code: why the job cannot go on, empty while it can; a code of the catalogue.
    """

    round: int = 0
    state_hash: str = ""
    layout: str = ""
    done: bool = False
    code: str = ""

    def record(self) -> dict[str, str | int | bool]:
        """Return the phase as the values of a status record."""
        return {
            "round": self.round,
            "state_hash": self.state_hash,
            "layout": self.layout,
            "done": self.done,
            "code": self.code,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Phase:
        """Return the phase of `record`; an unknown, missing or mistyped value is MALFORMED."""
        kinds = {"round": int, "state_hash": str, "layout": str, "done": bool, "code": str}
        if set(record) != set(kinds) or any(type(record[name]) is not kind for name, kind in kinds.items()):
            raise ChaotianError("MALFORMED", "a status has the fields round, state_hash, layout, done and code")
        if record["code"] and record["code"] not in CATALOGUE:
            raise ChaotianError("MALFORMED", "a status has a code that is not in the catalogue")
        return cls(**record)


class PhaseStrategy(Strategy):
    """Asks the grid for one round after the other until the members say that they are done.

    Args:
        job: the job's id.
        space: the space, whose federation id answers.
        source: Flower node id under which the strategy asks.
        max_rounds: rounds after which NOT_CONVERGED ends the job.
        checkpoint: called after each round with the new phase, before the next one is asked for.
        now: seconds since the epoch, for metadata.
        first: where to begin: the last checkpoint after a restart.
    """

    def __init__(
        self,
        job: str,
        *,
        federation: int,
        source: int,
        max_rounds: int,
        checkpoint: Callable[[Phase], None],
        now: Callable[[], float],
        first: Phase | None = None,
    ) -> None:
        self.job = job
        self.federation = federation
        self.source = source
        self.max_rounds = max_rounds
        self.checkpoint = checkpoint
        self.now = now
        self.phase = first or Phase()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run rounds until done; return Flower's result, which holds a round count and no arrays.

        Args:
            grid: carries a round; answers with one status.
            initial_arrays, train_config, evaluate_config, evaluate_fn: must be left out or empty: members start from
                what they accepted, and nothing is evaluated at the platform.
            num_rounds: lowers `max_rounds`.
            timeout: seconds a round may take.

        Raises:
            ChaotianError: the code the members or the grid ended the job with; NOT_CONVERGED after the last round.
        """
        if initial_arrays or train_config or evaluate_config or evaluate_fn is not None:
            raise ChaotianError("USAGE", "the strategy sends no arrays and no configuration")
        most = self.max_rounds if num_rounds is None else min(num_rounds, self.max_rounds)
        result = Result()
        while not self.phase.done:
            following = self.phase.round + 1
            if following > most:
                raise ChaotianError("NOT_CONVERGED", f"the job is not done after {most} rounds")
            messages = self.configure_train(following, ArrayRecord(), ConfigRecord(), grid)
            replies = list(grid.send_and_receive(messages=messages, timeout=timeout))
            phase = self._read(replies, following)
            if phase.code:
                raise ChaotianError(phase.code)
            self.phase = phase
            self.checkpoint(phase)
            result.train_metrics_clientapp[following] = MetricRecord({"round": following})
        return result

    def _read(self, replies: list[Message], round_: int) -> Phase:
        if len(replies) != 1 or replies[0].metadata.src_node_id != self.federation:
            raise ChaotianError("MALFORMED", "a round answers with one message, from the federation")
        phase = Phase.from_record(read_status(replies[0]))
        if not phase.code and phase.round != round_:
            raise ChaotianError("MALFORMED", f"asked for round {round_}, got a status of round {phase.round}")
        return phase

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message a member with the last status; `arrays` and `config` are not sent."""
        record = replace(self.phase, code="").record()
        return [
            round_message(self.job, self.source, node, server_round, record, self.now())
            for node in sorted(grid.get_node_ids())
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate nothing: the members have already added up."""
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no message: members evaluate by rounds of the job itself."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate nothing."""
        return None

    def summary(self) -> None:
        """Say nothing: progress is the coordinator's to show."""
