"""What a job is: a closed set of fields, written by a person in TOML, kept and signed as canonical JSON.

Fields that every kind of job has stand at the top; `params` are those of its kind (`gateway/jobs/kinds.py`). The id is
the SHA-256 of the canonical JSON, nonce included. Nothing in it can change afterwards, and an unknown field is refused:
a member must never accept more than its node understands.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.terms import MAX_ROSTER, MIN_ROSTER
from gateway.jobs.kinds import KINDS
from gateway.jobs.plan import JobPlan, check_texts
from gateway.jobs.writing import Lookups, complete

FORMAT = 2
LIMIT = 256 << 10  # bytes of a document
ROWS_FLOOR = 30
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# A dataset by its name: as it is at acceptance, its snapshot of a number, or the latest one of a day.
_DATASET = re.compile(rf"{_WORD.pattern}(?:@(?:[1-9][0-9]{{0,8}}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}))?")
_DATASET_OR_NONE = re.compile(rf"(?:{_DATASET.pattern})?")
_DATASET_FORM = "a dataset's name, alone or with @ and the number or the day of a snapshot"
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
        kind: what is computed, of `kinds.KINDS`.
        purpose: what for; a grant must name it.
        members: who takes part, sorted.
        exposed: members that do not take part but that the result may expose beside an earlier one; they see the
            document and may consent.
        dataset: the rows, at every member: NAME, or NAME@NUMBER or NAME@DAY for one of its snapshots.
        after: the rows at the second of two dates, as `dataset`; empty where the kind has one date.
        test: a second dataset at every member to compare models on; empty where the held-out rows serve.
        params: parameters of the kind, in the one form that its plan gives them.
        min_members: smallest roster a round may have.
        min_rows: smallest number of rows a published cell may have.
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
    params: Mapping[str, Any]
    exposed: tuple[str, ...] = ()
    after: str = ""
    test: str = ""
    min_members: int = MIN_ROSTER
    min_rows: int = ROWS_FLOOR
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

    @cached_property
    def plan(self) -> JobPlan:
        """What the kind and its parameters ask for; BAD_DOCUMENT."""
        return KINDS[self.kind].read(self.params, min_rows=self.min_rows)

    @property
    def sources(self) -> tuple[str, ...]:
        """The datasets whose rows enter totals, as `dataset` and `after` name them."""
        return (self.dataset, self.after) if self.after else (self.dataset,)

    def document(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return {
            "v": FORMAT,
            "space": self.space,
            "nonce": self.nonce,
            "proposer": self.proposer,
            "created": self.created,
            "kind": self.kind,
            "purpose": self.purpose,
            "members": list(self.members),
            "exposed": list(self.exposed),
            "dataset": self.dataset,
            "after": self.after,
            "test": self.test,
            "params": dict(self.params),
            "min_members": self.min_members,
            "min_rows": self.min_rows,
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
        version = read.whole("v", 1, 1 << 31)
        if version != FORMAT:
            raise ChaotianError("VERSION", f"the job is written in version {version}, this node knows {FORMAT}")
        job = cls(
            space=read.name("space"),
            nonce=read.matching("nonce", _NONCE, "32 hex digits"),
            proposer=read.name("proposer"),
            created=read.whole("created", 0, 1 << 40),
            kind=read.one_of("kind", tuple(KINDS)),
            purpose=read.matching("purpose", _WORD, "a word of at most 64 letters, digits, dots and hyphens"),
            members=read.names("members"),
            exposed=read.names("exposed"),
            dataset=read.matching("dataset", _DATASET, _DATASET_FORM),
            after=read.matching("after", _DATASET_OR_NONE, f"{_DATASET_FORM}, or left out"),
            test=read.matching("test", _DATASET_OR_NONE, f"{_DATASET_FORM}, or left out"),
            params=read.table("params"),
            min_members=read.whole("min_members", MIN_ROSTER, MAX_ROSTER),
            min_rows=read.whole("min_rows", ROWS_FLOOR, 1 << 31),
            result_to=read.one_of("result_to", ("members", "platform", "both")),
            stage_seconds=read.number("stage_seconds", 0.1, 3600.0),
        )
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
        if self.result_to not in self.plan.result_to:
            raise _bad("result_to", f"for the kind {self.kind} one of: {', '.join(self.plan.result_to)}")
        if self.test and "test" not in self.plan.uses:
            raise _bad("test", f"nothing: the kind {self.kind} has no use for it")
        if bool(self.after) != ("after" in self.plan.uses):
            use = "the rows at the second date" if not self.after else "nothing: it has one date"
            raise _bad("after", f"for the kind {self.kind} {use}")
        noise = self.plan.noise(len(self.members))
        if noise is not None and noise.honest >= self.min_members:
            raise _bad("params.noise.honest", f"fewer members than min_members, which is {self.min_members}")
        if canonical_json(self.plan.params()) != canonical_json(dict(self.params)):
            # One content, one id: what a plan would fill in must stand there already.
            raise _bad("params", "every parameter of the kind, defaults included, and no other")
        return self


def dataset_name(source: str) -> str:
    """Return the name of a dataset that a job names, without the snapshot."""
    return source.partition("@")[0]


def from_toml(
    data: bytes, *, space: str, proposer: str, nonce: str, created: int, lookups: Lookups | None = None
) -> JobDocument:
    """Return the job a person wrote.

    Args:
        data: UTF-8 TOML with the fields of `JobDocument` except space, nonce, proposer and created; those with a
            default there may be left out, and so may parameters with a default.
        nonce: 32 hex digits of fresh randomness.
        created: seconds since the epoch.
        lookups: what the proposer's node can fill in; see `writing.complete`.

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
    return from_written(written, space=space, proposer=proposer, nonce=nonce, created=created, lookups=lookups)


