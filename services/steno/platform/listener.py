"""What one of many readers has not looked at yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")

MOST_UNREAD = 64
"""Events kept for a reader that does not read."""


class Listener(Generic[T, S]):
    """Events as they come, and the latest state of what they are about.

    A slow reader makes the oldest events fall out, so it costs no more memory than this; it finds
    the hole, and reads the log. There may be thousands: while nothing comes, they hold next to
    nothing.
    """

    __slots__ = ("_events", "_gone", "_state", "_woken")

    def __init__(self) -> None:
        """Has heard nothing yet."""
        self._events: list[T] = []
        self._state: S | None = None
        self._gone = False
        self._woken: asyncio.Future[None] | None = None

    def hear(self, event: T) -> None:
        """An event has come."""
        if len(self._events) == MOST_UNREAD:
            del self._events[0]
        self._events.append(event)
        self._wake()

    def see(self, state: S | None) -> None:
        """The database says how things are; None when they are gone."""
        self._state = state
        self._gone = state is None
        self._wake()

    async def news(self) -> tuple[Sequence[T], S | None, bool]:
        """Waits for something new; returns events, what was seen last, and whether that is gone."""
        if not self._events and self._state is None and not self._gone:
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken
            self._woken = None
        events, state = self._events, self._state
        self._events, self._state = [], None
        return events, state, self._gone

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
