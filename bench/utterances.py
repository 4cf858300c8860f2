"""How long after the end of what was said its final result was there."""

from __future__ import annotations

import asyncio
from typing import Any

from steno.concatenation.live import MARGIN_SECONDS
from steno.platform.wellknown import seconds_of
from steno.v1.concatenation_pb2 import (
    SPEECH_EVENT_TYPE_END,
    LiveResult,
    WatchSessionResponse,
)

CHUNK_SECONDS = 0.2


class Heard:
    """One session that somebody speaks in real time.

    Attributes:
        latencies: seconds from the end of the speech of each utterance to its final result.
        text: of the final results.
    """

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.text = ""
        self._ended: float | None = None

    @classmethod
    def of(cls, found: dict[str, Any]) -> Heard:
        """As another process tells it."""
        heard = cls()
        heard.latencies, heard.text = found["latencies"], found["text"]
        return heard

    def begin(self) -> None:
        """The recording's clock begins."""
        self._began = asyncio.get_running_loop().time()

    async def until(self, offset: float) -> None:
        """Waits until what is at an offset has been said."""
        await asyncio.sleep(max(0.0, self._began + offset - asyncio.get_running_loop().time()))

    def told(self, told: WatchSessionResponse) -> None:
        """A viewer is told something."""
        if told.HasField("speech") and told.speech.type == SPEECH_EVENT_TYPE_END:
            self._ended = seconds_of(told.speech.offset) - MARGIN_SECONDS
        elif told.event.HasField("result_added"):
            self.final(told.event.result_added)

    def final(self, result: LiveResult) -> None:
        """The result of an utterance; the first of it counts."""
        self.text += result.segment.text
        if self._ended is not None:
            now = asyncio.get_running_loop().time() - self._began
            self.latencies.append(now - self._ended)
            self._ended = None
