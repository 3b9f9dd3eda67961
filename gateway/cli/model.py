"""`chaotian model`: look at finished scorecards, hand them on, say which is in use. Needs no running node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import (
    HomeOption,
    JsonOption,
    make_app,
    print_fields,
    print_json,
    print_table,
    resolve_home,
    show_time,
)
from gateway.cli.score import IdOption, ReasonsOption, ScoresFile, score_to_file

if TYPE_CHECKING:
    from federation.learning.model import Model

app = make_app("Show, export and use trained models.")
ModelArgument = Annotated[str, typer.Argument(metavar="ID|FILE", help="Id of a model or of its job, or a model file.")]
PurposeOption = Annotated[str, typer.Option("--purpose", help="What the model is used for.")]
LabelOption = Annotated[str, typer.Option("--label", help="Column that it predicts, where several are predicted.")]
NoteOption = Annotated[str, typer.Option("--note", help="Why, for the history.")]


@app.command("list")
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the models of this home."""
    from gateway.jobs.models import ModelStore

    path = resolve_home(home)
    if not path.is_dir():
        raise ChaotianError("CONFIG", f"there is no home at {path}")
    models, used = ModelStore(path).all(), _purposes(home, path)
    if as_json:
        keys = ("version", "job", "label", "training")
        found = [{**{key: m.document[key] for key in keys}, "in_use": used.get(m.version, [])} for m in models]
        print_json({"models": found})
        return
    print_table(
        ("model", "job", "label", "coefficients", "training rows", "in use for"),
        [
            (
                m.version[:12],
                str(m.document["job"])[:12],
                m.label,
                len(m.coefficients),
                m.document["training"]["rows"],
                ", ".join(used.get(m.version, [])) or "-",
            )
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

    model = find_model(model_id, home)
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

    model = find_model(model_id, home)
    write_atomic(out, encode(model), mode=0o644)
    typer.echo(f"{out}: model {model.version}")


@app.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model file that another member exported.")],
    home: HomeOption = None,
) -> None:
    """Take a model file into this home, so that jobs may name the model. Its hash is checked."""
    from gateway.jobs.models import ModelStore, read_model

    path = resolve_home(home)
    if not path.is_dir():
        raise ChaotianError("CONFIG", f"there is no home at {path}")
    version = ModelStore(path).save(read_model(file))
    typer.echo(f"model {version}")
    typer.echo("compare all its digits with those its maker names, by another way than the file came")


@app.command("card")
def card(
    model_id: ModelArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="The .html, .md or .json file to write; printed if left out.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the model card: what the model was made of, how well it does, its coefficients, points and limits."""
    from gateway.cli.model_card import card_of, footer, write_card

    model = find_model(model_id, home)
    made, in_use = card_of(model, home)
    if out is not None:
        write_card(made, in_use, out)
        typer.echo(f"{out}: card of model {model.version[:12]}")
    elif as_json:
        print_json(made.document())
    else:
        from gateway.reports.card import card_markdown

        typer.echo(card_markdown(made, footer(model.version), in_use), nl=False)


@app.command("report")
def report(
    model_id: ModelArgument,
    out: Annotated[Path | None, typer.Option("--out", help="The .html or .json file to write.")] = None,
    data: Annotated[
        str, typer.Option("--data", help="Dataset of this home with outcomes; the own held-out rows if left out.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report what joining was worth to this member: its own model beside the federated one, on its own rows."""
    from gateway.cli.model_report import print_report, report_of, write_report

    made = report_of(find_model(model_id, home), home, data)
    if out is not None:
        write_report(made, out)
    if as_json:
        print_json(made.document)
    else:
        print_report(made)
        if out is not None:
            typer.echo(f"{out}: report of model {made.model.version[:12]}")


@app.command("score", hidden=True)
def score(
    model_id: Annotated[str, typer.Option("--model", metavar="ID|FILE", help="Id of a model, or a model file.")],
    data: Annotated[str, typer.Option("--data", help="The file or the dataset to score.")],
    out: ScoresFile,
    id_column: IdOption = "",
    reasons: ReasonsOption = 4,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the rows of a file: the same as `chaotian score MODEL DATA`."""
    from gateway.cli.score import read_rows

    model = find_model(model_id, home)
    score_to_file(model, read_rows(model, data, out, home, id_column), out, reasons, as_json)


@app.command("use")
def use(
    model_id: ModelArgument,
    purpose: PurposeOption = "",
    note: NoteOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a model in use: from now on `chaotian score` takes it where no other is named."""
    from gateway.cli.model_use import put_in_use

    resolve_home(home)
    _show_change(put_in_use(home, find_model(model_id, home), purpose, note), as_json)


@app.command("rollback")
def rollback(
    purpose: PurposeOption = "",
    label: LabelOption = "",
    note: NoteOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the model that was in use before; again, one further back."""
    from gateway.cli.model_use import roll_back

    _show_change(roll_back(home, purpose, label, note), as_json)


@app.command("history")
def history(
    purpose: PurposeOption = "", label: LabelOption = "", home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Show which models were put in use, when, by which account, and the leaf of each change in the node's log."""
    from gateway.cli.model_use import open_uses

    uses = open_uses(home)
    changes, now = uses.history(purpose, label), {use.number for use in uses.all_in_use()}
    if as_json:
        print_json({"changes": [{**change.document(), "in_use": change.number in now} for change in changes]})
        return
    rows = [
        (
            show_time(c.changed),
            c.action,
            c.model[:12],
            c.before[:12] or "-",
            c.purpose,
            c.label,
            c.account,
            "-" if c.leaf is None else c.leaf,
            "yes" if c.number in now else "",
            c.note,
        )
        for c in changes
    ]
    print_table(("when", "what", "model", "before", "purpose", "label", "account", "leaf", "in use", "note"), rows)


def _show_change(change: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    print_fields(
        {
            "in use": change["model"],
            "for": f"{change['purpose']}, label {change['label']}",
            "since": f"{show_time(change['changed'])}, by {change['account']}",
            "leaf": "follows when the node's log can be opened" if change["leaf"] is None else change["leaf"],
        }
    )


def _purposes(home: Path | None, path: Path) -> dict[str, list[str]]:
    """Return what each model is in use for; nothing where the folder is no node's home."""
    from gateway.cli.model_use import open_uses
    from gateway.identity.home import NodeConfig

    used: dict[str, list[str]] = {}
    if (path / NodeConfig.FILE).is_file():
        for change in open_uses(home).all_in_use():
            used.setdefault(change.model, []).append(change.purpose)
    return used


def find_model(text: str, home: Path | None) -> Model:
    """Return the model of an id or of a file.

    Raises:
        ChaotianError: NOT_FOUND, USAGE, BAD_DOCUMENT, MODEL_HASH.
    """
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
