"""Results as pandas tables: one function for each kind of document that a job leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from federation.learning.bins import ColumnBins
from federation.learning.model import Model

SCORECARD, BINNING = "chaotian-scorecard/1", "chaotian-binning/1"
PROFILE, EVALUATION, STABILITY = "chaotian-profile/1", "chaotian-evaluation/1", "chaotian-stability/1"


def find_format(document: Any, wanted: str) -> Mapping[str, Any] | None:
    """Return the part of a result that states the format `wanted`, wherever it lies; None where there is none."""
    if isinstance(document, Mapping):
        if document.get("format") == wanted:
            return document
        parts: Iterator[Any] = iter(document.values())
    elif isinstance(document, list):
        parts = iter(document)
    else:
        return None
    return next((found for part in parts if (found := find_format(part, wanted)) is not None), None)


def coefficients(model: Model) -> pd.DataFrame:
    """Return the lines of a scorecard, the intercept first: value, standard_error, z, p, vif, by name."""
    rows = [(c.name, c.value, c.standard_error, c.z, c.p, c.vif) for c in model.coefficients]
    table = pd.DataFrame(rows, columns=["coefficient", "value", "standard_error", "z", "p", "vif"])
    return table.astype({"vif": "float64"}).set_index("coefficient")


def column_bins(source: Model | Mapping[str, Any]) -> list[ColumnBins]:
    """Return the binned columns of a scorecard or of a `binning` result."""
    if isinstance(source, Model):
        return [part for part in source.coding.parts if isinstance(part, ColumnBins)]
    readable = ("labels", "weights_decimal", "information_decimal", "constant")  # beside the exact values
    return [
        ColumnBins.from_document({key: value for key, value in column.items() if key not in readable})
        for column in source["columns"]
    ]


def bins(columns: Sequence[ColumnBins], points: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Return a row for each bin: rows, good, bad, rate (share of bad), woe, and points where there is a card.

    Args:
        points: the part `points` of a scorecard's document.
    """
    cards = {card["name"]: card["bins"] for card in points["columns"]} if points else {}
    rows = []
    for column in columns:
        for place, (label, (good, bad), weight) in enumerate(
            zip(column.labels, column.counts, column.weights, strict=True)
        ):
            share = bad / (good + bad) if good + bad else float("nan")
            row = {"column": column.name, "bin": label, "rows": good + bad, "good": good, "bad": bad}
            card = {"points": cards[column.name][place]["points"]} if column.name in cards else {}
            rows.append({**row, "rate": share, "woe": weight, **card})
    names = ["column", "bin", "rows", "good", "bad", "rate", "woe", *(["points"] if cards else [])]
    return pd.DataFrame(rows, columns=names)


def information(columns: Sequence[ColumnBins]) -> pd.DataFrame:
    """Return the information value and the number of bins of each column, those that tell most first."""
    rows = [(column.name, column.information, len(column.counts), column.constant) for column in columns]
    table = pd.DataFrame(rows, columns=["column", "iv", "bins", "constant"])
    return table.sort_values("iv", ascending=False, kind="stable").set_index("column")


def flat(rows: Sequence[Mapping[str, Any]], index: str) -> pd.DataFrame:
    """Return one row for each entry, with the scalars in it; what is itself a list or a table is left out."""
    simple = [
        {key: value for key, value in row.items() if not isinstance(value, list | tuple | Mapping)} for row in rows
    ]
    return pd.DataFrame(simple).set_index(index) if simple else pd.DataFrame()


def evaluation(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return AUC, KS and Gini with what is open and the AUC's 95 % interval, Brier score and log-loss: one row each."""
    rows: list[tuple[str, Any, Any, Any]] = []
    for name in ("auc", "ks", "gini"):
        figure = document[name]
        rows.append((name, figure["estimate"], figure["low"], figure["high"]))
    low, high = document["auc_sampling"]
    rows.append(("auc, 95 %", document["auc"]["estimate"], low, high))
    rows += [(name, document[name], document[name], document[name]) for name in ("brier", "log_loss")]
    table = pd.DataFrame(rows, columns=["figure", "estimate", "low", "high"]).set_index("figure")
    return table.astype("float64")


def deciles(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return the groups of an evaluation, the riskiest first: rows, bads, rate, predicted, lift, gain."""
    table = pd.DataFrame(list(document["groups"]))
    table.index = pd.RangeIndex(1, len(table) + 1, name="decile")
    return table


def own_figures(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures on a member's own rows: one row for each model, NaN where a model has none."""
    named = (("federated", "federated"), ("own rows only", "local"))
    rows = [{"model": name, **document[key]} for name, key in named if isinstance(document.get(key), Mapping)]
    if not rows and ("auc" in document or "code" in document):  # of one model alone
        rows = [{"model": "federated", **document}]
    return flat(rows, "model")
