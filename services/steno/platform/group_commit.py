"""Calls of the same moment share a transaction, as a database's commits share a write."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

from steno.platform.errors import ResourceExhausted, Unavailable

RETRY_DELAY = timedelta(seconds=1)

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Does calls in groups, one group after another. No call waits for more to come.

    The first call is a group of its own; the calls that come meanwhile are the next group. What a
    group shares, such as its transaction, is paid once. A caller that has given up before its group
    begins is passed over: else, once more calls come than can be done in time, all work is for
    nobody.
    """

    def __init__(
        self,
        do_group: Callable[[Sequence[T]], Awaitable[Mapping[int, R | Exception]]],
        max_group: int,
        away: tuple[type[Exception], ...] = (),
        *,
        max_waiting: int = 1000,
        timeout: float = 30.0,
    ) -> None:
        """Takes what is to be done.

        Args:
            do_group: does the first of the calls, and as many of the others as it can; returns
                their answers, or what is wrong with them, by their place in the group. The calls
                that it left out are in the next group. If it raises instead, it has done none, and
                each call is tried by itself, so that it does not suffer from another.
            max_group: calls in a group, at most.
            away: errors that say nothing about the calls; all calls of the group raise them.
            max_waiting: calls that may wait for their group.
            timeout: seconds for a group, after which its calls raise Unavailable.
        """
        self._do_group = do_group
        self._max_group = max_group
        self._away = (*away, Unavailable)
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, call: T) -> R:
        """Returns the answer to a call, or raises what is wrong with it.

        Raises:
            ResourceExhausted: too many calls wait.
            Unavailable: the group was not done in time.
        """
        if len(self._waiting) >= self._max_waiting:
            self._waiting = deque(each for each in self._waiting if not each[1].done())
        if len(self._waiting) >= self._max_waiting:
            raise ResourceExhausted(
                f"{self._max_waiting} calls wait already", RETRY_DELAY, "TOO_MANY_CALLS"
            )
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._do_all())
        return await answer

    async def _do_all(self) -> None:
        try:
            while group := self._next_group():
                await self._do(group)
        finally:
            self._task = None

    def _next_group(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The next calls whose callers still wait."""
        group: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(group) < self._max_group:
            call, answer = self._waiting.popleft()
            if not answer.done():
                group.append((call, answer))
        return group

    async def _do(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        answers: Mapping[int, R | Exception]
        try:
            answers = await self._do_in_time([call for call, _ in group])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, self._away):
                for each in group:
                    if not each[1].done():
                        await self._do([each])
                return
            answers = dict.fromkeys(range(len(group)), error)
        left_out = [each for place, each in enumerate(group) if place not in answers]
        self._waiting.extendleft(reversed(left_out))
        for place, answer in answers.items():
            waiting = group[place][1]
            if waiting.done():
                continue  # its caller has gone
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    async def _do_in_time(self, calls: Sequence[T]) -> Mapping[int, R | Exception]:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._do_group(calls)
        except TimeoutError as error:
            raise Unavailable(f"not done in {self._timeout:g} s") from error
