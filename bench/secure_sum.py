"""`make bench NAME=secure-sum`: our secure sum against Flower's SecAgg+, Paillier and the plain sum, in one run.

All sides get the same vectors and take turns, so that what else the machine does touches all alike. Figures are CPU
seconds of everybody together (members and coordinator), all in this process: no network and no disk on any side.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import secagg_peer
from bench.report import case
from federation.errors import ChaotianError
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum.terms import threshold_for
from gateway.lab.summing import SumResult, SumSettings, run_sum

MEMBERS, LENGTH, RUNS = 10, 1_000_000, 7
PHE_VALUES, PHE_BITS = 100, 2048
PEER = "Flower 1.41 SecAgg+"
OURS = {  # by short name: ring, result_to, members lost right after their masked input
    "64": (64, "platform", 0),
    "32": (32, "platform", 0),
    "64-members": (64, "members", 0),
    "32-members": (32, "members", 0),
    "64-lost": (64, "platform", 1),
}


def vectors() -> list[NDArray[np.float64]]:
    """Return the members' vectors: float64 within ±1."""
    random = np.random.default_rng(20)
    return [random.uniform(-1.0, 1.0, LENGTH) for _ in range(MEMBERS)]


def ours(given: list[NDArray[np.float64]], ring: int, result_to: str, lost: int) -> SumResult:
    """Run our side once; a total that is not the plain sum is an error, not a figure."""
    settings = SumSettings(members=MEMBERS, length=LENGTH, ring=ring, result_to=result_to, lost=lost)
    result = run_sum(settings, entropy=SystemEntropy(), vectors=dict(zip(settings.names, given, strict=True)))
    if not result.equal:
        raise ChaotianError("INTERNAL", "our total is not the plain sum of the members' values")
    return result


def theirs(given: list[NDArray[np.float64]], mean: NDArray[np.float64]) -> secagg_peer.PeerRun:
    """Run the peer once and check its mean to within what its own quantisation allows."""
    result = secagg_peer.run(given, threshold=threshold_for(MEMBERS))
    if np.abs(result.mean - mean).max() > 2 * secagg_peer.CLIPPING / secagg_peer.TARGET * 2:
        raise ChaotianError("INTERNAL", "the peer's mean is not the mean of the members' values")
    return result


def plain(given: list[NDArray[np.float64]]) -> float:
    """Return the CPU seconds of adding the vectors up in the clear."""
    start = time.process_time()
    total = given[0].copy()
    for vector in given[1:]:
        total += vector
    return time.process_time() - start


def paillier(given: list[NDArray[np.float64]]) -> float:
    """Return the CPU seconds of `phe` for the whole job: the first values of every vector, scaled linearly."""
    import phe
    from phe import util

    if not util.HAVE_GMP:
        raise ChaotianError("CONFIG", "phe runs without gmpy2: that would not be its best")
    public, private = phe.generate_paillier_keypair(n_length=PHE_BITS)
    heads = [[float(value) for value in vector[:PHE_VALUES]] for vector in given]
    start = time.process_time()
    totals = [public.encrypt(value) for value in heads[0]]
    for head in heads[1:]:
        for position, value in enumerate(head):
            totals[position] = totals[position] + public.encrypt(value)
    opened = [private.decrypt(total) for total in totals]
    seconds = time.process_time() - start
    expected = np.sum(heads, axis=0)
    if np.abs(np.array(opened) - expected).max() > 1e-9:
        raise ChaotianError("INTERNAL", "phe's total is not the sum of the members' values")
    return seconds * LENGTH / PHE_VALUES


def run(out: Path) -> list[dict[str, Any]]:
    """Measure all cases; nothing but the returned figures is written."""
    given = vectors()
    mean = np.mean(given, axis=0)
    seconds: dict[str, list[float]] = {name: [] for name in (*OURS, "peer", "plain")}
    uploaded: dict[str, float] = {}
    for number in range(RUNS + 1):
        for name in seconds:
            gc.collect()
            if name == "peer":
                peer = theirs(given, mean)
                spent, uploaded["peer"] = peer.total, peer.uploaded / (MEMBERS * LENGTH)
            elif name == "plain":
                spent = plain(given)
            else:
                result = ours(given, *OURS[name])
                spent, uploaded[name] = result.total_seconds, result.bytes_per_value
            if number:  # the first turn only warms caches and memory up
                seconds[name].append(spent)
    encrypted = [paillier(given) for _ in range(3)]
    return results(seconds, uploaded, encrypted)


def results(
    seconds: dict[str, list[float]], uploaded: dict[str, float], encrypted: list[float]
) -> list[dict[str, Any]]:
    """Return the cases of what was measured."""
    size, peer = f"{MEMBERS} × {LENGTH:,}", seconds["peer"]
    both = {"unit": "CPU s", "peer_name": PEER}
    same = "all messages signed; the platform reads the total, as with the peer"
    more = "the platform carries a total it cannot read, every member decrypts it: more than the peer gives"
    extra = [lost - whole for lost, whole in zip(seconds["64-lost"], seconds["64"], strict=True)]
    gap = "what protection costs over adding up in the clear; below 1 is slower"
    scaled = f"{PHE_VALUES} values a member encrypted, added and decrypted at {PHE_BITS} bits, scaled linearly"
    return [
        case(f"{size}, 64-bit ring", seconds["64"], peer, target=3, note=same, **both),
        case(f"{size}, 32-bit ring", seconds["32"], peer, target=5, note=same, **both),
        case(
            f"{size}, 64-bit ring, result to members",
            seconds["64-members"],
            peer,
            note=more + "; not re-added",
            **both,
        ),
        case(
            f"{size}, 32-bit ring, result to members",
            seconds["32-members"],
            peer,
            note=more + "; every member adds all inputs up again",
            **both,
        ),
        case(
            f"{size} against Paillier",
            seconds["64"],
            encrypted,
            unit="CPU s",
            peer_name="phe 1.5 with gmpy2",
            target=100_000,
            note=scaled,
        ),
        case(
            f"{size} against the plain sum", seconds["64"], seconds["plain"], unit="CPU s", peer_name="NumPy", note=gap
        ),
        case(
            f"{size}, one member lost after its masked input",
            seconds["64-lost"],
            seconds["64"],
            unit="CPU s",
            peer_name="ours without a loss",
            note=f"a second attempt of the other {MEMBERS - 1}: {float(np.median(extra)):.3f} CPU s more",
        ),
        case(
            "uploaded by a member, 64-bit ring",
            [uploaded["64"]],
            [uploaded["peer"]],
            unit="bytes a value",
            peer_name=PEER,
            ratio=uploaded["peer"] / uploaded["64"],
            note="at most 8.1 wanted; all stages, keys and signatures included; the peer sends 32 bits as int64",
        ),
        case(
            "uploaded by a member, 32-bit ring",
            [uploaded["32"]],
            [uploaded["peer"]],
            unit="bytes a value",
            peer_name=PEER,
            note="all stages, keys and signatures included",
        ),
    ]
