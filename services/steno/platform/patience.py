"""Asking again while a server is away, for what must not be left unsaid."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0


async def until_answered(
    call: Callable[[], Awaitable[T]], is_away: Callable[[Exception], bool]
) -> T:
    """Repeats a call, which must be safe to repeat, until it is answered.

    Args:
        call: what is asked.
        is_away: whether a failure says no more than that the server was not reached.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("will ask again: %s", error, extra={"action": "wait"})
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
