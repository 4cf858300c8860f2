"""`python -m bench.hearing`: live sessions in one process; no service, no store, no network.

What is heard, when, and in which windows is decided as the concatenation service decides it, and
the same engine recognises it. Prints one line of JSON: for each session, how long after the end of
each utterance its final result was there, how often interim ones were, and all the text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import wave
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from pydantic import SecretStr

from bench.utterances import CHUNK_SECONDS, Heard
from steno.audio import VadModel
from steno.concatenation.domain import (
    ChunkForm,
    Encoding,
    Lease,
    RecordingFormat,
    Session,
    SessionConfig,
    SessionState,
)
from steno.concatenation.latest import Latest
from steno.concatenation.live import LiveTranscript
from steno.concatenation.windows import Windows
from steno.transcript import SAMPLE_RATE
from steno.transcription.__main__ import load
from steno.transcription.servicer import WindowServicer
from steno.transcription.settings import Settings
from steno.transcription.short import ShortRecognizer
from steno.transcription.threaded import ThreadedEngine
from steno.v1.concatenation_pb2 import LiveResult, WatchSessionResponse
from steno.v1.transcription_pb2 import RecognizeWindowRequest, RecognizeWindowResponse


class Here(Windows):
    """Asks the servicer without a call."""

    def __init__(self, servicer: WindowServicer) -> None:
        self._servicer = servicer
        self._stub = self  # type: ignore[assignment]

    async def RecognizeWindow(
        self, request: RecognizeWindowRequest, timeout: float
    ) -> RecognizeWindowResponse:
        return await self._servicer.RecognizeWindow(request, None)  # type: ignore[arg-type]


class Memory:
    """A recording and a log that nobody else sees: what LiveTranscript needs of both."""

    def __init__(self, samples: np.ndarray, language: str) -> None:
        self._samples = samples
        self.latest = Latest(_session(language), lambda: None)
        self.heard = Heard()

    async def speak(self) -> None:
        """The recording grows as somebody speaks."""
        self.heard.begin()
        step = int(CHUNK_SECONDS * SAMPLE_RATE)
        for end in range(step, len(self._samples) + step, step):
            await self.heard.until(end / SAMPLE_RATE)
            self._see(frame_count=min(end, len(self._samples)))
        self._see(drained=True)

    async def read(self, session: Session, start_frame: int, end_frame: int) -> bytes:
        return bytes(self._samples[start_frame:end_frame].tobytes())

    async def add_results(
        self, lease: Lease, results: Sequence[LiveResult], frame_count: int, language_code: str
    ) -> Session:
        for result in results:
            self.heard.final(result)
        return self._see(live_frame_count=frame_count)

    async def end_live(self, lease: Lease, error: str = "") -> Session:
        assert not error, error
        return self._see(live_done=True)

    async def tell(self, told: WatchSessionResponse) -> None:
        self.heard.told(told)

    def _see(self, **changes: Any) -> Session:
        session = replace(self.latest.session, update_time=datetime.now(UTC), **changes)
        self.latest.update(session)
        return session


def _session(language: str) -> Session:
    config = SessionConfig(
        encoding=Encoding.LINEAR16, sample_rate_hertz=SAMPLE_RATE, channel_count=1,
        chunk_form=ChunkForm.STREAM, language_code=language, live_results=True,
        interim_results=True, endpointing_silence=timedelta(seconds=0.7),
        idle_timeout=timedelta(minutes=5), max_duration=timedelta(hours=12),
        gap_timeout=timedelta(seconds=10), final_job=False, final_job_config=b"",
        recording_format=RecordingFormat.WAV,
    )  # fmt: skip
    now = datetime.now(UTC)
    return Session(
        session_id=uuid4(), config=config, display_name="", labels={}, tenant="default",
        state=SessionState.OPEN, error=None, epoch=1, producer_id=None, next_sequence=0,
        max_sequence=-1, byte_count=0,
        decoded_sequence=0, frame_count=0, chunk_frame_count=0, gap_frame_count=0, drained=False,
        part_count=0, joined_frame_count=0, live_frame_count=0, live_segment_count=0,
        live_language_code="", live_done=False, live_error="", audio_id=None, job_id=None,
        job_error="", finished=False, parking=None, revision=0, create_time=now,
        update_time=now, end_time=None,
    )  # fmt: skip


async def hear(files: Sequence[Path], language: str) -> list[Heard]:
    """All files at once, each a session."""
    nowhere = dict.fromkeys(("nats_url", "s3_endpoint"), "none")
    secrets = {name: SecretStr("none") for name in ("s3_access_key", "s3_secret_key")}
    model = await asyncio.to_thread(load, Settings(**nowhere, **secrets))  # type: ignore[arg-type]
    most = len(files)
    vad = VadModel()
    async with ThreadedEngine(model, model.slices_at_once + most) as engine:
        windows = Here(WindowServicer(engine, ShortRecognizer(engine, 1, most)))

        async def one(file: Path) -> Heard:
            with wave.open(str(file)) as wav:
                samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
            memory: Any = Memory(samples, language)
            lease = Lease(memory.latest.session.session_id, 1)
            live = LiveTranscript(lease, memory, memory, memory.latest, vad, windows, memory.tell)
            await asyncio.gather(memory.speak(), live.run())
            return memory.heard  # type: ignore[no-any-return]

        found = await asyncio.gather(*map(one, files))
    model.close()
    return found


def main() -> None:
    """Reads the files' names from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", default="en")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    found = asyncio.run(hear(options.files, options.language))
    names = ("latencies", "intervals", "text")
    print(json.dumps([{name: getattr(each, name) for name in names} for each in found]))


if __name__ == "__main__":
    main()
