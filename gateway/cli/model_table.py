"""A scorecard as tables for a terminal."""

from __future__ import annotations

import typer

from federation.learning.bins import ColumnBins
from federation.learning.coding import Category, Numeric
from federation.learning.model import Model
from gateway.cli.common import clean, print_fields, print_table


def print_model(model: Model) -> None:
    """Print heading, coefficients, merged levels and convergence of `model`."""
    document = model.document
    training, history = document["training"], document["convergence"]["history"]
    last = history[-1]
    print_fields(
        {
            "scorecard": model.version,
            "job": document["job"] or "-",
            "label": f"{model.label} (the score is the log-odds of {model.label} = 1)",
            "training": f"{training['rows']} pooled rows when counted, {training['bads']} of them bad",
            "penalty": f"{document['penalty']:g}",
            "converged": f"in {len(history)} rounds: log-loss {float(last['log_loss']):.6f}, "
            f"largest gradient {float(last['gradient']):.1e}, last step {float(last['max_step']):.1e}",
        }
    )
    meaning = {}
    for part in model.coding.parts:
        for name in part.coefficients:
            if isinstance(part, Numeric):
                meaning[name] = f"(value - {part.mean:.6g}) / {part.sd:.6g}"
            elif isinstance(part, ColumnBins):
                meaning[name] = f"weight of evidence of {len(part.counts)} bins, IV {part.information:.4f}"
            else:
                meaning[name] = f"1, against {', '.join(part.against)}"
    print_table(
        ("coefficient", "value", "std. error", "z", "p", "column enters as"),
        [
            (
                line.name,
                f"{line.value:+.6f}",
                f"{line.standard_error:.6f}",
                f"{line.z:+.2f}",
                f"{line.p:.4f}",
                meaning.get(line.name, "1"),
            )
            for line in model.coefficients
        ],
    )
    for part in model.coding.parts:
        if isinstance(part, Category) and part.merged:
            text = f"{part.name}: {', '.join(part.merged)} had fewer than {training['min_rows']} pooled rows"
            typer.echo(clean(f"{text} and count as {part.reference}"))
