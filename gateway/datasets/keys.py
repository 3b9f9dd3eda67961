"""Keys of firms and loans: the unified social credit code with its check digit, and loan numbers.

GB 32100-2015: 18 characters of `ALPHABET` (digits and capitals without I, O, S, V, Z); the last one is chosen so that
sum over i = 1..18 of value(character i) · 3^(i-1) is a multiple of 31.
"""

from __future__ import annotations

ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
LENGTH = 18
WEIGHTS = tuple(pow(3, i, 31) for i in range(LENGTH))

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


def checksum_sql(text: str) -> str:
    """Return the SQL (DuckDB) of the weighted sum modulo 31 of a text of 18 characters of the alphabet; 0: it fits."""
    terms = (f"(strpos('{ALPHABET}', {text}[{i}]) - 1) * {WEIGHTS[i - 1]}" for i in range(1, LENGTH + 1))
    return f"({' + '.join(terms)}) % 31"


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
        (
            f"{checksum_sql(text)} <> 0 AND regexp_full_match({text}, '[0-9]{{15}}000')",
            "the last three digits are 000 and the check digit does not fit: a spreadsheet keeps only 15 digits, "
            "export the column as text again",
        ),
        (f"{checksum_sql(text)} <> 0", "the check digit of the credit code does not fit (GB 32100-2015)"),
    ]


def key_fits(text: str, key: str, length: int) -> str:
    """Return the SQL condition that a key is right, quicker than asking for each fault."""
    if key == "credit_code":
        # The regular expression first: the sum is only for texts it has passed.
        return f"CASE WHEN regexp_full_match({text}, '[{ALPHABET}]{{18}}') THEN {checksum_sql(text)} = 0 ELSE false END"
    return f"NOT ({' OR '.join(condition for condition, _ in key_faults(text, key, length))})"
