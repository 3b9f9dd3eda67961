"""Plots as SVG text, drawn here, so that a report is one file that asks nobody for anything.

Colours are CSS classes of `page.py`, so that a plot follows the page's light or dark colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH = 640


@dataclass(frozen=True)
class Axis:
    """One axis: its range, its ticks and its name."""

    low: float
    high: float
    label: str
    ticks: tuple[float, ...] = ()
    power: bool = False  # values are exponents of ten

    @classmethod
    def over(cls, values: Sequence[float], label: str, *, power: bool = False, zero: bool = False) -> Axis:
        """Return an axis that holds `values`, with round ticks."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-12:
            low, high = low - 0.5, high + 0.5
        step = _step((high - low) / 5, whole=power)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = tuple(round(index * step, 12) for index in range(first, last + 1))
        return cls(ticks[0], ticks[-1], label, ticks, power)

    def at(self, value: float, start: float, end: float) -> float:
        """Return where `value` lies between two places on the paper."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)

    def text(self, tick: float) -> str:
        """Return a tick's text."""
        if self.power:
            return f"1e{tick:.0f}"
        return f"{tick:.10g}"


def _step(rough: float, *, whole: bool) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return max(1.0, float(math.ceil(step))) if whole else step


@dataclass(frozen=True)
class Line:
    """A line of a plot; `style` is one of the page's classes."""

    name: str
    points: Points
    style: str
    dots: bool = False


def line_plot(
    lines: Sequence[Line], x: Axis, y: Axis, *, title: str, note: str = "", extra: str = "", height: int = 380
) -> str:
    """Return a plot of lines with a legend. `title` is read out for those who cannot see it."""
    left, right, top, bottom = 58, WIDTH - 16, 14, height - 46
    out = [_open(height, title, note)]
    for tick in y.ticks:
        place = y.at(tick, bottom, top)
        out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{place:.1f}" y2="{place:.1f}"/>')
        out.append(_text(left - 8, place + 4, y.text(tick), "end"))
    for tick in x.ticks:
        place = x.at(tick, left, right)
        out.append(_text(place, bottom + 18, x.text(tick), "middle"))
    out.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    out.append(_text((left + right) / 2, height - 8, x.label, "middle", "name"))
    middle = (top + bottom) / 2
    turn = f'transform="translate(14 {middle}) rotate(-90)"'
    out.append(f'<text class="name" text-anchor="middle" {turn}>{escape(y.label)}</text>')
    for line in lines:
        placed = [
            (x.at(a, left, right), y.at(b, bottom, top))
            for a, b in line.points
            if math.isfinite(a) and math.isfinite(b)
        ]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
        out.append(f'<polyline class="line {line.style}" points="{path}"><title>{escape(line.name)}</title></polyline>')
        if line.dots:
            out += [f'<circle class="dot {line.style}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in placed]
    out.append(extra)
    return "".join([*out, "</svg>", legend([(line.name, line.style) for line in lines])])


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return the names of styles, each once."""
    seen: dict[str, str] = {}
    for name, style in entries:
        seen.setdefault(style, name)
    items = "".join(f'<li><i class="{style}"></i>{escape(name)}</li>' for style, name in seen.items())
    return f'<ul class="legend">{items}</ul>'


@dataclass(frozen=True)
class Mark:
    """A point on a row, with the ends of its interval."""

    value: float
    low: float
    high: float
    style: str
    name: str = ""


@dataclass(frozen=True)
class Row:
    """A named row of a dot plot."""

    name: str
    marks: tuple[Mark, ...]


def dot_plot(rows: Sequence[Row], axis: Axis, *, title: str, note: str = "", zero: bool = False) -> str:
    """Return one line a row, with a dot for each mark and a bar for its interval."""
    deepest = max((len(row.marks) for row in rows), default=1)
    pitch, top = 16 + 11 * deepest, 12
    left = 24 + min(220, 7 * max((len(row.name[:30]) for row in rows), default=0))
    right, bottom = WIDTH - 20, top + pitch * len(rows)
    height = bottom + 46
    out = [_open(height, title, note)]
    for tick in axis.ticks:
        place = axis.at(tick, left, right)
        out.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{bottom}"/>')
        out.append(_text(place, bottom + 18, axis.text(tick), "middle"))
    if zero and axis.low < 0 < axis.high:
        place = axis.at(0.0, left, right)
        out.append(f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{bottom}"/>')
    out.append(_text((left + right) / 2, height - 8, axis.label, "middle", "name"))
    entries = []
    for index, row in enumerate(rows):
        middle = top + pitch * (index + 0.5)
        name = row.name if len(row.name) <= 30 else row.name[:29] + "…"
        out.append(_text(left - 12, middle + 4, name, "end", "row"))
        for order, mark in enumerate(row.marks):
            if not all(map(math.isfinite, (mark.value, mark.low, mark.high))):
                continue
            y = middle + 11 * (order - (len(row.marks) - 1) / 2)
            low, high, value = (axis.at(v, left, right) for v in (mark.low, mark.high, mark.value))
            out.append(f'<line class="reach {mark.style}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            what = f"{row.name}, {mark.name}: {mark.value:.4f} ({mark.low:.4f} to {mark.high:.4f})"
            out.append(f'<circle class="dot {mark.style}" cx="{value:.1f}" cy="{y:.1f}" r="4.5">'
                       f"<title>{escape(what)}</title></circle>")  # fmt: skip
            entries.append((mark.name, mark.style))
    named = [entry for entry in entries if entry[0]]
    return "".join([*out, "</svg>", legend(named) if named else ""])


def _open(height: int, title: str, note: str) -> str:
    words = f"<title>{escape(title)}</title>" + (f"<desc>{escape(note)}</desc>" if note else "")
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">{words}'


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
