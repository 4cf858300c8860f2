"""Shares one model between callers: one step at a time, who waits on the line first."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge

from steno.transcript import Segment
from steno.transcription.domain import Options
from steno.transcription.engine import Engine, Samples

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""Patience for the window that is being decoded when the process ends."""

MODEL_SECONDS = Counter("steno_model_seconds", "Time that the model worked.", ["caller"])
BUSY = Gauge("steno_model_busy", "1 while the model works, else 0.")
WAITING = Gauge("steno_model_waiting", "Windows that wait for the model.")


class Recognizer:
    """The thread that the model runs in.

    A step is one window, or what comes before the first. Between two steps of a slice, callers
    that wait on the line (urgent ones) have theirs, so that none waits for a whole slice.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._steps: queue.PriorityQueue[tuple[int, int, Callable[[], Any] | None, Future[Any]]]
        self._steps = queue.PriorityQueue()
        self._arrivals = itertools.count()
        self._waiting: set[Future[Any]] = set()
        WAITING.set_function(lambda: self.waiting)
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Steps that wait for their turn."""
        return sum(not step.running() for step in list(self._waiting))

    def recognition(self, samples: Samples, *, urgent: bool) -> Recognition:
        """Starts to recognise a stretch of audio."""
        return Recognition(self, samples, urgent)

    async def run(self, step: Callable[[], T], *, urgent: bool) -> T:
        """Runs a step when its turn comes. Cancelled before, it never runs."""
        future: Future[T] = Future()
        self._waiting.add(future)
        self._steps.put((0 if urgent else 1, next(self._arrivals), step, future))
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._waiting.discard(future)

    async def __aenter__(self) -> Recognizer:
        return self

    async def __aexit__(self, *exit: object) -> None:
        """Ends the thread after its step; the process does not wait for a long one."""
        self._steps.put((-1, 0, None, Future()))
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    def _work(self) -> None:
        while True:
            _, _, step, future = self._steps.get()
            if step is None:
                return
            if not future.set_running_or_notify_cancel():
                continue
            with BUSY.track_inprogress():
                try:
                    future.set_result(step())
                except BaseException as error:
                    future.set_exception(error)


class Recognition:
    """One stretch of audio being recognised.

    Attributes:
        model_seconds: time that the model has worked on it.
    """

    def __init__(self, recognizer: Recognizer, samples: Samples, urgent: bool) -> None:
        self.model_seconds = 0.0
        self._recognizer = recognizer
        self._engine = recognizer.engine
        self._samples = samples
        self._urgent = urgent
        self._seconds = MODEL_SECONDS.labels("recognize" if urgent else "task")

    async def detect_language(self) -> str:
        """Code of the language that is spoken, or empty where nothing is said."""
        return await self._run(lambda: self._engine.detect_language(self._samples))

    async def segments(self, options: Options) -> AsyncIterator[Segment]:
        """Yields segments as they are found. Stop iterating, and nothing more is decoded."""
        found = self._engine.transcribe(self._samples, options)
        while (segment := await self._run(lambda: next(found, None))) is not None:
            yield segment

    async def _run(self, step: Callable[[], T]) -> T:
        def timed() -> T:
            began = time.perf_counter()
            try:
                return step()
            finally:
                seconds = time.perf_counter() - began
                self.model_seconds += seconds
                self._seconds.inc(seconds)

        return await self._recognizer.run(timed, urgent=self._urgent)
