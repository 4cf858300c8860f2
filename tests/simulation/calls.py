"""gRPC in memory: calls from one process to another, that either end may lose.

A caller that goes away cancels its call on the server. A server that dies breaks its calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from simulation.links import Link
from simulation.loop import Loop, Process

T = TypeVar("T")


class Lost(Exception):
    """The caller does not know what became of the call: UNAVAILABLE, or DEADLINE_EXCEEDED."""


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

    async def stream(
        self, server: Process, source: Callable[[], AsyncIterator[T]]
    ) -> AsyncGenerator[T, None]:
        """Yields what a server streams.

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
            async for message in source():
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

        task = loop.create_task(pump(), name="pump", context=server.context.copy())
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
            if not task.done():
                task.cancel()
