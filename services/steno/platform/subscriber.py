"""What one of many subscribers has not read yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")

MAX_UNREAD = 64
"""Events kept for a subscriber that does not read."""


class Subscriber(Generic[T, S]):
    """Events as they come, and the latest state of what they are about.

    A slow reader loses the oldest events, so it costs no more memory than this; it notices the
    hole, and reads the log. There may be thousands of subscribers: one without unread events holds
    next to nothing.
    """

    __slots__ = ("_events", "_gone", "_state", "_woken")

    def __init__(self) -> None:
        """Begins with nothing to read."""
        self._events: list[T] = []
        self._state: S | None = None
        self._gone = False
        self._woken: asyncio.Future[None] | None = None

    def notify(self, event: T) -> None:
        """Adds an event."""
        if len(self._events) == MAX_UNREAD:
            del self._events[0]
        self._events.append(event)
        self._wake()

    def update(self, state: S | None) -> None:
        """Sets the state that a poll of the database found; None if it is gone."""
        self._state = state
        self._gone = state is None
        self._wake()

    async def read(self) -> tuple[Sequence[T], S | None, bool]:
        """Waits for something new; returns events, the latest state, and whether that is gone."""
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
