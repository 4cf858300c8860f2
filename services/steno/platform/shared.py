"""One question for all who ask the same, at the same time or soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from steno.platform.ending import seen
from steno.platform.loops import REST

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[V]):
    """An answer that takes the longer to look up, the more there is.

    A large one may be REST times as old as it took to look it up; a small one is never old.
    """

    def __init__(self, look: Callable[[], Awaitable[V]], is_large: Callable[[V], bool]) -> None:
        """Takes what looks the answer up, and what tells whether it is large."""
        self._look = look
        self._is_large = is_large
        self._shared = Shared(self._timed)
        self._answer: V
        self._begun = self._good_until = -1.0

    async def get(self) -> V:
        """Returns the answer, or raises what looking it up raised."""
        now = asyncio.get_running_loop().time()
        # A look that has begun before is good enough only if its answer may be old.
        while self._begun < now and self._good_until < now:
            await self._shared.get(None)
        return self._answer

    async def _timed(self, _: None) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        self._answer = await self._look()
        ended = clock()
        self._begun = begun
        large = self._is_large(self._answer)
        self._good_until = ended + REST * (ended - begun) if large else begun


class Shared(Generic[K, V]):
    """Answers that are asked for by many at once, and looked up once.

    An answer may be as old as the longest look-up: who needs to know what is true now asks himself.
    """

    def __init__(self, look: Callable[[K], Awaitable[V]]) -> None:
        """Takes what looks an answer up."""
        self._look = look
        self._looking: dict[K, asyncio.Future[V]] = {}

    async def get(self, key: K) -> V:
        """Returns the answer, or raises what looking it up raised."""
        looking = self._looking.get(key)
        if looking is None or looking.done():
            looking = self._looking[key] = asyncio.ensure_future(self._look(key))
            looking.add_done_callback(partial(self._looked, key))
            looking.add_done_callback(seen)
        # Whoever goes away does not take the answer from the others.
        return await asyncio.shield(looking)

    def _looked(self, key: K, looking: asyncio.Future[V]) -> None:
        if self._looking.get(key) is looking:
            del self._looking[key]
