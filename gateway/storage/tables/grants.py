"""Tables of grants: the signed content, its state, and one row for each charged round."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
)

from gateway.storage.base import metadata

grants = Table(
    "grants",
    metadata,
    Column("id", String(64), primary_key=True),  # SHA-256 of content, hex
    Column("state", String(16), nullable=False),
    Column("owner", String(63), nullable=False, index=True),
    Column("grantee", String(63), nullable=False, index=True),
    Column("proposer", String(63), nullable=False),
    Column("dataset", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),  # canonical JSON
    Column("signatures", LargeBinary, nullable=False),  # canonical JSON of the envelope
    Column("proposed_at", BigInteger, nullable=False),  # seconds since the epoch, UTC
    Column("accepted_at", BigInteger, nullable=True),
    Column("revoked_at", BigInteger, nullable=True),
    Column("revoked_by", String(63), nullable=True),
    Column("revocation", LargeBinary, nullable=True),  # canonical JSON of the signed statement
    Column("undelivered", String(16), nullable=False),  # what the counterpart has not confirmed yet, or empty
    Column("charges", BigInteger, nullable=False),  # rounds charged since ever
    CheckConstraint("state IN ('proposed', 'active', 'revoked')", name="state"),
)

grant_charges = Table(
    "grant_charges",
    metadata,
    Column("grant_id", String(64), ForeignKey("grants.id"), primary_key=True),
    Column("job", String(64), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("purpose", String(64), primary_key=True),
    Column("operation", String(64), nullable=False),
    Column("charged_at", BigInteger, nullable=False),  # milliseconds since the epoch, UTC
    Column("loss", Float, nullable=True),  # ρ under zero-concentrated differential privacy; none of exact totals
    Index("ix_grant_charges_time", "grant_id", "charged_at"),
)
