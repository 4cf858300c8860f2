"""Who calls a service: one replica after another, until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

from simulation.calls import Calls, Lost
from simulation.history import Call, History, recorded
from simulation.loop import Loop

PAUSE = 0.4
"""Seconds until what was not answered is asked again."""

Work = Callable[[Any], Coroutine[Any, Any, Any]]
"""Calls a replica."""


class Caller:
    """Asks replicas, one after another, and notes what it is told."""

    deadline: ClassVar[float]
    """Seconds of patience with one call."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        calls: Calls,
        replicas: Sequence[Any],
        history: History,
    ) -> None:
        self.name = name
        self.loop = loop
        self.calls = calls
        self.replicas = replicas
        self.history = history

    def replica(self) -> Any:
        return self.loop.random.choice(self.replicas)

    async def until_answered(
        self, kind: str, work: Work, *, within: float = float("inf"), **about: Any
    ) -> Any:
        """Raises what the service says of the call; Lost if it is not answered in time."""
        deadline = self.loop.time() + within
        while True:
            replica = self.replica()
            call = Call(self.name, kind, about, self.loop.time())
            try:
                return await recorded(
                    self.history,
                    call,
                    self.calls.unary(
                        replica.process,
                        lambda: self._ask(work, replica),  # noqa: B023
                        self.deadline,
                    ),
                )
            except Lost:
                if self.loop.time() > deadline:
                    raise
                await asyncio.sleep(PAUSE)

    async def pause(self, longest: float) -> None:
        await asyncio.sleep(longest * self.loop.random.random())

    async def _ask(self, work: Work, replica: Any) -> Any:
        return await work(replica)
