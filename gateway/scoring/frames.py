"""From a data frame to the columns of a model; what does not fit is named by row and column, never with the value."""

from __future__ import annotations

import decimal
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.bins import ColumnBins
from federation.learning.coding import Category, Part
from federation.learning.columns import LARGEST
from federation.learning.frame import Frame
from federation.learning.model import Model
from gateway.datasets.faults import Fault, Report

MISSING_LEVEL = "(missing)"  # what the lab calls the level of a missing category under impute=mean


class DataError(ChaotianError, ValueError):
    """A data frame that cannot be scored: a coded error, and a ValueError as scikit-learn's own tools expect it."""


def is_category(part: Part) -> TypeGuard[Category | ColumnBins]:
    """Return whether a column of a model holds text rather than numbers."""
    return isinstance(part, Category) or (isinstance(part, ColumnBins) and part.type == "category")


def may_be_missing(part: Part) -> bool:
    """Return whether a value may be missing: always in bins, else where the model says what it counts as."""
    if isinstance(part, Category):
        return MISSING_LEVEL in part.levels
    return isinstance(part, ColumnBins) or part.impute


def frame_of(model: Model, table: Any, *, name: str = "X") -> Frame:
    """Return the columns that `model` needs of a data frame, checked; identifiers are the places of the rows.

    Args:
        table: a pandas data frame, a mapping of names to values, or an array (rows × columns of the model, in its
            order). Further columns of a data frame are passed over. Numbers stand for a category's text, whole ones
            without a decimal point.
        name: what errors call the table; rows are counted from 0.

    Raises:
        DataError: DATA_COLUMN, DATA_TYPE, DATA_DOMAIN, DATA_MISSING, NOT_FINITE, OVERFLOW.
    """
    import pandas as pd

    parts = model.coding.parts
    if not isinstance(table, pd.DataFrame):
        table = _as_data_frame(table, [part.name for part in parts], name)
    columns, faults = {}, []
    for part in parts:
        found = [at for at, column in enumerate(table.columns) if column == part.name]
        if not found:
            raise DataError(
                "DATA_COLUMN", f"{name}: column {part.name} is missing", hint=_near(part.name, table.columns)
            )
        if len(found) > 1:
            raise DataError("DATA_COLUMN", f"{name}: column {part.name} is there twice")
        values, fault = (_texts if is_category(part) else _numbers)(table.iloc[:, found[0]], part.name)
        columns[part.name] = values
        if fault:
            faults.append(fault)
    frame = Frame(range(len(table)), columns)  # type: ignore[arg-type]  # places: no subject's name enters an error
    if not faults:
        frame, faults = fitted(parts, frame)
    refuse(Report(name, len(frame), tuple(faults)))
    return frame


def fitted(parts: Sequence[Part], frame: Frame, first_row: int = 0) -> tuple[Frame, list[Fault]]:
    """Return the frame as the model takes it, and what in it does not fit: the first row of each kind of fault.

    Args:
        first_row: what the first row is called.
    """
    columns, faults = dict(frame.columns), []

    def look(wrong: NDArray[np.bool_], code: str, column: str, what: str) -> None:
        count = int(wrong.sum())
        if count:
            faults.append(Fault(code, first_row + int(wrong.argmax()), column, what, count))

    for part in parts:
        values = np.asarray(columns[part.name])
        if is_category(part):
            blank = values == ""
            if isinstance(part, Category) and MISSING_LEVEL in part.levels:
                columns[part.name] = values = np.where(blank, MISSING_LEVEL, values)
                blank = np.zeros(len(values), dtype=bool)
            known = set(part.levels)
            strange = ~blank & ~np.fromiter(
                (value in known for value in values.tolist()), dtype=bool, count=len(values)
            )
            look(strange, "DATA_DOMAIN", part.name, "not one of the model's levels")
        else:
            blank = np.isnan(values)
            look(np.isinf(values), "NOT_FINITE", part.name, "an infinite value")
            look(np.isfinite(values) & (np.abs(values) >= LARGEST), "OVERFLOW", part.name, "a value of 2^60 or more")
        if not may_be_missing(part):
            look(blank, "DATA_MISSING", part.name, "a value is missing")
    return Frame(frame.ids, columns), faults


