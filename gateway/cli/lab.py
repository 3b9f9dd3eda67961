"""`chaotian lab …`: a whole federation on this machine, for trying out before joining one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import JsonOption, make_app, print_json, print_table

if TYPE_CHECKING:
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
