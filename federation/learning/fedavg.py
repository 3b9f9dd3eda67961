"""The job `fedavg`: rounds of local training, of which only the clipped, weighted sum of updates leaves a member.

Everybody starts from arrays that follow from the job. Where noise is off a member trains only on arrays that it
derived itself from the last released total, by the server step that the job names: a platform that could choose arrays
could choose them so that one member's rows alone move them (Boenisch et al. 2023), and one that could send
different arrays to different members could do so for a sum as well (Pasquini et al. 2022). Where noise is on, arrays
may be the platform's: the loss is bounded for any. In both cases the arrays' hash stands in the derived state, which
must be equal at all members.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import (
    Arrays,
    arrays_digest,
    check_arrays,
    contribution,
    decode_arrays,
    encode_arrays,
    initial_arrays,
    mean_of,
)
from federation.learning.fedavg_spec import FedAvgSpec
from federation.primitives import fixed_point
from federation.primitives.encoding import Buffer, canonical_json, pack, parse_canonical_json, unpack_views
from federation.primitives.entropy import Entropy
from federation.primitives.masks import ring_dtype
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Layout

OPERATION = "fedavg.update"
NOTHING, TOTAL, ARRAYS = "", "total", "arrays"  # what a member needs before a round can begin
CHECKPOINT_TAG = "chaotian/fedavg/checkpoint/v1"


class Trainer(Protocol):
    """The installed app over this member's rows."""

    def __call__(self, round_: int, arrays: Arrays) -> tuple[Mapping[str, NDArray[Any]], int]:
        """Return the arrays after local training, and the number of rows they were trained on.

        Raises:
            ChaotianError: APP_FAILED.
        """
        ...


class Step(Protocol):
    """The server step: from the arrays of a round and the members' mean to the arrays of the next one."""

    def next(self, round_: int, arrays: Arrays, mean: Arrays, weight: int) -> Arrays:
        """Return the next arrays; the same bits everywhere."""
        ...

    def slots(self) -> Mapping[str, Arrays]:
        """Return what the step remembers (momenta), by name."""
        ...

    def restore(self, slots: Mapping[str, Arrays]) -> None:
        """Take up `slots` again."""
        ...


