"""Columns of text against a schema: what does not fit, and the typed values of what does.

Each column is passed once: a CASE gives every row the number of its first fault, or NULL.
"""

# ruff: noqa: S608  (SQL is put together here from our own names and from `text_literal` text only)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.datasets.faults import Fault, Progress, no_progress
from gateway.datasets.keys import FULL_WIDTH, ROUNDED, WELL_FORMED, key_faults, key_fits, wrong_check_characters
from gateway.datasets.schema import ColumnSchema, Schema

EXACT = 2**53
# Ways to write a day or a month; year first, since 03/04/2024 is two days. Digits are half-width.
FORMS = {
    "YYYY-MM-DD": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}",
    "YYYY/MM/DD": r"[0-9]{4}/[0-9]{1,2}/[0-9]{1,2}",
    "YYYY.MM.DD": r"[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,2}",
    "YYYYMMDD": r"[0-9]{8}",
    "YYYY年MM月DD日": r"[0-9]{4}年[0-9]{1,2}月[0-9]{1,2}日",
}
MONTH_FORMS = {
    "YYYY-MM": r"[0-9]{4}-[0-9]{1,2}",
    "YYYY/MM": r"[0-9]{4}/[0-9]{1,2}",
    "YYYY.MM": r"[0-9]{4}\.[0-9]{1,2}",
    "YYYYMM": r"[0-9]{6}",
    "YYYY年MM月": r"[0-9]{4}年[0-9]{1,2}月",
    **FORMS,
}
# What most files have: told by its shape alone, and then by whether it is a day.
_QUICK = {"YYYY-MM-DD": "____-__-__", "YYYY-MM": "____-__"}
_AMBIGUOUS = r"[0-9]{1,2}[-/.][0-9]{1,2}[-/.]([0-9]{2}|[0-9]{4})"
_MIDNIGHT = r"[ T]00:00(:00(\.0+)?)?$"
_DUCKDB_TYPES = {"numeric": "DOUBLE", "integer": "BIGINT", "category": "VARCHAR", "date": "DATE", "month": "DATE"}

_CHECK = "the check digit of the credit code does not fit (GB 32100-2015)"
_CUT = (
    "the last three digits are 000 and the check digit does not fit: a spreadsheet keeps only 15 digits, export the "
    "column as text"
)
_FETCH = 100_000
_DAYS = "raw_days"

Rules = list[tuple[str, str, str]]  # (code, SQL condition, words)


def text_literal(value: str) -> str:
    """Return `value` as an SQL text literal."""
    return "'" + value.replace("'", "''") + "'"


