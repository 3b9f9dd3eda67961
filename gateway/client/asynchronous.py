"""The client that does not block: the same methods as coroutines, for services with an event loop.

Calls run in threads, as gRPC and DuckDB block. Cancelling a coroutine gives up waiting for its answer, never what it
asked for: a job runs on, and a call that was sent is answered to nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from gateway.client.books import Grants, Members, Models
from gateway.client.connection import CALL_SECONDS
from gateway.client.data import Data, Features
from gateway.client.documents import Document
from gateway.client.jobs import WAIT_SECONDS, Acceptances, Ending, Job, Jobs, Progress, Waiting, watcher
from gateway.client.sync import Client

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class _Threaded(Generic[S]):
    """The methods of one part of the client that blocks, each in a thread.

    Args:
        sync: the part.
    """

    def __init__(self, sync: S) -> None:
        self._sync = sync

    def __repr__(self) -> str:
        return f"<async {self._sync!r}>"


def _threaded(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[_Threaded[S], P], Coroutine[Any, Any, T]]:
    """Return `method` of the part that blocks as a coroutine function with the same parameters."""

    @wraps(method)
    async def call(self: _Threaded[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self._sync, *args, **kwargs)

    return call


def _step(
    method: Callable[Concatenate[Job, P], Job],
) -> Callable[Concatenate[AsyncJob, P], Coroutine[Any, Any, AsyncJob]]:
    """Return a step of a job as a coroutine function that gives the job again."""

    @wraps(method)
    async def call(self: AsyncJob, /, *args: P.args, **kwargs: P.kwargs) -> AsyncJob:
        await asyncio.to_thread(method, self._sync, *args, **kwargs)
        return self

    return call


class AsyncJob(_Threaded[Job]):
    """A job as this member's node knows it; see `Job`."""

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self._sync.id

    show = _threaded(Job.show)
    result = _threaded(Job.result)
    accept = _step(Job.accept)
    consent = _step(Job.consent)
    start = _step(Job.start)
    resume = _step(Job.resume)
    cancel = _step(Job.cancel)

    async def wait(self, *, progress: Progress = True, deadline: float = WAIT_SECONDS) -> AsyncJob:
        """Wait until the job is over; see `Job.wait`. Cancelled, it stops looking, and the job runs on."""
        with watcher(progress) as shown:
            await self._until(Ending(shown, deadline), "job.progress")
        return self

    async def wait_for_acceptances(self, *, progress: Progress = True, deadline: float = WAIT_SECONDS) -> AsyncJob:
        """Wait until every member has accepted; see `Job.wait_for_acceptances`."""
        with watcher(progress) as shown:
            await self._until(Acceptances(shown, deadline), "job.show")
        return self

    async def _until(self, waiting: Waiting, method: str) -> None:
        while True:
            if waiting.see(await asyncio.to_thread(self._sync.look, method, waiting.left)):
                return
            await asyncio.sleep(waiting.pause)


class AsyncJobs(_Threaded[Jobs]):
    """See `Jobs`."""

    list = _threaded(Jobs.list)

    async def propose(self, document: Document, *, deadline: float = CALL_SECONDS) -> AsyncJob:
        """Propose a job to its members; see `Jobs.propose`."""
        return AsyncJob(await asyncio.to_thread(self._sync.propose, document, deadline=deadline))

    async def get(self, job: str, *, deadline: float = CALL_SECONDS) -> AsyncJob:
        """Return the job whose id begins with `job`; see `Jobs.get`."""
        return AsyncJob(await asyncio.to_thread(self._sync.get, job, deadline=deadline))


class AsyncGrants(_Threaded[Grants]):
    """See `Grants`."""

    list = _threaded(Grants.list)
    show = _threaded(Grants.show)
    propose = _threaded(Grants.propose)
    accept = _threaded(Grants.accept)
    revoke = _threaded(Grants.revoke)
    explain = _threaded(Grants.explain)
    wait_for = _threaded(Grants.wait_for)


class AsyncMembers(_Threaded[Members]):
    """See `Members`."""

    list = _threaded(Members.list)
    approve = _threaded(Members.approve)
    revoke = _threaded(Members.revoke)


class AsyncModels(_Threaded[Models]):
    """See `Models`."""

    list = _threaded(Models.list)
    get = _threaded(Models.get)
    export = _threaded(Models.export)
    benefit = _threaded(Models.benefit)
    card = _threaded(Models.card)
    in_use = _threaded(Models.in_use)
    history = _threaded(Models.history)
    use = _threaded(Models.use)
    rollback = _threaded(Models.rollback)


class AsyncData(_Threaded[Data]):
    """See `Data`."""

    check = _threaded(Data.check)
    add = _threaded(Data.add)
    list = _threaded(Data.list)
    show = _threaded(Data.show)
    read = _threaded(Data.read)


class AsyncFeatures(_Threaded[Features]):
    """See `Features`."""

    list = _threaded(Features.list)
    compute = _threaded(Features.compute)


class AsyncClient(_Threaded[Client]):
    """A member's own node, without blocking; see `Client`.

    Example:
        >>> async with connect_async("/srv/chaotian/node") as client:
        ...     job = await client.propose("scorecard.toml")
        ...     await job.accept()
        ...     await job.wait(progress=print)
    """

    def __init__(self, home: str | os.PathLike[str] | None = None, *, deadline: float = 10.0) -> None:
        super().__init__(Client(home))
        self._deadline = deadline
        self.jobs = AsyncJobs(self._sync.jobs)
        self.grants = AsyncGrants(self._sync.grants)
        self.members = AsyncMembers(self._sync.members)
        self.models = AsyncModels(self._sync.models)
        self.data = AsyncData(self._sync.data)
        self.features = AsyncFeatures(self._sync.features)

    status = _threaded(Client.status)
    score = _threaded(Client.score)
    close = _threaded(Client.close)

    async def propose(self, document: Document, *, deadline: float = CALL_SECONDS) -> AsyncJob:
        """Propose a job to its members; see `Jobs.propose`."""
        return await self.jobs.propose(document, deadline=deadline)

    async def __aenter__(self) -> Self:
        await self.status(deadline=self._deadline)
        return self

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def connect_async(home: str | os.PathLike[str] | None = None, *, deadline: float = 10.0) -> AsyncClient:
    """Return a client to be entered (`async with`) or awaited, which asks the node whether it is there; see `connect`.

    Raises:
        ChaotianError: USAGE, CONFIG; once entered, NODE_NOT_RUNNING.
    """
    return AsyncClient(home, deadline=deadline)
