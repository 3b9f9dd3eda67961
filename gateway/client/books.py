"""What a node holds beside jobs: grants, members, models."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from federation.errors import ChaotianError
from federation.learning.card import ModelCard
from gateway.client.connection import CALL_SECONDS, Connection, check_deadline
from gateway.client.documents import Document, toml_text
from gateway.client.results import Benefit
from gateway.jobs.facts import facts_of
from gateway.jobs.models import ModelStore, encode
from gateway.jobs.uses import ModelUses, Use
from gateway.jobs.worth import own_worth
from gateway.scoring.estimator import FederatedScorecard
from gateway.storage.files import write_atomic


class Grants:
    """Usage contracts: what may be computed on whose data."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, *, state: str = "", deadline: float = CALL_SECONDS) -> pd.DataFrame:
        """Return the grants this node holds, the newest first.

        Args:
            state: only those `proposed`, `active` or `revoked`.
        """
        found = self._connection.call("grant.list", {"state": state}, deadline=deadline)["grants"]
        columns = ["id", "state", "owner", "grantee", "dataset", "purposes", "exp", "charges"]
        table = pd.DataFrame(found, columns=columns)
        return table.assign(exp=pd.to_datetime(table["exp"], unit="s", utc=True)).set_index("id")

    def show(self, grant: str, *, deadline: float = CALL_SECONDS) -> dict[str, Any]:
        """Return a grant with its clauses in words, its state and what is used of its quota."""
        return self._call("grant.show", deadline, id=grant)

    def propose(self, document: Document, *, deadline: float = CALL_SECONDS) -> dict[str, Any]:
        """Sign a new grant as owner or grantee and send it to the other party.

        Args:
            document: a dict with the fields of docs/grants.md, a path, or TOML text.
        """
        return self._call("grant.propose", deadline, toml=toml_text(document, "grant"), deliver=True)

    def accept(self, grant: str, *, deadline: float = CALL_SECONDS) -> dict[str, Any]:
        """Sign the other party's proposal: from then on the grant is in force."""
        return self._call("grant.accept", deadline, id=grant, deliver=True)

    def revoke(self, grant: str, *, deadline: float = CALL_SECONDS) -> dict[str, Any]:
        """End a grant now, or decline a proposal; this node refuses from the moment this returns."""
        return self._call("grant.revoke", deadline, id=grant)

    def explain(self, grant: str, *, job: str = "", deadline: float = CALL_SECONDS) -> pd.DataFrame:
        """Return each clause with its rule; for a job also the verdict, what came, and what is left.

        Args:
            job: id of a job; the terms alone where left out.
        """
        found = self._call("grant.explain", deadline, id=grant, **({"job": job} if job else {}))
        decision = found.get("decision")
        if decision is None:
            return pd.DataFrame(found["terms"]).set_index("key")
        columns = ["key", "permitted", "rule", "came", "left", "label", "code", "reason", "remedy"]
        return pd.DataFrame(decision["clauses"], columns=columns).set_index("key")

    def wait_for(
        self, *, owner: str = "", state: str = "proposed", count: int = 1, deadline: float = 300.0
    ) -> pd.DataFrame:
        """Wait until `count` grants of a state are here, and return them.

        Args:
            owner: only grants of this member.

        Raises:
            ChaotianError: DEADLINE.
        """
        end = time.monotonic() + check_deadline(deadline)
        while True:
            table = self.list(state=state)
            table = table[table["owner"] == owner] if owner else table
            if len(table) >= count:
                return table
            if time.monotonic() >= end:
                raise ChaotianError("DEADLINE", f"{len(table)} of {count} {state} grants came within {deadline:g} s")
            time.sleep(0.5)

    def _call(self, method: str, deadline: float, **params: Any) -> dict[str, Any]:
        found = self._connection.call(method, params, deadline=deadline)
        return {key: value for key, value in found.items() if key != "envelope"}


