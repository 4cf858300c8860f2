"""The domain's values as protobuf messages, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

from steno.platform.errors import InvalidArgument
from steno.platform.wellknown import timestamp_of
from steno.transcript import Span
from steno.upload.domain import (
    Audio,
    AudioState,
    NewImport,
    NewUpload,
    Slice,
    UploadStatus,
)
from steno.v1 import upload_pb2 as pb
from steno.v1.events_pb2 import AudioEvent


def parse_import(request: pb.ImportAudioRequest) -> NewImport:
    """Reads an import. Raises InvalidArgument for a gap that ends before it begins."""
    for number, gap in enumerate(request.gaps):
        if gap.end_sample <= gap.start_sample:
            raise InvalidArgument.of(
                f"gaps[{number}].end_sample", "must be greater than start_sample"
            )
    return NewImport(
        filename=request.filename,
        content_type=request.content_type,
        sha256="",
        request_id=UUID(request.request_id),
        object_key=request.object_key,
        gaps=tuple(Span(gap.start_sample, gap.end_sample) for gap in request.gaps),
    )


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
        create_time=timestamp_of(upload.create_time),
        expire_time=timestamp_of(upload.expire_time),
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
        url_expire_time=timestamp_of(status.url_expire_time),
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
        create_time=timestamp_of(audio.create_time),
        update_time=timestamp_of(audio.update_time),
        purge_time=timestamp_of(audio.purge_time),
        tenant=audio.tenant,
    )
    rendered.duration.FromTimedelta(audio.duration)
    if audio.rejection is not None:
        rendered.rejection.reason = audio.rejection.reason
        rendered.rejection.message = audio.rejection.message
    if audio.failure is not None:
        rendered.preparation_failure.CopyFrom(
            pb.PreparationFailure(
                reason=audio.failure.reason,
                message=audio.failure.message,
                failure_count=audio.failure_count,
                next_attempt_time=timestamp_of(audio.next_attempt_time),
            )
        )
    return rendered


def render_slice(cut: Slice) -> pb.Slice:
    """A slice as the contract has it."""
    return pb.Slice(
        index=cut.index,
        start_sample=cut.start_sample,
        sample_count=cut.sample_count,
        object_key=cut.object_key,
        speech_sample_count=cut.speech_sample_count,
        left_context_sample_count=cut.left_context_sample_count,
        right_context_sample_count=cut.right_context_sample_count,
        context_object_key=cut.context_object_key,
        gaps=[pb.SampleSpan(start_sample=gap.start, end_sample=gap.end) for gap in cut.gaps],
    )


def render_event(
    audio_id: UUID, state: AudioState, slice_count: int, *, deleted: bool
) -> AudioEvent:
    """What an audio is now, as watchers learn of it."""
    return AudioEvent(
        audio_id=str(audio_id),
        state=render_state(state),
        slice_count=slice_count,
        deleted=deleted,
        time=timestamp_of(datetime.now(UTC)),
    )


def render_state(state: AudioState) -> pb.AudioState.ValueType:
    """The state as the contract has it."""
    return pb.AudioState.Value(f"AUDIO_STATE_{state}")
