"""The job `profile`: what all members' rows look like together, column by column, without anybody showing them.

`profile.counts` sums rows, values present, violations of the domain, sums, levels; `profile.histogram` log-linear
histograms; `profile.moments` second and third powers of deviations from the pooled mean (the two-pass rule).
docs/jobs/profile.md has the formulas, what leaves, and what members can read from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np

from federation.errors import ChaotianError
from federation.learning.columns import LARGEST, MAX_ROWS, check_features, codes_or_missing, numeric_or_missing
from federation.learning.exact import exact_sum, nearest_float, nearest_root, real, real_arithmetic
from federation.learning.frame import MAX_FEATURES, Feature, Frame
from federation.learning.histogram import SLOTS, Quantile, guarded_range, histogram, quantile
from federation.learning.options import only
from federation.learning.steps import Steps, Totals, chunks, plain
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# A sum travels as a multiple of 2^-96, squares of 2^-128, cubes of 2^-160: 64 bits behind the point and a shift.
BITS, SUM_SHIFT, SQUARE_SHIFT, CUBE_SHIFT = 64, 32, 64, 96
OTHER = "(other)"
_MOMENTS = ("mean", "sd", "skewness")


@dataclass(frozen=True)
class ProfileSpec:
    """The parameters of a `profile` job.

    Args:
        features: columns; the levels of a category are its domain.
        domains: (low, high), both allowed, of numeric columns; None: no limit.
        min_rows: floor of every count that is published.
    """

    features: tuple[Feature, ...]
    domains: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    min_rows: int = 30

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names or len(names) > MAX_FEATURES or len(set(names)) != len(names):
            raise ChaotianError("BAD_DOCUMENT", f"a job has 1 to {MAX_FEATURES} features, each named once")
        strangers = sorted(set(self.domains) - {f.name for f in self.features if f.type == "numeric"})
        if strangers:
            raise ChaotianError("BAD_DOCUMENT", f"a domain is given for {strangers[0]}, which is no numeric feature")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the dataset that the job reads."""
        return tuple(feature.name for feature in self.features)

    def document(self) -> dict[str, Any]:
        """Return the parameters as a JSON document."""
        domains = {name: list(limits) for name, limits in sorted(self.domains.items())}
        return {"features": [feature.document() for feature in self.features], "domains": domains}

    @classmethod
    def from_document(cls, document: Any, *, min_rows: int = 30) -> ProfileSpec:
        """Return the parameters of `document`: `features` as in a scorecard, `domains` = {column: [low, high]}."""
        document = only(document, {"features", "domains"}, "a profile")
        if not isinstance(document.get("features"), list):
            raise ChaotianError("BAD_DOCUMENT", "features is a list of columns")
        given = document.get("domains", {})
        if not isinstance(given, Mapping):
            raise ChaotianError("BAD_DOCUMENT", "domains is a table: column = [low, high]")
        features = tuple(Feature.from_document(feature) for feature in document["features"])
        return cls(features, {str(name): _limits(limits) for name, limits in given.items()}, min_rows)


def _limits(given: Any) -> tuple[float | None, float | None]:
    plain = isinstance(given, list | tuple) and len(given) == 2
    if not plain or any(
        limit is not None
        and (isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit))
        for limit in given
    ):
        raise ChaotianError("BAD_DOCUMENT", "a domain is [low, high], each a finite number or nothing")
    low, high = (None if limit is None else float(limit) for limit in given)
    if low is not None and high is not None and low > high:
        raise ChaotianError("BAD_DOCUMENT", "a domain begins below its end")
    return low, high


@dataclass(frozen=True)
class ColumnProfile:
    """One column over all members' rows. A count that is None is a small cell: it, or the rest, is below `min_rows`.

    Args:
        present, missing, violations: rows with a value, without one, and outside of the domain (else counted as any).
        mean, sd, skewness: of the values present, ddof 0; NaN-free: None where fewer than `min_rows` are present,
            skewness also where all are equal.
        low, high: fewer than `min_rows` rows lie at or below low, or above high: never an exact minimum or maximum.
        quantiles: with bounds from the histogram; those with fewer than `min_rows` rows on a side are left out.
        levels: rows of each level; levels below the floor are joined as `(other)`.
        merged: how many declared levels that are.
    """

    name: str
    type: str
    present: int | None
    missing: int | None
    violations: int | None
    mean: float | None = None
    sd: float | None = None
    skewness: float | None = None
    low: float | None = None
    high: float | None = None
    quantiles: tuple[Quantile, ...] = ()
    levels: Mapping[str, int] = field(default_factory=dict)
    merged: int = 0

    @property
    def constant(self) -> bool:
        """Whether all rows that have a value have the same one."""
        return self.sd == 0.0 or (self.type == "category" and len(self.levels) == 1 and OTHER not in self.levels)


