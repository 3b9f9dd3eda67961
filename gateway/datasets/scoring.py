"""Reading a file for scoring: the columns come from the model, everything else in the file is passed over."""

from __future__ import annotations

from pathlib import Path

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins
from federation.learning.coding import Category
from federation.learning.frame import Frame
from federation.learning.model import Model
from gateway.datasets.schema import ColumnSchema, Schema
from gateway.datasets.sources import header_of
from gateway.datasets.values import read_frame


def frame_for(model: Model, source: Path, id_column: str = "") -> Frame:
    """Return the columns that `model` needs from a file, rows in the file's order.

    Args:
        id_column: column of the identifier; the file's first one where empty.

    Raises:
        ChaotianError: DATA_* naming file, row and column.
    """
    identifier = id_column or header_of(source)[0]
    if identifier in model.columns:
        raise ChaotianError(
            "DATA_COLUMN",
            f"{source.name}: {identifier} is a column of the model and cannot be the identifier",
            hint="Name the identifier with --id.",
        )
    columns = tuple(
        ColumnSchema(part.name, "category", levels=part.levels)
        if isinstance(part, Category) or (isinstance(part, ColumnBins) and part.type == "category")
        else ColumnSchema(part.name, "numeric")
        for part in model.coding.parts
    )
    return read_frame(source, Schema(identifier, "", "", columns, ignore_other=True))
