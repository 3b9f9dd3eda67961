"""Bounds of what a job may tell the app that comes with the node (`federation/rounds/mlp_app.py`).

A member trains in one thread, and Python cannot stop it: what a proposer may ask of a round is bounded before it
begins. Other apps bound their own config; a member has read them before it installed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federation.errors import ChaotianError
from federation.learning.fedavg_spec import FedAvgSpec

APP = "mlp"
# Name -> smallest value, largest, whether whole. A small batch costs as much as a large one, for fewer rows.
NUMBERS: Mapping[str, tuple[float, float, bool]] = {
    "epochs": (1, 100, True),
    "batch": (8, 1 << 20, True),
    "learning-rate": (1e-9, 100.0, False),
    "penalty": (0.0, 1e6, False),
}
# One number, or one for each feature.
COLUMNS: Mapping[str, tuple[float, float]] = {"center": (-1e15, 1e15), "spread": (1e-15, 1e15)}


def check_config(spec: FedAvgSpec) -> None:
    """Check the config of a job of the app `mlp`; that of any other app passes.

    Raises:
        ChaotianError: BAD_DOCUMENT naming the number.
    """
    if spec.app != APP:
        return
    for name, value in spec.config.items():
        if name in NUMBERS:
            low, high, whole = NUMBERS[name]
            if not _is_number(value, low, high) or (whole and type(value) is not int):
                raise _bad(name, f"a {'whole ' if whole else ''}number from {low:,g} to {high:,g}")
        elif name in COLUMNS:
            low, high = COLUMNS[name]
            values = value if isinstance(value, list) else [value]
            counted = not isinstance(value, list) or len(value) == len(spec.features)
            if not counted or not all(_is_number(each, low, high) for each in values):
                raise _bad(name, f"a number from {low:g} to {high:g}, or one for each of {len(spec.features)} features")
        else:
            known = ", ".join((*NUMBERS, *COLUMNS))
            raise _bad(name, f"nothing: the app {APP} has {known}")


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _bad(name: str, expected: str) -> ChaotianError:
    return ChaotianError("BAD_DOCUMENT", f"parameter config.{name} of a fedavg job: expected {expected}")
