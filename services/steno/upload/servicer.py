"""UploadService, SliceService and ImportService: what callers ask, as calls of this room."""
# ruff: noqa: D102 - what each method does stands in upload.proto

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import grpc

from steno.platform.errors import StatusTable
from steno.platform.interceptors import Context
from steno.platform.objects import ObjectNotFound
from steno.platform.wellknown import timestamp_of
from steno.upload.domain import (
    AudioNotFound,
    AudioRejected,
    ChecksumMismatch,
    FileTooLong,
    ObjectMissing,
    ObjectTaken,
    PartsMissing,
    RequestIdReused,
    SizeMismatch,
    StreamExpired,
    UploadNotFound,
    UploadNotOpen,
)
from steno.upload.imports import Imports
from steno.upload.library import Library
from steno.upload.messages import (
    parse_chunks,
    parse_header,
    parse_import,
    parse_new,
    parse_state,
    render_audio,
    render_slice,
    render_upload,
)
from steno.upload.store import Store
from steno.upload.streams import Streams
from steno.upload.uploads import Uploads
from steno.v1 import upload_pb2 as pb
from steno.v1 import upload_pb2_grpc

STATUS_OF: StatusTable = {
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


class UploadServicer(upload_pb2_grpc.UploadServiceServicer):
    """Uploads and audio, for clients."""

    def __init__(self, uploads: Uploads, streams: Streams, library: Library, store: Store) -> None:
        self._uploads = uploads
        self._streams = streams
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
        audio = await self._streams.receive(parse_new(header), parse_chunks(requests))
        return pb.UploadAudioResponse(audio=render_audio(audio))

    async def GetAudio(self, request: pb.GetAudioRequest, context: Context) -> pb.GetAudioResponse:
        audio = await self._store.get_audio(UUID(request.audio_id))
        return pb.GetAudioResponse(audio=render_audio(audio))

    async def ListAudio(
        self, request: pb.ListAudioRequest, context: Context
    ) -> pb.ListAudioResponse:
        audio, token = await self._library.page(
            parse_state(request.state), request.page_size, request.page_token
        )
        return pb.ListAudioResponse(audio=map(render_audio, audio), next_page_token=token)

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
        return pb.GetDownloadUrlResponse(url=url, expire_time=timestamp_of(expire_time))


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
            slices=map(render_slice, slices),
        )


class ImportServicer(upload_pb2_grpc.ImportServiceServicer):
    """Recordings that other services have made."""

    def __init__(self, imports: Imports) -> None:
        self._imports = imports

    async def ImportAudio(
        self, request: pb.ImportAudioRequest, context: Context
    ) -> pb.ImportAudioResponse:
        audio = await self._imports.take_over(parse_import(request))
        return pb.ImportAudioResponse(audio=render_audio(audio))
