"""The load of a trial: clients that do one thing after the other until they are told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from faults.calls import Callers, GivenUp, Refused
from faults.history import History
from faults.speaker import Speaker
from faults.system import System
from faults.uploader import Uploader


class Load(Callers):
    """All clients of a trial."""

    def __init__(self, system: System, history: History, seed: int) -> None:
        super().__init__(system, history, seed)
        self.stopping = asyncio.Event()
        self._files = 0

    def next_file(self) -> int:
        """A number that no other recording has."""
        self._files += 1
        return self._files

    async def run(self, uploaders: int, speakers: int) -> None:
        """Works until `stopping` is set, and then ends what it has begun.

        Args:
            uploaders: clients that send files.
            speakers: clients that are recorded live.
        """
        work: list[Callable[[int], Awaitable[None]]] = [
            Uploader(self, f"uploader-{number}").send_file for number in range(uploaders)
        ]
        work += [Speaker(self, f"speaker-{number}").speak for number in range(speakers)]
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(self._repeat(one))

    async def _repeat(self, work: Callable[[int], Awaitable[None]]) -> None:
        while not self.stopping.is_set():
            try:
                await work(self.next_file())
            except* (GivenUp, Refused):
                pass  # the history has it
