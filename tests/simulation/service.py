"""What replicas of a service have in common: loops, each begun at its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar

from simulation.loop import Loop, Process
from steno.platform.loops import repeat


class Service:
    """A process of a service."""

    sweep: ClassVar[float]
    """Seconds within which it begins to look around."""
    listening: ClassVar[int]
    """How many of its loops, the first, wait for what they are told."""

    def __init__(self, name: str, loop: Loop) -> None:
        self.process = Process(name)
        self._loop = loop
        self._loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def _add(self, action: str, work: Callable[[], Awaitable[object]], **how: Any) -> None:
        """Adds a loop, as `steno.platform.loops` has it."""
        self._loops[action] = lambda: repeat(action, work, **how)

    def start(self, only: Sequence[str] = ()) -> None:
        """Begins to listen at once, and to look around some time within a sweep.

        With `only` these loops, and no others.
        """
        for number, (action, each) in enumerate(self._loops.items()):
            if only and action not in only:
                continue
            name = f"{self.process.name} {action}"
            wait = self.sweep * self._loop.random.random() if number >= self.listening else 0.0
            self._loop.call_later(wait, self._begin, each, name, context=self.process.context)

    def _begin(self, each: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        task = self._loop.create_task(each(), name=name, context=self.process.context.copy())
        self._tasks.append(task)
