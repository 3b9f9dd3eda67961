"""`chaotian`, with points at which a test can hold it or kill it: python -m tests.integration.crashing ARGS…

A point is a file in the folder `CHAOTIAN_TEST_POINTS`; its name says where, its content what: `kill` is SIGKILL,
without any goodbye; `hold` waits there, in the thread that does the work, until the test takes the file away. Members
know STAGE.before.ROUND and STAGE.after.ROUND (markers written, reply not sent); the platform knows ask-STAGE.ROUND,
took-STAGE.ROUND (one reply taken), journal.ROUND (just durable) and checkpoint.ROUND (result out, not yet durable).

`CHAOTIAN_TEST_CLOCK` is how many seconds the process's clock is ahead.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_AHEAD = float(os.environ.get("CHAOTIAN_TEST_CLOCK", "0"))
if _AHEAD:  # before anything of the product takes the clock
    _true_time = time.time

    def _time() -> float:
        # gRPC counts its deadlines by the machine's clock, and is compiled: the caller seen here is who calls it.
        caller = str(sys._getframe(1).f_globals.get("__name__"))
        return _true_time() + (0.0 if caller.startswith(("grpc", "gateway.transport.local")) else _AHEAD)

    time.time = _time

from federation.secure_sum.coordinator import CoordinatorRound  # noqa: E402
from federation.secure_sum.member import MemberJob  # noqa: E402
from gateway.cli.main import main  # noqa: E402
from parties.platform.runs import RunStore  # noqa: E402

HOLD_SECONDS = 60.0


def reach(name: str) -> None:
    """Do what the test asks for at this point, if anything."""
    point = Path(os.environ["CHAOTIAN_TEST_POINTS"]) / name
    try:
        wanted = point.read_text()
    except OSError:
        return
    point.with_suffix(point.suffix + ".reached").touch()
    if wanted == "kill":
        point.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + HOLD_SECONDS
    while point.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def patch() -> None:
    """Put the points into member, coordinator and the platform's record."""
    handle, sends, reply = MemberJob.handle, CoordinatorRound._sends, CoordinatorRound.reply
    checkpoint = RunStore.checkpoint

    def member_handle(self: Any, stage: str, request: bytes) -> bytes:
        round_ = self.round
        reach(f"{stage}.before.{round_}")
        answer = handle(self, stage, request)
        reach(f"{stage}.after.{round_}")
        return answer

    def coordinator_sends(self: Any, at: Any, bodies: Any) -> Any:
        # The journal is saved before the requests of unmask are made.
        reach(f"journal.{self.plan.round}" if at.stage == "unmask" else f"ask-{at.stage}.{self.plan.round}")
        return sends(self, at, bodies)

    def coordinator_reply(self: Any, member: str, attempt: int, stage: str, data: bytes) -> Any:
        following = reply(self, member, attempt, stage, data)
        reach(f"took-{stage}.{self.plan.round}")
        return following

    def run_checkpoint(self: Any, job: str, phase: Any, members: Any, operation: str) -> None:
        reach(f"checkpoint.{phase.round}")
        checkpoint(self, job, phase, members, operation)

    MemberJob.handle = member_handle  # type: ignore[method-assign]
    CoordinatorRound._sends = coordinator_sends  # type: ignore[method-assign]
    CoordinatorRound.reply = coordinator_reply  # type: ignore[method-assign]
    RunStore.checkpoint = run_checkpoint  # type: ignore[method-assign]


if __name__ == "__main__":
    patch()
    main(sys.argv[1:])
