"""What a lab training leaves in its folder: result.json, scores.csv, model.json, benefit.json and report.html."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.model import probability
from gateway.lab.training import TrainResult
from gateway.reports.benefit import benefit, figures, together
from gateway.reports.training import training_page

FILES = ("result.json", "scores.csv", "model.json", "benefit.json", "report.html")


def prepare(folder: Path) -> None:
    """Make the folder, before anything is computed; STORAGE where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)  # results of an earlier run must not stand beside a failed one
    except OSError as error:
        raise ChaotianError("STORAGE", f"{folder} cannot be made or written: {os.strerror(error.errno or 0)}") from None


def write(result: TrainResult, folder: Path) -> dict[str, Any]:
    """Write all files; return the document of result.json.

    Raises:
        ChaotianError: STORAGE.
    """
    document, worth = documents(result)
    files = {
        "model.json": _model(result),
        "scores.csv": _scores(result),
        "benefit.json": _json(worth) if worth else "",
        "report.html": report(result, document, worth),
        "result.json": _json(document),  # last: where it stands, the others do
    }
    try:
        for name, text in files.items():
            if text:
                (folder / name).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise ChaotianError("STORAGE", f"{folder} cannot be written: {os.strerror(error.errno or 0)}") from None
    return document


def documents(result: TrainResult) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the documents of result.json and benefit.json (None where no outcomes are known)."""
    model_sha256 = hashlib.sha256(_model(result).encode()).hexdigest()
    settings, fit = result.settings, result.fit
    worth = benefit(result.scored, result.trained, result.evaluated) if result.scored else None
    whole = together(result.scored, result.evaluated) if result.scored else None
    unknown = {"auc": None, "ks": None, "gini": None}
    metrics = {**unknown, **(figures(whole.label, whole.federated) if whole else {})}
    pooled = {**unknown, **(figures(whole.label, whole.pooled) if whole else {})}
    difference = None
    if whole is not None and whole.pooled is not None and len(whole.label):
        difference = float(abs(whole.federated - whole.pooled).max())
    count = len(result.tables.features)
    document = {
        "job": "scorecard",
        "split": "rows",
        "members": {name: {"rows": len(f), "columns": count} for name, f in result.tables.frames.items()},
        "aligned_rows": sum(rows for rows, _ in result.trained.values()),
        "rounds": fit.rounds,
        "seconds": round(fit.seconds, 4),
        "bytes": {name: {"sent": fit.sent[name], "received": fit.received[name]} for name in fit.sent},
        "metrics": metrics,
        "metrics_local": {
            name: {"auc": None, "ks": None, **member["local"]}
            for name, member in (worth or {"members": {}})["members"].items()
        },
        "metrics_pooled": pooled,
        "max_logit_difference": difference,
        "model_sha256": model_sha256,
        "model_version": fit.model.version,
        "evaluated_on": result.evaluated,
        "features": [feature.document() for feature in result.tables.features],
        "parameters": settings.parameters.document(),
        "processes": settings.processes,
        "cpu_seconds": {name: round(seconds, 4) for name, seconds in fit.cpu_seconds.items()},
        "total_seconds": round(result.total_seconds, 4),
        "warnings": result.warnings,
        "version": version("chaotian"),
    }
    return document, worth


def _model(result: TrainResult) -> str:
    return json.dumps(result.fit.model.document, indent=2, ensure_ascii=False) + "\n"


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_scores(folder: Path, ids: list[str], scores: NDArray[np.float64]) -> None:
    """Write scores.csv: identifier, log-odds and probability of each row."""
    (folder / "scores.csv").write_text(_scores_of(ids, scores), encoding="utf-8", newline="")


def _scores(result: TrainResult) -> str:
    return _scores_of(result.ids, result.scores)


def _scores_of(ids: list[str], scores: NDArray[np.float64]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("id", "score", "probability"))
    for name, score, chance in zip(ids, scores.tolist(), probability(scores).tolist(), strict=True):
        writer.writerow((name, repr(score), repr(chance)))
    return out.getvalue()


def report(result: TrainResult, document: dict[str, Any], worth: dict[str, Any] | None) -> str:
    """Return report.html; arguments as `documents` returns them."""
    names = list(document["members"])
    listed = ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:7])} and {len(names) - 7} more"
    how = "one process each, over TLS" if document["processes"] else "all in one process"
    return training_page(
        title="A scorecard trained together",
        subtitle=f"{len(names)} members on one machine, {how}: {listed}",
        footer=f"chaotian {document['version']} lab · model {document['model_version'][:16]} · "
        "the pooled model exists in the lab only, where all files are at hand",
        model=result.fit.model,
        benefit=worth,
        whole=together(result.scored, result.evaluated) if result.scored else None,
        members=result.scored,
        metrics=document["metrics"],
        cost=document,
        warnings=result.warnings,
    )
