"""Calls of the same moment, done in one go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

from steno.platform.errors import ResourceExhausted, Unavailable

ROOM_AFTER = timedelta(seconds=1)

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Gathers calls as a database gathers commits: nobody waits for more to come.

    The first call is done at once; those that come meanwhile are done together after it. What they
    share, such as the transaction, is paid once. Whoever has given up before the turn came is
    passed over: else, once more calls come than can be done in time, all work is for nobody.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        most: int,
        away: tuple[type[Exception], ...] = (),
        *,
        most_waiting: int = 1000,
        patience: float = 30.0,
    ) -> None:
        """Takes what is to be done.

        Args:
            work: does some calls, and returns for each its answer or what is wrong with it. If it
                raises instead, none is done, and each is tried by itself, so that it does not
                suffer from another.
            most: calls at once.
            away: what says nothing about the calls, so that it is told to all of them.
            most_waiting: calls that may wait for their turn.
            patience: seconds that some calls may take, before they are given up as Unavailable.
        """
        self._work = work
        self._most = most
        self._away = (*away, Unavailable)
        self._most_waiting = most_waiting
        self._patience = patience
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, call: T) -> R:
        """Returns the answer to a call, or raises what is wrong with it.

        Raises:
            ResourceExhausted: too many calls wait.
            Unavailable: the work did not end in time.
        """
        if len(self._waiting) >= self._most_waiting:
            self._waiting = deque(each for each in self._waiting if not each[1].done())
        if len(self._waiting) >= self._most_waiting:
            raise ResourceExhausted(
                f"{self._most_waiting} calls wait already", ROOM_AFTER, "TOO_MANY_CALLS"
            )
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._do_all())
        return await answer

    async def _do_all(self) -> None:
        try:
            while calls := self._next():
                await self._do(calls)
        finally:
            self._working = None

    def _next(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The next calls whose callers still wait."""
        calls: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(calls) < self._most:
            call, answer = self._waiting.popleft()
            if not answer.done():
                calls.append((call, answer))
        return calls

    async def _do(self, calls: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        found: Sequence[R | Exception]
        try:
            found = await self._work_in_time([call for call, _ in calls])
        except Exception as error:
            if len(calls) > 1 and not isinstance(error, self._away):
                for each in calls:
                    if not each[1].done():
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

    async def _work_in_time(self, calls: Sequence[T]) -> Sequence[R | Exception]:
        try:
            async with asyncio.timeout(self._patience):
                return await self._work(calls)
        except TimeoutError as error:
            raise Unavailable(f"not done in {self._patience:g} s") from error
