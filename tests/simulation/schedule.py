"""A world of which a seed draws what exists, what goes wrong and when."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, ClassVar
from uuid import UUID

from simulation.bus import Bus
from simulation.calls import Calls
from simulation.database import Server
from simulation.evidence import Evidence, Promise
from simulation.history import History
from simulation.links import Link
from simulation.loop import Loop, Process
from steno.platform.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, for a while: probabilities, and times in seconds.

    Attributes:
        until: when it ends, but for what only takes its time.
        slow: a message takes long, to the end of the schedule.
        lost: a message or its answer is lost.
        impatience: a caller goes away in the midst of its call.
        kills: processes that die.
        halts: processes that stand still for a while.
        restarts: Postgres ends all connections.
        wipes: NATS loses all it has.
        absences: a server is away for a while.
        doubles: NATS gives a message out twice.
    """

    until: float = 0.0
    slow: float = 0.0
    lost: float = 0.0
    impatience: float = 0.0
    kills: int = 0
    halts: int = 0
    restarts: int = 0
    wipes: int = 0
    absences: int = 0
    doubles: float = 0.0


class Schedule(ABC):
    """What each kind of schedule has."""

    mixes: ClassVar[Sequence[str]]
    """What goes wrong: seeds take them in turn."""
    promises: ClassVar[Sequence[Promise]]
    """What holds all the same."""
    database: Server
    bus: Bus
    calls: Calls
    faults: Faults
    replicas: list[Any]
    _links: list[Link]

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

    async def _go_wrong(self, acts: Sequence[Callable[[], None]]) -> None:
        """Lets the faults happen, each act at some time, and heals them.

        Args:
            acts: what the kind of schedule has beside those of all.
        """
        faults = self.faults
        self._begin_faults()
        acts = [
            *acts,
            *[self._restart] * faults.restarts,
            *[self._wipe] * faults.wipes,
            *[self._be_away] * faults.absences,
        ]
        at = sorted((faults.until * self._random.random(), n) for n in range(len(acts)))
        begun = self.loop.time()
        for when, number in at:
            await asyncio.sleep(max(0.0, begun + when - self.loop.time()))
            acts[number]()
        await asyncio.sleep(max(0.0, begun + faults.until - self.loop.time()))
        self._heal()

    def _begin_faults(self) -> None:
        for link in self._links:
            link.slow, link.lost = self.faults.slow, self.faults.lost
        self.calls.impatience = self.faults.impatience
        self.bus.doubles = self.faults.doubles

    def _heal(self) -> None:
        for link in self._links:
            link.heal()
        self.calls.impatience = 0.0
        self.bus.doubles = 0.0
        self.bus.away = False

    def _kill_replica(self, place: int) -> None:
        """A replica dies, and another comes in its place."""
        self._say(f"{self.replicas[place].process.name} is killed")
        self.replicas[place].process.kill()
        self.loop.call_later(self._random.random(), self._replace_replica, place)

    def _replace_replica(self, place: int) -> None:
        self.replicas[place] = self._new_replica()

    def _start_replica(self) -> None:
        self.replicas.append(self._new_replica())

    @abstractmethod
    def _new_replica(self) -> Any:
        """One that has begun."""

    def _raise_what_nobody_was_told(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """What a caller was told is judged later; what else went wrong is a fault of ours."""
        told = {id(call.error) for call in self.history.calls}
        for task in tasks:
            error = task.exception()
            if error is not None and id(error) not in told:
                raise error

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
