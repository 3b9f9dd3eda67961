"""Arrays of a `fedavg` job: the agreed first ones, an update clipped to integers, and the mean back from a total."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.fedavg_spec import WEIGHT, FedAvgSpec, Layer, Units
from federation.primitives import discrete_gaussian
from federation.primitives.encoding import Buffer, canonical_json, digest, pack, parse_canonical_json, unpack_views
from federation.primitives.entropy import Entropy

Arrays = dict[str, NDArray[Any]]
MODEL_TAG = "chaotian/fedavg/arrays/v1"
MAX_HEAD = 1 << 20
_BLOCK = 1 << 15


def initial_arrays(spec: FedAvgSpec) -> Arrays:
    """Return the arrays that everybody starts from: they follow from the job's seed and nothing is sent.

    A `glorot` layer is uniform within ±√(6 / (fan in + fan out)) (Glorot and Bengio, AISTATS 2010): with one axis
    both fans are its length, else they are its last two lengths. Its values come from the AES-256-CTR keystream under
    SHA-256(pack("chaotian/fedavg/initial/v1", [seed, layer])), 32 bits each.
    """
    return {layer.name: _initial(layer, spec) for layer in spec.layers}


def _initial(layer: Layer, spec: FedAvgSpec) -> NDArray[Any]:
    if layer.init == "zeros":
        return np.zeros(layer.shape, dtype=spec.dtype)
    key = digest("chaotian/fedavg/initial/v1", [spec.seed.encode(), layer.name.encode()])
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(4 * layer.size))
    uniform = np.frombuffer(stream, dtype="<u4").astype(np.float64) / float(1 << 32)
    fans = (layer.shape * 2)[-2:] if len(layer.shape) == 1 else layer.shape[-2:]
    limit = math.sqrt(6.0 / sum(fans))
    return ((2.0 * uniform - 1.0) * limit).astype(spec.dtype).reshape(layer.shape)


# --- arrays as bytes ------------------------------------------------------------------------------------------------


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as bytes: names, types and shapes, then the values in little-endian order."""
    head = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    bodies = [_raw(array) for array in arrays.values()]
    return pack(MODEL_TAG, [canonical_json(head), *bodies])


def _raw(array: NDArray[Any]) -> memoryview:
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data


def decode_arrays(data: Buffer, spec: FedAvgSpec) -> Arrays:
    """Return the arrays of `encode_arrays` if they are finite and have the layers of the job; else MALFORMED."""
    head, *bodies = unpack_views(MODEL_TAG, data)
    if len(head) > MAX_HEAD or len(bodies) != len(spec.layers):
        raise ChaotianError("MALFORMED", "expected the arrays of the job's layers")
    try:
        described = parse_canonical_json(bytes(head))
        names = [name for name, _, _ in described]
        out: Arrays = {}
        for layer, (name, kind, shape), body in zip(spec.layers, described, bodies, strict=True):
            if name != layer.name or shape != list(layer.shape) or kind not in ("float32", "float64"):
                raise ValueError
            array = np.frombuffer(body, dtype=np.dtype(kind).newbyteorder("<")).reshape(layer.shape)
            out[name] = array.astype(kind)  # a copy of its own, in native order
    except (ValueError, TypeError, ChaotianError):
        raise ChaotianError("MALFORMED", "expected the arrays of the job's layers") from None
    if names != [layer.name for layer in spec.layers] or not all(np.isfinite(array).all() for array in out.values()):
        raise ChaotianError("MALFORMED", "expected finite arrays of the job's layers")
    return out


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return SHA-256 of `encode_arrays`: 32 bytes."""
    return hashlib.sha256(encode_arrays(arrays)).digest()


def check_arrays(arrays: Mapping[str, NDArray[Any]], spec: FedAvgSpec) -> Arrays:
    """Return arrays in the order of the layers, if they are of the job; MALFORMED or NOT_FINITE else."""
    if set(arrays) != {layer.name for layer in spec.layers}:
        raise ChaotianError("MALFORMED", "the arrays are not named as the job's layers")
    out: Arrays = {}
    for layer in spec.layers:
        array = np.asarray(arrays[layer.name])
        if array.shape != layer.shape or array.dtype.name not in ("float32", "float64"):
            raise ChaotianError("MALFORMED", f"layer {layer.name} has another shape or type than the job says")
        if not np.isfinite(array).all():
            raise ChaotianError("NOT_FINITE", f"layer {layer.name} holds a value that is not a finite number")
        out[layer.name] = array
    return out


# --- one member's part ----------------------------------------------------------------------------------------------


def contribution(
    spec: FedAvgSpec,
    units: Units,
    before: Mapping[str, NDArray[Any]],
    after: Mapping[str, NDArray[Any]],
    rows: int,
    entropy: Entropy,
) -> dict[str, NDArray[Any]]:
    """Return what a member sends: clipped, weighted, in whole units, with its share of noise.

    For layer l with update u = after - before and weight w of at most W:

        x = trunc( clip units · w/W · u · min(1/clip_l, 1/|u|) ) + discrete Gaussian.

    Truncation towards zero only shortens the vector; its squared norm is checked in integers, so that no rounding can
    lift it above the bound on which the accountant relies.

    Args:
        rows: training rows of this member, at least 1.
        entropy: of the noise.

    Raises:
        ChaotianError: NOT_FINITE naming the layer.
    """
    weight = min(rows, spec.largest_weight)
    out: dict[str, NDArray[Any]] = {}
    for layer in spec.layers:
        new, old = after[layer.name].reshape(-1), before[layer.name].reshape(-1)
        norm = _norm(new, old)
        if not math.isfinite(norm):
            raise ChaotianError("NOT_FINITE", f"the update of layer {layer.name} is not a finite number")
        factor = units.clip * (weight / spec.largest_weight) / max(norm, layer.clip)
        whole = np.empty(layer.size, dtype=np.int64 if units.share_bits is not None else np.int32)
        while _truncate(new, old, factor, whole) > units.clip**2:
            factor *= 1.0 - 2.0**-40
        if units.share_bits is not None:
            np.add(whole, discrete_gaussian.sample(units.share_variance, layer.size, entropy), out=whole)
        out[layer.name] = whole
    out[WEIGHT] = np.array([weight])
    return out


def _blocks(new: NDArray[Any], old: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield position and differences of one block after the other: they stay in cache, and one buffer is enough."""
    buffer = np.empty(min(_BLOCK, new.size))
    for at in range(0, new.size, _BLOCK):
        here = new[at : at + _BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):
            yield at, np.subtract(here, old[at : at + _BLOCK], out=buffer[: here.size], dtype=np.float64)


