"""What a kind of job is to everything around it: documents, grants, previews, runs and results.

A `JobPlan` is the parameters of one job, read strictly, with the answers to what the node asks of every kind alike. A
new kind is a subclass and one entry in `kinds.KINDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.frame import Feature, Frame
from federation.learning.holdout import held_out
from federation.learning.model import Model
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.program import Program
from federation.secure_sum.terms import Layout, Noise

# Who holds a row out is known from its identifier and the seed. With any share a proposer could choose both so that
# one firm alone changes sides, and read from who refuses (RELEASE_DIFFERENCE) which bank has it.
HOLDOUTS = tuple(k / 20 for k in range(11))
MAX_DEPTH = 8  # of nested parameters


@dataclass(frozen=True)
class Inputs:
    """What one member brings to a job.

    Args:
        rows: its rows: of the document's `dataset`, and of `after` where the kind compares two dates.
        test: rows of the document's `test`, which only this member looks at.
        model: the model that the job names.
        members: largest roster the totals must hold.
    """

    rows: tuple[Frame, ...]
    members: int
    test: Frame | None = None
    model: Model | None = None


@dataclass(frozen=True)
class Round:
    """Rounds of one operation, as a member is told of them before it accepts.

    Args:
        operation: key of grants and of the release ledger.
        times: how many such rounds there are, e.g. `1` or `up to 40`.
        fields: length of each field of the vector.
        layout: of the vector, where it is known already; else the lengths are the largest there can be.
    """

    operation: str
    times: str
    fields: Mapping[str, int]
    layout: Layout | None = None


@dataclass(frozen=True)
class Outcome:
    """What a finished job brings a member.

    Args:
        result: the pooled result as JSON, equal at all members; None where it is the model.
        own: figures on the own rows, which never leave this member.
        model: the trained model.
        arrays: trained arrays as an .npz file.
    """

    result: Mapping[str, Any] | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    model: Model | None = None
    arrays: bytes = b""


class JobProgram(Program, Protocol):
    """A program that people can watch."""

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs."""
        ...


class JobPlan(ABC):
    """The parameters of one job of one kind.

    Attributes:
        kind: its name in documents.
        title: what it computes, in a few words.
        result_to: who may learn the totals.
        uses: those of the document's fields `test` and `after` that it uses; `after` is then required.
        leaks: what can be read from the totals beyond the result, and by whom.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    result_to: ClassVar[tuple[str, ...]] = ("members",)  # what later steps derive from stays with the members
    uses: ClassVar[frozenset[str]] = frozenset()
    leaks: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def read(cls, params: Any, *, min_rows: int) -> Self:
        """Return the plan of a document's `params`; anything unknown, missing or out of range is BAD_DOCUMENT."""

    @abstractmethod
    def params(self) -> dict[str, Any]:
        """Return the parameters as JSON, defaults included: the one form in which they are signed."""

    @property
    def model(self) -> str:
        """Version of the model that every member must hold, 64 hex digits, or empty."""
        return ""

    def verified(self, result_to: str) -> bool:
        """Whether members add the transcript of every total up again."""
        return True

    def noise(self, members: int) -> Noise | None:
        """Return the noise that every member adds in every round, for a largest roster of so many."""
        return None

    def loss(self, members: int) -> float | None:
        """Return ρ that a round costs every member; None where totals are exact."""
        return None

    @property
    @abstractmethod
    def max_rounds(self) -> int:
        """Rounds after which the platform gives the job up."""

    @abstractmethod
    def operations(self) -> tuple[str, ...]:
        """Return the operations of all rounds there may be, in order: a grant must cover every one."""

    @abstractmethod
    def features(self, model: Model | None) -> tuple[Feature, ...]:
        """Return the columns that the job takes as numbers or as categories."""

    @abstractmethod
    def columns(self, model: Model | None) -> tuple[str, ...]:
        """Return all columns of the dataset that the job reads."""

    def selection(self) -> str:
        """Return which rows of the dataset enter; see `select`."""
        return selection()

    @abstractmethod
    def program(self, inputs: Inputs) -> JobProgram:
        """Return the job's arithmetic over a member's rows.

        Raises:
            ChaotianError: where the rows do not fit the job (DATA_*, NOT_FINITE, OVERFLOW), naming the column.
        """

    @abstractmethod
    def rounds(self, first: Layout, members: int, model: Model | None) -> list[Round]:
        """Return what would leave, round by round.

        Args:
            first: the layout of the first round, as this member's own program derives it.
            members: number of members.
            model: the model that the job names.
        """

    @abstractmethod
    def outcome(self, program: JobProgram, job: str) -> Outcome:
        """Return what the finished program of the job `job` gives."""


# --- which rows enter -----------------------------------------------------------------------------------------------


def selection(holdout: float = 0.0, seed: str = "", side: str = "training") -> str:
    """Return which rows enter, as canonical JSON: of the `training` or of the `holdout` side."""
    document = {"holdout": holdout, "seed": seed if holdout else "", "side": side if holdout else "training"}
    return canonical_json(document).decode()


def select(frame: Frame, selected: str) -> NDArray[np.bool_]:
    """Return for each row whether it enters, by a `selection`; an empty one takes all."""
    if not selected:
        return np.ones(len(frame), dtype=np.bool_)
    document = parse_canonical_json(selected.encode())
    held = held_out(frame.ids, document["seed"], float(document["holdout"]))
    return held if document["side"] == "holdout" else ~held


# --- what holds for the parameters of every kind --------------------------------------------------------------------


def check_holdout(holdout: float) -> None:
    """Raise BAD_DOCUMENT for a share that is no multiple of 0.05 from 0 to 0.5."""
    if holdout not in HOLDOUTS:
        raise ChaotianError("BAD_DOCUMENT", "holdout is a multiple of 0.05 from 0 to 0.5")


def check_texts(value: Any, depth: int = 0) -> None:
    """Raise BAD_DOCUMENT where a name or text within `value` could show a person something else than it is."""
    if depth > MAX_DEPTH:
        raise ChaotianError("BAD_DOCUMENT", "the parameters of a job are nested too deeply")
    if isinstance(value, str):
        if not value.isprintable():
            raise ChaotianError("BAD_DOCUMENT", "a name or text in params has a control or invisible character")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            check_texts(key, depth + 1)
            check_texts(part, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for part in value:
            check_texts(part, depth + 1)
