"""The preparation, in processes where it is killed, paused and stopped, else in this one."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import av
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from recordings import samples_of, without_pauses
from recordings import wav as wav_of
from steno.audio import decode, decode_slice, encode_slice, in_memory
from steno.local.health import Health, grpc_health
from steno.local.ports import HOST, free_port
from steno.platform.database import Pool
from steno.platform.messaging import connect
from steno.platform.objects import ObjectStore
from steno.platform.settings import NatsSettings
from steno.upload import turns, worker
from steno.v1 import upload_pb2 as pb
from steno.v1.events_pb2 import AudioEvent
from waiting import eventually

from .conftest import Client, PrepareHere, Process, StartHere, StartPreparation, StartService

EXAMPLES = Path(__file__).parents[3] / "examples" / "audio"
DEMO = EXAMPLES / "demo.opus"


async def send(service: Client, content: bytes, filename: str = "a") -> str:
    """Uploads in one stream; returns the audio's id."""
    chunks = (content[begin : begin + 2**20] for begin in range(0, len(content), 2**20))
    return (await service.send(*chunks, filename=filename)).audio_id


async def get(service: Client, audio_id: str) -> pb.Audio:
    return (await service.uploads.GetAudio(pb.GetAudioRequest(audio_id=audio_id))).audio


async def slices_of(service: Client, audio_id: str) -> list[pb.Slice]:
    answer = await service.slices.ListSlices(pb.ListSlicesRequest(audio_id=audio_id))
    return list(answer.slices)


async def prepared(service: Client, audio_id: str, within: float = 60) -> pb.Audio:
    async def final() -> pb.Audio:
        audio = await get(service, audio_id)
        assert audio.state != pb.AUDIO_STATE_PREPARING, audio
        return audio

    return await eventually(final, within=within)


async def some_slices(service: Client, audio_id: str) -> None:
    """Waits until the preparation is midway."""

    async def midway() -> bool:
        audio = await get(service, audio_id)
        assert audio.state == pb.AUDIO_STATE_PREPARING
        return audio.slice_count >= 1

    await eventually(midway, every=0.02)


async def whole(objects: ObjectStore, slices: list[pb.Slice]) -> NDArray[np.int16]:
    return np.concatenate([decode_slice(await objects.get(s.object_key)) for s in slices])


async def decoded(content: bytes) -> NDArray[np.int16]:
    async with decode(in_memory(content), len(content)) as decoding:
        return np.concatenate([block async for block in decoding])


@pytest.fixture(scope="module")
def speech() -> NDArray[np.int16]:
    """Five spoken minutes: long enough to catch their preparation midway."""
    return samples_of("ten-minutes.opus")[: 300 * 16000]


def boundaries(slices: list[pb.Slice]) -> list[tuple[int, int, int]]:
    return [(s.start_sample, s.sample_count, s.speech_sample_count) for s in slices]


async def test_a_preparation_tells_its_health(
    start_preparation: StartPreparation, objects: ObjectStore
) -> None:
    address = f"127.0.0.1:{free_port()}"

    start_preparation(STENO_LISTEN=address)

    async def ready() -> bool:
        return await grpc_health(address) is Health.READY

    await eventually(ready, within=60)


def wav(seconds: int) -> bytes:
    """Noise."""
    noise = np.random.default_rng(0).integers(-9000, 9000, seconds * 16_000, np.int16)
    return encode_slice(noise)


async def test_slices_joined_are_the_decoded_recording(
    service: Client, objects: ObjectStore, prepare_here: PrepareHere
) -> None:
    content = DEMO.read_bytes()
    await prepare_here()

    audio_id = await send(service, content, "demo.opus")
    audio = await prepared(service, audio_id)
    slices = await slices_of(service, audio_id)

    assert audio.state == pb.AUDIO_STATE_READY
    assert (audio.codec, audio.container) == ("opus", "ogg")
    assert audio.sha256 == hashlib.sha256(content).hexdigest()
    assert not audio.truncated
    assert audio.slice_count == len(slices) > 1
    assert all(30 * 16000 <= s.sample_count <= 90 * 16000 for s in slices[:-1])
    recording = await decoded(content)
    assert np.array_equal(await whole(objects, slices), recording)
    assert audio.duration.ToTimedelta().total_seconds() == pytest.approx(len(recording) / 16000)


