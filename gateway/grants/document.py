"""A grant: what an owner allows one grantee to do with one dataset. Canonical JSON; its id is its SHA-256.

A document is accepted in one form only: every field of this version present, sets sorted and single, nothing
unknown, nothing that is not enforced. Later versions add fields; what was signed once never changes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.terms import MAX_ROSTER, MIN_ROSTER
from gateway.grants.catalogue import (
    DISCLOSURES,
    DUTIES,
    GRADES,
    LEGAL_BASES,
    OPERATIONS,
    OUTPUTS,
    PERIODS,
    PURPOSES,
    RESERVED_DISCLOSURES,
    RESERVED_REVOCATION,
    RESULT_TO,
    SCOPES,
    UNBOUNDED,
)
from gateway.grants.checks import Fields, choose, is_plain_text, wrong

MAX_BYTES = 64 * 1024
MAX_COLUMNS = 2000
MAX_KEYS = 16
MAX_TIME = 253_402_300_799  # the end of the year 9999
MAX_LIFE = 10 * 366 * 86_400
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HEX16 = re.compile(r"[0-9a-f]{32}")
HEX32 = re.compile(r"[0-9a-f]{64}")
_NAME_FORM = "1 to 63 lower-case letters, digits and inner hyphens"
_HEX_FORM = "64 lower-case hexadecimal digits"
_EPSILON = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.[0-9]{1,6})?")
_DELTA = re.compile(r"[1-9]e-(?:[2-9]|1[0-2])")


@dataclass(frozen=True)
class Dataset:
    """What data: its name at the owner, digest of its schema (hex), highest security level, largest age in seconds."""

    id: str
    schema: str
    grade: int
    as_of_max_age: int | None


@dataclass(frozen=True)
class Operation:
    """One kind of computation and its limits; rounds count from 1.

    `exact`: whether totals that nothing bounds may leave outside a privacy budget (`catalogue.UNBOUNDED`).
    """

    op: str
    out: str
    min_members: int
    min_rows: int
    max_rounds: int
    max_roster_changes: int
    result_to: str
    exact: bool = False

    def covers(self, operation: str) -> bool:
        """Return whether the operation kind of a round (`scorecard.newton`) is a step of this one."""
        return operation.startswith(f"{self.op}.") and len(operation) > len(self.op) + 1


@dataclass(frozen=True)
class Budget:
    """How much differential privacy all noised rounds within any `period` may lose: (ε, δ), ε above 0."""

    eps_total: str
    delta: str
    period: str
    scope: str

    @property
    def epsilon(self) -> float:
        """ε as a number."""
        return float(self.eps_total)


@dataclass(frozen=True)
class Grant:
    """An immutable usage contract; made by `parse` or `from_document` only. Times in seconds since the epoch, UTC."""

    id: str
    content: bytes
    space: str
    owner: str
    grantee: str
    grantee_keys: tuple[str, ...]
    roles: tuple[str, ...]
    dataset: Dataset
    columns: Mapping[str, str]
    purposes: tuple[str, ...]
    legal_basis: str
    legal_reference: str
    ops: tuple[Operation, ...]
    calls: int
    per: str
    nbf: int
    exp: int
    duties: tuple[str, ...]
    revocation_by: str
    budget: Budget | None = None

    @classmethod
    def parse(cls, content: bytes) -> Grant:
        """Return the grant whose canonical JSON is `content`.

        Raises:
            ChaotianError: OVERSIZED, BAD_DOCUMENT naming the key, NOT_ENFORCED for a rule of a later version.
        """
        return cls._read(parse_canonical_json(content, limit=MAX_BYTES), bytes(content))

    @classmethod
    def from_document(cls, document: Any) -> Grant:
        """Return the grant of a JSON object; errors as `parse`."""
        content = canonical_json(document)
        if len(content) > MAX_BYTES:
            raise ChaotianError("OVERSIZED", f"a grant has {len(content)} bytes, at most {MAX_BYTES} are allowed")
        # Read back from the bytes: equal values of other types (1.0, a tuple) must not give another grant.
        return cls.parse(content)

    def document(self) -> dict[str, Any]:
        """Return the grant as JSON values."""
        found: dict[str, Any] = parse_canonical_json(self.content, limit=MAX_BYTES)
        return found

    def operation(self, operation: str) -> Operation | None:
        """Return the entry that covers the operation kind of a round, if there is one."""
        return next((op for op in self.ops if op.covers(operation)), None)

    @classmethod
    def _read(cls, document: Any, content: bytes) -> Grant:
        top = Fields(document)
        if top.get("v") != 1 or type(top.get("v")) is not int:
            raise wrong("v", "1, the version of the format")
        top.text("iv", HEX16, "32 lower-case hexadecimal digits, drawn at random")
        names = {name: top.text(name, NAME, _NAME_FORM) for name in ("space", "owner", "grantee")}
        keys = _sorted_set(top, "grantee_keys", 1, MAX_KEYS, lambda v, k: _hex(v, k))
        roles = _sorted_set(top, "roles", 1, 16, _role)
        dataset, columns = _dataset(top), _columns(top)
        purposes = _sorted_set(top, "purposes", 1, len(PURPOSES), lambda v, k: choose(v, k, PURPOSES))
        basis, reference = _legal(top)
        ops = _operations(top)
        quota = Fields(top.get("quota"), "quota")
        calls, per = quota.integer("calls", 1, 10**9), quota.choice("per", PERIODS)
        quota.done()
        budget = _budget(top) if top.present("budget") else None
        if budget is not None and any(op.exact for op in ops):
            raise wrong("ops.exact", "nothing in a grant with a budget, which permits no exact total")
        nbf, exp = top.integer("nbf", 0, MAX_TIME), top.integer("exp", 1, MAX_TIME)
        if not 0 < exp - nbf <= MAX_LIFE:
            raise wrong("exp", "a time after nbf, and at most ten years after it")
        duties = _sorted_set(top, "duties", 0, len(DUTIES), lambda v, k: choose(v, k, DUTIES))
        revocation = Fields(top.get("revocation"), "revocation")
        by = revocation.choice("by", ("owner", "either"))
        for kind in ("queries", "training"):
            revocation.choice(kind, ("stop",), RESERVED_REVOCATION)
        revocation.done()
        top.done()
        return cls(
            id=hashlib.sha256(content).hexdigest(),
            content=content,
            **names,
            grantee_keys=keys,
            roles=roles,
            dataset=dataset,
            columns=columns,
            purposes=purposes,
            legal_basis=basis,
            legal_reference=reference,
            ops=ops,
            calls=calls,
            per=per,
            nbf=nbf,
            exp=exp,
            duties=duties,
            revocation_by=by,
            budget=budget,
        )


def _sorted_set(fields: Fields, name: str, least: int, most: int, read: Any) -> tuple[str, ...]:
    values = [read(value, fields.key(name)) for value in fields.words(name, least, most)]
    if values != sorted(set(values)):
        raise wrong(fields.key(name), "values in sorted order, each once")
    return tuple(values)


def _hex(value: Any, key: str) -> str:
    if not isinstance(value, str) or not HEX32.fullmatch(value):
        raise wrong(key, f"fingerprints of {_HEX_FORM}")
    return value


def _role(value: Any, key: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise wrong(key, f"roles of {_NAME_FORM}")
    return value


def _dataset(top: Fields) -> Dataset:
    fields = Fields(top.get("dataset"), "dataset")
    age = fields.integer("as_of_max_age", 1, MAX_LIFE) if fields.present("as_of_max_age") else None
    found = Dataset(
        fields.text("id", DATASET, "the dataset's name: 1 to 64 letters, digits, dots, hyphens, underscores"),
        fields.text("schema", HEX32, f"the digest of the dataset's schema, {_HEX_FORM}"),
        fields.integer("grade", GRADES.start, GRADES.stop - 1),
        age,
    )
    fields.done()
    return found


def _columns(top: Fields) -> Mapping[str, str]:
    value = top.get("columns")
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_COLUMNS:
        raise wrong("columns", f"an object of 1 to {MAX_COLUMNS} columns and their disclosure classes")
    for name, disclosure in value.items():
        if not is_plain_text(name, 120):
            raise wrong("columns", "names of 1 to 120 visible characters in normal form (NFC)")
        choose(disclosure, f"columns.{name}", DISCLOSURES, RESERVED_DISCLOSURES)
    return MappingProxyType(dict(value))


def _legal(top: Fields) -> tuple[str, str]:
    fields = Fields(top.get("legal_basis"), "legal_basis")
    basis, reference = fields.choice("basis", LEGAL_BASES), fields.get("reference")
    fields.done()
    if not is_plain_text(reference, 200, least=0):
        raise wrong("legal_basis.reference", "at most 200 visible characters in normal form (NFC)")
    return basis, reference


def _budget(top: Fields) -> Budget:
    fields = Fields(top.get("budget"), "budget")
    found = Budget(
        fields.text("eps_total", _EPSILON, 'ε as text, such as "2.5", below 1000'),
        fields.text("delta", _DELTA, 'δ as text, such as "1e-6", from 9e-2 to 1e-12'),
        fields.choice("period", PERIODS),
        fields.choice("scope", SCOPES),
    )
    fields.done()
    if found.epsilon <= 0:
        raise wrong("budget.eps_total", "more than 0")
    return found


def _exact(fields: Fields) -> bool:
    if not fields.present("exact"):
        return False
    if fields.get("exact") is not True or fields.get("op") not in UNBOUNDED:
        raise wrong(fields.key("exact"), f"true, or nothing; only {', '.join(sorted(UNBOUNDED))} may have it")
    return True


def _operations(top: Fields) -> tuple[Operation, ...]:
    ops = []
    for at, value in enumerate(top.words("ops", 1, 16)):
        fields = Fields(value, f"ops[{at}]", "ops")
        ops.append(
            Operation(
                fields.choice("op", OPERATIONS),
                fields.choice("out", OUTPUTS),
                fields.integer("min_members", MIN_ROSTER, MAX_ROSTER),
                fields.integer("min_rows", 1, 10**9),
                fields.integer("max_rounds", 1, 10_000),
                fields.integer("max_roster_changes", 0, MAX_ROSTER),
                fields.choice("result_to", RESULT_TO),
                _exact(fields),
            )
        )
        fields.done()
    names = [op.op for op in ops]
    if names != sorted(set(names)):
        raise wrong("ops", "operations in sorted order, each once")
    return tuple(ops)
