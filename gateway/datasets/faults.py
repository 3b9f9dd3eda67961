"""What is wrong with a source: faults by row and column in plain words, never with the value itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from federation.errors import ChaotianError

# (share done from 0 to 1, what is being done)
Progress = Callable[[float, str], None]


def no_progress(_share: float, _what: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault in one column.

    Args:
        code: of the catalogue.
        row: the first row that has it; 0 where it is not about a row.
        column: name of the column.
        what: in words.
        count: number of rows that have it.
        twin: the other row, for two rows with the same key.
    """

    code: str
    row: int
    column: str
    what: str
    count: int = 1
    twin: int = 0

    def text(self, source: str) -> str:
        """Return the fault as one line that begins with the name of the source."""
        rows = f"rows {self.row} and {self.twin}" if self.twin else f"row {self.row}"
        more = f" (and {self.count - 1} more rows)" if self.count > 1 else ""
        return f"{source}, {rows}, column {self.column}: {self.what}{more}"

    def document(self) -> dict[str, object]:
        """Return the fault as JSON."""
        twin = {"twin": self.twin} if self.twin else {}
        return {
            "code": self.code,
            "row": self.row,
            "column": self.column,
            "what": self.what,
            "count": self.count,
            **twin,
        }


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    Args:
        source: name of the file or table.
        rows: number of rows, the header not counted.
        faults: in the order of the columns; none where the source fits its schema.
        warnings: what is allowed by the schema and still looks like a slip.
    """

    source: str
    rows: int
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()

    def refuse(self) -> None:
        """Raise the first fault as an error; return where there is none.

        Raises:
            ChaotianError: with the code of the fault.
        """
        if not self.faults:
            return
        first, others = self.faults[0], len(self.faults) - 1
        hint = f"There are {others} more kinds of fault: see them all with `chaotian data check`." if others else ""
        raise ChaotianError(first.code, first.text(self.source), hint=hint)