class Checker:
    """Checks the columns of text of one table.

    Args:
        connection: a DuckDB connection.
        table: its table, with `place` (row number as people count) and columns of text.
        schema: what it should be.
        sources: column of the table by name in the schema.
    """

    def __init__(self, connection: Any, table: str, schema: Schema, sources: Mapping[str, str]) -> None:
        self._connection, self._table, self._schema, self._sources = connection, table, schema, sources
        self._forms: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.warnings: list[str] = []

    def run(self, progress: Progress = no_progress) -> None:
        """Check everything; see `faults` and `warnings` afterwards."""
        steps = len(self._schema.columns) + 2
        progress(0.0, f"checking column {self._schema.id}")
        self._identifier()
        for done, column in enumerate(self._schema.columns, 1):
            progress(done / steps, f"checking column {column.name}")
            self._column(column)
        progress((steps - 1) / steps, "looking for duplicates")
        self._duplicates()
        progress(1.0, "checked")

    def typed(self, target: str, order: str) -> None:
        """Make the table `target` of the typed values: `_id`, then `c0`, `c1`, …; only where there are no faults."""
        picked = [f"{self._sources[self._schema.id]} AS _id"]
        for index, column in enumerate(self._schema.columns):
            value = self._value(column)
            picked.append(f"CAST({value} AS {_DUCKDB_TYPES[column.type]}) AS c{index}")
        self._connection.execute(
            f"CREATE TABLE {target} AS SELECT {', '.join(picked)} FROM {self._table} ORDER BY {order}"
        )

    # --- parts ------------------------------------------------------------------------------------------------------

    def _identifier(self) -> None:
        schema, text = self._schema, self._sources[self._schema.id]
        rules: Rules = [("DATA_MISSING", f"coalesce(trim({text}), '') = ''", "the identifier is missing")]
        if schema.key != "none":
            rules += self._key_rules(text, schema.key, schema.length)
        self._classify(schema.id, rules)
        if schema.key == "credit_code":
            self._check_characters(schema.id, text)
        self._look(schema.id, text, schema.key, schema.length)

    def _column(self, column: ColumnSchema) -> None:
        text = self._sources[column.name]
        blank = f"coalesce(trim({text}), '') = ''"
        rules: Rules = [("" if column.missing else "DATA_MISSING", blank, "a value is missing")]
        if column.type == "category":
            if column.levels:
                levels = ", ".join(text_literal(level) for level in column.levels)
                rules.append(("DATA_DOMAIN", f"{text} NOT IN ({levels})", "not one of the schema's levels"))
            elif column.key != "none":
                rules += self._key_rules(text, column.key, column.length)
                self._look(column.name, text, column.key, column.length)
        elif column.type in ("date", "month"):
            self._days(column, text, rules)
            return
        else:
            rules += self._number_rules(column, text)
        self._classify(column.name, rules)
        if column.key == "credit_code":
            self._check_characters(column.name, text)

    def _days(self, column: ColumnSchema, text: str, rules: Rules) -> None:
        """Check a column of days by its different texts: they are few, and telling their forms apart is slow."""
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_DAYS} AS "
            f"SELECT {text}, min(place) AS place, count(*) AS rows FROM {self._table} GROUP BY {text}"
        )
        try:
            self._classify(column.name, rules + self._day_rules(column, text), _DAYS, "sum(rows)")
        finally:
            self._connection.execute(f"DROP TABLE IF EXISTS {_DAYS}")

    def _check_characters(self, name: str, text: str) -> None:
        """Add the faults of credit codes that are well-formed and do not fit their last character."""
        cursor = self._connection.execute(
            f"SELECT place, {text} AS code FROM {self._table} WHERE regexp_full_match({text}, '{WELL_FORMED}')"
        )
        found: dict[str, list[int]] = {}
        while rows := cursor.fetchmany(_FETCH):
            wrong = wrong_check_characters([code for _, code in rows])
            for index in np.flatnonzero(wrong):
                place, code = rows[int(index)]
                words = _CUT if code.isdigit() and code.endswith("000") else _CHECK
                first = found.setdefault(words, [place, 0])
                found[words] = [min(first[0], place), first[1] + 1]
        for words, (row, count) in sorted(found.items(), key=lambda item: item[1]):
            self.faults.append(Fault("DATA_KEY", int(row), name, words, count))

    @staticmethod
    def _key_rules(text: str, key: str, length: int) -> Rules:
        fits: Rules = [("", key_fits(text, key, length), "")]
        return fits + [("DATA_KEY", condition, words) for condition, words in key_faults(text, key, length)]

    def _number_rules(self, column: ColumnSchema, text: str) -> Rules:
        value, label = f"TRY_CAST(trim({text}) AS DOUBLE)", column.name == self._schema.label
        none = f"{value} IS NULL"
        quick = [f"isfinite({value})"]
        if column.type == "integer":
            quick.append(f"{value} = floor({value}) AND abs({value}) <= {EXACT}")
        if label:
            quick.append(f"{value} IN (0, 1)")
        quick += [f"{value} >= {column.low!r}"] if column.low is not None else []
        quick += [f"{value} <= {column.high!r}"] if column.high is not None else []
        rules: Rules = [
            ("", " AND ".join(quick), ""),
            (
                "DATA_TYPE",
                f"{none} AND regexp_matches({text}, '{FULL_WIDTH}')",
                "full-width digits: write half-width ones",
            ),
            (
                "DATA_TYPE",
                f"{none} AND regexp_full_match(trim({text}), '[-+]?[0-9]{{1,3}}(,[0-9]{{3}})+(\\.[0-9]*)?')",
                "commas between the digits: write the number without them",
            ),
            ("DATA_TYPE", f"{none} AND suffix(trim({text}), '%')", "a percent sign: write 0.05 for 5 %"),
            ("DATA_TYPE", none, "not a number"),
            ("DATA_TYPE", f"NOT isfinite({value})", "not a finite number"),
        ]
        if column.type == "integer":
            rounded = f"abs({value}) > {EXACT} AND regexp_full_match(trim({text}), '[-+]?{ROUNDED}')"
            words = (
                "a spreadsheet has rounded it (as in 9.15E+17): a long number that identifies something is a category"
            )
            rules.append(("DATA_TYPE", rounded, words))
            whole = f"{value} <> floor({value}) OR abs({value}) > {EXACT}"
            rules.append(("DATA_TYPE", whole, "not a whole number of at most 2^53"))
        if label:
            rules.append(("DATA_TYPE", f"{value} NOT IN (0, 1)", "the label is 0 or 1"))
        if column.low is not None:
            rules.append(("DATA_DOMAIN", f"{value} < {column.low!r}", "below the schema's range"))
        if column.high is not None:
            rules.append(("DATA_DOMAIN", f"{value} > {column.high!r}", "above the schema's range"))
        return rules

    def _day_rules(self, column: ColumnSchema, text: str) -> Rules:
        forms = FORMS if column.type == "date" else MONTH_FORMS
        plain = f"regexp_replace(trim({text}), '{_MIDNIGHT}', '')"
        found = self._connection.execute(
            f"SELECT {_form_sql(forms, plain, text)} AS form, sum(rows) FROM {_DAYS} GROUP BY form "
            "HAVING form IS NOT NULL ORDER BY 2 DESC, 1"
        ).fetchall()
        form = str(found[0][0]) if found else next(iter(forms))
        self._forms[column.name] = form
        same = f"regexp_full_match({plain}, '{forms[form]}')"
        if form in _QUICK:  # the regular expressions take most of the time of a check
            same = f"CASE WHEN {text} LIKE '{_QUICK[form]}' THEN true ELSE {same} END"
        value, what = self._value(column), "day" if column.type == "date" else "month"
        ends = [f"{value} >= DATE '{column.low}'"] if column.low is not None else []
        ends += [f"{value} <= DATE '{column.high}'"] if column.high is not None else []
        rules: Rules = [
            ("", " AND ".join([f"{same} AND {value} IS NOT NULL", *ends]), ""),
            ("DATA_TYPE", f"regexp_matches({text}, '{FULL_WIDTH}')", "full-width digits: write half-width ones"),
            (
                "DATA_TYPE",
                f"NOT {same} AND {_form_sql(forms, plain)} IS NOT NULL",
                f"mixed ways to write a {what}: most of the column has {form}, this row another",
            ),
            (
                "DATA_TYPE",
                f"NOT {same} AND regexp_full_match({plain}, '{_AMBIGUOUS}')",
                "day and month cannot be told apart: write the year first, as 2024-12-31",
            ),
            (
                "DATA_TYPE",
                f"NOT {same} AND regexp_full_match({plain}, '[0-9]{{5}}(\\.[0-9]+)?')",
                f"a spreadsheet's day number: format the cells as {form}",
            ),
            ("DATA_TYPE", f"NOT {same}", f"not a {what} as {form}"),
            ("DATA_TYPE", f"{value} IS NULL", f"there is no such {what}"),
        ]
        if column.low is not None:
            rules.append(("DATA_DOMAIN", f"{value} < DATE '{column.low}'", "before the schema's range"))
        if column.high is not None:
            rules.append(("DATA_DOMAIN", f"{value} > DATE '{column.high}'", "after the schema's range"))
        return rules

    def _value(self, column: ColumnSchema) -> str:
        """Return the expression of the typed value; NULL for a blank."""
        text = self._sources[column.name]
        if column.type == "category":
            return f"CASE WHEN coalesce(trim({text}), '') = '' THEN NULL ELSE {text} END"
        if column.type in ("date", "month"):
            day = r"'^([0-9]{4})[-/.年]?([0-9]{1,2})[-/.月]?([0-9]{1,2})?日?" + f"({_MIDNIGHT})?$'"
            whole = f"regexp_replace(trim({text}), {day}, '\\1-\\2-')"
            last = f"coalesce(nullif(regexp_extract(trim({text}), {day}, 3), ''), '1')"
            quick = f"WHEN {text} LIKE '{_QUICK['YYYY-MM-DD']}' THEN TRY_CAST({text} AS DATE)"
            if column.type == "month":
                quick += f" WHEN {text} LIKE '{_QUICK['YYYY-MM']}' THEN TRY_CAST({text} || '-01' AS DATE)"
            value = f"CASE {quick} ELSE TRY_CAST({whole} || {last} AS DATE) END"
            return f"CAST(date_trunc('month', {value}) AS DATE)" if column.type == "month" else value
        return f"TRY_CAST(trim({text}) AS DOUBLE)"

    def _classify(self, name: str, rules: Rules, table: str = "", count: str = "count(*)") -> None:
        """Add the faults of one column; a rule without a code says that the row is right.

        Args:
            table: where the column is looked up, with `place`; the rows themselves where empty.
            count: expression of how many rows there are.
        """
        cases = " ".join(f"WHEN {condition} THEN {i if code else -1}" for i, (code, condition, _) in enumerate(rules))
        found = self._connection.execute(
            f"SELECT fault, min(place), {count} FROM (SELECT *, CASE {cases} END AS fault FROM {table or self._table}) "
            "WHERE fault >= 0 GROUP BY fault ORDER BY 2"
        ).fetchall()
        for fault, row, count in found:
            code, _, words = rules[int(fault)]
            self.faults.append(Fault(code, int(row), name, words, int(count)))

    def _look(self, name: str, text: str, key: str, length: int) -> None:
        """Warn of an identifier that looks as if a spreadsheet had been at it."""
        exponent = f"contains({text}, 'E') OR contains({text}, 'e')"
        odd_one = f"CASE WHEN {exponent} THEN regexp_full_match({text}, '{ROUNDED}') ELSE false END"
        rounded = f"count(*) FILTER ({odd_one})"
        digits = f"bool_and(regexp_full_match({text}, '[0-9]+'))"
        low, high, only_digits, odd = self._connection.execute(
            f"SELECT min(length({text})), max(length({text})), {digits}, {rounded} FROM {self._table}"
        ).fetchone()
        if key == "none" and odd:
            self.warnings.append(f"column {name}: {odd} rows look rounded by a spreadsheet, as in 9.15E+17")
        if key == "loan_number" and not length and only_digits and low != high:
            self.warnings.append(
                f"column {name}: the numbers have {low} to {high} digits; where all should have {high}, leading zeros "
                f"are lost: set length = {high} in the schema"
            )

    def _duplicates(self) -> None:
        schema = self._schema
        # Without the month of every row there is no saying which rows are the same.
        if schema.period and any(fault.column in (schema.id, schema.period) for fault in self.faults):
            return
        identifier, what = self._sources[schema.id], "the same identifier"
        keys, named = identifier, schema.id
        if schema.period:
            keys = f"{identifier}, {self._value(schema.columns[schema.index(schema.period)])}"
            named, what = f"{schema.id} and {schema.period}", "the same identifier and month"
        found = self._connection.execute(
            f"SELECT first, last, sum(more) OVER () FROM (SELECT min(place) AS first, max(place) AS last, "
            f"count(*) - 1 AS more FROM {self._table} WHERE coalesce(trim({identifier}), '') <> '' GROUP BY {keys} "
            "HAVING count(*) > 1) ORDER BY first LIMIT 1"
        ).fetchone()
        if found:
            first, last, count = (int(value) for value in found)
            self.faults.append(Fault("DATA_DUPLICATE", first, named, what, count, twin=last))


def _form_sql(forms: Mapping[str, str], text: str, quick: str = "") -> str:
    """Return the expression of a day's form, NULL for none; by shape alone where `quick` is given and it will do."""
    shapes = {form: shape for form, shape in _QUICK.items() if quick and form in forms}
    first = " ".join(f"WHEN {quick} LIKE '{shape}' THEN '{form}'" for form, shape in shapes.items())
    cases = " ".join(f"WHEN regexp_full_match({text}, '{pattern}') THEN '{name}'" for name, pattern in forms.items())
    return f"CASE {first} {cases} END"
