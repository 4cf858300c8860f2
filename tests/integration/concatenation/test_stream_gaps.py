"""Chunks that never came of a container that is streamed."""

from __future__ import annotations

import numpy as np
import pytest

from live_sessions import Producer, Samples, Service, cut
from recordings import RATE, decoded, encoded, samples_of, wav
from steno.platform.wellknown import duration_of, seconds_of
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

from .conftest import StartService

HEADER_BYTES = 44
SIZE = 7777
"""Of a chunk. It cuts samples in two."""


@pytest.fixture(scope="session")
def speech() -> Samples:
    return samples_of("demo.opus")[: 10 * RATE]


def without(missing: list[int], file: bytes) -> tuple[list[tuple[int, bytes]], Samples]:
    """The chunks of a WAV but for some, and what is to be recorded of it."""
    chunks = [chunk for chunk in enumerate(cut(file, SIZE)) if chunk[0] not in missing]
    silenced = bytearray(file)
    for sequence in missing:
        silenced[sequence * SIZE : (sequence + 1) * SIZE] = bytes(SIZE)
    return chunks, np.frombuffer(bytes(silenced[HEADER_BYTES:]), np.int16)


@pytest.mark.parametrize("runs", [[(5, 6), (20, 20)], [(1, 1)]])
async def test_what_is_missing_in_a_streamed_wav_is_silence_and_what_follows_keeps_its_place(
    service: Service, speech: Samples, runs: list[tuple[int, int]]
) -> None:
    missing = [sequence for first, last in runs for sequence in range(first, last + 1)]
    chunks, expected = without(missing, wav(speech))
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER, gap_timeout=duration_of(0))

    await Producer([service.stub], session.session_id).send(chunks)
    closed = await service.close(session.session_id)

    assert not closed.error.reason
    assert np.array_equal(decoded(await service.file(session.session_id)), expected)
    gaps = (await service.recording(session.session_id)).gaps
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == runs
    a_sample = 1 / RATE
    for gap in gaps:
        start = (gap.first_sequence * SIZE - HEADER_BYTES) / 2 / RATE
        assert seconds_of(gap.span.start_offset) == pytest.approx(start, abs=a_sample)
    length = len(missing) * SIZE / 2 / RATE
    assert seconds_of(closed.gap_duration) == pytest.approx(length, abs=len(runs) * a_sample)
    events = await service.events(session.session_id)
    assert [event.gap_added for event in events if event.HasField("gap_added")] == list(gaps)


async def test_gaps_of_a_streamed_wav_are_told_once_though_its_decoding_dies(
    start_service: StartService, speech: Samples
) -> None:
    service = await start_service()
    chunks, expected = without([5], wav(speech))
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER, gap_timeout=duration_of(0))
    producer = Producer([service.stub], session.session_id)

    async def has_a_gap() -> bool:
        return bool((await service.get(session.session_id)).gap_duration.ToMilliseconds())

    await producer.send(chunks[:20])
    await eventually(has_a_gap)
    service.kill()
    service.start()
    await eventually(service.serves)
    await producer.send(chunks)
    closed = await service.close(session.session_id)

    assert np.array_equal(decoded(await service.file(session.session_id)), expected)
    assert len((await service.recording(session.session_id)).gaps) == 1
    assert closed.gap_duration.ToMilliseconds() == SIZE * 1000 // 2 // RATE


async def test_what_is_missing_in_another_stream_is_told_and_has_no_length(
    service: Service, speech: Samples
) -> None:
    session = await service.open(encoding=pb.AUDIO_ENCODING_CONTAINER)
    chunks = dict(enumerate(cut(encoded(speech, "mp3"), SIZE)))
    del chunks[3]

    await Producer([service.stub], session.session_id).send(list(chunks.items()))
    closed = await service.close(session.session_id)

    assert not closed.error.reason
    (gap,) = (await service.recording(session.session_id)).gaps
    assert (gap.first_sequence, gap.last_sequence) == (3, 3)
    assert gap.span.start_offset == gap.span.end_offset
    assert RATE < len(decoded(await service.file(session.session_id))) < len(speech)
