"""Shamir's secret sharing (Shamir 1979) of 32-byte secrets over the prime field of 2^521 - 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmpy2 import f_mod, invert, mpz

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy

PRIME = mpz(2) ** 521 - 1
SHARE_BYTES = 66
SECRET_BYTES = 32


def split(secret: bytes, threshold: int, count: int, entropy: Entropy) -> list[bytes]:
    """Return `count` shares of 66 bytes for the points 1 … count; any `threshold` of them give `secret` back.

    Raises:
        ValueError: a secret of another length, or 1 ≤ threshold ≤ count violated (a programming error).
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        raise ValueError("split: expected 32 bytes and 1 <= threshold <= count")
    # 80 bytes reduced modulo the prime: the bias is below 2^-118.
    polynomial = [mpz(int.from_bytes(secret, "big"))]
    polynomial += [f_mod(mpz(int.from_bytes(entropy.bytes(80), "big")), PRIME) for _ in range(threshold - 1)]
    shares = []
    for point in range(1, count + 1):
        value = mpz(0)
        for coefficient in reversed(polynomial):
            value = f_mod(value * point + coefficient, PRIME)
        shares.append(int(value).to_bytes(SHARE_BYTES, "big"))
    return shares


class Combiner:
    """Rebuilds many secrets from the shares of the same points.

    Args:
        points: the points (1 …) whose shares are at hand; exactly as many as the threshold.
    """

    def __init__(self, points: Sequence[int]) -> None:
        if len(set(points)) != len(points) or any(point < 1 for point in points):
            raise ValueError("Combiner: points are distinct and at least 1")
        self.points = tuple(points)
        self._weights = []
        for point in points:
            numerator = denominator = mpz(1)
            for other in points:
                if other != point:
                    numerator = f_mod(numerator * other, PRIME)
                    denominator = f_mod(denominator * (other - point), PRIME)
            self._weights.append(f_mod(numerator * invert(denominator, PRIME), PRIME))

    def combine(self, shares: Mapping[int, bytes]) -> bytes:
        """Return the secret of `shares` (share by point).

        Raises:
            ChaotianError: SHARE_INVALID where the shares do not belong together.
        """
        total = mpz(0)
        for point, weight in zip(self.points, self._weights, strict=True):
            value = mpz(int.from_bytes(shares[point], "big"))
            if value >= PRIME or len(shares[point]) != SHARE_BYTES:  # one share, one encoding
                raise ChaotianError("SHARE_INVALID", "a share is not an element of the field")
            total += weight * value
        try:
            return int(f_mod(total, PRIME)).to_bytes(SECRET_BYTES, "big")
        except OverflowError:
            raise ChaotianError("SHARE_INVALID", "the shares do not give a secret of 32 bytes") from None
