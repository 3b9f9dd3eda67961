"""Training with real nodes: a platform and one node a member, each a process of its own, over TLS, for `--processes`.

What a person would do is done here by the same commands: enrol, approve, add data, grant, propose, accept, start. The
nodes know nothing of a lab: every floor, grant and limit is in force. Keys, homes and data lie in a private folder
that is removed at the end.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from federation.errors import CATALOGUE, ChaotianError
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.model import Model
from gateway.identity.names import check_name
from gateway.jobs.plans import ScorecardPlan
from gateway.lab.processes import CommandError, Member, Space, space
from gateway.lab.training import Fit, OnStep

MAX_MEMBERS = 16  # a node is a process of about 150 MB
ARRIVAL_SECONDS = 30.0
JOB_SECONDS = 900.0
STEPS = 8
_Got = TypeVar("_Got")


def node_names(members: Mapping[str, Any]) -> dict[str, str]:
    """Return the node's name of each member: lower case, hyphens for underscores and dots.

    Raises:
        ChaotianError: USAGE where a name does not fit, two become one, or there are too many.
    """
    out: dict[str, str] = {}
    if len(members) > MAX_MEMBERS:
        raise ChaotianError("USAGE", f"--processes is for at most {MAX_MEMBERS} members on one machine")
    for member in members:
        name = check_name(member.lower().replace("_", "-").replace(".", "-"), "node", code="USAGE")
        if name in out.values() or name == "platform":
            raise ChaotianError(
                "USAGE", f"{member} cannot be the name of a node here", hint="Name the members otherwise."
            )
        out[member] = name
    return out


def fit_over_processes(frames: Mapping[str, Frame], spec: ScorecardSpec, *, on_step: OnStep) -> Fit:
    """Train the federated model among nodes in processes of their own.

    Args:
        frames: training rows by member; values may be missing where the parameters say how they count.

    Raises:
        ChaotianError: as a node or the platform says it.
    """
    names = node_names(frames)
    root = Path(tempfile.mkdtemp(prefix="chaotian-lab-"))  # mode 0700
    try:
        with space(root / "space", "lab") as here:
            return _run(here, {names[member]: frame for member, frame in frames.items()}, names, spec, root, on_step)
    except CommandError as error:
        raise _as_error(error) from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run(
    here: Space, frames: Mapping[str, Frame], names: Mapping[str, str], spec: ScorecardSpec, root: Path, on_step: OnStep
) -> Fit:
    on_step("starting the platform", 0, STEPS)
    here.start_platform()
    on_step("enrolling the members", 1, STEPS)
    here.each(lambda name: here.add(name, "bank", "Lab"), frames)
    on_step("loading their rows", 2, STEPS)
    schema = root / "schema.toml"
    schema.write_text(_schema(spec))

    def load(member: Member) -> None:
        rows = root / f"{member.name}.csv"
        _write(rows, frames[member.name], spec)
        here.run(member, "data", "add", "rows", rows, "--schema", schema)
        rows.unlink()

    here.each(load, here.members.values())
    on_step("starting the nodes", 3, STEPS)
    here.each(here.serve, here.members.values())
    on_step("approving each other", 4, STEPS)
    here.approve_all()
    on_step("granting the use of sums", 5, STEPS)
    proposer, *others = here.members.values()
    grant = root / "grant.toml"
    grant.write_text(_grant(proposer.name, spec))
    granted = here.each(lambda member: here.json(member, "grant", "propose", grant)["id"], others)
    here.each(lambda one: _arrived(lambda: here.run(proposer, "grant", "accept", one)), granted)
    on_step("proposing and accepting the job", 6, STEPS)
    path = root / "job.toml"
    path.write_text(_job(list(frames), spec))
    job = here.json(proposer, "job", "propose", path)["id"]
    here.each(lambda member: _arrived(lambda: here.run(member, "job", "accept", job)), here.members.values())
    last = _watch(here, job, on_step)
    result = _arrived(lambda: here.json(proposer, "job", "result", job))
    out = root / "model.json"
    here.run(proposer, "model", "export", result["model"], "--out", out)
    models = here.each(lambda m: _arrived(lambda: here.json(m, "job", "result", job))["model"], here.members.values())
    if len(set(models)) != 1:
        raise ChaotianError("STATE_MISMATCH", "the nodes hold different models")
    progress = last["progress"]
    traffic = {member: progress["members"][name] for member, name in names.items()}
    return Fit(
        model=Model.load(json.loads(out.read_text())),
        rounds=len(progress["rounds"]),
        seconds=float(progress["seconds"]),
        sent={member: int(entry["received"]) for member, entry in traffic.items()},  # as the platform counts
        received={member: int(entry["sent"]) for member, entry in traffic.items()},
    )


def _watch(here: Space, job: str, on_step: OnStep) -> dict[str, Any]:
    """Start the job and follow it to its end; raise what it ended with."""
    from gateway.transport.local import LocalClient

    here.run(here.platform, "job", "start", job)
    last: dict[str, Any] = {}
    for last in LocalClient(here.platform.home).watch("job.watch", {"id": job}, deadline=JOB_SECONDS):
        progress = last.get("progress") or {}
        if progress.get("round"):
            on_step(f"round {progress['round']}: {progress['operation']}, {progress['stage']}", 7, STEPS)
    if last.get("state") != "done":
        for member in here.members.values():
            _arrived(lambda member=member: _over(here, member, job))  # type: ignore[misc]
            here.run(member, "job", "result", job)  # raises the job's own code, with what is in the way
        raise ChaotianError(last.get("code") or "INTERNAL", "the job did not end well")
    return last


def _over(here: Space, member: Member, job: str) -> None:
    if here.json(member, "job", "show", job)["state"] not in ("done", "failed", "cancelled"):
        raise CommandError(["job", "show"], 4, "chaotian: error NOT_FOUND: the job is not over there yet\n")


def _arrived(action: Callable[[], _Got]) -> _Got:
    """Do `action`, again while what it needs is still on its way to the node."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while True:
        try:
            return action()
        except CommandError as error:
            if error.code not in ("NOT_FOUND", "JOB_STATE", "NOT_APPROVED") or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _as_error(error: CommandError) -> ChaotianError:
    """Return the error a command printed as the error it was."""
    if error.code not in CATALOGUE:
        return ChaotianError("INTERNAL", f"a node ended with status {error.status} and no error of its own")
    lines = error.stderr.splitlines()
    head = next(line for line in lines if line.startswith("chaotian: error "))
    hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), "")
    return ChaotianError(error.code, head.partition(": ")[2].partition(": ")[2], hint=hint)


