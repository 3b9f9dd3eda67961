"""A space of real processes that can be held, killed and starved of disk at any point, and what must hold after."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.pooled import PooledScorecard
from compose.space import CommandError, Member, Space
from federation.errors import ChaotianError
from gateway.cli.main import run
from gateway.transport.local import LocalClient
from tests.support.jobs_kit import to_toml

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
BANKS = ("bank-1", "bank-2", "bank-3", "bank-4")
FILES = dict(zip(BANKS, ("bank-1", "bank-2", "bank-3", "test"), strict=True))
COLUMNS = ("x1", "x4", "x7", "x13")
PURPOSE = "credit-risk-model"
ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    command: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def code(self) -> str:
        """Its error code, empty where there was none."""
        line = next((line for line in self.err.splitlines() if line.startswith("chaotian: error ")), "")
        return line.removeprefix("chaotian: error ").split(":")[0]

    @property
    def hint(self) -> str:
        """Its hint."""
        return next((line[6:] for line in self.err.splitlines() if line.startswith("hint: ")), "")


def rows_of(bank: str, count: int = 1000) -> pd.DataFrame:
    """Return a bank's rows."""
    return pd.read_csv(DATA / f"default_credit_{FILES[bank]}.csv").head(count)


def eventually(look: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Return the first true value of `look`; fail after a generous deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)


