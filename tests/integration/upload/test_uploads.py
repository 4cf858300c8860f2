"""Uploads in parts, straight to S3."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import urllib.error
import urllib.request
from datetime import timedelta
from uuid import uuid4

import grpc
import pytest

from steno.platform.database import Pool
from steno.platform.objects import ObjectNotFound, ObjectStore
from steno.v1 import upload_pb2 as pb
from waiting import eventually

from .conftest import Client, StartHere, StartService

MIB = 2**20
PART = 8 * MIB


async def create(service: Client, content: bytes, **fields: str) -> pb.Upload:
    request = pb.CreateUploadRequest(filename="a.wav", size_bytes=len(content), **fields)
    return (await service.uploads.CreateUpload(request)).upload


async def get(service: Client, upload: pb.Upload) -> pb.Upload:
    return (await service.uploads.GetUpload(pb.GetUploadRequest(upload_id=upload.upload_id))).upload


async def complete(service: Client, upload: pb.Upload) -> pb.Audio:
    request = pb.CompleteUploadRequest(upload_id=upload.upload_id)
    return (await service.uploads.CompleteUpload(request)).audio


async def put(upload: pb.Upload, content: bytes, *numbers: int) -> None:
    """PUTs parts, all or those of these numbers, as any HTTP client would."""
    for part in upload.parts:
        if not numbers or part.part_number in numbers:
            await put_part(part, content[part.offset_bytes :][: part.size_bytes])


async def put_again(upload: pb.Upload, content: bytes, *numbers: int) -> None:
    """PUTs parts a second time: SeaweedFS knows the order of two tries by the second only."""
    tried = int(time.time())
    await eventually(lambda: int(time.time()) > tried)
    await put(upload, content, *numbers)


async def put_part(part: pb.UploadPart, content: bytes) -> None:
    request = urllib.request.Request(part.url, content, method="PUT")
    (await asyncio.to_thread(urllib.request.urlopen, request)).close()


def place_of(upload: pb.Upload) -> tuple[str, str]:
    """The key of its object to come, and its multipart upload."""
    key, _, query = upload.parts[0].url.partition("?")
    multipart_id = dict(pair.split("=") for pair in query.split("&"))["uploadId"]
    return key[key.index("uploads/") :], multipart_id


async def bytes_of(objects: ObjectStore, upload: pb.Upload) -> list[str]:
    return await objects.list_prefix(f"uploads/{upload.upload_id}")


async def test_a_file_sent_in_parts_becomes_an_audio(service: Client, objects: ObjectStore) -> None:
    content = os.urandom(2 * PART + 5)
    sha256 = hashlib.sha256(content).hexdigest()

    upload = await create(service, content, sha256=sha256, content_type="audio/wav")
    await put(upload, content)
    audio = await complete(service, upload)

    assert [part.size_bytes for part in upload.parts] == [PART, PART, 5]
    assert (audio.state, audio.sha256) == (pb.AUDIO_STATE_PREPARING, sha256)
    assert (audio.filename, audio.content_type) == ("a.wav", "audio/wav")
    assert audio.size_bytes == len(content)
    (key,) = await bytes_of(objects, upload)
    assert await objects.get(key) == content


async def test_parts_may_land_in_any_order_and_more_than_once(service: Client) -> None:
    content = os.urandom(2 * PART + 5)
    upload = await create(service, content)

    await put(upload, bytes(len(content)), 3)
    await put(upload, content, 2)
    await put(upload, content, 1)
    await put(upload, content, 1)
    await put_again(upload, content, 3)
    audio = await complete(service, upload)

    assert audio.sha256 == hashlib.sha256(content).hexdigest()


async def test_an_upload_goes_on_where_it_stopped_after_the_service_was_killed(
    start_service: StartService,
) -> None:
    service = await start_service()
    content = os.urandom(PART + 1)
    upload = await create(service, content)
    await put(upload, content, 2)

    service.kill()
    service.start()
    await eventually(service.serves)
    found = await get(service, upload)

    assert [part.landed for part in found.parts] == [False, True]
    assert [bool(part.url) for part in found.parts] == [True, False]
    await put(found, content, 1)
    assert (await complete(service, upload)).sha256 == hashlib.sha256(content).hexdigest()


async def test_missing_parts_are_named_and_can_be_sent_later(service: Client) -> None:
    content = os.urandom(2 * PART + 5)
    upload = await create(service, content)
    await put(upload, content, 2)

    failure = await service.failure_of(complete(service, upload))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "PARTS_MISSING"
    assert failure.metadata is not None
    assert failure.metadata["part_numbers"] == "1,3"
    await put(upload, content, 1, 3)
    assert await complete(service, upload)


@pytest.mark.parametrize("length", [0, 99, 101, 20 * 2**20])
async def test_the_store_refuses_a_part_of_another_length(
    service: Client, objects: ObjectStore, length: int
) -> None:
    content = os.urandom(100)
    upload = await create(service, content)

    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)):
        await put_part(upload.parts[0], bytes(length))

    assert await objects.list_parts(*place_of(upload)) == []
    await put(upload, content)
    assert await complete(service, upload)


async def test_a_part_that_is_too_short_has_not_landed_and_is_refused(
    service: Client, objects: ObjectStore
) -> None:
    content = os.urandom(100)
    upload = await create(service, content)
    await objects.upload_part(*place_of(upload), 1, content[:99])  # the store did not check

    failure = await service.failure_of(complete(service, upload))
    found = await get(service, upload)

    assert failure.reason == "SIZE_MISMATCH"
    assert failure.metadata is not None
    assert failure.metadata["part_numbers"] == "1"
    assert not found.parts[0].landed
    await put_again(found, content)
    assert await complete(service, upload)


async def test_parts_that_are_too_long_are_removed_when_they_are_refused(
    service: Client, objects: ObjectStore
) -> None:
    content = os.urandom(100)
    upload = await create(service, content)
    await objects.upload_part(*place_of(upload), 1, bytes(6 * 2**20))  # the store did not check

    failure = await service.failure_of(complete(service, upload))

    assert failure.reason == "SIZE_MISMATCH"
    with pytest.raises(ObjectNotFound):
        await objects.list_parts(*place_of(upload))
    await put(await get(service, upload), content)
    assert await complete(service, upload)


async def test_other_bytes_than_announced_are_removed_and_can_be_sent_again(
    service: Client, objects: ObjectStore
) -> None:
    content = os.urandom(PART + 100)
    sha256 = hashlib.sha256(content).hexdigest()
    upload = await create(service, content, sha256=sha256)
    await put(upload, bytes(len(content)))

    failure = await service.failure_of(complete(service, upload))
    found = await get(service, upload)

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "CHECKSUM_MISMATCH"
    assert await bytes_of(objects, upload) == []
    assert found.state == pb.UPLOAD_STATE_OPEN
    assert [part.landed for part in found.parts] == [False, False]
    await put(found, content)
    assert (await complete(service, upload)).sha256 == sha256


async def test_the_bytes_of_a_completed_upload_cannot_change(
    service: Client, objects: ObjectStore
) -> None:
    content = os.urandom(100)
    upload = await create(service, content)
    await put(upload, content)
    await complete(service, upload)

    with pytest.raises(urllib.error.HTTPError):
        await put(upload, bytes(100))

    (key,) = await bytes_of(objects, upload)
    assert await objects.get(key) == content


async def test_completing_again_answers_the_same_audio(service: Client) -> None:
    content = os.urandom(100)
    upload = await create(service, content)
    await put(upload, content)

    first, second = await asyncio.gather(complete(service, upload), complete(service, upload))
    third = await complete(service, upload)

    assert first.audio_id == second.audio_id == third.audio_id
    assert (await get(service, upload)).audio_id == first.audio_id


async def test_two_replicas_completing_at_once_make_one_audio(
    service: Client, start_here: StartHere
) -> None:
    other = await start_here()
    content = os.urandom(3 * PART)
    upload = await create(service, content)
    await put(upload, content)

    first, second = await asyncio.gather(
        complete(service, upload), complete(other, upload), return_exceptions=True
    )

    ids = {audio.audio_id for audio in (first, second) if isinstance(audio, pb.Audio)}
    assert ids == {(await complete(service, upload)).audio_id}


async def test_a_crash_after_the_parts_were_joined_loses_nothing(
    service: Client, objects: ObjectStore
) -> None:
    content = os.urandom(PART + 1)
    upload = await create(service, content)
    await put(upload, content)
    key, multipart_id = place_of(upload)
    parts = await objects.list_parts(key, multipart_id)
    await objects.complete_multipart(key, multipart_id, parts)  # and here the service died

    found = await get(service, upload)
    audio = await complete(service, upload)

    assert all(part.landed for part in found.parts)
    assert audio.sha256 == hashlib.sha256(content).hexdigest()


async def test_parts_that_the_store_has_lost_are_asked_for_again(
    service: Client, objects: ObjectStore
) -> None:
    content = os.urandom(100)
    upload = await create(service, content)
    await put(upload, content)
    await objects.abort_multipart(*place_of(upload))

    failure = await service.failure_of(complete(service, upload))

    assert failure.reason == "PARTS_MISSING"
    await put(await get(service, upload), content)
    assert await complete(service, upload)


async def test_an_aborted_upload_leaves_no_bytes(service: Client, objects: ObjectStore) -> None:
    content = os.urandom(100)
    upload = await create(service, content)
    await put(upload, content)
    request = pb.AbortUploadRequest(upload_id=upload.upload_id)

    await service.uploads.AbortUpload(request)
    await service.uploads.AbortUpload(request)

    assert (await get(service, upload)).state == pb.UPLOAD_STATE_ABORTED
    assert await bytes_of(objects, upload) == []
    with pytest.raises(urllib.error.HTTPError):
        await put(upload, content)
    assert (await service.failure_of(complete(service, upload))).reason == "UPLOAD_NOT_OPEN"


async def test_a_completed_upload_cannot_be_aborted(service: Client) -> None:
    upload = await create(service, b"x")
    await put(upload, b"x")
    await complete(service, upload)

    failure = await service.failure_of(
        service.uploads.AbortUpload(pb.AbortUploadRequest(upload_id=upload.upload_id))
    )

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "UPLOAD_NOT_OPEN",
    )


async def test_an_upload_left_open_expires_and_leaves_no_bytes(
    start_here: StartHere, pool: Pool, objects: ObjectStore
) -> None:
    service = await start_here(upload_expiry_seconds=600, upload_sweep_seconds=0.1)
    content = os.urandom(100)
    upload = await create(service, content)
    await put(upload, content)
    assert upload.expire_time.ToDatetime() - upload.create_time.ToDatetime() == timedelta(
        minutes=10
    )
    async with pool.connection() as db:  # as if they were over
        await db.execute("UPDATE upload.uploads SET expire_time = now()")

    async def expired() -> bool:
        return (await get(service, upload)).state == pb.UPLOAD_STATE_EXPIRED

    await eventually(expired)

    async def refused() -> bool:
        try:
            await put(upload, content)
        except urllib.error.HTTPError:
            return True
        return False

    await eventually(refused)
    assert await bytes_of(objects, upload) == []


async def test_an_empty_file_is_rejected_on_completion(service: Client) -> None:
    upload = await create(service, b"")

    audio = await complete(service, upload)

    assert list(upload.parts) == []
    assert (audio.state, audio.rejection.reason) == (pb.AUDIO_STATE_REJECTED, "EMPTY")


async def test_the_same_request_answers_the_same_upload(service: Client) -> None:
    request_id = str(uuid4())

    uploads = await asyncio.gather(
        *(create(service, b"x", request_id=request_id) for _ in range(5))
    )

    assert len({upload.upload_id for upload in uploads}) == 1


async def test_a_request_id_with_another_body_is_refused(service: Client) -> None:
    request_id = str(uuid4())
    await create(service, b"x", request_id=request_id)

    failure = await service.failure_of(create(service, b"xy", request_id=request_id))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )


async def test_too_many_open_uploads_are_refused_with_a_delay(
    service: Client, start_here: StartHere
) -> None:
    await create(service, b"x")
    full = await start_here(upload_max_open=1)

    failure = await full.failure_of(create(full, b"x"))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_delay is not None
    assert failure.message.startswith("all tenants have 1 open upload")


async def test_a_tenant_with_too_many_open_uploads_is_refused_and_others_are_not(
    start_here: StartHere,
) -> None:
    service = await start_here(upload_tenant_max_open=1)
    request = pb.CreateUploadRequest(filename="a", size_bytes=1)
    a, b = ((("x-steno-tenant", name),) for name in "ab")
    await service.uploads.CreateUpload(request, metadata=a)

    failure = await service.failure_of(service.uploads.CreateUpload(request, metadata=a))
    await service.uploads.CreateUpload(request, metadata=b)

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_UPLOADS",
    )
    assert failure.message.startswith("your tenant has 1 open upload")


async def test_an_upload_of_which_nothing_lands_is_given_up_early(
    start_here: StartHere, objects: ObjectStore, pool: Pool
) -> None:
    service = await start_here(upload_sweep_seconds=0.1)
    content = os.urandom(PART + 1)
    landed, joined = await create(service, content), await create(service, content)
    await put(landed, content, 2)
    await put(joined, content)
    await objects.complete_multipart(
        *place_of(joined), await objects.list_parts(*place_of(joined))
    )  # and here the service died
    idle = await create(service, content)

    async with pool.connection() as db:  # as if their first URLs had stopped working
        await db.execute("UPDATE upload.uploads SET check_time = now()")
    await eventually(lambda: is_expired(service, idle))

    async def is_removed() -> bool:
        try:
            return not await objects.list_parts(*place_of(idle))
        except ObjectNotFound:
            return True

    await eventually(is_removed)
    await put(await get(service, landed), content, 1)
    for upload in (landed, joined):
        assert await complete(service, upload)


async def is_expired(service: Client, upload: pb.Upload) -> bool:
    return (await get(service, upload)).state == pb.UPLOAD_STATE_EXPIRED


async def test_a_file_of_50_gb_gets_a_url_for_each_of_its_parts(service: Client) -> None:
    request = pb.CreateUploadRequest(filename="long.wav", size_bytes=50 * 10**9)

    upload = (await service.uploads.CreateUpload(request)).upload

    assert sum(part.size_bytes for part in upload.parts) == request.size_bytes
    assert all(part.url for part in upload.parts)
    assert upload.ByteSize() < 4 * MIB


@pytest.mark.long
async def test_verification_leaves_the_memory_of_the_service_flat(
    start_service: StartService,
) -> None:
    service = await start_service()
    content = os.urandom(PART) * 12  # more than is read at a time
    warm_up = await create(service, content[:PART])
    await put(warm_up, content)
    await complete(service, warm_up)
    before = service.memory_bytes

    upload = await create(service, content)
    await put(upload, content)
    audio = await complete(service, upload)

    assert audio.size_bytes == 96 * MIB
    assert service.memory_bytes - before < 25 * MIB
