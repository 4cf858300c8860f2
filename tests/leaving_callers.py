"""Callers that go away before they are answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

_AT_ONCE = 30
_PATIENCE = 0.1
"""Of a caller at most, in seconds: some are answered, some are not even heard."""


@asynccontextmanager
async def callers_that_leave(*calls: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Beside the block, many callers make these calls, and all go away at once, again and again."""
    dice = random.Random(1)

    async def go(call: Callable[[], Awaitable[Any]]) -> None:
        while True:
            await call()

    async def come_and_go() -> None:
        while True:
            callers = [asyncio.create_task(go(calls[n % len(calls)])) for n in range(_AT_ONCE)]
            await asyncio.sleep(dice.uniform(0, _PATIENCE))
            await leave(callers)

    async def leave(callers: Sequence[asyncio.Task[None]]) -> None:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    coming = asyncio.create_task(come_and_go())
    try:
        yield
    finally:
        assert not coming.done(), coming
        await leave([coming])
