"""What a model of a real federation is worth to this member, on its own rows: computed at home, and stays there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from federation.errors import ChaotianError
from federation.learning.compare import fit_alone
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.holdout import held_out
from federation.learning.model import Model
from gateway.datasets.book import DatasetBook
from gateway.identity.home import Home
from gateway.identity.node import own_entry
from gateway.jobs.data import resolve
from gateway.jobs.document import dataset_name
from gateway.jobs.facts import ModelFacts, facts_of
from gateway.jobs.plans import ScorecardPlan
from gateway.jobs.store import JobStore
from gateway.reports.benefit import Scored


@dataclass(frozen=True)
class Worth:
    """One member's rows, scored by the federated model and by the one that it could have trained alone.

    Args:
        facts: of the model.
        dataset: name of the rows that were scored.
        evaluated: `holdout` (own rows that no model was trained on), `test` (another dataset) or `training`.
        scored: outcome and both scores.
        trained: own training rows, and bad ones among them.
    """

    facts: ModelFacts
    dataset: str
    evaluated: str
    scored: Scored
    trained: tuple[int, int]


def own_worth(home: Path, model: Model, data: str = "") -> Worth:
    """Return what joining was worth to the member of a home, on the rows its acceptance bound it to.

    Args:
        data: a dataset of the home to measure on, with outcomes; where empty, the job's test dataset, or the own
            held-out rows, or without any the training rows.

    Raises:
        ChaotianError: CONFIG; NOT_FOUND where the home does not have the job or its rows; DATA_*.
    """
    opened = Home.node(home)
    opened.database.upgrade()
    facts, store = facts_of(home, model), JobStore(opened.database, time.time)
    row, own = store.get(str(model.document["job"])), own_entry(opened.database)
    acceptance = store.acceptances(row.id).get(own.member if own else "")
    if acceptance is None:
        raise ChaotianError("NOT_FOUND", "this member did not bring rows to the job that made the model")
    document, plan = row.document, row.document.plan
    if not isinstance(plan, ScorecardPlan):
        raise ChaotianError("NOT_FOUND", f"a job of the kind {document.kind} makes no scorecard")
    spec = plan.spec
    book, name = DatasetBook(opened.database, opened.path), dataset_name(document.dataset)
    frame = book.load_for_job(name, spec.columns, snapshot=acceptance.data[0].snapshot)
    held = held_out(frame.ids, spec.seed, spec.holdout)
    training = frame.take(~held)
    test = data or document.test
    if test:
        rows, evaluated, name = _labelled(book, model, test), "test", test
    else:
        rows, evaluated = (frame.take(held), "holdout") if held.any() else (training, "training")
    label = training.label(spec.label)
    return Worth(facts, name, evaluated, _scored(model, spec, training, rows), (len(training), int(label.sum())))


def _labelled(book: DatasetBook, model: Model, name: str) -> Frame:
    dataset = resolve(book, name)
    return book.load(dataset.name, [model.label, *model.columns], snapshot=dataset.snapshot)


def _scored(model: Model, spec: ScorecardSpec, training: Frame, rows: Frame) -> Scored:
    label, federated = rows.label(spec.label), model.score(rows)
    try:
        return Scored(label, federated, fit_alone(spec, training).score(rows))
    except ChaotianError as error:  # the own model may not exist: too few rows, one outcome, separable
        return Scored(label, np.asarray(federated), None, why=error.code)
