"""Newton's method for penalised logistic regression, from pooled totals alone.

Objective: f(β) = Σ log-loss + λ/2 · Σ_{j≥1} β_j², the intercept β_0 free. Members send log-loss, gradient and the
upper triangle of the Hessian of the log-loss at an agreed β as sums with 32 fractional bits; each derives the next β
from the exact totals with the functions of this module (Cholesky in MPFR at 256 bits, fixed order) and rounds it to
the grid of 2^-32. The same totals therefore give the same β, bit for bit, on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.exact import GRID_BITS, nearest_float, real, real_arithmetic, to_grid

GRID = 1 << GRID_BITS
LARGEST_STEP = 16 * GRID  # a step longer than this and than the largest coefficient is shortened, see `advance`
LARGEST_BETA = GRID << 32
SMALLEST_STEP = 1 << (GRID_BITS - 30)  # converged: no coefficient moves by more than 2^-30
SMALL_STEP = 1 << (GRID_BITS - 16)
SMALLEST_DECREMENT = Fraction(1, 1 << 44)  # converged as well: weighted squared change of all logits, see `advance`
RISE = Fraction(1, 1 << 20)  # a rise of the objective below this is rounding of the members' float64 sums
MAX_HALVINGS = 40
PIVOT = Fraction(1, 1 << 30)  # totals carry 32 fractional bits: a smaller relative pivot is noise
LN2_GRID = 2977044471  # floor(ln 2 · 2^32)
_ROWS = 1 << 16


def triangle(count: int) -> list[tuple[int, int]]:
    """Return the index pairs of the upper triangle of a `count` × `count` matrix, row by row."""
    return [(i, j) for i in range(count) for j in range(i, count)]


def local_sums(
    design: NDArray[np.float64], label: NDArray[np.float64], beta: Sequence[float]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return log-loss, gradient (p) and upper triangle of the Hessian (p(p+1)/2) of own rows at `beta`, float64.

    Only sums over rows leave this function; they are added up by blocks of rows, so memory stays bounded.
    """
    count = design.shape[1]
    point = np.asarray(beta, dtype=np.float64)
    loss, gradient, hessian = 0.0, np.zeros(count), np.zeros((count, count))
    for start in range(0, len(design), _ROWS):
        x, y = design[start : start + _ROWS], label[start : start + _ROWS]
        logit = x @ point
        small = np.exp(-np.abs(logit))
        probability = np.where(logit >= 0, 1.0, small) / (1.0 + small)
        loss += float((np.log1p(small) + np.maximum(logit, 0.0) - y * logit).sum())
        gradient += x.T @ (probability - y)
        hessian += (x * (small / (1.0 + small) ** 2)[:, None]).T @ x
    rows, columns = np.triu_indices(count)
    return loss, gradient, hessian[rows, columns]


def cholesky(matrix: list[list[Any]]) -> list[list[Any]] | None:
    """Return the lower Cholesky factor of a symmetric mpfr matrix, or None where it is singular to working accuracy."""
    size = len(matrix)
    lower: list[list[Any]] = [[gmpy2.mpfr(0)] * size for _ in range(size)]
    floor = real(PIVOT)
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j]
            for k in range(j):
                rest = rest - lower[i][k] * lower[j][k]
            if i != j:
                lower[i][j] = rest / lower[j][j]
            elif rest <= 0 or rest <= floor * matrix[i][i]:
                return None
            else:
                lower[i][i] = gmpy2.sqrt(rest)
    return lower


def solve(lower: list[list[Any]], right: Sequence[Any]) -> list[Any]:
    """Return x with L Lᵀ x = right, by forward and backward substitution."""
    size = len(lower)
    half: list[Any] = []
    for i in range(size):
        rest = right[i]
        for k in range(i):
            rest = rest - lower[i][k] * half[k]
        half.append(rest / lower[i][i])
    out: list[Any] = [None] * size
    for i in range(size - 1, -1, -1):
        rest = half[i]
        for k in range(i + 1, size):
            rest = rest - lower[k][i] * out[k]
        out[i] = rest / lower[i][i]
    return out