def _norm(new: NDArray[Any], old: NDArray[Any]) -> float:
    """Return the L2 norm of the difference, also where squares would leave the range of float64.

    Not a finite number where a value is none.
    """
    squared = math.fsum(_squares(update) for _, update in _blocks(new, old))
    if 1e-280 < squared < 1e280:
        return math.sqrt(squared)
    largest = max((float(np.abs(update).max()) for _, update in _blocks(new, old)), default=0.0)
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(math.fsum(_squares(update / largest) for _, update in _blocks(new, old)))


def _squares(values: NDArray[np.float64]) -> float:
    # Not by BLAS, whose threads fight over cores that others need.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.square(values).sum())


def _truncate(new: NDArray[Any], old: NDArray[Any], factor: float, whole: NDArray[Any]) -> int:
    """Fill `whole` with the differences times `factor`, cut off towards zero; return its exact squared norm.

    The norm is at most about 2^30, so that a block's squares fit into 64 bits.
    """
    squared = 0
    for at, update in _blocks(new, old):
        update *= factor
        part = update.astype(np.int64)  # towards zero
        whole[at : at + _BLOCK] = part
        squared += int(np.dot(part, part))
    return squared


# --- what a total means -----------------------------------------------------------------------------------------------


def mean_of(
    spec: FedAvgSpec, units: Units, before: Mapping[str, NDArray[Any]], totals: Mapping[str, NDArray[Any]]
) -> tuple[Arrays, int]:
    """Return the mean of the members' arrays that a total stands for, and the summed weight.

    Layer l of the mean is before + total · clip_l / clip units · W / summed weight, in float64, each operation rounded
    once, so that everybody gets the same bits; then in the type of `before`.

    Args:
        totals: by field name, whole units.
    """
    weight = int(totals[WEIGHT][0])
    if weight < 1:
        raise ChaotianError("MALFORMED", "a round of a fedavg job has a weight of at least 1")
    out: Arrays = {}
    for layer in spec.layers:
        step = (layer.clip / units.clip) * (spec.largest_weight / weight)
        array: NDArray[Any] = before[layer.name].reshape(-1)
        total = totals[layer.name]
        mean = np.empty_like(array)
        buffer = np.empty(min(_BLOCK, layer.size))
        for at in range(0, layer.size, _BLOCK):
            here = array[at : at + _BLOCK]
            moved = np.multiply(total[at : at + _BLOCK], step, out=buffer[: here.size], dtype=np.float64)
            mean[at : at + _BLOCK] = np.add(moved, here, out=moved)
        out[layer.name] = mean.reshape(layer.shape)
    return out, weight
