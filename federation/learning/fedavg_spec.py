"""What a `fedavg` job is about: layers, clipping, weights, the server's step, noise; and the integers this comes to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from federation.errors import ChaotianError
from federation.learning.frame import MAX_FEATURES, MAX_NAME, Feature
from federation.primitives import zcdp
from federation.secure_sum.terms import Field, Layout, Noise

RING_BITS = 32
MAX_LAYERS, MAX_VALUES = 500, 1 << 24
MAX_ROUNDS = 1000
WEIGHT = "weight"  # the field of the sum of weights
TAIL = 12  # deviations of noise that have room: beyond lies less than 2^-100 of it
LEAST_UNITS = 256  # a clipping bound has at least so many steps, or the noise leaves too little room in the ring
DTYPES = ("float32", "float64")
INITS = ("glorot", "zeros")
WEIGHTINGS = ("rows", "equal")
_LAYER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,55}")
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HEX32 = re.compile(r"[0-9a-f]{64}")
Scalar = bool | int | float | str


def _bad(field_name: str, expected: str) -> ChaotianError:
    return ChaotianError("BAD_DOCUMENT", f"parameter {field_name} of a fedavg job: expected {expected}")


@dataclass(frozen=True)
class Layer:
    """One array of the model.

    Args:
        name: its key in Flower's ArrayRecord.
        shape: lengths of its axes.
        clip: largest L2 norm of one member's update of it, in units of its values.
        init: `glorot` (uniform within ±√(6 / (fan in + fan out))) or `zeros`.
    """

    name: str
    shape: tuple[int, ...]
    clip: float
    init: str = "glorot"

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    def document(self) -> dict[str, Any]:
        """Return the layer as JSON."""
        return {"name": self.name, "shape": list(self.shape), "clip": self.clip, "init": self.init}

    @classmethod
    def from_document(cls, document: Any) -> Layer:
        """Return the layer of `document`; anything else is BAD_DOCUMENT."""
        form = "entries with name, shape, clip and, if not glorot, init"
        if not isinstance(document, Mapping) or not set(document) <= {"name", "shape", "clip", "init"}:
            raise _bad("layers", form)
        name, shape, clip = document.get("name"), document.get("shape"), document.get("clip")
        if not isinstance(name, str) or not _LAYER.fullmatch(name) or name == WEIGHT:
            raise _bad("layers", "names of at most 56 letters, digits and . _ : / -")
        if not isinstance(shape, list) or not 1 <= len(shape) <= 8 or any(type(n) is not int or n < 1 for n in shape):
            raise _bad(f"layers.{name}.shape", "a list of 1 to 8 whole numbers of at least 1")
        init = document.get("init", "glorot")
        if init not in INITS:
            raise _bad(f"layers.{name}.init", f"one of {', '.join(INITS)}")
        if math.prod(shape) > MAX_VALUES:
            raise _bad(f"layers.{name}.shape", f"at most {MAX_VALUES} values")
        return cls(name, tuple(shape), _number(f"layers.{name}.clip", clip, 1e-9, 1e9), init)


@dataclass(frozen=True)
class NoiseSpec:
    """Distributed discrete Gaussian noise.

    Args:
        multiplier: z: the noise of the honest members together has z times the deviation of what one member can change
            of the clipped sum, all layers together; at least.
        honest: how many members of any roster neither collude nor leave their noise out: n - c.
        delta: δ of the (ε, δ) that the job states.
    """

    multiplier: float
    honest: int
    delta: float = 1e-6

    def document(self) -> dict[str, Any]:
        """Return the noise as JSON."""
        return {"multiplier": self.multiplier, "honest": self.honest, "delta": self.delta}

    @classmethod
    def from_document(cls, document: Any) -> NoiseSpec | None:
        """Return the noise of `document`, None for an empty one; anything else is BAD_DOCUMENT."""
        if not isinstance(document, Mapping) or not set(document) <= {"multiplier", "honest", "delta"}:
            raise _bad("noise", "a table with multiplier, honest and delta, or none")
        if not document:
            return None
        return cls(
            _number("noise.multiplier", document.get("multiplier"), 0.01, 1e4),
            _whole("noise.honest", document.get("honest"), 1, 1000),
            _number("noise.delta", document.get("delta", 1e-6), 1e-12, 0.1),
        )


@dataclass(frozen=True)
class Units:
    """The integers of a job for a largest roster.

    Args:
        clip: ring units of every layer's clipping bound: one step of a layer is layer.clip / clip.
        share_bits: every member's noise has a deviation of 2^share_bits units; None without noise.
        bound: what one member may send in a value, noise included.
    """

    clip: int
    share_bits: int | None
    bound: int

    @property
    def share_variance(self) -> int:
        """Variance of one member's noise in squared units, 0 without noise."""
        return 0 if self.share_bits is None else 1 << (2 * self.share_bits)


