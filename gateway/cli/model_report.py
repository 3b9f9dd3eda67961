"""What joining was worth to this member, as the command line shows and writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import clean, print_fields, print_table, resolve_home

if TYPE_CHECKING:
    from federation.learning.model import Model
    from gateway.jobs.worth import Worth


@dataclass(frozen=True)
class MemberReport:
    """One member's report.

    Args:
        model: the federated model.
        worth: its rows, scored.
        document: the report as JSON.
    """

    model: Model
    worth: Worth
    document: dict[str, Any]


def report_of(model: Model, home: Path | None, data: str) -> MemberReport:
    """Return the report of the member of a home."""
    from gateway.jobs.worth import own_worth
    from gateway.reports.benefit import benefit

    worth = own_worth(resolve_home(home), model, data)
    name = worth.facts.member
    document = {
        "model": model.version,
        "job": model.document["job"],
        "purpose": worth.facts.purpose,
        "dataset": worth.dataset,
        **benefit({name: worth.scored}, {name: worth.trained}, worth.evaluated),
    }
    return MemberReport(model, worth, document)


def print_report(report: MemberReport) -> None:
    """Print the figures as a table."""
    document, name = report.document, report.worth.facts.member
    own = document["members"][name]
    change = own["gain"]
    print_fields(
        {
            "model": document["model"],
            "member": name,
            "measured on": f"{own['rows']} rows of {document['dataset']}, {own['bads']} of them bad "
            f"({document['evaluated_on']})",
            "own training rows": f"{own['trained']['rows']}, {own['trained']['bads']} of them bad",
            "joining": own["verdict"],
            **(
                {"gain in AUC": f"{change['auc']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})"}
                if change
                else {}
            ),
        }
    )
    rows = []
    for title, key in (("federated", "federated"), ("own rows alone", "local")):
        figures = own[key]
        if "auc" in figures:
            interval = f"{figures['auc_low']:.4f} to {figures['auc_high']:.4f}"
            rows.append((title, f"{figures['auc']:.4f}", interval, f"{figures['ks']:.4f}", f"{figures['gini']:.4f}"))
        else:
            rows.append((title, figures["code"], "", "", ""))
    typer.echo("")
    print_table(("model", "AUC", "95 % interval", "KS", "Gini"), rows)


def write_report(report: MemberReport, out: Path) -> None:
    """Write the report in the format that the file's suffix names.

    Raises:
        ChaotianError: USAGE for another suffix, STORAGE.
    """
    from gateway.storage.files import write_atomic

    suffix = out.suffix.lower()
    if suffix in (".html", ".htm"):
        text = _page(report)
    elif suffix == ".json":
        text = json.dumps(report.document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        raise ChaotianError("USAGE", f"{out.name}: a report is written as .html or .json")
    write_atomic(out, text.encode())


def _page(report: MemberReport) -> str:
    from gateway.reports.training import training_page

    facts, own = report.worth.facts, report.document["members"][report.worth.facts.member]
    result = facts.result or {}
    warnings = ["These figures were computed at home, on this member's own rows, and have not left it."]
    if report.worth.evaluated == "training":
        warnings.append("The job held nothing out: these are the training rows, and every figure is too good.")
    cost = {
        "rounds": result.get("rounds", report.model.document["convergence"]["rounds"]),
        "seconds": float(result.get("seconds", 0.0)),
        "bytes": {facts.member: result.get("bytes", {"sent": 0, "received": 0})},
    }
    return training_page(
        title=f"What joining was worth to {clean(facts.member)}",
        subtitle=f"{len(facts.members)} members: {', '.join(facts.members)}; purpose {facts.purpose}; "
        f"measured on {report.worth.dataset}",
        footer=f"chaotian {version('chaotian')} · model {report.model.version[:16]}",
        model=report.model,
        benefit=report.document,
        whole=report.worth.scored,
        members={facts.member: report.worth.scored},
        metrics=own["federated"],
        cost=cost,
        warnings=warnings,
    )