class Members:
    """Who belongs to the space, and who of them counts for this node. Needs no running node."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> pd.DataFrame:
        """Return the members of the space: role, city, status, approved, fingerprint."""
        from gateway.identity.listing import known_members

        found, _ = known_members(self._database)
        columns = ["member", "role", "city", "status", "approved", "fingerprint"]
        return pd.DataFrame(found, columns=columns).set_index("member")

    def approve(self, member: str, fingerprint: str) -> None:
        """Approve a member's key: only then does it count for this node.

        Args:
            fingerprint: all 64 digits, as the member told you by another way; never copied from `list`.

        Raises:
            ChaotianError: NOT_FOUND, USAGE where the fingerprint is another one.
        """
        from gateway.identity.fingerprints import parse_fingerprint
        from gateway.identity.node import peer_book

        peer_book(self._database).approve(member, parse_fingerprint(fingerprint))

    def revoke(self, member: str) -> None:
        """Take an approval back; NOT_FOUND where there was none."""
        from gateway.identity.peers import Approvals

        if not Approvals(self._database).revoke(member):
            raise ChaotianError("NOT_FOUND", "this node has approved no member of that name")

    @property
    def _database(self) -> Any:
        database = self._connection.home.database
        database.upgrade()
        return database


class Models:
    """Scorecards of this node. Needs no running node, but to change which one is in use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._store = ModelStore(connection.path)

    def list(self) -> pd.DataFrame:
        """Return the models: job, label, coefficients, rows and bads that trained them."""
        rows = [
            {
                "model": model.version,
                "job": str(model.document["job"]),
                "label": model.label,
                "coefficients": len(model.coefficients),
                "rows": model.document["training"]["rows"],
                "bads": model.document["training"]["bads"],
            }
            for model in self._store.all()
        ]
        return pd.DataFrame(rows, columns=["model", "job", "label", "coefficients", "rows", "bads"]).set_index("model")

    def get(self, model: str) -> FederatedScorecard:
        """Return a model as a scikit-learn classifier.

        Args:
            model: the first digits of its id or of its job's, at least four.

        Raises:
            ChaotianError: NOT_FOUND; USAGE where several fit; MODEL_HASH where its file was changed.
        """
        return FederatedScorecard(self._store.get(model))

    def export(self, model: str, out: Path | str) -> Path:
        """Write a model as JSON with its version hash; return the path."""
        path = Path(out).expanduser()
        write_atomic(path, encode(self._store.get(model)), mode=0o644)
        return path

    def benefit(self, model: str, *, data: str = "") -> Benefit:
        """Return what joining was worth to this member: its own model beside the federated one, on its own rows.

        Args:
            data: dataset of this node with outcomes; the job's test dataset or the own held-out rows where left out.

        Raises:
            ChaotianError: NOT_FOUND where this node did not bring rows to the model's job, or lacks them; DATA_*.
        """
        found = self._store.get(model)
        return Benefit(found, own_worth(self._connection.path, found, data))

    def card(self, model: str) -> dict[str, Any]:
        """Return the model card: what the model was made of, how well it does, its coefficients, points, limits."""
        found = self._store.get(model)
        facts = facts_of(self._connection.path, found)
        own = (facts.result or {}).get("holdout")
        card = ModelCard.of(found, purpose=facts.purpose, dataset=facts.dataset, members=facts.members, own=own)
        for figures in facts.evaluations:
            card = card.with_figures(figures)
        return card.document()

    def in_use(self) -> pd.DataFrame:
        """Return the model in use for each purpose and label: model, the one before, since when, by whom, and why."""
        return _changes(self._uses.all_in_use())

    def history(self) -> pd.DataFrame:
        """Return all changes of the models in use."""
        return _changes(self._uses.history())

    def use(self, model: str, purpose: str, *, note: str = "", deadline: float = CALL_SECONDS) -> dict[str, Any]:
        """Put a model of this node in use for a purpose; the change is in the node's log.

        Args:
            model: the first digits of its id.
            purpose: what it is used for.
            note: why.

        Returns:
            the change: number, purpose, label, action, model, before, account, note, changed, leaf.
        """
        words = {"model": self._store.get(model).version, "purpose": purpose, "note": note, "account": _account()}
        return self._connection.call("model.use", words, deadline=deadline)

    def rollback(
        self, purpose: str, *, label: str = "", note: str = "", deadline: float = CALL_SECONDS
    ) -> dict[str, Any]:
        """Go back to the model that was in use before; again, further back. Returns the change."""
        words = {"purpose": purpose, "label": label, "note": note, "account": _account()}
        return self._connection.call("model.rollback", words, deadline=deadline)

    @property
    def _uses(self) -> ModelUses:
        database = self._connection.home.database
        database.upgrade()
        return ModelUses(database, self._store, time.time)


def _changes(found: Sequence[Use]) -> pd.DataFrame:
    columns = ["number", "purpose", "label", "action", "model", "before", "account", "note", "changed"]
    table = pd.DataFrame([use.document() for use in found], columns=columns)
    return table.assign(changed=pd.to_datetime(table["changed"], unit="s", utc=True)).set_index("number")


def _account() -> str:
    """Return the account of this machine that runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
