"""What a home knows of how a model came about: its job, who took part, what became known of its worth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.errors import ChaotianError
from federation.learning.model import Model
from gateway.identity.home import Home, NodeConfig
from gateway.identity.node import own_entry
from gateway.jobs.store import JobStore


@dataclass(frozen=True)
class ModelFacts:
    """Facts beside a model's document; all empty where the home does not have its job.

    Args:
        purpose: of the job.
        dataset: its name at every member.
        members: who brought rows to the last round.
        member: whose home it is.
        result: what the job brought this member, as `chaotian job result --json` says it.
        evaluations: results of `evaluate` jobs of this model.
    """

    purpose: str = ""
    dataset: str = ""
    members: tuple[str, ...] = ()
    member: str = ""
    result: Mapping[str, Any] | None = None
    evaluations: tuple[Mapping[str, Any], ...] = ()


def facts_of(home: Path, model: Model) -> ModelFacts:
    """Return what the home knows of a model; a folder that is no node's home knows nothing.

    Raises:
        ChaotianError: STORAGE, VERSION.
    """
    if not (home / NodeConfig.FILE).is_file():
        return ModelFacts()
    opened = Home.node(home)
    opened.database.upgrade()
    store, own = JobStore(opened.database, time.time), own_entry(opened.database)
    member = own.member if own else ""
    try:
        row = store.get(str(model.document["job"]))
    except ChaotianError as error:
        if error.code != "NOT_FOUND":
            raise
        return ModelFacts(member=member)
    document, result = row.document, row.result
    members = (result or {}).get("roster") or document.members
    return ModelFacts(
        purpose=document.purpose,
        dataset=document.dataset,
        members=tuple(sorted(members)),
        member=member,
        result=result,
        evaluations=tuple(_evaluations(store, model.version)),
    )


def _evaluations(store: JobStore, version: str) -> list[Mapping[str, Any]]:
    """Return the figures of finished `evaluate` jobs of a model, the oldest first."""
    found = []
    for row in reversed(store.all()):
        figures = (row.result or {}).get("result")
        if row.document.kind == "evaluate" and isinstance(figures, Mapping) and figures.get("model") == version:
            found.append(figures)
    return found
