"""Stored audio."""

from __future__ import annotations

import asyncio
import urllib.parse
import urllib.request
from collections.abc import Awaitable
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message

from steno.platform.database import Pool
from steno.platform.objects import ObjectStore
from steno.v1 import upload_pb2 as pb
from waiting import eventually

from .conftest import Client, StartHere

NOBODY = str(uuid4())


async def pages(service: Client, size: int, **filters: pb.AudioState.ValueType) -> list[list[str]]:
    """Ids of all pages."""
    found, token = [], ""
    while True:
        request = pb.ListAudioRequest(page_size=size, page_token=token, **filters)
        page = await service.uploads.ListAudio(request)
        found.append([audio.audio_id for audio in page.audio])
        token = page.next_page_token
        if not token:
            return found


async def test_a_stored_audio_can_be_asked_for(service: Client) -> None:
    audio = await service.send(b"abc")

    answer = await service.uploads.GetAudio(pb.GetAudioRequest(audio_id=audio.audio_id))

    assert answer.audio == audio
    assert (audio.filename, audio.size_bytes) == ("a.wav", 3)


async def test_audio_is_listed_newest_first_and_in_pages(service: Client) -> None:
    assert await pages(service, 3) == [[]]
    ids = [(await service.send(b"abc")).audio_id for _ in range(6)][::-1]

    assert await pages(service, 3) == [ids[:3], ids[3:]]
    assert await pages(service, 4) == [ids[:4], ids[4:]]
    assert await pages(service, 0) == [ids]


async def test_old_audio_goes_with_its_bytes(
    start_here: StartHere, pool: Pool, objects: ObjectStore
) -> None:
    service = await start_here(audio_retention_hours=1, upload_sweep_seconds=0.1)
    audio = await service.send(b"abc")

    async def gone() -> bool:
        return await pages(service, 10) == [[]]

    assert [audio.audio_id] in await pages(service, 10)
    async with pool.connection() as db:  # as if an hour had passed
        await db.execute("UPDATE upload.audio SET create_time = now() - interval '1 hour'")
    await eventually(gone)

    async def no_bytes() -> bool:
        return await objects.list_prefix("uploads/") == []

    await eventually(no_bytes)


async def test_audio_is_listed_by_state(service: Client) -> None:
    waiting = await service.send(b"abc")
    rejected = await service.send()

    assert await pages(service, 1, state=pb.AUDIO_STATE_PREPARING) == [[waiting.audio_id]]
    assert await pages(service, 1, state=pb.AUDIO_STATE_REJECTED) == [[rejected.audio_id]]
    assert await pages(service, 1, state=pb.AUDIO_STATE_READY) == [[]]


async def test_a_made_up_page_token_is_refused(service: Client) -> None:
    for token in ("x", "W10=", "bnVsbA==", "WyJ4IiwgIngiLCAieCJd", "\N{SNOWMAN}"):
        request = pb.ListAudioRequest(page_token=token)

        failure = await service.failure_of(service.uploads.ListAudio(request))

        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, token
        assert [violation.field for violation in failure.violations] == ["page_token"]


async def test_a_page_token_of_another_filter_is_refused(service: Client) -> None:
    for _ in range(2):
        await service.send(b"abc")
    token = (await service.uploads.ListAudio(pb.ListAudioRequest(page_size=1))).next_page_token

    failure = await service.failure_of(
        service.uploads.ListAudio(pb.ListAudioRequest(page_token=token, state=pb.AUDIO_STATE_READY))
    )

    assert [violation.field for violation in failure.violations] == ["page_token"]


async def test_a_download_url_gives_the_original_bytes(service: Client) -> None:
    audio = await service.send(b"original")

    answer = await service.uploads.GetDownloadUrl(pb.GetDownloadUrlRequest(audio_id=audio.audio_id))

    def read() -> bytes:
        with urllib.request.urlopen(answer.url) as response:
            content: bytes = response.read()
        return content

    assert await asyncio.to_thread(read) == b"original"


