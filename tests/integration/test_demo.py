"""`make demo` as a newcomer runs it: exit status 0, and a report in which every promise holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)  # a minute on a machine of its own; the suite may share one
def test_the_demo_holds_what_it_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compose.demo", "--out", str(tmp_path / "demo")],
        cwd=ROOT, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    members = report["members"]
    assert [m["role"] for m in members] == ["platform"] + ["bank"] * 4 and len({m["pid"] for m in members}) == 5
    (job,) = report["jobs"]
    assert job["kind"] == "scorecard" and job["lost"] == ["capital-one"] and len(job["participants"]) == 4
    assert job["max_logit_difference"] < 1e-6
    assert abs(job["metrics"]["auc"] - job["pooled"]["auc"]) < 1e-7 and 0.7 < job["metrics"]["auc"] < 0.9
    assert set(job["local"]) == {"bank-of-america", "us-bank", "wells-fargo"}
    assert report["dropout"]["member"] == "capital-one" and report["dropout"]["recovered"]
    assert report["audit"]["verified"] and report["audit"]["leaves"] > 60
    assert report["canary"]["found"] == 0 and report["canary"]["control_found"] > 100
    assert report["canary"]["bytes_searched"] > 100_000_000
    assert report["refused"][0]["code"] == "RELEASE_DIFFERENCE"
