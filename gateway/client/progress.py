"""Bars for people: in a notebook, in a terminal, or nothing where nobody looks."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

Show = Callable[[str, float, float], None]
"""Told what is being done, how much of it is done, and how much there is."""


def clean(text: str) -> str:
    """Return `text` without characters that could steer a terminal; names in it may come from a peer or a file."""
    return "".join(c if c.isprintable() else " " for c in text)


@contextmanager
def bar(wanted: bool = True, *, keep: bool = False) -> Iterator[Show]:
    """Give a function that shows what is being done, where somebody looks and it is `wanted`.

    Args:
        keep: whether what was shown last stays in a notebook.
    """
    notebook = _notebook() if wanted else None
    if notebook is not None:
        with _in_notebook(notebook, keep) as show:
            yield show
    elif wanted and sys.stderr.isatty():
        with _in_terminal() as show:
            yield show
    else:
        yield lambda _what, _done, _total: None


def in_notebook() -> bool:
    """Return whether this runs in a notebook's kernel."""
    return _notebook() is not None


def _notebook() -> Any:
    """Return the module that displays things in a notebook, None outside of one; IPython is there in any kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return import_module("IPython.display")


@contextmanager
def _in_notebook(display: Any, keep: bool) -> Iterator[Show]:
    handle = display.display(display.HTML(""), display_id=True)
    last = ""

    def show(what: str, done: float, total: float) -> None:
        nonlocal last
        share = done / total if total else 0.0
        text = (
            f'<progress value="{share:.3f}" max="1" style="width:14em;vertical-align:middle"></progress> '
            f'<span style="font-variant-numeric:tabular-nums">{html.escape(clean(what))}</span>'
        )
        if text != last:  # every update is a message to the browser
            handle.update(display.HTML(text))
            last = text

    yield show
    if not keep:
        handle.update(display.HTML(""))


@contextmanager
def _in_terminal() -> Iterator[Show]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("starting", total=1.0)
        yield lambda what, done, total: shown.update(
            task, description=escape(clean(what)), completed=done, total=total or 1.0
        )