@dataclass(frozen=True)
class RoundReport:
    """One Newton round: what it found at its β.

    Args:
        log_loss: pooled log-loss, without the penalty.
        gradient: largest absolute component of the penalised gradient.
        max_step: largest absolute change of a coefficient that the Newton step asks for.
        decrement: gᵀ H⁻¹ g, the squared Newton decrement.
        halvings: how often the step that led here had to be halved; -1 where this β was refused.
    """

    log_loss: float
    gradient: float
    max_step: float
    decrement: float
    halvings: int

    def document(self) -> list[str | int]:
        """Return the report as JSON (floats in hexadecimal)."""
        values = (self.log_loss, self.gradient, self.max_step, self.decrement)
        return [*(value.hex() for value in values), self.halvings]

    @classmethod
    def from_document(cls, document: Any) -> RoundReport:
        """Return the report of `document`."""
        loss, gradient, step, decrement, halvings = document
        return cls(
            float.fromhex(loss), float.fromhex(gradient), float.fromhex(step), float.fromhex(decrement), int(halvings)
        )


@dataclass
class Newton:
    """The state of the iteration, all integers on the grid of 2^-32; equal at all members.

    Args:
        beta: the point at which the next round is summed, or the result once `converged`.
        penalty: λ.
        max_rounds: most rounds.
    """

    beta: list[int]
    penalty: float
    max_rounds: int
    base: list[int] | None = None  # last accepted point, from which `step` leads to `beta`
    base_loss: int = 0
    step: list[int] = field(default_factory=list)
    halvings: int = 0
    history: list[RoundReport] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # standard errors, once converged (hexadecimal floats)
    converged: bool = False

    @property
    def point(self) -> list[float]:
        """β as float64: exact while |β| < 2^21, else nearest, and equal everywhere."""
        return [nearest_float(Fraction(value, GRID)) for value in self.beta]

    def advance(self, loss: int, gradient: Sequence[int], hessian: Sequence[int]) -> None:
        """Take one round's pooled totals (scaled by 2^32) and derive the next β.

        Step control: where the objective rose against the last accepted point, the step is halved and this point
        is refused. A member lost in between only lowers the objective (every row's loss is positive), so it can
        never cause a refusal; the round after compares survivors with survivors.

        Converged: the step moves no coefficient by more than 2^-30, or gᵀH⁻¹g = Σ w_i (change of logit i)² + λ|step|²
        is below 2^-44 and no coefficient moves by more than 2^-16. The last step is still taken, and as Newton's error
        is squared by each step, what remains is below the grid.

        Raises:
            ChaotianError: SEPARABLE, SINGULAR or NOT_CONVERGED.
        """
        count = len(self.beta)
        objective = self._objective(loss, self.beta)
        if self.base is not None and objective > self._objective(self.base_loss, self.base) + RISE:
            self.history.append(RoundReport(nearest_float(Fraction(loss, GRID)), 0.0, 0.0, 0.0, -1))
            self._check_rounds()
            self.halvings += 1
            self.beta = [b + _half(s, self.halvings) for b, s in zip(self.base, self.step, strict=True)]
            if self.halvings > MAX_HALVINGS or self.beta == self.base:
                raise ChaotianError("NOT_CONVERGED", "no step along Newton's direction lowers the objective")
            return
        if self.penalty == 0.0 and loss < LN2_GRID:
            # A row on the wrong side costs at least ln 2, so with less in total every row is on its right side.
            raise ChaotianError("SEPARABLE", f"after {len(self.history) + 1} rounds every row is classified perfectly")
        with real_arithmetic():
            scale = gmpy2.mpfr(GRID)
            ridge = gmpy2.mpfr(self.penalty)
            slope = [gmpy2.mpfr(g) / scale for g in gradient]
            matrix: list[list[Any]] = [[None] * count for _ in range(count)]
            for (i, j), value in zip(triangle(count), hessian, strict=True):
                matrix[i][j] = matrix[j][i] = gmpy2.mpfr(value) / scale
            for j in range(1, count):
                slope[j] = slope[j] + ridge * (gmpy2.mpfr(self.beta[j]) / scale)
                matrix[j][j] = matrix[j][j] + ridge
            lower = cholesky(matrix)
            if lower is None:
                raise self._singular()
            move = [-x for x in solve(lower, slope)]
            decrement = gmpy2.mpfr(0)
            for m, s in zip(move, slope, strict=True):
                decrement = decrement - m * s
            step = [to_grid(x) for x in move]
            largest = max(abs(x) for x in step)
            self.history.append(
                RoundReport(
                    nearest_float(Fraction(loss, GRID)),
                    float(max(abs(s) for s in slope)),
                    float(max(abs(m) for m in move)),
                    float(decrement),
                    self.halvings,
                )
            )
            if self.penalty == 0.0 and decrement < 2**-20 and largest > GRID // 4:
                # Along a separating direction the loss fades like exp(-t): steps stay near 1, the decrement vanishes.
                raise ChaotianError("SEPARABLE", "some coefficients grow without limit")
            if largest <= SMALLEST_STEP or (decrement <= real(SMALLEST_DECREMENT) and largest <= SMALL_STEP):
                self.errors = self._standard_errors(lower)
                self.beta = [b + s for b, s in zip(self.beta, step, strict=True)]
                self.base, self.step, self.converged = None, [], True
                return
        self._check_rounds()
        # Far from the optimum the quadratic model misleads: coefficients at most double, once they are above 16.
        limit = max(LARGEST_STEP, *(abs(b) for b in self.beta))
        if largest > limit:
            step = [x * limit // largest for x in step]
        if limit > LARGEST_BETA:
            raise ChaotianError("NOT_CONVERGED", "the coefficients leave every reasonable range")
        self.base, self.base_loss, self.step, self.halvings = list(self.beta), loss, step, 0
        self.beta = [b + s for b, s in zip(self.beta, step, strict=True)]

    def _objective(self, loss: int, beta: Sequence[int]) -> Fraction:
        squares = sum(value * value for value in beta[1:])
        return Fraction(loss, GRID) + Fraction(self.penalty) / 2 * Fraction(squares, GRID * GRID)

    def _check_rounds(self) -> None:
        if len(self.history) >= self.max_rounds:
            raise ChaotianError("NOT_CONVERGED", f"not converged after {self.max_rounds} rounds")

    def _singular(self) -> ChaotianError:
        if self.penalty == 0.0 and self.history:
            return ChaotianError("SEPARABLE", "some coefficients grow until the Hessian loses its rank")
        return ChaotianError("SINGULAR", "the Hessian has no inverse: columns depend on each other linearly")

    @staticmethod
    def _standard_errors(lower: list[list[Any]]) -> list[str]:
        """Return sqrt(diag((H + λ·I)⁻¹)), the intercept unpenalised: the square of row norms of L⁻¹ by columns."""
        size = len(lower)
        out = []
        for i in range(size):
            unit = [gmpy2.mpfr(1 if k == i else 0) for k in range(size)]
            out.append(float(gmpy2.sqrt(solve(lower, unit)[i])).hex())
        return out

    def document(self) -> dict[str, Any]:
        """Return the state as JSON (integers as decimal text)."""
        return {
            "beta": _texts(self.beta),
            "base": None if self.base is None else _texts(self.base),
            "base_loss": str(self.base_loss),
            "step": _texts(self.step),
            "halvings": self.halvings,
            "history": [entry.document() for entry in self.history],
            "errors": list(self.errors),
            "converged": self.converged,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], penalty: float, max_rounds: int) -> Newton:
        """Return the state of `document`."""
        base = document["base"]
        return cls(
            beta=[int(x) for x in document["beta"]],
            penalty=penalty,
            max_rounds=max_rounds,
            base=None if base is None else [int(x) for x in base],
            base_loss=int(document["base_loss"]),
            step=[int(x) for x in document["step"]],
            halvings=int(document["halvings"]),
            history=[RoundReport.from_document(entry) for entry in document["history"]],
            errors=[str(x) for x in document["errors"]],
            converged=bool(document["converged"]),
        )


def _texts(values: Sequence[int]) -> list[str]:
    return [str(value) for value in values]


def _half(value: int, times: int) -> int:
    """Return value / 2^times rounded towards zero, alike for both signs."""
    return value >> times if value >= 0 else -(-value >> times)
