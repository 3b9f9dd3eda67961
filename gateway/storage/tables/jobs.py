"""Tables of federated jobs: papers everywhere, markers and the release ledger at nodes, runs at the platform."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.storage.base import metadata

# One job that this home knows. `accepted` is this member's own decision; the papers are below.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("proposal", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("code", String(64), nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Column("dataset", String(64), nullable=False, server_default=""),  # id of the own dataset, once accepted
    Column("result", Text, nullable=False, server_default=""),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
)

# Acceptances, consents and cancellations, as their members signed them.
job_papers = Table(
    "job_papers",
    metadata,
    Column("job", String(64), ForeignKey("jobs.id"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("member", String(63), primary_key=True),
    Column("paper", LargeBinary, nullable=False),
)

# First marker of a round: the highest attempt answered, and where the job stood then.
job_answers = Table(
    "job_answers",
    metadata,
    Column("job", String(64), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("position", LargeBinary, nullable=False),
    Column("answered", Float, nullable=False),
)

# Second marker of a round, and the release ledger: one row for each released total and each dataset that entered it.
job_releases = Table(
    "job_releases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", String(64), nullable=False),
    Column("round", Integer, nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("part", Integer, nullable=False),  # 0, or 1 for the rows of the second of two dates
    Column("attempt", Integer, nullable=False),
    Column("dataset", String(64), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("columns", Text, nullable=False),
    Column("members", Text, nullable=False),
    Column("snapshot", String(64), nullable=False),  # of the dataset
    Column("selection", Text, nullable=False),  # which of its rows
    Column("exact", Boolean, nullable=False),  # whether no privacy budget bounds what the total shows
    Column("terms", LargeBinary, nullable=False),  # hash
    Column("released", Float, nullable=False),
    UniqueConstraint("job", "round", "purpose", "part"),
    Index("ix_job_releases_key", "dataset", "operation"),
)

# The platform's run of a job: checkpoint after each round, journal of a round in unmask, restarts.
job_runs = Table(
    "job_runs",
    metadata,
    Column("job", String(64), ForeignKey("jobs.id"), primary_key=True),
    Column("starts", Integer, nullable=False),
    Column("phase", Text, nullable=False),
    Column("members", Text, nullable=False),
    Column("journal", LargeBinary),
    Column("model", LargeBinary),  # arrays, step memory and last total of a fedavg job
    Column("progress", Text, nullable=False, server_default=""),
)
