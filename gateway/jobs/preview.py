"""What would leave a node if it accepted a job: round by round, by name, length, bytes and reader."""

from __future__ import annotations

from typing import Any

from federation.learning.model import Model
from federation.secure_sum.terms import Claims, Layout
from gateway.jobs.document import JobDocument
from gateway.jobs.plan import Round

_MASKED = "every vector under masks that only the sum of all members takes off"
_PLATFORM = {
    "members": f"{_MASKED}, and then still encrypted",
    "platform": f"{_MASKED}, and the total in clear",
    "both": f"{_MASKED}, and the total in clear",
}


def preview(document: JobDocument, first: Layout, model: Model | None) -> dict[str, Any]:
    """Return what would leave, to whom, what can be read from it, and what holds for this number of members.

    Args:
        first: the layout of the first round, as this member derived it itself.
        model: the model that the job names.
    """
    n = len(document.members)
    noise = document.plan.noise(n)
    return {
        "rounds": [_round(entry, n) for entry in document.plan.rounds(first, n, model)],
        "to": {
            "platform": _PLATFORM[document.result_to],
            "members": f"the totals over all members: {', '.join(document.members)}",
        },
        "noise": None if noise is None else noise.document(),
        "verified": document.plan.verified(document.result_to),
        "stays": "rows, identifiers, own sums, figures on the own rows, and which of the own rows are held out",
        "leaks": list(document.plan.leaks),
        "floors": {"min_members": document.min_members, "min_rows": document.min_rows},
        "claims": Claims.of(n, document.min_members).sentences(),
        "claims_after_loss": Claims.of(n - 1, document.min_members).sentences() if n > document.min_members else [],
    }


def _round(entry: Round, members: int) -> dict[str, Any]:
    values = sum(entry.fields.values())
    return {
        "operation": entry.operation,
        "times": entry.times,
        "fields": dict(entry.fields),
        "values": values,
        # A value takes one to a few ring elements of 8 bytes, by its range; exact where the layout is known already.
        "bytes": entry.layout.byte_length if entry.layout is not None else 8 * values,
        "bytes_exact": entry.layout is not None,
        "masked_by": members - 1,
    }
