"""What a data scientist waits for: `binning`, `scorecard` on weights of evidence and `evaluate`, on three banks' rows.

In the lab all members are in this process. Over processes a platform and three nodes run as they would at three banks,
over real TLS; measured is from the first proposal to the last result at every node, each job proposed, accepted by
all and started through the nodes' local API.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.exactness import Case, _default_credit, _frame
from bench.rounds import grants, wait
from compose.space import Space, space
from federation.errors import ChaotianError
from federation.learning.binning import Binning, BinningSpec
from federation.learning.evaluate import Evaluate, EvaluateSpec
from federation.learning.frame import ScorecardSpec
from federation.learning.model import Model
from federation.learning.woe import WoeScorecard
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum.local import run_in_process
from gateway.transport.local import LocalClient

KINDS = ("binning", "scorecard", "evaluate")


def default_credit() -> Case:
    """Return the rows, columns and note of the comparison."""
    return _default_credit()


def in_lab(case: Case) -> float:
    """Return the seconds of the three jobs with all members in this process."""
    features = [feature.document() for feature in case.spec.features]
    params = {"label": case.spec.label, "features": features, "holdout": 0.2, "seed": "1"}
    scorecard = ScorecardSpec.from_document({**params, "coding": "woe"})
    frames = {name: _frame(rows, case.spec, case.identifier) for name, rows in case.members.items()}
    begun = time.perf_counter()
    bins = BinningSpec.from_document(params)
    run_in_process({name: Binning(bins, frame) for name, frame in frames.items()}, entropy=SystemEntropy())
    programs = {name: WoeScorecard(scorecard, frame) for name, frame in frames.items()}
    run_in_process(programs, entropy=SystemEntropy())
    model: Model = next(iter(programs.values())).model("lab")
    spec = EvaluateSpec(model.version, rows="holdout", holdout=0.2, seed="1")
    evaluations = {name: Evaluate(spec, model, frame) for name, frame in frames.items()}
    run_in_process(evaluations, entropy=SystemEntropy())
    seconds = time.perf_counter() - begun
    _check(next(iter(evaluations.values())).result.document())
    return seconds


def over_processes(case: Case, folder: Path) -> float:
    """Return the seconds of the three jobs between three nodes and a platform."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = [f"bank-{number}" for number in range(1, len(case.members) + 1)]
    with space(folder / "space", "bench") as here:
        _set_up(here, folder, dict(zip(names, case.members.values(), strict=True)), case)
        clients = {name: LocalClient(member.home) for name, member in here.members.items()}
        platform = LocalClient(here.platform.home)
        features = [feature.name for feature in case.spec.features]
        params: dict[str, Any] = {"label": case.spec.label, "features": features, "holdout": 0.2, "seed": "1"}
        begun = time.perf_counter()
        _job(clients, platform, "binning", params)
        found = _job(clients, platform, "scorecard", {**params, "coding": "woe"})
        evaluated = _job(clients, platform, "evaluate", {"model": found["model"], "rows": "holdout"})
        seconds = time.perf_counter() - begun
    _check(evaluated["result"])
    return seconds


def _check(document: Mapping[str, Any]) -> None:
    auc = document["auc"]
    if not 0.6 < auc["estimate"] < 0.9:
        raise ChaotianError("INTERNAL", f"the scorecard of the bench has an AUC of {auc['estimate']}")


def _job(
    clients: Mapping[str, LocalClient], platform: LocalClient, kind: str, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Run one job and return its result at the first member, once all have theirs."""
    first = next(iter(clients.values()))
    lines = [
        f'kind = "{kind}"', 'purpose = "credit-risk-model"', 'dataset = "loans"',
        f"members = {json.dumps(sorted(clients))}", "[params]",
        *(f"{name} = {json.dumps(value)}" for name, value in params.items()),
    ]  # fmt: skip
    job = first.call("job.propose", {"toml": "\n".join(lines)}, deadline=60.0)["id"]
    for client in clients.values():
        wait(lambda client=client: any(row["id"] == job for row in client.call("job.list", {})["jobs"]), "a proposal")
        client.call("job.accept", {"id": job}, deadline=60.0)
    platform.call("job.start", {"id": job}, deadline=180.0)
    for seen in platform.watch("job.watch", {"id": job}):
        last = seen
    if last["state"] != "done":
        raise ChaotianError("INTERNAL", f"the job {kind} ended as {last['state']}, code {last['code']}")
    for client in clients.values():
        wait(lambda client=client: client.call("job.show", {"id": job})["state"] == "done", "a result")
    found: dict[str, Any] = first.call("job.result", {"id": job})
    return found


def _set_up(here: Space, folder: Path, rows: Mapping[str, pd.DataFrame], case: Case) -> None:
    """Start all processes, load the data, make the grants."""
    described = "".join(
        f"[columns.{feature.name}]\n"
        + (
            f'type = "category"\nlevels = {json.dumps(list(feature.levels))}\n'
            if feature.type == "category"
            else 'type = "numeric"\n'
        )
        + 'disclosure = "aggregate"\n'
        for feature in case.spec.features
    )
    head = f'id = "{case.identifier}"\nlabel = "{case.spec.label}"\nas_of = "2024-12-31"\n'
    label = f'[columns.{case.spec.label}]\ntype = "integer"\ndisclosure = "aggregate"\n'
    (folder / "schema.toml").write_text(head + label + described)
    columns = [case.spec.label, *(feature.name for feature in case.spec.features)]
    operations = ["binning", "columns", "evaluate", "scorecard"]
    (folder / "grant.toml").write_text(
        f'grantee = "{next(iter(rows))}"\nroles = ["bank"]\npurposes = ["credit-risk-model"]\n'
        'legal_basis = "dsl-business-data"\nexp = "90d"\n[dataset]\nid = "loans"\n[columns]\n'
        + "".join(f'{name} = "aggregate"\n' for name in columns)
        + f'[[ops]]\nop = {json.dumps(operations)}\nmax_rounds = 100\n[quota]\ncalls = 1000\nper = "month"\n'
    )
    here.start_platform()
    for name, frame in rows.items():
        member = here.add(name, "bank", "Chongqing")
        kept = frame[[case.identifier, *columns]]
        kept.to_csv(folder / f"{name}.csv", index=False)
        here.run(member, "data", "add", "loans", folder / f"{name}.csv", "--schema", folder / "schema.toml")
    here.each(here.serve, here.members.values())
    here.approve_all()
    first = here.members[next(iter(rows))]
    for member in here.members.values():
        if member is not first:
            here.run(member, "grant", "propose", folder / "grant.toml")
    wait(lambda: len(grants(here, first, "proposed")) == len(rows) - 1, "grants to arrive")
    for row in grants(here, first, "proposed"):
        here.run(first, "grant", "accept", row["id"])
    wait(lambda: len(grants(here, first, "active")) == len(rows) - 1, "grants to be active")
