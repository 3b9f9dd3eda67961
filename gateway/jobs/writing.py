"""What a person may leave to the node when writing a job: types and levels of columns, versions of models, edges.

All of it is put into the document before it is signed, so that every member sees and accepts the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError


@dataclass(frozen=True)
class Training:
    """How the rows of a model's training were held out: what `rows = "holdout"` of an evaluation goes by."""

    version: str
    holdout: float | None = None
    seed: str = ""


def _no_columns(_: str) -> None:
    return None


@dataclass(frozen=True)
class Lookups:
    """What the proposer's own node knows; the platform knows none of it.

    Args:
        columns: dataset name -> {column: (`numeric` or `category`, levels)}; None where it is not known here.
        model: digits of a model's id, or of its job's -> the model; None where models are not held here.
        app: name of an installed Flower app -> SHA-256 of its source; None where none are installed here.
        edges: digits of a `binning` job's id -> its edges by numeric column; None where results are not held here.
    """

    columns: Callable[[str], Mapping[str, tuple[str, tuple[str, ...]]] | None] = _no_columns
    model: Callable[[str], Training] | None = None
    edges: Callable[[str], Mapping[str, list[float]]] | None = None
    app: Callable[[str], str] | None = None


def complete(document: Mapping[str, Any], lookups: Lookups) -> Any:
    """Return `params` of a written job with everything filled in that the node can tell.

    - An entry of `features` may be a column's name alone: type and levels are then those of the proposer's own
      dataset, or `numeric` where it is not known here. A table with `levels` needs no `type`.
    - `model` may be the first digits of a model's id or of its job's id, four at least.
    - `edges` may be the first digits of a finished `binning` job's id.
    - `rows = "holdout"` takes `holdout` and `seed` of the model's training job where they are left out.
    - `digest` of an `app` may be left out: it is then that of the app installed here.
    - a `seed` may be a whole number.

    Raises:
        ChaotianError: DATA_COLUMN for a column that the own dataset has not; NOT_FOUND for a model or job.
    """
    params = document["params"]
    if not isinstance(params, Mapping):
        return params
    out = dict(params)
    if type(out.get("seed")) is int:
        out["seed"] = str(out["seed"])
    if isinstance(out.get("model"), str) and lookups.model is not None and out["model"]:
        training = lookups.model(out["model"])
        out["model"] = training.version
        if out.get("rows") == "holdout" and training.holdout is not None:
            out.setdefault("holdout", training.holdout)
            out.setdefault("seed", training.seed)
    if out.get("rows") == "holdout" and not {"holdout", "seed"} <= set(out):
        raise ChaotianError(
            "BAD_DOCUMENT",
            "rows that training held out are told by the holdout and the seed of the training job",
            hint="Give both: this node does not know the job that made the model.",
        )
    if isinstance(out.get("app"), str) and "digest" not in out and lookups.app is not None:
        out["digest"] = lookups.app(out["app"])
    if isinstance(out.get("features"), list):
        name = document.get("dataset")
        own = lookups.columns(name) if isinstance(name, str) else None
        out["features"] = [_feature(entry, own) for entry in out["features"]]
    if isinstance(out.get("edges"), str):
        if lookups.edges is None:
            raise ChaotianError("BAD_DOCUMENT", "edges by a job's id are filled in by a member that holds its result")
        wanted = {f.get("name") for f in out.get("features", []) if isinstance(f, Mapping)}
        out["edges"] = {name: edges for name, edges in lookups.edges(out["edges"]).items() if name in wanted}
    return out


def _feature(entry: Any, own: Mapping[str, tuple[str, tuple[str, ...]]] | None) -> Any:
    if isinstance(entry, str):
        if own is not None and entry not in own:
            raise ChaotianError(
                "DATA_COLUMN",
                f"the own dataset has no column {entry[:120]}",
                hint="Name columns as `chaotian data show` does, or give type and levels in a table.",
            )
        kind, levels = own[entry] if own is not None else ("numeric", ())
        entry = {"name": entry, "type": kind, "levels": list(levels)}
        if kind == "category" and not levels:
            raise ChaotianError(
                "BAD_DOCUMENT",
                f"column {entry['name'][:120]} is a category without levels in the own schema",
                hint='Name them in the job: { name = "…", levels = ["…", "…"] }.',
            )
    if isinstance(entry, Mapping) and "type" not in entry:
        entry = {**entry, "type": "category" if entry.get("levels") else "numeric"}
    if isinstance(entry, Mapping) and entry.get("type") == "numeric" and entry.get("levels") == []:
        entry = {key: value for key, value in entry.items() if key != "levels"}
    return entry
