"""The two durable commits of a round: one transaction with grant, ledger and log, whenever the process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from federation.errors import ChaotianError
from federation.primitives.signing import Signer
from federation.secure_sum.terms import Field, Layout, Terms, roster_of
from gateway.audit.log import AuditLog
from gateway.jobs.markers import Rows, SqlMarkers
from gateway.jobs.store import JobStore
from gateway.storage.base import Database
from gateway.storage.tables.audit import audit_leaves
from gateway.storage.tables.jobs import job_answers, job_releases

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("bank-a", "bank-b", "bank-c", "bank-d")
APPROVED = {name: Signer(bytes([i + 1]) * 32).verifier for i, name in enumerate(NAMES)}
KEYS = {name: key.fingerprint for name, key in APPROVED.items()}


def terms_of(round_=1, attempt=1, *, job="1" * 64, members=NAMES, operation="scorecard.newton") -> Terms:
    return Terms(
        space="demo", job=job, round=round_, attempt=attempt, operation=operation, purpose="credit-risk-model",
        layout=Layout(64, (Field("gradient", 3, 32, 100),)), state_hash=bytes(32),
        roster=roster_of({name: KEYS[name] for name in members}), min_members=3, min_rows=30,
        grants=tuple((name, "2" * 64) for name in members), result_to="members",
    )  # fmt: skip


class Gate:
    def __init__(self):
        self.code, self.charged, self.confirmed = "", [], []

    def charge(self, connection, terms, roster_changes):
        if self.code:
            raise ChaotianError(self.code)
        self.charged.append((terms.round, terms.attempt, roster_changes))

    def confirm(self, connection, terms, roster_changes):
        if self.code:
            raise ChaotianError(self.code)
        self.confirmed.append((terms.round, terms.attempt, roster_changes))


class History:
    def __init__(self, changed=0):
        self.count, self.asked = changed, []

    def changed(self, before, after, columns):
        self.asked.append((before, after, columns))
        return self.count


class Identity:
    space, member, signer = "demo", "bank-a", Signer(b"\x09" * 32)


def make(folder: Path, **changes):
    database = Database.at(folder / "state.db")
    database.upgrade()
    options = {
        "member": "bank-a", "database": database, "store": JobStore(database, lambda: 1.0),
        "log": AuditLog(database, Identity(), folder / "log", clock=lambda: 1.0), "gate": Gate(),
        "rows": (Rows("loans", "3" * 64, "{}"),), "history": History(), "columns": lambda: ("x", "y"),
        "max_roster_changes": 1, "approved": lambda connection: APPROVED, "clock": lambda: 1.0,
    } | changes  # fmt: skip
    return SqlMarkers(**options), database


def counts(database):
    with database.read() as connection:
        return tuple(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (job_answers, job_releases, audit_leaves)
        )


def refused(code, call, *arguments):
    with pytest.raises(ChaotianError) as caught:
        call(*arguments)
    assert caught.value.code == code, caught.value
    return caught.value


def test_each_marker_is_one_row_and_one_leaf(tmp_path):
    markers, database = make(tmp_path)
    markers.answered(terms_of(), b"position")
    assert counts(database) == (1, 0, 1) and markers.last_attempt("1" * 64, 1) == 1
    assert markers.position("1" * 64) == b"position" and not markers.spent("1" * 64, 1)
    markers.released(terms_of())
    assert counts(database) == (1, 1, 2) and markers.spent("1" * 64, 1) and markers.last_released("1" * 64) == 1


def test_an_attempt_is_answered_once_and_only_upwards(tmp_path):
    markers, database = make(tmp_path)
    markers.answered(terms_of(attempt=3), b"a")
    for attempt in (1, 2, 3):
        refused("LOST", markers.answered, terms_of(attempt=attempt), b"b")
    assert markers.position("1" * 64) == b"a" and counts(database) == (1, 0, 1)
    markers.answered(terms_of(attempt=4), b"c")
    assert markers.last_attempt("1" * 64, 1) == 4 and counts(database) == (1, 0, 2)


def test_a_round_is_released_once_whatever_the_attempt_and_never_answered_again(tmp_path):
    markers, database = make(tmp_path)
    markers.answered(terms_of(), b"")
    markers.released(terms_of())
    refused("ROUND_SPENT", markers.released, terms_of())
    refused("ROUND_SPENT", markers.released, terms_of(attempt=2, members=NAMES[:3]))
    refused("ROUND_SPENT", markers.answered, terms_of(attempt=2), b"")
    again, _ = make(tmp_path)  # after a restart
    refused("ROUND_SPENT", again.released, terms_of(attempt=2))
    assert counts(database) == (1, 1, 2)


def test_a_denied_grant_leaves_nothing(tmp_path):
    gate = Gate()
    markers, database = make(tmp_path, gate=gate)
    gate.code = "QUOTA"
    refused("QUOTA", markers.answered, terms_of(), b"")
    assert counts(database) == (0, 0, 0)
    gate.code = ""
    markers.answered(terms_of(), b"")
    gate.code = "GRANT_REVOKED"
    refused("GRANT_REVOKED", markers.released, terms_of())
    assert counts(database) == (1, 0, 1) and not markers.spent("1" * 64, 1)


def test_a_log_that_cannot_be_written_stops_the_release(tmp_path):
    class Full:
        def append(self, connection, event):
            raise ChaotianError("STORAGE", "the disk is full")

    good, database = make(tmp_path)
    markers, _ = make(tmp_path, log=Full())
    refused("STORAGE", markers.answered, terms_of(), b"")
    refused("STORAGE", markers.released, terms_of())
    assert counts(database) == (0, 0, 0)
    good.released(terms_of())


def test_losses_are_counted_over_restarts(tmp_path):
    markers, _ = make(tmp_path)
    markers.released(terms_of(1))
    again, _ = make(tmp_path)
    again.released(terms_of(2, members=NAMES[:3]))
    again.released(terms_of(3, members=NAMES[:3]))
    refused("ROSTER_CHANGES", again.released, terms_of(4))
    assert again._gate.confirmed == [(2, 1, 1), (3, 1, 1)]


def test_another_job_with_one_bank_less_is_refused_unless_that_bank_consents(tmp_path):
    class Store(JobStore):
        agreed: frozenset[str] = frozenset()

        def consenting(self, connection, job, keys):
            return self.agreed

    markers, database = make(tmp_path)
    markers.released(terms_of())
    store = Store(database, lambda: 1.0)
    other, _ = make(tmp_path, store=store)
    smaller = terms_of(job="5" * 64, members=NAMES[:3])
    assert refused("RELEASE_DIFFERENCE", other.released, smaller).member == "bank-d"
    other.released(terms_of(2, job="5" * 64, members=NAMES[:3], operation="scorecard.moments"))  # another operation
    store.agreed = frozenset({"bank-d"})
    other.released(smaller)


def test_rows_are_compared_on_the_common_columns_and_once(tmp_path):
    markers, _ = make(tmp_path)
    markers.released(terms_of())
    history, now = History(changed=7), Rows("loans", "4" * 64, "{}")
    other, _ = make(tmp_path, history=history, rows=(now,), columns=lambda: ("y", "z"))
    refused("RELEASE_DIFFERENCE", other.released, terms_of(job="5" * 64))
    refused("RELEASE_DIFFERENCE", other.released, terms_of(2, job="5" * 64))
    assert history.asked == [(Rows("loans", "3" * 64, "{}"), now, frozenset({"y"}))]
    enough, _ = make(tmp_path, history=History(changed=30), rows=(now,), columns=lambda: ("y", "z"))
    enough.released(terms_of(job="5" * 64))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from tests.unit.test_jobs_markers import make, terms_of
import gateway.storage.base as base

folder, moment = Path(sys.argv[1]), int(sys.argv[2])
markers, database = make(folder)
step = 0
def die(*_):
    global step
    step += 1
    if step == moment:
        os.kill(os.getpid(), signal.SIGKILL)
from sqlalchemy import event
event.listen(database.engine, "after_cursor_execute", die)
event.listen(database.engine, "commit", die)
markers.answered(terms_of(), b"position")
print("answered", flush=True)
markers.released(terms_of())
print("released", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", [*range(1, 24, 2), 10_000])
def test_killed_at_any_statement_all_or_nothing_stands(tmp_path, moment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), str(moment)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
    markers, database = make(tmp_path)
    answered, released, leaves = counts(database)
    assert leaves == answered + released  # never a marker without its leaf, nor a leaf without its marker
    assert released <= answered
    said = done.stdout.split()
    assert answered >= ("answered" in said) and released >= ("released" in said)
    if answered:
        refused("LOST", markers.answered, terms_of(), b"")
        assert markers.position("1" * 64) == b"position"
    if released:
        refused("ROUND_SPENT", markers.released, replace(terms_of(), attempt=9))
