"""The domain's values as protobuf messages, and back."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from steno import transcript as t
from steno.job import domain as d
from steno.platform.tenancy import tenant
from steno.platform.wellknown import duration_of, timestamp_of
from steno.speech import (
    parse_coverage,
    parse_options,
    parse_segment,
    render_options,
    render_segment,
    render_sums,
)
from steno.v1 import job_pb2, transcript_pb2, upload_pb2


def parse_audio(audio: upload_pb2.Audio, slices: Iterable[upload_pb2.Slice]) -> d.Audio:
    """Reads what SliceService answers."""
    return d.Audio(
        audio_id=UUID(audio.audio_id),
        filename=audio.filename,
        state=_audio_state(audio.state),
        truncated=audio.truncated,
        slices=tuple(
            d.Slice(
                piece.index,
                piece.start_sample,
                piece.sample_count,
                piece.speech_sample_count,
                piece.object_key,
                piece.left_context_sample_count,
                piece.right_context_sample_count,
                piece.context_object_key,
                tuple(t.Span(gap.start_sample, gap.end_sample) for gap in piece.gaps),
            )
            for piece in slices
        ),
        rejection_reason=audio.rejection.reason,
        rejection_message=audio.rejection.message,
        tenant=audio.tenant,
    )


def _audio_state(state: upload_pb2.AudioState.ValueType) -> d.AudioState:
    return d.AudioState(upload_pb2.AudioState.Name(state).removeprefix("AUDIO_STATE_"))


def parse_new_job(request: job_pb2.CreateJobRequest) -> d.NewJob:
    """Reads what a caller asks for."""
    return d.NewJob(
        audio_id=UUID(request.audio_id),
        config=parse_options(request.config),
        display_name=request.display_name,
        labels=dict(request.labels),
        priority=d.Priority(request.priority or d.Priority.NORMAL),
        not_before=_time_of(request, "not_before"),
        deadline=_time_of(request, "deadline"),
        allow_gaps=request.allow_gaps,
        tenant=tenant(),
    )


def parse_request_id(
    request: job_pb2.CreateJobRequest | job_pb2.RetryJobRequest,
) -> d.RequestId | None:
    """Reads what makes a call repeatable, if the caller wants it so."""
    if not request.request_id:
        return None
    body = copy.deepcopy(request)
    body.ClearField("request_id")
    digest = hashlib.sha256(body.SerializeToString(deterministic=True)).digest()
    method = request.DESCRIPTOR.name.removesuffix("Request")
    return d.RequestId(tenant(), method, UUID(request.request_id), digest)


def parse_filter(request: job_pb2.ListJobsRequest) -> d.JobFilter:
    """Reads which jobs to list."""
    return d.JobFilter(
        tenant=tenant(),
        states=frozenset(
            _state(state) for state in request.states if state != job_pb2.JOB_STATE_UNSPECIFIED
        ),
        labels=dict(request.labels),
        create_time_from=_time_of(request, "create_time_from"),
        create_time_to=_time_of(request, "create_time_to"),
    )


def _state(state: job_pb2.JobState.ValueType) -> d.JobState:
    return d.JobState(job_pb2.JobState.Name(state).removeprefix("JOB_STATE_"))


def _time_of(message: Message, name: str) -> datetime | None:
    if not message.HasField(name):
        return None
    return getattr(message, name).ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


def parse_failure(failure: job_pb2.TaskFailure.ValueType) -> d.Failure:
    """Reads how a worker gives a task back."""
    return d.Failure(job_pb2.TaskFailure.Name(failure).removeprefix("TASK_FAILURE_"))


def render_slice(piece: d.Slice) -> upload_pb2.Slice:
    """Renders a slice."""
    return upload_pb2.Slice(
        index=piece.index,
        start_sample=piece.start_sample,
        sample_count=piece.sample_count,
        object_key=piece.object_key,
        speech_sample_count=piece.speech_sample_count,
        left_context_sample_count=piece.left_context_sample_count,
        right_context_sample_count=piece.right_context_sample_count,
        context_object_key=piece.context_object_key,
    )


def render_progress(standing: d.Standing) -> job_pb2.JobProgress:
    """Renders how far a job is; the time left to the second."""
    job = standing.job
    remaining = standing.remaining
    return job_pb2.JobProgress(
        fraction=job.progress,
        audio_duration=duration_of(job.sample_count / t.SAMPLE_RATE),
        transcribed_duration=duration_of(job.transcribed_sample_count / t.SAMPLE_RATE),
        queue_position=standing.queue_position,
        remaining_duration=(
            Duration(seconds=round(remaining.total_seconds())) if remaining is not None else None
        ),
        retried=_retried(standing.retried),
    )


def _retried(retried: d.Retried | None) -> job_pb2.RetriedSlices | None:
    if retried is None:
        return None
    return job_pb2.RetriedSlices(
        slice_count=retried.slice_count,
        slice_index=retried.slice_index,
        failure_count=retried.failure_count,
        last_error=retried.last_error,
        next_attempt_time=timestamp_of(retried.next_attempt_time),
    )


def render_job(standing: d.Standing) -> job_pb2.Job:
    """Renders a job with its standing in the queue."""
    job = standing.job
    return job_pb2.Job(
        job_id=str(job.job_id),
        audio_id=str(job.audio_id),
        display_name=job.display_name,
        labels=job.labels,
        state=job_pb2.JobState.Value(f"JOB_STATE_{job.state}"),
        config=render_options(job.config),
        progress=render_progress(standing),
        error=_error(job.error),
        language_code=job.language_code,
        revision=job.revision,
        create_time=timestamp_of(job.create_time),
        start_time=timestamp_of(job.start_time),
        end_time=timestamp_of(job.end_time),
        update_time=timestamp_of(job.update_time),
        retry_of_job_id=str(job.retry_of_job_id or ""),
        audio_truncated=job.audio_truncated,
        priority=job_pb2.JobPriority.ValueType(job.priority),
        not_before=timestamp_of(job.not_before),
        coverage=render_sums(
            job.speech_sample_count, job.silence_sample_count, job.gap_sample_count
        ),
        deadline=timestamp_of(job.deadline),
        allow_gaps=job.allow_gaps,
        failed_slice_count=job.failed_count,
        tenant=job.tenant,
    )


def _error(error: d.JobError | None) -> job_pb2.JobError | None:
    if error is None:
        return None
    return job_pb2.JobError(reason=error.reason, message=error.message)


def render_event(job_id: UUID, revision: int, time: datetime, change: d.Change) -> job_pb2.JobEvent:
    """Renders one row of a job's event log."""
    event = job_pb2.JobEvent(job_id=str(job_id), revision=revision, time=timestamp_of(time))
    match change:
        case d.StateChanged(job):
            event.state_changed.CopyFrom(render_job(d.Standing(job)))
        case d.Progressed(job):
            event.progressed.CopyFrom(render_progress(d.Standing(job)))
        case d.SegmentsAdded(segments):
            event.segments_added.segments.extend(map(render_segment, segments))
    return event


