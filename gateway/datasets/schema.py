"""What a table means: a TOML schema with its columns, types, units, disclosure classes and data grades.

```toml
id = "loan"            # identifies a row; text
label = "default"      # optional: the outcome, 1 = bad
as_of = "2024-12-31"   # the day the data speak of
other_columns = "refuse"   # or "ignore": columns of the file that the schema does not name

key = "loan_number"    # optional: what the identifier is: loan_number | credit_code (GB 32100-2015) | none
length = 12            # optional, with a key: its number of characters; a shorter one has lost leading zeros
period = "month"       # optional: the column of type month that tells the rows of one identifier apart (a ledger)

[columns.amount]
type = "numeric"       # numeric | integer | category | date | month
unit = "CNY"
range = [0, inf]       # optional: smallest and largest value of a numeric, integer, date or month column
disclosure = "aggregate"   # never | aggregate
grade = 3              # data grade 1 to 5 (JR/T 0197-2020)
missing = "refuse"     # or "allow"
```
A category has `levels` in place of a range, and may have a `key` (with `length`) of its own. Unknown keys are refused:
a rule that this version does not know must not be passed over.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json
from gateway.grants.catalogue import DISCLOSURES, GRADES

TYPES = ("numeric", "integer", "category", "date", "month")
KEYS = ("none", "loan_number", "credit_code")
MAX_LENGTH = 64
LIMIT = 1 << 20
MAX_COLUMNS = 2000
MAX_NAME = 120
MAX_LEVELS = 10_000
MAX_END = 1e300


@dataclass(frozen=True)
class ColumnSchema:
    """One column.

    Args:
        name: as in the header line.
        type: `numeric` (float64), `integer` (up to 2^53 in size), `category` (text), `date` or `month` (its first day).
        unit: of the values, in words.
        disclosure: what may leave: `never`, or `aggregate` (totals over all members).
        grade: data grade, 1 public to 5 most sensitive.
        levels: of a category; empty where any text may stand.
        missing: whether a value may be missing.
        low, high: the range, both inside it: numbers, or days as ISO 8601 text; None where open.
        key: what a category identifies: `none`, `loan_number` or `credit_code`.
        length: number of characters of a key; 0 where it may differ.
    """

    name: str
    type: str
    unit: str = ""
    disclosure: str = "never"
    grade: int = 3
    levels: tuple[str, ...] = ()
    missing: bool = False
    low: float | str | None = None
    high: float | str | None = None
    key: str = "none"
    length: int = 0

    @property
    def domain(self) -> str:
        """The domain in words; empty where any value of the type may stand."""
        if self.levels:
            return f"one of {len(self.levels)} levels"
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"at least {self.low}"
        return f"at most {self.high}" if self.low is None else f"{self.low} to {self.high}"

    def document(self) -> dict[str, Any]:
        """Return the column as JSON; what was not set and came later to this format is left out."""
        out: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "unit": self.unit,
            "disclosure": self.disclosure,
            "grade": self.grade,
            "levels": list(self.levels),
            "missing": self.missing,
        }
        if self.low is not None or self.high is not None:
            out["range"] = [self.low, self.high]
        return {**out, **_key_document(self.key, self.length)}


@dataclass(frozen=True)
class Schema:
    """The schema of a dataset; the identifier is not among `columns`.

    Args:
        key, length: what the identifier is, as for a column.
        period: the month column that, with the identifier, names a row; empty where the identifier alone does.
    """

    id: str
    label: str
    as_of: str
    columns: tuple[ColumnSchema, ...]
    ignore_other: bool = False
    key: str = "none"
    length: int = 0
    period: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON without the day, 64 hex digits; equal for equal columns."""
        document = {key: value for key, value in self.document().items() if key != "as_of"}
        return hashlib.sha256(b"chaotian/schema/v1\x00" + canonical_json(document)).hexdigest()

    def index(self, name: str) -> int:
        """Return the position of the column `name`, counted from 0; DATA_COLUMN where there is none."""
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        raise ChaotianError("DATA_COLUMN", f"the schema has no column {name[:MAX_NAME]}")

    def document(self) -> dict[str, Any]:
        """Return the schema as JSON."""
        return {
            "v": 1,
            "id": self.id,
            "label": self.label,
            "as_of": self.as_of,
            "other_columns": "ignore" if self.ignore_other else "refuse",
            "columns": [column.document() for column in self.columns],
            **_key_document(self.key, self.length),
            **({"period": self.period} if self.period else {}),
        }

    @classmethod
    def from_document(cls, document: Any) -> Schema:
        """Return the schema of `document()`; BAD_DOCUMENT for anything else."""
        try:
            body = dict(document)
            if body.pop("v") != 1:
                raise ChaotianError("VERSION", "the schema has a version that is not known here")
            columns = body.pop("columns")
            named = {column["name"]: {k: v for k, v in column.items() if k != "name"} for column in columns}
            for column in named.values():
                column["missing"] = "allow" if column["missing"] else "refuse"
                if column["type"] != "category":
                    column.pop("levels")
        except (TypeError, KeyError, ValueError, AttributeError):
            raise ChaotianError("BAD_DOCUMENT", "expected the schema of a dataset") from None
        return _schema({**body, "columns": named})


