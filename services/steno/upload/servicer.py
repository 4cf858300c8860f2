"""UploadService, SliceService and ImportService: from protobuf to the domain and back."""
# ruff: noqa: D102 - what each method does stands in upload.proto

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from steno.platform.errors import InvalidArgument
from steno.platform.interceptors import Context
from steno.platform.objects import ObjectNotFound
from steno.upload.domain import (
    Audio,
    AudioNotFound,
    AudioRejected,
    AudioState,
    ChecksumMismatch,
    FileTooLong,
    Gap,
    NewImport,
    NewUpload,
    ObjectMissing,
    ObjectTaken,
    PartsMissing,
    RequestIdReused,
    SizeMismatch,
    Slice,
    StreamExpired,
    UploadNotFound,
    UploadNotOpen,
)
from steno.upload.events import render_state
from steno.upload.library import Library
from steno.upload.store import Store
from steno.upload.uploads import Uploads, UploadStatus
from steno.v1 import upload_pb2 as pb
from steno.v1 import upload_pb2_grpc

STATUS_OF: Mapping[type[Exception], grpc.StatusCode] = {
    UploadNotFound: grpc.StatusCode.NOT_FOUND,
    AudioNotFound: grpc.StatusCode.NOT_FOUND,
    UploadNotOpen: grpc.StatusCode.FAILED_PRECONDITION,
    PartsMissing: grpc.StatusCode.FAILED_PRECONDITION,
    SizeMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    ChecksumMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    StreamExpired: grpc.StatusCode.FAILED_PRECONDITION,
    AudioRejected: grpc.StatusCode.FAILED_PRECONDITION,
    ObjectMissing: grpc.StatusCode.NOT_FOUND,
    RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    ObjectTaken: grpc.StatusCode.ALREADY_EXISTS,
    FileTooLong: grpc.StatusCode.RESOURCE_EXHAUSTED,
    # Another call is just removing or joining it; a retry sees how that went.
    ObjectNotFound: grpc.StatusCode.UNAVAILABLE,
}

DEFAULT_PAGE_SIZE = 50


class UploadServicer(upload_pb2_grpc.UploadServiceServicer):
    """Uploads and audio, for clients."""

    def __init__(self, uploads: Uploads, library: Library, store: Store) -> None:
        self._uploads = uploads
        self._library = library
        self._store = store

    async def CreateUpload(
        self, request: pb.CreateUploadRequest, context: Context
    ) -> pb.CreateUploadResponse:
        status = await self._uploads.create(parse_new(request, request.size_bytes))
        return pb.CreateUploadResponse(upload=render_upload(status))

    async def GetUpload(
        self, request: pb.GetUploadRequest, context: Context
    ) -> pb.GetUploadResponse:
        status = await self._uploads.get(UUID(request.upload_id))
        return pb.GetUploadResponse(upload=render_upload(status))

    async def CompleteUpload(
        self, request: pb.CompleteUploadRequest, context: Context
    ) -> pb.CompleteUploadResponse:
        audio = await self._uploads.complete(UUID(request.upload_id))
        return pb.CompleteUploadResponse(audio=render_audio(audio))

    async def AbortUpload(
        self, request: pb.AbortUploadRequest, context: Context
    ) -> pb.AbortUploadResponse:
        await self._uploads.abort(UUID(request.upload_id))
        return pb.AbortUploadResponse()

    async def UploadAudio(
        self, requests: AsyncIterator[pb.UploadAudioRequest], context: Context
    ) -> pb.UploadAudioResponse:
        header = await parse_header(requests)
        audio = await self._uploads.receive(parse_new(header), parse_chunks(requests))
        return pb.UploadAudioResponse(audio=render_audio(audio))

    async def GetAudio(self, request: pb.GetAudioRequest, context: Context) -> pb.GetAudioResponse:
        audio = await self._store.get_audio(UUID(request.audio_id))
        return pb.GetAudioResponse(audio=render_audio(audio))

    async def ListAudio(
        self, request: pb.ListAudioRequest, context: Context
    ) -> pb.ListAudioResponse:
        page = await self._library.list(
            request.page_size or DEFAULT_PAGE_SIZE, request.page_token, parse_state(request.state)
        )
        return pb.ListAudioResponse(
            audio=map(render_audio, page.audio), next_page_token=page.next_token
        )

    async def DeleteAudio(
        self, request: pb.DeleteAudioRequest, context: Context
    ) -> pb.DeleteAudioResponse:
        await self._library.delete(UUID(request.audio_id))
        return pb.DeleteAudioResponse()

    async def RetryAudio(
        self, request: pb.RetryAudioRequest, context: Context
    ) -> pb.RetryAudioResponse:
        audio = await self._library.retry(UUID(request.audio_id))
        return pb.RetryAudioResponse(audio=render_audio(audio))

    async def GetDownloadUrl(
        self, request: pb.GetDownloadUrlRequest, context: Context
    ) -> pb.GetDownloadUrlResponse:
        url, expire_time = await self._library.download_url(UUID(request.audio_id))
        return pb.GetDownloadUrlResponse(url=url, expire_time=render_time(expire_time))


