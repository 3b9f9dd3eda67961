"""The lab from Python: a whole federation in this process, over data frames, by the production state machines.

Example:
    >>> from gateway.client import lab
    >>> result = lab.train({"bank-a": a, "bank-b": b, "bank-c": c}, id="loan", label="default")
    >>> result.comparison
    >>> result.plots["separation"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from federation.errors import CATALOGUE, ChaotianError
from federation.learning.model import Model, probability
from federation.learning.options import BinningOptions
from federation.primitives.entropy import SystemEntropy
from gateway.client import tables
from gateway.client.data import as_rows
from gateway.client.progress import bar
from gateway.client.results import Plot, facts_html, list_html, table_html
from gateway.datasets.sources import Source
from gateway.lab import output
from gateway.lab.nodes import fit_over_processes, node_names
from gateway.lab.settings import Parameters, TrainSettings, parse_parameters
from gateway.lab.training import TrainResult
from gateway.lab.training import train as run
from gateway.reports.benefit import together
from gateway.reports.training import training_sections
from gateway.scoring.estimator import FederatedScorecard

Rows = pd.DataFrame | Path | str
"""A data frame, or the path of a CSV or Parquet file."""
INDEX = "row id"  # the identifier of rows that have none but the index


class LabResult:
    """What a lab training gave.

    Attributes:
        document: what `chaotian lab train` writes to result.json.
        benefit: what joining is worth, as benefit.json; None where no outcomes are known.
        warnings: what to know about it, in sentences.
    """

    def __init__(self, result: TrainResult) -> None:
        self._result = result
        self.document, self.benefit = output.documents(result)
        self.warnings: list[str] = list(result.warnings)

    @property
    def model(self) -> Model:
        """The federated scorecard."""
        return self._result.fit.model

    @property
    def scorecard(self) -> FederatedScorecard:
        """The federated scorecard as a scikit-learn classifier."""
        return FederatedScorecard(self.model)

    @property
    def coefficients(self) -> pd.DataFrame:
        """Lines of the scorecard: value, standard_error, z, p, vif."""
        return tables.coefficients(self.model)

    @property
    def bins(self) -> pd.DataFrame:
        """Under `features="woe"`, the bins of every column: rows, good, bad, rate, woe, points."""
        return tables.bins(self._columns(), self.model.document.get("points"))

    @property
    def information(self) -> pd.DataFrame:
        """Under `features="woe"`, the information value of every column, those that tell most first."""
        return tables.information(self._columns())

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The rows that were scored, by identifier: score (log-odds of bad) and probability."""
        scores = self._result.scores
        index = pd.Index(self._result.ids, name=self._result.settings.id)
        return pd.DataFrame({"score": scores, "probability": probability(scores)}, index=index)

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """What joining is worth to each member: AUC of its own, the federated and the pooled model, and the gain.

        `gain_low` and `gain_high` are the ends of the gain's 95 % interval; NaN where a figure cannot be had.

        Raises:
            ChaotianError: NOT_FOUND where no outcomes are known.
        """
        if self.benefit is None:
            raise ChaotianError("NOT_FOUND", "nothing can be compared: the scored rows have no outcomes")
        rows = []
        for name, member in self.benefit["members"].items():
            gain = member["gain"] or {}
            rows.append(
                {
                    "member": name,
                    "trains on": member["trained"]["rows"],
                    "measured on": member["rows"],
                    "alone": member["local"].get("auc"),
                    "federated": member["federated"].get("auc"),
                    "pooled": member.get("pooled", {}).get("auc"),
                    "gain": gain.get("auc"),
                    "gain_low": gain.get("low"),
                    "gain_high": gain.get("high"),
                    "joining": member["verdict"],
                }
            )
        figures = ["alone", "federated", "pooled", "gain", "gain_low", "gain_high"]
        return pd.DataFrame(rows).set_index("member").astype(dict.fromkeys(figures, "float64"))

    @property
    def metrics(self) -> pd.DataFrame:
        """AUC with its interval, KS and Gini of the federated and of the pooled model on all scored rows."""
        rows = {"federated": self.document["metrics"], "pooled (lab only)": self.document["metrics_pooled"]}
        table = pd.DataFrame.from_dict(rows, orient="index")
        columns = ["auc", "auc_low", "auc_high", "ks", "gini", "rows", "bads"]
        return table.reindex(columns=columns).rename_axis("model")

    @cached_property
    def plots(self) -> dict[str, Plot]:
        """The report's sections: `benefit`, `separation`, `coefficients`, `convergence`, `cost`."""
        result = self._result
        sections = training_sections(
            model=self.model,
            benefit=self.benefit,
            whole=together(result.scored, result.evaluated) if result.scored else None,
            members=result.scored,
            cost=self.document,
        )
        return {name: Plot(name, section) for name, section in sections.items() if section}

    def report(self) -> str:
        """Return the whole report as one HTML page that fetches nothing."""
        return output.report(self._result, self.document, self.benefit)

    def save(self, folder: Path | str) -> Path:
        """Write what `chaotian lab train` writes: result.json, scores.csv, model.json, benefit.json, report.html.

        Returns:
            the folder, made where it was missing.

        Raises:
            ChaotianError: STORAGE.
        """
        path = Path(folder).expanduser()
        output.prepare(path)
        output.write(self._result, path)
        return path

    def _columns(self) -> list[Any]:
        columns = tables.column_bins(self.model)
        if not columns:
            raise ChaotianError("NOT_FOUND", "this scorecard has no bins", hint='Train with features="woe".')
        return columns

    def __repr__(self) -> str:
        auc = self.document["metrics"]["auc"]
        shown = f"AUC {auc:.4f}" if auc is not None else "not measured"
        return f"<LabResult of {len(self.document['members'])} members: {shown}>"

    def _repr_html_(self) -> str:
        document = self.document
        figures = {name: document["metrics"][name] for name in ("auc", "ks", "gini")}
        facts = {name.upper() if len(name) < 4 else name: f"{v:.4f}" for name, v in figures.items() if v is not None}
        facts |= {"rounds": document["rounds"], "seconds": f"{document['seconds']:.2f}"}
        if document["max_logit_difference"] is not None:
            facts["largest difference to the pooled model (log-odds)"] = f"{document['max_logit_difference']:.1e}"
        parts = [facts_html(facts)]
        parts += [table_html(self.comparison)] if self.benefit is not None else []
        parts += [list_html(self.warnings)] if self.warnings else []
        return "".join(parts)


