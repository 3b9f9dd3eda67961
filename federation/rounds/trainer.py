"""A member's installed `ClientApp` over its own rows: what it is given, and what of its answer is taken.

The app sees Flower's messages and context and nothing of the secure sum. Its rows are in `context.state`; config
comes from the job that the member accepted, never from the wire.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import Arrays
from federation.learning.frame import Feature, Frame
from federation.rounds.flower import (
    EVALUATE,
    TRAIN,
    Array,
    ArrayRecord,
    ClientApp,
    ConfigRecord,
    Context,
    Message,
    RecordDict,
    app_context,
    app_message,
    node_number,
    read_mean,
)

ROWS, COLUMNS = "rows", "columns"  # records of context.state
LABEL = "label"


def rows_record(frame: Frame, features: tuple[Feature, ...], label: str) -> RecordDict:
    """Return a member's rows as the state of its app's context.

    Record `rows` has an array for each feature and `label`: a number as float64 (NaN where missing), a category as
    the float64 index of its level (NaN where missing or not declared); record `columns` has the names of the features
    in order, their number of levels (0: a number), and the name of the label.

    Raises:
        ChaotianError: DATA_COLUMN, DATA_TYPE.
    """
    arrays = {f"x.{feature.name}": Array(_column(frame, feature)) for feature in features}
    arrays[LABEL] = Array(frame.label(label))
    levels = [len(feature.levels) for feature in features]
    names = ConfigRecord({"features": [feature.name for feature in features], "levels": levels, "label": label})
    return RecordDict({ROWS: ArrayRecord(arrays), COLUMNS: names})


def _column(frame: Frame, feature: Feature) -> NDArray[np.float64]:
    if feature.name not in frame.columns:
        raise ChaotianError("DATA_COLUMN", f"column {feature.name} is not in the data")
    values = np.asarray(frame.columns[feature.name])
    if feature.type == "category":
        index = {level: float(position) for position, level in enumerate(feature.levels)}
        return np.array([index.get(str(value), np.nan) for value in values.tolist()])
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise ChaotianError("DATA_TYPE", f"column {feature.name} is used as numeric but holds other values") from None


def local_rows(context: Context) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (features, label) of this member for use within an app: shapes (rows, features) and (rows,)."""
    record, names = context.state[ROWS], context.state[COLUMNS]["features"]
    columns = [record[f"x.{name}"].numpy() for name in names]
    return np.column_stack(columns), record[LABEL].numpy()


class AppTrainer:
    """Runs a member's installed app.

    Args:
        app: of Flower, with `train` and, for figures on the own held-out rows, `evaluate`.
        config: of the job.
        training, held_out: this member's rows; `held_out` may be empty.
    """

    def __init__(
        self,
        app: ClientApp,
        *,
        member: str,
        job: str,
        config: Mapping[str, Any],
        features: tuple[Feature, ...],
        label: str,
        training: Frame,
        held_out: Frame | None = None,
    ) -> None:
        self._app, self._job, self._node, self._config = app, job, node_number(member), dict(config)
        self._context = app_context(job, self._node, config, rows_record(training, features, label))
        self._rows = len(training)
        self._held_out = None
        if held_out is not None and len(held_out):
            self._held_out = app_context(job, self._node, config, rows_record(held_out, features, label))

    @property
    def context(self) -> Context:
        """What the app sees of the training rows, for use at this member alone."""
        return self._context

    def __call__(self, round_: int, arrays: Arrays) -> tuple[Arrays, int]:
        """Train one round; return the arrays and the number of rows, which is never above that of the training rows.

        Raises:
            ChaotianError: APP_FAILED.
        """
        content = self._run(app_message(self._job, self._node, TRAIN, round_, arrays, self._config), self._context)
        try:
            after, examples = read_mean(content)
        except ChaotianError as error:
            raise ChaotianError("APP_FAILED", f"the app's answer to train cannot be used: {error.detail}") from None
        if not 0 < examples <= self._rows:
            raise ChaotianError(
                "APP_FAILED", "the app says that it trained on another number of rows than it was given"
            )
        return after, examples

    def evaluate(self, round_: int, arrays: Arrays) -> dict[str, float]:
        """Return what the app measures on the own held-out rows; empty without such rows. It stays at the member.

        Figures that are no finite number are left out.

        Raises:
            ChaotianError: APP_FAILED.
        """
        if self._held_out is None:
            return {}
        content = self._run(app_message(self._job, self._node, EVALUATE, round_, arrays, self._config), self._held_out)
        return {
            str(name): float(value)
            for record in content.metric_records.values()
            for name, value in record.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }

    def _run(self, message: Message, context: Context) -> RecordDict:
        try:
            reply = self._app(message, context)
        except Exception as error:
            # Foreign code: the text of its exception may quote rows.
            raise ChaotianError("APP_FAILED", f"the app ended with {type(error).__name__}") from None
        if reply.has_error() or not reply.has_content():
            raise ChaotianError("APP_FAILED", "the app answered with an error")
        return reply.content