class Watch(threading.Thread):
    """Everything `job.watch` of the platform says of a job."""

    def __init__(self, home: Path, job: str) -> None:
        super().__init__(daemon=True)
        self.home, self.job, self.seen, self.error = home, job, [], ""
        self.open = threading.Event()
        self.start()
        assert self.open.wait(10)

    def run(self) -> None:
        """Collect until the job ends."""
        try:
            for seen in LocalClient(self.home).watch("job.watch", {"id": self.job}, deadline=90.0):
                self.seen.append(seen)
                self.open.set()
        except ChaotianError as error:
            self.error = error.code
            self.open.set()

    def until(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Return the first event that is wanted."""
        return eventually(lambda: next((seen for seen in self.seen if wanted(seen)), None), what)


class Faulty(Space):
    """Four banks and a platform that run `tests.integration.crashing`; commands run in this process, for speed."""

    def __init__(self, root: Path, name: str = "faults") -> None:
        super().__init__(root, name, serving=[sys.executable, "-m", "tests.integration.crashing"])
        self.rows: dict[str, pd.DataFrame] = {}
        self._armed: list[Path] = []

    # --- commands ------------------------------------------------------------------------------------------

    def cli(self, member: Member | str | None, *command: str | Path) -> Outcome:
        """Run one command as the command line would, in the home of `member`, and return what came of it."""
        words = [str(word) for word in command]
        if isinstance(member, str):
            member = self.platform if member == "platform" else self.members[member]
        before = os.environ.pop("CHAOTIAN_HOME", None)
        if member is not None:
            os.environ["CHAOTIAN_HOME"] = str(member.home)
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = run(words)
        finally:
            os.environ.pop("CHAOTIAN_HOME", None)
            if before is not None:
                os.environ["CHAOTIAN_HOME"] = before
        return Outcome(tuple(words), status, out.getvalue(), err.getvalue())

    def run(self, member: Member | str | None, *command: str | Path, timeout: float = 120.0) -> str:
        """Run one command that must succeed; return its standard output."""
        done = self.cli(member, *command)
        if done.status:
            raise CommandError(list(done.command), done.status, done.err)
        return done.out

    def each(self, action: Any, items: Iterable[Any], workers: int = 2) -> list[Any]:
        """Run `action` for all items, one after the other: output is caught for the whole process."""
        return [action(item) for item in items]

    def serve(self, member: Member, *, ahead: float = 0.0) -> None:
        """Start the member's process with a folder of points of its own and a clock that is `ahead` seconds off."""
        own = {"CHAOTIAN_TEST_POINTS": str(self.points(member)), "CHAOTIAN_TEST_CLOCK": str(ahead)}
        os.environ.update(own)
        try:
            super().serve(member)
        finally:
            for name in own:
                del os.environ[name]

    def restart(self, name: str, *, ahead: float = 0.0) -> None:
        """Stop a process in order and start it again."""
        member = self.member(name)
        if member.process is not None and member.process.poll() is None:
            member.process.terminate()
            member.process.wait(40)
        self.serve(member, ahead=ahead)

    # --- points --------------------------------------------------------------------------------------------

    def points(self, member: Member) -> Path:
        """Return the folder of the member's points."""
        folder = self.root / "points" / member.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def member(self, name: str) -> Member:
        """Return a member, or the platform, by name."""
        return self.platform if name == "platform" else self.members[name]

    def arm(self, name: str, point: str, what: str = "kill") -> Path:
        """Have a process do something when it comes to a point."""
        path = self.points(self.member(name)) / point
        path.with_suffix(path.suffix + ".reached").unlink(missing_ok=True)
        path.write_text(what)
        self._armed.append(path)
        return path

    def reached(self, path: Path, seconds: float = 60.0) -> None:
        """Wait until the process has come to an armed point."""
        eventually(path.with_suffix(path.suffix + ".reached").exists, f"{path.parent.name} at {path.name}", seconds)

    @contextlib.contextmanager
    def held(self, name: str, point: str) -> Iterator[None]:
        """Hold a process at a point while the block runs; waits until it is there."""
        path = self.arm(name, point, "hold")
        try:
            self.reached(path)
            yield
        finally:
            path.unlink(missing_ok=True)

    def dead(self, name: str, seconds: float = 60.0) -> None:
        """Wait until a process has been killed by its point."""
        process = self.member(name).process
        assert process is not None
        assert process.wait(seconds) == -9

    def recover(self) -> None:
        """Take all points away, start who is down, give disks back, and wait until everybody is connected."""
        for path in self._armed:
            path.unlink(missing_ok=True)
        self._armed.clear()
        for member in (self.platform, *self.members.values()):
            if member.process is None or member.process.poll() is not None:
                self.serve(member)
            else:
                self.disk(member.name, full=False)
        self.connected()

    def connected(self, names: Iterable[str] = ()) -> None:
        """Wait until the members are connected to the platform and say so."""
        for name in names or self.members:
            eventually(lambda name=name: self.call(name, "node.status").get("connected"), f"{name} to be connected")

    def call(self, name: str, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of a member's local API; nothing where it does not answer."""
        try:
            return LocalClient(self.member(name).home).call(method, params)
        except ChaotianError:
            return {}

    def disk(self, name: str, *, full: bool) -> None:
        """Let no file of a process grow or be written, or let it again: by the kernel, for this process alone."""
        pid = self.member(name).pid
        most = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if full else most, most))

    # --- data, grants, jobs --------------------------------------------------------------------------------

    def build(self, *options: str) -> None:
        """Make the space: platform, banks, approvals, data, grants to bank-1."""
        self.start_platform(*options)
        for name in BANKS:
            self.serve(self.add(name, "bank", "Chongqing"))
        self.approve_all()
        for name in BANKS:
            assert self.load(name, rows_of(name)).status == 0
        for name in BANKS[1:]:
            self.grant(name)

    def schema(self) -> Path:
        """Return the schema of the data."""
        path = self.root / "schema.toml"
        if not path.exists():
            lines = ['id = "id"', 'label = "y"', "[columns.y]", 'type = "integer"', 'disclosure = "aggregate"']
            for column in COLUMNS:
                lines += [f"[columns.{column}]", 'type = "numeric"', 'disclosure = "aggregate"']
            path.write_text("\n".join(lines) + "\n")
        return path

    def load(self, name: str, rows: pd.DataFrame, dataset: str = "loans") -> Outcome:
        """Give a bank its rows."""
        file = self.root / f"{name}-{dataset}.csv"
        rows[["id", "y", *COLUMNS]].to_csv(file, index=False)
        done = self.cli(name, "data", "add", dataset, file, "--schema", self.schema())
        if not done.status and dataset == "loans":
            self.rows[name] = rows
        return done

    def grant(self, owner: str, *, dataset: str = "loans", calls: int = 10_000, changes: int = 1) -> str:
        """Have `owner` grant bank-1 totals of a dataset; return the grant's id once it is active at both."""
        file = self.root / f"grant-{owner}.toml"
        columns = "".join(f'{name} = "aggregate"\n' for name in ("y", *COLUMNS))
        file.write_text(
            f'grantee = "bank-1"\nroles = ["bank"]\npurposes = ["{PURPOSE}"]\nlegal_basis = "dsl-business-data"\n'
            f'nbf = {int(time.time()) - 3600}\nexp = "90d"\nduties = []\n'
            f'[dataset]\nid = "{dataset}"\n[columns]\n{columns}'
            f'[[ops]]\nop = "scorecard"\nmax_rounds = 40\nmax_roster_changes = {changes}\n'
            f'[quota]\ncalls = {calls}\nper = "month"\n'
        )
        grant: str = self.json(owner, "grant", "propose", file)["id"]
        eventually(lambda: self.cli("bank-1", "grant", "accept", grant).status == 0, "the grant to arrive")
        eventually(lambda: self.json(owner, "grant", "show", grant)["state"] == "active", "the grant to be active")
        return grant

    def job_file(self, **changes: Any) -> Path:
        """Write a job."""
        fields: dict[str, Any] = {
            "kind": "scorecard",
            "purpose": PURPOSE,
            "members": list(BANKS),
            "dataset": "loans",
            "label": "y",
            "holdout": 0.0,
            "stage_seconds": 8.0,
            "features": COLUMNS,
        } | changes
        params = {name: fields.pop(name) for name in ("label", "holdout", "features")}
        lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
        lines += ["[params]", *(f"{name} = {to_toml(value)}" for name, value in params.items())]
        path = self.root / "job.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def propose(self, **changes: Any) -> str:
        """Propose a job in the name of bank-1 and wait until every member has it."""
        job: str = self.json("bank-1", "job", "propose", self.job_file(**changes))["id"]
        for name in changes.get("members", BANKS):
            eventually(lambda name=name: self.cli(name, "job", "show", job).status == 0, f"{name} to get the job")
        return job

    def accepted(self, **changes: Any) -> str:
        """Propose a job and have everybody accept it, with consent to what earlier jobs of these tests expose."""
        job = self.propose(**changes)
        for name in changes.get("members", BANKS):
            self.run(name, "job", "accept", job, "--exposure-consent")
        return job

    def started(self, **changes: Any) -> tuple[str, Watch]:
        """Start an accepted job; return it with what is seen of it from before its start."""
        job = self.accepted(**changes)
        watch = Watch(self.platform.home, job)
        self.run("platform", "job", "start", job)
        return job, watch

    def state(self, name: str, job: str) -> str:
        """Return the state of a job at a member or the platform, with the code it failed with."""
        done = self.cli(name, "job", "show", job, "--json")
        if done.status:
            return f"? {done.code}"
        shown = json.loads(done.out)
        return " ".join(filter(None, (shown["state"], shown["code"])))

    def ended(self, job: str, *names: str, seconds: float = 60.0) -> dict[str, str]:
        """Wait until a job has ended at the platform and at the members named; return state and code of each."""
        states = {}
        for name in ("platform", *names):
            eventually(
                lambda name=name: self.state(name, job).split()[0] in ENDED, f"the job to end at {name}", seconds
            )
            states[name] = self.state(name, job)
        return states

    def progress(self, job: str) -> dict[str, Any]:
        """Return the platform's progress of a job."""
        found: dict[str, Any] = LocalClient(self.platform.home).call("job.progress", {"id": job})["progress"]
        return found

    # --- what must hold afterwards ---------------------------------------------------------------------------

    def check_optimum(self, job: str, survivors: Iterable[str], counted: Iterable[str] = ()) -> None:
        """Hold the model of every survivor against an independent pooled solution.

        Args:
            survivors: whose rows the last rounds hold.
            counted: whose rows means and deviations come from, where others.
        """
        names = list(survivors)
        models = {self.json(name, "job", "result", job)["model"] for name in names}
        assert len(models) == 1
        pooled = PooledScorecard(
            pd.concat([self.rows[name] for name in names]),
            label="y",
            features=[{"name": column, "type": "numeric"} for column in COLUMNS],
            penalty=1.0,
            constants=pd.concat([self.rows[name] for name in counted or names]),
        )
        scores = self.root / "scores.csv"
        rows = self.root / f"{names[0]}-loans.csv"
        self.run(names[0], "model", "score", "--model", models.pop(), "--data", rows, "--id", "id", "--out", scores)
        ours = pd.read_csv(scores)["score"].to_numpy()
        assert np.abs(ours - pooled.score(pd.read_csv(rows))).max() < 1e-6

    def released(self, name: str, job: str) -> list[int]:
        """Return the rounds of a job that a member released, as its log has them; each may stand there once."""
        found = self.json(name, "audit", "show", "--type", "round.released", "--limit", "10000")["events"]
        rounds = sorted(e["payload"]["round"] for e in found if e["payload"]["job"] == job)
        assert len(rounds) == len(set(rounds)), f"{name} released a round twice: {rounds}"
        return rounds

    def answered(self, name: str, job: str) -> list[int]:
        """Return the rounds of a job that a member answered, as its log has them: once an attempt."""
        found = self.json(name, "audit", "show", "--type", "round.answered", "--limit", "10000")["events"]
        return sorted(e["payload"]["round"] for e in found if e["payload"]["job"] == job)

    def check_log(self, name: str) -> None:
        """Verify a copy of a member's log without its node."""
        copy = self.root / "copies" / f"{name}-{time.monotonic_ns()}"
        copy.parent.mkdir(exist_ok=True)
        self.run(name, "audit", "export", copy)
        fingerprint = self.json(name, "node", "show")["fingerprint"]
        assert self.json(None, "audit", "verify", copy, "--key", fingerprint)["verified"] is True

    def used(self, owner: str) -> int:
        """Return how many rounds of the owner's active grants were charged."""
        grants = self.json(owner, "grant", "list", "--state", "active")["grants"]
        return sum(grant["charges"] for grant in grants if grant["owner"] == owner)