@dataclass(frozen=True)
class ProfileResult:
    """The profile of all columns over `rows` pooled rows."""

    rows: int
    min_rows: int
    columns: tuple[ColumnProfile, ...]

    def column(self, name: str) -> ColumnProfile:
        """Return one column's profile; NOT_FOUND where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ChaotianError("NOT_FOUND", f"column {name} was not profiled")

    def document(self) -> dict[str, Any]:
        """Return the result as JSON."""
        columns = [{**plain(asdict(column)), "constant": column.constant} for column in self.columns]
        return {"format": "chaotian-profile/1", "rows": self.rows, "min_rows": self.min_rows, "columns": columns}


def shown(count: int, total: int, floor: int) -> int | None:
    """Return a count, or None where it or the rest of `total` is a small cell: above 0 and below `floor`."""
    return None if 0 < count < floor or 0 < total - count < floor else count


class Profile(Steps):
    """One member's side of the job.

    Args:
        spec: the parameters all members agreed to.
        frame: this member's rows; values may be missing.
        members: largest roster the totals must hold.

    Raises:
        ChaotianError: where the own data do not fit the job (DATA_*, NOT_FINITE, OVERFLOW), naming the column.
    """

    kind = "profile"
    phases = ("counts", "histogram", "moments")

    def __init__(self, spec: ProfileSpec, frame: Frame, *, members: int = 32) -> None:
        super().__init__(spec.document(), spec.min_rows, members)
        self.spec, self._frame = spec, frame
        check_features(frame, spec.features, unknown=True)
        self._numeric = [feature for feature in spec.features if feature.type == "numeric"]
        self._categories = [feature for feature in spec.features if feature.type == "category"]
        self._chunk = chunks(max(1, len(self._numeric)), SLOTS, members)
        # The derived state. Everything below is equal at all members.
        self._rows = 0
        self._found: dict[str, dict[str, Any]] = {}  # by column: present, violations, levels; then mean, quantiles, …

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter the next round's vector."""
        if self._phase == "counts":
            return self.spec.columns
        return tuple(feature.name for feature in (self._due if self._phase == "histogram" else self._centred))

    @property
    def result(self) -> ProfileResult:
        """The finished profile; equal at all members."""
        if not self.done():
            raise ChaotianError("JOB_STATE", "the profile is not finished")
        return ProfileResult(self._rows, self.spec.min_rows, tuple(self._column(f) for f in self.spec.features))

    def progress(self) -> dict[str, Any]:
        """Return what a person may see of the job while it runs."""
        return self._progress(columns=len(self.spec.features), rows=self._rows)

    def local(self) -> Mapping[str, Contribution]:
        """Return the own sums of the next round. They are private: the secure sum masks them."""
        if self._phase == "histogram":
            parts = [histogram(numeric_or_missing(self._frame, feature.name)) for feature in self._due]
            return {"histogram": np.concatenate(parts)}
        if self._phase == "moments":
            squares, cubes = [], []
            for feature in self._centred:
                values = numeric_or_missing(self._frame, feature.name)
                deviation = values[~np.isnan(values)] - float.fromhex(self._found[feature.name]["mean"])
                squares.append(exact_sum(deviation * deviation) * (1 << SQUARE_SHIFT))
                cubes.append(exact_sum(deviation * deviation * deviation) * (1 << CUBE_SHIFT))
            return {"squares": squares, "cubes": cubes}
        return self._local_counts()

    def _local_counts(self) -> dict[str, Contribution]:
        out: dict[str, Contribution] = {"rows": [len(self._frame)]}
        present, violations, sums, levels = [], [], [], []
        for feature in self.spec.features:
            if feature.type == "category":
                codes = codes_or_missing(self._frame, feature.name, feature.levels, unknown=True)
                counts = np.bincount(codes[codes >= 0], minlength=len(feature.levels)).tolist()
                levels += counts
                violations.append(int((codes == -2).sum()))
                present.append(sum(counts) + violations[-1])
                continue
            values = numeric_or_missing(self._frame, feature.name)
            values = values[~np.isnan(values)]
            low, high = self.spec.domains.get(feature.name, (None, None))
            outside = (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))
            present.append(len(values))
            violations.append(int(outside.sum()))
            sums.append(exact_sum(values) * (1 << SUM_SHIFT))
        out["present"], out["violations"] = present, violations
        if sums:
            out["sums"] = sums
        if levels:
            out["levels"] = levels
        return out

    # --- steps ------------------------------------------------------------------------------------------------

    @property
    def _due(self) -> list[Feature]:
        start = (self._round - 1) * self._chunk
        return self._numeric[start : start + self._chunk]

    @property
    def _centred(self) -> list[Feature]:
        return [feature for feature in self._numeric if "mean" in self._found.get(feature.name, {})]

    def _fields(self) -> list[Field]:
        if self._phase == "histogram":
            return [Field("histogram", SLOTS * len(self._due), 0, MAX_ROWS)]
        if self._phase == "moments":
            count, spread = len(self._centred), 2 * int(LARGEST)
            return [
                Field("squares", count, BITS, spread**2 * MAX_ROWS << SQUARE_SHIFT + 1),
                Field("cubes", count, BITS, spread**3 * MAX_ROWS << CUBE_SHIFT + 1),
            ]
        columns, numeric = len(self.spec.features), len(self._numeric)
        fields = [Field("rows", 1, 0, MAX_ROWS)]
        fields += [Field("present", columns, 0, MAX_ROWS), Field("violations", columns, 0, MAX_ROWS)]
        if numeric:
            fields.append(Field("sums", numeric, BITS, int(LARGEST) * MAX_ROWS << SUM_SHIFT))
        levels = sum(len(feature.levels) for feature in self._categories)
        return [*fields, Field("levels", levels, 0, MAX_ROWS)] if levels else fields

    def _take(self, totals: Totals) -> None:
        if self._phase == "counts":
            self._take_counts(totals)
        elif self._phase == "histogram":
            for place, feature in enumerate(self._due):
                self._take_histogram(feature.name, totals["histogram"][place * SLOTS : (place + 1) * SLOTS])
            if self._round * self._chunk >= len(self._numeric):
                self._phase = "moments" if self._centred else "done"
        else:
            for place, feature in enumerate(self._centred):
                self._take_moments(self._found[feature.name], totals["squares"][place], totals["cubes"][place])
            self._phase = "done"

    def _take_counts(self, totals: Totals) -> None:
        rows, floor = totals["rows"][0], self.spec.min_rows
        if rows < floor:
            raise ChaotianError("MIN_ROWS", f"{max(rows, 0)} rows in all, at least {floor} are needed")
        found: dict[str, dict[str, Any]] = {}
        number = at = 0
        for place, feature in enumerate(self.spec.features):
            present, outside = totals["present"][place], totals["violations"][place]
            if not 0 <= outside <= present <= rows:
                raise ChaotianError("MALFORMED", f"the pooled counts of {feature.name} contradict each other")
            entry: dict[str, Any] = {"present": present, "violations": outside}
            if feature.type == "numeric":
                if present >= floor:
                    mean = Fraction(totals["sums"][number], present << (SUM_SHIFT + BITS))
                    centre = nearest_float(mean)
                    entry["mean"], entry["off"] = centre.hex(), nearest_float(mean - Fraction(centre)).hex()
                number += 1
            else:
                levels = totals["levels"][at : at + len(feature.levels)]
                at += len(feature.levels)
                if min(levels) < 0 or sum(levels) + outside != present:
                    raise ChaotianError("MALFORMED", f"the pooled levels of {feature.name} do not add up")
                entry["levels"] = levels
            found[feature.name] = entry
        self._rows, self._found = rows, found
        self._phase = "histogram" if self._numeric else "done"

    def _take_histogram(self, name: str, counts: Sequence[int]) -> None:
        entry, floor = self._found[name], self.spec.min_rows
        if min(counts) < 0 or sum(counts) != self._rows or self._rows - counts[-1] != entry["present"]:
            raise ChaotianError("MALFORMED", f"the pooled histogram of {name} does not add up to all rows")
        limits = guarded_range(counts, floor)
        if limits is None:
            return
        entry["range"] = [limit.hex() for limit in limits]
        shares = [share for share in SHARES if min(share, 1.0 - share) * entry["present"] >= floor]
        entry["quantiles"] = [
            [part.hex() for part in (share, found.low, found.high, found.estimate)]
            for share, found in ((share, quantile(counts, share)) for share in shares)
        ]

    @staticmethod
    def _take_moments(entry: dict[str, Any], square: int, cube: int) -> None:
        count = entry["present"]
        # Deviations are from the mean as a float64: what that is off by is known, and taken out again.
        off, around = Fraction(float.fromhex(entry["off"])), Fraction(square, count << (SQUARE_SHIFT + BITS))
        variance = max(around - off * off, Fraction(0))
        if around < 0:
            raise ChaotianError("MALFORMED", "pooled squares are negative")
        entry["sd"] = nearest_root(variance).hex()
        if variance:
            with real_arithmetic():
                third = real(Fraction(cube, count << (CUBE_SHIFT + BITS)) - 3 * off * around + 2 * off**3)
                spread = real(variance)
                entry["skewness"] = float(third / (spread * gmpy2.sqrt(spread))).hex()

    def _column(self, feature: Feature) -> ColumnProfile:
        entry, floor = self._found[feature.name], self.spec.min_rows
        present, outside = entry["present"], entry["violations"]
        out = ColumnProfile(
            feature.name,
            feature.type,
            present=shown(present, self._rows, floor),
            missing=shown(self._rows - present, self._rows, floor),
            violations=shown(outside, self._rows, floor),
        )
        if feature.type == "category":
            levels, merged = _published(feature.levels, entry["levels"], outside, floor)
            return replace(out, levels=levels, merged=merged)
        mean, sd, skewness = (float.fromhex(entry[key]) if key in entry else None for key in _MOMENTS)
        low, high = map(float.fromhex, entry["range"]) if "range" in entry else (None, None)
        quantiles = tuple(Quantile(*map(float.fromhex, parts)) for parts in entry.get("quantiles", []))
        return replace(out, mean=mean, sd=sd, skewness=skewness, low=low, high=high, quantiles=quantiles)

    def _check_loss(self) -> None:
        if self._phase != "counts":
            # Counts of all and moments of some make no profile, and a second count would show the lost member's own.
            raise ChaotianError("FLOOR_LOST", "a member was lost after the rows of the profile had been counted")

    def _facts(self) -> dict[str, Any]:
        return {"rows": str(self._rows), "found": {name: _texts(entry) for name, entry in self._found.items()}}

    def _load(self, facts: Mapping[str, Any]) -> None:
        names = {feature.name for feature in self.spec.features}
        found = {str(name): _numbers(entry) for name, entry in facts["found"].items()}
        if found and set(found) != names:
            raise ValueError
        self._rows, self._found = int(facts["rows"]), found


