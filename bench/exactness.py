"""Is the federated scorecard the one that pooled data would have given?

For each data set the members' job runs through the production state machines of the secure sum (signatures, masks,
re-adding of the transcript), and its scores on rows nobody trained on are held against an independent solver on the
pooled rows (`bench/pooled.py`: scikit-learn, then least-squares steps until it stands still); after a loss, on the
survivors' rows with the constants of the rows the job began with.
Bars: logits within 1e-6, AUC of both models' scores on the same rows within 1e-7.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import reference, report
from bench.pooled import PooledScorecard
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.metrics import separation
from federation.learning.model import Model
from federation.learning.scorecard import FEW, Scorecard
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum.local import run_in_process

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LOST_IN = 5  # round: the third of Newton
LOGIT_BAR, AUC_BAR = 1e-6, 1e-7
LENDERS = ("bank-of-america", "capital-one", "us-bank", "wells-fargo")


def run(out: Path) -> list[dict[str, Any]]:
    """Run all cases: two results for each, difference of logits and of AUC; then what `bench/reference.py` compares."""
    results = []
    for case in (
        _default_credit(),
        _sba_case(),
        replace(_sba_case(), name="sba_case, one bank lost", lost="capital-one"),
    ):
        results += _measure(case)
    return results + reference.cases(SHARED)


@dataclass(frozen=True)
class Case:
    """One data set: what the members hold, and rows nobody trained on. A `lost` member goes in round LOST_IN."""

    name: str
    spec: ScorecardSpec
    members: Mapping[str, pd.DataFrame]
    test: pd.DataFrame
    identifier: str
    note: str
    lost: str = ""


def _measure(case: Case) -> list[dict[str, Any]]:
    spec = case.spec
    programs = {member: Scorecard(spec, _frame(rows, spec, case.identifier)) for member, rows in case.members.items()}
    begun = time.perf_counter()
    _, outcomes = run_in_process(
        programs,
        entropy=SystemEntropy(),
        lose=lambda round_, send: round_ == LOST_IN and send.member == case.lost and send.stage == "masked_input",
    )
    seconds = time.perf_counter() - begun
    left = {member: rows for member, rows in case.members.items() if member != case.lost}
    if sorted(outcomes[-1].survivors) != sorted(left):
        raise AssertionError(f"{case.name}: not the members that should be left")
    models: list[Model] = [programs[member].model(case.name) for member in left]
    if len({model.version for model in models}) != 1:
        raise AssertionError(f"{case.name}: members hold different models")
    pooled = PooledScorecard(
        pd.concat(left.values()),
        label=spec.label,
        features=[feature.document() for feature in spec.features],
        penalty=spec.penalty,
        min_rows=spec.min_rows,
        constants=pd.concat(case.members.values()),
    )
    frame = _frame(case.test, spec, case.identifier)
    ours, theirs = models[0].score(frame), pooled.score(case.test)
    label = frame.label(spec.label)
    auc, auc_pooled = separation(label, ours).auc, separation(label, theirs).auc
    rows = sum(len(part) for part in left.values())
    shape = (
        f"{rows} rows of {len(left)} members, {len(models[0].coefficients)} coefficients, {len(outcomes)} rounds in "
        f"{seconds:.1f} s, {len(case.test)} rows scored; {case.note}"
    )
    logits = float(np.abs(ours - theirs).max())
    aucs = f"federated {auc:.7f}, pooled {auc_pooled:.7f}"
    return [
        report.case(f"{case.name}: largest logit difference", [logits], unit="log-odds", target=LOGIT_BAR, note=shape),
        report.case(f"{case.name}: AUC difference", [abs(auc - auc_pooled)], unit="AUC", target=AUC_BAR, note=aucs),
    ]


def _frame(rows: pd.DataFrame, spec: ScorecardSpec, identifier: str) -> Frame:
    columns = {
        f.name: rows[f.name].astype(float).to_numpy() if f.type == "numeric" else rows[f.name].to_numpy(dtype=object)
        for f in spec.features
    }
    columns[spec.label] = rows[spec.label].astype(float).to_numpy()
    return Frame(rows[identifier].tolist(), columns)


def _default_credit() -> Case:
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
    return Case("default_credit", ScorecardSpec.from_document(document), rows, test, "id", note)


def _sba_case() -> Case:
    """The demo's four lenders; the loans of all other banks are the test set."""
    demo = ROOT / "compose" / "demo"
    spec = ScorecardSpec.from_document(tomllib.loads((demo / "features.toml").read_text()))
    rows = {name: pd.read_csv(demo / "data" / f"{name}.csv", dtype=str) for name in (*LENDERS, "others")}
    if spec.holdout:
        raise AssertionError("the bench compares on all training rows")
    others = rows.pop("others")
    return Case("sba_case", spec, rows, others, "LoanNr_ChkDgt", "test rows are the loans of 150 other banks")
