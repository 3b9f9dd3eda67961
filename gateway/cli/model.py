"""`chaotian model`: look at finished scorecards, hand them on, and score with them. Needs no running node."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.errors import ChaotianError
from gateway.cli.common import HomeOption, JsonOption, make_app, print_json, print_table, resolve_home

if TYPE_CHECKING:
    from federation.learning.model import Model

app = make_app("Show, export and use trained models.")
ModelArgument = Annotated[str, typer.Argument(metavar="ID|FILE", help="Id of a model or of its job, or a model file.")]


@app.command("list")
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the models of this home."""
    from gateway.jobs.models import ModelStore

    path = resolve_home(home)
    if not path.is_dir():
        raise ChaotianError("CONFIG", f"there is no home at {path}")
    models = ModelStore(path).all()
    if as_json:
        keys = ("version", "job", "label", "training")
        print_json({"models": [{key: model.document[key] for key in keys} for model in models]})
        return
    print_table(
        ("model", "job", "label", "coefficients", "training rows"),
        [
            (m.version[:12], str(m.document["job"])[:12], m.label, len(m.coefficients), m.document["training"]["rows"])
            for m in models
        ],
    )


@app.command("show")
def show(
    model_id: ModelArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a scorecard as a table: coefficients, standard errors, coding, convergence."""
    from gateway.cli.model_table import print_model

    model = _find(model_id, home)
    if as_json:
        print_json(dict(model.document))
        return
    print_model(model)


@app.command("export")
def export(
    model_id: ModelArgument,
    out: Annotated[Path, typer.Option("--out", help="The JSON file to write.")],
    home: HomeOption = None,
) -> None:
    """Write a scorecard as JSON with its version hash."""
    from gateway.jobs.models import encode
    from gateway.storage.files import write_atomic

    model = _find(model_id, home)
    write_atomic(out, encode(model), mode=0o644)
    typer.echo(f"{out}: model {model.version}")


@app.command("score")
def score(
    model_id: Annotated[str, typer.Option("--model", metavar="ID|FILE", help="Id of a model, or a model file.")],
    data: Annotated[Path, typer.Option("--data", help="CSV, CSV.gz or Parquet with the model's columns.")],
    out: Annotated[Path, typer.Option("--out", help="The CSV to write: id, score (log-odds of bad), probability.")],
    id_column: Annotated[str, typer.Option("--id", help="Column of the identifier; the first one if left out.")] = "",
    home: HomeOption = None,
) -> None:
    """Score the rows of a file, in its order."""
    from federation.learning.model import probability
    from gateway.datasets.scoring import frame_for
    from gateway.storage.files import write_atomic

    model = _find(model_id, home)
    frame = frame_for(model, data, id_column)
    log_odds = model.score(frame)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "score", "probability"])
    rows = zip(frame.ids, log_odds.tolist(), probability(log_odds).tolist(), strict=True)
    writer.writerows([name, repr(value), repr(chance)] for name, value, chance in rows)
    write_atomic(out, text.getvalue().encode())
    typer.echo(f"{out}: {len(frame)} rows scored with model {model.version[:12]}")


def _find(text: str, home: Path | None) -> Model:
    from gateway.jobs.models import ModelStore, read_model

    path = Path(text)
    try:
        is_file = path.suffix == ".json" or path.is_file()
    except OSError:  # no file can have such a name
        raise ChaotianError("NOT_FOUND", f"there is no model {text[:200]}") from None
    if is_file:
        return read_model(path)
    if "/" in text:
        raise ChaotianError("NOT_FOUND", f"there is no model file {text[:200]}")
    return ModelStore(resolve_home(home)).get(text)
