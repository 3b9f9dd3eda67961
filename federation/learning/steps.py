"""What jobs of several operations have in common: one phase after the other, one derived state, floors after a loss."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, parse_canonical_json
from federation.secure_sum.program import Contribution
from federation.secure_sum.terms import Field, Layout

STATE_LIMIT = 8 << 20
FLOORS_LIMIT = 192 << 10
HISTOGRAM_BYTES = 32 << 20  # a round's transcript of histograms stays well below what members add up again

HISTOGRAM = "columns.histogram"

Totals = Mapping[str, list[int]]


class Steps(ABC):
    """A `Program` whose operations are `<kind>.<phase>`; it ends in the phase `done`.

    Subclasses give the fields of each phase, the own values, and what follows from the totals. What they keep in
    `_facts` is equal at all members and is all that the next step depends on.

    Args:
        parameters: everything all members agreed on, as JSON; its hash stands in the state.
        min_rows: floor of every published cell.
        members: largest roster the totals must hold.
    """

    kind: ClassVar[str]
    phases: ClassVar[tuple[str, ...]]

    def __init__(self, parameters: Any, min_rows: int, members: int) -> None:
        self._parameters_hash = hashlib.sha256(canonical_json([self.kind, parameters, min_rows])).hexdigest()
        self._floor, self._members = min_rows, members
        self._phase, self._round = self.phases[0], 0

    # --- the port to the secure sum -----------------------------------------------------------------------------

    @property
    def operation(self) -> str:
        """Operation kind of the next round; of the last one once done.

        Histograms of columns are the same release whatever job asks for them, and so have one name in the ledger.
        """
        phase = self.phases[-1] if self._phase == "done" else self._phase
        return HISTOGRAM if phase == "histogram" else f"{self.kind}.{phase}"

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the dataset that enter the next round's vector."""

    def done(self) -> bool:
        """Whether no further round is needed."""
        return self._phase == "done"

    def layout(self) -> Layout:
        """Return the fields of the next round; their lengths are all that the platform learns of it."""
        return Layout(64, tuple(self._fields()), self._members)

    @abstractmethod
    def local(self) -> Mapping[str, Contribution]:
        """Return the own values of the next round. They are private: the secure sum masks them."""

    def advance(self, totals: Totals) -> None:
        """Derive the next state from a round's pooled totals.

        Raises:
            ChaotianError: where the job cannot go on; the same at every member, as all see the same totals.
        """
        if self.done():
            raise ChaotianError("INTERNAL", "a job that is done takes no further totals")
        expected = {field.name: field.length for field in self._fields()}
        if {name: len(totals[name]) for name in totals} != expected:
            raise ChaotianError("MALFORMED", "the totals do not have the fields of this round")
        self._take(totals)
        self._round += 1

    def state(self) -> bytes:
        """Return the derived state: canonical JSON, equal bit for bit at all members."""
        head = {"v": 1, "parameters": self._parameters_hash, "phase": self._phase, "round": self._round}
        return canonical_json({**head, "facts": self._facts()})

    def restore(self, state: bytes) -> None:
        """Take up a state again, as `state()` of this job gave it.

        Raises:
            ChaotianError: BAD_DOCUMENT, or STATE_MISMATCH where it belongs to other parameters.
        """
        document = parse_canonical_json(state, limit=STATE_LIMIT)
        try:
            if document["v"] != 1 or document["phase"] not in (*self.phases, "done"):
                raise ValueError
            if document["parameters"] != self._parameters_hash:
                raise ChaotianError("STATE_MISMATCH", "the saved state belongs to a job with other parameters")
            if type(document["round"]) is not int or document["round"] < 0:
                raise ValueError
            self._load(document["facts"])
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            raise ChaotianError("BAD_DOCUMENT", "the saved state of the job cannot be read") from None
        self._phase, self._round = document["phase"], document["round"]

    # --- floors after a loss ------------------------------------------------------------------------------------

    def floors(self) -> bytes:
        """Return, for the peers, the own rows in whole multiples of `min_rows`, and which cells hold as many.

        One character a cell, 1 or 0, in the order all members derive from the state.
        """
        cells = "".join("1" if held else "0" for held in self._own_cells())
        return canonical_json({"rows": self._own_rows() // self._floor, "cells": cells})

    def check_floors(self, floors: Mapping[str, bytes]) -> None:
        """Check that what was fixed before the loss still stands on enough rows of the members of `floors` alone.

        Raises:
            ChaotianError: FLOOR_LOST; MALFORMED, naming the member, where an answer has not the agreed form.
        """
        names = self._cell_names()
        rows, affirmed = 0, bytearray(len(names))
        for member, data in floors.items():
            try:
                document = parse_canonical_json(data, limit=FLOORS_LIMIT)
                cells, count = document["cells"], document["rows"]
                if set(document) != {"rows", "cells"} or type(count) is not int or count < 0:
                    raise ValueError
                if type(cells) is not str or len(cells) != len(names) or set(cells) - {"0", "1"}:
                    raise ValueError
            except (TypeError, KeyError, ValueError, ChaotianError):
                raise ChaotianError("MALFORMED", "an answer about floors is not as agreed", member=member) from None
            rows += count * self._floor
            for place, cell in enumerate(cells):
                affirmed[place] |= cell == "1"
        self._check_loss()
        needed = self._rows_needed()
        if rows < needed:
            raise ChaotianError("FLOOR_LOST", f"the members left affirm {rows} rows, {needed} are needed")
        for name, held in zip(names, affirmed, strict=True):
            if not held:
                raise ChaotianError("FLOOR_LOST", f"no member left affirms {self._floor} rows by itself for: {name}")

    # --- what a job fills in ------------------------------------------------------------------------------------

    @abstractmethod
    def _fields(self) -> list[Field]:
        """Return the fields of the phase at hand; their bounds depend on nothing private."""

    @abstractmethod
    def _take(self, totals: Totals) -> None:
        """Derive facts and the next phase."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Return what was derived, as JSON: floats in hexadecimal, large integers as text."""

    @abstractmethod
    def _load(self, facts: Mapping[str, Any]) -> None:
        """Take up `_facts`; any of the usual exceptions where they are not as written."""

    def _check_loss(self) -> None:
        """Raise FLOOR_LOST where the job cannot go on after a loss in this phase at all."""
        return

    def _own_rows(self) -> int:
        """Return how many own rows count for the floor of rows."""
        return 0

    def _rows_needed(self) -> int:
        """Return how many rows the members left must affirm together."""
        return 0

    def _cell_names(self) -> Sequence[str]:
        """Return the cells that were fixed before and must still hold `min_rows` rows at one member at least."""
        return ()

    def _own_cells(self) -> Sequence[bool]:
        """Return for each of `_cell_names` whether the own rows affirm it."""
        return ()

    def _progress(self, **more: Any) -> dict[str, Any]:
        return {"phase": self._phase, "rounds": self._round, **more}


def chunks(columns: int, slots: int, members: int) -> int:
    """Return how many columns of `slots` ring elements a round carries, so that all inputs can be added up again."""
    return max(1, min(columns, HISTOGRAM_BYTES // (8 * slots * members)))


def plain(value: Any) -> Any:
    """Return `value` with lists for tuples, as JSON has it."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value
