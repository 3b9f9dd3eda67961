"""The report of one training: what it was worth, how well it separates, what the score is made of, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federation.learning.bins import ColumnBins
from federation.learning.metrics import Z95
from federation.learning.model import Model
from gateway.reports import curves
from gateway.reports.benefit import COSTS, PAYS, Scored
from gateway.reports.page import figure, page, paragraph, section, table, tiles
from gateway.reports.svg import Axis, Line, Mark, Row, dot_plot, line_plot

SHOWN = 30  # coefficients in the plot
EVALUATED = {
    "test": "All models are measured on the same rows, those of the test file.",
    "holdout": "Every member is measured on its own held-out rows, which no model was trained on.",
    "folds": "Every member is measured on its own rows by cross-validation: no row is scored by a model that saw it.",
    "training": "Nothing was held out: these are the training rows, and every figure is too good.",
}


def training_page(
    *,
    title: str,
    subtitle: str,
    footer: str,
    model: Model,
    benefit: Mapping[str, Any] | None,
    whole: Scored | None,
    members: Mapping[str, Scored],
    metrics: Mapping[str, Any],
    cost: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    """Return the report as one HTML page.

    Args:
        model: the federated model.
        benefit: document of `reports.benefit.benefit`, where outcomes are known.
        whole: all scored rows together.
        members: by member, for the curves.
        metrics: of the federated model on the scored rows.
        cost: {"rounds", "seconds", "bytes": {member: {"sent", "received"}}}.
        warnings: what the reader should know, in words.
    """
    parts = [
        tiles(
            [
                ("AUC", _short(metrics.get("auc"))),
                ("KS", _short(metrics.get("ks"))),
                ("rounds", str(cost["rounds"])),
                ("seconds of training", f"{cost['seconds']:.2f}"),
                ("training rows", f"{model.document['training']['rows']:,}"),
            ]
        )
    ]
    parts += [paragraph(warning, "note") for warning in warnings]
    parts += training_sections(model=model, benefit=benefit, whole=whole, members=members, cost=cost).values()
    return page(title, subtitle, parts, footer)


def training_sections(
    *,
    model: Model,
    benefit: Mapping[str, Any] | None,
    whole: Scored | None,
    members: Mapping[str, Scored],
    cost: Mapping[str, Any],
) -> dict[str, str]:
    """Return the sections of the report as HTML: `benefit`, `separation`, `coefficients`, `convergence`, `cost`.

    The first two are left out where no outcomes are known. Arguments as for `training_page`.
    """
    parts = {}
    if benefit and members:
        parts["benefit"] = _benefit(benefit)
    if whole is not None and len(whole.label):
        parts["separation"] = _separation(whole, members, benefit)
    return {**parts, "coefficients": _coefficients(model), "convergence": _convergence(model), "cost": _cost(cost)}


def _benefit(document: Mapping[str, Any]) -> str:
    rows, styles, dots, gains = [], [], [], []
    for name, member in document["members"].items():
        change = member["gain"]
        pooled = member.get("pooled")
        rows.append(
            (
                name,
                _count(member["trained"]),
                _count(member),
                _auc(member["local"]),
                _auc(member["federated"]),
                *((_auc(pooled),) if pooled else ()),
                f"{change['auc']:+.4f}" if change else "-",
                f"{change['low']:+.4f} … {change['high']:+.4f}" if change else "-",
                member["verdict"],
            )
        )
        styles.append({PAYS: "good", COSTS: "poor"}.get(member["verdict"], ""))
        each = [("own rows alone", member["local"], "loc"), ("federated", member["federated"], "fed")]
        each += [("pooled (lab only)", pooled, "pool")] if pooled else []
        dots.append(
            Row(
                name,
                tuple(
                    Mark(f["auc"], f["auc_low"], f["auc_high"], style, what) for what, f, style in each if "auc" in f
                ),
            )
        )
        if change:
            gains.append(Row(name, (Mark(change["auc"], change["low"], change["high"], "fed"),)))
    has_pooled = all("pooled" in member for member in document["members"].values())
    columns = ["member", "trains on", "measured on", "alone", "federated"]
    columns += ["pooled"] if has_pooled else []
    columns += ["gain", "95 % interval", "joining"]
    drawings = []
    ends = [value for row in dots for mark in row.marks for value in (mark.low, mark.high)]
    if ends:
        drawing = dot_plot(dots, Axis.over(ends, "AUC"), title="AUC of each member's models with 95 % intervals")
        drawings.append(figure(drawing, "AUC with DeLong's 95 % interval."))
    ends = [value for row in gains for mark in row.marks for value in (mark.low, mark.high)]
    if ends:
        axis = Axis.over(ends, "AUC federated - AUC alone", zero=True)
        drawing = dot_plot(gains, axis, title="Gain of each member by joining", zero=True)
        caption = "Both models on the same rows, paired interval (DeLong 1988). Left of zero, the own model is better."
        drawings.append(figure(drawing, caption))
    return section(
        "What joining is worth",
        paragraph(f"{EVALUATED[document['evaluated_on']]} Rows (bads), and AUC by model:"),
        table(columns, rows, left=(len(columns) - 1,), styles=styles),
        *drawings,
    )


def _separation(whole: Scored, members: Mapping[str, Scored], benefit: Mapping[str, Any] | None) -> str:
    lines = [Line("no separation", [(0.0, 0.0), (1.0, 1.0)], "thin")]
    # Elsewhere the members' rows differ, and so would the curves.
    if benefit and (benefit["evaluated_on"] == "test" or len(members) == 1):
        lines += [
            Line("own rows alone", curves.roc(each.label, each.local), "loc")
            for each in members.values()
            if each.local is not None
        ]
    lines.append(Line("federated", curves.roc(whole.label, whole.federated), "fed"))
    if whole.pooled is not None:
        lines.append(Line("pooled (lab only)", curves.roc(whole.label, whole.pooled), "pool"))
    share = tuple(index / 5 for index in range(6))
    roc = line_plot(
        lines,
        Axis(0, 1, "share of good rows above the threshold", share),
        Axis(0, 1, "share of bad rows above the threshold", share),
        title="ROC curves",
        height=460,
    )
    bads, goods, (at, low, high) = curves.distributions(whole.label, whole.federated)
    ks = ""
    if bads:
        # A few rows far out would squeeze all others into a corner: the axis ends with the middle 98 % of all rows.
        near, far = (float(value) for value in np.quantile(whole.federated, (0.01, 0.99)))
        bads, goods = ([(min(max(a, near), far), b) for a, b in curve] for curve in (bads, goods))
        gap = Line("KS: where they are farthest apart", [(at, low), (at, high)], "thin", dots=True)
        drawing = line_plot(
            [Line("bad rows", bads, "loc"), Line("good rows", goods, "fed"), gap],
            Axis.over([point[0] for point in bads], "score (log-odds)"),
            Axis(0, 1, "share of rows below the score", share),
            title="Distribution of the score among bad and good rows",
        )
        ks = figure(drawing, f"Federated model. The largest distance is KS = {abs(high - low):.4f}, at {at:.3f}.")
    return section("How well the score separates", figure(roc, "ROC curves on the scored rows."), ks)


def _coefficients(model: Model) -> str:
    lines = sorted(model.coefficients[1:], key=lambda line: -abs(line.value))
    rows = [
        Row(
            line.name,
            (Mark(line.value, line.value - Z95 * line.standard_error, line.value + Z95 * line.standard_error, "fed"),),
        )
        for line in lines[:SHOWN]
    ]
    ends = [value for row in rows for mark in row.marks for value in (mark.low, mark.high)]
    unit = "one unit of weight of evidence" if _bins(model) else "one standard deviation, or for the level"
    caption = f"Change of the log-odds for {unit}, with its 95 % interval."
    if len(lines) > SHOWN:
        caption += f" The {SHOWN} largest of {len(lines)}."
    drawing = dot_plot(rows, Axis.over(ends, "coefficient", zero=True), title="Coefficients", zero=True)
    return section("What the score is made of", figure(drawing, caption), _bins(model))


def _bins(model: Model) -> str:
    """Return, for a score on weights of evidence, the bins of every column, those that tell most first."""
    binned = sorted((part for part in model.coding.parts if isinstance(part, ColumnBins)), key=lambda p: -p.information)
    if not binned:
        return ""
    rows = []
    for part in binned:
        for at, (name, (good, bad), weight) in enumerate(zip(part.labels, part.counts, part.weights, strict=True)):
            first = (part.name, f"{part.information:.4f}") if not at else ("", "")
            rows.append((*first, name, f"{good + bad:,}", f"{bad / (good + bad):.1%}", f"{weight:+.4f}"))
    columns = ("column", "information value", "bin", "rows", "bad", "weight of evidence")
    text = (
        "Bins of all members' training rows. A weight above zero: more of the bad rows than of the good ones are there."
    )
    return paragraph(text) + table(columns, rows, left=(2,))


def _convergence(model: Model) -> str:
    gradient, step = curves.convergence(model.document["convergence"]["history"])
    if not gradient or not step:
        return ""
    rounds = int(max(point[0] for point in (*gradient, *step)))
    every = max(1, rounds // 10)
    drawing = line_plot(
        [Line("largest component of the gradient", gradient, "fed", True), Line("largest step", step, "loc", True)],
        Axis(1, max(2, rounds), "Newton round", tuple(float(n) for n in range(1, max(2, rounds) + 1, every))),
        Axis.over([point[1] for point in (*gradient, *step)], "size", power=True),
        title="Convergence",
        height=300,
    )
    return section("How it converged", figure(drawing, f"{rounds} Newton rounds, each one secure sum."))


def _cost(cost: Mapping[str, Any]) -> str:
    rows = [(name, f"{b['sent']:,}", f"{b['received']:,}") for name, b in cost["bytes"].items()]
    return section("What it cost", table(("member", "bytes sent", "bytes received"), rows))


def _auc(figures: Mapping[str, Any]) -> str:
    return f"{figures['auc']:.4f}" if "auc" in figures else str(figures.get("code", "-"))


def _count(rows: Mapping[str, Any]) -> str:
    return f"{rows['rows']:,} ({rows['bads']:,})"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
