"""Tables of models: which one is in use, since when, by whose word."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, String, Table, Text

from gateway.storage.base import metadata

# One change of the model in use for a purpose and a label. Rows are only ever added.
model_uses = Table(
    "model_uses",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("purpose", String(120), nullable=False),
    Column("label", String(120), nullable=False),
    Column("action", String(16), nullable=False),  # use | rollback
    Column("model", String(64), nullable=False),  # in use from now on
    Column("before", String(64), nullable=False),  # in use until now, or empty
    Column("account", String(255), nullable=False),  # of this machine, that did it
    Column("note", Text, nullable=False, server_default=""),
    Column("changed", Float, nullable=False),
    Index("ix_model_uses_slot", "purpose", "label"),
)

# The leaf of each change in the node's log; a change without one was made while the log could not be opened.
model_use_leaves = Table(
    "model_use_leaves",
    metadata,
    Column("change", Integer, ForeignKey("model_uses.id"), primary_key=True),
    Column("leaf", Integer, nullable=False),
)
