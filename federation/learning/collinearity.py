"""How far columns of a scorecard can be told from each other: variance inflation factors from pooled cross-products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gmpy2

from federation.learning.exact import real_arithmetic
from federation.learning.newton import cholesky, solve, triangle


def variance_inflation(hessian: Sequence[int], count: int) -> list[float | None]:
    """Return the variance inflation factor of every coefficient but the intercept.

    At β = 0 every row weighs 1/4, so the first Newton round's Hessian of the log-loss is XᵀX / 4: the pooled moments
    of the design, and nothing further need be summed. With C = centred XᵀX, VIF_j = C_jj · (C⁻¹)_jj = 1 / (1 - R_j²),
    where R_j² is that of a linear regression of column j on all others (Belsley, Kuh and Welsch 1980). The scale
    cancels.

    Args:
        hessian: upper triangle of the Hessian at β = 0, row by row, on any common scale; the intercept first.
        count: number of coefficients, the intercept included.

    Returns:
        count - 1 factors of at least 1; all None where the columns depend on each other linearly.
    """
    with real_arithmetic():
        full: list[list[Any]] = [[None] * count for _ in range(count)]
        for (i, j), value in zip(triangle(count), hessian, strict=True):
            full[i][j] = full[j][i] = gmpy2.mpfr(value)
        if count < 2 or full[0][0] <= 0:
            return [None] * (count - 1)
        size = count - 1
        centred = [
            [full[i][j] - full[i][0] * full[0][j] / full[0][0] for j in range(1, count)] for i in range(1, count)
        ]
        lower = cholesky(centred)
        if lower is None:
            return [None] * size
        out: list[float | None] = []
        for j in range(size):
            unit = [gmpy2.mpfr(1 if k == j else 0) for k in range(size)]
            out.append(float(centred[j][j] * solve(lower, unit)[j]))
        return out


def factors_to_json(factors: Sequence[float | None]) -> list[str]:
    """Return factors as text: hexadecimal floats, empty for None."""
    return ["" if factor is None else factor.hex() for factor in factors]


def factors_of_json(texts: Sequence[str]) -> list[float | None]:
    """Return the factors of `factors_to_json`."""
    return [None if text == "" else float.fromhex(text) for text in texts]