@dataclass(frozen=True)
class FedAvgSpec:
    """The parameters of a `fedavg` job, as every member agreed to them.

    Args:
        app: name under which the `ClientApp` is installed at every member.
        digest: SHA-256 of the app's source, 64 hex digits.
        label, features: columns that the app is given.
        layers: arrays of the model, in order.
        rounds: how many.
        dtype: of the initial arrays.
        strategy, options: server step, by the name of Flower's strategy, and its numbers.
        config: what the app is told in every round, beside the round's number.
        weighting: `rows` (a member counts by its training rows, at most `max_weight`) or `equal`.
        holdout: share of each member's rows that the app never trains on.
        seed: text that fixes the initial arrays and which rows are held out.
        noise: None: exact, without differential privacy.
        unverified: whether totals may be taken from the platform without adding up the transcript again.
        min_rows: floor of each member's training rows.
    """

    app: str
    digest: str
    label: str
    features: tuple[Feature, ...]
    layers: tuple[Layer, ...]
    rounds: int = 10
    dtype: str = "float32"
    strategy: str = "FedAvg"
    options: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Scalar | list[Scalar]] = field(default_factory=dict)
    weighting: str = "rows"
    max_weight: int = 1 << 16
    holdout: float = 0.0
    seed: str = "1"
    noise: NoiseSpec | None = None
    unverified: bool = False
    min_rows: int = 30

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if not 1 <= len(names) <= MAX_LAYERS or len(set(names)) != len(names):
            raise _bad("layers", f"1 to {MAX_LAYERS} layers, each named once")
        if self.values > MAX_VALUES:
            raise _bad("layers", f"at most {MAX_VALUES} values together")
        columns = [feature.name for feature in self.features]
        if not 1 <= len(columns) <= MAX_FEATURES or len(set(columns)) != len(columns) or self.label in columns:
            raise _bad("features", f"1 to {MAX_FEATURES} columns, each named once, the label not among them")
        if self.noise is not None and self.weighting != "equal":
            # The number of a member's rows would be in the weights, and no noise is on them.
            raise _bad("weighting", "equal where noise is on")

    @property
    def values(self) -> int:
        """How many values all layers have."""
        return sum(layer.size for layer in self.layers)

    @property
    def columns(self) -> tuple[str, ...]:
        """Label and features."""
        return (self.label, *(feature.name for feature in self.features))

    @property
    def app_config(self) -> dict[str, Scalar | list[Scalar]]:
        """What the app is told in every round; under FedProx also `proximal-mu`, as Flower's strategy would say it."""
        proximal = {"proximal-mu": self.options.get("proximal_mu", 0.0)} if self.strategy == "FedProx" else {}
        return {**self.config, **proximal}

    @property
    def largest_weight(self) -> int:
        """The weight that none exceeds."""
        return self.max_weight if self.weighting == "rows" else 1

    def units(self, members: int) -> Units:
        """Return the integers for rosters of at most `members`.

        Without noise a clipping bound takes all the room that the ring has for so many members. With noise 2^e is the
        deviation of a member's share, as large as fits, and the bound the largest number of units with

            √h · 2^e >= z · √L · clip,

        h honest members, L layers: the root is what one member can change when every layer is at its bound.

        Raises:
            ChaotianError: BAD_DOCUMENT where noise or number of members leave too little room in the ring.
        """
        room = ((1 << (RING_BITS - 2)) - 1) // members
        if self.noise is None:
            found = Units(room, None, room)
        else:
            multiplier = Fraction(self.noise.multiplier)
            squared = Fraction(self.noise.honest) / (len(self.layers) * multiplier * multiplier)
            found = Units(0, None, 0)
            for bits in range(25):
                clip = math.isqrt(math.floor(squared * 4**bits))
                if clip + (TAIL << bits) > room:
                    break
                found = Units(clip, bits, clip + (TAIL << bits))
        if found.clip < LEAST_UNITS:
            raise ChaotianError(
                "BAD_DOCUMENT",
                f"{members} members and this noise leave a clipping bound fewer than {LEAST_UNITS} steps in the ring",
                hint="Take a smaller multiplier, fewer layers, or more honest members.",
            )
        return found

    def layout(self, members: int) -> Layout:
        """Return the vector of every round: the layers, and the weight."""
        bound = self.units(members).bound
        fields = [Field(layer.name, layer.size, 0, bound) for layer in self.layers]
        return Layout(RING_BITS, (*fields, Field(WEIGHT, 1, 0, self.largest_weight)), members)

    def terms_noise(self, members: int) -> Noise | None:
        """Return what the terms of every round say about noise."""
        if self.noise is None:
            return None
        return Noise(self.units(members).share_variance, self.noise.honest)

    def round_loss(self, members: int) -> float:
        """Return ρ that a round costs every member under zero-concentrated differential privacy; 0 without noise."""
        if self.noise is None:
            return 0.0
        units = self.units(members)
        return zcdp.round_loss(
            squared_sensitivity=len(self.layers) * units.clip**2,
            values=self.values,
            share_variance=units.share_variance,
            honest=self.noise.honest,
        )

    def epsilon(self, members: int, rounds: int | None = None) -> float | None:
        """Return ε at `noise.delta` after so many rounds (all of them where left out); None without noise."""
        if self.noise is None:
            return None
        count = self.rounds if rounds is None else rounds
        return zcdp.epsilon(count * self.round_loss(members), self.noise.delta)

    def document(self) -> dict[str, Any]:
        """Return the parameters as JSON, defaults included."""
        return {
            "app": self.app,
            "digest": self.digest,
            "label": self.label,
            "features": [feature.document() for feature in self.features],
            "layers": [layer.document() for layer in self.layers],
            "rounds": self.rounds,
            "dtype": self.dtype,
            "strategy": self.strategy,
            "options": dict(self.options),
            "config": {key: list(value) if isinstance(value, list) else value for key, value in self.config.items()},
            "weighting": self.weighting,
            "max_weight": self.max_weight,
            "holdout": self.holdout,
            "seed": self.seed,
            "noise": {} if self.noise is None else self.noise.document(),
            "unverified": self.unverified,
        }

    @classmethod
    def from_document(cls, document: Any, *, min_rows: int = 30) -> FedAvgSpec:
        """Return the parameters of `document`; `min_rows` comes from the job's floors.

        Raises:
            ChaotianError: BAD_DOCUMENT naming the parameter.
        """
        if not isinstance(document, Mapping):
            raise ChaotianError("BAD_DOCUMENT", "the parameters of a fedavg job are a table")
        known = {f for f in cls.__dataclass_fields__ if f != "min_rows"}
        unknown = sorted(str(key) for key in set(document) - known)
        if unknown:
            raise ChaotianError("BAD_DOCUMENT", f"a fedavg job has no parameter {unknown[0][:MAX_NAME]}")
        get = document.get
        layers, features = get("layers"), get("features")
        if not isinstance(layers, list) or not isinstance(features, list):
            raise _bad("layers and features", "lists")
        seed = get("seed", "1")
        if not isinstance(seed, str) or not 1 <= len(seed) <= MAX_NAME:
            raise _bad("seed", f"a text of 1 to {MAX_NAME} characters")
        label = get("label")
        if not isinstance(label, str) or not 1 <= len(label) <= MAX_NAME:
            raise _bad("label", "the column of the outcome")
        unverified = get("unverified", False)
        if type(unverified) is not bool:
            raise _bad("unverified", "true or false")
        noise = NoiseSpec.from_document(get("noise", {}))
        return cls(
            app=_matching("app", get("app"), _APP, "the name of an installed app"),
            digest=_matching("digest", get("digest"), _HEX32, "the SHA-256 of the app, 64 hex digits"),
            label=label,
            features=tuple(Feature.from_document(entry) for entry in features),
            layers=tuple(Layer.from_document(entry) for entry in layers),
            rounds=_whole("rounds", get("rounds", 10), 1, MAX_ROUNDS),
            dtype=_one_of("dtype", get("dtype", "float32"), DTYPES),
            strategy=_matching("strategy", get("strategy", "FedAvg"), _APP, "the name of a strategy"),
            options=_options(get("options", {})),
            config=_config(get("config", {})),
            weighting=_one_of("weighting", get("weighting", "equal" if noise else "rows"), WEIGHTINGS),
            max_weight=_whole("max_weight", get("max_weight", 1 << 16), 1, 1 << 19),
            holdout=_number("holdout", get("holdout", 0.0), 0.0, 0.9),
            seed=seed,
            noise=noise,
            unverified=unverified,
            min_rows=min_rows,
        )


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _bad(name, f"a number from {low:g} to {high:g}")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _bad(name, f"a whole number from {low} to {high}")
    return value


