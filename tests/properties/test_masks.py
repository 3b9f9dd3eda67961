"""Masks cancel, are streams of AES-256-CTR, and every key is bound to what it is for."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.primitives.masks import BLOCK_BYTES, add_streams, derive, ring_dtype

keys = st.binary(min_size=32, max_size=32)
rings = st.sampled_from([32, 64])


def vector(ring, size, seed=0):
    return np.random.default_rng(seed).integers(0, 2**ring, size, dtype=np.uint64).astype(ring_dtype(ring))


@given(rings, st.integers(1, 3), st.lists(keys, min_size=1, max_size=4), st.data())
@settings(max_examples=40)
def test_what_is_added_and_taken_off_is_gone(ring, blocks, streams, data):
    per_block = BLOCK_BYTES * 8 // ring
    size = data.draw(st.sampled_from([1, 3, per_block - 1, per_block, per_block + 1, blocks * per_block + 5]))
    before = vector(ring, size)
    after = before.copy()
    add_streams(after, [(key, 1) for key in streams])
    assert not (after == before).all() or size < 2
    add_streams(after, [(key, -1) for key in reversed(streams)])
    assert (after == before).all()


@given(rings, st.integers(3, 9), st.integers(1, 50))
@settings(max_examples=30)
def test_pairwise_masks_cancel_over_the_roster(ring, members, size):
    total = np.zeros(size, dtype=ring_dtype(ring))
    for me in range(members):
        mine = np.zeros(size, dtype=ring_dtype(ring))
        pairs = [(min(me, other), max(me, other)) for other in range(members) if other != me]
        add_streams(mine, [(bytes([low, high]) * 16, 1 if me == low else -1) for low, high in pairs])
        assert mine.any()
        total += mine
    assert not total.any()


@pytest.mark.parametrize("ring", [32, 64])
def test_the_stream_is_aes_256_ctr_from_zero(ring):
    key, size = bytes(range(32)), BLOCK_BYTES // 4 + 11
    ours = np.zeros(size, dtype=ring_dtype(ring))
    add_streams(ours, [(key, 1)])
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    assert ours.tobytes() == encryptor.update(bytes(ours.nbytes))


def test_the_stream_of_a_known_key_and_counter_block():
    """FIPS 197, appendix C.3: the first block is AES-256 of the zero counter under that key."""
    ours = np.zeros(2, dtype="<u8")
    add_streams(ours, [(bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"), 1)])
    assert ours.tobytes().hex() == "f29000b62a499fd0a9f39a6add2e7780"


@given(st.tuples(keys, keys, st.text(max_size=6), st.lists(st.integers(0, 999), max_size=3)),
       st.tuples(keys, keys, st.text(max_size=6), st.lists(st.integers(0, 999), max_size=3)))  # fmt: skip
def test_keys_differ_where_anything_they_are_bound_to_differs(one, other):
    assert (derive(*one) == derive(*other)) == (one == other)


def test_a_masked_constant_looks_uniform():
    """A smoke test, not a proof: bytes of a masked zero vector spread evenly (chi-squared, 255 degrees)."""
    masked = np.zeros(1 << 15, dtype="<u8")
    add_streams(masked, [(bytes(31) + b"\x07", 1)])
    counts = np.bincount(np.frombuffer(masked.tobytes(), dtype=np.uint8), minlength=256)
    expected = masked.nbytes / 256
    assert 170 < ((counts - expected) ** 2 / expected).sum() < 350
    flat = np.bincount(np.zeros(1000, dtype=np.uint8), minlength=256)  # control
    assert ((flat - 1000 / 256) ** 2 / (1000 / 256)).sum() > 350