async def test_slices_that_are_cut_in_the_midst_of_speech_have_an_object_with_context(
    service: Client, objects: ObjectStore, prepare_here: PrepareHere
) -> None:
    speech = without_pauses(samples_of("ten-minutes.opus"))[: 120 * 16_000]
    await prepare_here()
    audio_id = await send(service, wav_of(speech))
    await prepared(service, audio_id)

    left, right = await slices_of(service, audio_id)

    assert (left.right_context_sample_count, right.left_context_sample_count) == (48_000, 48_000)
    assert np.array_equal(await whole(objects, [left, right]), speech)
    for piece in (left, right):
        first = piece.start_sample - piece.left_context_sample_count
        last = piece.start_sample + piece.sample_count + piece.right_context_sample_count
        heard = decode_slice(await objects.get(piece.context_object_key))
        assert np.array_equal(heard, speech[first:last])


async def test_the_first_slice_is_published_while_the_rest_is_being_decoded(
    service: Client, prepare_here: PrepareHere, speech: NDArray[np.int16]
) -> None:
    events: list[AudioEvent] = []
    async with (
        connect(NatsSettings(), "test") as nats,
        nats.subscribe("steno.events.audio.*", AudioEvent) as published,
    ):

        async def listen() -> None:
            async for event in published:
                events.append(event)

        listening = asyncio.create_task(listen())
        await prepare_here()
        audio_id = await send(service, encode_slice(speech))
        await some_slices(service, audio_id)
        audio = await prepared(service, audio_id)
        await eventually(lambda: events[-1].state == pb.AUDIO_STATE_READY)
        listening.cancel()

    assert [e.slice_count for e in events[:-1]] == list(range(1, audio.slice_count + 1))
    assert {e.state for e in events[:-1]} == {pb.AUDIO_STATE_PREPARING}
    assert {e.audio_id for e in events} == {audio_id}


async def test_rejected_audio_keeps_its_reason_and_after_a_while_no_bytes(
    start_here: StartHere, objects: ObjectStore, prepare_here: PrepareHere
) -> None:
    service = await start_here(upload_sweep_seconds=0.1)
    await prepare_here(audio_grace_hours=0.1 / 3600)
    liars = {
        b"": "EMPTY",
        b"x": "UNSUPPORTED_FORMAT",
        wav(1)[:44]: "NO_SAMPLES",
        b"Not sound but words.\n" * 50: "UNSUPPORTED_FORMAT",
        b"#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1/secret.wav\n": "UNSUPPORTED_FORMAT",
    }

    for content, reason in liars.items():
        audio = await prepared(service, await send(service, content, "liar.wav"))

        assert (audio.state, audio.rejection.reason) == (pb.AUDIO_STATE_REJECTED, reason)
        assert audio.rejection.message
    await eventually(lambda: nothing_in(objects))


async def test_the_bytes_of_rejected_audio_can_be_had_until_they_are_removed(
    start_here: StartHere, objects: ObjectStore, prepare_here: PrepareHere
) -> None:
    service = await start_here(upload_sweep_seconds=0.1)
    await prepare_here(audio_grace_hours=1)
    content = b"Not sound but words.\n"

    audio = await prepared(service, await send(service, content, "liar.wav"))

    kept = audio.purge_time.ToDatetime() - audio.update_time.ToDatetime()
    assert kept == timedelta(hours=1)
    request = pb.GetDownloadUrlRequest(audio_id=audio.audio_id)
    url = (await service.uploads.GetDownloadUrl(request)).url
    assert await asyncio.to_thread(lambda: urlopen(url).read()) == content
    again = pb.RetryAudioRequest(audio_id=audio.audio_id)
    failure = await service.failure_of(service.uploads.RetryAudio(again))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "AUDIO_REJECTED",
    )


async def nothing_in(objects: ObjectStore) -> bool:
    return await objects.list_prefix("") == []