class FedAvg:
    """One member's side of the job; a `Program` of the secure sum.

    Args:
        spec: the parameters all members agreed to.
        train: the installed app.
        step: makes the server step, fresh.
        rows: training rows of this member.
        entropy: source of the noise.
        members: largest roster.

    Raises:
        ChaotianError: MIN_ROWS; BAD_DOCUMENT where noise and members leave too little room in the ring.
    """

    def __init__(
        self,
        spec: FedAvgSpec,
        *,
        train: Trainer,
        step: Callable[[], Step],
        rows: int,
        entropy: Entropy,
        members: int = 32,
    ) -> None:
        if rows < spec.min_rows:
            raise ChaotianError("MIN_ROWS", f"this member has fewer than {spec.min_rows} training rows")
        self.spec, self.units = spec, spec.units(members)
        self._layout = spec.layout(members)
        self._parameters = hashlib.sha256(canonical_json(["fedavg", spec.document(), spec.min_rows])).hexdigest()
        self._train, self._make_step, self._rows = train, step, rows
        self._entropy, self._members = entropy, members
        self._step = step()
        self._round = 1
        self._arrays: Arrays | None = initial_arrays(spec)
        self._digest = arrays_digest(self._arrays)
        self._awaiting = False  # the total of the round before has not been seen
        self._trained = False

    def __repr__(self) -> str:
        return f"FedAvg(round={self._round})"

    # --- the port to the secure sum -------------------------------------------------------------------------

    @property
    def operation(self) -> str:
        """The one operation there is."""
        return OPERATION

    @property
    def columns(self) -> tuple[str, ...]:
        """Label and features: the app may use them all."""
        return self.spec.columns

    def layout(self) -> Layout:
        """Return the vector, the same in every round."""
        return self._layout

    def state(self) -> bytes:
        """Return round, hash of the arrays it starts from, and whether they are still to come."""
        return canonical_json(
            {
                "v": 1,
                "parameters": self._parameters,
                "round": self._round,
                "arrays": self._digest.hex(),
                "awaiting": self._awaiting,
            }
        )

    def done(self) -> bool:
        """Whether all rounds are released; the last arrays may still be to come."""
        return self._round > self.spec.rounds

    def local(self) -> Mapping[str, Contribution]:
        """Train, clip, weigh, add noise: private until it is masked.

        Raises:
            ChaotianError: LOST where the round's arrays are not here; APP_FAILED; NOT_FINITE.
        """
        if self._arrays is None or self._awaiting or self.done():
            raise ChaotianError("LOST", "this member does not hold the arrays of the round")
        self._trained = True
        before = {name: array.copy() for name, array in self._arrays.items()}  # an app may work in place
        after, rows = self._train(self._round, before)
        after = check_arrays(after, self.spec)
        if rows < self.spec.min_rows:
            raise ChaotianError("MIN_ROWS", f"the app trained on fewer than {self.spec.min_rows} rows")
        return contribution(self.spec, self.units, self._arrays, after, rows, self._entropy)

    def advance(self, totals: Mapping[str, list[int]]) -> None:
        """Derive the next arrays from a total; under result_to `platform` there is none, and they are still to come."""
        if not totals:
            self._awaiting = True
        else:
            self._take({name: _array(totals, name) for name in totals})
        self._round += 1
        self._trained = False

    def _take(self, totals: Mapping[str, NDArray[Any]], round_: int | None = None) -> None:
        """Apply the server step to the total of a round."""
        if self._arrays is None:
            raise ChaotianError("LOST", "this member does not hold the arrays of the round")
        mean, weight = mean_of(self.spec, self.units, self._arrays, totals)
        following = self._step.next(self._round if round_ is None else round_, self._arrays, mean, weight)
        self._set(check_arrays(following, self.spec))

    def _set(self, arrays: Arrays) -> None:
        self._arrays, self._digest, self._awaiting = arrays, arrays_digest(arrays), False

    def floors(self) -> bytes:
        """Return the own rows in whole multiples of `min_rows`."""
        return canonical_json({"rows": self._rows // self.spec.min_rows})

    def check_floors(self, floors: Mapping[str, bytes]) -> None:
        """Check that every member that is left has `min_rows` rows.

        Raises:
            ChaotianError: FLOOR_LOST; MALFORMED, naming the member.
        """
        for member, data in floors.items():
            try:
                document = parse_canonical_json(data, limit=1024)
                if set(document) != {"rows"} or type(document["rows"]) is not int:
                    raise ValueError
            except (TypeError, ValueError, ChaotianError):
                raise ChaotianError("MALFORMED", "an answer about floors is not as agreed", member=member) from None
            if document["rows"] < 1:
                raise ChaotianError("FLOOR_LOST", f"a member has fewer than {self.spec.min_rows} rows")

    def restore(self, state: bytes) -> None:
        """Take up a state again. Its arrays follow by `resume` or `offered`; those of the first round are here.

        Raises:
            ChaotianError: BAD_DOCUMENT, or STATE_MISMATCH where it belongs to other parameters.
        """
        document = parse_canonical_json(state)
        try:
            if set(document) != {"v", "parameters", "round", "arrays", "awaiting"} or document["v"] != 1:
                raise ValueError
            if document["parameters"] != self._parameters:
                raise ChaotianError("STATE_MISMATCH", "the saved state belongs to a job with other parameters")
            round_, awaiting, hashed = document["round"], document["awaiting"], bytes.fromhex(document["arrays"])
            if type(round_) is not int or round_ < 1 or type(awaiting) is not bool or len(hashed) != 32:
                raise ValueError
        except (TypeError, KeyError, ValueError):
            raise ChaotianError("BAD_DOCUMENT", "the saved state of the job cannot be read") from None
        first = initial_arrays(self.spec)
        self._arrays = first if arrays_digest(first) == hashed and round_ == 1 else None
        self._round, self._digest, self._awaiting, self._trained = round_, hashed, awaiting, False
        self._step = self._make_step()

    # --- arrays between two rounds ----------------------------------------------------------------------------

    @property
    def round(self) -> int:
        """The next round; one above the last when done."""
        return self._round

    @property
    def awaiting(self) -> bool:
        """Whether what follows from the last total is still to come."""
        return self._awaiting

    @property
    def arrays(self) -> Arrays:
        """The arrays of the next round, or the trained ones when done.

        Raises:
            ChaotianError: JOB_STATE while they are not here.
        """
        if self._arrays is None or self._awaiting:
            raise ChaotianError("JOB_STATE", "this member does not hold the arrays (any more)")
        return self._arrays

    def needs(self, round_: int, hashed: bytes) -> str:
        """Return what this member needs to train on arrays of that hash: `NOTHING`, `TOTAL` or `ARRAYS`.

        Raises:
            ChaotianError: WRONG_ARRAYS where it would never train on them; LOST for another round.
        """
        if round_ != self._round:
            raise ChaotianError("LOST", f"this member stands before round {self._round}")
        if self._awaiting:
            if self.spec.noise is not None:
                return ARRAYS
            if self._arrays is None:
                raise ChaotianError("LOST", "this member does not hold what the total has to be added to")
            return TOTAL
        if hashed == self._digest:
            return NOTHING if self._arrays is not None else ARRAYS
        if self.spec.noise is None:
            raise _chosen()
        return ARRAYS

    def offered(self, round_: int, data: Buffer) -> None:
        """Take arrays from the platform, if they are those this member derived, or if noise is on.

        Raises:
            ChaotianError: WRONG_ARRAYS; MALFORMED; REPLAY once the round has been trained.
        """
        if round_ != self._round:
            raise ChaotianError("LOST", f"this member stands before round {self._round}")
        if self._trained:
            raise ChaotianError("REPLAY", "this round's own values are made already")
        expected = not self._awaiting and hashlib.sha256(data).digest() == self._digest
        if not expected and self.spec.noise is None:
            raise _chosen()
        self._set(decode_arrays(data, self.spec))

    def stated(self, round_: int, data: Buffer) -> None:
        """Take the total of the round before as the platform states it, and derive the arrays of this one.

        Args:
            data: ring elements of the layout, little endian.

        Raises:
            ChaotianError: WRONG_ARRAYS where none is awaited or noise is on; MALFORMED.
        """
        if round_ != self._round:
            raise ChaotianError("LOST", f"this member stands before round {self._round}")
        if not self._awaiting or self.spec.noise is not None:
            raise _chosen()
        if len(data) != self._layout.byte_length:
            raise ChaotianError("MALFORMED", "a total has one ring element a value")
        vector = np.frombuffer(data, dtype=ring_dtype(self._layout.ring_bits))
        self._take(fixed_point.decode_arrays(self._layout, vector), round_ - 1)

    def checkpoint(self) -> bytes:
        """Return arrays and the step's memory, for this member's own disk; empty while there are no arrays."""
        if self._arrays is None:
            return b""
        slots = self._step.slots()
        head = json.dumps({"round": self._round, "awaiting": self._awaiting, "slots": sorted(slots)}).encode()
        return pack(
            CHECKPOINT_TAG, [head, encode_arrays(self._arrays), *(encode_arrays(slots[k]) for k in sorted(slots))]
        )

    def resume(self, data: Buffer) -> bool:
        """Take up a checkpoint after `restore`, if it is of the state restored; return whether it was.

        It may also be of the moment after: arrays that were still to come have come. Peers compare their hash.
        """
        try:
            head, arrays, *slots = unpack_views(CHECKPOINT_TAG, data)
            described = json.loads(bytes(head))
            names = described["slots"]
            came = self._awaiting and described["awaiting"] is False
            fits = came or (described["awaiting"] is self._awaiting and hashlib.sha256(arrays).digest() == self._digest)
            if not fits or described["round"] != self._round or len(names) != len(slots):
                return False
            decoded = decode_arrays(arrays, self.spec)
            if came:
                self._set(decoded)
            self._arrays = decoded
            self._step.restore({name: decode_arrays(slot, self.spec) for name, slot in zip(names, slots, strict=True)})
        except (ChaotianError, ValueError, TypeError, KeyError):
            self._arrays = None
            return False
        return True

    # --- for people -------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, Any]:
        """Return rounds done and, with noise, what they cost."""
        done = self._round - 1
        out: dict[str, Any] = {"rounds": done, "of": self.spec.rounds}
        if self.spec.noise is not None:
            out |= {"epsilon": self.spec.epsilon(self._members, done), "delta": self.spec.noise.delta}
        return out


def _array(totals: Mapping[str, list[int]], name: str) -> NDArray[Any]:
    if isinstance(totals, fixed_point.Totals):
        return totals.array(name)
    return np.array(totals[name], dtype=np.int64)


def _chosen() -> ChaotianError:
    return ChaotianError("WRONG_ARRAYS", "arrays were offered that do not follow from the last released total")
