"""The recording is what was sent, to the sample, whatever happens on the way."""

from __future__ import annotations

import asyncio
import io
import random
import wave
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import av
import grpc
import numpy as np
import psycopg
import pytest

from live_sessions import Producer, Samples, Service, acknowledged, audio_of, cut, failure_of
from platform_client import fetched
from recordings import RATE, decoded, samples_of, urls_in
from steno.local.servers import LocalServers
from steno.platform.objects import ObjectStore
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import upload_pb2
from waiting import eventually

from .conftest import StartService

if TYPE_CHECKING:
    from steno.v1.upload_pb2_grpc import UploadServiceAsyncStub

CHUNK_BYTES = RATE // 5 * 2
"""200 ms."""


@pytest.fixture(scope="session")
def speech() -> Samples:
    """Six minutes: longer than two parts."""
    return samples_of("ten-minutes.opus")[: 360 * RATE]


def numbered(pcm: bytes, size: int = CHUNK_BYTES) -> list[tuple[int, bytes]]:
    return list(enumerate(cut(pcm, size)))


async def test_the_recording_equals_what_was_streamed_and_becomes_an_audio(
    service: Service, uploads: UploadServiceAsyncStub, speech: Samples
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


@pytest.mark.long
async def test_shuffled_repeated_chunks_are_recorded_to_the_sample_though_processes_die(
    start_service: StartService,
    uploads: UploadServiceAsyncStub,
    servers: LocalServers,
    speech: Samples,
) -> None:
    services = [await start_service(), await start_service()]
    session = await services[0].open()
    chunks = numbered(speech.tobytes())
    random.seed(5)
    troubled = sorted(chunks, key=lambda chunk: chunk[0] + random.uniform(0, 50))
    for again in random.sample(chunks, len(chunks) // 10):
        troubled.insert(random.randrange(len(troubled)), again)
    producer = Producer([service.stub for service in services], session.session_id)

    sending = asyncio.create_task(producer.send(troubled, breaks_after=1, pause=0.002, within=150))
    for kill in range(3):
        victim = services[kill % 2]
        await acknowledged(producer, (kill + 1) * 300, sending)
        victim.kill()
        victim.start()
        await eventually(victim.serves)
        if kill == 1:
            await servers.nats.kill()
            await servers.nats.start()
    await sending
    closed = await services[0].close(session.session_id)

    assert closed.gap_duration.ToMilliseconds() == 0
    _, file = await audio_of(uploads, closed.audio_id)
    assert np.array_equal(decoded(file), speech)


async def test_missing_chunks_become_silence_of_their_length(
    service: Service, uploads: UploadServiceAsyncStub, speech: Samples
) -> None:
    pcm = speech[: 60 * RATE]
    session = await service.open(gap_timeout=duration_of(0.2))
    missing = {17, 18, 100, 222}
    chunks = [chunk for chunk in numbered(pcm.tobytes()) if chunk[0] not in missing]

    await Producer([service.stub], session.session_id).send(chunks)
    await eventually(lambda: has_all(service, session.session_id, 300))
    closed = await service.close(session.session_id)

    expected = pcm.copy()
    for sequence in missing:
        expected[sequence * CHUNK_BYTES // 2 : (sequence + 1) * CHUNK_BYTES // 2] = 0
    _, file = await audio_of(uploads, closed.audio_id)
    assert np.array_equal(decoded(file), expected)
    assert closed.gap_duration.ToMilliseconds() == len(missing) * 200
    gaps = (await service.recording(session.session_id)).gaps
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == [
        (17, 18),
        (100, 100),
        (222, 222),
    ]
    assert [gap.span.start_offset.ToMilliseconds() for gap in gaps] == [3400, 20_000, 44_400]
    assert [gap.span.end_offset.ToMilliseconds() for gap in gaps] == [3800, 20_200, 44_600]
    events = await service.events(session.session_id)
    assert [event.gap_added for event in events if event.HasField("gap_added")] == list(gaps)


async def has_all(service: Service, session_id: str, next_sequence: int) -> bool:
    return (await service.get(session_id)).next_sequence == next_sequence


async def test_a_chunk_that_comes_after_its_gap_is_refused_as_late(
    service: Service, speech: Samples
) -> None:
    session = await service.open(gap_timeout=duration_of(0))
    chunks = cut(speech[:RATE].tobytes(), CHUNK_BYTES)
    for sequence in (0, 2):
        await service.append(session.session_id, sequence, chunks[sequence])
    await eventually(lambda: has_all(service, session.session_id, 3))

    failure = await failure_of(service.append(session.session_id, 1, chunks[1]))
    producer = Producer([service.stub], session.session_id)
    streaming = asyncio.create_task(producer.send([(1, chunks[1])]))
    refusals = await eventually(lambda: [told for told in producer.told if told.refusal.reason])
    streaming.cancel()
    await asyncio.gather(streaming, return_exceptions=True)

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHUNK_LATE")
    assert (refusals[0].refusal.sequence, refusals[0].refusal.reason) == (1, "CHUNK_LATE")


@pytest.mark.long
async def test_each_snapshot_of_a_growing_recording_is_the_beginning_of_its_end(
    service: Service, uploads: UploadServiceAsyncStub, speech: Samples
) -> None:
    session = await service.open()
    chunks = numbered(speech.tobytes(), 2 * CHUNK_BYTES)
    files, streams = [], []
    for first in range(0, len(chunks), len(chunks) // 4):
        await Producer([service.stub], session.session_id).send(
            chunks[first : first + len(chunks) // 4]
        )
        recorded = await service.recording(session.session_id, pb.RECORDING_FORM_UNSPECIFIED)
        assert "#EXT-X-ENDLIST" not in recorded.playlist
        files.append(decoded(await fetched(recorded.url)))
        streams.append(decoded(await played(recorded.playlist)))
    closed = await service.close(session.session_id)
    last = await service.recording(session.session_id, pb.RECORDING_FORM_UNSPECIFIED)

    assert np.array_equal(decoded(await fetched(last.url)), speech)
    assert np.array_equal(decoded(await played(last.playlist)), speech)
    assert "#EXT-X-ENDLIST" in last.playlist
    assert closed.duration == last.duration
    for snapshot in files:
        assert np.array_equal(snapshot, speech[: len(snapshot)])
    for number, snapshot in enumerate(streams):
        assert len(snapshot) > len(files[number]) - 6 * RATE
        assert np.array_equal(snapshot, speech[: len(snapshot)])


async def test_the_file_of_a_growing_recording_is_there_for_as_long_as_its_url_says(
    service: Service, objects: ObjectStore, environment: dict[str, str], speech: Samples
) -> None:
    session = await service.open()
    own = f"sessions/{session.session_id}/"
    made = []
    for sequence in range(2):
        second = speech[sequence * RATE : (sequence + 1) * RATE]
        await service.append(session.session_id, sequence, second.tobytes())
        made += [await service.recording(session.session_id) for _ in range(2)]
    await service.close(session.session_id)

    left = await objects.list_prefix(f"{own}snapshots/")
    assert len(left) == 2  # where nothing was added, nothing was made
    for number, recorded in enumerate(made):
        assert np.array_equal(
            decoded(await fetched(recorded.url)), speech[: (1 + number // 2) * RATE]
        )
    due = removals(environment, f"{own}snapshots/%")
    assert all(any(key.startswith(prefix) for prefix in due) for key in left)
    assert min(due.values()) >= made[-1].expire_time.ToDatetime(UTC)


async def test_the_files_of_a_growing_recording_go_though_it_still_grows(
    service: Service, objects: ObjectStore, environment: dict[str, str], speech: Samples
) -> None:
    session = await service.open()
    own = f"sessions/{session.session_id}/"
    await service.append(session.session_id, 0, speech[:RATE].tobytes())
    await service.file(session.session_id)
    assert await objects.list_prefix(own + "snapshots/")

    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        db.execute("UPDATE concatenation.removals SET due_time = now()")

    async def are_gone() -> bool:
        return not await objects.list_prefix(own + "snapshots/")

    await eventually(are_gone)
    await service.append(session.session_id, 1, speech[RATE : 2 * RATE].tobytes())
    assert np.array_equal(decoded(await service.file(session.session_id)), speech[: 2 * RATE])


def removals(environment: dict[str, str], pattern: str) -> dict[str, datetime]:
    """When what lies where must go."""
    with psycopg.connect(environment["STENO_POSTGRES_URL"]) as db:
        found = db.execute(
            "SELECT object_prefix, due_time FROM concatenation.removals"
            " WHERE object_prefix LIKE %s",
            [pattern],
        )
        return dict(found.fetchall())


async def played(playlist: str) -> bytes:
    """What a player gets."""
    return b"".join([await fetched(url) for url in urls_in(playlist)])


async def test_what_the_recording_was_made_of_is_removed_a_while_after_it_is_an_audio(
    service: Service, objects: ObjectStore, environment: dict[str, str], speech: Samples
) -> None:
    session = await service.open()
    own = f"sessions/{session.session_id}/"
    chunks = numbered(speech[: 60 * RATE].tobytes())
    await Producer([service.stub], session.session_id).send(chunks)
    there = await objects.list_prefix(own)

    await service.close(session.session_id)
    await service.events(session.session_id)  # until nothing is left to do

    assert await objects.list_prefix(own) == there
    due = removals(environment, f"{own}%")
    assert set(due) == {f"{own}{kind}/" for kind in ("chunks", "decoded", "parts")}
    assert min(due.values()) - datetime.now(UTC) > timedelta(hours=23)
    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        db.execute("UPDATE concatenation.removals SET due_time = now()")

    async def is_clean() -> bool:
        left = await objects.list_prefix("")
        return left == [f"recordings/{session.session_id}.wav"]

    await eventually(is_clean)
    assert np.array_equal(decoded(await service.file(session.session_id)), speech[: 60 * RATE])


async def test_a_deleted_session_leaves_nothing_behind(
    service: Service, objects: ObjectStore, speech: Samples
) -> None:
    session = await service.open()
    await service.append(session.session_id, 0, speech[:RATE].tobytes())
    await service.file(session.session_id)

    await service.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session.session_id))

    async def is_clean() -> bool:
        return not await objects.list_prefix("")

    await eventually(is_clean)
    failure = await failure_of(service.get(session.session_id))
    assert failure.reason == "SESSION_NOT_FOUND"


async def test_a_recording_whose_audio_was_deleted_is_not_played_any_more(
    service: Service, uploads: UploadServiceAsyncStub, speech: Samples
) -> None:
    session = await service.open()
    nothing = await failure_of(service.recording(session.session_id))
    await service.append(session.session_id, 0, speech[:RATE].tobytes())
    closed = await service.close(session.session_id)
    await service.recording(session.session_id, pb.RECORDING_FORM_PLAYLIST)
    await service.events(session.session_id)  # until nothing is left to do

    await uploads.DeleteAudio(upload_pb2.DeleteAudioRequest(audio_id=closed.audio_id))

    assert nothing.reason == "NOTHING_RECORDED"
    for form in (pb.RECORDING_FORM_PLAYLIST, pb.RECORDING_FORM_FILE):
        failure = await failure_of(service.recording(session.session_id, form))
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.reason == "RECORDING_DELETED"


async def test_a_recording_is_the_kind_of_file_that_was_asked_for_from_first_to_last(
    service: Service, uploads: UploadServiceAsyncStub, speech: Samples
) -> None:
    pcm = speech
    session = await service.open(recording_format=pb.RECORDING_FORMAT_W64)
    chunks = numbered(pcm.tobytes(), 5 * CHUNK_BYTES)
    producer = Producer([service.stub], session.session_id)

    await producer.send(chunks[:300])
    growing = await service.recording(session.session_id, pb.RECORDING_FORM_FILE)
    grown = await fetched(growing.url)
    await producer.send(chunks[300:])
    closed = await service.close(session.session_id)

    audio, file = await audio_of(uploads, closed.audio_id)
    assert growing.file_format == pb.RECORDING_FORMAT_W64
    assert (audio.filename, audio.content_type) == (f"{session.session_id}.w64", "audio/x-w64")
    for made, length in ((grown, 300 * RATE), (file, len(pcm))):
        with av.open(io.BytesIO(made)) as container:
            assert container.format.name == "w64"
        assert np.array_equal(decoded(made), pcm[:length])
    after = await service.recording(session.session_id)
    assert after.file_format == pb.RECORDING_FORMAT_W64
    assert await fetched(after.url) == file


@pytest.mark.parametrize(
    ("encoding", "rate", "channels", "codec", "dtype"),
    [
        (pb.AUDIO_ENCODING_LINEAR16, 44_100, 2, "pcm_s16le", "<i2"),
        (pb.AUDIO_ENCODING_FLOAT32, 48_000, 1, "pcm_f32le", "<f4"),
        (pb.AUDIO_ENCODING_MULAW, 8000, 1, "pcm_mulaw", "u1"),
        (pb.AUDIO_ENCODING_ALAW, 8000, 2, "pcm_alaw", "u1"),
    ],
)
async def test_raw_samples_of_each_encoding_are_kept_as_they_are(
    service: Service,
    encoding: pb.AudioEncoding.ValueType,
    rate: int,
    channels: int,
    codec: str,
    dtype: str,
) -> None:
    random.seed(3)
    sent = random.randbytes(rate * channels)
    if dtype == "<f4":
        sent = np.random.default_rng(3).uniform(-1, 1, rate).astype(dtype).tobytes()
    session = await service.open(encoding=encoding, sample_rate_hertz=rate, channel_count=channels)
    whole = np.dtype(dtype).itemsize * channels
    sent = sent[: len(sent) // (100 * whole) * 100 * whole]

    for sequence, chunk in enumerate(cut(sent, 100 * whole * 7)):
        await service.append(session.session_id, sequence, chunk)
    closed = await service.close(session.session_id)

    file = await service.file(session.session_id)
    with av.open(io.BytesIO(file)) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.rate, stream.channels) == (codec, rate, channels)
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base * rate == len(sent) // whole
    assert file.endswith(sent)
    assert closed.duration.ToNanoseconds() == pytest.approx(
        len(sent) // whole / rate * 1e9, abs=1e3
    )