async def test_a_recording_cut_in_the_middle_is_kept_and_says_so(
    service: Client, prepare_here: PrepareHere
) -> None:
    content = wav(10)
    await prepare_here()

    audio = await prepared(service, await send(service, content[: len(content) // 2]))

    assert (audio.state, audio.truncated) == (pb.AUDIO_STATE_READY, True)


async def test_a_recording_longer_than_allowed_is_rejected(
    service: Client, prepare_here: PrepareHere
) -> None:
    await prepare_here(prepare_max_hours=60 / 3600)

    audio = await prepared(service, await send(service, DEMO.read_bytes()))

    assert audio.state == pb.AUDIO_STATE_REJECTED
    assert audio.rejection.reason in ("TOO_LONG", "TOO_MANY_SAMPLES")
    assert audio.slice_count == 0


@pytest.mark.long
async def test_a_killed_preparation_is_resumed_to_the_same_slices(
    start_here: StartHere,
    pool: Pool,
    objects: ObjectStore,
    start_preparation: StartPreparation,
    prepare_here: PrepareHere,
    speech: NDArray[np.int16],
) -> None:
    service = await start_here(upload_reconcile_seconds=0.2)
    content = encode_slice(speech)
    first = start_preparation()
    calm_id = await send(service, content)
    await prepared(service, calm_id)

    audio_id = await send(service, content)
    await some_slices(service, audio_id)
    first.kill()
    await long_ago(pool)
    before = await slices_of(service, audio_id)
    await prepare_here()
    audio = await prepared(service, audio_id)
    slices = await slices_of(service, audio_id)

    assert audio.state == pb.AUDIO_STATE_READY
    assert slices[: len(before)] == before
    assert boundaries(slices) == boundaries(await slices_of(service, calm_id))
    assert np.array_equal(await whole(objects, slices), speech)
    stored = await objects.list_prefix(f"slices/{audio_id}/")
    assert stored == sorted(s.object_key for s in slices)


async def long_ago(pool: Pool) -> None:
    """As if the silence of who holds a lease had begun long ago."""
    async with pool.connection() as db:
        await db.execute(
            "UPDATE upload.audio SET lease_until = now() - interval '1 year'"
            " WHERE lease_until IS NOT NULL"
        )


async def test_a_stopped_preparation_hands_its_audio_back_at_once(
    service: Client,
    pool: Pool,
    start_preparation: StartPreparation,
    prepare_here: PrepareHere,
    speech: NDArray[np.int16],
) -> None:
    first = start_preparation(STENO_PREPARE_LEASE_SECONDS="600")
    audio_id = await send(service, encode_slice(speech))
    await some_slices(service, audio_id)

    assert first.stop() == 0

    await prepare_here()
    assert (await prepared(service, audio_id)).state == pb.AUDIO_STATE_READY
    assert await failures_of(pool, audio_id) == 0


async def failures_of(pool: Pool, audio_id: str) -> int:
    async with pool.connection() as db:
        found = await db.execute(
            "SELECT failure_count FROM upload.audio WHERE audio_id = %s", [audio_id]
        )
        row = await found.fetchone()
    assert row is not None
    return int(row["failure_count"])


@pytest.mark.long
async def test_a_paused_preparation_that_comes_back_changes_nothing(
    start_here: StartHere,
    pool: Pool,
    objects: ObjectStore,
    start_preparation: StartPreparation,
    prepare_here: PrepareHere,
    speech: NDArray[np.int16],
) -> None:
    service = await start_here(upload_reconcile_seconds=0.2)
    content = encode_slice(speech)
    first = start_preparation()
    audio_id = await send(service, content)
    await some_slices(service, audio_id)
    first.pause()
    await long_ago(pool)
    await prepare_here()
    audio = await prepared(service, audio_id)
    slices = await slices_of(service, audio_id)

    first.go_on()
    await eventually(lambda: "is over" in first.log)

    assert await get(service, audio_id) == audio
    assert await slices_of(service, audio_id) == slices
    stored = await objects.list_prefix(f"slices/{audio_id}/")
    assert stored == sorted(s.object_key for s in slices)
    assert np.array_equal(await whole(objects, slices), speech)


@pytest.fixture
async def halted_store() -> AsyncIterator[str]:
    """A store that takes connections and never answers."""
    connections: list[asyncio.StreamWriter] = []

    def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(meet, HOST, 0)
    yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in connections:
        writer.close()


async def test_an_audio_that_kills_each_of_its_preparations_is_parked_and_keeps_its_bytes(
    service: Client,
    pool: Pool,
    objects: ObjectStore,
    start_preparation: StartPreparation,
    prepare_here: PrepareHere,
    halted_store: str,
) -> None:
    audio_id = await send(service, wav(10))
    for _ in range(2):
        # It has no byte of it.
        process = start_preparation(STENO_S3_ENDPOINT=halted_store, PGAPPNAME="doomed")
        await eventually(partial(has_begun, process), every=0.01)
        process.kill()
        await eventually(partial(is_disconnected, pool, "doomed"))  # or it takes one more lease
        await long_ago(pool)
        async with pool.connection() as db:  # as if it had killed others before
            await db.execute("UPDATE upload.audio SET failure_count = failure_count + 10")

    audio = await get(service, audio_id)
    assert audio.state == pb.AUDIO_STATE_PREPARING
    assert audio.preparation_failure.reason == "PREPARATION_INTERRUPTED"
    assert audio.preparation_failure.failure_count >= 20
    await prepare_here()

    assert (await prepared(service, audio_id)).state == pb.AUDIO_STATE_READY
    assert len(await objects.list_prefix("uploads/")) == 1


async def is_disconnected(pool: Pool, name: str) -> bool:
    """Whether Postgres has done all that a dead process had asked it for."""
    async with pool.connection() as db:
        found = await db.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = %(name)s", {"name": name}
        )
        return await found.fetchone() is None


def has_begun(process: Process) -> bool:
    return "attempt" in process.log


async def test_audio_whose_bytes_are_gone_waits_until_they_are_back_and_somebody_says_so(
    start_here: StartHere, pool: Pool, objects: ObjectStore, prepare_here: PrepareHere
) -> None:
    content = wav(10)
    service = await start_here(upload_reconcile_seconds=0.1)
    audio_id = await send(service, content)
    (key,) = await objects.list_prefix("uploads/")
    await objects.remove(key)

    await prepare_here()
    await eventually(lambda: failed(service, audio_id, times=1))
    async with pool.connection() as db:  # as if its pause were over
        await db.execute("UPDATE upload.audio SET not_before = now()")
    await eventually(lambda: failed(service, audio_id, times=2))
    audio = await get(service, audio_id)
    assert audio.state == pb.AUDIO_STATE_PREPARING
    assert audio.preparation_failure.reason == "OBJECT_NOT_FOUND"
    await eventually(lambda: REGISTRY.get_sample_value("steno_prepare_parked") == 1)

    await objects.put(key, content)
    await service.uploads.RetryAudio(pb.RetryAudioRequest(audio_id=audio_id))
    audio = await prepared(service, audio_id)

    assert audio.state == pb.AUDIO_STATE_READY
    assert not audio.HasField("preparation_failure")


async def failed(service: Client, audio_id: str, times: int) -> bool:
    failure = (await get(service, audio_id)).preparation_failure
    return failure.failure_count >= times


async def test_what_is_rejected_is_counted_by_its_reason(
    service: Client, prepare_here: PrepareHere
) -> None:
    before = rejected("UNSUPPORTED_FORMAT")
    await prepare_here()

    await prepared(service, await send(service, b"words"))

    assert rejected("UNSUPPORTED_FORMAT") == before + 1


def rejected(reason: str) -> float:
    return REGISTRY.get_sample_value("steno_prepare_rejected_total", {"reason": reason}) or 0


async def test_a_deleted_audio_leaves_nothing_while_it_is_being_prepared(
    service: Client,
    objects: ObjectStore,
    prepare_here: PrepareHere,
    speech: NDArray[np.int16],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await prepare_here()
    audio_id = await send(service, encode_slice(speech))
    await some_slices(service, audio_id)

    await service.uploads.DeleteAudio(pb.DeleteAudioRequest(audio_id=audio_id))

    await eventually(lambda: "is over" in caplog.text)
    assert await nothing_in(objects)


async def test_a_lost_message_is_sent_again(
    service: Client, prepare_here: PrepareHere, wipe_nats: Callable[[], Awaitable[None]]
) -> None:
    audio_id = await send(service, wav(10))
    await wipe_nats()

    await prepare_here()

    assert (await prepared(service, audio_id)).state == pb.AUDIO_STATE_READY


async def test_a_message_that_is_sent_again_belongs_to_the_trace_of_the_upload(
    service: Client, start_preparation: StartPreparation, wipe_nats: Callable[[], Awaitable[None]]
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    await service.send(wav(1), traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    await wipe_nats()

    process = start_preparation()

    def told() -> list[str]:
        return [line for line in process.log.splitlines() if " ready " in line]

    (ready,) = await eventually(told)
    assert f"trace_id={trace_id}" in ready


async def test_a_short_recording_does_not_wait_for_the_end_of_long_ones(
    service: Client, prepare_here: PrepareHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (turns, worker):
        monkeypatch.setattr(module, "LONG_SAMPLES", 60 * 16_000)
    hour = flac_of_silence(hours=1)
    long = [await send(service, hour) for _ in range(3)]  # more than there are places
    await prepare_here(prepare_at_once=2)
    await eventually(lambda: any_slice(service, long))

    short = await prepared(service, await send(service, wav(10)))

    assert short.state == pb.AUDIO_STATE_READY
    for audio_id in long:
        audio = await get(service, audio_id)
        assert audio.state == pb.AUDIO_STATE_PREPARING
        assert not audio.HasField("preparation_failure")


async def any_slice(service: Client, audio_ids: list[str]) -> bool:
    return any([(await get(service, audio_id)).slice_count for audio_id in audio_ids])


def flac_of_silence(hours: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        silence = np.zeros((1, 600 * 16_000), np.int16)
        for part in range(hours * 6):
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, part * 600 * 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_three_hours_in_two_gigabytes_take_little_memory(
    start_service: StartService, start_preparation: StartPreparation
) -> None:
    service, preparation = await start_service(), start_preparation()
    header, second = studio_wav(3 * 3600)
    of_a_minute, _ = studio_wav(60)
    await prepared(service, (await service.send(of_a_minute, *[second] * 60)).audio_id)
    at_rest = service.memory_bytes
    before = service.peak_memory_bytes, preparation.peak_memory_bytes

    sent = await service.send(header, *[second] * 3 * 3600)
    assert service.memory_bytes - at_rest < 30 * 2**20
    most_of_child = 0

    async def final() -> bool:
        nonlocal most_of_child
        most_of_child = max(most_of_child, preparation.peak_memory_of_children)
        return (await get(service, sent.audio_id)).state != pb.AUDIO_STATE_PREPARING

    await eventually(final, within=500)

    audio = await get(service, sent.audio_id)
    assert audio.state == pb.AUDIO_STATE_READY
    assert (audio.size_bytes > 2 * 10**9, audio.duration.seconds) == (True, 3 * 3600)
    assert service.peak_memory_bytes - before[0] < 50 * 2**20
    assert preparation.peak_memory_bytes - before[1] < 50 * 2**20
    assert 0 < most_of_child < 300 * 2**20


def studio_wav(seconds: int) -> tuple[bytes, bytes]:
    """The header of a recording in stereo at 48 kHz, and a second of it: noise and a pause."""
    rate, frame = 48_000, 4
    format_chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, rate, rate * frame, frame, 16)
    data_chunk = struct.pack("<4sI", b"data", seconds * rate * frame)
    riff = struct.pack("<4sI4s", b"RIFF", 36 + seconds * rate * frame, b"WAVE")
    second = np.random.default_rng(0).integers(-9000, 9000, 2 * rate, np.int16)
    second[-rate:] = 0
    return riff + format_chunk + data_chunk, second.tobytes()
