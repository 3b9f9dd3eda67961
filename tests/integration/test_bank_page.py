"""The bank's page does what it says: its documents and commands, in its order, with real nodes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from compose.space import Space, space
from gateway.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "users" / "bank.md").read_text()
BANKS = ("bank-a", "bank-b", "bank-c", "bank-d")
FILES = ("ledger.toml", "outcome.toml", "grant.toml", "job.toml", "evaluate.toml")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def export(folder: Path, seed: int) -> None:
    """Write what a bank would export: six months of 700 loans, and what became of them."""
    chance = np.random.default_rng(seed)
    loans = [f"{seed}{number:05}" for number in range(700)]
    use, late = chance.beta(2, 2, 700), chance.poisson(0.6, 700)
    months = []
    for month in range(1, 7):
        limit = 1000.0 * chance.integers(1, 50, 700)
        balance = (limit * np.clip(use + chance.normal(0, 0.05, 700), 0, 1.2)).round(2)
        paid = (balance * chance.beta(3, 2, 700)).round(2)
        days = 15 * np.clip(late + chance.integers(-1, 2, 700), 0, 6)
        columns = {"month": f"2026-{month:02}", "limit": limit, "balance": balance, "payment": paid}
        months.append(pd.DataFrame({"loan": loans, **columns, "days_past_due": days}))
    pd.concat(months).to_csv(folder / "ledger.csv", index=False)
    sector = chance.choice(["trade", "farming", "building"], 700)
    odds = -2.2 + 1.5 * use + 0.6 * late + 0.5 * (sector == "building")
    bad = (chance.random(700) < 1 / (1 + np.exp(-odds))).astype(int)
    outcome = pd.DataFrame({"loan": loans, "default": bad, "sector": sector, "branch": "north"})
    outcome.to_csv(folder / "outcome.csv", index=False)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with space(tmp_path_factory.mktemp("space")) as made:
        made.start_platform()
        for number, name in enumerate(BANKS, 1):
            made.add(name, "bank", "Chongqing")
            folder = made.root / "desk" / name
            folder.mkdir(parents=True)
            export(folder, number)
            texts = blocks("toml")
            assert len(texts) == len(FILES)
            for file, text in zip(FILES, texts, strict=True):
                (folder / file).write_text(text)
        yield made


def at(here: Space, name: str, line: str, **words: str) -> str:
    """Run one command of the page at one bank, in the folder with its files; return what it prints."""
    for word, value in words.items():
        line = re.sub(rf"\b{word}\b", value, line)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAOTIAN_HOME", str(here.members[name].home))
        patch.chdir(here.root / "desk" / name)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(shlex.split(line, comments=True)[1:])
    assert status == 0, (line, err.getvalue())
    return out.getvalue()


def of(section: str) -> list[str]:
    """Return the commands of one section of the page."""
    text = PAGE.split(f"\n## {section} ", 1)[1].split("\n## ", 1)[0]
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)).splitlines()
    assert lines
    return lines


def train(here: Space, file: str) -> str:
    """Propose, accept, start and wait, by the page's own commands; return the job."""
    job = json.loads(at(here, "bank-a", f"chaotian job propose {file} --json"))["id"]
    for line in of("7"):
        verb = line.split()[2]
        for name in BANKS if verb == "accept" else BANKS[:1]:
            if verb not in ("propose", "result"):
                at(here, name, line, JOB=job[:12])
    deadline = time.monotonic() + 60
    for name in BANKS:
        while json.loads(at(here, name, f"chaotian job show {job} --json"))["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.2)
    at(here, "bank-a", "chaotian job result JOB", JOB=job[:12])
    return job


@pytest.mark.timeout(900)
def test_from_export_to_score(here):
    desk = here.root / "desk" / "bank-a"
    for name in BANKS:
        for line in of("2") + of("3"):
            if name == "bank-a" or line.split()[2] in ("add", "compute"):
                at(here, name, line)

    code = blocks("python")[0]
    env = {**os.environ, "CHAOTIAN_HOME": str(here.members["bank-a"].home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=desk, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (desk / "out" / "lab" / "report.html").exists()

    for name in BANKS:
        here.serve(here.members[name])
    here.approve_all()
    for line in of("6"):
        for name in BANKS[1:] if "propose" in line else ():
            at(here, name, line)
    listed = json.loads(at(here, "bank-a", "chaotian grant list --json"))["grants"]
    proposed = [grant["id"] for grant in listed if grant["state"] == "proposed"]
    assert len(proposed) == 3
    for grant in proposed:
        for line in of("6")[1:]:
            at(here, "bank-a", line, GRANT=grant[:8])

    job = train(here, "job.toml")
    model = json.loads(at(here, "bank-a", f"chaotian job result {job} --json"))["model"]
    (desk / "evaluate.toml").write_text((desk / "evaluate.toml").read_text().replace("JOB", job))
    for line in of("8"):
        if line == "chaotian job propose evaluate.toml":
            train(here, "evaluate.toml")
        else:
            at(here, "bank-a", line, MODEL=model[:8])
    for file in ("report.html", "card.html"):
        assert model[:16] in (desk / file).read_text()
    assert "AUC, all members" in (desk / "card.html").read_text()

    features = pd.read_csv(desk / "outcome.csv").assign(utilisation=0.5, days_past_due=30, payment_ratio_3m=np.nan)
    features.to_csv(desk / "applicants.csv", index=False)
    for line in of("9"):
        if "rollback" not in line:
            at(here, "bank-a", line, MODEL=model[:8])
    scores, own = pd.read_csv(desk / "scores.csv"), pd.read_csv(desk / "outcome.csv")
    assert len(scores) == len(own) == 700 and (scores.model == model).all()
    joined = scores.merge(own, left_on="id", right_on="loan")
    bad, good = joined[joined.default == 1], joined[joined.default == 0]
    assert bad.points.mean() < good.points.mean() - 10 and scores.reason_1.notna().mean() > 0.9
    assert len(pd.read_csv(desk / "applicants-scores.csv")) == 700
    assert len(pd.read_parquet(desk / "scores.parquet")) == 700

    fingerprint = json.loads(at(here, "bank-a", "chaotian node show --json"))["fingerprint"]
    for line in of("10"):
        at(here, "bank-a", line, COPY="copy", FINGERPRINT=f"'{fingerprint}'")
