"""Scores as columns, and as a CSV or Parquet file that is there whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from federation.errors import ChaotianError
from federation.learning.points import Scores
from gateway.datasets.checks import text_literal
from gateway.storage.files import sync_directory

_CSV = "FORMAT csv, HEADER, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR ''"
FORMATS = {
    ".csv": _CSV,
    ".gz": f"{_CSV}, COMPRESSION gzip",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
}
_FORMULA = frozenset("=+-@\t\r'")  # how a cell begins that a spreadsheet takes for more than text
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?%?")
REFUSED = (".xlsx", ".xlsm", ".xls", ".duckdb", ".ddb", ".db", ".json")


def columns_of(scores: Scores, reasons: int) -> dict[str, Any]:
    """Return score, probability, points and reasons as columns, in the order of the file.

    Args:
        reasons: how many reasons a row may have; those it does not have are missing.
    """
    import pandas as pd

    out: dict[str, Any] = {"score": scores.log_odds, "probability": scores.probability}
    if scores.points is not None:
        out["points"] = scores.points.astype(np.int64)
    words = list(dict.fromkeys(label for labels in scores.labels for label in labels))
    place = {word: at for at, word in enumerate(words)}
    starts = np.cumsum([0, *(len(labels) for labels in scores.labels)])
    codes = np.array([place[label] for labels in scores.labels for label in labels], dtype=np.int64)
    rows, width = scores.reasons.shape
    for rank in range(reasons):
        column = scores.reasons[:, rank] if rank < width else np.full(rows, -1)
        lost = scores.lost[:, rank] if rank < width else np.zeros(rows)
        bins = scores.bins[:, rank] if rank < width else np.zeros(rows, dtype=np.int64)
        fell = np.where(column < 0, -1, codes[starts[column] % len(codes) + bins])
        out[f"reason_{rank + 1}"] = pd.Categorical.from_codes(column, pd.Index(scores.columns))
        out[f"reason_{rank + 1}_points"] = np.where(column < 0, np.nan, lost)
        out[f"reason_{rank + 1}_bin"] = pd.Categorical.from_codes(fell, pd.Index(words))
    return out


def check_target(path: Path, source: Path | None = None) -> None:
    """Refuse a file that scores cannot be written to, before they are computed.

    Args:
        source: the file the rows come from.

    Raises:
        ChaotianError: USAGE for a format that is not written, and for the source itself; STORAGE for a folder that is
            not there.
    """
    if path.suffix.lower() in REFUSED:
        raise ChaotianError("USAGE", f"{path.name}: scores are written as .csv, .csv.gz or .parquet")
    if not path.parent.is_dir():
        raise ChaotianError("STORAGE", f"{path.parent} is not a folder")
    if path.is_dir():
        raise ChaotianError("STORAGE", f"{path} is a folder")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ChaotianError("USAGE", f"{path} holds the rows to be scored: the scores would take their place")


def _no_formula(word: str) -> str:
    """Return a word of the model as a cell that no spreadsheet runs: whoever proposed its job chose the levels.

    What begins as a formula does, but is no number, gets an apostrophe before it; so does what begins with one, so
    that two words stay two.
    """
    return f"'{word}" if word[:1] in _FORMULA and not _NUMBER.fullmatch(word) else word


def write_scores(path: Path, ids: Sequence[str], scores: Scores, reasons: int, version: str) -> None:
    """Write one line a row: id, score (log-odds of bad), probability, points, reasons, version of the model.

    The suffix says the format: `.parquet`, `.gz` for CSV in gzip, else CSV. Numbers are written with all digits that
    tell them from their neighbours. In CSV a column or level that a spreadsheet would take for a formula has an
    apostrophe before it. An existing file is replaced when the new one is complete.

    Raises:
        ChaotianError: USAGE, STORAGE.
    """
    import duckdb
    import pandas as pd

    check_target(path)
    columns = {"id": pd.array(list(ids), dtype="str"), **columns_of(scores, reasons)}
    columns["model"] = pd.Categorical.from_codes(np.zeros(len(ids), dtype=np.int8), pd.Index([version]))
    form = FORMATS.get(path.suffix.lower(), _CSV)
    if form.startswith(_CSV):
        for name, column in columns.items():
            if isinstance(column, pd.Categorical):
                columns[name] = column.rename_categories(lambda word: _no_formula(str(word)))
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        with duckdb.connect(":memory:", config={"threads": "2"}) as connection:
            connection.register("scores", pd.DataFrame(columns))
            connection.execute(f"COPY scores TO {text_literal(name)} ({form}, USE_TMP_FILE false)")
        with temporary.open("rb+") as file:
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ChaotianError("STORAGE", f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    except duckdb.Error as error:
        reason = "the disk is full" if "no space" in str(error).lower() else "writing failed"
        raise ChaotianError("STORAGE", f"{path} cannot be written: {reason}") from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
