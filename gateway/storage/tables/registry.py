"""What the platform knows of its space. Times are whole Unix seconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, LargeBinary, String, Table, Text

from gateway.storage.base import metadata

# Private keys, sealed: `authority`, `directory`, `coordinator`, `tls`.
platform_keys = Table(
    "platform_keys",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("certificate", Text),  # PEM, of `authority` and `tls`
    Column("created", BigInteger, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token_hash", String(64), primary_key=True),  # SHA-256; the token itself is not kept
    Column("member", String(63), nullable=False, index=True),
    Column("role", String(63), nullable=False),
    Column("city", String(64), nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("used_by", String(64)),  # fingerprint of the identity key that used it
    Column("used", BigInteger),
)

members = Table(
    "members",
    metadata,
    Column("member", String(63), primary_key=True),
    Column("role", String(63), nullable=False),
    Column("city", String(64), nullable=False),
    Column("identity_key", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("entry_signature", LargeBinary, nullable=False),
    Column("entry_version", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("enrolled", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    CheckConstraint("status IN ('active', 'revoked')", name="status"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("member", String(63), ForeignKey("members.member"), nullable=False, index=True),
    Column("pem", Text, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("revoked", BigInteger),
)

# The directory in force: one row, replaced by the next version.
published_directory = Table(
    "published_directory",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

registry_events = Table(
    "registry_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("member", String(63), nullable=False),
    Column("detail", Text, nullable=False),
)