# --- the documents a person would write -----------------------------------------------------------------------------


def _text(value: str) -> str:
    return json.dumps(value)  # a TOML basic string as well


def _columns(spec: ScorecardSpec) -> list[str]:
    return [spec.label, *(feature.name for feature in spec.features)]


def _schema(spec: ScorecardSpec) -> str:
    lines = ['id = "row id"', f"label = {_text(spec.label)}"]
    kinds = {feature.name: feature.type for feature in spec.features}
    for name in _columns(spec):
        lines += [f"[columns.{_text(name)}]", f'type = "{kinds.get(name, "integer")}"', 'disclosure = "aggregate"']
        if name != spec.label and (spec.impute or spec.coding == "woe"):
            lines.append('missing = "allow"')
    return "\n".join(lines) + "\n"


def _write(path: Path, frame: Frame, spec: ScorecardSpec) -> None:
    columns = []
    for name in _columns(spec):
        values = np.asarray(frame.columns[name])
        if name == spec.label:
            columns.append([str(int(value)) for value in values])
        else:
            columns.append([_cell(value) for value in values.tolist()])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row id", *_columns(spec)])
        writer.writerows(zip(frame.ids, *columns, strict=True))


def _cell(value: Any) -> str:
    """Return a value as CSV has it; a missing one is empty."""
    if not isinstance(value, float):
        return str(value)
    return "" if value != value else repr(value)


def _grant(grantee: str, spec: ScorecardSpec) -> str:
    words = sorted({operation.partition(".")[0] for operation in ScorecardPlan(spec).operations()})
    return (
        f'grantee = "{grantee}"\nroles = ["bank"]\npurposes = ["model-validation"]\n'
        'legal_basis = "dsl-business-data"\nexp = "1d"\nduties = []\n[dataset]\nid = "rows"\n[columns]\n'
        + "".join(f'{_text(name)} = "aggregate"\n' for name in _columns(spec))
        + f"[[ops]]\nop = {json.dumps(words)}\nmax_rounds = {ScorecardPlan(spec).max_rounds}\n"
        '[quota]\ncalls = 10000\nper = "day"\n'
    )


def _job(members: list[str], spec: ScorecardSpec) -> str:
    lines = [
        'kind = "scorecard"',
        'purpose = "model-validation"',
        'dataset = "rows"',
        f"members = {json.dumps(sorted(members))}",
        "stage_seconds = 60",
        "[params]",
        *(f"{_text(name)} = {_toml(value)}" for name, value in spec.document().items()),
    ]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_text(key)} = {_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return _text(value) if isinstance(value, str) else repr(value)