class SliceServicer(upload_pb2_grpc.SliceServiceServicer):
    """Slices, for the job service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListSlices(
        self, request: pb.ListSlicesRequest, context: Context
    ) -> pb.ListSlicesResponse:
        audio, slices = await self._store.list_slices(UUID(request.audio_id), request.start_index)
        return pb.ListSlicesResponse(
            audio=render_audio(audio),
            slices=[render_slice(cut, gaps) for cut, gaps in slices],
        )


class ImportServicer(upload_pb2_grpc.ImportServiceServicer):
    """Recordings that other services have made."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def ImportAudio(
        self, request: pb.ImportAudioRequest, context: Context
    ) -> pb.ImportAudioResponse:
        new = NewImport(
            filename=request.filename,
            content_type=request.content_type,
            sha256="",
            request_id=UUID(request.request_id),
            object_key=request.object_key,
            gaps=parse_gaps(request),
        )
        audio = await self._uploads.take_over(new)
        return pb.ImportAudioResponse(audio=render_audio(audio))


def parse_gaps(request: pb.ImportAudioRequest) -> tuple[Gap, ...]:
    """The gaps of a recording. Raises InvalidArgument for one that ends before it begins."""
    for number, gap in enumerate(request.gaps):
        if gap.end_sample <= gap.start_sample:
            raise InvalidArgument.of(f"gaps[{number}].end_sample", "must be over start_sample")
    return tuple(Gap(gap.start_sample, gap.end_sample) for gap in request.gaps)


def parse_new(
    request: pb.CreateUploadRequest | pb.UploadAudioHeader, size_bytes: int | None = None
) -> NewUpload:
    """What both ways of sending a file announce."""
    return NewUpload(
        filename=request.filename,
        content_type=request.content_type,
        sha256=request.sha256,
        request_id=UUID(request.request_id) if request.request_id else None,
        size_bytes=size_bytes,
    )


async def parse_header(requests: AsyncIterator[pb.UploadAudioRequest]) -> pb.UploadAudioHeader:
    """The first message of a stream. Raises InvalidArgument if it is no header."""
    request = await anext(requests, None)
    if request is None or not request.HasField("header"):
        raise InvalidArgument.of("header", "must be the first message of the stream")
    return request.header


async def parse_chunks(requests: AsyncIterator[pb.UploadAudioRequest]) -> AsyncIterator[bytes]:
    """The other messages of a stream. Raises InvalidArgument if one is no chunk."""
    async for request in requests:
        if request.WhichOneof("payload") != "chunk":
            raise InvalidArgument.of("chunk", "must be set in all messages after the first")
        yield request.chunk


def parse_state(state: pb.AudioState.ValueType) -> AudioState | None:
    """A filter: None lets all pass."""
    return AudioState(pb.AudioState.Name(state).removeprefix("AUDIO_STATE_")) if state else None


def render_upload(status: UploadStatus) -> pb.Upload:
    """An upload as the contract has it."""
    upload = status.upload
    return pb.Upload(
        upload_id=str(upload.upload_id),
        filename=upload.filename,
        size_bytes=upload.size_bytes,
        content_type=upload.content_type,
        sha256=upload.sha256,
        state=pb.UploadState.Value(f"UPLOAD_STATE_{upload.state}"),
        create_time=render_time(upload.create_time),
        expire_time=render_time(upload.expire_time),
        part_size_bytes=upload.part_size_bytes,
        parts=[
            pb.UploadPart(
                part_number=status.part.number,
                offset_bytes=status.part.offset_bytes,
                size_bytes=status.part.size_bytes,
                url=status.url,
                landed=status.landed,
            )
            for status in status.parts
        ],
        audio_id=str(upload.audio_id or ""),
        url_expire_time=render_time(status.url_expire_time),
    )


def render_audio(audio: Audio) -> pb.Audio:
    """An audio as the contract has it."""
    rendered = pb.Audio(
        audio_id=str(audio.audio_id),
        filename=audio.filename,
        content_type=audio.content_type,
        size_bytes=audio.size_bytes,
        sha256=audio.sha256,
        state=render_state(audio.state),
        container=audio.container,
        codec=audio.codec,
        sample_rate_hertz=audio.sample_rate_hertz,
        channel_count=audio.channel_count,
        truncated=audio.truncated,
        slice_count=audio.slice_count,
        create_time=render_time(audio.create_time),
        update_time=render_time(audio.update_time),
    )
    rendered.duration.FromTimedelta(audio.duration)
    if audio.rejection is not None:
        rendered.rejection.reason = audio.rejection.reason
        rendered.rejection.message = audio.rejection.message
    if audio.purge_time is not None:
        rendered.purge_time.CopyFrom(render_time(audio.purge_time))
    if audio.failure is not None:
        rendered.preparation_failure.CopyFrom(
            pb.PreparationFailure(
                reason=audio.failure.reason,
                message=audio.failure.message,
                failure_count=audio.failure_count,
                next_attempt_time=render_time(audio.next_attempt_time),
            )
        )
    return rendered


def render_slice(cut: Slice, gaps: Iterable[Gap]) -> pb.Slice:
    """A slice, with the gaps in it, as the contract has it."""
    return pb.Slice(
        index=cut.index,
        start_sample=cut.start_sample,
        sample_count=cut.sample_count,
        object_key=cut.object_key,
        speech_sample_count=cut.speech_sample_count,
        left_context_sample_count=cut.left_context_sample_count,
        right_context_sample_count=cut.right_context_sample_count,
        context_object_key=cut.context_object_key,
        gaps=[
            pb.SampleSpan(start_sample=gap.start_sample, end_sample=gap.end_sample) for gap in gaps
        ],
    )


def render_time(time: datetime) -> Timestamp:
    """A time as the contract has it."""
    rendered = Timestamp()
    rendered.FromDatetime(time)
    return rendered
