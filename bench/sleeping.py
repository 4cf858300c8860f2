"""`python -m bench.sleeping`: a worker without a model, which sleeps as long as one would work.

It shows what the platform costs by itself. STENO_BENCH_SPEED says how many seconds of audio it does
in a second; 0: it is done at once.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence

from steno.platform.process import run
from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span
from steno.transcription.__main__ import in_threads, serve
from steno.transcription.domain import ServedModel
from steno.transcription.engine import Samples
from steno.transcription.settings import Settings
from steno.transcription.threaded import BlockingModel


class SleepingModel(BlockingModel):
    """One sentence for each slice, after the time that a model of this speed would take.

    A model works on one thing at a time, so the sleep of one slice waits for that of another.
    """

    def __init__(self, name: str, speed: float) -> None:
        self.model = ServedModel(name, "none", "none", "cpu", ("en",))
        self._speed = speed
        self._model = threading.Lock()

    @property
    def slices_at_once(self) -> int:
        """One is read while the other is recognised; at no speed, as many as a worker on a CPU."""
        return 2 if self._speed else 5

    def detect_language(self, samples: Samples) -> str:
        return "en"

    def transcribe(self, samples: Samples, options: Options) -> Iterator[Segment]:
        seconds = len(samples) / SAMPLE_RATE
        if self._speed:
            with self._model:
                time.sleep(seconds / self._speed)
        yield Segment(0.0, seconds, f" {len(samples)}", language="en")

    def cover(
        self, samples: Samples, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        return list(segments), Coverage(within.length, 0, ())


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves with the sleeping model."""
    speed = float(os.environ.get("STENO_BENCH_SPEED", "0"))
    model = SleepingModel(settings.model_name or settings.model, speed)
    async with in_threads(settings, model) as engine:
        await serve(settings, stopping, engine)


if __name__ == "__main__":
    run("transcription", Settings, main)
