"""What every bench shares: one case's figures, facts of the machine, the JSON file, and the page bench/RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"
HEAD = """# Results

Written by `make bench`; each run replaces its own section. *Better* is how many times better than the peer. Figures are
medians, *from – to* is the smallest and the largest of the runs: the noise of the machine they were taken on.
"""


def case(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] | None = None,
    *,
    unit: str,
    peer_name: str = "",
    ratio: float | None = None,
    target: float | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Return one case of a bench, smaller figures being better.

    Args:
        ours, peer: one figure a run; where both have as many, run k of both was taken one right after the other.
        ratio: where it is not median(peer) / median(ours).
        target: the smallest ratio wanted or, without a peer, the largest figure wanted.
    """
    own, other = median(ours), median(peer) if peer else None
    if ratio is None and other is not None and own:
        ratio = other / own
    met = None
    if target is not None:
        met = ratio >= target if ratio is not None else own <= target
    return {
        "case": name,
        "ours": own,
        "peer": other,
        "peer_name": peer_name,
        "ratio": ratio,
        "unit": unit,
        "runs": len(ours),
        "note": note,
        "spread": {"ours": [min(ours), max(ours)], "peer": [min(peer), max(peer)] if peer else None},
        "target": target,
        "met": met,
    }


def machine() -> dict[str, Any]:
    """Return the facts of this machine that figures depend on."""
    model = platform.processor()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def revision() -> str:
    """Return the commit the figures belong to, with `-dirty` where files have been changed since; empty without git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def write(name: str, results: list[dict[str, Any]], out: Path, page: Path = RESULTS) -> dict[str, Any]:
    """Write `out/NAME.json` and the section of `page`, and return the document."""
    document = {"name": name, "machine": machine(), "git": revision(), "results": results}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    text = page.read_text() if page.exists() else HEAD
    page.write_text(replace_section(text, name, section(document)))
    return document


def replace_section(text: str, name: str, new: str) -> str:
    """Return `text` with the section `## name` replaced, or added at the end where there is none."""
    pattern = re.compile(rf"^## {re.escape(name)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: new + "\n", text, count=1).rstrip("\n") + "\n"
    return text.rstrip("\n") + "\n\n" + new


def section(document: dict[str, Any]) -> str:
    """Return the Markdown section of a document."""
    facts = document["machine"]
    where = f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Python {facts['python']}"
    rows = [f"## {document['name']}", "", f"{where}; revision `{document['git']}`.", ""]
    if facts["load"] > (facts["cores"] or 1):
        rows[-2] += f" Taken while others used the machine (load {facts['load']}): wall times are too long."
    rows += ["| case | ours | peer | unit | better | runs, from – to | note |", "|---|---|---|---|---|---|---|"]
    rows += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(each)) + " |" for each in document["results"]]
    return "\n".join(rows) + "\n"


def cells(result: dict[str, Any]) -> list[str]:
    """Return a case as text: case, ours, peer, unit, ratio with target, runs with spread, note."""
    peer = "" if result["peer"] is None else f"{figure(result['peer'])} ({result['peer_name']})"
    ratio = "" if result["ratio"] is None else f"{figure(result['ratio'])} ×"
    target, met = result.get("target"), result.get("met")
    if target is not None:
        sign = "≥" if result["ratio"] is not None else "≤"
        ratio = f"{ratio} {'met' if met else '**missed**'}: {sign} {figure(target)}".strip()
    low, high = (result.get("spread") or {}).get("ours") or (result["ours"], result["ours"])
    runs = f"{result['runs']}: {figure(low)} – {figure(high)}"
    return [result["case"], figure(result["ours"]), peer, result["unit"], ratio, runs, result["note"]]


def figure(value: float) -> str:
    """Return a number with three significant digits, thousands separated."""
    if value == 0 or not abs(value) < 1e15:
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
