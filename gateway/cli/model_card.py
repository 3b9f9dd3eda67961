"""The model card as the command line writes it: HTML, Markdown or JSON."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from federation.errors import ChaotianError
from gateway.cli.common import resolve_home, show_time

if TYPE_CHECKING:
    from federation.learning.card import ModelCard
    from federation.learning.model import Model


def footer(model: str) -> str:
    """Return the last line of a card."""
    return f"chaotian {version('chaotian')} · model {model[:16]}"


def card_of(model: Model, home: Path | None) -> tuple[ModelCard, str]:
    """Return the card of a model with what the home knows of it, and since when it is in use, in words."""
    from federation.learning.card import ModelCard
    from gateway.identity.home import NodeConfig
    from gateway.jobs.facts import facts_of

    if home is None or not (resolve_home(home) / NodeConfig.FILE).is_file():
        return ModelCard.of(model), ""
    from gateway.cli.model_use import open_uses

    facts = facts_of(resolve_home(home), model)
    own = (facts.result or {}).get("holdout")
    card = ModelCard.of(model, purpose=facts.purpose, dataset=facts.dataset, members=facts.members, own=own)
    for figures in facts.evaluations:
        card = card.with_figures(figures)
    standing = [use for use in open_uses(home).all_in_use() if use.model == model.version]
    return card, "; ".join(f"for {use.purpose} since {show_time(use.changed)}" for use in standing)


def write_card(card: ModelCard, in_use: str, out: Path) -> None:
    """Write a card in the format that the file's suffix names.

    Raises:
        ChaotianError: USAGE for another suffix, STORAGE.
    """
    from gateway.reports.card import card_markdown, card_page
    from gateway.storage.files import write_atomic

    suffix = out.suffix.lower()
    if suffix in (".html", ".htm"):
        text = card_page(card, footer(card.model), in_use)
    elif suffix == ".md":
        text = card_markdown(card, footer(card.model), in_use)
    elif suffix == ".json":
        text = json.dumps(card.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        raise ChaotianError("USAGE", f"{out.name}: a card is written as .html, .md or .json")
    write_atomic(out, text.encode())
