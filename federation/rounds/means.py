"""Stock Flower strategies on a mean alone: made by name, stepped at the platform and, alike, at every member.

Members run the same code on the same total, so that they know which arrays must come next. What a strategy remembers
between rounds (momenta) is all elementwise; NumPy rounds each operation correctly, so the bits are equal where NumPy
and the C library are (`pow` of FedAdam's and FedYogi's step is the C library's).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import Arrays
from federation.rounds.flower import (
    ConfigRecord,
    Grid,
    Message,
    RecordDict,
    Run,
    Strategy,
    empty_run,
    mean_message,
    strategy_class,
    to_arrays,
    to_record,
)
from federation.rounds.strategy import PHASES, check_strategy

PLAIN = frozenset({"FedAvg", "FedProx"})  # what comes next is the mean: their product with 1.0
MEMORY = ("m_t", "v_t", "momentum_vector")  # attributes in which stock strategies keep arrays between rounds
_SETTINGS = frozenset({"fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes"})


def check_options(name: str, options: Mapping[str, float]) -> None:
    """Raise BAD_DOCUMENT unless a `fedavg` job may name the strategy, with these options."""
    if check_strategy(name) == PHASES:
        raise ChaotianError("BAD_DOCUMENT", f"strategy {PHASES} sends no arrays: a fedavg job names one that does")
    known = _numbers(name)
    unknown = sorted(set(options) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise ChaotianError(
            "BAD_DOCUMENT", f"strategy {name} has no option {unknown[0][:64]}", hint=f"It has: {allowed}."
        )


def _numbers(name: str) -> set[str]:
    """Return the options of a strategy that are floating point numbers of its own."""
    parameters = inspect.signature(strategy_class(name)).parameters
    return {key for key, found in parameters.items() if type(found.default) is float} - _SETTINGS


def make_strategy(name: str, options: Mapping[str, float]) -> Strategy:
    """Return a stock strategy that trains on all members and evaluates nothing at the platform.

    Raises:
        ChaotianError: BAD_DOCUMENT.
    """
    check_options(name, options)
    settings: dict[str, Any] = {"min_train_nodes": 0, "min_available_nodes": 0, "fraction_evaluate": 0.0}
    return strategy_class(name)(**settings, **options)


class NoGrid(Grid):
    """A grid without nodes: lets a strategy take note of the arrays of a round and send nothing."""

    def set_run(self, run: Run) -> None:
        """Ignore it."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return empty_run("")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Refused."""
        raise ChaotianError("USAGE", "nothing can be sent here")

    def get_node_ids(self) -> Iterable[int]:
        """Return no nodes."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send nothing."""
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return nothing."""
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Return nothing."""
        return []


class ServerStep:
    """The server step of a stock strategy, as a member takes it for itself.

    Args:
        name, options: of the strategy.
    """

    def __init__(self, name: str, options: Mapping[str, float]) -> None:
        self._strategy = make_strategy(name, options)

    def next(self, round_: int, arrays: Arrays, mean: Arrays, weight: int) -> Arrays:
        """Return the arrays that the strategy makes of a round's arrays and mean.

        Raises:
            ChaotianError: NOT_FINITE where it diverged (by way of the caller's check); INTERNAL where it made none.
        """
        if type(self._strategy).__name__ in PLAIN:
            return mean
        list(self._strategy.configure_train(round_, to_record(arrays), ConfigRecord(), NoGrid()))
        following, _ = self._strategy.aggregate_train(round_, [mean_message("", 0, 0, round_, mean, weight, 0.0)])
        if following is None:
            raise ChaotianError("INTERNAL", "the strategy made no arrays of the mean")
        return to_arrays(following)

    def slots(self) -> dict[str, Arrays]:
        """Return what the strategy remembers, by attribute."""
        return memory(self._strategy)

    def restore(self, slots: Mapping[str, Arrays]) -> None:
        """Take up `slots` again."""
        remember(self._strategy, slots)


def memory(strategy: Strategy) -> dict[str, Arrays]:
    """Return the arrays that a strategy keeps between rounds, by attribute and layer."""
    out: dict[str, Arrays] = {}
    for name in MEMORY:
        value = getattr(strategy, name, None)
        if isinstance(value, dict) and value:
            out[name] = dict(value)
        elif isinstance(value, list) and value:
            layers = getattr(strategy, "current_arrays", None) or {}  # a list is in their order
            out[name] = dict(zip(layers, value, strict=True))
    return out


def remember(strategy: Strategy, slots: Mapping[str, Arrays]) -> None:
    """Give a strategy back what `memory` returned."""
    for name, arrays in slots.items():
        if name not in MEMORY or not hasattr(strategy, name):
            raise ChaotianError("BAD_DOCUMENT", "the saved memory is of another strategy")
        setattr(strategy, name, list(arrays.values()) if name == "momentum_vector" else dict(arrays))


def run_rounds(
    strategy: Strategy,
    grid: Grid,
    arrays: Mapping[str, NDArray[Any]],
    *,
    first: int,
    rounds: int,
    timeout: float,
    checkpoint: Callable[[int, Arrays], None],
) -> Arrays:
    """Drive a strategy as its stock `start` does, from any round on, with a checkpoint after each; return the arrays.

    Args:
        first: number of the first round.
        rounds: number of the last one.
        timeout: seconds a round may take.
        checkpoint: called with the round and the arrays that follow from it.

    Raises:
        ChaotianError: what the grid ends a round with.
    """
    now = to_record(arrays)
    for round_ in range(first, rounds + 1):
        messages = strategy.configure_train(round_, now, ConfigRecord(), grid)
        replies = grid.send_and_receive(messages=messages, timeout=timeout)
        following, _ = strategy.aggregate_train(round_, replies)
        if following is None:
            raise ChaotianError("INTERNAL", "a round brought no mean")
        now = following
        checkpoint(round_, to_arrays(now))
    return to_arrays(now)
