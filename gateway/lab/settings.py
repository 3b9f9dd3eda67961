"""What a person typed for `chaotian lab train`, checked."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from federation.errors import ChaotianError
from federation.learning.options import DIRECTIONS, MAX_BINS, BinningOptions
from federation.secure_sum.terms import MAX_ROSTER, MIN_ROSTER
from gateway.datasets.sources import Source

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_BOOSTING = ("trees", "depth", "eta", "lambda", "min_child_weight")
MAX_EDGES_BYTES = 16 << 20
MAX_ROUNDS = 1000
MAX_FOLDS = 20


@dataclass(frozen=True)
class Parameters:
    """The `--param`s of a scorecard.

    Args:
        penalty: λ of the objective Σ log-loss + λ/2 · |w|², the intercept free.
        features: `raw` (z-scores) or `woe` (weights of evidence of common bins).
        impute: under `raw`, `none` (a missing value is an error) or `mean` (it takes the mean of all members' values).
        seed: text that fixes which rows are held out.
        holdout: share of the rows kept out of training where there is no test file.
        folds: 0, or into how many parts each member's rows are split for cross-validation, in place of `holdout`.
        max_rounds: most Newton rounds.
    """

    penalty: float = 1.0
    features: str = "raw"
    impute: str = "none"
    seed: str = "1"
    holdout: float = 0.2
    folds: int = 0
    max_rounds: int = 40
    binning: BinningOptions = field(default_factory=BinningOptions)

    @property
    def missing(self) -> bool:
        """Whether features may miss values: with imputed means, and under woe, where they are a bin of their own."""
        return self.features == "woe" or self.impute == "mean"

    def document(self) -> dict[str, Any]:
        """Return the parameters as JSON; those of the bins only where there are bins."""
        out = {name: getattr(self, name) for name in (f.name for f in fields(self)) if name != "binning"}
        return {**out, **(self.binning.document() if self.features == "woe" else {})}


@dataclass(frozen=True)
class TrainSettings:
    """A lab training run.

    Args:
        members: file of each member, or its rows in memory, by name, in the order given.
        id: column that identifies a row.
        label: column of the outcome, 1 = bad.
        test: file with rows to score at the end.
        drop: columns of the files that are not used.
        category: columns that hold categories although their values look like numbers.
        processes: one process a member and real TLS, in place of all in this process.

    Raises:
        ChaotianError: USAGE.
    """

    members: Mapping[str, Path | Source]
    id: str
    label: str
    test: Path | Source | None = None
    parameters: Parameters = field(default_factory=Parameters)
    drop: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    processes: bool = False

    def __post_init__(self) -> None:
        if len(self.members) > MAX_ROSTER:
            raise ChaotianError("USAGE", f"a lab has at most {MAX_ROSTER} members")
        if len(self.members) < MIN_ROSTER:
            raise ChaotianError(
                "TOO_FEW_MEMBERS",
                f"{len(self.members)} --member given, a secure sum needs at least {MIN_ROSTER}",
                hint="With two, each would learn the other's sums by subtracting its own. Bring a third.",
            )
        if self.id == self.label:
            raise ChaotianError("USAGE", "--id and --label name the same column")
        for name in (self.id, self.label):
            if name in self.drop or name in self.category:
                raise ChaotianError(
                    "USAGE", f"column {name} cannot be dropped, nor be a category: it is --id or --label"
                )
        both = sorted(set(self.drop) & set(self.category))
        if both:
            raise ChaotianError("USAGE", f"column {both[0]} is named by --drop and by --category")
        if self.processes and self.parameters.folds:
            raise ChaotianError("USAGE", "folds=K is for the lab in one process, without --processes")
        if self.test is not None and self.parameters.folds:
            raise ChaotianError("USAGE", "folds=K is for a run without --test, which splits the members' own rows")


def parse_members(given: Sequence[str], label: str) -> dict[str, Path]:
    """Return the files by member of `NAME=FILE` or `NAME=FILE:LABEL`.

    With rows split, all files have the same columns, so a label named here must be the run's.

    Raises:
        ChaotianError: USAGE, or DATA_SOURCE where a file is not there.
    """
    out: dict[str, Path] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or not place or not _NAME.fullmatch(name):
            raise ChaotianError(
                "USAGE", "--member is NAME=FILE; a name has letters, digits, and . _ - within", hint="As a=a.csv"
            )
        if name in out:
            raise ChaotianError("USAGE", f"two members are named {name}")
        path = Path(place)
        if not path.exists() and ":" in place:
            head, _, own = place.rpartition(":")
            if Path(head).exists():
                if own != label:
                    raise ChaotianError("USAGE", f"with --split rows all members have the label of --label, {label}")
                path = Path(head)
        out[name] = _file(path)
    return out


def parse_test(given: str | None) -> Path | None:
    """Return the test file; DATA_SOURCE where it is not there."""
    return None if given is None else _file(Path(given))


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ChaotianError("DATA_SOURCE", f"{path} is not there, or not a file")
    return path


def parse_parameters(given: Sequence[str]) -> Parameters:
    """Return the parameters of the `KEY=VALUE`s.

    Raises:
        ChaotianError: USAGE naming the key.
    """
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise ChaotianError("USAGE", "--param is KEY=VALUE, as penalty=1")
        if key in found:
            raise ChaotianError("USAGE", f"--param {key} is given twice")
        if key in _BOOSTING:
            raise ChaotianError(
                "USAGE", f"--param {key} belongs to the job boosting", hint="A scorecard does not use it."
            )
        if key not in _PARSERS:
            known = ", ".join(_PARSERS)
            raise ChaotianError("USAGE", f"a scorecard has no parameter {key[:60]}", hint=f"It has: {known}")
        found[key] = _PARSERS[key](key, value)
    if "holdout" in found and found.get("folds"):
        raise ChaotianError("USAGE", "holdout=SHARE and folds=K exclude each other")
    binning = {key: found.pop(key) for key in BinningOptions.KEYS if key in found}
    if found.get("features", "raw") == "raw" and binning:
        raise ChaotianError("USAGE", f"--param {min(binning)} needs features=woe")
    if found.get("features") == "woe" and found.get("impute") == "mean":
        raise ChaotianError("USAGE", "under features=woe missing values are a bin of their own: leave impute out")
    return Parameters(**found, binning=BinningOptions.from_document(binning))


def _number(low: float, high: float) -> Callable[[str, str], float]:
    def parse(key: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ChaotianError("USAGE", f"--param {key} is a number from {low:g} to {high:g}")
        return number

    return parse


def _whole(low: int, high: int, *, also: int | None = None) -> Callable[[str, str], int]:
    def parse(key: str, value: str) -> int:
        number = int(value) if re.fullmatch(r"\d{1,9}", value) else -1
        if not low <= number <= high and number != also:
            raise ChaotianError("USAGE", f"--param {key} is a whole number from {low} to {high}")
        return number

    return parse


def _features(key: str, value: str) -> str:
    if value not in ("raw", "woe"):
        raise ChaotianError("USAGE", "--param features is raw or woe")
    return value


def _edges(key: str, value: str) -> Any:
    path = Path(value)
    try:
        if path.stat().st_size > MAX_EDGES_BYTES:
            raise ChaotianError("OVERSIZED", f"{path.name} holds more than {MAX_EDGES_BYTES >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ChaotianError("DATA_SOURCE", f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    except (ValueError, RecursionError):
        raise ChaotianError("BAD_DOCUMENT", f"{path.name} is not JSON", hint='It is {"column": [1.5, 3], …}.') from None
    return document


def _monotone(key: str, value: str) -> str:
    if value not in DIRECTIONS:
        raise ChaotianError("USAGE", f"--param monotone is one of {', '.join(DIRECTIONS)}")
    return value


def _impute(key: str, value: str) -> str:
    if value not in ("mean", "none"):
        raise ChaotianError("USAGE", "--param impute is mean or none")
    return value


def _seed(key: str, value: str) -> str:
    if len(value) > 120 or not value.isprintable():
        raise ChaotianError("USAGE", "--param seed is a text of at most 120 printable characters")
    return value


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "penalty": _number(0.0, 1e9),
    "features": _features,
    "impute": _impute,
    "edges": _edges,
    "bins": _whole(2, MAX_BINS),
    "monotone": _monotone,
    "smoothing": _number(0.0, 100.0),
    "seed": _seed,
    "holdout": _number(0.0, 0.9),
    "folds": _whole(2, MAX_FOLDS, also=0),
    "max_rounds": _whole(1, MAX_ROUNDS),
}
