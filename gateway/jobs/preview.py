"""What would leave a node if it accepted a job: round by round, by name, length, bytes and reader."""

from __future__ import annotations

from typing import Any

from federation.secure_sum.terms import Claims, Layout
from gateway.jobs.document import JobDocument

# What members can read from the totals beyond the model itself (docs/jobs/scorecard.md, docs/protocols/secure-sum.md).
LEAKS = {
    "scorecard": (
        "pooled number of rows and of bad outcomes: to the members",
        "pooled sums of every numeric column, and whether any member's values vary: to the members",
        "pooled counts of every category level before small ones are merged: to the members",
        "pooled log-loss, gradient and Hessian at each step, at which two dummies' entry is about a pair count: "
        "to the members",
        "names and lengths of the fields, number of rounds, who took part and when: to the platform",
        "beside a lost member: about that member's own gradient and Hessian, when it is lost close to convergence",
    )
}


def coefficients(document: JobDocument) -> int:
    """Return the number of coefficients of a scorecard, intercept included, before small levels are merged."""
    return 1 + sum(1 if f.type == "numeric" else len(f.levels) - 1 for f in document.features)


def rounds_of(document: JobDocument, first: Layout) -> list[dict[str, Any]]:
    """Return the kinds of rounds of a job with the fields of their vectors.

    Args:
        first: the layout of the first round, as this member derived it itself.
    """
    numeric = sum(f.type == "numeric" for f in document.features)
    count = coefficients(document)
    n = len(document.members)
    out = [_round("scorecard.counts", "1", {field.name: field.length for field in first.fields}, first.byte_length, n)]
    if numeric:
        out.append(_round("scorecard.moments", "1", {"squares": numeric}, None, n))
    newton = {"loss": 1, "gradient": count, "hessian": count * (count + 1) // 2}
    out.append(_round("scorecard.newton", f"up to {document.max_rounds}", newton, None, n))
    return out


def _round(operation: str, times: str, fields: dict[str, int], size: int | None, members: int) -> dict[str, Any]:
    values = sum(fields.values())
    return {
        "operation": operation,
        "times": times,
        "fields": fields,
        "values": values,
        # A value takes one to a few ring elements of 8 bytes, by its range; exact where the layout is known already.
        "bytes": size if size is not None else 8 * values,
        "bytes_exact": size is not None,
        "masked_by": members - 1,
    }


def preview(document: JobDocument, first: Layout) -> dict[str, Any]:
    """Return what would leave, to whom, what can be read from it, and what holds for this number of members."""
    n = len(document.members)
    return {
        "rounds": rounds_of(document, first),
        "to": {
            "platform": "every vector under masks that only the sum of all members takes off, and then still encrypted",
            "members": f"the totals over all members: {', '.join(document.members)}",
        },
        "stays": "rows, identifiers, own sums, and which of the own rows are held out",
        "leaks": list(LEAKS[document.kind]),
        "floors": {"min_members": document.min_members, "min_rows": document.min_rows},
        "claims": Claims.of(n, document.min_members).sentences(),
        "claims_after_loss": Claims.of(n - 1, document.min_members).sentences() if n > document.min_members else [],
    }
