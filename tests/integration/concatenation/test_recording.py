"""The recording is what was sent, to the sample, whatever happens on the way."""

from __future__ import annotations

import asyncio
import io
import random
import wave

import av
import numpy as np
import pytest

from live_sessions import (
    Producer,
    Samples,
    Service,
    audio_of,
    cut,
    decoded,
    fetched,
)
from recordings import RATE, samples_of
from steno.platform.objects import ObjectStore
from steno.v1 import concatenation_pb2 as pb
from steno.v1.upload_pb2_grpc import UploadServiceStub
from waiting import eventually

CHUNK_BYTES = RATE // 5 * 2
"""200 ms."""


@pytest.fixture(scope="session")
def speech() -> Samples:
    return samples_of("ten-minutes.opus")


def numbered(pcm: bytes, size: int = CHUNK_BYTES) -> list[tuple[int, bytes]]:
    return list(enumerate(cut(pcm, size)))


async def test_the_recording_equals_what_was_streamed_and_becomes_an_audio(
    service: Service, uploads: UploadServiceStub, speech: Samples
) -> None:
    session = await service.open()
    producer = Producer([service.stub], session.session_id)

    await producer.send(numbered(speech.tobytes()))
    closed = await service.close(session.session_id)

    assert closed.state == pb.SESSION_STATE_CLOSED
    assert closed.duration.ToMilliseconds() == len(speech) * 1000 // RATE
    audio, file = await audio_of(uploads, closed.audio_id)
    assert np.array_equal(decoded(file), speech)
    with wave.open(io.BytesIO(file)) as header:
        assert header.getnframes() == len(speech)
    assert audio.size_bytes == len(file)
