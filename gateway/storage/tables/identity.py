"""What a node knows of itself and of the others. Times are whole Unix seconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, String, Table, Text

from gateway.storage.base import metadata

# Private keys, sealed: `identity` (Ed25519), `tls` (in use), `tls-next` (asked for, its certificate not yet here).
node_keys = Table(
    "node_keys",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
)

# Sealing keys, newest first by `version`, which is the version of the entry that publishes them.
sealing_keys = Table(
    "sealing_keys",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("retired", BigInteger),
)

# Set by enrolment: one row.
membership = Table(
    "membership",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("invitation", Text, nullable=False),  # canonical JSON without its token
    Column("certificate", Text, nullable=False),  # PEM
    Column("entry", LargeBinary, nullable=False),  # latest entry signed by this node
    Column("entry_signature", LargeBinary, nullable=False),
    Column("enrolled", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

# The newest verified directory: one row, so that an older one can never come back.
directory = Table(
    "directory",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("received", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

# What changed from one directory to the next: every node sees it for itself.
directory_changes = Table(
    "directory_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("member", String(63), nullable=False),
    Column("change", String(32), nullable=False),
)

# Peers whose fingerprint this node's owner has compared and approved.
approvals = Table(
    "approvals",
    metadata,
    Column("member", String(63), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("approved", BigInteger, nullable=False),
)
