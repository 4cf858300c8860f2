"""`python -m faults.null_worker`: a worker whose model says where the samples come from.

STENO_FAULTS_SPEED says how many seconds of audio it does in a second, so that leases are held for a
while; 0: it is done at once. STENO_FAULTS_FAILING says at which share of slices it fails.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator, Sequence

from faults.oracle import SPEECH_SECONDS, heard_in
from steno.audio.pcm import from_float
from steno.platform.errors import Unavailable
from steno.platform.process import run
from steno.transcript import SAMPLE_RATE, Coverage, Options, Segment, Span
from steno.transcription.__main__ import in_threads, serve
from steno.transcription.domain import ServedModel
from steno.transcription.engine import Samples
from steno.transcription.settings import Settings
from steno.transcription.threaded import BlockingModel


class NullModel(BlockingModel):
    """Says what `oracle.heard_in` says, after the time that a model of this speed would take."""

    slices_at_once = 5

    def __init__(self, name: str, speed: float, failing: float) -> None:
        self.model = ServedModel(name, "null", "none", "cpu", ("en",))
        self._speed = speed
        self._failing = failing
        self._model = threading.Lock()
        self._never = threading.Event()

    def detect_language(self, samples: Samples) -> str:
        return "en"

    def transcribe(self, samples: Samples, options: Options) -> Iterator[Segment]:
        if random.random() < self._failing:
            raise Unavailable("the model has failed")  # to those who call Recognize, too
        pcm = from_float(samples)
        step = SPEECH_SECONDS * SAMPLE_RATE
        for start in range(0, len(pcm), step):
            stretch = pcm[start : start + step]
            if self._speed:
                with self._model:  # as a model, it works on one thing at a time
                    # time.sleep fails where libfaketime steps the clock (0.9.10).
                    self._never.wait(len(stretch) / SAMPLE_RATE / self._speed)
            text = heard_in(stretch, options.prompt)
            yield Segment(
                start / SAMPLE_RATE, (start + len(stretch)) / SAMPLE_RATE, text, language="en"
            )

    def cover(
        self, samples: Samples, options: Options, segments: Sequence[Segment], within: Span
    ) -> tuple[list[Segment], Coverage]:
        return list(segments), Coverage(within.length, 0, ())


async def main(settings: Settings, stopping: asyncio.Event) -> None:
    """Serves with the null model."""
    speed, failing = (
        float(os.environ.get(f"STENO_FAULTS_{name}", "0")) for name in ("SPEED", "FAILING")
    )
    async with in_threads(settings, NullModel(settings.model, speed, failing)) as engine:
        await serve(settings, stopping, engine)


if __name__ == "__main__":
    run("transcription", Settings, main)
