"""A world of which a seed draws what exists, what goes wrong and when."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, tzinfo
from typing import Any, ClassVar
from uuid import UUID

from simulation.bus import Bus
from simulation.database import Server
from simulation.evidence import Evidence, Promise
from simulation.history import History
from simulation.loop import Loop, Process
from steno.platform.errors import Unavailable


class Schedule(ABC):
    """What each kind of schedule has."""

    mixes: ClassVar[Sequence[str]]
    """What goes wrong: seeds take them in turn."""
    promises: ClassVar[Sequence[Promise]]
    """What holds all the same."""
    database: Server
    bus: Bus

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.loop = loop = Loop(seed)  # type: ignore[abstract]  # all that is asked of it is there
        self._random = loop.random
        if trace is not None:
            loop.trace = lambda what: trace(f"{loop.time():8.3f} {what}")
        self.history = History(loop)

    @abstractmethod
    def run(self) -> Evidence:
        """Lets it happen, to its end."""

    @property
    def mix(self) -> str:
        return self.mixes[self.seed % len(self.mixes)]

    # What is drawn

    def _some(self, probability: float, most: float) -> float:
        return most * self._random.random() if self._random.random() < probability else 0.0

    def _few(self, probability: float) -> int:
        return 1 + (self._random.random() < 0.3) if self._random.random() < probability else 0

    def _uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    # What happens

    def _halt(self, process: Process, seconds: float) -> None:
        """It stands still for a while."""
        if process.runs:
            self._say(f"{process.name} is halted")
            process.halt()
            self.database.client_halted(process)
            self.loop.call_later(seconds, self._go_on, process)

    def _go_on(self, process: Process) -> None:
        self._say(f"{process.name} goes on")
        self.loop.resume(process)

    def _restart(self) -> None:
        self._say("Postgres restarts")
        self.database.restart()

    def _wipe(self) -> None:
        self._say("NATS is wiped")
        self.bus.wipe()

    def _be_away(self) -> None:
        self._say("NATS is away")
        self.bus.away = True

    def _say(self, what: str) -> None:
        if self.loop.trace is not None:
            self.loop.trace(f"*** {what}")


class _Complaints(logging.Handler):
    """Notes what is logged as an error: of what is foreseen, nothing is."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.WARNING)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        loop = self._history.loop
        if loop.trace is not None:
            loop.trace(f"log: {record.getMessage()}")
        error = record.exc_info[1] if record.exc_info else None
        # What NATS did not take is set aside, and taken up again.
        if (
            record.levelno >= logging.ERROR
            and not loop.ending
            and not isinstance(error, Unavailable)
        ):
            self._history.complaints.append(f"{record.getMessage()}: {error!r}")


@contextmanager
def complaints_noted(
    history: History, replaced: Sequence[AbstractContextManager[Any]]
) -> Iterator[None]:
    """Inside, something of the service is replaced, and what it complains of is noted."""
    log = logging.getLogger("steno")
    complaints = _Complaints(history)
    propagate = log.propagate
    with ExitStack() as stack:
        for each in replaced:
            stack.enter_context(each)
        log.addHandler(complaints)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(complaints)
            log.propagate = propagate


def clock_of(now: Callable[[], datetime]) -> type[datetime]:
    """What takes the place of `datetime` in a module that asks it for the time."""

    class VirtualTime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return now()

    return VirtualTime


def ids_of(loop: Loop) -> Callable[[], UUID]:
    """What takes the place of `uuid4`."""
    return lambda: UUID(int=loop.random.getrandbits(128), version=4)
