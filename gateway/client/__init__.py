"""Chaotian from Python: a member's own node, and the lab, with pandas in and out.

`connect` blocks, `connect_async` does not; both have the same methods. `lab` trains a whole federation in this process.

Example:
    >>> from gateway.client import connect
    >>> client = connect("/srv/chaotian/node")
    >>> client.jobs.list()
"""

from federation.errors import ChaotianError
from gateway.client import documents, lab
from gateway.client.asynchronous import AsyncClient, AsyncJob, connect_async
from gateway.client.data import check
from gateway.client.jobs import Job
from gateway.client.results import JobResult, JobView
from gateway.client.scoring import score
from gateway.client.sync import Client, connect

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "ChaotianError",
    "Client",
    "Job",
    "JobResult",
    "JobView",
    "check",
    "connect",
    "connect_async",
    "documents",
    "lab",
    "score",
]