def refuse(report: Report) -> None:
    """Raise the first fault of a report, with the others in the hint; return where there is none.

    Raises:
        DataError: with the code of the fault.
    """
    if not report.faults:
        return
    first, others = report.faults[0], report.faults[1:]
    listed = "; ".join(f"row {fault.row}, column {fault.column}: {fault.what}" for fault in others[:3])
    more = f" and {len(others) - 3} more kinds of fault" if len(others) > 3 else ""
    raise DataError(first.code, first.text(report.source), hint=f"There is also: {listed}{more}." if others else "")


def _as_data_frame(table: Any, names: Sequence[str], name: str) -> Any:
    import pandas as pd

    if isinstance(table, Mapping):
        try:
            return pd.DataFrame(dict(table))
        except ValueError:
            raise DataError("DATA_COLUMN", f"{name}: the columns do not have equally many values") from None
    try:
        array = np.asarray(table)
    except ValueError:
        raise DataError("DATA_TYPE", f"{name} is no table of rows and columns") from None
    if array.ndim != 2:
        raise DataError(
            "DATA_TYPE",
            f"{name} has {array.ndim} dimensions, a table has two. Reshape your data.",
            hint="Give a data frame with the model's columns, or an array of rows × columns.",
        )
    if array.shape[1] != len(names):  # scikit-learn's own words, which its tools look for
        wrong = f"X has {array.shape[1]} features, but FederatedScorecard is expecting {len(names)} features as input"
        raise DataError("DATA_COLUMN", wrong, hint=f"In this order: {', '.join(names[:20])}.")
    warnings.warn(
        "X does not have valid feature names, but FederatedScorecard was fitted with feature names", stacklevel=5
    )
    return pd.DataFrame(array, columns=list(names))


def _near(name: str, header: Any) -> str:
    near = next((str(h) for h in header if str(h).strip().lower() == name.strip().lower()), None)
    return f"There is {near!r}: names must be equal, spaces and capitals included." if near else ""


def _numbers(series: Any, name: str) -> tuple[NDArray[np.float64], Fault | None]:
    """Return a column as float64 (NaN: missing), and its fault where it holds something else than numbers."""
    import pandas as pd

    kind = series.dtype
    words = "not a number: convert text with pandas.to_numeric"
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        words = "a day, not a number: in a job a date counts as days since 1970-01-01, a month as months since 1970-01"
        wrong = series.notna().to_numpy(dtype=bool)
    elif pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind):
        return series.to_numpy(dtype=np.float64, na_value=np.nan), None
    else:
        items = series.astype(object).tolist()
        blank = pd.isna(series).to_numpy(dtype=bool)
        right = (int, float, decimal.Decimal, np.integer, np.floating, np.bool_)
        wrong = np.fromiter((not isinstance(item, right) for item in items), dtype=bool, count=len(items)) & ~blank
        if not wrong.any():
            numbers = (np.nan if empty else float(item) for item, empty in zip(items, blank.tolist(), strict=True))
            try:
                return np.fromiter(numbers, dtype=np.float64, count=len(items)), None
            except OverflowError:
                return np.full(len(items), np.nan), Fault("OVERFLOW", 0, name, "a value too large for a number")
    fault = Fault("DATA_TYPE", int(wrong.argmax()), name, words, int(wrong.sum())) if wrong.any() else None
    return np.full(len(series), np.nan), fault


def _texts(series: Any, name: str) -> tuple[NDArray[Any], Fault | None]:
    """Return a column as text (empty: missing)."""
    import pandas as pd

    blank = pd.isna(series).to_numpy(dtype=bool)
    if pd.api.types.is_float_dtype(series.dtype):  # whole numbers that pandas has made floats for want of one
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = bool((np.isnan(values) | ((values == np.floor(values)) & (np.abs(values) < 2**53))).all())
        items = [str(int(value)) if whole and value == value else str(value) for value in values.tolist()]
    else:
        items = [item if type(item) is str else str(item) for item in series.astype(object).tolist()]
    out = np.array(items, dtype=object)
    out[blank] = ""
    return out, None