def render_event_response(event: bytes) -> bytes:
    """A WatchJobResponse with an event, both encoded: watchers share the bytes of the event."""
    size, length = len(event), b""
    while size > 0x7F:  # https://protobuf.dev/programming-guides/encoding/#varints
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return _EVENT_TAG + length + bytes([size]) + event


_EVENT_TAG = bytes([job_pb2.WatchJobResponse.EVENT_FIELD_NUMBER << 3 | 2])
"""Says that a message with a length comes."""


def ends(event: job_pb2.JobEvent) -> bool:
    """The event is a job's last."""
    return event.HasField("state_changed") and _state(event.state_changed.state).ended


def parse_result(piece: d.Slice, result: bytes | None) -> t.SliceTranscript:
    """Reads what a worker found in a slice; one that was left out is a gap."""
    if result is None:
        gap = t.Coverage(0, 0, (t.Span(0, piece.sample_count),))
        return t.SliceTranscript(piece.start_sample, piece.sample_count, (), gap)
    found = transcript_pb2.SliceTranscript.FromString(result)
    return t.SliceTranscript(
        start_sample=piece.start_sample,
        sample_count=piece.sample_count,
        segments=tuple(map(parse_segment, found.segments)),
        coverage=_coverage(found.coverage, piece) if found.HasField("coverage") else None,
        dropped=tuple(map(parse_segment, found.dropped_segments)),
        left_context=piece.left_context_sample_count,
        right_context=piece.right_context_sample_count,
    )


def _coverage(coverage: transcript_pb2.Coverage, piece: d.Slice) -> t.Coverage:
    """What a worker tells, and what never came: that was silence to it."""
    return parse_coverage(coverage).without(
        t.Span(gap.start - piece.start_sample, gap.end - piece.start_sample) for gap in piece.gaps
    )
