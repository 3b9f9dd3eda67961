"""Shamir's sharing: any t of n give the secret, t - 1 fit every secret."""

from itertools import combinations

import numpy as np
import pytest
from gmpy2 import f_mod, invert, mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ChaotianError
from federation.primitives.entropy import SystemEntropy
from federation.primitives.shamir import PRIME, SHARE_BYTES, Combiner, split
from tests.support.entropy import SeededEntropy

secrets = st.binary(min_size=32, max_size=32)


@given(secrets, st.integers(1, 7), st.integers(0, 3), st.integers(0, 9))
@settings(max_examples=60)
def test_any_t_of_n_give_the_secret(secret, threshold, more, seed):
    count = threshold + more
    shares = split(secret, threshold, count, SeededEntropy(seed))
    assert all(len(share) == SHARE_BYTES for share in shares)
    for points in combinations(range(1, count + 1), threshold):
        assert Combiner(points).combine({point: shares[point - 1] for point in points}) == secret


@given(secrets, secrets, st.integers(2, 6))
@settings(max_examples=40)
def test_fewer_than_t_shares_fit_every_secret(secret, other, threshold):
    """For any other secret there is a last share that makes it: t - 1 shares alone say nothing."""
    shares = split(secret, threshold, threshold, SystemEntropy())
    known = [mpz(int.from_bytes(share, "big")) for share in shares[:-1]]
    points = range(1, threshold + 1)
    # Interpolate through (0, other) and the known shares; evaluate at the last point.
    xs, ys = [0, *points[:-1]], [mpz(int.from_bytes(other, "big")), *known]
    last = mpz(0)
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        weight = mpz(1)
        for j, z in enumerate(xs):
            if i != j:
                weight = f_mod(weight * (threshold - z) * invert(mpz(x - z) % PRIME, PRIME), PRIME)
        last = f_mod(last + y * weight, PRIME)
    forged = dict(zip(points, [*shares[:-1], int(last).to_bytes(SHARE_BYTES, "big")], strict=True))
    assert Combiner(points).combine(forged) == other


def test_one_share_is_spread_the_same_whatever_the_secret():
    """Distribution smoke: the share of point 1, over fresh polynomials, for two secrets that could not differ more."""
    counts = []
    for secret in (bytes(32), b"\xff" * 32):
        tops = [split(secret, 2, 2, SystemEntropy())[0][1] for _ in range(2000)]  # 9-bit top: take its low byte
        counts.append(np.bincount(np.array(tops) >> 4, minlength=16))
    for count in counts:
        assert ((count - 125) ** 2 / 125).sum() < 45  # 15 degrees of freedom; p < 1e-4
    spread = np.bincount(np.array([split(bytes(32), 1, 1, SystemEntropy())[0][1]] * 100) >> 4, minlength=16)
    assert ((spread - 100 / 16) ** 2 / (100 / 16)).sum() > 45  # control: a threshold of one hides nothing


@given(secrets, st.integers(0, 65), st.integers(1, 255))
def test_a_changed_share_does_not_give_the_secret(secret, place, change):
    shares = split(secret, 2, 3, SeededEntropy(1))
    wrong = shares[0][:place] + bytes([shares[0][place] ^ change]) + shares[0][place + 1 :]
    try:
        assert Combiner([1, 2]).combine({1: wrong, 2: shares[1]}) != secret
    except ChaotianError as error:
        assert error.code == "SHARE_INVALID"


def test_a_share_has_one_encoding():
    share = split(bytes(32), 2, 2, SeededEntropy(1))
    for bad in ((int.from_bytes(share[0], "big") + int(PRIME)).to_bytes(SHARE_BYTES, "big"), share[0][1:], b""):
        with pytest.raises(ChaotianError, match="SHARE_INVALID"):
            Combiner([1, 2]).combine({1: bad, 2: share[1]})


@pytest.mark.parametrize("arguments", [(bytes(31), 2, 3), (bytes(32), 0, 3), (bytes(32), 4, 3)])
def test_wrong_use_is_refused(arguments):
    with pytest.raises(ValueError):
        split(*arguments, SeededEntropy(1))
