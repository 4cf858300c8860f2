"""Short audio, recognised while the caller waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from steno import audio
from steno.platform.errors import ResourceExhausted, Unavailable
from steno.transcript import SAMPLE_RATE, Options, Segment, Span
from steno.transcription.domain import (
    MAX_SHORT_SECONDS,
    AudioRejected,
    AudioTooLong,
    spoken_language,
)
from steno.transcription.engine import Engine, Line, Samples

PADDING_SECONDS = 0.5
"""What encoders may add to a minute of audio."""

_LIMITS = audio.Limits(
    max_duration_seconds=MAX_SHORT_SECONDS + PADDING_SECONDS,
    # 60 s of 32 channels at 48 kHz, or of 8 at 192 kHz.
    max_decoded_samples=(MAX_SHORT_SECONDS + 1) * 1_536_000,
    cpu_seconds=30,
)
_TOO_LONG = (audio.Reason.TOO_LONG, audio.Reason.TOO_MANY_SAMPLES)


@dataclass(frozen=True)
class Recognized:
    """What was found.

    Attributes:
        segments: in order; offsets in seconds.
        language: that was spoken; empty where nothing was said.
        duration: of the audio, in seconds.
        options: as they were used.
        truncated: the audio ended in the middle.
    """

    segments: tuple[Segment, ...]
    language: str
    duration: float
    options: Options
    truncated: bool


class Calls:
    """Counts those who are served, and turns away who is too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0
        self._usual_seconds = 1.0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Serves one call inside. Raises ResourceExhausted, which says when to come again."""
        if self._running >= self._most:
            wait = timedelta(seconds=round(self._running * self._usual_seconds, 1) + 0.1)
            raise ResourceExhausted("too many calls wait", wait, "TOO_MANY_CALLS")
        self._running += 1
        began = time.monotonic()
        try:
            yield
            took = (time.monotonic() - began) / self._running
            self._usual_seconds += 0.2 * (took - self._usual_seconds)
        finally:
            self._running -= 1


class ShortRecognizer:
    """Recognises short audio, ahead of queued slices, for a bounded number of callers at once."""

    def __init__(self, engine: Engine, max_calls: int, max_windows: int) -> None:
        """Starts nothing.

        Args:
            engine: does the work.
            max_calls: files at once.
            max_windows: windows of live sessions at once.
        """
        self._engine = engine
        self._calls = Calls(max_calls)
        self._windows = Calls(max_windows)

    async def recognize(self, content: bytes, options: Options) -> Recognized:
        """Recognises a whole file of at most a minute.

        Raises:
            AudioRejected: it can't be decoded.
            AudioTooLong: it is longer.
            ResourceExhausted: too many callers wait; says when to come again.
        """
        with self._calls.one():
            samples, truncated = await _decode(content)
            recognized = await self._recognize(samples, options, Line.RECOGNIZE)
        return replace(recognized, truncated=truncated)

    async def recognize_window(
        self, samples: Samples, options: Options, *, is_final: bool
    ) -> Recognized:
        """Recognises what a live session hears, ahead of all others.

        Args:
            samples: up to 30 s.
            options: how.
            is_final: decode speech that gave no text once more.

        Raises:
            ResourceExhausted: too many callers wait; says when to come again.
        """
        with self._windows.one():
            return await self._recognize(samples, options, Line.LIVE, cover=is_final)

    async def _recognize(
        self, samples: Samples, options: Options, line: Line, *, cover: bool = True
    ) -> Recognized:
        recognition = self._engine.recognition(samples, line)
        if not options.language_code and not options.multilingual:
            detected = await recognition.detect_language(options)
            options = replace(options, language_code=detected)
        found = [segment async for segment in recognition.segments(options)]
        whole = Span(0, len(samples))
        segments = tuple((await recognition.cover(options, found, whole))[0] if cover else found)
        language = spoken_language(options, segments)
        return Recognized(segments, language, len(samples) / SAMPLE_RATE, options, False)


async def _decode(content: bytes) -> tuple[Samples, bool]:
    """Decodes untrusted bytes in the sandbox; returns samples, and whether their end is missing."""
    try:
        async with audio.decode(audio.in_memory(content), len(content), _LIMITS) as decoding:
            blocks = [block async for block in decoding]
            return audio.to_float(np.concatenate(blocks)), decoding.summary.truncated
    except audio.AudioRejected as error:
        if error.reason in _TOO_LONG:
            raise AudioTooLong from None
        raise AudioRejected(error.reason, error.message) from None
    except audio.DecoderFailed as error:
        raise Unavailable(error.message) from error
