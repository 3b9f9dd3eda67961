"""What jobs leave, as pandas tables; and how they look in a notebook."""

from __future__ import annotations

import html
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.model import Model
from gateway.client import tables
from gateway.jobs.models import ModelStore
from gateway.jobs.worth import Worth
from gateway.reports.benefit import benefit
from gateway.reports.evaluation import evaluation_sections
from gateway.reports.page import fragment
from gateway.reports.training import training_sections
from gateway.scoring.estimator import FederatedScorecard
from gateway.storage.files import read_limited

MAX_ARRAYS = 4 << 30


@dataclass(frozen=True)
class Plot:
    """A section of the report with its plots and tables; a notebook draws it.

    Args:
        name: what it shows.
        html: the section, without a style.
    """

    name: str
    html: str

    def __repr__(self) -> str:
        return f"<Plot {self.name}>"

    def _repr_html_(self) -> str:
        return fragment(self.html)


class JobView:
    """What a job is and what would leave this node.

    Attributes:
        document: all of it, as `chaotian job show --json` prints it.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    @property
    def state(self) -> str:
        """`proposed`, `accepted`, `running`, `interrupted`, `done`, `failed` or `cancelled`."""
        return str(self.document["state"])

    @property
    def kind(self) -> str:
        """What is computed, e.g. `scorecard`."""
        return str(self.document["kind"])

    @property
    def members(self) -> list[str]:
        """Who takes part."""
        return list(self.document["members"])

    @property
    def accepted(self) -> list[str]:
        """Who has accepted."""
        return list(self.document["accepted"])

    @property
    def leaves(self) -> pd.DataFrame:
        """What would leave this node, round by round: operation, times, fields, values, bytes."""
        rounds = (self.document.get("leaves") or {}).get("rounds", [])
        rows = [
            {
                "operation": entry["operation"],
                "times": entry["times"],
                "fields": ", ".join(f"{name} × {length}" for name, length in entry["fields"].items()),
                "values": entry["values"],
                "bytes": entry["bytes"],
            }
            for entry in rounds
        ]
        return pd.DataFrame(rows, columns=["operation", "times", "fields", "values", "bytes"]).set_index("operation")

    @property
    def leaks(self) -> list[str]:
        """What can be read from what leaves, in sentences."""
        return list((self.document.get("leaves") or {}).get("leaks", []))

    @property
    def obstacles(self) -> list[str]:
        """What is in the way of this member, with what to do about it."""
        return [f"{o['code']}: {o['detail']} {o['hint']}" for o in self.document["obstacles"]]

    def __repr__(self) -> str:
        return f"<JobView {self.document['id'][:12]} {self.kind}, {self.state}>"

    def _repr_html_(self) -> str:
        facts = {
            "job": self.document["id"][:12],
            "kind": self.kind,
            "purpose": self.document["purpose"],
            "proposed by": self.document["proposer"],
            "members": ", ".join(self.members),
            "state": self.state,
            "accepted by": ", ".join(self.accepted) or "nobody yet",
        }
        parts = [facts_html(facts)]
        if len(self.leaves):
            parts += ["<p><b>What leaves this node</b></p>", table_html(self.leaves)]
            parts += ["<p><b>What can be read from it</b></p>", list_html(self.leaks)] if self.leaks else []
        if self.obstacles:
            parts += ["<p><b>In the way</b></p>", list_html(self.obstacles)]
        return "".join(parts)


class Benefit:
    """What joining was worth to this member, measured at home on its own rows.

    Attributes:
        document: as `chaotian model report` writes it.
        plots: `benefit`, `separation`, `coefficients`, `convergence`.
    """

    def __init__(self, model: Model, worth: Worth) -> None:
        name, facts = worth.facts.member, worth.facts
        measured = benefit({name: worth.scored}, {name: worth.trained}, worth.evaluated)
        self.document: dict[str, Any] = {
            "model": model.version,
            "job": model.document["job"],
            "purpose": facts.purpose,
            "dataset": worth.dataset,
            **measured,
        }
        sections = training_sections(
            model=model, benefit=measured, whole=worth.scored, members={name: worth.scored}, cost={"bytes": {}}
        )
        self.plots = {title: Plot(title, part) for title, part in sections.items() if part and title != "cost"}

    @property
    def verdict(self) -> str:
        """`pays`, `costs`, `no clear difference`, `only together` or `cannot be measured`."""
        return str(self._own["verdict"])

    @property
    def table(self) -> pd.DataFrame:
        """AUC with interval, KS and Gini of the federated and of the own model on the same rows."""
        return tables.own_figures(self._own)

    @property
    def gain(self) -> dict[str, float] | None:
        """AUC federated minus AUC alone, `auc`, with the ends of its 95 % interval, `low` and `high`."""
        found: dict[str, float] | None = self._own["gain"]
        return found

    @property
    def _own(self) -> Mapping[str, Any]:
        own: Mapping[str, Any] = next(iter(self.document["members"].values()))
        return own

    def __repr__(self) -> str:
        return f"<Benefit on {self.document['dataset']}: {self.verdict}>"

    def _repr_html_(self) -> str:
        facts: dict[str, Any] = {"measured on": self.document["dataset"], "joining": self.verdict}
        if self.gain:
            facts["gain in AUC"] = "{auc:+.4f} ({low:+.4f} to {high:+.4f})".format_map(self.gain)
        return facts_html(facts) + table_html(self.table)


class JobResult:
    """What a finished job brought this member. A table that its kind of job does not have is NOT_FOUND.

    Attributes:
        document: all of it, as `chaotian job result --json` prints it.

    Example:
        >>> result = job.result()
        >>> result.coefficients.sort_values("p")
        >>> result.scorecard.predict_proba(applicants)
    """

    TABLES = ("own", "coefficients", "information", "bins", "profile", "evaluation", "deciles", "stability")

    def __init__(self, document: Mapping[str, Any], home: Path) -> None:
        self.document = document
        self._home = home

    @cached_property
    def model(self) -> Model:
        """The trained scorecard."""
        version = self.document.get("model")
        if not isinstance(version, str) or not version:
            raise _absent("model")
        return ModelStore(self._home).get(version)

    @property
    def scorecard(self) -> FederatedScorecard:
        """The trained scorecard as a scikit-learn classifier."""
        return FederatedScorecard(self.model)

    @property
    def coefficients(self) -> pd.DataFrame:
        """Lines of the scorecard: value, standard_error, z, p, vif."""
        return tables.coefficients(self.model)

    @property
    def bins(self) -> pd.DataFrame:
        """Bins of every column of a binning, or of a scorecard on weights of evidence: rows, bad, rate, woe, points."""
        columns = self._columns()
        points = self.model.document.get("points") if self._binning is None else None
        return tables.bins(columns, points)

    @property
    def information(self) -> pd.DataFrame:
        """Information value of every binned column, those that tell most first."""
        return tables.information(self._columns())

    @property
    def profile(self) -> pd.DataFrame:
        """One row for each column of a profile: present, missing, violations, mean, sd, skewness, low, high."""
        return tables.flat(self._part(tables.PROFILE, "profile")["columns"], "name")

    @property
    def evaluation(self) -> pd.DataFrame:
        """AUC, KS, Gini with intervals, Brier score and log-loss over all members' rows."""
        return tables.evaluation(self._part(tables.EVALUATION, "evaluation"))

    @property
    def deciles(self) -> pd.DataFrame:
        """Tenths of all members' rows, the riskiest first: rows, bads, rate, predicted, lift, gain."""
        return tables.deciles(self._part(tables.EVALUATION, "evaluation"))

    @property
    def stability(self) -> pd.DataFrame:
        """One row for each column: index, what chance alone would give, and a verdict."""
        return tables.flat(self._part(tables.STABILITY, "stability")["shifts"], "name")

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The trained arrays of a `fedavg` job, by name."""
        place = self.document.get("arrays")
        if not isinstance(place, str):
            raise _absent("arrays")
        data = read_limited(self._home / place, MAX_ARRAYS, code="NOT_FOUND")
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            raise ChaotianError("STORAGE", "the file of the arrays is damaged") from None

    @property
    def own(self) -> pd.DataFrame:
        """Figures on this member's own rows, which stay here: AUC with interval, KS, Gini, a row for each model."""
        own = self.document.get("holdout") or self.document.get("own")
        found = tables.own_figures(own if isinstance(own, Mapping) else {})
        if not len(found):
            raise _absent("figures on own rows")
        return found

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables this result has, by name."""
        out = {}
        for name in self.TABLES:
            try:
                out[name] = getattr(self, name)
            except ChaotianError as error:
                if error.code != "NOT_FOUND":
                    raise
        return out

    @cached_property
    def plots(self) -> dict[str, Plot]:
        """Plots this result has: `coefficients` and `convergence` of a scorecard, `calibration` and `gain`."""
        sections: dict[str, str] = {}
        if self.document.get("model"):
            found = training_sections(model=self.model, benefit=None, whole=None, members={}, cost={"bytes": {}})
            sections |= {name: found[name] for name in ("coefficients", "convergence")}
        figures = tables.find_format(self.document, tables.EVALUATION)
        sections |= evaluation_sections(figures) if figures is not None else {}
        return {name: Plot(name, part) for name, part in sections.items() if part}

    def __repr__(self) -> str:
        return f"<JobResult {self.document['id'][:12]}: {', '.join(self.tables) or 'no tables'}>"

    def _repr_html_(self) -> str:
        named = ("id", "model", "rounds", "seconds")
        facts = {key: str(self.document[key])[:12] for key in named if self.document.get(key) not in (None, "")}
        parts = [facts_html(facts)]
        for name, table in self.tables.items():
            parts += [f"<p><b>{html.escape(name)}</b></p>", table_html(table)]
        return "".join(parts)

    @cached_property
    def _binning(self) -> Mapping[str, Any] | None:
        return tables.find_format(self.document, tables.BINNING)

    def _columns(self) -> list[Any]:
        columns = tables.column_bins(self._binning if self._binning is not None else self.model)
        if not columns:
            raise _absent("binned column")
        return columns

    def _part(self, wanted: str, what: str) -> Mapping[str, Any]:
        found = tables.find_format(self.document, wanted)
        if found is None:
            raise _absent(what)
        return found


def _absent(what: str) -> ChaotianError:
    return ChaotianError("NOT_FOUND", f"this result has no {what}", hint="`result.tables` holds all that it has.")


# --- in a notebook ----------------------------------------------------------------------------------------------------


def facts_html(facts: Mapping[str, Any]) -> str:
    """Return names and values as a small table; everything is escaped."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def list_html(sentences: list[str]) -> str:
    """Return sentences as a list."""
    return f"<ul>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in sentences)}</ul>"


def table_html(table: pd.DataFrame) -> str:
    """Return the first rows of a table."""
    return table.to_html(max_rows=30, float_format=lambda value: f"{value:.4f}", na_rep="", border=0)