def parse_schema(data: bytes) -> Schema:
    """Return the schema a person wrote in TOML.

    Raises:
        ChaotianError: BAD_DOCUMENT naming the key.
    """
    if len(data) > LIMIT:
        raise ChaotianError("OVERSIZED", f"a schema has at most {LIMIT} bytes")
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ChaotianError("BAD_DOCUMENT", "the schema is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise ChaotianError("BAD_DOCUMENT", f"the schema is not TOML: {error}") from None
    return schema_from(document)


def schema_from(document: Any) -> Schema:
    """Return the schema of the table that a person's TOML holds, or would.

    Raises:
        ChaotianError: BAD_DOCUMENT naming the key.
    """
    if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
        raise ChaotianError("BAD_DOCUMENT", "a schema is a table with named keys")
    return _schema(document)


def _schema(document: Mapping[str, Any]) -> Schema:
    _known("the schema", document, {"id", "label", "as_of", "other_columns", "columns", "key", "length", "period"})
    columns = document.get("columns")
    if not isinstance(columns, Mapping) or not 1 <= len(columns) <= MAX_COLUMNS:
        raise ChaotianError("BAD_DOCUMENT", f"the schema has a table [columns.NAME] for 1 to {MAX_COLUMNS} columns")
    if not all(isinstance(name, str) for name in columns):
        raise ChaotianError("BAD_DOCUMENT", "the names of columns are texts")
    parsed = tuple(_column(name, column) for name, column in columns.items())
    identifier, label = _text(document, "id", "the schema"), document.get("label", "")
    if identifier in columns:
        raise ChaotianError("BAD_DOCUMENT", f"the identifier {identifier} is not one of the columns")
    if not isinstance(label, str) or (label and label not in columns):
        raise ChaotianError("BAD_DOCUMENT", "label names one of the columns")
    if label:
        of_label = next(column for column in parsed if column.name == label)
        if of_label.type not in ("integer", "numeric") or of_label.missing:
            raise ChaotianError("BAD_DOCUMENT", f"the label {label} is an integer column (0 or 1), never missing")
    other = document.get("other_columns", "refuse")
    if other not in ("refuse", "ignore"):
        raise ChaotianError("BAD_DOCUMENT", "other_columns is refuse or ignore")
    period = document.get("period", "")
    if not isinstance(period, str) or (period and period not in columns):
        raise ChaotianError("BAD_DOCUMENT", "period names one of the columns")
    if period and any(c.type != "month" or c.missing for c in parsed if c.name == period):
        raise ChaotianError("BAD_DOCUMENT", f"the period {period} is a month column, never missing")
    key, length = _key("the schema", document)
    day = _day("as_of", document.get("as_of", ""))
    return Schema(identifier, label, day, parsed, other == "ignore", key, length, period)


def _column(name: str, column: Any) -> ColumnSchema:
    where = f"column {name[:MAX_NAME]}"
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ChaotianError("BAD_DOCUMENT", f"a column name has 1 to {MAX_NAME} printable characters")
    if not isinstance(column, Mapping):
        raise ChaotianError("BAD_DOCUMENT", f"{where} is a table")
    _known(where, column, {"type", "unit", "disclosure", "grade", "levels", "missing", "range", "key", "length"})
    kind, grade, levels = _text(column, "type", where), column.get("grade", 3), column.get("levels", [])
    if kind not in TYPES:
        raise ChaotianError("BAD_DOCUMENT", f"the type of {where} is one of {', '.join(TYPES)}")
    disclosure, missing = column.get("disclosure", "never"), column.get("missing", "refuse")
    if disclosure not in DISCLOSURES:
        raise ChaotianError("BAD_DOCUMENT", f"the disclosure of {where} is one of {', '.join(DISCLOSURES)}")
    if type(grade) is not int or grade not in GRADES:
        raise ChaotianError("BAD_DOCUMENT", f"the grade of {where} is a whole number from 1 to 5")
    if missing not in ("refuse", "allow"):
        raise ChaotianError("BAD_DOCUMENT", f"missing of {where} is refuse or allow")
    if not isinstance(levels, list) or len(levels) > MAX_LEVELS or (levels and kind != "category"):
        raise ChaotianError("BAD_DOCUMENT", f"levels of {where} is a list, and only a category has it")
    if not all(isinstance(level, str) and level for level in levels) or len(set(levels)) != len(levels):
        raise ChaotianError("BAD_DOCUMENT", f"the levels of {where} are texts, none empty, each named once")
    unit = column.get("unit", "")
    if not isinstance(unit, str) or len(unit) > MAX_NAME:
        raise ChaotianError("BAD_DOCUMENT", f"the unit of {where} is a short text")
    low, high = _range(where, kind, column)
    key, length = _key(where, column)
    if key != "none" and (kind != "category" or levels):
        raise ChaotianError("BAD_DOCUMENT", f"{where} has a key, so it is a category without levels")
    return ColumnSchema(name, kind, unit, disclosure, grade, tuple(levels), missing == "allow", low, high, key, length)


def _range(where: str, kind: str, column: Mapping[str, Any]) -> tuple[float | str | None, float | str | None]:
    """Return the ends of a column's range, None for an open one."""
    if "range" not in column:
        return None, None
    ends = column["range"]
    if kind == "category" or not isinstance(ends, list) or len(ends) != 2:
        raise ChaotianError("BAD_DOCUMENT", f"range of {where} is a list of two, and a category has levels instead")
    out: list[float | str | None] = []
    for end in ends:
        if end is None or (isinstance(end, float) and math.isinf(end)):
            out.append(None)
        elif kind in ("date", "month"):
            out.append(_day(f"range of {where}", end) or None)
        elif type(end) not in (int, float) or not abs(end) <= MAX_END:
            raise ChaotianError("BAD_DOCUMENT", f"range of {where} holds numbers, or inf and -inf for an open end")
        else:
            out.append(float(end))
    low, high = out
    # inf as the lower end, or -inf as the upper one, is a slip: it would otherwise read as open
    slip = ends[0] == math.inf or ends[1] == -math.inf
    if slip or (low is not None and high is not None and low > high):  # type: ignore[operator]  # both of one kind
        raise ChaotianError("BAD_DOCUMENT", f"range of {where} begins with its smaller end")
    return low, high


def _key(where: str, table: Mapping[str, Any]) -> tuple[str, int]:
    key, length = table.get("key", "none"), table.get("length", 0)
    if key not in KEYS:
        raise ChaotianError("BAD_DOCUMENT", f"the key of {where} is one of {', '.join(KEYS)}")
    if type(length) is not int or not 0 <= length <= MAX_LENGTH or (length and key != "loan_number"):
        raise ChaotianError("BAD_DOCUMENT", f"length of {where} is 1 to {MAX_LENGTH}, and only a loan number has it")
    return key, length


def _key_document(key: str, length: int) -> dict[str, Any]:
    return {**({"key": key} if key != "none" else {}), **({"length": length} if length else {})}


def _known(where: str, document: Mapping[str, Any], keys: set[str]) -> None:
    unknown = sorted(set(document) - keys)
    if unknown:
        raise ChaotianError("BAD_DOCUMENT", f"{where} has no key {unknown[0][:MAX_NAME]}")


def _text(document: Mapping[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise ChaotianError("BAD_DOCUMENT", f"{key} of {where} is a text")
    return value


def _day(what: str, value: Any) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if not isinstance(value, str):
        raise ChaotianError("BAD_DOCUMENT", f"{what} is a day, as 2024-12-31")
    if value:
        try:
            return datetime.date.fromisoformat(value).isoformat()
        except ValueError:
            raise ChaotianError("BAD_DOCUMENT", f"{what} is a day, as 2024-12-31") from None
    return value
