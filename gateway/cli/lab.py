"""`chaotian lab …`: a whole federation on this machine, for trying out before joining one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import JsonOption, make_app, print_json, print_table, warn

if TYPE_CHECKING:
    from gateway.lab.settings import TrainSettings
    from gateway.lab.summing import SumResult, SumSettings

app = make_app("Try a whole federation on one machine, over your own files.")


@app.callback()
def lab() -> None:
    """Try a whole federation on one machine, over your own files."""


@app.command("sum")
def sum_(
    members: Annotated[int, typer.Option("--members", help="How many members take part.", metavar="N")] = 4,
    length: Annotated[int, typer.Option("--length", help="Values in each member's vector.", metavar="L")] = 100_000,
    lost: Annotated[int, typer.Option("--lost", help="How many members are lost on the way.", metavar="K")] = 0,
    lost_at: Annotated[
        str,
        typer.Option(
            "--lost-at",
            help="The first stage the lost members do not answer: advertise_keys, share_keys, masked_input, "
            "consistency (right after their masked input), unmask or result.",
            metavar="STEP",
        ),
    ] = "consistency",
    ring: Annotated[int, typer.Option("--ring", help="Bits of a ring element: 64 or 32.", metavar="BITS")] = 64,
    result_to: Annotated[
        str,
        typer.Option(
            "--result-to",
            help="Who reads the total: platform (what other secure aggregations give), members (what jobs use), both.",
            metavar="WHO",
        ),
    ] = "platform",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the made-up vectors.", metavar="SEED")] = 0,
    json_: JsonOption = False,
) -> None:
    """Sum made-up vectors of N members securely, in this process, and say what it cost.

    The protocol is the production one, signatures included; only network and disk are missing. The total is
    compared with the plain sum of the fixed-point values of the members that were summed.
    """
    from federation.errors import ChaotianError
    from gateway.lab.summing import SumSettings

    settings = SumSettings(
        members=members, length=length, lost=lost, lost_at=lost_at, ring=ring, result_to=result_to, seed=seed
    )
    result = _run(settings)
    if json_:
        print_json(result.document())
    else:
        _show(result)
    if not result.equal:
        raise ChaotianError("INTERNAL", "the total is not the plain sum of the members' values")


def _run(settings: SumSettings) -> SumResult:
    """Run the sum, with a bar on stderr where somebody is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from federation.primitives.entropy import SystemEntropy
    from federation.secure_sum.coordinator import Send
    from federation.secure_sum.terms import STAGES
    from gateway.lab.summing import run_sum

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("making vectors", total=len(STAGES) * settings.members)

        def show(send: Send) -> None:
            text = f"attempt {send.attempt}, {send.stage}"
            done = STAGES.index(send.stage) * settings.members
            progress.update(task, description=text, completed=done + int(send.member.rpartition("-")[2]) - 1)

        return run_sum(settings, entropy=SystemEntropy(), on_request=show)


def _show(result: SumResult) -> None:
    document, settings = result.document(), result.settings
    summed = f"{document['summed']} of {settings.members} members × {settings.length:,} values"
    loss = f", {settings.lost} lost at {settings.lost_at}" if settings.lost else ""
    check = "added up again by every member" if settings.verified else "not added up again"
    facts = {
        "Summed": f"{summed}, {settings.ring}-bit ring{loss}",
        "Attempts": document["attempts"],
        "Result to": f"{settings.result_to} ({check})",
        "CPU of a member": f"{result.member_seconds * 1000:.1f} ms (mean)",
        "CPU of the coordinator": f"{result.coordinator_seconds * 1000:.1f} ms",
        "Wall time": f"{result.wall_seconds:.3f} s (all members in one process)",
        "Uploaded": f"{result.bytes_per_value:.3f} bytes a value and member",
        "Total": "equal to the plain sum" if result.equal else "DIFFERS from the plain sum",
    }
    print_table(("what", "how much"), list(facts.items()), title="Secure sum on this machine")


