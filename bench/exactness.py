"""Is the federated scorecard the one that pooled data would have given?

For each data set the members' job runs through the production state machines of the secure sum (signatures, masks,
re-adding of the transcript), and its scores on rows nobody trained on are held against an independent solver on the
pooled rows (`bench/pooled.py`: scikit-learn, then least-squares steps until it stands still).
Bars: logits within 1e-6, AUC of both models' scores on the same rows within 1e-7.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.pooled import PooledScorecard
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.metrics import separation
from federation.learning.model import Model
from federation.learning.scorecard import FEW, Scorecard
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum.local import run_in_process

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LOGIT_BAR, AUC_BAR = 1e-6, 1e-7
LENDERS = ("bank-of-america", "capital-one", "us-bank", "wells-fargo")


def run(out: Callable[[str], Any] = print) -> list[dict[str, Any]]:
    """Run all cases and return one result for each measured difference; `out` takes lines for a person."""
    results: list[dict[str, Any]] = []
    for name, load in (("default_credit", _default_credit), ("sba_case", _sba_case)):
        spec, members, test, identifier, note = load()
        results += _case(name, spec, members, test, identifier, note, out)
    return results


def _case(
    name: str,
    spec: ScorecardSpec,
    members: Mapping[str, pd.DataFrame],
    test: pd.DataFrame,
    identifier: str,
    note: str,
    out: Callable[[str], Any],
) -> list[dict[str, Any]]:
    programs = {member: Scorecard(spec, _frame(rows, spec, identifier)) for member, rows in members.items()}
    begun = time.perf_counter()
    _, outcomes = run_in_process(programs, entropy=SystemEntropy())
    seconds = time.perf_counter() - begun
    models = [program.model(name) for program in programs.values()]
    if len({model.version for model in models}) != 1:
        raise AssertionError(f"{name}: members hold different models")
    model: Model = models[0]
    features = [feature.document() for feature in spec.features]
    pooled = PooledScorecard(
        pd.concat(members.values()), label=spec.label, features=features, penalty=spec.penalty, min_rows=spec.min_rows
    )
    frame = _frame(test, spec, identifier)
    ours, theirs = model.score(frame), pooled.score(test)
    label = frame.label(spec.label)
    auc, auc_pooled = separation(label, ours).auc, separation(label, theirs).auc
    shape = (
        f"{sum(map(len, members.values()))} rows of {len(members)} members, {len(model.coefficients)} coefficients, "
        f"{len(outcomes)} rounds in {seconds:.1f} s; {note}"
    )
    logits, aucs = float(np.abs(ours - theirs).max()), abs(auc - auc_pooled)
    out(f"{name}: largest difference of a logit {logits:.1e} (bar {LOGIT_BAR:g}) on {len(test)} rows")
    out(f"{name}: AUC {auc:.6f}, pooled {auc_pooled:.6f}, difference {aucs:.1e} (bar {AUC_BAR:g}); {shape}")
    peer = "scikit-learn newton-cholesky on pooled rows"
    return [
        _result(f"{name}: largest logit difference", logits, LOGIT_BAR, "log-odds", peer, shape),
        _result(f"{name}: AUC difference", aucs, AUC_BAR, "AUC", peer, f"{auc:.7f} against {auc_pooled:.7f}"),
    ]


def _result(case: str, ours: float, bar: float, unit: str, peer: str, note: str) -> dict[str, Any]:
    verdict = "within" if ours <= bar else "BEYOND"
    return {
        "case": case,
        "ours": ours,
        "peer": bar,
        "peer_name": f"bar for the difference from {peer}",
        "ratio": bar / max(ours, 1e-300) if ours else None,
        "unit": unit,
        "runs": 1,
        "note": f"{verdict} the bar; {note}",
        "passed": ours <= bar,
    }


def _frame(rows: pd.DataFrame, spec: ScorecardSpec, identifier: str) -> Frame:
    columns = {
        f.name: rows[f.name].astype(float).to_numpy() if f.type == "numeric" else rows[f.name].to_numpy(dtype=object)
        for f in spec.features
    }
    columns[spec.label] = rows[spec.label].astype(float).to_numpy()
    return Frame(rows[identifier].tolist(), columns)


def _default_credit() -> tuple[ScorecardSpec, dict[str, pd.DataFrame], pd.DataFrame, str, str]:
    """FATE's three banks and test set; the sample of the tests where the full files are not beside the project."""
    folder, note = SHARED / "default_credit", "FATE's split of default_credit (UCI 350)"
    if folder.is_dir():
        files = {part: folder / f"default_credit_homo_{part}.csv.gz" for part in ("guest", "host_1", "host_2", "test")}
    else:
        sample = ROOT / "tests" / "data"
        files = {part: sample / f"default_credit_{part}.csv" for part in ("bank-1", "bank-2", "bank-3", "test")}
        note = "sample of 1,000 rows a member: the full files are not beside the project"
    rows = {part: pd.read_csv(path, dtype=str) for part, path in files.items()}
    test = rows.pop("test")
    features: list[dict[str, Any]] = []
    for index in range(23):
        name = f"x{index}"
        if max(part[name].nunique() for part in rows.values()) > FEW:
            features.append({"name": name, "type": "numeric"})
        else:  # a column with few values is declared as a category, its most frequent level the reference
            levels = pd.concat([*(part[name] for part in rows.values()), test[name]]).value_counts()
            features.append(
                {"name": name, "type": "category", "levels": sorted(levels.index, key=lambda v: -levels[v])}
            )
    document = {"label": "y", "features": features, "penalty": 1.0, "holdout": 0.0}
    return ScorecardSpec.from_document(document), rows, test, "id", note


def _sba_case() -> tuple[ScorecardSpec, dict[str, pd.DataFrame], pd.DataFrame, str, str]:
    """The demo's four lenders; the loans of all other banks are the test set."""
    demo = ROOT / "compose" / "demo"
    spec = ScorecardSpec.from_document(tomllib.loads((demo / "features.toml").read_text()))
    rows = {name: pd.read_csv(demo / "data" / f"{name}.csv", dtype=str) for name in (*LENDERS, "others")}
    if spec.holdout:
        raise AssertionError("the bench compares on all training rows")
    return spec, rows, rows.pop("others"), "LoanNr_ChkDgt", "test rows: loans of 150 other banks"
