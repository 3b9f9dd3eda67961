"""Keys of firms and loans: the unified social credit code with its check digit, and loan numbers.

GB 32100-2015: 18 characters of `ALPHABET` (digits and capitals without I, O, S, V, Z). The last one has the value
(31 - s mod 31) mod 31, where s = sum over i = 1..17 of value(character i) · (3^(i-1) mod 31).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
LENGTH = 18
WEIGHTS = tuple(pow(3, i, 31) for i in range(LENGTH - 1))
WELL_FORMED = f"[{ALPHABET}]{{18}}"

# Whatever a spreadsheet makes of a long number: 9.15E+17
ROUNDED = r"[0-9](\.[0-9]+)?[eE]\+?[0-9]+"
FULL_WIDTH = r"[\x{FF01}-\x{FF5E}\x{3000}]"


def check_character(code: str) -> str:
    """Return the 18th character for the first 17 of a unified social credit code.

    Raises:
        ValueError: where a character is not of the alphabet.
    """
    total = sum(ALPHABET.index(character) * weight for character, weight in zip(code[:17], WEIGHTS, strict=False))
    return ALPHABET[-total % 31]


def is_credit_code(code: str) -> bool:
    """Whether `code` has the form and the check character of a unified social credit code."""
    return len(code) == LENGTH and set(code) <= set(ALPHABET) and check_character(code) == code[17]


def wrong_check_characters(codes: Any) -> NDArray[np.bool_]:
    """Return for each code whether its last character does not fit.

    Args:
        codes: texts that match `WELL_FORMED`.
    """
    letters = np.asarray(codes, dtype=f"S{LENGTH}").view(np.uint8).reshape(-1, LENGTH)
    values = np.zeros(256, dtype=np.int64)
    values[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(len(ALPHABET))
    total = values[letters] @ np.array([*WEIGHTS, 1])
    return np.asarray(total % 31 != 0)


def key_faults(text: str, key: str, length: int) -> list[tuple[str, str]]:
    """Return (SQL condition, words) of what may be wrong with a key; the first that holds is the fault.

    Args:
        text: SQL expression of the key, not blank.
        key: `credit_code` or `loan_number`.
        length: of a loan number, 0 where it may differ.
    """
    common = [
        (f"regexp_matches({text}, '{FULL_WIDTH}')", "full-width characters: write half-width ones"),
        (
            f"regexp_full_match({text}, '{ROUNDED}')",
            "a spreadsheet has rounded it (as in 9.15E+17), its last digits are lost: export the column as text",
        ),
        (f"regexp_matches({text}, '\\s')", "a space or a line break in it"),
        (
            f"regexp_full_match({text}, '[0-9]+\\.0*')",
            "a decimal point: it was exported as a number, so leading zeros may be lost: export it as text",
        ),
    ]
    if key == "loan_number":
        if not length:
            return common
        return [
            *common,
            (f"length({text}) < {length}", f"fewer than {length} characters: leading zeros are lost"),
            (f"length({text}) > {length}", f"more than {length} characters"),
        ]
    return [
        *common,
        (f"regexp_matches({text}, '[a-z]')", "small letters: a credit code has capitals"),
        (
            f"length({text}) BETWEEN 15 AND 17 AND regexp_full_match({text}, '[{ALPHABET}]+')",
            "fewer than 18 characters: a leading zero or another character is lost",
        ),
        (f"length({text}) <> 18", "not 18 characters, as a unified social credit code has"),
        (
            f"NOT regexp_full_match({text}, '[{ALPHABET}]+')",
            "a character that no credit code has (I, O, S, V, Z or a sign)",
        ),
    ]


def key_fits(text: str, key: str, length: int) -> str:
    """Return an SQL condition that only right keys meet, quicker than asking for each fault; check digit apart."""
    if key == "credit_code":
        return f"regexp_full_match({text}, '{WELL_FORMED}')"
    return f"regexp_full_match({text}, '[0-9]{{{length}}}')" if length else f"regexp_full_match({text}, '[0-9]+')"