@pytest.mark.parametrize(
    ("announced", "told"),
    [
        ("audio/mpeg", "audio/mpeg"),
        ("video/mp4", "video/mp4"),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("audio/mpeg; charset=x", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
async def test_what_is_downloaded_is_a_file_to_save_whatever_was_announced(
    service: Client, announced: str, told: str
) -> None:
    content = b"<script>alert(document.domain)</script>"
    name = 'a "name"; é\\.html'
    audio = await service.send(content, filename=name, content_type=announced)
    request = pb.GetDownloadUrlRequest(audio_id=audio.audio_id)

    url = (await service.uploads.GetDownloadUrl(request)).url

    with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
        assert answer.read() == content
        assert answer.headers["Content-Type"] == told
        disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="a _name__ __.html"; ')
    assert disposition.endswith("filename*=UTF-8''" + urllib.parse.quote(name, safe=""))


async def test_a_rejected_audio_has_no_bytes_to_download(service: Client) -> None:
    audio = await service.send()

    failure = await service.failure_of(
        service.uploads.GetDownloadUrl(pb.GetDownloadUrlRequest(audio_id=audio.audio_id))
    )

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "AUDIO_REJECTED",
    )


async def test_presigned_urls_name_the_address_that_clients_use(start_here: StartHere) -> None:
    service = await start_here(s3_public_endpoint="https://audio.example.com")
    request = pb.CreateUploadRequest(filename="a", size_bytes=1)

    upload = (await service.uploads.CreateUpload(request)).upload

    assert upload.parts[0].url.startswith("https://audio.example.com/")


async def test_a_deleted_audio_leaves_neither_record_nor_bytes(
    service: Client, objects: ObjectStore
) -> None:
    audio = await service.send(b"abc")
    await objects.put(f"slices/{audio.audio_id}/1/0.wav", b"x")
    request = pb.DeleteAudioRequest(audio_id=audio.audio_id)

    await service.uploads.DeleteAudio(request)

    assert await objects.list_prefix("") == []
    assert (
        await service.failure_of(service.uploads.DeleteAudio(request))
    ).reason == "AUDIO_NOT_FOUND"
    assert await pages(service, 1) == [[]]


MISSING = [
    (pb.GetUploadRequest(upload_id=NOBODY), "UPLOAD_NOT_FOUND"),
    (pb.CompleteUploadRequest(upload_id=NOBODY), "UPLOAD_NOT_FOUND"),
    (pb.AbortUploadRequest(upload_id=NOBODY), "UPLOAD_NOT_FOUND"),
    (pb.GetAudioRequest(audio_id=NOBODY), "AUDIO_NOT_FOUND"),
    (pb.DeleteAudioRequest(audio_id=NOBODY), "AUDIO_NOT_FOUND"),
    (pb.RetryAudioRequest(audio_id=NOBODY), "AUDIO_NOT_FOUND"),
    (pb.GetDownloadUrlRequest(audio_id=NOBODY), "AUDIO_NOT_FOUND"),
    (pb.ListSlicesRequest(audio_id=NOBODY), "AUDIO_NOT_FOUND"),
]


async def test_what_does_not_exist_is_not_found(service: Client) -> None:
    for request, reason in MISSING:
        failure = await service.failure_of(call(service, request))

        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, reason), request


WRONG = [
    (pb.CreateUploadRequest(), "filename"),
    (pb.CreateUploadRequest(filename=256 * "a"), "filename"),
    (pb.CreateUploadRequest(filename="a\0"), "filename"),
    (pb.CreateUploadRequest(filename="a", size_bytes=-1), "size_bytes"),
    (pb.CreateUploadRequest(filename="a", size_bytes=2**60), "size_bytes"),
    (pb.CreateUploadRequest(filename="a", content_type=256 * "a"), "content_type"),
    (pb.CreateUploadRequest(filename="a", sha256="A" * 64), "sha256"),
    (pb.CreateUploadRequest(filename="a", request_id="x"), "request_id"),
    (pb.GetUploadRequest(), "upload_id"),
    (pb.GetUploadRequest(upload_id="x"), "upload_id"),
    (pb.CompleteUploadRequest(upload_id="x"), "upload_id"),
    (pb.AbortUploadRequest(upload_id="x"), "upload_id"),
    (pb.GetAudioRequest(audio_id="x"), "audio_id"),
    (pb.ListAudioRequest(page_size=-1), "page_size"),
    (pb.ListAudioRequest(page_size=1001), "page_size"),
    (pb.ListAudioRequest(page_token=1025 * "a"), "page_token"),
    (pb.ListAudioRequest(state=pb.AudioState.ValueType(9)), "state"),
    (pb.DeleteAudioRequest(audio_id="x"), "audio_id"),
    (pb.RetryAudioRequest(audio_id="x"), "audio_id"),
    (pb.GetDownloadUrlRequest(audio_id="x"), "audio_id"),
    (pb.ListSlicesRequest(audio_id="x"), "audio_id"),
    (pb.ListSlicesRequest(audio_id=NOBODY, start_index=-1), "start_index"),
]


async def test_each_wrong_field_is_named(service: Client) -> None:
    for request, field in WRONG:
        failure = await service.failure_of(call(service, request))

        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, request
        assert [violation.field for violation in failure.violations] == [field]


def call(service: Client, request: Message) -> Awaitable[object]:
    """The call that takes this request."""
    method = type(request).__name__.removesuffix("Request")
    stub = service.slices if method == "ListSlices" else service.uploads
    called: Awaitable[object] = getattr(stub, method)(request)
    return called
