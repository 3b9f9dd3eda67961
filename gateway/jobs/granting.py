"""Which grant a member computes under: one that permits every operation a job may run, found before it is accepted."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from federation.errors import ChaotianError
from gateway.datasets.book import Dataset
from gateway.grants.decision import Decision, UseRequest
from gateway.grants.document import Grant
from gateway.jobs.data import as_bound, model_of, resolve, use_request
from gateway.jobs.member import Home, own_grant
from gateway.jobs.store import JobRow


class Granting:
    """Grants of one node, as far as jobs ask for them.

    Args:
        home: the node.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    def requests(self, row: JobRow, dataset: Dataset) -> list[UseRequest]:
        """Return what the rounds of a job ask of a grant over one dataset, operation by operation."""
        home, document = self._home, row.document
        columns = document.plan.columns(model_of(document, home.models))
        loss = document.plan.loss(len(document.members))
        requests = [
            use_request(
                document,
                as_bound(home.datasets, dataset.name, dataset.snapshot),
                home.member,
                home.requester(document),
                operation=operation,
                columns=columns,
                round_=at + 1,  # each takes one round at least
                members=document.members,
                roster_changes=0,
                read=columns,
            )
            for at, operation in enumerate(document.plan.operations())
        ]
        # A budget that would run out in the middle of the job is refused before it begins.
        return [replace(each, loss=None if loss is None else loss * document.plan.max_rounds) for each in requests]

    def first(self, row: JobRow) -> str:
        """Return the id of the grant this member would compute under; that of the first date where there are two.

        Raises:
            ChaotianError: as `choose`, for each dataset of the job.
        """
        sources = [resolve(self._home.datasets, source) for source in row.document.sources]
        return [self.choose(row, dataset) for dataset in sources][0]  # noqa: RUF015  (each is asked)

    def choose(self, row: JobRow, dataset: Dataset, wanted: str = "") -> str:
        """Return the id of the grant this member would compute under over a dataset.

        Args:
            wanted: the first digits of a grant's id; the newest one that permits where empty.

        Raises:
            ChaotianError: the denial of the named grant, of the newest one that covers the dataset, or NO_GRANT.
        """
        home = self._home
        if row.document.proposer == home.member:
            return own_grant(row.document, home.member)
        requests = self.requests(row, dataset)
        first: tuple[Grant, Decision] | None = None
        with home.database.read() as connection:
            candidates = home.grants.covering(
                connection, owner=home.member, grantee=requests[0].requester, dataset=dataset.name
            )
            if wanted:
                named = home.grants.find(connection, wanted)
                # Of two datasets the named grant may be for one only.
                others = [record for record in candidates if record.grant.id != named.grant.id]
                candidates = [named, *(others if named.grant.dataset.id != dataset.name else ())]
            for record in candidates:
                decisions = [home.grants.decide(connection, record.grant.id, request) for request in requests]
                denied = next((decision for decision in decisions if not decision.permitted), None)
                if denied is None:
                    return record.grant.id
                first = first or (record.grant, denied)
            if first is None:
                raise self._none(connection, requests[0])
        grant, decision = first
        if decision.denials[0].key == "ops.op":
            raise _missing(grant, [request.operation for request in requests])
        decision.check()
        raise AssertionError("a denial raises")

    def _none(self, connection: Connection, request: UseRequest) -> ChaotianError:
        """Return the error where no grant in force covers a job, with who has to do what."""
        to, member = request.requester, self._home.member
        hint = f"Propose one to {to}: `chaotian grant propose FILE`; it counts once {to} has accepted it."
        for record in self._home.grants.records(connection, state="proposed"):
            grant = record.grant
            if (grant.owner, grant.grantee, grant.dataset.id) == (member, request.requester, request.dataset):
                who = request.requester if record.proposer == member else "this member"
                hint = f"One is proposed and waits until {who} accepts it: `chaotian grant accept {grant.id[:12]}`."
                break
        what = f"no grant in force lets {request.requester} use {request.dataset} for {request.purpose}"
        return ChaotianError("NO_GRANT", what, hint=hint)


def _missing(grant: Grant, operations: list[str]) -> ChaotianError:
    """Return the error where a grant does not cover all operations of a job, naming every one at once."""
    lacking = [operation for operation in operations if grant.operation(operation) is None]
    has = ", ".join(op.op for op in grant.ops)
    words = ", ".join(f'"{word}"' for word in sorted({operation.partition(".")[0] for operation in operations}))
    return ChaotianError(
        "GRANT_DENIED",
        f"ops.op: the grant {grant.id[:12]} is for {has}; the job also runs {', '.join(lacking)}",
        hint=f"Propose a grant with op = [{words}].",
    )
