"""How work ends: for good, to its end whoever goes away, and with nobody left to learn of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_AGAIN_SECONDS = 1.0
"""Patience of `ended` with a task before it is cancelled once more."""

_going_on: set[asyncio.Task[Any]] = set()
"""Work whose caller may have gone. asyncio alone would let it be collected midway."""


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks until they have ended; what they raise is dropped.

    Once is not enough: before Python 3.12 a cancellation that comes in the moment in which
    `asyncio.wait_for` has its result is lost, and NATS's client waits so for each answer.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


def seen(task: asyncio.Future[Any]) -> None:
    """Takes note of what a task has raised: a callback of one whose callers may all have gone.

    Whoever still waits for it is told as ever. Else asyncio logs an error that nobody has seen.
    """
    if not task.cancelled():
        task.exception()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Does work that goes on when its caller is cancelled, for half of it would be wrong.

    Every step of the work has a time limit of its own.
    """
    task = asyncio.create_task(work)
    _going_on.add(task)
    task.add_done_callback(_going_on.discard)
    task.add_done_callback(seen)
    return await asyncio.shield(task)


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Does the last work of a task that is cancelled already, and may be cancelled again."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
