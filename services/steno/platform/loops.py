"""Work that is done again and again beside the calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from steno.platform import database
from steno.platform.ending import ended
from steno.platform.errors import Unavailable

log = logging.getLogger(__name__)

AWAY = (Unavailable, *database.AWAY)
"""A server behind this process does not answer: nobody's fault, and it passes when the server is
back. `database.AWAY` are those of them that are about Postgres."""

HUNG_SECONDS = 600.0
"""Work that has not ended by itself in this time does not end."""


REST = 4.0
"""What is asked for all the time rests for so many times as long as it took, while more comes to be
done together: however often it is asked for, it takes a fifth of the time at most."""

LONGEST_REST = 0.05
"""Seconds for which a paced loop rests at most."""


class Signal:
    """Calling it wakes all waiters, now or the next time they wait."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Event] = []

    def __call__(self) -> None:
        """Wakes them."""
        for waiter in self._waiters:
            waiter.set()

    def waiter(self) -> asyncio.Event:
        """Returns an event that is set from now on at each call."""
        self._waiters.append(asyncio.Event())
        return self._waiters[-1]


async def repeat(
    action: str,
    work: Callable[[], Awaitable[object]],
    every: float,
    woken: asyncio.Event | None = None,
    paced: bool = False,
    within: float | None = HUNG_SECONDS,
) -> None:
    """Does some work again and again. A failure is logged, and the work tried again.

    Args:
        action: what the logs call it.
        work: does all there is to do at the moment.
        every: seconds between two times, and after a failure.
        woken: set when there is work to do at once.
        paced: it is woken so often that it pays to do together what comes in a short time; see
            REST. What comes to a loop that has rested is done at once.
        within: seconds after which the work is taken for hung, and ended; None for work that does
            not return.
    """
    woken = woken or asyncio.Event()
    clock = asyncio.get_running_loop().time
    while True:
        woken.clear()
        began = clock()
        succeeded = await _succeeds(action, work, within)
        took = clock() - began
        if not succeeded:
            await asyncio.sleep(every)
        with suppress(TimeoutError):
            async with asyncio.timeout(every):
                if paced:
                    await asyncio.sleep(min(REST * took, LONGEST_REST))
                await woken.wait()


async def once(action: str, work: Callable[[], Awaitable[object]], every: float) -> None:
    """Does some work until it has succeeded once. A failure is logged.

    Args:
        action: what the logs call it.
        work: may be done again.
        every: seconds between two tries.
    """
    while not await _succeeds(action, work, HUNG_SECONDS):  # noqa: ASYNC110 (there is no event)
        await asyncio.sleep(every)


async def _succeeds(
    action: str, work: Callable[[], Awaitable[object]], within: float | None
) -> bool:
    try:
        async with asyncio.timeout(within):
            await work()
    except AWAY as error:
        log.warning("will try again: %s", error, extra={"action": action})
        return False
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not this task was cancelled, but something that the work awaited.
        log.exception("failed, will try again", extra={"action": action})
        return False
    except Exception:
        log.exception("failed, will try again", extra={"action": action})
        return False
    return True


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs loops beside the block, and ends them after it."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        await ended(*tasks)
