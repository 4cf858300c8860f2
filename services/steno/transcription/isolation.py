"""Slices side by side, but one that failed before by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Isolation:
    """Who may work at the same time.

    A slice that takes its worker down takes those beside it down, too. Tried again alone, only it
    is to blame.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._side_by_side = 0
        self._alone = False
        self._waiting_to_be_alone = 0

    @asynccontextmanager
    async def entered(self, *, alone: bool) -> AsyncIterator[None]:
        """Holds the lock: exclusively if `alone`, else shared."""
        async with self._changed:
            if alone:
                await self._until_empty()
            else:
                await self._changed.wait_for(
                    lambda: not self._alone and not self._waiting_to_be_alone
                )
            self._alone = alone
            self._side_by_side += not alone
        try:
            yield
        finally:
            async with self._changed:
                self._alone = False
                self._side_by_side -= not alone
                self._changed.notify_all()

    async def _until_empty(self) -> None:
        self._waiting_to_be_alone += 1
        try:
            await self._changed.wait_for(lambda: not self._alone and not self._side_by_side)
        finally:
            self._waiting_to_be_alone -= 1
            self._changed.notify_all()
