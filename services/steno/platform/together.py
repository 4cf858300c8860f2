"""Calls of the same moment, done in one go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Gathers calls as a database gathers commits: nobody waits for more to come.

    The first call is done at once; those that come meanwhile are done together after it. What they
    share, such as the transaction, is paid once. Who gives up waiting has been heard all the same.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        most: int,
        away: tuple[type[Exception], ...] = (),
    ) -> None:
        """Takes what is to be done.

        Args:
            work: does some calls, and returns for each its answer or what is wrong with it. If it
                raises instead, none is done, and each is tried by itself, so that it does not
                suffer from another.
            most: calls at once.
            away: what says nothing about the calls, so that it is told to all of them.
        """
        self._work = work
        self._most = most
        self._away = away
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, call: T) -> R:
        """Returns the answer to a call, or raises what is wrong with it."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._do_all())
        return await answer

    async def _do_all(self) -> None:
        try:
            while self._waiting:
                count = min(self._most, len(self._waiting))
                await self._do([self._waiting.popleft() for _ in range(count)])
        finally:
            self._working = None

    async def _do(self, calls: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        found: Sequence[R | Exception]
        try:
            found = await self._work([call for call, _ in calls])
        except Exception as error:
            if len(calls) > 1 and not isinstance(error, self._away):
                for each in calls:
                    await self._do([each])
                return
            found = [error] * len(calls)
        for (_, answer), one in zip(calls, found, strict=True):
            if answer.done():
                continue  # whoever called has gone
            if isinstance(one, Exception):
                answer.set_exception(one)
            else:
                answer.set_result(one)
