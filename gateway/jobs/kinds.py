"""The closed list of kinds of jobs. Everything a node or the platform asks of a kind, it asks of its plan."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.jobs.fedavg_plan import FedAvgPlan
from gateway.jobs.plan import JobPlan
from gateway.jobs.plans import BinningPlan, EvaluatePlan, ProfilePlan, ScorecardPlan, StabilityPlan

PLANS: tuple[type[JobPlan], ...] = (
    ProfilePlan,
    BinningPlan,
    ScorecardPlan,
    EvaluatePlan,
    StabilityPlan,
    FedAvgPlan,
)
KINDS: Mapping[str, type[JobPlan]] = {plan.kind: plan for plan in PLANS}
