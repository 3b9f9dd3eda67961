"""One open stream between two processes: a queue of frames, and the credit of both sides."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.transport.frames import StreamError

_PARTS_WAITING = 4  # parts queued before a large message waits
_WORDS_WAITING = 1024


class WireClosedError(Exception):
    """The stream under a message ended; the session resumes it on the next one."""


class Wire:
    """One open stream: one task writes its frames, and the credit of both sides is kept.

    Writing has a task of its own because a cancelled write ends a gRPC call: who waits for a reply may give up at any
    moment without harm to the stream. Words (credit, pings, refusals) go before parts.

    Args:
        stream: its name.
        write: writes one frame; raises when the call is over.
        outgoing: bytes of parts the other side allows at first.
        incoming: bytes of parts this side allows.
        ended: called once when writing fails.
    """

    def __init__(
        self,
        stream: str,
        write: Callable[[Any], Awaitable[None]],
        *,
        outgoing: int,
        incoming: int,
        ended: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.closed = False
        self.allowance = incoming  # bytes the other side may still send
        self.window = incoming
        self.consumed = 0  # bytes taken since credit was last given
        self.arrived: list[bytes] = []  # shared by the wires of a session, see `Session.attach`
        self._write = write
        self._ended = ended
        self._credit = outgoing
        self._more = asyncio.Event()
        self._words: deque[Any] = deque()
        self._parts: deque[Any] = deque()
        self._room = asyncio.Semaphore(_PARTS_WAITING)
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while not self.closed:
                if self._words:
                    frame = self._words.popleft()
                elif self._parts:
                    frame = self._parts.popleft()
                    self._room.release()
                else:
                    self._written.set()
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                if self.arrived:
                    frame.arrived.extend(self.arrived[:1024])
                    del self.arrived[:1024]
                if self.consumed:
                    frame.credit = self.consumed
                    self.allowance += self.consumed
                    self.consumed = 0
                await self._write(frame)
        except asyncio.CancelledError:
            raise
        except Exception:  # grpc raises several kinds when a call is over; all mean the same here
            self.closed = True
            self._ended()

    async def send(self, frame: Any) -> None:
        """Queue one part; waits while many are queued; WireClosedError when the stream is over."""
        await self._room.acquire()
        if self.closed:
            self._room.release()  # wakes the next who waits
            raise WireClosedError
        self._parts.append(frame)
        self._wake.set()

    def word(self, frame: Any) -> None:
        """Queue a frame that goes before all parts."""
        if self.closed:
            return
        if len(self._words) >= _WORDS_WAITING:
            raise StreamError("MALFORMED", f"{self.stream} is asked for more answers than are read from it")
        self._words.append(frame)
        self._written.clear()
        self._wake.set()

    def try_credit(self, size: int) -> bool:
        """Take `size` bytes of credit if they are there now."""
        if self.closed or self._credit < size:
            return False
        self._credit -= size
        return True

    async def take_credit(self, size: int) -> None:
        """Wait until the other side allows `size` more bytes."""
        while not self.try_credit(size):
            if self.closed:
                raise WireClosedError
            self._more.clear()
            await self._more.wait()

    def give_credit(self, size: int) -> None:
        """The other side allows `size` more bytes."""
        if self._credit + size > 1 << 40:
            raise StreamError("MALFORMED", "more credit was given than any stream can use")
        self._credit += size
        self._more.set()

    async def drain(self, seconds: float) -> None:
        """Wait until all that is queued is written, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._written.wait()

    def close(self) -> None:
        """Nothing more goes over this stream."""
        self.closed = True
        self._task.cancel()
        self._more.set()
        self._written.set()
        self._room.release()
