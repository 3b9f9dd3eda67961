"""The model card for people: one HTML page, or Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from federation.learning.card import ModelCard
from federation.learning.metrics import Z95
from gateway.reports.page import figure, page, paragraph, section, table, tiles
from gateway.reports.svg import Axis, Line, Mark, Row, dot_plot, line_plot

SHOWN = 40  # coefficients in the plot
_MEANING = {
    "raw": "log-odds(bad) = intercept + Σ coefficient · x, where x is (value − mean) / standard deviation of all "
    "members' training rows for a number, and 1 or 0 for a level.",
    "woe": "log-odds(bad) = intercept + Σ coefficient · weight of evidence of the bin that the value falls into.",
}
_COEFFICIENTS = ("coefficient", "value", "std. error", "z", "p", "VIF")
_FIGURES = ("figure", "value", "the exact value lies within")
_EARLIER = ("earlier evaluation", "rows (bad)", "AUC", "KS", "Brier")
_OWN_FIGURES = ("model", "AUC", "95 % interval", "KS", "Gini")
_DECILES = ("group", "rows", "bad", "share of bad", "predicted", "lift", "bad rows so far")


def card_page(card: ModelCard, footer: str, in_use: str = "") -> str:
    """Return the card as one HTML page.

    Args:
        in_use: since when it is in use, in words; empty where it is not.
    """
    newest = card.evaluations[-1] if card.evaluations else None
    facts = [
        ("training rows", f"{card.rows:,}"),
        ("share of bad", f"{card.bads / card.rows:.1%}" if card.rows else "-"),
        ("members", str(len(card.members)) if card.members else "not known"),
        ("columns", str(len(card.columns))),
    ]
    if newest:
        facts = [("AUC, all members", f"{newest['auc']['estimate']:.4f}"), *facts]
    parts = [tiles(facts), _identity(card, in_use), _performance(card)]
    parts += [_coefficients(card), _points(card), _columns(card), _limits(card)]
    subtitle = f"Version {card.model}"
    return page(f"Scorecard for {card.label}", subtitle, [part for part in parts if part], footer)


def card_markdown(card: ModelCard, footer: str, in_use: str = "") -> str:
    """Return the card as Markdown; arguments as for `card_page`."""
    out = [f"# Scorecard for {_cell(card.label)}", "", f"Version `{card.model}`", "", "## What it is", ""]
    out += [f"- {name}: {_cell(value)}" for name, value in _facts(card, in_use)]
    out += ["", _MEANING[card.training["coding"]], "", "## How well it does", ""]
    if card.evaluations:
        out += [f"{_measured(card.evaluations[-1])}:", "", _markdown(_FIGURES, _figures(card.evaluations[-1])), ""]
        if len(card.evaluations) > 1:
            out += [_markdown(_EARLIER, _earlier(card)), ""]
        out += ["Groups of the newest evaluation, the riskiest first:", ""]
        out += [_markdown(_DECILES, _deciles(card.evaluations[-1])), ""]
    if card.own:
        out += [_own_words(card.own), "", _markdown(_OWN_FIGURES, _own(card.own)), ""]
    if not card.evaluations and not card.own:
        out += ["No figures are known here.", ""]
    out += ["## What the score is made of", "", _markdown(_COEFFICIENTS, _lines(card)), ""]
    if card.points:
        bins = _markdown(("column", "bin", "points"), _bins(card.points))
        out += ["## Points", "", _scale(card.points), "", bins, ""]
    out += ["## Columns", "", _markdown(("column", "enters as", "information value"), _kinds(card)), ""]
    if card.left_out:
        out += [f"Left out, as they tell nothing: {_cell(', '.join(card.left_out))}.", ""]
    out += ["## Limits", "", *(f"- {_cell(limit)}" for limit in card.limits), "", "---", "", _cell(footer), ""]
    return "\n".join(out)


def _facts(card: ModelCard, in_use: str) -> list[tuple[str, str]]:
    training = card.training
    held = training["holdout"]
    names = f"{len(card.members)}: {', '.join(card.members)}" if card.members else "not known here"
    return [
        ("predicts", f"the chance that {card.label} is 1 (bad)"),
        ("made for", card.purpose or "not known here"),
        ("in use", in_use or "no"),
        ("members that brought rows", names),
        ("dataset", f"{card.dataset or 'not known here'}{f', as of {card.as_of}' if card.as_of else ''}"),
        ("training rows", f"{card.rows:,}, {card.bads:,} of them bad"),
        ("held out of training", "not known here" if held is None else f"{held:.0%} of each member's rows"),
        ("penalty", f"{training['penalty']:g}"),
        ("smallest cell", f"{training['min_rows']} pooled rows"),
        (
            "converged",
            f"in {training['rounds']} rounds; log-loss {training['log_loss'] / max(card.rows, 1):.6f} a row, "
            f"largest gradient {training['gradient']:.1e}",
        ),
        ("job", card.job or "-"),
    ]


def _identity(card: ModelCard, in_use: str) -> str:
    rows = _facts(card, in_use)
    words = paragraph(_MEANING[card.training["coding"]])
    hashed = (
        "The version is a SHA-256 over the whole model: whoever has the model file can check that this card speaks of "
        "it, with the command chaotian model show."
    )
    return section("What it is", words, table(("fact", ""), rows, left=(1,)), paragraph(hashed, "sub"))


def _performance(card: ModelCard) -> str:
    parts = []
    if card.evaluations:
        newest = card.evaluations[-1]
        parts += [paragraph(f"{_measured(newest)}:"), table(_FIGURES, _figures(newest))]
        if len(card.evaluations) > 1:
            parts.append(table(_EARLIER, _earlier(card)))
        parts += [_calibration(newest), table(_DECILES, _deciles(newest))]
    if card.own:
        parts += [paragraph(_own_words(card.own)), table(_OWN_FIGURES, _own(card.own))]
    if not parts:
        words = "No figures are known here: propose a job of the kind evaluate, or look in the home that trained it."
        parts.append(paragraph(words, "note"))
    return section("How well it does", *parts)


def _measured(each: Mapping[str, Any]) -> str:
    return f"Over {each['rows']:,} rows of all members, {each['bads']:,} of them bad, from sums alone"


def _figures(each: Mapping[str, Any]) -> list[tuple[str, ...]]:
    low, high = each["auc_sampling"]
    rows: list[tuple[str, ...]] = [
        (name, f"{each[key]['estimate']:.4f}", f"{each[key]['low']:.4f} … {each[key]['high']:.4f}")
        for name, key in (("AUC", "auc"), ("KS", "ks"), ("Gini", "gini"))
    ]
    rows.insert(1, ("95 % interval of the AUC", f"{low:.4f} … {high:.4f}", ""))
    return [*rows, ("Brier score", f"{each['brier']:.4f}", ""), ("log-loss a row", f"{each['log_loss']:.4f}", "")]


def _earlier(card: ModelCard) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            f"{each['rows']:,} ({each['bads']:,})",
            f"{each['auc']['estimate']:.4f}",
            f"{each['ks']['estimate']:.4f}",
            f"{each['brier']:.4f}",
        )
        for number, each in enumerate(card.evaluations[:-1], 1)
    ]


def _deciles(each: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            f"{group['rows']:,}",
            f"{group['bads']:,}",
            f"{group['rate']:.2%}",
            f"{group['predicted']:.2%}",
            f"{group['lift']:.2f}",
            f"{group['gain']:.1%}",
        )
        for number, group in enumerate(each["groups"], 1)
    ]


def _calibration(each: Mapping[str, Any]) -> str:
    groups = each["groups"]
    if len(groups) < 2:
        return ""
    most = max(max(group["rate"], group["predicted"]) for group in groups)
    points = sorted((group["predicted"], group["rate"]) for group in groups)
    drawing = line_plot(
        [Line("predicted = observed", [(0.0, 0.0), (most, most)], "thin"), Line("this model", points, "fed", True)],
        Axis.over((0.0, most), "predicted share of bad"),
        Axis.over((0.0, most), "observed share of bad"),
        title="Calibration by group of about a tenth of the rows",
        height=340,
    )
    return figure(drawing, "Calibration: each dot is about a tenth of all members' rows.")


def _own_words(own: Mapping[str, Any]) -> str:
    return (
        f"On this member's own held-out rows ({own['rows']:,}, {own['bads']:,} of them bad), which no model was "
        "trained on. These figures were computed at home and have not left it: think before handing them on."
    )


def _own(own: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, key in (("federated", "federated"), ("own rows alone", "local")):
        each = own.get(key) or {}
        if "auc" in each:
            interval = f"{each['auc_low']:.4f} … {each['auc_high']:.4f}"
            rows.append((name, f"{each['auc']:.4f}", interval, f"{each['ks']:.4f}", f"{each['gini']:.4f}"))
        else:
            rows.append((name, str(each.get("code", "-")), "", "", ""))
    return rows


def _coefficients(card: ModelCard) -> str:
    lines = sorted(card.coefficients[1:], key=lambda line: -abs(line["value"]))[:SHOWN]
    rows = [
        Row(
            line["name"],
            (
                Mark(
                    line["value"],
                    line["value"] - Z95 * line["standard_error"],
                    line["value"] + Z95 * line["standard_error"],
                    "fed",
                ),
            ),
        )
        for line in lines
    ]
    ends = [value for row in rows for mark in row.marks for value in (mark.low, mark.high)]
    parts = []
    if rows:
        drawing = dot_plot(rows, Axis.over(ends, "coefficient", zero=True), title="Coefficients", zero=True)
        more = f" The {SHOWN} largest of {len(card.coefficients) - 1}." if len(card.coefficients) - 1 > SHOWN else ""
        parts.append(figure(drawing, f"Coefficients with 95 % intervals; right of zero speaks for bad.{more}"))
    parts.append(table(_COEFFICIENTS, _lines(card)))
    parts.append(paragraph(f"Standard errors: {card.training['standard_errors']}.", "sub"))
    return section("What the score is made of", *parts)


def _lines(card: ModelCard) -> list[tuple[str, ...]]:
    return [
        (
            line["name"],
            f"{line['value']:+.6f}",
            f"{line['standard_error']:.6f}",
            f"{line['z']:+.2f}",
            "< 0.0001" if line["p"] < 1e-4 else f"{line['p']:.4f}",
            "-" if line["vif"] is None or not math.isfinite(line["vif"]) else f"{line['vif']:.2f}",
        )
        for line in card.coefficients
    ]


def _points(card: ModelCard) -> str:
    if not card.points:
        return ""
    rows = _bins(card.points)
    return section("Points", paragraph(_scale(card.points)), table(("column", "bin", "points"), rows, left=(1,)))


def _scale(points: Mapping[str, Any]) -> str:
    return (
        f"{points['base_score']:g} points stand for {points['base_odds']:g} good rows to one bad, and "
        f"{points['pdo']:g} points more double that. The points of a row are the sum over the columns of those of its "
        "bin: more is better."
    )


def _bins(points: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for column in points["columns"]:
        for at, line in enumerate(column["bins"]):
            rows.append((column["name"] if not at else "", line["label"], str(line["points"])))
        if "missing" in column:
            rows.append(("", "missing (not seen in training)", str(column["missing"])))
    return rows


def _columns(card: ModelCard) -> str:
    parts = [table(("column", "enters as", "information value"), _kinds(card), left=(1,))]
    if card.left_out:
        parts.append(paragraph(f"Left out, as they tell nothing: {', '.join(card.left_out)}."))
    return section("Columns", *parts)


def _kinds(card: ModelCard) -> list[tuple[str, str, str]]:
    return [
        (
            column["name"],
            column["kind"],
            f"{float(column['information']):.4f}" if "information" in column else "-",
        )
        for column in card.columns
    ]


def _limits(card: ModelCard) -> str:
    return section("Limits", *(paragraph(limit, "note") for limit in card.limits))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text that stays within its cell and its line, whatever a name in the data holds."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    flat = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", flat)
    return re.sub(r"([\\|`\[\]])", r"\\\1", flat)  # no cell ends early, no link is made, no image is fetched
