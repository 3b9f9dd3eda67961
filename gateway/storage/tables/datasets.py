"""Which snapshots of which datasets a node has. The values themselves are in the home's DuckDB file."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, LargeBinary, String, Table

from gateway.storage.base import metadata

# A snapshot never changes; its id is a hash of its content and schema.
dataset_snapshots = Table(
    "dataset_snapshots",
    metadata,
    Column("snapshot", String(64), primary_key=True),
    Column("schema_digest", String(64), nullable=False),
    Column("schema_document", LargeBinary, nullable=False),  # canonical JSON
    Column("rows", BigInteger, nullable=False),
    Column("as_of", String(10), nullable=False),  # ISO 8601 day, or empty
    Column("source", String(255), nullable=False),  # name of the file it was read from
    Column("added", BigInteger, nullable=False),  # seconds since the epoch, UTC
)

# A name points to its current snapshot; jobs bind to the snapshot, not to the name.
datasets = Table(
    "datasets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("snapshot", String(64), ForeignKey("dataset_snapshots.snapshot"), nullable=False),
    Column("changed", BigInteger, nullable=False),  # seconds since the epoch, UTC
)

# A secret of this home: which rows a job holds out follows from it, so that nobody who knows identifiers can choose.
dataset_split = Table(
    "dataset_split",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),  # 32 bytes
    CheckConstraint("id = 1", name="single"),
)

# All snapshots a name has pointed to, in the order they came: `loans@1` is the first one of `loans`.
dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("snapshot", String(64), ForeignKey("dataset_snapshots.snapshot"), nullable=False),
    Column("added", BigInteger, nullable=False),  # seconds since the epoch, UTC
)
