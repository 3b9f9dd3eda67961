"""`chaotian score`: score the rows of a file or of a dataset with a model. Needs no running node."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.errors import ChaotianError
from gateway.cli.common import HomeOption, JsonOption, make_app, print_json, resolve_home
from gateway.cli.data import PasswordFile, SheetOption, TableOption, make_source, open_book, read_schema, show_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from federation.learning.model import Model
    from gateway.datasets.faults import Progress
    from gateway.datasets.schema import Schema
    from gateway.datasets.sources import Source
    from gateway.scoring.sources import RowsToScore

    Read = Callable[[Progress], RowsToScore]

app = make_app("Score a file or a dataset with a model.")

IdOption = Annotated[
    str, typer.Option("--id", help="Column of the identifier; the first one of the file if left out.", metavar="COLUMN")
]
ScoresFile = Annotated[
    Path, typer.Option("--out", help="The .csv, .csv.gz or .parquet file to write: id, score, probability, …")
]
ReasonsOption = Annotated[
    int, typer.Option("--reasons", help="Reason codes for each row, 0 to 4: the largest losses of points.", metavar="N")
]


@app.command("score")
def score(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] FILE|DATASET",
            help="Id of a model or of its job, or a model file (left out: the model in use), and the rows: CSV, XLSX, "
            "Parquet or DuckDB file, postgresql://user@host/database, or a dataset of this home as loans or loans@2.",
        ),
    ],
    out: ScoresFile,
    reasons: ReasonsOption = 4,
    id_column: IdOption = "",
    schema: Annotated[
        Path | None,
        typer.Option("--schema", help="TOML schema of a file that has dates, or ranges to be checked.", metavar="FILE"),
    ] = None,
    table: TableOption = "",
    sheet: SheetOption = "",
    password_file: PasswordFile = None,
    purpose: Annotated[str, typer.Option("--purpose", help="Take the model in use for this purpose.")] = "",
    label: Annotated[str, typer.Option("--label", help="Take the model in use for this label.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every row: log-odds of bad, probability, points where the card has them, and up to four reasons."""
    from gateway.cli.model import find_model

    if len(words) > 2:
        raise ChaotianError("USAGE", f"{len(words)} names were given, a model and a source are wanted")
    if len(words) == 2:
        if purpose or label:
            raise ChaotianError("USAGE", "--purpose and --label choose the model in use: leave the model out, or them")
        model = find_model(words[0], home)
    else:
        model = _in_use(home, purpose, label)
    source = make_source(words[-1], table, sheet, password_file)
    rows = read_rows(model, source, out, home, id_column, read_schema(schema) if schema else None)
    score_to_file(model, rows, out, reasons, as_json)


def read_rows(
    model: Model, source: Source | str, out: Path, home: Path | None, id_column: str, schema: Schema | None = None
) -> Read:
    """Return what reads the rows of a file, a table of a database, or a dataset of the home; `out` is none of them."""

    def read(progress: Progress) -> RowsToScore:
        from gateway.datasets.sources import as_source
        from gateway.scoring.output import check_target
        from gateway.scoring.sources import rows_of_dataset, rows_of_file

        given = as_source(source)
        if given.kind != "postgresql":
            check_target(out, given.path)
        if home is not None and _names_a_dataset(given):
            return rows_of_dataset(model, open_book(home), given.where)
        return rows_of_file(model, given, id_column=id_column, schema=schema, progress=progress)

    return read


def score_to_file(model: Model, rows: Read, out: Path, reasons: int, as_json: bool) -> None:
    """Score what `rows` reads and write it; print how many rows."""
    from federation.learning.points import MOST_REASONS, Scorer
    from gateway.scoring.output import check_target, write_scores

    began = time.monotonic()
    check_target(out)
    if not 0 <= reasons <= MOST_REASONS:
        raise ChaotianError("USAGE", f"a row has 0 to {MOST_REASONS} reasons")
    with show_progress() as progress:
        found = rows(lambda share, what: progress(0.6 * share, what))
        scores = Scorer(model).score(
            found.frame, reasons, progress=lambda share: progress(0.6 + 0.25 * share, "scoring")
        )
        progress(0.85, "writing")
        write_scores(out, found.frame.ids, scores, reasons, model.version)
    if as_json:
        print_json(
            {
                "model": model.version,
                "job": model.document["job"],
                "label": model.label,
                "source": found.name,
                "rows": len(found.frame),
                "points": scores.points is not None,
                "reasons": reasons,
                "out": str(out),
                "seconds": round(time.monotonic() - began, 3),
            }
        )
    else:
        typer.echo(f"{out}: {len(found.frame)} rows scored with model {model.version[:12]}")


def _names_a_dataset(source: Source) -> bool:
    """Return whether a source is the name of a dataset: no file of this name is there, and it looks like none."""
    if source.table or source.sheet or "/" in source.where or source.kind != "csv":
        return False
    try:
        return source.path.suffix.lower() not in (".csv", ".gz") and not source.path.is_file()
    except (OSError, ValueError):  # no file can have such a name
        return True


def _in_use(home: Path | None, purpose: str, label: str) -> Model:
    """Return the model in use."""
    from gateway.cli.model_use import open_uses
    from gateway.jobs.models import ModelStore

    path = resolve_home(home)
    return ModelStore(path).get(open_uses(home).in_use(purpose, label).model)
