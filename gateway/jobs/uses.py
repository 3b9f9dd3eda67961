"""Which model of a home is in use for a purpose and a label: an append-only history with the way back.

A change is one transaction: its row, and its leaf in the node's log. Where the log cannot be opened (the keys are
sealed and no process holds them) the row stands alone and the leaf follows with the next change or start of the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, insert, select

from federation.errors import ChaotianError
from federation.learning.model import Model
from gateway.audit.events import Event, EventType
from gateway.jobs.models import ModelStore
from gateway.storage.base import Database
from gateway.storage.tables.models import model_use_leaves, model_uses

USE, ROLLBACK = "use", "rollback"
MAX_NOTE, MAX_PURPOSE = 500, 64
Params = dict[str, Any]


class AuditLog(Protocol):
    """The log, as far as it is used here."""

    def append(self, connection: Connection, event: Event) -> int:
        """Add one leaf in the caller's transaction."""
        ...


class Registrar(Protocol):
    """The local server, as far as it is used here."""

    def register(self, method: str, handler: Callable[[Params], Awaitable[Params] | Params]) -> None:
        """Answer a method."""
        ...


@dataclass(frozen=True)
class Use:
    """One change of the model in use.

    Args:
        number: of the change, ascending.
        purpose, label: what the model is used for, and what it predicts.
        action: `use`, or `rollback` to the one in use before.
        model: version that is in use from now on.
        before: version that was in use until now, or empty.
        account: the account of this machine that did it.
        note: why, in its words.
        changed: seconds since the epoch, UTC.
        leaf: index in the node's log; None while it has none.
    """

    number: int
    purpose: str
    label: str
    action: str
    model: str
    before: str
    account: str
    note: str
    changed: float
    leaf: int | None

    def document(self) -> dict[str, Any]:
        """Return the change as JSON."""
        return asdict(self)


