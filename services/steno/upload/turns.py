"""Who goes next among the recordings that one process prepares at once: standard library only."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count

from steno.transcript import SAMPLE_RATE

LONG_SAMPLES = 300 * SAMPLE_RATE
"""From here on a recording is long. Up to here are some seconds of work, for which others wait."""


class TurnOver(Exception):
    """A recording turns out to be long, and all places for long ones are taken."""


class Place:
    """A recording's place in line; `turn` is where its next turn lies on the queue's clock."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.turn = 0.0


class Turns:
    """Lets one recording work at a time, each as long as the others (start-time fair queueing).

    Tenants get equal shares, and the recordings of a tenant equal parts of its share: a turn moves
    a recording back by what it lasts, times the recordings that its tenant has here. A newcomer
    begins where the clock stands: it waits for a turn of the others, not for their end.
    """

    def __init__(self) -> None:
        self._places: Counter[str] = Counter()
        self._clock = 0.0
        self._taken = False
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @contextmanager
    def place(self, tenant: str) -> Iterator[Place]:
        """A place in line for one recording."""
        self._places[tenant] += 1
        try:
            yield Place(tenant)
        finally:
            self._places[tenant] -= 1

    @asynccontextmanager
    async def turn(self, place: Place, length: float) -> AsyncIterator[None]:
        """Waits for a recording's turn; it lasts until the context is left.

        Args:
            place: of the recording.
            length: what the turn costs, in the same unit for all.
        """
        start = max(self._clock, place.turn)
        place.turn = start + length * self._places[place.tenant]
        if self._taken:
            called = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (start, next(self._numbers), called))
            try:
                await called
            except asyncio.CancelledError:
                if called.done() and not called.cancelled():
                    self._pass_on()
                raise
        self._taken = True
        self._clock = start
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Calls who is next, if somebody waits; else the next to come need not wait."""
        while self._waiting:
            _, _, called = heapq.heappop(self._waiting)
            if not called.done():
                called.set_result(None)
                return
        self._taken = False


class LongPlaces:
    """How many long recordings are prepared at once."""

    def __init__(self, places: int) -> None:
        self.free = places

    @contextmanager
    def place(self) -> Iterator[LongPlace]:
        """For one recording, which takes a place when it turns out to be long."""
        place = LongPlace(self)
        try:
            yield place
        finally:
            self.free += place.taken


class LongPlace:
    """What a recording takes of the places for long ones."""

    def __init__(self, places: LongPlaces) -> None:
        self._places = places
        self.taken = False

    def reach(self, sample_count: int) -> None:
        """So many samples are prepared. Raises TurnOver if it is long and there is no place."""
        if self.taken or sample_count < LONG_SAMPLES:
            return
        if not self._places.free:
            raise TurnOver
        self._places.free -= 1
        self.taken = True