def _published(levels: Sequence[str], counts: Sequence[int], outside: int, floor: int) -> tuple[dict[str, int], int]:
    """Return rows by level and how many levels are joined: all below the floor, then the smallest until they suffice.

    Undeclared levels belong to the joined ones.
    """
    kept = [place for place, count in enumerate(counts) if count >= floor]
    rest = sum(counts) + outside - sum(counts[place] for place in kept)
    while kept and 0 < rest < floor:
        smallest = min(kept, key=lambda place: (counts[place], levels[place]))  # whatever order was declared
        kept.remove(smallest)
        rest += counts[smallest]
    out = {levels[place]: counts[place] for place in kept}
    if rest >= floor:
        out[OTHER] = rest
    return out, len(levels) - len(kept)


def _texts(entry: Mapping[str, Any]) -> dict[str, Any]:
    out = {**entry, "present": str(entry["present"]), "violations": str(entry["violations"])}
    if "levels" in entry:
        out["levels"] = [str(count) for count in entry["levels"]]
    return out


def _numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    out = {**entry, "present": int(entry["present"]), "violations": int(entry["violations"])}
    if "levels" in entry:
        out["levels"] = [int(count) for count in entry["levels"]]
    for key in (*_MOMENTS, "off"):
        if key in entry:
            float.fromhex(entry[key])
    return out
