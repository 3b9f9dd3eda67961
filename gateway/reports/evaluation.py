"""The plots of an evaluation: calibration and gain by tenths of the rows, the riskiest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.reports.page import figure, section
from gateway.reports.svg import Axis, Line, line_plot

SHARE = tuple(index / 5 for index in range(6))


def evaluation_sections(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the sections `calibration` and `gain` as HTML.

    Args:
        document: of `federation.learning.evaluate.Evaluation`.
    """
    groups = document["groups"]
    return {"calibration": _calibration(groups), "gain": _gain(groups, document["rows"])}


def _calibration(groups: list[Mapping[str, Any]]) -> str:
    points = [(float(group["predicted"]), float(group["rate"])) for group in reversed(groups)]
    top = max(max(point) for point in points)
    axis = Axis.over([0.0, top], "mean probability by the score")
    drawing = line_plot(
        [Line("as predicted", [(0.0, 0.0), (top, top)], "thin"), Line("tenths of the rows", points, "fed", True)],
        axis,
        Axis.over([0.0, top], "share of bad rows"),
        title="Calibration",
        height=360,
    )
    caption = "Each dot is about a tenth of all rows. Above the dashed line, more went bad than the score says."
    return section("Does what is predicted happen?", figure(drawing, caption))


def _gain(groups: list[Mapping[str, Any]], rows: int) -> str:
    points, seen = [(0.0, 0.0)], 0
    for group in groups:
        seen += group["rows"]
        points.append((seen / rows, float(group["gain"])))
    drawing = line_plot(
        [Line("by lot", [(0.0, 0.0), (1.0, 1.0)], "thin"), Line("by the score", points, "fed", True)],
        Axis(0, 1, "share of all rows, the riskiest first", SHARE),
        Axis(0, 1, "share of all bad rows", SHARE),
        title="Gain",
        height=360,
    )
    fifth = float(np.interp(0.2, [at for at, _ in points], [found for _, found in points]))
    caption = f"The riskiest fifth of the rows holds {fifth:.0%} of the bad ones."
    return section("How many bad rows are found first?", figure(drawing, caption))
