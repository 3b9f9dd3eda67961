"""Members and coordinator in one process, with the CPU time and the bytes of each told apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from federation.errors import ChaotianError
from federation.secure_sum.coordinator import CoordinatorRound, RoundOutcome, RoundPlan, Send
from federation.secure_sum.local import LocalFederation
from federation.secure_sum.terms import STAGES


@dataclass(frozen=True)
class Loss:
    """Members that stop answering in the first attempt at `stage`, and stay away.

    Args:
        members: who is lost.
        stage: the first stage they do not answer.
    """

    members: frozenset[str]
    stage: str

    def __call__(self, send: Send) -> bool:
        """Whether this request finds nobody."""
        if send.member not in self.members:
            return False
        return send.attempt > 1 or STAGES.index(send.stage) >= STAGES.index(self.stage)


@dataclass
class MeteredFederation(LocalFederation):
    """A `LocalFederation` that charges CPU seconds to whoever spends them.

    Attributes:
        member_seconds: CPU seconds by member, from its first request on.
        coordinator_seconds: CPU seconds of the coordinator.
    """

    member_seconds: dict[str, float] = field(init=False)
    coordinator_seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.member_seconds = dict.fromkeys(self.programs, 0.0)

    def deliver(self, round_: CoordinatorRound, send: Send) -> list[Send]:
        """Carry one request to its member and the reply back, and charge the member for its part."""
        self.received[send.member] += len(send.request)
        start = time.process_time()
        try:
            reply = self.members[send.member].handle(send.stage, send.request)
        except ChaotianError as error:
            self.member_seconds[send.member] += time.process_time() - start
            return round_.refused(send.member, send.attempt, send.stage, error)
        self.member_seconds[send.member] += time.process_time() - start
        self.sent[send.member] += len(reply)
        return round_.reply(send.member, send.attempt, send.stage, reply)

    def run_metered(self, plan: RoundPlan, lose: Callable[[Send], bool]) -> RoundOutcome:
        """Run one round; whatever the members did not spend is the coordinator's."""
        before, start = sum(self.member_seconds.values()), time.process_time()
        outcome = self.run_round(plan, lose=lose)
        members = sum(self.member_seconds.values()) - before
        self.coordinator_seconds += time.process_time() - start - members
        return outcome
