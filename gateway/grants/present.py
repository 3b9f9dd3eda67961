"""A grant in words: what leaves, to whom, for how long, and how far each clause is kept."""

from __future__ import annotations

import datetime
from typing import Any

from gateway.grants.catalogue import (
    DISCLOSURES,
    DUTIES,
    LEGAL_BASES,
    OPERATIONS,
    OUTPUTS,
    PERIODS,
    PURPOSES,
    STEPS,
    UNBOUNDED,
    Label,
)
from gateway.grants.document import Grant, Operation

_RECEIVERS = {
    "members": "every member of the job's roster; the platform sees ciphertext only",
    "platform": "the platform, in clear",
    "both": "every member of the job's roster, or the platform in clear",
}


def moment(seconds: float) -> str:
    """Return a time as text, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: int) -> str:
    """Return a duration in the largest unit that divides it."""
    for name, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{seconds} seconds"


def terms_of(grant: Grant) -> list[dict[str, str]]:
    """Return the clauses of a grant as rows {key, rule, label}, in the order a person reads them."""
    rows: list[dict[str, str]] = []

    def row(key: str, rule: str, label: Label = Label.ENFORCED) -> None:
        rows.append({"key": key, "rule": rule, "label": label.value})

    row("owner", f"{grant.owner} (space {grant.space})")
    row("grantee", f"jobs proposed by {grant.grantee}, as {' or '.join(grant.roles)}")
    row("grantee_keys", "signed by " + ", ".join(f"{key[:16]}…" for key in grant.grantee_keys))
    row("dataset", f"{grant.dataset.id}, schema {grant.dataset.schema[:16]}…, grade at most {grant.dataset.grade}")
    if grant.dataset.as_of_max_age is not None:
        row("dataset.as_of_max_age", f"data at most {span(grant.dataset.as_of_max_age)} old")
    for disclosure in sorted(set(grant.columns.values())):
        names = [name for name, found in grant.columns.items() if found == disclosure]
        row(f"columns: {disclosure}", f"{', '.join(names)}: {DISCLOSURES[disclosure]}")
    row("columns: others", DISCLOSURES["never"])
    row("purposes", "a request names one of: " + ", ".join(grant.purposes))
    for op in grant.ops:
        steps = ", ".join(STEPS[op.op])
        row(f"{op.op}", f"{OPERATIONS[op.op]} ({steps}); what leaves is {OUTPUTS[op.out]}")
        row(f"{op.op}: result_to", _RECEIVERS[op.result_to])
        if op.op in UNBOUNDED:
            row(f"{op.op}: exact", _exact(grant, op))
        row(f"{op.op}: floors", f"at least {op.min_members} members and {op.min_rows} rows in every cell")
        row(
            f"{op.op}: limits",
            f"at most {op.max_rounds} rounds a job; the job ends when more than {op.max_roster_changes} are lost",
        )
    period = PERIODS[grant.per]
    row("quota", f"{grant.calls} rounds {'in all' if period is None else f'in any {span(period)}'}")
    if grant.budget is not None:
        within = PERIODS[grant.budget.period]
        row(
            "budget",
            f"only rounds with noise, which together keep (ε, δ) of ({grant.budget.eps_total}, {grant.budget.delta}) "
            f"{'in all' if within is None else f'in any {span(within)}'}, for this member as a whole",
        )
    row("validity", f"from {moment(grant.nbf)} until before {moment(grant.exp)}, by the owner's own clock")
    by = "the owner" if grant.revocation_by == "owner" else "either party"
    row("revocation", f"by {by}, at once: no further round leaves; results released before stay released")
    for purpose in grant.purposes:
        row(f"purpose {purpose}", PURPOSES[purpose].text, PURPOSES[purpose].label)
    basis = LEGAL_BASES[grant.legal_basis]
    row("legal_basis", f"{basis.text} {grant.legal_reference}".strip(), basis.label)
    for duty in grant.duties:
        row(f"duty {duty}", DUTIES[duty].text, DUTIES[duty].label)
    return rows


def _exact(grant: Grant, op: Operation) -> str:
    if op.exact:
        return "without noise too, or with noise that no budget counts: nothing bounds what totals show of single rows"
    if grant.budget is not None:
        return "only with noise, within the budget"
    return "only with noise, within a budget; this grant has none, so it permits no round"


def summary_of(grant: Grant) -> dict[str, str]:
    """Return the three answers an owner wants first."""
    count = sum(found != "never" for found in grant.columns.values())
    receivers = sorted({_RECEIVERS[op.result_to] for op in grant.ops})
    return {
        "what leaves": f"totals over {count} column{'s' if count != 1 else ''} of {grant.dataset.id}, never a row",
        "to whom": f"on a job of {grant.grantee}: " + "; ".join(receivers),
        "for how long": f"{moment(grant.nbf)} to {moment(grant.exp)}, unless revoked before",
    }


def view(grant: Grant) -> dict[str, Any]:
    """Return grant, summary and clause rows as JSON values."""
    return {"grant": grant.document(), "summary": summary_of(grant), "terms": terms_of(grant)}
