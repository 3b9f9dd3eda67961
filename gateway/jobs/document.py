"""What a job is: a closed set of fields, written by a person in TOML, kept and signed as canonical JSON.

The id is the SHA-256 of the canonical JSON, nonce included. Nothing in it can change afterwards, and an unknown field
is refused: a member must never accept more than its node understands.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.learning.frame import MAX_NAME, Feature, ScorecardSpec
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.terms import MAX_ROSTER, MIN_ROSTER

KINDS = ("scorecard",)
RESULT_TO = {"scorecard": ("members",)}  # everything a later step derives from stays with the members
LIMIT = 256 << 10  # bytes of a document
ROWS_FLOOR = 30
# Who holds a row out is known from its identifier and the seed. With any share a proposer could choose both so that
# one firm alone changes sides, and read from who refuses (RELEASE_DIFFERENCE) which bank has it.
HOLDOUTS = tuple(k / 20 for k in range(11))
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_WORD_OR_NONE = re.compile(rf"(?:{_WORD.pattern})?")
_NONCE = re.compile(r"[0-9a-f]{32}")
_GIVEN = ("v", "space", "nonce", "proposer", "created")  # set by the node, not by the person


def job_id(data: bytes) -> str:
    """Return the id of the job whose canonical JSON is `data`: 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class JobDocument:
    """One federated job.

    Args:
        space: the federation it runs in.
        nonce: 32 hex digits; two jobs of equal content are still two jobs.
        proposer: the member that proposed it, or `platform` for the operator.
        created: seconds since the epoch, UTC.
        kind: what is computed: `scorecard`.
        purpose: what for; a grant must name it.
        members: who takes part, sorted.
        exposed: members that do not take part but that the result may expose beside an earlier one; they see the
            document and may consent.
        dataset: name of the dataset at every member.
        label: column of the outcome, 0 or 1.
        features: columns with their types and, for categories, levels.
        test: name of a second dataset at every member to compare models on; empty where the held-out rows serve.
        holdout: share of each member's rows that stays out of training: a multiple of 0.05 from 0 to 0.5.
        seed: decides which rows are held out.
        penalty: weight of the squared coefficients, at least 0.
        min_members: smallest roster a round may have.
        min_rows: smallest number of rows a published cell may have.
        max_rounds: rounds after which the job ends without a result.
        result_to: who learns the totals.
        stage_seconds: how long a member may take for one stage.
    """

    space: str
    nonce: str
    proposer: str
    created: int
    kind: str
    purpose: str
    members: tuple[str, ...]
    dataset: str
    label: str
    features: tuple[Feature, ...]
    exposed: tuple[str, ...] = ()
    test: str = ""
    holdout: float = 0.2
    seed: str = "1"
    penalty: float = 1.0
    min_members: int = MIN_ROSTER
    min_rows: int = ROWS_FLOOR
    max_rounds: int = 40
    result_to: str = "members"
    stage_seconds: float = 20.0

    @property
    def id(self) -> str:
        """64 hex digits."""
        return job_id(self.encode())

    @property
    def concerned(self) -> tuple[str, ...]:
        """Everybody who is shown the job: its members and those it may expose."""
        return tuple(sorted({*self.members, *self.exposed}))

    def scorecard(self) -> ScorecardSpec:
        """Return the parameters of a `scorecard` as the learning code takes them."""
        return ScorecardSpec(
            label=self.label,
            features=self.features,
            penalty=self.penalty,
            holdout=self.holdout,
            seed=self.seed,
            min_rows=self.min_rows,
            max_rounds=self.max_rounds,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the dataset that the job reads, the label last."""
        return (*(feature.name for feature in self.features), self.label)

    def document(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return {
            "v": 1,
            "space": self.space,
            "nonce": self.nonce,
            "proposer": self.proposer,
            "created": self.created,
            "kind": self.kind,
            "purpose": self.purpose,
            "members": list(self.members),
            "exposed": list(self.exposed),
            "dataset": self.dataset,
            "label": self.label,
            "features": [feature.document() for feature in self.features],
            "test": self.test,
            "holdout": self.holdout,
            "seed": self.seed,
            "penalty": self.penalty,
            "min_members": self.min_members,
            "min_rows": self.min_rows,
            "max_rounds": self.max_rounds,
            "result_to": self.result_to,
            "stage_seconds": self.stage_seconds,
        }

    def encode(self) -> bytes:
        """Return the canonical JSON, which is signed and hashed."""
        return canonical_json(self.document())

    @classmethod
    def decode(cls, data: bytes) -> JobDocument:
        """Return the job of `encode`.

        Raises:
            ChaotianError: BAD_DOCUMENT or OVERSIZED.
        """
        return cls.from_document(parse_canonical_json(data, limit=LIMIT))

    @classmethod
    def from_document(cls, document: Any) -> JobDocument:
        """Return the job of a JSON object with exactly the known fields; anything else is BAD_DOCUMENT."""
        read = _Reader(document)
        job = cls(
            space=read.name("space"),
            nonce=read.matching("nonce", _NONCE, "32 hex digits"),
            proposer=read.name("proposer"),
            created=read.whole("created", 0, 1 << 40),
            kind=read.one_of("kind", KINDS),
            purpose=read.matching("purpose", _WORD, "a word of at most 64 letters, digits, dots and hyphens"),
            members=read.names("members"),
            exposed=read.names("exposed"),
            dataset=read.matching("dataset", _WORD, "a word of at most 64 letters, digits, dots and hyphens"),
            label=read.column("label"),
            features=read.features("features"),
            test=read.matching("test", _WORD_OR_NONE, "a dataset's name, or left out"),
            holdout=read.number("holdout", 0.0, 0.5),
            seed=read.matching("seed", _WORD, "a word of at most 64 letters, digits, dots and hyphens"),
            penalty=read.number("penalty", 0.0, 1e9),
            min_members=read.whole("min_members", MIN_ROSTER, MAX_ROSTER),
            min_rows=read.whole("min_rows", ROWS_FLOOR, 1 << 31),
            max_rounds=read.whole("max_rounds", 1, 1000),
            result_to=read.one_of("result_to", ("members", "platform", "both")),
            stage_seconds=read.number("stage_seconds", 0.1, 3600.0),
        )
        if read.whole("v", 1, 1 << 31) != 1:
            raise ChaotianError("VERSION", "the job is written in a version that this node does not know")
        read.finish()
        return job._checked()

    def _checked(self) -> JobDocument:
        if len(self.members) < max(MIN_ROSTER, self.min_members):
            floor = max(MIN_ROSTER, self.min_members)
            raise _bad("members", f"at least {floor} members, {len(self.members)} are named")
        if len(self.members) > MAX_ROSTER:
            raise _bad("members", f"at most {MAX_ROSTER} members")
        if set(self.exposed) & set(self.members):
            raise _bad("exposed", "members that do not take part; those that do consent when they accept")
        if self.result_to not in RESULT_TO[self.kind]:
            raise _bad("result_to", f"for a {self.kind} one of: {', '.join(RESULT_TO[self.kind])}")
        if self.holdout not in HOLDOUTS:
            raise _bad("holdout", "a multiple of 0.05 from 0 to 0.5")
        if self.label in {feature.name for feature in self.features}:
            raise _bad("label", "a column that is not among the features")
        return self


def from_toml(data: bytes, *, space: str, proposer: str, nonce: str, created: int) -> JobDocument:
    """Return the job a person wrote.

    Args:
        data: UTF-8 TOML with the fields of `JobDocument` except space, nonce, proposer and created; those with a
            default there may be left out.
        nonce: 32 hex digits of fresh randomness.
        created: seconds since the epoch.

    Raises:
        ChaotianError: BAD_DOCUMENT naming the field, OVERSIZED.
    """
    if len(data) > LIMIT:
        raise ChaotianError("OVERSIZED", f"a job has {len(data)} bytes, at most {LIMIT} are allowed")
    try:
        written = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ChaotianError("BAD_DOCUMENT", "the job is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise ChaotianError("BAD_DOCUMENT", f"the job is not TOML: {error}") from None
    return from_written(written, space=space, proposer=proposer, nonce=nonce, created=created)


def from_written(written: Mapping[str, Any], *, space: str, proposer: str, nonce: str, created: int) -> JobDocument:
    """Return the job of the fields a person gave; as `from_toml`."""
    for name in _GIVEN:
        if name in written:
            raise _bad(name, "left out: the node sets it")
    defaults = {
        name: JobDocument.__dataclass_fields__[name].default
        for name in ("test", "holdout", "seed", "penalty", "min_members", "min_rows", "max_rounds", "result_to")
    }
    document = {**defaults, "stage_seconds": 20.0, "exposed": [], **written}
    document |= {"v": 1, "space": space, "proposer": proposer, "nonce": nonce, "created": created}
    for name in ("holdout", "penalty", "stage_seconds"):  # a person writes 0 or 20 for 0.0 or 20.0
        if type(document[name]) is int:
            document[name] = float(document[name])
    if isinstance(document.get("members"), list) and all(isinstance(m, str) for m in document["members"]):
        document["members"] = sorted(document["members"])
    if type(document.get("seed")) is int:
        document["seed"] = str(document["seed"])
    # Through canonical JSON and back, so that what was typed and what is signed cannot differ.
    return JobDocument.decode(canonical_json(JobDocument.from_document(document).document()))


def _bad(field: str, expected: str) -> ChaotianError:
    return ChaotianError("BAD_DOCUMENT", f"job field {field}: expected {expected}")


class _Reader:
    """Takes known fields out of a JSON object one by one; what is left at the end is unknown."""

    def __init__(self, document: Any) -> None:
        if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
            raise ChaotianError("BAD_DOCUMENT", "a job is an object with named fields")
        self._document, self._seen = document, set[str]()

    def _take(self, field: str) -> Any:
        self._seen.add(field)
        if field not in self._document:
            raise ChaotianError("BAD_DOCUMENT", f"job field {field} is missing")
        return self._document[field]

    def finish(self) -> None:
        unknown = sorted(set(self._document) - self._seen)
        if unknown:
            raise ChaotianError("BAD_DOCUMENT", f"job field {unknown[0][:40]!r} is not known")

    def matching(self, field: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self._take(field)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _bad(field, expected)
        return value

    def name(self, field: str) -> str:
        return self.matching(field, _NAME, "a name of lower-case letters, digits and inner hyphens")

    def column(self, field: str) -> str:
        value = self._take(field)
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable():
            raise _bad(field, f"a column name of at most {MAX_NAME} printable characters")
        return value

    def one_of(self, field: str, known: tuple[str, ...]) -> str:
        value = self._take(field)
        if not isinstance(value, str) or value not in known:
            raise _bad(field, f"one of: {', '.join(known)}")
        return value

    def whole(self, field: str, least: int, most: int) -> int:
        value = self._take(field)
        if type(value) is not int or not least <= value <= most:
            raise _bad(field, f"a whole number from {least} to {most}")
        return value

    def number(self, field: str, least: float, most: float) -> float:
        value = self._take(field)
        # JSON writes 20.0 as 20, so that a whole number is read back as one.
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise _bad(field, f"a number from {least:g} to {most:g}")
        return float(value)

    def names(self, field: str) -> tuple[str, ...]:
        value = self._take(field)
        if not isinstance(value, list) or len(value) > MAX_ROSTER:
            raise _bad(field, f"a list of at most {MAX_ROSTER} member names")
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in value):
            raise _bad(field, "names of lower-case letters, digits and inner hyphens")
        if value != sorted(set(value)):
            raise _bad(field, "member names, sorted and each named once")
        return tuple(value)

    def features(self, field: str) -> tuple[Feature, ...]:
        value = self._take(field)
        if not isinstance(value, list) or not 1 <= len(value) <= 500:
            raise _bad(field, "a list of 1 to 500 columns")
        features = tuple(Feature.from_document(entry) for entry in value)
        if len({feature.name for feature in features}) != len(features):
            raise _bad(field, "columns that are each named once")
        for feature in features:
            if not all(text.isprintable() for text in (feature.name, *feature.levels)):
                raise _bad(field, "names of columns and levels without control characters")
        return features