def _matching(name: str, value: Any, pattern: re.Pattern[str], expected: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _bad(name, expected)
    return value


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise _bad(name, f"one of {', '.join(known)}")
    return str(value)


def _options(document: Any) -> dict[str, float]:
    if not isinstance(document, Mapping) or len(document) > 16:
        raise _bad("options", "a table of the strategy's numbers")
    return {
        _matching("options", key, _APP, "names of options"): _number(f"options.{key}", value, -1e9, 1e9)
        for key, value in document.items()
    }


def _config(document: Any) -> dict[str, Scalar | list[Scalar]]:
    expected = "a table of at most 64 numbers, texts, truth values, or lists of one kind of them"
    if not isinstance(document, Mapping) or len(document) > 64:
        raise _bad("config", expected)
    out: dict[str, Scalar | list[Scalar]] = {}
    for key, value in document.items():
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_NAME:
            raise _bad("config", expected)
        parts = value if isinstance(value, list) else [value]
        if any(type(part) is int for part in parts) and any(type(part) is float for part in parts):
            parts = [float(part) if type(part) is int else part for part in parts]
        same = len({type(part) for part in parts}) == 1 and type(parts[0]) in (bool, int, float, str)
        finite = all(type(part) is not float or math.isfinite(part) for part in parts)
        if not same or not finite or len(parts) > 10_000 or key == "server-round":
            raise _bad(f"config.{key[:MAX_NAME]}", expected)
        out[key] = parts if isinstance(value, list) else parts[0]
    return out
