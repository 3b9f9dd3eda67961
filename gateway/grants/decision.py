"""May this be done under this grant? A pure function of grant, request, time and usage; what is not allowed is denied.

A decision lists every clause with its verdict, so that a refusal says which rule, what came, and what would help.
Where several grants must hold at once, their decisions are combined: one denial denies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.primitives import zcdp
from gateway.grants.catalogue import DUTIES, LEGAL_BASES, PERIODS, PURPOSES, RESULT_TO, UNBOUNDED, Label
from gateway.grants.document import Grant


@dataclass(frozen=True)
class UseRequest:
    """One round of one job that wants to use one owner's dataset.

    Args:
        space: the federation.
        owner: whose data it is.
        requester: member that proposed the job: the grantee.
        requester_key: fingerprint of the key it signed the job with, 64 hex digits.
        requester_role: its role according to this node's own directory.
        dataset: name of the dataset at the owner.
        schema: digest of the dataset's schema as it is now, 64 hex digits.
        grade: security level of the dataset as it is now, 1 to 5.
        as_of: when the data was true, seconds since the epoch; None where it is not known.
        columns: columns that enter the vector.
        disclosure: how they enter it.
        purpose: what for.
        operation: kind of the round, e.g. `scorecard.newton`.
        out: form of the output.
        job: id of the job.
        round: number of the round, from 1.
        result_to: who learns the total: `members`, `platform` or `both`.
        min_members: floor in the terms of this round.
        min_rows: floor in the terms of this round.
        members: its roster.
        roster_changes: how many members this job has lost so far.
        loss: ρ that the round costs under zero-concentrated differential privacy; None where its totals are exact.
    """

    space: str
    owner: str
    requester: str
    requester_key: str
    requester_role: str
    dataset: str
    schema: str
    grade: int
    columns: tuple[str, ...]
    purpose: str
    operation: str
    job: str
    round: int
    result_to: str
    min_members: int
    min_rows: int
    members: tuple[str, ...]
    as_of: float | None = None
    roster_changes: int = 0
    disclosure: str = "aggregate"
    out: str = "total"
    loss: float | None = None


@dataclass(frozen=True)
class Usage:
    """What the counters say.

    Args:
        state: `active`, `proposed` or `revoked`.
        calls: charges within the quota's period.
        charged: whether this very (job, round, purpose) has been charged before: then it is free.
        loss: ρ of all rounds charged within the budget's period, this one included where it has been charged.
    """

    state: str = "active"
    calls: int = 0
    charged: bool = False
    loss: float = 0.0


@dataclass(frozen=True)
class Clause:
    """One clause of a grant and what it says to a request.

    Args:
        key: dotted key in the grant.
        permitted: its verdict; always true for a Contractual clause, which nothing here can refuse.
        code: catalogue code of a denial.
        reason: stable reason code, e.g. `columns.never`.
        rule: what the grant says.
        came: what the request says.
        remedy: what would help, empty where it is permitted.
        left: what remains of a countable thing, empty elsewhere.
        label: how far the clause is kept.
    """

    key: str
    permitted: bool
    code: str
    reason: str
    rule: str
    came: str
    remedy: str
    left: str
    label: Label


@dataclass(frozen=True)
class Decision:
    """The verdict over all clauses; `grants` are the ids it rests on."""

    permitted: bool
    grants: tuple[str, ...]
    clauses: tuple[Clause, ...]

    @property
    def denials(self) -> tuple[Clause, ...]:
        """The clauses that deny."""
        return tuple(clause for clause in self.clauses if not clause.permitted)

    def check(self) -> None:
        """Raise the first denial as ChaotianError (its code), naming all denying clauses."""
        if self.permitted:
            return
        first = self.denials[0]
        others = ", ".join(clause.key for clause in self.denials[1:])
        also = f" (and {others})" if others else ""
        raise ChaotianError(
            first.code, f"{first.key}: the grant says {first.rule}, the request {first.came}{also}", hint=first.remedy
        )

    def document(self) -> dict[str, Any]:
        """Return the decision as JSON values."""
        clauses = [asdict(clause) | {"label": clause.label.value} for clause in self.clauses]
        return {"permitted": self.permitted, "grants": list(self.grants), "clauses": clauses}


def no_grant(request: UseRequest) -> Decision:
    """Return the decision where no grant covers a request: denied."""
    clause = Clause(
        "grant",
        False,
        "NO_GRANT",
        "grant.none",
        "nothing",
        f"{request.requester} asks for {request.dataset} for {request.purpose}",
        "Ask the owner for a grant: `chaotian grant propose`.",
        "",
        Label.ENFORCED,
    )
    return Decision(False, (), (clause,))


def combine(decisions: Iterable[Decision]) -> Decision:
    """Return the decision of several grants that must all hold: permitted only if each is, and there is one."""
    found = list(decisions)
    return Decision(
        bool(found) and all(decision.permitted for decision in found),
        tuple(grant for decision in found for grant in decision.grants),
        tuple(clause for decision in found for clause in decision.clauses),
    )


def decide(grant: Grant, request: UseRequest, *, now: float, usage: Usage) -> Decision:
    """Return what `grant` says to `request` at `now` (seconds since the epoch, UTC) after `usage`; changes nothing."""
    out: list[Clause] = []

    def clause(
        key: str,
        good: bool,
        code: str,
        reason: str,
        rule: str,
        came: str,
        remedy: str = "",
        left: str = "",
        label: Label = Label.ENFORCED,
    ) -> None:
        out.append(Clause(key, good, code, "" if good else reason, rule, came, "" if good else remedy, left, label))

    def equal(key: str, rule: str, came: str, remedy: str, reason: str = "differs") -> None:
        clause(key, rule == came, "GRANT_DENIED", f"{key}.{reason}", rule, came, remedy)

    _state(clause, grant, now, usage)
    other = "Ask the owner for a grant that covers it."
    equal("space", grant.space, request.space, other)
    equal("owner", grant.owner, request.owner, other)
    equal("grantee", grant.grantee, request.requester, other)
    known = request.requester_key in grant.grantee_keys
    shown = ", ".join(key[:16] for key in grant.grantee_keys)
    clause(
        "grantee_keys", known, "GRANT_DENIED", "grantee_keys.unknown", shown, request.requester_key[:16],
        "The grantee signs with a key that the grant names, or asks for a new grant.",
    )  # fmt: skip
    clause(
        "roles", request.requester_role in grant.roles, "GRANT_DENIED", "roles.other",
        ", ".join(grant.roles), request.requester_role, other,
    )  # fmt: skip
    equal("dataset.id", grant.dataset.id, request.dataset, other)
    equal(
        "dataset.schema", grant.dataset.schema, request.schema,
        "The dataset's columns have changed since: ask for a grant of its present schema.",
    )  # fmt: skip
    clause(
        "dataset.grade", 0 < request.grade <= grant.dataset.grade, "GRANT_DENIED", "dataset.grade.higher",
        f"at most {grant.dataset.grade}", str(request.grade), other,
    )  # fmt: skip
    _age(clause, grant, request, now)
    _columns(clause, grant, request)
    clause(
        "purposes", request.purpose in grant.purposes, "GRANT_DENIED", "purposes.other",
        ", ".join(grant.purposes), request.purpose, "State a purpose that the grant names.",
    )  # fmt: skip
    _operation(clause, grant, request)
    _quota(clause, grant, usage)
    _budget(clause, grant, request, usage)
    for purpose in grant.purposes:
        if purpose == request.purpose:
            _promise(out, "purposes.text", PURPOSES[purpose].text, PURPOSES[purpose].label)
    basis = LEGAL_BASES[grant.legal_basis]
    _promise(out, "legal_basis", f"{basis.text} {grant.legal_reference}".strip(), basis.label)
    for duty in grant.duties:
        _promise(out, f"duties.{duty}", DUTIES[duty].text, DUTIES[duty].label)
    return Decision(all(found.permitted for found in out), (grant.id,), tuple(out))


def _state(clause: Any, grant: Grant, now: float, usage: Usage) -> None:
    clause(
        "revocation", usage.state != "revoked", "GRANT_REVOKED", "revocation.revoked",
        "not revoked", usage.state, "Ask the owner for a new grant.",
    )  # fmt: skip
    clause(
        "signatures", usage.state in ("active", "revoked"), "NO_GRANT", "signatures.missing",
        "signed by owner and grantee", usage.state, "Both parties accept it first: `chaotian grant accept`.",
    )  # fmt: skip
    began, ended = now >= grant.nbf, now >= grant.exp
    clause("nbf", began, "GRANT_EXPIRED", "nbf.early", f"from {grant.nbf}", f"{now:.0f}", "Wait until it begins.")
    left = f"{max(0, int(grant.exp - now))} s"
    clause(
        "exp", not ended, "GRANT_EXPIRED", "exp.late", f"before {grant.exp}", f"{now:.0f}",
        "Ask the owner for a grant that is valid now.", left,
    )  # fmt: skip


def _age(clause: Any, grant: Grant, request: UseRequest, now: float) -> None:
    most = grant.dataset.as_of_max_age
    if most is None:
        return
    age = None if request.as_of is None else now - request.as_of
    fresh = age is not None and -86_400 <= age <= most  # a day ahead is a time zone, more is a wrong date
    clause(
        "dataset.as_of_max_age", fresh, "GRANT_DENIED", "dataset.as_of_max_age.older",
        f"at most {most} s old", "of unknown age" if age is None else f"{age:.0f} s old", "Bring newer data.",
    )  # fmt: skip


def _columns(clause: Any, grant: Grant, request: UseRequest) -> None:
    bad = [name for name in request.columns if grant.columns.get(name, "never") != request.disclosure]
    allowed = sum(disclosure == request.disclosure for disclosure in grant.columns.values())
    good = bool(request.columns) and not bad and request.disclosure != "never"
    shown = ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")
    clause(
        "columns", good, "GRANT_DENIED", "columns.never",
        f"{allowed} columns as {request.disclosure}, all others never",
        f"asks for {shown}" if bad else f"asks for {len(request.columns)} columns",
        "Leave these columns out of the job, or ask the owner for them.",
    )  # fmt: skip


def _operation(clause: Any, grant: Grant, request: UseRequest) -> None:
    op = grant.operation(request.operation)
    names = ", ".join(found.op for found in grant.ops)
    clause(
        "ops.op", op is not None, "GRANT_DENIED", "ops.op.other", names, request.operation,
        "Ask the owner for a grant of that operation.",
    )  # fmt: skip
    if op is None:
        return
    clause(
        "ops.out", request.out == op.out, "GRANT_DENIED", "ops.out.other", op.out, request.out,
        "Ask for the output form that the grant allows.",
    )  # fmt: skip
    if op.op in UNBOUNDED and grant.budget is None:  # within a budget the budget decides
        clause(
            "ops.exact", op.exact, "GRANT_DENIED", "ops.exact.missing",
            "exact totals too" if op.exact else "no totals without a privacy budget",
            "asks for exact totals" if request.loss is None else "asks for noise that no budget counts",
            f"Ask the owner for a grant with a [budget], and propose the job with noise; or, where the owner accepts "
            f"what exact totals show, for one with exact = true for {op.op}.",
        )  # fmt: skip
    clause(
        "ops.result_to", request.result_to in RESULT_TO[op.result_to], "GRANT_DENIED", "ops.result_to.wider",
        op.result_to, request.result_to, f"Propose the job with result_to = {op.result_to}.",
    )  # fmt: skip
    roster = len(set(request.members))
    single = roster == len(request.members) and request.owner in request.members
    clause(
        "ops.min_members", single and min(roster, request.min_members) >= op.min_members,
        "MIN_MEMBERS", "ops.min_members.fewer", f"at least {op.min_members}, the owner among them",
        f"a roster of {roster}, a floor of {request.min_members}",
        "Propose the job with more members and a floor at least as high.", str(max(0, roster - op.min_members)),
    )  # fmt: skip
    clause(
        "ops.min_rows", request.min_rows >= op.min_rows, "MIN_ROWS", "ops.min_rows.fewer", f"at least {op.min_rows}",
        str(request.min_rows), f"Propose the job with min_rows of at least {op.min_rows}.",
    )  # fmt: skip
    clause(
        "ops.max_rounds", 1 <= request.round <= op.max_rounds, "GRANT_DENIED", "ops.max_rounds.more",
        f"at most {op.max_rounds}", f"round {request.round}", "Ask the owner for more rounds.",
        str(max(0, op.max_rounds - request.round)),
    )  # fmt: skip
    clause(
        "ops.max_roster_changes", 0 <= request.roster_changes <= op.max_roster_changes,
        "ROSTER_CHANGES", "ops.max_roster_changes.more",
        f"at most {op.max_roster_changes} lost", f"{request.roster_changes} lost", "Propose a new job.",
        str(max(0, op.max_roster_changes - request.roster_changes)),
    )  # fmt: skip


def _quota(clause: Any, grant: Grant, usage: Usage) -> None:
    period = "in all" if PERIODS[grant.per] is None else f"in any {grant.per}"
    came = f"{usage.calls} used" + (", this round among them" if usage.charged else "")
    clause(
        "quota.calls", usage.charged or usage.calls < grant.calls, "QUOTA", "quota.calls.used",
        f"{grant.calls} rounds {period}", came,
        "Ask the owner for more." if PERIODS[grant.per] is None else "Wait, or ask the owner for more.",
        str(max(0, grant.calls - usage.calls)),
    )  # fmt: skip


def _budget(clause: Any, grant: Grant, request: UseRequest, usage: Usage) -> None:
    budget = grant.budget
    if budget is None:
        return
    period = "in all" if PERIODS[budget.period] is None else f"in any {budget.period}"
    rule = f"ε at most {budget.eps_total} at δ = {budget.delta} {period}"
    if request.loss is None:
        clause(
            "budget", False, "BUDGET", "budget.exact", rule, "exact totals, which no budget covers",
            "Propose a job with noise, or ask the owner for a grant without a budget.",
        )  # fmt: skip
        return
    delta = float(budget.delta)
    spent = zcdp.epsilon(usage.loss, delta)
    after = spent if usage.charged else zcdp.epsilon(usage.loss + request.loss, delta)
    clause(
        "budget", after <= budget.epsilon, "BUDGET", "budget.used", rule, f"ε of {after:.4g} with this round",
        "Propose fewer rounds or more noise, or ask the owner for a larger budget.",
        f"{max(0.0, budget.epsilon - spent):.4g}",
    )  # fmt: skip


def _promise(out: list[Clause], key: str, rule: str, label: Label) -> None:
    out.append(Clause(key, True, "", "", rule, "", "", "", label))
