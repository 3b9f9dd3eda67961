"""What a node fills into a job its owner writes, from its own datasets, models and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federation.errors import ChaotianError
from gateway.datasets.book import DatasetBook
from gateway.jobs import apps
from gateway.jobs.data import resolve
from gateway.jobs.models import ModelStore
from gateway.jobs.store import JobStore
from gateway.jobs.writing import Lookups, Training


def lookups_of(datasets: DatasetBook, models: ModelStore, store: JobStore) -> Lookups:
    """Return the lookups of a node."""

    def columns(source: str) -> Mapping[str, tuple[str, tuple[str, ...]]] | None:
        try:
            schema = resolve(datasets, source).schema
        except ChaotianError:
            return None  # who proposes need not take part
        return {
            column.name: ("category", column.levels) if column.type == "category" else ("numeric", ())
            for column in schema.columns
        }

    def model(digits: str) -> Training:
        try:
            document = models.get(digits).document
        except ChaotianError as error:
            if error.code != "NOT_FOUND" or len(digits) != 64:
                raise
            return Training(digits)  # who proposes need not hold it: it need not take part
        try:
            params = store.get(str(document["job"])).document.params
        except ChaotianError:
            return Training(str(document["version"]))
        return Training(str(document["version"]), float(params.get("holdout", 0.0)), str(params.get("seed", "")))

    def edges(digits: str) -> Mapping[str, list[float]]:
        row = store.find(digits)
        result: Mapping[str, Any] = (row.result or {}).get("result") or {}
        if result.get("format") != "chaotian-binning/1":
            raise ChaotianError("NOT_FOUND", "edges are those of a finished job of the kind binning")
        return {
            column["name"]: [float.fromhex(edge) for edge in column["edges"]]
            for column in result["columns"]
            if column.get("edges") is not None
        }

    return Lookups(columns, model, edges, lambda name: apps.find(name).digest)