def from_written(
    written: Mapping[str, Any],
    *,
    space: str,
    proposer: str,
    nonce: str,
    created: int,
    lookups: Lookups | None = None,
) -> JobDocument:
    """Return the job of the fields a person gave; as `from_toml`."""
    for name in _GIVEN:
        if name in written:
            raise _bad(name, "left out: the node sets it")
    defaults = {
        name: JobDocument.__dataclass_fields__[name].default
        for name in ("after", "test", "min_members", "min_rows", "stage_seconds")
    }
    document = {**defaults, "exposed": [], "params": {}, **written}
    document |= {"v": FORMAT, "space": space, "proposer": proposer, "nonce": nonce, "created": created}
    if type(document["stage_seconds"]) is int:  # a person writes 20 for 20.0
        document["stage_seconds"] = float(document["stage_seconds"])
    if isinstance(document.get("members"), list) and all(isinstance(m, str) for m in document["members"]):
        document["members"] = sorted(document["members"])
    plan = KINDS.get(document["kind"]) if isinstance(document.get("kind"), str) else None
    if plan is not None:
        document.setdefault("result_to", plan.result_to[0])
        floor = document["min_rows"] if type(document["min_rows"]) is int else ROWS_FLOOR
        params = complete(document, lookups or Lookups())
        check_texts(params)
        document["params"] = plan.read(params, min_rows=floor).params()
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
            raise ChaotianError(
                "BAD_DOCUMENT",
                f"job field {unknown[0][:40]!r} is not known",
                hint="Parameters of the kind stand in the table [params]; docs/jobs has a page for each kind.",
            )

    def matching(self, field: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self._take(field)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _bad(field, expected)
        return value

    def name(self, field: str) -> str:
        return self.matching(field, _NAME, "a name of lower-case letters, digits and inner hyphens")

    def table(self, field: str) -> Mapping[str, Any]:
        value = self._take(field)
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _bad(field, "a table of parameters")
        check_texts(value)
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
