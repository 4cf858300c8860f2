"""Recordings that other services have left in the bucket become audio."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import uuid4

import grpc
import pytest

from steno.platform.database import Pool
from steno.platform.objects import ObjectStore
from steno.upload.domain import NewUpload
from steno.v1 import upload_pb2 as pb
from steno.v1 import upload_pb2_grpc

from .conftest import Client

CONTENT = b"RIFF"


@pytest.fixture
async def imports(service: Client) -> upload_pb2_grpc.ImportServiceAsyncStub:
    return upload_pb2_grpc.ImportServiceStub(service.channel)


def key() -> str:
    return f"recordings/{uuid4()}.wav"


async def left(objects: ObjectStore) -> str:
    """A recording, as a service leaves it."""
    object_key = key()
    await objects.put(object_key, CONTENT)
    return object_key


def request(
    object_key: str, request_id: str, gaps: Sequence[tuple[int, int]] = ()
) -> pb.ImportAudioRequest:
    return pb.ImportAudioRequest(
        object_key=object_key,
        filename="a.wav",
        content_type="audio/wav",
        request_id=request_id,
        gaps=[pb.SampleSpan(start_sample=start, end_sample=end) for start, end in gaps],
    )


async def test_the_same_import_answers_the_same_audio(
    imports: upload_pb2_grpc.ImportServiceAsyncStub, objects: ObjectStore
) -> None:
    wanted = request(await left(objects), str(uuid4()), gaps=[(0, 7), (20, 30)])

    first = (await imports.ImportAudio(wanted)).audio
    again = (await imports.ImportAudio(wanted)).audio

    assert first.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert again.audio_id == first.audio_id


async def test_a_request_id_with_another_object_or_other_gaps_is_refused(
    service: Client, imports: upload_pb2_grpc.ImportServiceAsyncStub, objects: ObjectStore
) -> None:
    object_key, request_id = await left(objects), str(uuid4())
    await imports.ImportAudio(request(object_key, request_id, gaps=[(0, 7)]))

    for other in (
        request(await left(objects), request_id, gaps=[(0, 7)]),
        request(key(), request_id, gaps=[(0, 7)]),
        request(object_key, request_id, gaps=[(0, 8)]),
        request(object_key, request_id),
    ):
        failure = await service.failure_of(imports.ImportAudio(other))

        assert (failure.code, failure.reason) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
        )


async def test_the_object_of_another_request_is_refused(
    service: Client, imports: upload_pb2_grpc.ImportServiceAsyncStub, objects: ObjectStore
) -> None:
    object_key = await left(objects)
    await imports.ImportAudio(request(object_key, str(uuid4())))

    failure = await service.failure_of(imports.ImportAudio(request(object_key, str(uuid4()))))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "OBJECT_TAKEN")


async def test_an_object_that_is_not_there_is_refused(
    service: Client, imports: upload_pb2_grpc.ImportServiceAsyncStub
) -> None:
    failure = await service.failure_of(imports.ImportAudio(request(key(), str(uuid4()))))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")


async def test_an_import_that_an_earlier_version_has_stored_is_answered_again(
    service: Client,
    imports: upload_pb2_grpc.ImportServiceAsyncStub,
    objects: ObjectStore,
    pool: Pool,
) -> None:
    wanted = request(await left(objects), str(uuid4()), gaps=[(0, 7)])
    first = (await imports.ImportAudio(wanted)).audio
    await forget_the_object(pool, wanted)

    again = (await imports.ImportAudio(wanted)).audio
    other = request(await left(objects), wanted.request_id, gaps=[(0, 7)])
    failure = await service.failure_of(imports.ImportAudio(other))

    assert again.audio_id == first.audio_id
    assert failure.reason == "REQUEST_ID_REUSED"


async def forget_the_object(pool: Pool, imported: pb.ImportAudioRequest) -> None:
    """Leaves the fingerprint that versions had to which object and gaps were all the same."""
    plain = NewUpload(imported.filename, imported.content_type, "", None)
    async with pool.connection() as db:
        await db.execute(
            "UPDATE upload.request_ids SET fingerprint = %s WHERE request_id = %s",
            [plain.fingerprint(), imported.request_id],
        )
