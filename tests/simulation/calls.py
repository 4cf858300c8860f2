"""gRPC in memory: calls from one process to another, that either end may lose.

A caller that goes away cancels its call on the server. A server that dies breaks its calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from simulation.links import Link
from simulation.loop import Loop, Process

T = TypeVar("T")


class Lost(Exception):
    """The caller does not know what became of the call: UNAVAILABLE, or DEADLINE_EXCEEDED."""


class Upstream(Generic[T]):
    """What a caller streams to a server: in order, as far as it comes."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self.cut: Callable[[], None] = lambda: None
        """Called when the way breaks."""
        self._loop = loop
        self._link = link
        self._arrives = 0.0
        self._underway: deque[T | None] = deque()
        self._arrived: deque[T | None] = deque()
        self._reader: asyncio.Future[None] | None = None

    def send(self, message: T | None) -> None:
        """Sends the next message; None is the end."""
        if self._link.loses():
            self.cut()
            return
        self._arrives = max(self._arrives, self._loop.time() + self._link.delay())
        self._underway.append(message)
        self._loop.call_at(self._arrives, self._arrive)

    async def read(self) -> T | None:
        """Waits for the next message; None if there are no more."""
        while not self._arrived:
            self._reader = self._loop.create_future()
            await self._reader
        return self._arrived.popleft() if self._arrived[0] is not None else None

    def _arrive(self) -> None:
        self._arrived.append(self._underway.popleft())
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Calls:
    """The way between those who call."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self._loop = loop
        self._link = link
        self.impatience = 0.0
        """Probability that a caller goes away in the midst of its call."""

    async def unary(
        self, server: Process, work: Callable[[], Coroutine[Any, Any, T]], deadline: float
    ) -> T:
        """Has a server do something, and returns or raises what it answers.

        Raises:
            Lost: it did not answer in time, or the way there or back was cut.
        """
        loop, link = self._loop, self._link
        await asyncio.sleep(link.delay())
        if server.dead or link.loses():
            raise Lost("the call did not arrive")
        answer: asyncio.Future[T] = loop.create_future()
        task = loop.create_task(work(), name=work.__qualname__, context=server.context.copy())

        def broken() -> None:
            if not answer.done():
                answer.set_exception(Lost("the server died"))

        def done(task: asyncio.Task[T]) -> None:
            server.not_at_death(broken)
            if answer.done():
                if not task.cancelled():
                    task.exception()
            elif task.cancelled():
                answer.set_exception(Lost("the call was cancelled"))
            elif (error := task.exception()) is not None and not link.loses():
                answer.set_exception(error)
            elif error is not None or link.loses():
                answer.set_exception(Lost("the answer was lost"))
            else:
                answer.set_result(task.result())

        def leave() -> None:
            if loop.chance(0.8):
                loop.call_soon(leave)
            elif not answer.done():
                answer.set_exception(Lost("the caller has gone"))

        server.at_death(broken)
        task.add_done_callback(done)
        if loop.chance(self.impatience):
            loop.call_later(link.delay(), leave)
        try:
            async with asyncio.timeout(deadline):
                return await answer
        except TimeoutError:
            raise Lost("no answer in time") from None
        finally:
            if not task.done():
                loop.call_later(link.delay(), task.cancel, context=server.context)

    def upstream(self) -> Upstream[Any]:
        """The other way of a stream that is to be opened."""
        return Upstream(self._loop, self._link)

    async def stream(
        self,
        server: Process,
        source: Callable[[], AsyncIterator[T]],
        upstream: Upstream[Any] | None = None,
    ) -> AsyncGenerator[T, None]:
        """Yields what a server streams, which may read what the caller streams meanwhile.

        Raises:
            Lost: the way was cut.
        """
        loop, link = self._loop, self._link
        await asyncio.sleep(link.delay())
        if server.dead or link.loses():
            raise Lost("the call did not arrive")
        received: deque[T] = deque()
        ended: list[BaseException | None] = []
        waiter: asyncio.Future[None] | None = None

        def wake() -> None:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

        async def pump() -> None:
            generator: Any = source()
            async with aclosing(generator) as messages:
                async for message in messages:
                    received.append(message)
                    wake()
                    if link.pauses():
                        await asyncio.sleep(link.pause())

        def broken() -> None:
            ended.append(Lost("the server died"))
            wake()

        def done(task: asyncio.Task[None]) -> None:
            server.not_at_death(broken)
            error = None if task.cancelled() else task.exception()
            cut = task.cancelled() or link.loses()
            ended.append(Lost("the stream was cut") if cut else error)
            wake()

        def cut() -> None:
            ended.append(Lost("the stream was cut"))
            wake()

        task = loop.create_task(pump(), name="pump", context=server.context.copy())
        if upstream is not None:
            upstream.cut = cut
        server.at_death(broken)
        task.add_done_callback(done)
        try:
            while True:
                while received:
                    yield received.popleft()
                if ended:
                    if ended[0] is not None:
                        raise ended[0]
                    return
                waiter = loop.create_future()
                await waiter
        finally:
            if not task.done():  # the server learns of it later
                loop.call_later(link.delay(), task.cancel, context=server.context)
