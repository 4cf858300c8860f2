"""An engine of a model in this process: each recording is recognised in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span
from steno.transcription.domain import Refusal, ServedModel, refusals
from steno.transcription.engine import Line, Samples

T = TypeVar("T")


@dataclass(eq=False)
class Caller:
    """One recording that is being recognised, in a thread of its own.

    Attributes:
        line: its place among the others.
        owner: those of one owner (a job) share one turn.
        model_seconds: its share of the time that the model worked.
        begun: a window of it is decoded or has been.
        stopped: nobody wants the result any more.
    """

    line: Line
    owner: str = ""
    model_seconds: float = 0.0
    begun: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)


class BlockingModel(ABC):
    """A loaded model. Calls block; they come from any number of threads at once.

    A model that puts its callers in order, and can stop one of them, says so; the defaults are
    those of a model that does neither.

    Attributes:
        model: its name, revision and languages.
    """

    model: ServedModel

    @property
    def slices_at_once(self) -> int:
        """Slices of jobs that it can use at the same time."""
        return 1

    @property
    def call_seconds(self) -> float:
        """How long the model has been working on its present call; 0 while it is idle."""
        return 0.0

    def calling(self, caller: Caller) -> AbstractContextManager[None]:
        """Inside, the calls of this thread are this caller's."""
        return nullcontext()

    def stop(self, caller: Caller) -> None:  # noqa: B027
        """Ends the caller's calls with an error as soon as possible."""

    def runs(self, caller: Caller) -> bool:
        """The model works for the caller just now."""
        return False

    def refusals(self, options: Options) -> list[Refusal]:
        """The options that it cannot honour."""
        return refusals(options, self.model)

    @abstractmethod
    def detect_language(self, samples: Samples) -> str:
        """Code of the language that is spoken, or empty where nothing is said."""

    @abstractmethod
    def transcribe(self, samples: Samples, options: Options) -> Iterator[Segment]:
        """Recognises a slice; offsets count from its start.

        Each step of the iterator decodes at most as far as the next window with text in it. The
        same audio, options and model give the same segments, whatever was decoded before.
        """

    @abstractmethod
    def cover(
        self, samples: Samples, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        """Decodes speech that gave no text once more, alone. Text that is dropped is none.

        Returns all segments in order, and where every sample of the span went.
        """

    def warm_up(self) -> None:  # noqa: B027
        """Runs everything once, so that the first caller does not wait for what is lazy."""

    def close(self) -> None:  # noqa: B027
        """Ends what the model runs beside its callers; calls that wait fail."""


class ThreadedEngine:
    """Recognises recordings side by side, in threads whose calls the model puts in order."""

    def __init__(self, model: BlockingModel, threads: int) -> None:
        """Starts nothing yet.

        Args:
            model: recognises.
            threads: recordings at once; whoever bounds its own calls need not wait here.
        """
        self._model = model
        self._threads = ThreadPoolExecutor(threads, "recognition")

    @property
    def model(self) -> ServedModel:
        """What the model is."""
        return self._model.model

    @property
    def slices_at_once(self) -> int:
        """Slices of jobs that the model can use at the same time."""
        return self._model.slices_at_once

    @property
    def call_seconds(self) -> float:
        """How long the model has been working on its present call; 0 while it is idle."""
        return self._model.call_seconds

    @property
    def bounds_itself(self) -> bool:
        """Model time is that of the model alone."""
        return False

    def refusals(self, options: Options) -> list[Refusal]:
        """The options that the model cannot honour."""
        return self._model.refusals(options)

    def recognition(self, samples: Samples, line: Line, owner: str = "") -> ThreadedRecognition:
        """Prepares to recognise a stretch of audio."""
        return ThreadedRecognition(self, self._model, samples, Caller(line, owner))

    async def ready(self) -> None:
        """A loaded model is ready."""

    async def check(self) -> None:
        """Runs the model on silence."""
        await asyncio.to_thread(self._model.warm_up)

    async def run(self, step: Callable[[], T], caller: Caller) -> T:
        """Runs something that calls the model. Cancelled, its next call of the model fails."""

        def run() -> T:
            with self._model.calling(caller):
                return step()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except asyncio.CancelledError:
            self._model.stop(caller)
            raise

    async def __aenter__(self) -> ThreadedEngine:
        return self

    async def __aexit__(self, *exit: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class ThreadedRecognition:
    """One stretch of audio being recognised in a thread."""

    def __init__(
        self, engine: ThreadedEngine, model: BlockingModel, samples: Samples, caller: Caller
    ) -> None:
        self._engine = engine
        self._model = model
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
        return self._model.runs(self._caller)

    @property
    def begun(self) -> bool:
        """A window of it is decoded or has been."""
        return self._caller.begun

    async def detect_language(self, options: Options) -> str:
        """Code of the language that is spoken, or empty where nothing is said."""
        return await self._engine.run(
            lambda: self._model.detect_language(self._samples), self._caller
        )

    async def segments(self, options: Options) -> AsyncIterator[Segment]:
        """Yields segments as they are found. Stop iterating, and nothing more is decoded."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Segment | None] = asyncio.Queue()

        def recognize() -> None:
            try:
                for segment in self._model.transcribe(self._samples, options):
                    loop.call_soon_threadsafe(found.put_nowait, segment)
            finally:
                loop.call_soon_threadsafe(found.put_nowait, None)

        working = asyncio.create_task(self._engine.run(recognize, self._caller))
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
        return await self._engine.run(
            lambda: self._model.cover(self._samples, options, segments, within), self._caller
        )
