"""Benches of what a member's data scientist waits for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import fedavg_stream, report, three_banks
from parties.bank.features import catalogue

ROWS, MONTHS, TARGET_SECONDS, RUNS = 1_000_000, 24, 15.0, 3


LAB_SECONDS, PROCESSES_SECONDS = 10.0, 20.0
VALUES, MEMBERS, ROUNDS, TIMES_PLAIN = 1_000_000, 4, 12, 1.5


def run(out: Path) -> list[dict[str, Any]]:
    """Run every case."""
    return [*ledger_features(out), *three_bank_jobs(out), *averaging()]


def three_bank_jobs(out: Path) -> list[dict[str, Any]]:
    """Bin, train and evaluate on three banks' rows, in the lab and between processes."""
    case = three_banks.default_credit()
    rows = sum(len(part) for part in case.members.values())
    what = f"{case.note}: {rows:,} rows, {len(case.spec.features)} columns; load {os.getloadavg()[0]:.1f}"
    lab = [three_banks.in_lab(case) for _ in range(RUNS)]
    nodes = [three_banks.over_processes(case, out / "three-banks") for _ in range(2)]
    name = "binning + scorecard + evaluate, three banks"
    return [
        report.case(f"{name}, lab", lab, unit="s", target=LAB_SECONDS, note=what),
        report.case(
            f"{name}, processes over TLS", nodes, unit="s", target=PROCESSES_SECONDS,
            note="proposed, accepted by all, started, run and stored at every node",
        ),
    ]  # fmt: skip


def averaging() -> list[dict[str, Any]]:
    """Carry a round of `fedavg` through the secure sum and, over the same streams, as plain arrays."""
    secure, plain, cpu = fedavg_stream.measure(VALUES, MEMBERS, ROUNDS)
    note = f"32-bit ring, unverified; at most {TIMES_PLAIN} times plain wanted; the same processes, streams, frames, "
    note += f"Flower messages and envelopes; {cpu[0]:.2f} CPU-s a round of all, plain {cpu[1]:.2f}; load "
    note += f"{os.getloadavg()[0]:.1f}"
    return [
        report.case(
            f"fedavg round, {VALUES:,} float32, {MEMBERS} members, TLS",
            secure,
            plain,
            unit="s",
            peer_name="plain arrays",
            target=1 / TIMES_PLAIN,
            note=note,
        )
    ]


def ledger_features(out: Path) -> list[dict[str, Any]]:
    """Compute all credit features of a ledger of a million rows that lies in a Parquet file, on DuckDB."""
    source, target = out / "ledger.parquet", out / "features.parquet"
    pq.write_table(made_ledger(), source)
    seconds, cpu, loans = [], [], 0
    features = list(catalogue.FEATURES.values())
    try:
        for _ in range(RUNS):
            start, used = time.perf_counter(), time.process_time()
            backend = ibis.duckdb.connect(threads=2)
            backend.con.execute("SET enable_progress_bar = false")
            query = ibis.to_sql(catalogue.compute(backend.read_parquet(source), features), dialect="duckdb")
            backend.con.sql(str(query)).write_parquet(str(target))
            backend.disconnect()
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
            loans = pq.read_metadata(target).num_rows
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    note = f"{len(features)} features of {loans:,} loans over {MONTHS} months, Parquet to Parquet, two threads; "
    note += f"{sorted(cpu)[RUNS // 2]:.1f} CPU-s; load {os.getloadavg()[0]:.1f}"
    return [report.case("ledger features, 1,000,000 rows", seconds, unit="s", target=TARGET_SECONDS, note=note)]


def made_ledger() -> pa.Table:
    """Return a ledger of `ROWS` rows, `MONTHS` for each loan, rows in random order, one value in fifty missing."""
    random = np.random.default_rng(2024)
    loan, at = np.divmod(random.permutation(ROWS), MONTHS)
    limit = random.integers(1, 100, ROWS // MONTHS + 1)[loan] * 1000.0
    values = {
        "limit": limit,
        "balance": np.round(limit * random.normal(0.4, 0.3, ROWS), 2),
        "payment": np.round(random.random(ROWS) * 5000, 2),
        "days_past_due": random.choice([0.0, 0.0, 0.0, 0.0, 5.0, 31.0, 62.0], ROWS),
        "inflow": np.round(random.lognormal(8, 1, ROWS), 2),
    }
    columns = {name: pa.array(column, mask=random.random(ROWS) < 0.02) for name, column in values.items()}
    month = np.datetime64("2023-01", "M") + at
    opened = np.datetime64("2015-01-01") + random.integers(0, 2500, ROWS // MONTHS + 1)[loan]
    return pa.table(
        {
            "loan": pa.array(np.char.zfill(loan.astype(str), 8)),
            "month": pa.array(month.astype("datetime64[D]")),
            **columns,
            "opened": pa.array(opened.astype("datetime64[D]")),
        }
    )
