"""`make demo`: a platform and four banks, one process each, train a scorecard on loans that never leave their owner.

Everything goes through the command line a person types; what is printed is measured in this run. Exit status 0 only if
every check held. Writes OUT/report.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from compose.demo import checks
from compose.space import CommandError, Member, Space, space
from gateway.transport.local import LocalClient

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
BANKS = {
    "bank-of-america": "Charlotte",
    "capital-one": "McLean",
    "us-bank": "Minneapolis",
    "wells-fargo": "San Francisco",
}
PROPOSER, VICTIM = "bank-of-america", "capital-one"
KILL_ROUND = 4  # the second Newton round


class Demo:
    """One run of the demo.

    Args:
        out: folder for homes, logs and the report; made anew.
        console: where the account goes.
    """

    def __init__(self, out: Path, console: Console) -> None:
        self.out, self.console = out, console
        self.began = time.monotonic()
        self.report: dict[str, Any] = {"version": version("chaotian")}
        self.failed: list[str] = []

    def step(self, title: str) -> None:
        """Begin a chapter of the account."""
        self.console.print(f"\n[bold]{title}[/bold]  [dim]({time.monotonic() - self.began:.0f} s)[/dim]")

    def say(self, text: str) -> None:
        """Say one thing."""
        self.console.print(Padding(text, (0, 0, 0, 2), expand=False))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show on a terminal what is being waited for; elsewhere say it."""
        if not self.console.is_terminal:
            self.say(f"{text} ...")
            yield
            return
        with self.console.status(f"{text} ...", refresh_per_second=4):
            yield

    def name(self, path: Path) -> str:
        """Return how a person at this folder would name a file."""
        here = Path.cwd()
        return escape(str(path.relative_to(here) if path.is_relative_to(here) else path))

    def check(self, held: bool, what: str) -> None:
        """Say whether something held; the demo fails at its end if not."""
        line = Table.grid(padding=(0, 1))
        line.add_row("[green]✓[/green]" if held else "[red]✗[/red]", what)
        self.console.print(Padding(line, (0, 0, 0, 2), expand=False))
        if not held:
            self.failed.append(what)

    def run(self) -> int:
        """Run the demo; return its exit status."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.console.print(
            "[bold]Chaotian 朝天门[/bold] - four banks train a credit scorecard together; nobody sees another's data"
        )
        self.say("[dim]A minute on a machine of its own. Each chapter says how long the demo has run.[/dim]")
        with space(self.out / "space") as here:
            self.enrol(here)
            self.prepare(here)
            job = self.train(here)
            self.compare(here, job)
            self.prove(here, job)
            self.search(here)
        self.report["seconds"] = round(time.monotonic() - self.began, 1)
        path = self.out / "report.json"
        path.write_text(json.dumps(self.report, indent=2, ensure_ascii=False) + "\n")
        self.console.print(f"\n{self.report['seconds']:.0f} s in all. The report: {self.name(path)}")
        self.say(f"The model: {self.name(self.out / 'model.txt')}. Homes and logs of all five: {self.name(here.root)}")
        self.say("Next, how a bank would do this by hand: docs/users/bank.md")
        for what in self.failed:
            self.console.print(f"[red]failed:[/red] {what}")
        return 1 if self.failed else 0

    # --- chapters ------------------------------------------------------------------------------------------

    def enrol(self, here: Space) -> None:
        """Five processes, each with keys of its own; owners approve each other's fingerprints."""
        self.step("1  Five processes enrol and prove who they are")
        with self.waiting("starting the platform"):
            here.start_platform()
        with self.waiting("inviting four banks; each makes its keys at home and enrols"):
            here.each(lambda item: here.add(item[0], "bank", item[1]), BANKS.items())
        here.members = {name: here.members[name] for name in BANKS}
        with self.waiting("starting their nodes"):
            here.each(here.serve, here.members.values())
        with self.waiting("each bank approves the fingerprints of the other three"):
            here.approve_all()
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for column in ("member", "role", "city", "process", "fingerprint"):
            table.add_column(column, no_wrap=column in ("member", "process"))
        table.add_row("platform", "platform", here.platform.city, str(here.platform.pid), "")
        for row in here.json(here.platform, "member", "list")["members"]:
            pid = here.members[row["member"]].pid
            table.add_row(row["member"], row["role"], row["city"], str(pid), row["fingerprint"][:19] + " …")
        self.console.print(table)
        self.say("Each joined with a single-use invitation. A member that nobody approved counts for nobody.")
        self.report["members"] = [
            {"name": m.name, "role": m.role, "pid": m.pid} for m in (here.platform, *here.members.values())
        ]

    def prepare(self, here: Space) -> None:
        """Each bank loads its own loans, and grants the proposer the use of sums of them."""
        self.step("2  Each bank loads its own loans and grants the use of totals")
        features = (HERE / "features.toml").read_text()
        columns = [*(f["name"] for f in checks.features()), "Default"]
        grant = self.out / "grant.toml"
        grant.write_text(
            f'grantee = "{PROPOSER}"\nroles = ["bank"]\npurposes = ["credit-risk-model"]\n'
            'legal_basis = "dsl-business-data"\nexp = "90d"\nduties = ["no-onward-transfer", "no-reidentification"]\n'
            '[dataset]\nid = "loans"\n[columns]\n'
            + "".join(f'{name} = "aggregate"\n' for name in columns)
            + '[[ops]]\nop = "scorecard"\nmax_rounds = 40\n[quota]\ncalls = 100\nper = "month"\n'
        )
        job = self.out / "job.toml"
        job.write_text(
            'kind = "scorecard"\npurpose = "credit-risk-model"\ndataset = "loans"\ntest = "others"\n'
            f"members = {json.dumps(sorted(BANKS))}\nstage_seconds = 10\n[params]\n{features}"
        )

        def load(member: Member) -> tuple[str, dict[str, Any]]:
            schema = DATA / "schema.toml"
            loans = here.json(member, "data", "add", "loans", DATA / f"{member.name}.csv", "--schema", schema)
            here.run(member, "data", "add", "others", DATA / "others.csv", "--schema", schema)
            if member.name != PROPOSER:
                here.run(member, "grant", "propose", grant)
            return member.name, loans

        with self.waiting("reading the files, signing grants"):
            loaded = here.each(load, here.members.values())
        for name, loans in loaded:
            self.say(f"{name}: {loans['rows']} loans, snapshot {loans['snapshot'][:12]}")
        proposer = here.members[PROPOSER]
        with self.waiting(f"{PROPOSER} signs them too"):
            pending = self.sign(here, proposer)
        self.say(
            f"{len(pending)} grants to {PROPOSER}, signed by both sides: totals only, for 90 days, 100 rounds a month."
        )

    def sign(self, here: Space, proposer: Member) -> list[dict[str, Any]]:
        """Accept the grants that the other banks propose; return them."""
        pending = self.until(lambda: self.grants(here, proposer, "proposed"), len(BANKS) - 1, "grants to arrive")
        here.each(lambda row: here.run(proposer, "grant", "accept", row["id"]), pending)
        self.until(lambda: self.grants(here, proposer, "active"), len(BANKS) - 1, "grants to be active")
        return pending

    def grants(self, here: Space, member: Member, state: str) -> list[dict[str, Any]]:
        """Return the member's grants in a state."""
        return [row for row in here.json(member, "grant", "list")["grants"] if row["state"] == state]

    def until(self, look: Callable[[], list[Any]], count: int, what: str, seconds: float = 20.0) -> list[Any]:
        """Look until there are `count` rows; fail after a deadline."""
        deadline = time.monotonic() + seconds
        while len(rows := look()) < count:
            if time.monotonic() > deadline:
                raise CommandError([], 4, f"waited {seconds:.0f} s for {what}")
            time.sleep(0.2)
        return rows

    def train(self, here: Space) -> dict[str, Any]:
        """Propose, accept, start, lose a bank by SIGKILL in the middle, and carry on."""
        self.step("3  A job is proposed; every bank sees what would leave, and accepts")
        job = str(here.json(here.members[PROPOSER], "job", "propose", self.out / "job.toml")["id"])
        preview = here.run(here.members["us-bank"], "job", "show", job)
        (self.out / "job-show.txt").write_text(preview)
        with self.waiting("each bank reads what would leave it, and signs"):
            here.each(lambda member: here.run(member, "job", "accept", job), here.members.values())
        shown = self.name(self.out / "job-show.txt")
        self.say(f"Job {job[:12]}, accepted by all four. What us-bank was shown: {shown}")
        self.step(f"4  Training; the node of {VICTIM} is killed in round {KILL_ROUND}")
        self.say("[dim]Of each round only the sum over all banks can be read. Counts first, then means and "
                 "deviations, then steps of Newton's method until the model stands still.[/dim]")  # fmt: skip
        killed = threading.Event()
        last: dict[str, Any] = {}
        rounds_seen: set[int] = set()

        def watch() -> None:
            for seen in LocalClient(here.platform.home).watch("job.watch", {"id": job}):
                last.update(seen)
                progress = seen.get("progress") or {}
                if progress.get("round", 0) >= KILL_ROUND and not killed.is_set():
                    here.kill(here.members[VICTIM])
                    killed.set()
                for entry in progress.get("rounds", []):
                    if entry["round"] not in rounds_seen:
                        rounds_seen.add(entry["round"])
                        again = f", {entry['attempts']} attempts" if entry["attempts"] > 1 else ""
                        self.say(
                            f"round {entry['round']:2d}  {entry['operation']:18s} "
                            f"{entry['seconds'] * 1000:7.0f} ms{again}"
                        )

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        time.sleep(0.3)  # the stream is open before the job starts
        here.run(here.platform, "job", "start", job)
        watcher.join(60)
        state, code = last.get("state"), last.get("code")
        self.check(state == "done", "the job is done" if state == "done" else f"the job is {state} ({code})")
        progress = last.get("progress") or {}
        losses = [loss for loss in progress.get("losses", []) if loss["member"] == VICTIM]
        self.check(bool(losses), f"{VICTIM} was lost in the middle, and the other three carried on")
        step = losses[0]["stage"] if losses else ""
        self.report["dropout"] = {"member": VICTIM, "step": step, "recovered": last.get("state") == "done"}
        if losses:
            self.say(f"It was lost in round {losses[0]['round']} at the step {step} ({losses[0]['code']}); the "
                     "round was tried again without it, with fresh keys.")  # fmt: skip
        return {"id": job, "progress": progress}

    def compare(self, here: Space, job: dict[str, Any]) -> None:
        """The model beside an independent pooled solution, and beside what each bank could do alone."""
        self.step("5  What it was worth")
        survivors = [member for member in here.members.values() if member.name != VICTIM]
        results = {m.name: here.json(m, "job", "result", job["id"]) for m in survivors}
        models = {result["model"] for result in results.values()}
        self.check(len(models) == 1, f"all three hold the same model, byte for byte ({next(iter(models))[:12]})")
        one = survivors[0]
        scores = self.out / "scores.csv"
        here.run(one, "model", "score", "--model", next(iter(models)), "--data", DATA / "others.csv", "--out", scores)
        pooled = checks.pooled([m.name for m in survivors], list(BANKS))
        test = pd.read_csv(DATA / "others.csv")
        ours = pd.read_csv(scores).set_index("id").loc[test["LoanNr_ChkDgt"]]["score"].to_numpy()
        theirs = pooled.score(test)
        label = test["Default"].to_numpy()
        difference = float(np.max(np.abs(ours - theirs)))
        federated, reference = checks.separation(label, ours), checks.separation(label, theirs)
        local = {name: result["holdout"]["local"] for name, result in results.items()}
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for column in ("model", "trained on", "AUC", "KS"):
            table.add_column(column, justify="right" if column in ("AUC", "KS") else "left")
        for name, figures in local.items():
            table.add_row(f"{name} alone", "its own loans", f"{figures['auc']:.4f}", f"{figures['ks']:.4f}")
        table.add_row(
            "[bold]federated[/bold]", "three banks, no data moved", f"{federated['auc']:.4f}", f"{federated['ks']:.4f}"
        )
        table.add_row("[dim]pooled[/dim]", "[dim]all loans in one place, independent solver[/dim]",
                      f"{reference['auc']:.4f}", f"{reference['ks']:.4f}")  # fmt: skip
        self.console.print(table)
        self.say(f"Measured on the same {len(test):,} loans of 150 other banks. AUC and KS say how well a score tells "
                 "loans that fail from loans that do not: higher is better.")  # fmt: skip
        better = sum(federated["auc"] > figures["auc"] for figures in local.values())
        self.say(f"Joining beat training alone for {better} of the {len(local)} banks (AUC, on these loans).")
        self.check(difference < 1e-6, "the federated model scores as the pooled one does: largest difference in "
                   f"log-odds {difference:.1e}, below 1e-6")  # fmt: skip
        self.report["jobs"] = [
            {
                "name": job["id"],
                "kind": "scorecard",
                "rounds": max(result["rounds"] for result in results.values()),
                "seconds": job["progress"].get("seconds"),
                "participants": sorted(BANKS),
                "lost": [VICTIM],
                "metrics": federated,
                "pooled": reference,
                "local": {name: {"auc": f["auc"], "ks": f["ks"]} for name, f in local.items()},
                "max_logit_difference": difference,
            }
        ]
        (self.out / "model.txt").write_text(here.run(one, "model", "show", next(iter(models))))
        here.run(one, "model", "export", next(iter(models)), "--out", self.out / "model.json")

    def prove(self, here: Space, job: dict[str, Any]) -> None:
        """Copies of the logs, verified without any node; a job that would single out the lost bank, refused."""
        self.step("6  Proof of every use, and a question that is refused")
        leaves, verified = 0, True
        for member in here.members.values():
            if member.name == VICTIM:
                continue
            copy = self.out / "logs" / member.name
            here.run(member, "audit", "export", copy)
            fingerprint = here.json(member, "node", "show")["fingerprint"]
            try:
                outcome = here.json(None, "audit", "verify", copy, "--key", fingerprint)
                leaves += outcome["size"]
            except CommandError as error:
                verified = False
                self.say(str(error))
        self.check(verified, f"copies of three logs, {leaves} entries in all, verified without any node")
        self.report["audit"] = {"verified": verified, "leaves": leaves, "witnessed": False}
        self.report["refused"] = [self.subtract(here)]

    def subtract(self, here: Space) -> dict[str, str]:
        """The lost bank is back and the same job is run with all four: the difference would be its own sums."""
        with self.waiting(f"starting {VICTIM} again, and the same job with all four"):
            here.serve(here.members[VICTIM])
            job = here.json(here.members[PROPOSER], "job", "propose", self.out / "job.toml")["id"]
            here.each(lambda member: here.run(member, "job", "accept", job), here.members.values())
            here.run(here.platform, "job", "start", job)
        seen: dict[str, Any] = {}
        for seen in LocalClient(here.platform.home).watch("job.watch", {"id": job}):
            if seen["state"] in ("done", "failed", "cancelled"):
                break
        code = seen.get("code") or ""
        reason = f"the difference to the first job would be {VICTIM}'s own sums, and it has not consented"
        self.check(code == "RELEASE_DIFFERENCE", f"the same job with {VICTIM} back is refused: {reason} "
                   f"({code or seen.get('state')})")  # fmt: skip
        return {"code": code, "reason": reason}

    def search(self, here: Space) -> None:
        """Look for every bank's values at the platform and at the other banks."""
        self.step("7  A search for what leaked, in every place that is not the owner's")
        with self.waiting("reading homes, logs and the memory of all processes"):
            outcome = checks.canary(here, self.out)
        self.report["canary"] = outcome
        self.check(outcome["found"] == 0,
                   f"{outcome['bytes_searched'] / 1e6:,.0f} MB of files, logs and process memory searched for other "
                   f"banks' loan numbers and unmasked sums: {outcome['found']} found")  # fmt: skip
        self.check(outcome["control_found"] > 0,
                   "control, where they must be found (each owner's own home, and a run without masks): "
                   f"{outcome['control_found']} found, listed in {self.name(self.out / 'canary.txt')}")  # fmt: skip


def main() -> int:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(prog="python -m compose.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the report and all homes")
    out: Path = parser.parse_args().out.resolve()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        return Demo(out, console).run()
    except CommandError as error:
        console.print(f"[red]the demo stopped:[/red] {error}", markup=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
