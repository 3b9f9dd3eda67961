"""Tables of the audit log: one head, and one row for each leaf with what the leaf only commits to."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, String, Table, Text

from gateway.storage.base import metadata

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("pseudonym_key", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

audit_leaves = Table(
    "audit_leaves",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(64), nullable=False),
    Column("time", BigInteger, nullable=False),  # milliseconds since the epoch, UTC
    Column("grant_id", String(64), nullable=False),
    Column("parties", Text, nullable=False),  # names as a JSON list; the leaf holds pseudonyms
    Column("entry", LargeBinary, nullable=False),  # the leaf as published
    Column("payload", LargeBinary, nullable=False),  # canonical JSON, never published
    Column("salt", LargeBinary, nullable=False),
)
