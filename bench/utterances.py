"""How long after the end of what was said its final result was there, and what was shown before."""

from __future__ import annotations

import asyncio
from typing import Any

from steno.concatenation.utterances import MARGIN_SECONDS
from steno.platform.wellknown import seconds_of
from steno.v1.concatenation_pb2 import (
    SPEECH_EVENT_TYPE_BEGIN,
    SPEECH_EVENT_TYPE_END,
    LiveResult,
    SpeechEvent,
    WatchSessionResponse,
)

CHUNK_SECONDS = 0.2
INTERIM_SECONDS = 1.0
"""Something new is to be shown so often while somebody speaks."""


class Heard:
    """One session that somebody speaks in real time.

    Attributes:
        latencies: seconds from the end of the speech of each utterance to its final result.
        intervals: seconds from the begin of speech, or from an interim result, to the next one. The
            last of an utterance is cut off by its end, and counts if it is too long already.
        text: of the final results.
    """

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.intervals: list[float] = []
        self.text = ""
        self._ended: float | None = None
        self._shown: float | None = None

    @classmethod
    def of(cls, found: dict[str, Any]) -> Heard:
        """As another process tells it."""
        heard = cls()
        heard.latencies, heard.intervals = found["latencies"], found["intervals"]
        heard.text = found["text"]
        return heard

    def begin(self) -> None:
        """The recording's clock begins."""
        self._began = asyncio.get_running_loop().time()

    async def until(self, offset: float) -> None:
        """Waits until what is at an offset has been said."""
        await asyncio.sleep(max(0.0, offset - self._now()))

    def _now(self) -> float:
        """What is said at this moment, on the recording's clock."""
        return asyncio.get_running_loop().time() - self._began

    def told(self, told: WatchSessionResponse) -> None:
        """A viewer is told something."""
        if told.HasField("speech"):
            self._spoke(told.speech)
        elif told.HasField("interim"):
            self._interim()
        elif told.event.HasField("result_added"):
            self.final(told.event.result_added)

    def _spoke(self, event: SpeechEvent) -> None:
        offset = seconds_of(event.offset)
        if event.type == SPEECH_EVENT_TYPE_BEGIN:
            self._shown = offset + MARGIN_SECONDS
        elif event.type == SPEECH_EVENT_TYPE_END:
            self._ended = offset - MARGIN_SECONDS
            if self._shown is not None and self._ended - self._shown > INTERIM_SECONDS:
                self.intervals.append(self._ended - self._shown)
            self._shown = None

    def _interim(self) -> None:
        if self._shown is not None:
            self.intervals.append(self._now() - self._shown)
            self._shown = self._now()

    def final(self, result: LiveResult) -> None:
        """The result of an utterance; the first of it counts."""
        self.text += result.segment.text
        if self._ended is not None:
            self.latencies.append(self._now() - self._ended)
            self._ended = None
