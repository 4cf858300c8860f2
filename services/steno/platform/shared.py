"""One question for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from steno.platform.ending import seen

K = TypeVar("K")
V = TypeVar("V")


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
        if looking is None:
            looking = self._looking[key] = asyncio.ensure_future(self._look(key))
            looking.add_done_callback(partial(self._looked, key))
            looking.add_done_callback(seen)
        # Whoever goes away does not take the answer from the others.
        return await asyncio.shield(looking)

    def _looked(self, key: K, looking: asyncio.Future[V]) -> None:
        del self._looking[key]
