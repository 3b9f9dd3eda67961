"""The client that blocks: for notebooks, scripts and services of one's own."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

import pandas as pd

from gateway.client.books import Grants, Members, Models
from gateway.client.connection import CALL_SECONDS, Connection
from gateway.client.data import Data, Features
from gateway.client.documents import Document
from gateway.client.jobs import Job, Jobs
from gateway.client.results import facts_html
from gateway.client.scoring import ModelLike, score


class Client:
    """A member's own node. Works inside a running event loop too (Jupyter): it needs none.

    Attributes:
        data, features: this owner's tables, and credit features of a ledger. Both need no running node.
        jobs, grants, members, models: what their `chaotian` verbs do.

    Args:
        home: the node's home folder; the environment variable CHAOTIAN_HOME where left out.

    Raises:
        ChaotianError: USAGE where no home is named, CONFIG where it is none of a node.

    Example:
        >>> with connect("/srv/chaotian/node") as client:
        ...     job = client.propose("scorecard.toml")
        ...     job.accept().wait_for_acceptances().start().wait()
        ...     print(job.result().coefficients)
    """

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        self._connection = Connection(home)
        self.jobs = Jobs(self._connection)
        self.grants = Grants(self._connection)
        self.members = Members(self._connection)
        self.models = Models(self._connection)
        self.data = Data(self._connection)
        self.features = Features(self._connection)

    def status(self, *, deadline: float = CALL_SECONDS) -> dict[str, Any]:
        """Return who the node is and how it is: member, role, space, connected, …; NODE_NOT_RUNNING."""
        return self._connection.call("node.status", deadline=deadline)

    def propose(self, document: Document, *, deadline: float = CALL_SECONDS) -> Job:
        """Propose a job to its members; see `Jobs.propose`."""
        return self.jobs.propose(document, deadline=deadline)

    def score(self, model: ModelLike, frame: pd.DataFrame, *, reasons: int = 4) -> pd.DataFrame:
        """Score rows: score (log-odds of bad), probability, points and reasons; see `gateway.client.score`.

        Args:
            model: the first digits of the id of a model of this node or of its job's; a path; or a model.
            frame: rows with the model's columns, others beside them.
            reasons: up to how many reasons a row, 0 to 4.

        Raises:
            ChaotianError: NOT_FOUND, MODEL_HASH, DATA_* naming row and column.
        """
        return score(model, frame, reasons=reasons, home=self._connection.path)

    def close(self) -> None:
        """Give back what is open; the node runs on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._connection.path}>"

    def _repr_html_(self) -> str:
        found = self.status()
        shown = ("member", "role", "space", "connected")
        return facts_html({name: found[name] for name in shown})


def connect(home: str | os.PathLike[str] | None = None, *, deadline: float = 10.0) -> Client:
    """Return a client of the node that runs in `home`.

    No passphrase is asked for: the keys stay with the node's process, and whoever may open the socket in its home may
    ask it for everything.

    Args:
        home: the node's home folder; the environment variable CHAOTIAN_HOME where left out.
        deadline: seconds until the node has answered.

    Raises:
        ChaotianError: USAGE, CONFIG; NODE_NOT_RUNNING. For data, features and models alone, `Client(home)` will do.
    """
    client = Client(home)
    client.status(deadline=deadline)
    return client
