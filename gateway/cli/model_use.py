"""Which model of a home is in use: reading it, and changing it through the node or, where none runs, beside it."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.errors import ChaotianError
from gateway.cli.common import local_client, resolve_home

if TYPE_CHECKING:
    from federation.learning.model import Model
    from gateway.audit.log import AuditLog
    from gateway.identity.home import Home, NodeConfig
    from gateway.jobs.uses import ModelUses

CALL_SECONDS = 60.0


def open_uses(home: Path | None) -> ModelUses:
    """Return the models in use in a node's home.

    Raises:
        ChaotianError: CONFIG where there is no node's home.
    """
    return _opened(home)[1]


def put_in_use(home: Path | None, model: Model, purpose: str, note: str) -> dict[str, Any]:
    """Keep `model` in the home and put it in use; return the change."""
    from gateway.jobs.models import ModelStore

    opened, uses = _opened(home)
    ModelStore(opened.path).save(model)
    chosen = purpose or purpose_of(opened.path, model)
    if not chosen:
        raise ChaotianError(
            "USAGE", "the home does not have the job that made this model", hint="Say what for with --purpose."
        )
    words = {"model": model.version, "purpose": chosen, "account": account(), "note": note}
    found = _ask_node(home, "model.use", words)
    if found is None:
        log = _own_log(opened)
        found = uses.use(model, chosen, words["account"], note, log).document()
    return found


def roll_back(home: Path | None, purpose: str, label: str, note: str) -> dict[str, Any]:
    """Go back to the model that was in use before; return the change."""
    opened, uses = _opened(home)
    words = {"purpose": purpose, "label": label, "account": account(), "note": note}
    found = _ask_node(home, "model.rollback", words)
    if found is None:
        log = _own_log(opened)
        found = uses.rollback(purpose, label, words["account"], note, log).document()
    return found


def purpose_of(home: Path, model: Model) -> str:
    """Return the purpose of the job that made a model; empty where the home does not have the job."""
    from gateway.jobs.facts import facts_of

    return facts_of(home, model).purpose


def account() -> str:
    """Return the account of this machine that runs the command."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _opened(home: Path | None) -> tuple[Home[NodeConfig], ModelUses]:
    from gateway.identity.home import Home
    from gateway.identity.node import own_entry
    from gateway.jobs.models import ModelStore
    from gateway.jobs.uses import ModelUses

    opened = Home.node(resolve_home(home))
    opened.database.upgrade()
    own = own_entry(opened.database)
    member = own.member if own else ""
    return opened, ModelUses(opened.database, ModelStore(opened.path), time.time, member)


def _ask_node(home: Path | None, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Let the running node do it, which holds the log open; None where none runs."""
    try:
        return local_client(home).call(method, params, deadline=CALL_SECONDS)
    except ChaotianError as error:
        if error.code != "NODE_NOT_RUNNING":
            raise
        return None


def _own_log(home: Home[NodeConfig]) -> AuditLog | None:
    """Return the node's log, opened by this command; None where the keys cannot be had: the leaf then follows later."""
    from gateway.audit.log import AuditLog
    from gateway.identity.node import NodeKeys

    try:
        identity = NodeKeys(home.database, home.unlock()).identity()
    except ChaotianError as error:
        if error.code not in ("CONFIG", "PASSPHRASE"):
            raise
        return None
    return AuditLog(home.database, identity, home.path / "log", clock=time.time)
