"""What a node remembers of sealed envelopes, so that none opens twice, also after a restart."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table

from gateway.storage.base import metadata

# One row per process start of a sender: the highest sequence number that came, and which of those below it.
envelope_windows = Table(
    "envelope_windows",
    metadata,
    Column("sender", String(63), primary_key=True),
    Column("epoch", LargeBinary(16), primary_key=True),
    Column("highest", BigInteger, nullable=False),
    Column("seen", LargeBinary(128), nullable=False),  # bit i: highest - i has come; 1,024 bits, big endian
    Column("last_expires", BigInteger, nullable=False),  # Unix seconds; afterwards the row is not needed
)
