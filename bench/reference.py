"""The jobs of sums against centralised figures made elsewhere, where their files lie beside the project.

`woe_iv_10bins.csv`: good and bad rows, weight of evidence and information value for given edges (counts must be equal,
information within 1e-9); `default_credit_seed0_scores.csv.gz`: logits of a logistic regression (within 1e-4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import report
from federation.learning.binning import Binning, BinningSpec
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.scorecard import Scorecard
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum.local import run_in_process

INFORMATION_BAR, LOGIT_BAR = 1e-9, 1e-4
MEMBERS = 3


def cases(shared: Path) -> list[dict[str, Any]]:
    """Return the results of all comparisons whose files are there."""
    reference = shared / "reference"
    if not (reference / "woe_iv_10bins.csv").is_file():
        return []
    table = pd.read_csv(reference / "woe_iv_10bins.csv")
    raw = pd.read_csv(shared / "default_credit" / "uci_credit_card_raw.csv.gz")
    raw = raw.rename(columns={"default.payment.next.month": "y"})
    return [*_binning(table[table["set"] == "default_credit"], raw), _logits(shared)]


def _split(rows: pd.DataFrame, columns: list[str]) -> dict[str, Frame]:
    parts = {}
    for k in range(MEMBERS):
        part = rows.iloc[k::MEMBERS]
        parts[f"bank-{k + 1}"] = Frame(
            [str(i) for i in part.index], {name: part[name].to_numpy(dtype=np.float64) for name in columns}
        )
    return parts


def _binning(table: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    edges = {str(name): part["upper"].dropna().tolist() for name, part in table.groupby("feature", sort=False)}
    # SEX has two values and no edges in the table: cut between them.
    edges = {name: found or [float(rows[name].min())] for name, found in edges.items()}
    features = [{"name": name, "type": "numeric"} for name in edges]
    spec = BinningSpec.from_document({"label": "y", "features": features, "edges": edges})
    programs = {name: Binning(spec, frame) for name, frame in _split(rows, [*edges, "y"]).items()}
    run_in_process(programs, entropy=SystemEntropy())
    result = programs["bank-1"].result
    unequal, furthest = 0, 0.0
    for name, part in table.groupby("feature", sort=False):
        column = result.column(str(name))
        expected = [(int(good), int(bad)) for good, bad in zip(part["n_good"], part["n_bad"], strict=True)]
        unequal += sum(a != b for a, b in zip(column.counts, expected, strict=False)) + abs(
            len(column.counts) - len(expected)
        )
        furthest = max(furthest, abs(column.information - float(part["iv"].sum())))
    bins = sum(len(column.counts) for column in result.columns)
    note = f"{len(edges)} columns, {bins} bins, {len(rows)} rows of {MEMBERS} members"
    return [
        report.case("default_credit: bins with other counts", [float(unequal)], unit="bins", target=0.0, note=note),
        report.case("default_credit: IV difference", [furthest], unit="IV", target=INFORMATION_BAR, note=note),
    ]


def _logits(shared: Path) -> dict[str, Any]:
    folder, reference = shared / "default_credit", shared / "reference"
    guest, host = (pd.read_csv(folder / f"default_credit_hetero_{side}.csv.gz") for side in ("guest", "host"))
    rows = guest.merge(host, on="id", suffixes=("", "_host")).merge(
        pd.read_csv(reference / "default_credit_splits.csv.gz")[["id", "s0"]], on="id"
    )
    names = [name for name in rows.columns if name.startswith("x")]
    spec = ScorecardSpec.from_document(
        {
            "label": "y",
            "features": [{"name": name, "type": "numeric"} for name in names],
            "penalty": 1.0,
            "holdout": 0.0,
            "impute": "mean",
        }
    )
    training, test = rows[rows["s0"] == 0], rows[rows["s0"] == 1]
    # Not strict: the reference takes columns with few values as numbers too.
    programs = {n: Scorecard(spec, frame, strict=False) for n, frame in _split(training, [*names, "y"]).items()}
    _, outcomes = run_in_process(programs, entropy=SystemEntropy())
    frame = Frame([str(i) for i in test["id"]], {name: test[name].to_numpy(dtype=np.float64) for name in names})
    scores = pd.read_csv(reference / "default_credit_seed0_scores.csv.gz").set_index("id")
    furthest = np.abs(programs["bank-1"].model().score(frame) - scores.loc[test["id"], "lr_logit"].to_numpy()).max()
    note = f"{len(training)} rows of {MEMBERS} members, {len(outcomes)} rounds; given logits of {len(test)} test rows"
    return report.case(
        "default_credit: distance to the reference logits",
        [float(furthest)],
        unit="log-odds",
        target=LOGIT_BAR,
        note=note,
    )
