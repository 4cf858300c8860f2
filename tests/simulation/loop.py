"""An event loop of which a seed makes all choices, on a clock that nobody waits for.

Which of the handles that are ready runs next is drawn; when none is, time jumps to the next timer.
Nothing reads a real clock, opens a socket or starts a thread, so that one seed gives one schedule,
whenever and wherever it runs.

Each handle belongs to a process: that of the context which it runs in. A process that is killed
runs nothing more, not even what stands in a `finally`; one that is halted runs it when it goes on.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
"""What all clocks show when a schedule begins."""

MOST_STEPS = 200_000
"""Of one schedule: more say that somebody works without end, and without time."""

MOST_ROUNDS = 100
"""In which what is left at the end of a schedule is cancelled."""


class Stuck(Exception):
    """Somebody waits for what nobody will do: a deadlock, or work without end."""


class Process:
    """What dies, or stands still, together.

    Attributes:
        name: as traces call it.
        context: what runs in it, or in a copy, belongs to the process.
    """

    __slots__ = ("_held", "_mourners", "context", "dead", "halted", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.halted = False
        self.context = Context()
        self.context.run(_process.set, self)
        self._held: list[Handle] = []
        self._mourners: dict[Callable[[], None], None] = {}

    @property
    def runs(self) -> bool:
        return not (self.dead or self.halted)

    def at_death(self, mourner: Callable[[], None]) -> None:
        """Calls a function when the process is killed: the others' end of what it had open."""
        self._mourners[mourner] = None

    def not_at_death(self, mourner: Callable[[], None]) -> None:
        self._mourners.pop(mourner, None)

    def kill(self) -> None:
        self.dead = True
        mourners, self._mourners = [*self._mourners], {}
        for mourner in mourners:
            mourner()

    def halt(self) -> None:
        self.halted = True

    def go_on(self) -> list[Handle]:
        """Runs again; returns what would have run meanwhile."""
        self.halted = False
        held, self._held = self._held, []
        return held

    def hold(self, handle: Handle) -> None:
        self._held.append(handle)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


def running_process() -> Process:
    """The process that runs just now."""
    process = _process.get()
    assert process is not None, "it runs in no process"
    return process


class Handle:
    """A callback that waits for its turn, or for its time."""

    __slots__ = ("_cancelled", "_when", "args", "callback", "context")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, when: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._when = when
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class _Task(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, not on where it lies in memory."""

    def __init__(self, serial: int, coroutine: Any, **arguments: Any) -> None:
        self._serial = serial
        super().__init__(coroutine, **arguments)

    def __hash__(self) -> int:
        return self._serial

    def __eq__(self, other: object) -> bool:
        return self is other


class Loop(asyncio.AbstractEventLoop):
    """See above. `random` is for all who draw lots in the same schedule."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.problems: list[str] = []
        """What went wrong where nobody could be told."""
        self.trace: Callable[[str], None] | None = None
        """Told what happens, if somebody reads it."""
        self.ending = False
        """The schedule is over: what is left is only cleared away."""
        self.steps = 0
        self._time = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._stopped: dict[Process, None] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        self._serial = 0

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._time

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        self._serial += 1
        task = _Task(self._serial, coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context or copy_context(), self._time)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context or copy_context(), when)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Runs it in the loop's own thread, some time later."""
        answer: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if answer.done():
                return
            try:
                answer.set_result(func(*args))
            except Exception as error:
                answer.set_exception(error)

        self.call_later(0.01 * self.random.random(), run)
        return answer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.ending:
            self.problems.append(f"{context['message']}: {context.get('exception')!r}")

    def get_exception_handler(self) -> None:
        return None

    # What only a simulation has

    @property
    def now(self) -> datetime:
        """What a clock on the wall shows."""
        return BEGINNING + timedelta(seconds=self._time)

    def chance(self, probability: float) -> bool:
        """Draws a lot."""
        return probability > 0.0 and self.random.random() < probability

    def resume(self, process: Process) -> None:
        """A halted process goes on."""
        self._ready += process.go_on()

    def run(self, main: Coroutine[Any, Any, T], process: Process) -> T:
        """Runs a schedule to the end of its main coroutine, and clears away what is left.

        Raises:
            Stuck: it has no end.
        """
        asyncio._set_running_loop(self)
        try:
            task = process.context.run(self.create_task, main, name="main")
            self._run_until(task.done)
            return task.result()  # type: ignore[no-any-return]
        finally:
            try:
                self._clear_away()
            finally:
                asyncio._set_running_loop(None)

    def _run_until(self, done: Callable[[], bool]) -> None:
        ready, timers = self._ready, self._timers
        draw = self.random.random
        process_of = _process
        while not done():
            if not ready:
                self._let_time_pass()
                continue
            place = int(draw() * len(ready))
            handle = ready[place]
            ready[place] = ready[-1]
            ready.pop()
            if handle._cancelled:
                continue
            process = handle.context.get(process_of)
            if process is not None and not self.ending and (process.dead or process.halted):
                process.hold(handle)
                self._stopped[process] = None
                continue
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Stuck(f"no end after {MOST_STEPS} steps\n{self._waiting()}")
            try:
                handle.context.run(handle.callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": "a callback failed", "exception": error})
            # What has become due meanwhile may overtake what was ready.
            while timers and timers[0][0] <= self._time:
                ready.append(heapq.heappop(timers)[2])

    def _let_time_pass(self) -> None:
        timers = self._timers
        while timers:
            when, _, handle = heapq.heappop(timers)
            if not handle._cancelled:
                self._time = max(self._time, when)
                self._ready.append(handle)
                return
        raise Stuck(f"all wait, and nothing is to come\n{self._waiting()}")

    def _waiting(self) -> str:
        """Who waits, and where."""
        lines = []
        for task in self._tasks:
            if task.done():
                continue
            stack = task.get_stack(limit=1)
            place = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "?"
            lines.append(
                f"  {task.get_name()} in {getattr(task.get_coro(), '__qualname__', '?')} at {place}"
            )
        return "\n".join(lines)

    def _clear_away(self) -> None:
        """Ends all tasks, of dead processes too, lest they end in somebody else's schedule."""
        self.ending = True
        for _ in range(MOST_ROUNDS):
            for process in self._stopped:
                self._ready += process.go_on()
            left = self._tasks = [task for task in self._tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self.steps = 0
            self._run_until(lambda: not self._ready)
        raise Stuck(f"these do not end when they are cancelled\n{self._waiting()}")
