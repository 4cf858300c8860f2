"""Uploads in one stream, through the service."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from uuid import uuid4

import grpc
import pytest

from steno.platform.database import Pool
from steno.platform.objects import ObjectStore
from steno.v1 import upload_pb2 as pb
from waiting import answered, eventually

from .conftest import Client, StartHere, StartService

MIB = 2**20


async def stream(
    header: pb.UploadAudioHeader | None, chunks: Iterable[bytes]
) -> AsyncIterator[pb.UploadAudioRequest]:
    if header is not None:
        yield pb.UploadAudioRequest(header=header)
    for chunk in chunks:
        yield pb.UploadAudioRequest(chunk=chunk)


async def is_empty(objects: ObjectStore) -> bool:
    return await objects.list_prefix("") == []


async def test_a_stream_of_any_length_becomes_an_audio(
    service: Client, objects: ObjectStore
) -> None:
    for size in (1, MIB, 8 * MIB, 8 * MIB + 1, 17 * MIB):
        content = os.urandom(size)
        sha256 = hashlib.sha256(content).hexdigest()
        chunks = [content[begin : begin + MIB] for begin in range(0, size, MIB)]

        audio = await service.send(*chunks, sha256=sha256)

        assert (audio.state, audio.size_bytes) == (pb.AUDIO_STATE_PREPARING, size)
        assert audio.sha256 == sha256
        (key,) = await objects.list_prefix("uploads/")
        assert await objects.get(key) == content
        await objects.remove(key)


async def test_a_stream_without_bytes_is_rejected_and_leaves_none(
    service: Client, objects: ObjectStore
) -> None:
    audio = await service.send()

    assert (audio.state, audio.rejection.reason) == (pb.AUDIO_STATE_REJECTED, "EMPTY")
    assert await is_empty(objects)


async def test_other_bytes_than_announced_are_refused_and_removed(
    service: Client, objects: ObjectStore
) -> None:
    failure = await service.failure_of(service.send(b"abc", sha256=64 * "0"))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "CHECKSUM_MISMATCH"
    assert await is_empty(objects)


async def test_a_stream_longer_than_allowed_is_refused_and_removed(
    start_here: StartHere, objects: ObjectStore
) -> None:
    service = await start_here(upload_max_bytes=8 * MIB)

    failure = await service.failure_of(service.send(*[bytes(MIB)] * 10))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "FILE_TOO_LONG",
    )
    assert await is_empty(objects)


async def open_stream(
    service: Client, *chunks: bytes
) -> grpc.aio.StreamUnaryCall[pb.UploadAudioRequest, pb.UploadAudioResponse]:
    """A stream that goes on."""
    call = service.uploads.UploadAudio()
    await call.write(pb.UploadAudioRequest(header=pb.UploadAudioHeader(filename="a")))
    for chunk in chunks:
        await call.write(pb.UploadAudioRequest(chunk=chunk))
    return call


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Bytes of what there is in this process.

    Of a whole process they can't be told: gRPC's threads keep what they have received in heaps that
    shrink late or never, some MiB or some ten, as it happens.
    """
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


async def test_streams_are_bounded_in_number_and_in_memory(
    start_here: StartHere, objects: ObjectStore, traced: Callable[[], int]
) -> None:
    service = await start_here(upload_max_streams=6)
    request_id = str(uuid4())
    audio = await service.send(*[bytes(MIB)] * 9, request_id=request_id)
    before = traced()

    calls = [await open_stream(service, *[bytes(MIB)] * 15) for _ in range(6)]
    await eventually(lambda: have_parts(objects, 6))
    failure = await service.failure_of(service.send(b"abc"))
    again = await service.send(b"abc", request_id=request_id)

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_STREAMS",
    )
    assert failure.retry_delay is not None
    assert again.audio_id == audio.audio_id
    # 7 MiB of each wait for the part to be full; the part that was sent is no longer held once
    # the service knows that it has landed, a moment after the store does.
    await eventually(lambda: traced() - before < 6 * 8 * MIB)

    await calls[0].done_writing()
    assert (await calls[0]).audio.size_bytes == 15 * MIB
    calls.append(await open_stream(service))
    calls[1].cancel()
    await answered(lambda: service.send(b"abc"))


async def have_parts(objects: ObjectStore, count: int) -> bool:
    listed = await asyncio.to_thread(
        objects._client._list_multipart_uploads, "steno", prefix="uploads/"
    )
    return len(listed.uploads) == count and all(
        [
            await objects.list_parts(upload.object_name, str(upload.upload_id))
            for upload in listed.uploads
        ]
    )


