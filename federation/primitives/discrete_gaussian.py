"""The discrete Gaussian over the integers, sampled exactly: comparisons of uniform integers, no floating point.

P(x) is proportional to exp(-x² / (2 σ²)). Canonne, Kamath, Steinke, *The Discrete Gaussian for Differential Privacy*
(NeurIPS 2020), Algorithms 1 to 3: rejection from the discrete Laplace distribution of scale t, where t here is the
power of two next to σ, so that every comparison fits into 64 bits and a block of candidates is decided at once. A
floating point sampler would show values in its low bits (Mironov 2012).

Randomness is an AES-256-CTR keystream (NIST SP 800-38A) under a key of the given `Entropy`, as the masks are.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy

MAX_DEVIATION_BITS = 25  # of σ: larger ones leave no room in the 64-bit comparisons
MANTISSA_BITS = 12
_BLOCK = 1 << 16  # candidates decided together: they stay in the processor's cache
_LARGEST = 1 << 31  # magnitudes from here on are rejected: at least 64 σ, of a probability below 2^-2900

Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]


def representable_variance(least: int) -> int:
    """Return the smallest variance of at least `least` that the sampler takes: m · 4^e with m below 2^12.

    It is larger by less than 0.2 %.

    Raises:
        ChaotianError: OVERFLOW where the deviation would reach 2^25.
    """
    if least < 1:
        raise ChaotianError("OVERFLOW", "a discrete Gaussian needs a variance of at least 1")
    step = 0
    while least > ((1 << MANTISSA_BITS) - 1) << step:
        step += 2
    variance = -(-least >> step) << step
    if variance >= 1 << (2 * MAX_DEVIATION_BITS):
        raise ChaotianError("OVERFLOW", f"a discrete Gaussian has a deviation below 2^{MAX_DEVIATION_BITS}")
    return variance


def sample(variance: int, count: int, entropy: Entropy) -> NDArray[np.int64]:
    """Return `count` independent draws of the discrete Gaussian N_Z(0, variance).

    Args:
        variance: σ², a value of `representable_variance`.
        entropy: gives the 32-byte key of the keystream; equal bytes give equal draws.

    Raises:
        ChaotianError: OVERFLOW for a variance that is not representable.
    """
    if variance < 1 or representable_variance(variance) != variance:
        raise ChaotianError("OVERFLOW", "the variance is none that the sampler takes exactly")
    stream = _Keystream(entropy.bytes(32))
    out = np.empty(count, dtype=np.int64)
    at = 0
    while at < count:
        found = _block(variance, stream)[: count - at]
        out[at : at + found.size] = found
        at += found.size
    return out


class _Keystream:
    """Uniform integers from AES-256-CTR under one key, in the order they are asked for."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> Words:
        """Return `count` uniform 64-bit integers."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8")

    def bits(self, count: int, width: int) -> Words:
        """Return `count` uniform integers below 2^width, width from 0 to 64."""
        return self.words(count) >> np.uint64(64 - width) if width else np.zeros(count, dtype=np.uint64)

    def below(self, count: int, limit: int) -> Words:
        """Return `count` uniform integers below `limit` (at most 2^16), by rejection."""
        if limit & (limit - 1) == 0:
            return self.bits(count, limit.bit_length() - 1)
        least = np.uint64((1 << 64) - (1 << 64) % limit)  # from here on the remainder would not be uniform
        words = self.words(count).copy()
        while (wrong := np.flatnonzero(words >= least)).size:
            words[wrong] = self.words(wrong.size)
        return words % np.uint64(limit)


def _bernoulli(numerator: Words, multiple: int, shift: int, stream: _Keystream) -> Flags:
    """Return draws of Bernoulli(exp(-γ)), γ = numerator / (multiple · 2^shift) below 1: Algorithm 1.

    The first k for which Bernoulli(γ / k) fails is odd with probability exp(-γ).
    """
    out = np.zeros(numerator.size, dtype=np.bool_)
    at, k = np.arange(numerator.size), 1
    while at.size:
        low = stream.bits(at.size, shift)
        uniform = low if multiple == 1 else (stream.below(at.size, multiple) << np.uint64(shift)) | low
        went = uniform < numerator
        if k > 1:
            went &= stream.below(at.size, k) == 0
        if k % 2:
            out[at[~went]] = True
        at, numerator, k = at[went], numerator[went], k + 1
    return out


def _bernoulli_of_one(count: int, stream: _Keystream) -> Flags:
    """Return draws of Bernoulli(exp(-1))."""
    out = np.zeros(count, dtype=np.bool_)
    at, k = np.arange(count), 2  # for γ = 1 the first draw never fails
    while at.size:
        went = stream.below(at.size, k) == 0
        if k % 2:
            out[at[~went]] = True
        at, k = at[went], k + 1
    return out


def _laplace(bits: int, stream: _Keystream) -> NDArray[np.int64]:
    """Return up to `_BLOCK` draws of the discrete Laplace distribution, P(y) ~ exp(-|y| / 2^bits): Algorithm 2."""
    low = stream.bits(_BLOCK, bits)
    low = low[_bernoulli(low, 1, bits, stream)]
    high = np.zeros(low.size, dtype=np.uint64)
    at = np.arange(low.size)
    while at.size:
        at = at[_bernoulli_of_one(at.size, stream)]
        high[at] += np.uint64(1)
    size = (low + (high << np.uint64(bits))).astype(np.int64)
    negative = stream.bits(size.size, 1) == 1
    keep = ~(negative & (size == 0))  # else zero would be counted twice
    size[negative] *= -1
    kept: NDArray[np.int64] = size[keep]
    return kept


def _block(variance: int, stream: _Keystream) -> NDArray[np.int64]:
    """Return the draws among one block of candidates: Algorithm 3 for t = 2^b.

    A candidate y is kept with probability exp(-γ), γ = (|y| - σ²/t)² / (2 σ²). With σ² = m · 4^e this is
    (|y| · 2^f - m · 2^g)² / (m · 2^(1 + 2 (e + f))), where f - g = b - 2 e and one of f and g is 0.
    """
    half = 0
    while variance % 4 ** (half + 1) == 0:
        half += 1
    multiple, bits = variance >> (2 * half), variance.bit_length() // 2
    up, down = max(0, bits - 2 * half), max(0, 2 * half - bits)
    candidates = _laplace(bits, stream)
    candidates = candidates[np.abs(candidates) < _LARGEST >> up]
    distance = (np.abs(candidates) << up) - (multiple << down)
    square = (distance * distance).astype(np.uint64)
    shift = 1 + 2 * (half + up)
    whole, rest = np.divmod(square, np.uint64(multiple << shift))
    kept = _bernoulli(rest, multiple, shift, stream)
    # exp(-γ) = exp(-1)^⌊γ⌋ · exp(-rest): every factor must come up.
    at = np.flatnonzero(kept & (whole > 0))
    left = whole[at]
    while at.size:
        went = _bernoulli_of_one(at.size, stream)
        kept[at[~went]] = False
        at, left = at[went], left[went] - np.uint64(1)
        at, left = at[left > 0], left[left > 0]
    return candidates[kept]
