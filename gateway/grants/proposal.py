"""From the TOML a person writes to a grant: durations and dates in words, defaults filled in, order put right."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy
from gateway.grants.checks import wrong
from gateway.grants.document import MAX_BYTES, MAX_LIFE, Grant

_DURATION = re.compile(r"([1-9][0-9]{0,8})\s?(s|m|h|d|w|y)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_OP_DEFAULTS = {"out": "total", "min_members": 3, "min_rows": 30, "max_roster_changes": 1, "result_to": "members"}
_SETS = ("grantee_keys", "roles", "purposes", "duties")


@dataclass(frozen=True)
class Surroundings:
    """What the node knows and the person need not type.

    Args:
        space: the federation.
        member: this node's member: the owner where the file names none.
        now: seconds since the epoch, UTC.
        fingerprints: member -> fingerprints (hex) of its approved identity keys; empty where it is unknown.
        dataset: name -> {"schema": hex, "grade": 1..5} of this node's own datasets, None where there is none.
    """

    space: str
    member: str
    now: float
    fingerprints: Callable[[str], list[str]]
    dataset: Callable[[str], Mapping[str, Any] | None]


def seconds(value: Any, key: str) -> int:
    """Return a duration in seconds from a whole number or from text such as "90d" (s, m, h, d, w, y of 365 days)."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    found = value if type(value) is int else int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= found <= MAX_LIFE:
        raise wrong(key, 'a duration such as "90d", at most ten years')
    return found


def instant(value: Any, key: str) -> int:
    """Return seconds since the epoch from a TOML date-time with an offset, or from a whole number."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return int(value.timestamp())
    if type(value) is int:
        return value
    raise wrong(key, "a date and time with an offset, such as 2027-01-31T00:00:00+08:00")


def grant_from_toml(text: str, around: Surroundings, entropy: Entropy) -> Grant:
    """Return the grant a TOML text describes.

    Raises:
        ChaotianError: BAD_DOCUMENT naming the line or key, NOT_ENFORCED, NOT_APPROVED for an unknown grantee.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ChaotianError("OVERSIZED", f"a grant file has at most {MAX_BYTES} bytes")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ChaotianError("BAD_DOCUMENT", f"the file is not TOML: {str(error)[:200]}") from None
    for name in ("v", "iv", "space"):
        if name in document and (name, document[name]) not in (("v", 1), ("space", around.space)):
            raise ChaotianError("BAD_DOCUMENT", f"{name} is set by the node; leave it out")
    document |= {"v": 1, "iv": entropy.bytes(16).hex(), "space": around.space}
    document.setdefault("owner", around.member)
    document.setdefault("duties", [])
    revocation = document.setdefault("revocation", {})
    if isinstance(revocation, dict):
        document["revocation"] = {"by": "owner", "queries": "stop", "training": "stop"} | revocation
    _keys(document, around)
    _dataset(document, around)
    _times(document, around)
    if isinstance(document.get("budget"), dict):
        document["budget"] = {"period": "grant", "scope": "grant"} | document["budget"]
    if isinstance(document.get("legal_basis"), str):
        document["legal_basis"] = {"basis": document["legal_basis"], "reference": ""}
    if isinstance(document.get("ops"), list):
        ops = [_OP_DEFAULTS | op if isinstance(op, dict) else op for entry in document["ops"] for op in _each(entry)]
        for op in ops:
            if isinstance(op, dict) and op.get("exact") is False:
                del op["exact"]  # the one form of "no" in the format
        if all(isinstance(op, dict) and isinstance(op.get("op"), str) for op in ops):
            ops.sort(key=lambda op: str(op["op"]))
        document["ops"] = ops
    for name in _SETS:
        values = document.get(name)
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            document[name] = sorted(values)
    return Grant.from_document(_plain(document))


def _each(entry: Any) -> list[Any]:
    """Return an entry of `ops` for each operation it names: one table may name several with the same limits."""
    if isinstance(entry, dict) and isinstance(entry.get("op"), list):
        return [{**entry, "op": op} for op in entry["op"]]
    return [entry]


def _keys(document: dict[str, Any], around: Surroundings) -> None:
    grantee = document.get("grantee")
    if "grantee_keys" in document or not isinstance(grantee, str):
        return
    known = around.fingerprints(grantee)
    if not known:
        raise ChaotianError(
            "NOT_APPROVED",
            f"{grantee[:64]!r} is not an approved member here, so its key is not known",
            member=grantee[:64],
        )
    document["grantee_keys"] = known


def _dataset(document: dict[str, Any], around: Surroundings) -> None:
    dataset = document.get("dataset")
    if not isinstance(dataset, dict):
        return
    if "as_of_max_age" in dataset:
        dataset["as_of_max_age"] = seconds(dataset["as_of_max_age"], "dataset.as_of_max_age")
    if document["owner"] == around.member and isinstance(dataset.get("id"), str):
        own = around.dataset(dataset["id"])
        for name in ("schema", "grade") if own else ():
            dataset.setdefault(name, own[name] if own else None)
    if "schema" not in dataset:
        raise ChaotianError(
            "BAD_DOCUMENT",
            "dataset.schema is missing, and this node knows no such dataset of its own to take it from",
            hint="Register the dataset first, or ask the owner for the digest of its schema.",
        )


def _times(document: dict[str, Any], around: Surroundings) -> None:
    nbf = instant(document["nbf"], "nbf") if "nbf" in document else int(around.now)
    exp = document.get("exp")
    document["nbf"] = nbf
    if isinstance(exp, str):
        document["exp"] = nbf + seconds(exp, "exp")
    elif exp is not None:
        document["exp"] = instant(exp, "exp")


def _plain(value: Any, key: str = "") -> Any:
    """Refuse what TOML has and JSON has not (dates, infinities), by its key."""
    if isinstance(value, dict):
        return {name: _plain(part, f"{key}.{name}" if key else name) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part, key) for part in value]
    if value is None or type(value) in (str, int, bool):
        return value
    raise wrong(key, "text, a whole number, a list or a table")