@app.command()
def train(
    member: Annotated[
        list[str], typer.Option("--member", help="A member and its file; once for each member.", metavar="NAME=FILE")
    ],
    id_: Annotated[str, typer.Option("--id", help="Column that identifies a row.", metavar="COLUMN")],
    label: Annotated[str, typer.Option("--label", help="Column of the outcome: 1 is bad.", metavar="COLUMN")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results; made if missing.", metavar="DIR")],
    job: Annotated[str, typer.Option("--job", help="What to train: scorecard or fedavg.", metavar="JOB")] = "scorecard",
    split: Annotated[
        str, typer.Option("--split", help="rows: members have the same columns of other rows.", metavar="HOW")
    ] = "rows",
    test: Annotated[
        str | None, typer.Option("--test", help="File with rows to score at the end.", metavar="FILE")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            help="penalty=1 impute=mean seed=TEXT max_rounds=N features=raw|woe edges=FILE.json bins=N; without --test "
            "also holdout=0.2, or folds=K for cross-validation. May be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", help="Leave a column out. May be repeated.", metavar="COLUMN")
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category", help="Take a column as a category though it holds numbers. May be repeated.", metavar="COLUMN"
        ),
    ] = None,
    processes: Annotated[
        bool, typer.Option("--processes", help="One process a member and real TLS, with every floor in force.")
    ] = False,
    label_owner: Annotated[
        str | None, typer.Option("--label-owner", help="For --split columns: who has the label.", metavar="NAME")
    ] = None,
    test_ids: Annotated[
        str | None, typer.Option("--test-ids", help="For --split columns: ids held out of training.", metavar="FILE")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train a scorecard over the files of several members, by the real protocol, and compare it.

    Files are CSV, CSV.gz or Parquet. DIR takes result.json, scores.csv, model.json, benefit.json and report.html.
    """
    from federation.errors import ChaotianError
    from gateway.lab.settings import TrainSettings, parse_members, parse_parameters, parse_test

    if job == "boosting" or split == "columns":
        what = "--job boosting" if job == "boosting" else "--split columns"
        raise ChaotianError("USAGE", f"{what} is not there yet", hint="Use --job scorecard --split rows.")
    if job not in ("scorecard", "fedavg"):
        raise ChaotianError("USAGE", "--job is scorecard or fedavg")
    if split != "rows":
        raise ChaotianError("USAGE", "--split is rows")
    if label_owner or test_ids:
        raise ChaotianError("USAGE", "--label-owner and --test-ids are for --split columns, which is not there yet")
    if job == "fedavg":
        if processes:
            raise ChaotianError("USAGE", "fedavg runs in the lab in one process, without --processes")
        _average(member, id_, label, test, param or [], drop or [], category or [], out, json_)
        return
    settings = TrainSettings(
        members=parse_members(member, label),
        id=id_,
        label=label,
        test=parse_test(test),
        parameters=parse_parameters(param or []),
        drop=tuple(drop or ()),
        category=tuple(category or ()),
        processes=processes,
    )
    document = _train(settings, out)
    for text in document["warnings"]:
        warn(text)
    if json_:
        print_json(document)
    else:
        _show_training(document, out)


def _average(
    member: list[str],
    identifier: str,
    label: str,
    test: str | None,
    param: list[str],
    drop: list[str],
    category: list[str],
    out: Path,
    as_json: bool,
) -> None:
    """Train the example perceptron by federated averaging."""
    from federation.primitives.entropy import SystemEntropy
    from gateway.lab.averaging import parse, train
    from gateway.lab.settings import TrainSettings, parse_members, parse_test

    parameters = parse(param)
    checked = TrainSettings(
        members=parse_members(member, label), id=identifier, label=label, test=parse_test(test), drop=tuple(drop),
        category=tuple(category),
    )  # fmt: skip
    with _bar() as show:
        document = train(
            checked.members, identifier=identifier, label=label, test=checked.test, parameters=parameters, out=out,
            drop=drop, category=category, entropy=SystemEntropy(), on_step=show,
        )  # fmt: skip
    for text in document["warnings"]:
        warn(text)
    if as_json:
        print_json(document)
        return
    rows = [(f"{name} alone", *_figures(found)) for name, found in document["metrics_local"].items()]
    rows += [
        ("federated", *_figures(document["metrics"])),
        ("pooled (lab only)", *_figures(document["metrics_pooled"])),
    ]
    print_table(("model", "AUC", "KS"), rows, title=f"Federated averaging, {document['rounds']} rounds")
    if document["epsilon"] is not None:
        typer.echo(f"ε = {document['epsilon']:.3g} at δ = {document['delta']:g} for a member with all its rows")
    typer.echo(f"{document['seconds']:.2f} s; arrays in {out / 'model.npz'}")


def _figures(found: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{found[key]:.4f}" if found.get(key) is not None else "-" for key in ("auc", "ks"))


def _train(settings: TrainSettings, out: Path) -> dict[str, Any]:
    from federation.primitives.entropy import SystemEntropy
    from gateway.lab.output import prepare, write
    from gateway.lab.training import train as run

    prepare(out)
    with _bar() as show:
        trainer = None
        if settings.processes:
            from gateway.lab.nodes import fit_over_processes, node_names

            node_names(settings.members)  # before anything is read

            def trainer(frames: Any, spec: Any) -> Any:
                return fit_over_processes(frames, spec, on_step=show)

        return write(run(settings, entropy=SystemEntropy(), on_step=show, trainer=trainer), out)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, where somebody is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("starting", total=1)
        yield lambda text, done, total: progress.update(task, description=text, completed=done, total=total)


def _show_training(document: dict[str, Any], out: Path) -> None:
    import json

    def row(name: str, trained: str, figures: dict[str, Any], *, joining: str = "") -> tuple[str, ...]:
        cells = (f"{figures[key]:.4f}" if figures.get(key) is not None else "-" for key in ("auc", "ks"))
        return (name, trained, *cells, joining or figures.get("code", ""))

    path = out / "benefit.json"
    worth = json.loads(path.read_text())["members"] if path.exists() else {}
    rows = []
    for name, figures in document["metrics_local"].items():
        joining = worth[name]["verdict"]
        if worth[name]["gain"]:
            joining += " ({auc:+.4f}, {low:+.4f} to {high:+.4f})".format_map(worth[name]["gain"])
        rows.append(row(f"{name} alone", f"{worth[name]['trained']['rows']:,} rows", figures, joining=joining))
    rows.append(row("federated", f"{document['aligned_rows']:,} rows", document["metrics"]))
    if document["metrics_pooled"]["auc"] is not None:
        rows.append(row("pooled (lab only)", "the same, in one place", document["metrics_pooled"]))
    on = {
        "test": "the test file",
        "holdout": "held-out rows, each member on its own",
        "folds": "rows by cross-validation, each member on its own",
        "training": "the training rows themselves",
    }
    title = f"Scorecard on {on[document['evaluated_on']]}"
    print_table(("model", "trained on", "AUC", "KS", "joining (gain in AUC, 95 %)"), rows, title=title)
    sent = sum(each["sent"] + each["received"] for each in document["bytes"].values()) / len(document["bytes"])
    typer.echo(f"\n{document['rounds']} rounds in {document['seconds']:.2f} s, {sent / 1e6:.2f} MB a member")
    if document["max_logit_difference"] is not None:
        difference = document["max_logit_difference"]
        typer.echo(f"largest difference in log-odds to the pooled model, by another solver: {difference:.1e}")
    typer.echo(f"report: {out / 'report.html'}")