async def test_a_stream_that_stands_still_makes_room_when_it_expires(
    start_here: StartHere, objects: ObjectStore
) -> None:
    service = await start_here(upload_max_streams=1, upload_expiry_seconds=1)
    call = await open_stream(service, b"abc")

    failure = await service.failure_of(call)

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "STREAM_EXPIRED",
    )
    assert await has_no_parts(objects)
    await answered(lambda: service.send(b"abc"))


async def test_a_cancelled_stream_leaves_no_bytes(
    service: Client, objects: ObjectStore, pool: Pool
) -> None:
    call = service.uploads.UploadAudio()
    await call.write(pb.UploadAudioRequest(header=pb.UploadAudioHeader(filename="a")))
    for _ in range(9):
        await call.write(pb.UploadAudioRequest(chunk=bytes(MIB)))
    await eventually(lambda: planned_removals(pool, done=False))

    call.cancel()

    await eventually(lambda: planned_removals(pool, done=True))
    await eventually(lambda: is_empty(objects))


async def planned_removals(pool: Pool, *, done: bool) -> bool:
    async with pool.connection() as db:
        found = await db.execute("SELECT 1 FROM upload.removals WHERE done_once = %s", [done])
        return await found.fetchone() is not None


async def test_a_stream_whose_service_died_leaves_no_bytes(
    start_service: StartService, start_here: StartHere, objects: ObjectStore, pool: Pool
) -> None:
    service = await start_service()
    call = service.uploads.UploadAudio()
    await call.write(pb.UploadAudioRequest(header=pb.UploadAudioHeader(filename="a")))
    await call.write(pb.UploadAudioRequest(chunk=bytes(MIB)))
    await eventually(lambda: planned_removals(pool, done=False))

    service.kill()
    call.cancel()
    async with pool.connection() as db:  # as if its time were over
        await db.execute("UPDATE upload.removals SET due_time = now()")
    await start_here(upload_sweep_seconds=0.1)

    await eventually(lambda: has_no_parts(objects))


async def has_no_parts(objects: ObjectStore) -> bool:
    listed = await asyncio.to_thread(
        objects._client._list_multipart_uploads, "steno", prefix="uploads/"
    )
    return not listed.uploads


async def test_the_same_request_answers_the_same_audio(
    service: Client, objects: ObjectStore
) -> None:
    request_id = str(uuid4())

    first = await service.send(b"abc", request_id=request_id)
    again = await asyncio.gather(*(service.send(b"abc", request_id=request_id) for _ in range(3)))

    assert {audio.audio_id for audio in again} == {first.audio_id}
    assert len(await objects.list_prefix("uploads/")) == 1


async def test_the_same_request_at_once_makes_one_audio(
    service: Client, objects: ObjectStore
) -> None:
    request_id = str(uuid4())

    audio = await asyncio.gather(*(service.send(b"abc", request_id=request_id) for _ in range(4)))

    assert len({a.audio_id for a in audio}) == 1
    assert len(await objects.list_prefix("uploads/")) == 1


async def test_a_request_id_with_another_header_is_refused(service: Client) -> None:
    request_id = str(uuid4())
    await service.send(b"abc", request_id=request_id)

    failure = await service.failure_of(
        service.send(b"abc", request_id=request_id, content_type="audio/wav")
    )

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )


WRONG = [
    (None, b"abc", "header"),
    (pb.UploadAudioHeader(), b"abc", "header.filename"),
    (pb.UploadAudioHeader(filename="a", sha256="xyz"), b"abc", "header.sha256"),
    (pb.UploadAudioHeader(filename="a", content_type="größe"), b"abc", "header.content_type"),
    (pb.UploadAudioHeader(filename="a", content_type="a\r\nb: c"), b"abc", "header.content_type"),
    (pb.UploadAudioHeader(filename="a", request_id="1"), b"abc", "header.request_id"),
    (pb.UploadAudioHeader(filename="a"), bytes(MIB + 1), "chunk"),
]


async def test_a_wrong_stream_is_refused_and_its_fault_named(
    service: Client, objects: ObjectStore
) -> None:
    for header, chunk, field in WRONG:
        failure = await service.failure_of(service.uploads.UploadAudio(stream(header, [chunk])))

        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, field
        assert [violation.field for violation in failure.violations] == [field]
    assert await is_empty(objects)


async def test_a_stream_without_a_message_is_refused(service: Client) -> None:
    failure = await service.failure_of(service.uploads.UploadAudio(stream(None, [])))

    assert [violation.field for violation in failure.violations] == ["header"]


async def test_a_second_header_is_refused(service: Client) -> None:
    header = pb.UploadAudioRequest(header=pb.UploadAudioHeader(filename="a"))

    async def requests() -> AsyncIterator[pb.UploadAudioRequest]:
        yield header
        yield header

    failure = await service.failure_of(service.uploads.UploadAudio(requests()))

    assert [violation.field for violation in failure.violations] == ["chunk"]
