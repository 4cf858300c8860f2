"""Recognises recordings side by side: each in a thread, their windows in the engine's batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span
from steno.transcription.batcher import Caller, Line
from steno.transcription.engine import Engine, Samples

T = TypeVar("T")


class Recognizer:
    """The threads in which recordings are recognised."""

    def __init__(self, engine: Engine, threads: int) -> None:
        """Starts nothing yet.

        Args:
            engine: has the model.
            threads: recordings at once; whoever bounds its own calls need not wait here.
        """
        self.engine = engine
        self._threads = ThreadPoolExecutor(threads, "recognition")

    def recognition(self, samples: Samples, line: Line, owner: str = "") -> Recognition:
        """Starts to recognise a stretch of audio. Those of one owner share one turn."""
        return Recognition(self, samples, Caller(line, owner))

    async def run(self, step: Callable[[], T], caller: Caller) -> T:
        """Runs something that calls the model. Cancelled, its next call of the model fails."""

        def run() -> T:
            with self.engine.batcher.calling(caller):
                return step()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except asyncio.CancelledError:
            self.engine.batcher.stop(caller)
            raise

    async def __aenter__(self) -> Recognizer:
        return self

    async def __aexit__(self, *exit: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Recognition:
    """One stretch of audio being recognised."""

    def __init__(self, recognizer: Recognizer, samples: Samples, caller: Caller) -> None:
        self._recognizer = recognizer
        self._engine = recognizer.engine
        self._samples = samples
        self._caller = caller

    @property
    def model_seconds(self) -> float:
        """Its share of the time that the model has worked."""
        return self._caller.model_seconds

    @property
    def audio_seconds(self) -> float:
        """Length of the audio."""
        return len(self._samples) / SAMPLE_RATE

    @property
    def in_model(self) -> bool:
        """The model works on a window of it just now."""
        return self._engine.batcher.runs(self._caller)

    @property
    def begun(self) -> bool:
        """A window of it is decoded or has been."""
        return self._caller.begun

    async def detect_language(self) -> str:
        """Code of the language that is spoken, or empty where nothing is said."""
        return await self._recognizer.run(
            lambda: self._engine.detect_language(self._samples), self._caller
        )

    async def segments(self, options: Options) -> AsyncIterator[Segment]:
        """Yields segments as they are found. Stop iterating, and nothing more is decoded."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Segment | None] = asyncio.Queue()

        def recognize() -> None:
            try:
                for segment in self._engine.transcribe(self._samples, options):
                    loop.call_soon_threadsafe(found.put_nowait, segment)
            finally:
                loop.call_soon_threadsafe(found.put_nowait, None)

        working = asyncio.create_task(self._recognizer.run(recognize, self._caller))
        try:
            while (segment := await found.get()) is not None:
                yield segment
            await working
        finally:
            working.cancel()

    async def cover(
        self, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        """Decodes speech that gave no text once more.

        Returns all segments, and where every sample of the span went.
        """
        return await self._recognizer.run(
            lambda: self._engine.cover(self._samples, options, segments, within), self._caller
        )
