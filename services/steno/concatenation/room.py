"""Room in memory, in bytes, for all who need some of it at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from steno.platform.errors import ResourceExhausted

PATIENCE_SECONDS = 2.0
"""How long a call waits for room before it is told to come again."""

ARRIVAL_SECONDS = 60.0
"""Longest time that a request may take to arrive, once there is room for it."""

HURRIED_SECONDS = 5.0
"""Longest time that it may take while others wait for room: who sends slowly must not keep it."""

_RETRY_AFTER = timedelta(seconds=1)


class Room:
    """So many bytes for all calls and streams of a process; who comes first has it first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._free = most_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """How much is taken."""
        return self._most - self._free

    def has(self, size: int) -> bool:
        """Whether nobody would have to wait for so much."""
        return not self._waiting and size <= self._free

    async def take(self, size: int) -> int:
        """Waits for room; returns what was taken, to be given back. No one needs more than all.

        Whoever has room is done with it after a time, and gives it back: no one waits for ever.
        """
        size = min(size, self._most)
        if not self.has(size):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                # It had its turn in this very moment, or what stands behind it may be smaller.
                self.give(0 if turn.cancelled() else size)
                raise
        else:
            self._free -= size
        return size

    def hold(self, size: int) -> None:
        """Takes what is in use already, whether there is room or not."""
        self._free -= size

    def give(self, size: int) -> None:
        """Gives room back."""
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif size <= self._free:
                self._waiting.popleft()
                self._free -= size
                turn.set_result(None)
            else:
                return

    @asynccontextmanager
    async def taken(
        self, size: int, patience: float | None = PATIENCE_SECONDS
    ) -> AsyncIterator[None]:
        """Room inside. Raises ResourceExhausted if there is none for so many seconds."""
        try:
            async with asyncio.timeout(patience):
                size = await self.take(size)
        except TimeoutError:
            raise ResourceExhausted(
                "too many bytes of chunks are on their way to the object store; send it again",
                _RETRY_AFTER,
                "TOO_MANY_BYTES",
            ) from None
        try:
            yield
        finally:
            self.give(size)


class Arrivals:
    """Room for requests on their way into memory."""

    def __init__(self, most_bytes: int) -> None:
        self._room = Room(most_bytes)
        self._ends: dict[asyncio.Timeout, float] = {}
        """When each of those on their way has to be here, if others wait."""

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Room for a request that arrives inside.

        Raises:
            ResourceExhausted: there is none for PATIENCE_SECONDS; or the request does not arrive
                within ARRIVAL_SECONDS, or HURRIED_SECONDS while others wait.
        """
        if not self._room.has(size):
            self._hurry()
        async with self._room.taken(size):
            began = asyncio.get_running_loop().time()
            end = asyncio.timeout_at(began + ARRIVAL_SECONDS)
            self._ends[end] = began + HURRIED_SECONDS
            try:
                async with end:
                    yield
            except TimeoutError:
                why = "the chunk arrives too slowly; send it again, or shorter ones"
                raise ResourceExhausted(why, _RETRY_AFTER, "TOO_SLOW") from None
            finally:
                del self._ends[end]

    def _hurry(self) -> None:
        for end, moment in self._ends.items():
            if not end.expired():
                end.reschedule(moment)