def train(
    members: Mapping[str, Rows],
    *,
    label: str,
    id: str = "",
    test: Rows | None = None,
    features: str = "raw",
    penalty: float = 1.0,
    impute: str = "none",
    seed: str | int = "1",
    holdout: float | None = None,
    folds: int | None = None,
    max_rounds: int = 40,
    bins: int | None = None,
    monotone: str | None = None,
    smoothing: float | None = None,
    edges: Mapping[str, Sequence[float]] | None = None,
    drop: Sequence[str] = (),
    category: Sequence[str] = (),
    processes: bool = False,
    progress: bool = True,
) -> LabResult:
    """Train a scorecard over the rows of several members, by the real protocol, and compare it.

    Args:
        members: rows by member, three members at least; all with the same columns.
        label: column of the outcome, 1 = bad.
        id: column that identifies a row; the index of the data frames where left out.
        test: rows to score at the end, never trained on; without them a share of each member's rows.
        features: `raw` (z-scores) or `woe` (weights of evidence of common bins).
        penalty, impute, seed, holdout, folds, max_rounds, bins, monotone, smoothing: as docs/lab.md says.
        edges: with `woe`, bin edges by column.
        drop: columns to leave out.
        category: columns to take as categories although they hold numbers.
        processes: real nodes, a process each, over TLS, in place of all members in this process.
        progress: whether to show a bar where somebody looks.

    Raises:
        ChaotianError: USAGE; DATA_* naming member, row and column; CONSTANT_FEATURE, SEPARABLE, …
    """
    given = {
        "features": features,
        "penalty": penalty,
        "impute": None if impute == "none" else impute,
        "seed": seed,
        "holdout": holdout,
        "folds": folds,
        "max_rounds": max_rounds,
        "bins": bins,
        "monotone": monotone,
        "smoothing": smoothing,
    }
    try:
        settings = TrainSettings(
            members={name: _rows(rows, name, id) for name, rows in members.items()},
            id=id or INDEX,
            label=label,
            test=None if test is None else _rows(test, "test", id),
            parameters=_parameters(given, edges),
            drop=tuple(drop),
            category=tuple(category),
            processes=processes,
        )
        if processes:
            node_names(settings.members)
        with bar(progress) as show:
            trainer = None
            if processes:

                def trainer(frames: Any, spec: Any) -> Any:
                    return fit_over_processes(frames, spec, on_step=show)

            return LabResult(run(settings, entropy=SystemEntropy(), on_step=show, trainer=trainer))
    except ChaotianError as error:
        raise _in_python(error) from None


def _rows(rows: Rows, name: str, identifier: str) -> Source:
    """Return a member's rows as a source that is called by the member's name."""
    if identifier:
        source = as_rows(rows, name)
        if source.frame is not None and identifier not in source.frame and source.frame.index.name == identifier:
            return replace(source, frame=source.frame.reset_index())
        return source
    if not isinstance(rows, pd.DataFrame):
        raise ChaotianError("USAGE", "the rows of a file are identified by a column", hint='Give id="…".')
    labels = [f"{name}-{label}" for label in rows.index]  # the same index at two members is two rows
    return Source(name, frame=rows.assign(**{INDEX: labels}))


def _parameters(given: Mapping[str, Any], edges: Mapping[str, Sequence[float]] | None) -> Parameters:
    """Return the parameters, checked as those that are typed."""
    parameters = parse_parameters([f"{key}={value}" for key, value in given.items() if value is not None])
    if edges is None:
        return parameters
    if parameters.features != "woe":
        raise ChaotianError("USAGE", 'edges needs features="woe"')
    document = {**parameters.binning.document(), "edges": {name: list(cuts) for name, cuts in edges.items()}}
    return replace(parameters, binning=BinningOptions.from_document(document))


def _in_python(error: ChaotianError) -> ChaotianError:
    """Return an error that speaks of options as one that speaks of arguments."""
    hint = "See `help(lab.train)`." if error.hint == CATALOGUE["USAGE"].remedy else _words(error.hint)
    return ChaotianError(error.code, _words(error.detail), hint=hint, member=error.member)


def _words(text: str) -> str:
    return text.replace("--param ", "").replace("--", "")
