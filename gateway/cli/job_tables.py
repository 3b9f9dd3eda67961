"""Results of jobs as tables that a person likes to look at, by kind, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer

from federation.errors import ChaotianError
from gateway.cli.common import clean, print_fields, print_table

Found = Mapping[str, Any]


def show_result(found: Found, column: str = "") -> None:
    """Print the result of a finished job.

    Args:
        found: as `job.result` of the local API.
        column: show this column alone, in detail; NOT_FOUND where the result has none of that name.
    """
    kind = str(found.get("kind", ""))
    if column:
        detail = _DETAILS.get(kind)
        if detail is None:
            raise ChaotianError("USAGE", f"the result of a job of the kind {kind} has no columns to look into")
        detail(_of(found["result"], column), found)
        return
    _KINDS.get(kind, _other)(found)


def _fields(found: Found, more: Mapping[str, object]) -> None:
    head = {
        "job": found["id"],
        "kind": found.get("kind", ""),
        "members": ", ".join(found["roster"]),
        "rounds": f"{found['rounds']}, in {found['seconds']:.1f} s",
    }
    print_fields(head | dict(more))


def _of(result: Found, column: str) -> Found:
    for entry in result.get("columns") or result.get("shifts") or ():
        if entry["name"] == column:
            return dict(entry)
    raise ChaotianError("NOT_FOUND", f"the result has no column {column[:120]}")


def _next(text: str) -> None:
    typer.echo(f"\nnext: {clean(text)}")


def number(value: Any, digits: int = 4) -> str:
    """Return a number in a table; a dot where a floor or missing data leave none."""
    if value is None:
        return "."
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.4g}"


def _other(found: Found) -> None:
    result = found.get("result") or {}
    _fields(found, {name: value for name, value in result.items() if isinstance(value, str | int | float)})
    _next(f"chaotian job result {found['id'][:12]} --json")


# --- scorecard --------------------------------------------------------------------------------------------------------


def _scorecard(found: Found) -> None:
    holdout = found["holdout"]
    _fields(
        found,
        {
            "model": found["model"],
            "training rows of all members": found["training"]["rows"],
            "own held-out rows": f"{holdout['rows']}, {holdout['bads']} of them bad",
        },
    )
    rows = []
    for name, key in (("federated", "federated"), ("own rows only", "local")):
        figures = holdout[key]
        if "code" in figures:
            rows.append((name, figures["code"], "", ""))
        else:
            interval = f"{figures['auc_low']:.4f} to {figures['auc_high']:.4f}"
            rows.append((name, f"{figures['auc']:.4f}", interval, f"{figures['ks']:.4f}"))
    print_table(("model", "AUC", "95 % interval", "KS"), rows, title="\nOn the own held-out rows")
    _next(f"chaotian model show {found['model'][:12]}")


# --- profile ----------------------------------------------------------------------------------------------------------


def _profile(found: Found) -> None:
    result = found["result"]
    _fields(found, {"rows of all members": result["rows"], "floor": f"{result['min_rows']} rows in every count"})
    rows = []
    for entry in result["columns"]:
        median = next((q["estimate"] for q in entry["quantiles"] if q["share"] == 0.5), None)
        span = "." if entry["low"] is None else f"{entry['low']:.6g} to {entry['high']:.6g}"
        levels = f"{len(entry['levels'])} levels" if entry["type"] == "category" else span
        rows.append(
            (
                entry["name"],
                entry["type"],
                number(entry["present"]),
                number(entry["missing"]),
                number(entry["violations"]),
                number(entry["mean"]),
                number(entry["sd"]),
                number(entry["skewness"], 2),
                number(median),
                levels,
                "constant" if entry["constant"] else "",
            )
        )
    heads = ("column", "type", "present", "missing", "outside", "mean", "sd", "skewness", "median", "range", "")
    print_table(heads, rows, title="\nColumns over all members (a dot: a small cell, or none)")
    _next(
        f"chaotian job result {found['id'][:12]} --column NAME for quantiles or levels; then propose a job of the kind "
        "binning"
    )


def _profile_column(entry: Found, _: Found) -> None:
    if entry["type"] == "category":
        print_table(("level", "rows"), list(entry["levels"].items()), title=entry["name"])
        return
    rows = [
        (f"{q['share']:.0%}", number(q["estimate"]), f"{q['low']:.6g} to {q['high']:.6g}") for q in entry["quantiles"]
    ]
    print_table(("share of rows", "about", "between"), rows, title=entry["name"])


# --- binning ----------------------------------------------------------------------------------------------------------

_STRENGTHS = ((0.02, "none"), (0.1, "weak"), (0.3, "medium"), (0.5, "strong"))  # Siddiqi, Credit Risk Scorecards


def _strength(information: float) -> str:
    return next((word for limit, word in _STRENGTHS if information < limit), "look twice")


def _binning(found: Found) -> None:
    result = found["result"]
    _fields(found, {"rows of all members": result["training"]["rows"], "bad": result["training"]["bads"]})
    columns = sorted(result["columns"], key=lambda entry: -float.fromhex(entry["information"]))
    rows = [
        (
            entry["name"],
            entry["of"],
            len(entry["counts"]),
            "own bin" if entry["missing"] >= 0 else "",
            f"{float.fromhex(entry['information']):.4f}",
            "one bin" if entry["constant"] else _strength(float.fromhex(entry["information"])),
        )
        for entry in columns
    ]
    heads = ("column", "type", "bins", "missing", "IV", "strength")
    print_table(heads, rows, title="\nInformation value over all members")
    job = found["id"][:12]
    _next(
        f"chaotian job result {job} --column NAME for the bins; a scorecard on these bins is a job of the kind "
        f'scorecard with coding = "woe" and edges = "{job}"'
    )


def _binning_column(entry: Found, _: Found) -> None:
    rows = []
    weights = [float.fromhex(weight) for weight in entry["weights"]]
    for label, (good, bad), weight in zip(entry["labels"], entry["counts"], weights, strict=True):
        rows.append((label, good + bad, good, bad, f"{bad / (good + bad):.2%}", f"{weight:+.4f}"))
    title = f"{entry['name']}, IV {float.fromhex(entry['information']):.4f}"
    print_table(("bin", "rows", "good", "bad", "bad rate", "WOE"), rows, title=title)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _evaluate(found: Found) -> None:
    result, own = found["result"], found["own"]
    _fields(found, {"model": result["model"], "rows of all members": f"{result['rows']}, {result['bads']} of them bad"})

    def here(key: str) -> str:
        return str(own["code"]) if "code" in own else number(own.get(key))

    rows: list[tuple[object, ...]] = [
        (name, number(result[key]["estimate"]), f"{result[key]['low']:.4f} to {result[key]['high']:.4f}", here(key))
        for name, key in (("AUC", "auc"), ("KS", "ks"), ("Gini", "gini"))
    ]
    low, high = result["auc_sampling"]
    rows.append(("AUC, 95 % interval", "", f"{low:.4f} to {high:.4f}", ""))
    rows.append(("Brier score", number(result["brier"]), "exact", here("brier")))
    rows.append(("log-loss", number(result["log_loss"]), "exact", ""))
    heads = ("", "all members", "the exact value lies in", f"own {own['rows']} rows, exact")
    print_table(heads, rows, title="\nFigures")
    groups = [
        (
            at,
            group["rows"],
            group["bads"],
            f"{group['rate']:.2%}",
            f"{group['predicted']:.2%}",
            f"{group['lift']:.2f}",
            f"{group['gain']:.1%}",
        )
        for at, group in enumerate(result["groups"], 1)
    ]
    tenths = ("tenth", "rows", "bad", "bad rate", "predicted", "lift", "gain")
    print_table(tenths, groups, title="\nAll members by score, the riskiest first")
    _next(f"chaotian model show {result['model'][:12]}")


# --- stability --------------------------------------------------------------------------------------------------------


def _stability(found: Found) -> None:
    result = found["result"]
    _fields(found, {"rows of all members": f"{result['before']} at the first date, {result['after']} at the second"})
    rows = [
        (
            shift["name"],
            len(shift["labels"]),
            number(shift["index"]),
            number(shift["noise"]),
            number(shift["p"]),
            shift["verdict"],
        )
        for shift in sorted(result["shifts"], key=lambda shift: -shift["index"])
    ]
    heads = ("column", "bins", "index", "noise", "p", "shift")
    print_table(heads, rows, title="\nStability index (PSI); `noise`: what chance alone exceeds in 5 of 100 cases")
    _next(f"chaotian job result {found['id'][:12]} --column NAME for the bins")


def _stability_column(entry: Found, found: Found) -> None:
    before, after = found["result"]["before"], found["result"]["after"]
    rows = [
        (label, old, f"{old / before:.2%}", new, f"{new / after:.2%}")
        for label, old, new in zip(entry["labels"], entry["before"], entry["after"], strict=True)
    ]
    heads = ("bin", "rows before", "share", "rows after", "share")
    print_table(heads, rows, title=f"{entry['name']}, index {entry['index']:.4f}")


_KINDS: Mapping[str, Callable[[Found], None]] = {
    "scorecard": _scorecard,
    "profile": _profile,
    "binning": _binning,
    "evaluate": _evaluate,
    "stability": _stability,
}
_DETAILS: Mapping[str, Callable[[Found, Found], None]] = {
    "profile": _profile_column,
    "binning": _binning_column,
    "stability": _stability_column,
}
