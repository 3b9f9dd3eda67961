"""The wrapped key under which a home's secrets are sealed: one row."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Integer, LargeBinary, String, Table, Text

from gateway.storage.base import metadata

secret_box = Table(
    "secret_box",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)