class ModelUses:
    """The models in use in one home.

    Args:
        database: of the home, migrated.
        models: its models.
        member: whose home it is; empty before it has enrolled.
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, database: Database, models: ModelStore, clock: Callable[[], float], member: str = "") -> None:
        self._database, self._models, self._clock, self._member = database, models, clock, member

    def use(self, model: Model, purpose: str, account: str, note: str = "", log: AuditLog | None = None) -> Use:
        """Put a model of the home in use for a purpose; where it is so already, return the change that did it.

        Raises:
            ChaotianError: USAGE; NOT_FOUND or MODEL_HASH where the home does not hold the model; STORAGE.
        """
        _check_text("the purpose", purpose, MAX_PURPOSE, least=1)
        stored = self._models.get(model.version)
        with self._database.begin() as connection:
            standing = _stack(_changes(connection, purpose, stored.label))
            if standing and standing[-1].model == stored.version:
                change = standing[-1]
            else:
                before = standing[-1].model if standing else ""
                change = self._add(connection, (purpose, stored.label), USE, (before, stored.version), account, note)
            return self._log(connection, change, log)

    def rollback(self, purpose: str, label: str, account: str, note: str = "", log: AuditLog | None = None) -> Use:
        """Go back to the model that was in use before; again and again, further back.

        Raises:
            ChaotianError: as `in_use`; NOT_FOUND where there is none before, or its file is gone; MODEL_HASH.
        """
        now = self.in_use(purpose, label)
        with self._database.begin() as connection:
            standing = _stack(_changes(connection, now.purpose, now.label))
            if len(standing) < 2:
                raise ChaotianError(
                    "NOT_FOUND",
                    f"no model was in use for {now.purpose} and {now.label} before {now.model[:12]}",
                    hint="See `chaotian model history`; put another one in use with `chaotian model use`.",
                )
            back, left = standing[-2].model, standing[-1].model
            self._models.get(back)
            change = self._add(connection, (now.purpose, now.label), ROLLBACK, (left, back), account, note)
            return self._log(connection, change, log)

    def in_use(self, purpose: str = "", label: str = "") -> Use:
        """Return the change that put the model in use that is in use now.

        Args:
            purpose, label: narrow it down where several models are in use.

        Raises:
            ChaotianError: NOT_FOUND where there is none, USAGE where there are several.
        """
        found = [use for use in self.all_in_use() if purpose in ("", use.purpose) and label in ("", use.label)]
        if not found:
            what = " and ".join(filter(None, (purpose[:64], label[:64])))
            raise ChaotianError(
                "NOT_FOUND",
                f"no model is in use{f' for {what}' if what else ''}",
                hint="Name a model, or put one in use: `chaotian model use MODEL`.",
            )
        if len(found) > 1:
            listed = ", ".join(f"{use.purpose} / {use.label}" for use in found[:5])
            raise ChaotianError(
                "USAGE", f"{len(found)} models are in use: {listed}", hint="Choose with --purpose and --label."
            )
        return found[0]

    def all_in_use(self) -> list[Use]:
        """Return what is in use now, one for each purpose and label."""
        slots: dict[tuple[str, str], list[Use]] = {}
        for use in self.history():
            slots.setdefault((use.purpose, use.label), []).append(use)
        return [_stack(changes)[-1] for _, changes in sorted(slots.items())]

    def history(self, purpose: str = "", label: str = "") -> list[Use]:
        """Return all changes, the oldest first."""
        with self._database.read() as connection:
            return _changes(connection, purpose, label)

    def log_pending(self, log: AuditLog) -> int:
        """Add the leaves of changes that were made while the log could not be opened; return how many."""
        with self._database.begin() as connection:
            return self._log_pending(connection, log)

    def _add(
        self,
        connection: Connection,
        slot: tuple[str, str],
        action: str,
        models: tuple[str, str],
        account: str,
        note: str,
    ) -> Use:
        _check_text("the note", note, MAX_NOTE)
        values = {
            "purpose": slot[0],
            "label": slot[1],
            "action": action,
            "before": models[0],
            "model": models[1],
            "account": account[:255],
            "note": note,
            "changed": self._clock(),
        }
        number = connection.execute(insert(model_uses).values(**values).returning(model_uses.c.id)).scalar_one()
        return Use(number=number, leaf=None, **values)  # type: ignore[arg-type]

    def _log(self, connection: Connection, change: Use, log: AuditLog | None) -> Use:
        if log is None:
            return change
        self._log_pending(connection, log)
        return next(use for use in _changes(connection, change.purpose, change.label) if use.number == change.number)

    def _log_pending(self, connection: Connection, log: AuditLog) -> int:
        pending = [use for use in _changes(connection, "", "") if use.leaf is None]
        for use in pending:
            payload = {key: value for key, value in use.document().items() if key != "leaf"}
            payload["changed"] = int(1000 * use.changed)
            parties = (self._member,) if self._member else ()
            leaf = log.append(
                connection, Event(EventType.MODEL_USED, parties, exchange=bytes.fromhex(use.model), payload=payload)
            )
            connection.execute(insert(model_use_leaves).values(change=use.number, leaf=leaf))
        return len(pending)


class PendingUses:
    """A service that brings the log up to date when the node starts.

    Args:
        uses: of the home.
        log: the node's log.
    """

    def __init__(self, uses: ModelUses, log: AuditLog) -> None:
        self._uses, self._log = uses, log

    async def start(self) -> None:
        """Log what changed while the node was down."""
        await asyncio.to_thread(self._uses.log_pending, self._log)

    async def stop(self) -> None:
        """Nothing to end."""


def register_uses(local: Registrar, uses: ModelUses, models: ModelStore, log: AuditLog) -> None:
    """Register `model.use` and `model.rollback` of a node's local API."""

    def text(params: Params, name: str) -> str:
        value = params.get(name, "")
        if not isinstance(value, str):
            raise ChaotianError("USAGE", f"the parameter {name} is a text")
        return value

    async def use(params: Params) -> Params:
        model = await asyncio.to_thread(models.get, text(params, "model"))
        purpose, account, note = (text(params, name) for name in ("purpose", "account", "note"))
        return (await asyncio.to_thread(uses.use, model, purpose, account, note, log)).document()

    async def rollback(params: Params) -> Params:
        purpose, label, account, note = (text(params, name) for name in ("purpose", "label", "account", "note"))
        return (await asyncio.to_thread(uses.rollback, purpose, label, account, note, log)).document()

    local.register("model.use", use)
    local.register("model.rollback", rollback)


def _changes(connection: Connection, purpose: str, label: str) -> list[Use]:
    query = select(model_uses, model_use_leaves.c.leaf).outerjoin(
        model_use_leaves, model_use_leaves.c.change == model_uses.c.id
    )
    if purpose:
        query = query.where(model_uses.c.purpose == purpose)
    if label:
        query = query.where(model_uses.c.label == label)
    return [
        Use(
            number=row.id,
            purpose=row.purpose,
            label=row.label,
            action=row.action,
            model=row.model,
            before=row.before,
            account=row.account,
            note=row.note,
            changed=row.changed,
            leaf=row.leaf,
        )
        for row in connection.execute(query.order_by(model_uses.c.id))
    ]


def _stack(changes: Sequence[Use]) -> list[Use]:
    """Return the changes of one purpose and label that still stand: a rollback takes the last one away."""
    standing: list[Use] = []
    for change in changes:
        if change.action == ROLLBACK:
            del standing[-1:]
        else:
            standing.append(change)
    return standing


def _check_text(what: str, value: str, most: int, *, least: int = 0) -> None:
    if not least <= len(value) <= most or not value.isprintable():
        raise ChaotianError("USAGE", f"{what} has {least} to {most} printable characters")
