"""One run of a `fedavg` job at the platform: a stock Flower strategy over the members' means, in a thread.

After every round arrays, the strategy's memory and the released total are kept with the checkpoint, so that a platform
that comes back goes on with the same bits.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import Arrays, decode_arrays, encode_arrays, initial_arrays
from federation.learning.fedavg_spec import FedAvgSpec
from federation.primitives.encoding import pack, unpack_views
from federation.rounds.flower import Context, Grid, ServerApp, Strategy
from federation.rounds.means import make_strategy, memory, remember, run_rounds
from federation.rounds.strategy import Phase
from federation.secure_sum.coordinator import RoundOutcome
from gateway.jobs.document import JobDocument
from gateway.transport.mean_grid import MeanGrid
from parties.platform.job_run import JobRun, Position

MODEL_TAG = "chaotian/platform/fedavg/v1"


def trained(document: JobDocument, model: bytes | None) -> bytes:
    """Return the arrays kept with the last checkpoint of a job as an .npz file; STORAGE where they cannot be read."""
    spec: FedAvgSpec = document.plan.spec  # type: ignore[attr-defined]
    try:
        arrays = decode_arrays(unpack_views(MODEL_TAG, model or b"")[2], spec)
    except (ChaotianError, IndexError):
        raise ChaotianError("STORAGE", "the arrays kept with the checkpoint cannot be read") from None
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


class MeanRun(JobRun):
    """One start of a `fedavg` job; arguments as those of `JobRun`."""

    _mean_grid: MeanGrid | None = None
    _strategy: Strategy | None = None
    _outcome: RoundOutcome

    @property
    def spec(self) -> FedAvgSpec:
        """The job's parameters."""
        spec: FedAvgSpec = self.document.plan.spec  # type: ignore[attr-defined]
        return spec

    def _serve(self) -> None:
        """Run the ServerApp; raises the code the job ended with."""
        assert self._run is not None
        spec, first = self.spec, self._run.phase
        self._strategy = make_strategy(spec.strategy, spec.options)
        arrays, total = self._saved(self._strategy)
        grid = self._mean_grid = self._grid = MeanGrid(
            spec=spec,
            members=len(self.document.members),
            rounds=self,
            total=total,
            **self._grid_settings(),
        )

        def main(grid: Grid, context: Context) -> None:
            assert self._strategy is not None
            trained = run_rounds(
                self._strategy,
                grid,
                arrays,
                first=first.round + 1,
                rounds=spec.rounds,
                timeout=self._round_seconds,
                checkpoint=self._after_round,
            )
            self._hand_over(trained)

        self._run_app(ServerApp(), main, grid)

    def _hand_over(self, trained: Arrays) -> None:
        """Give the trained arrays to members that cannot derive them; who is away does without."""
        if self.document.result_to == "platform":
            assert self._mean_grid is not None
            self._mean_grid.place(self.spec.rounds + 1, trained, time.monotonic() + self._round_seconds)

    # --- what the grid asks ------------------------------------------------------------------------------------

    @property
    def resuming(self) -> bool:
        """Whether the next round is one that was in unmask when the platform went down."""
        return self._resume is not None

    def placed(self, answers: Mapping[str, bytes | ChaotianError]) -> None:
        """Go on with the members that stand at the same place.

        Raises:
            ChaotianError: TOO_FEW_MEMBERS, STATE_MISMATCH, or the code the job ended with at the members.
        """
        positions: dict[str, Position] = {}
        for member, answer in answers.items():
            try:
                if isinstance(answer, ChaotianError):
                    raise answer
                positions[member] = Position.decode(answer, member)
            except ChaotianError as error:
                self.note_absent(member, error)
        super().take_positions(positions)

    def take_positions(self, positions: Mapping[str, Position]) -> None:
        """Before the first round of a start only the round counts: some may have its arrays already, some not yet."""
        super().take_positions({name: replace(position, state_hash="") for name, position in positions.items()})

    def closed(self, round_: int, outcome: RoundOutcome) -> None:
        """Take over who is left and what comes next."""
        super().closed(round_, outcome)
        self._outcome = outcome

    # --- checkpoints -------------------------------------------------------------------------------------------

    def _after_round(self, round_: int, arrays: Arrays) -> None:
        assert self._strategy is not None
        assert self._mean_grid is not None
        outcome = self._outcome
        layout = outcome.layout.encode().decode() if outcome.layout is not None else ""
        phase = Phase(round_, outcome.state_hash.hex(), layout, outcome.progress == "done")
        slots = memory(self._strategy)
        head = json.dumps({"slots": sorted(slots)}).encode()
        kept = [head, self._mean_grid.total, encode_arrays(self._ordered(arrays))]
        kept += [encode_arrays(self._ordered(slots[name])) for name in sorted(slots)]
        assert self._position is not None
        self._runs.checkpoint(self.job, phase, self._members, self._position.operation, model=pack(MODEL_TAG, kept))

    def _ordered(self, arrays: Mapping[str, Any]) -> Arrays:
        return {layer.name: arrays[layer.name] for layer in self.spec.layers}

    def _saved(self, strategy: Strategy) -> tuple[Arrays, bytes]:
        """Return the arrays to go on from and the last total; give the strategy its memory back.

        Raises:
            ChaotianError: STORAGE where what was kept cannot be read.
        """
        assert self._run is not None
        if self._run.phase.round == 0:
            return initial_arrays(self.spec), b""
        try:
            if self._run.model is None:
                raise ValueError
            head, total, arrays, *slots = unpack_views(MODEL_TAG, self._run.model)
            names = json.loads(bytes(head))["slots"]
            remember(strategy, {n: decode_arrays(s, self.spec) for n, s in zip(names, slots, strict=True)})
            return decode_arrays(arrays, self.spec), bytes(total)
        except (ChaotianError, ValueError, KeyError, TypeError):
            raise ChaotianError("STORAGE", "the arrays kept with the checkpoint cannot be read") from None
