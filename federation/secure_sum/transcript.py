"""Adding up again: a member checks the platform's total against the signed inputs and the opened seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from federation.errors import ChaotianError
from federation.primitives.encoding import Buffer
from federation.primitives.masks import Vector, add_streams, ring_dtype
from federation.secure_sum.messages import commit, self_stream
from federation.secure_sum.terms import VERIFIED_BYTES, Terms

BLOCK_BYTES = 4 << 20


def as_vector(terms: Terms, data: Buffer) -> Vector:
    """Return a read-only view of `data` as the terms' vector, or raise MALFORMED."""
    if len(data) != terms.layout.byte_length:
        raise ChaotianError("MALFORMED", f"a vector has {len(data)} bytes, expected {terms.layout.byte_length}")
    return np.frombuffer(data, dtype=ring_dtype(terms.layout.ring_bits))


def check_seeds(terms: Terms, seeds: Mapping[str, bytes], commitments: Mapping[str, bytes]) -> None:
    """Check each opened self-mask seed against its owner's commitment; SHARE_INVALID names the owner."""
    for index, name in enumerate(terms.members):
        if len(seeds[name]) != 32 or commit("seed", terms, index, seeds[name]) != commitments[name]:
            raise ChaotianError(
                "SHARE_INVALID", f"the seed opened for {name} is not the one it committed to", member=name
            )


def add_up(terms: Terms, inputs: Mapping[str, Buffer], seeds: Mapping[str, bytes]) -> Vector:
    """Return the sum of all masked inputs without the self-masks: still encrypted by the group streams, if any."""
    vectors = [as_vector(terms, inputs[name]) for name in terms.members]
    total = np.empty(terms.layout.slots, dtype=ring_dtype(terms.layout.ring_bits))
    step = BLOCK_BYTES // total.itemsize
    for start in range(0, total.size, step):
        block = total[start : start + step]
        np.copyto(block, vectors[0][start : start + step])
        for vector in vectors[1:]:
            np.add(block, vector[start : start + step], out=block)
    add_streams(total, [(self_stream(terms, seeds[name], i), -1) for i, name in enumerate(terms.members)])
    return total


def verify(
    terms: Terms,
    reported: Buffer,
    inputs: Mapping[str, Buffer],
    seeds: Mapping[str, bytes],
    *,
    digests: Mapping[str, bytes],
    commitments: Mapping[str, bytes],
) -> Vector:
    """Return the total that follows from the signed inputs, if it is the one reported.

    Args:
        digests: SHA-256 of each masked input, as all members signed them in `consistency`.
        commitments: each member's commitment to its self-mask seed.

    Raises:
        ChaotianError: TRANSCRIPT, SHARE_INVALID, MALFORMED or UNVERIFIABLE.
    """
    if terms.layout.byte_length * len(terms.roster) > VERIFIED_BYTES:
        raise ChaotianError("UNVERIFIABLE", f"a transcript may have at most {VERIFIED_BYTES} bytes")
    for name in terms.members:
        if hashlib.sha256(inputs[name]).digest() != digests[name]:
            raise ChaotianError("TRANSCRIPT", f"the transcript's input of {name} is not the one it signed", member=name)
    check_seeds(terms, seeds, commitments)
    total = add_up(terms, inputs, seeds)
    if not np.array_equal(total, as_vector(terms, reported)):
        raise ChaotianError("TRANSCRIPT", "the reported total is not the sum of the signed inputs")
    return total
