"""Puts grants, log and jobs of a node together: what every role that takes part in jobs calls from its `setup`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.entropy import SystemEntropy
from gateway.audit.local import register_audit
from gateway.audit.log import AuditLog
from gateway.datasets.book import DatasetBook
from gateway.grants.book import GrantBook
from gateway.grants.exchange import GrantExchange
from gateway.jobs.local_api import register_node
from gateway.jobs.models import ModelStore
from gateway.jobs.node import NodeJobs
from gateway.jobs.uses import ModelUses, PendingUses, register_uses
from gateway.runtime.context import Runtime

PUBLISH_SECONDS = 5.0


class LogPublisher:
    """A service that keeps the log's tiles and checkpoint close behind its leaves.

    Args:
        log: the node's log.
    """

    def __init__(self, log: AuditLog, logger: Any) -> None:
        self._log, self._logger = log, logger
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Refuse to run on a database that the published log has left behind; then keep publishing.

        Raises:
            ChaotianError: LOG_INVALID for a restored backup or a fork.
        """
        await asyncio.to_thread(self._log.check_start)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Publish what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(ChaotianError):
            await asyncio.to_thread(self._log.materialise)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            try:
                await asyncio.to_thread(self._log.materialise)
            except ChaotianError as error:
                self._logger.warning("the log was not published: %s", error)


def setup_jobs(runtime: Runtime) -> NodeJobs:
    """Give a node its log, grants and jobs; return the jobs."""
    link, peers, identity = runtime.link, runtime.peers, runtime.identity
    if link is None or peers is None or identity is None:
        raise ChaotianError("INTERNAL", "jobs run at a node that has enrolled")
    log = AuditLog(runtime.database, identity, runtime.home / "log", clock=runtime.clock)
    register_audit(runtime.local, log, runtime.home / "log")
    runtime.add_service(LogPublisher(log, runtime.log))

    models = ModelStore(runtime.home)
    uses = ModelUses(runtime.database, models, runtime.clock, identity.member)
    register_uses(runtime.local, uses, models, log)
    runtime.add_service(PendingUses(uses, log))

    datasets = DatasetBook(runtime.database, runtime.home)
    grants = GrantBook(clock=runtime.clock)

    def described(name: str) -> Mapping[str, Any] | None:
        try:
            dataset = datasets.get(name)
        except ChaotianError:
            return None
        return {
            "schema": dataset.schema_digest,
            "grade": max((column.grade for column in dataset.schema.columns), default=5),
        }

    exchange = GrantExchange(
        database=runtime.database,
        book=grants,
        log=log,
        identity=identity,
        peers=peers,
        link=link,
        clock=runtime.clock,
        dataset=described,
    )
    exchange.register(runtime.local)
    runtime.add_service(exchange)

    jobs = NodeJobs(
        identity=identity,
        peers=peers,
        link=link,
        database=runtime.database,
        log=log,
        grants=grants,
        datasets=datasets,
        models=models,
        folder=runtime.home / "jobs",
        clock=runtime.clock,
        monotonic=time.monotonic,
        entropy=SystemEntropy(),
        logger=runtime.log,
    )
    exchange.job_requests = jobs.requests_of
    jobs.register()
    register_node(runtime.local, jobs)
    runtime.add_service(jobs)
    return jobs
