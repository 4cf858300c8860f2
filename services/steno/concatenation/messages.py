"""The domain's values as protobuf messages, and back."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from steno.concatenation import domain as d
from steno.platform.errors import InvalidArgument, Violation
from steno.platform.tenancy import tenant
from steno.platform.wellknown import duration_of, timestamp_of
from steno.speech import parse_language, render_span
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import transcript_pb2

Event = d.StateChanged | d.WriterChanged | d.Gap | pb.LiveResult
"""What a row of the event log tells."""


def parse_new_session(request: pb.CreateSessionRequest) -> d.NewSession:
    """Reads what a caller asks for. Raises InvalidArgument."""
    body = pb.CreateSessionRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return d.NewSession(
        config=_parse_config(request.config),
        display_name=request.display_name,
        labels=dict(request.labels),
        tenant=tenant(),
        request_id=UUID(request.request_id) if request.request_id else None,
        fingerprint=hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest(),
    )


def _parse_config(config: pb.SessionConfig) -> d.SessionConfig:
    encoding = d.Encoding(pb.AudioEncoding.Name(config.encoding).removeprefix("AUDIO_ENCODING_"))
    wrong = [*_wrong_format(config, encoding), *_wrong_times(config)]
    if config.recording_format == pb.RECORDING_FORMAT_RF64:
        wrong.append(
            Violation("config.recording_format", "can't be RF64; a WAV becomes one beyond 4 GiB")
        )
    if wrong:
        raise InvalidArgument(wrong)
    files = config.chunk_form == pb.CHUNK_FORM_FILES
    return d.SessionConfig(
        encoding=encoding,
        sample_rate_hertz=config.sample_rate_hertz,
        channel_count=config.channel_count or 1,
        chunk_form=d.ChunkForm.FILES if files else d.ChunkForm.STREAM,
        language_code=parse_language(config.language_code),
        live_results=_unless(config, "live_results"),
        interim_results=_unless(config, "interim_results"),
        **{name: _time(config, name) for name in d.TIMES},
        final_job=_unless(config, "final_job"),
        final_job_config=_final_job_config(config).SerializeToString(deterministic=True),
        recording_format=(
            d.RecordingFormat.W64
            if config.recording_format == pb.RECORDING_FORMAT_W64
            else d.RecordingFormat.WAV
        ),
    )


def _wrong_format(config: pb.SessionConfig, encoding: d.Encoding) -> list[Violation]:
    at = "config."
    if encoding is not d.Encoding.CONTAINER:
        wrong = []
        if config.sample_rate_hertz < d.LEAST_HERTZ:
            why = f"must be {d.LEAST_HERTZ} or more for {encoding}"
            wrong.append(Violation(at + "sample_rate_hertz", why))
        if config.chunk_form == pb.CHUNK_FORM_FILES:
            wrong.append(Violation(at + "chunk_form", "can be FILES with CONTAINER only"))
        return wrong
    return [
        Violation(at + name, "must not be set with CONTAINER, which tells by itself")
        for name in ("sample_rate_hertz", "channel_count")
        if getattr(config, name)
    ]


def _wrong_times(config: pb.SessionConfig) -> list[Violation]:
    return [
        Violation(
            f"config.{name}",
            f"must be between {_seconds(limits.least)} and {_seconds(limits.greatest)}",
        )
        for name, limits in d.TIMES.items()
        if not limits.least <= _time(config, name) <= limits.greatest
    ]


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():g} s"


def _unless(config: pb.SessionConfig, name: str) -> bool:
    return not config.HasField(name) or bool(getattr(config, name))  # type: ignore[arg-type]


def _time(config: pb.SessionConfig, name: str) -> timedelta:
    if not config.HasField(name):  # type: ignore[arg-type]
        return d.TIMES[name].default
    length: Duration = getattr(config, name)
    # A duration may be longer than Python's longest: that is out of range in any case.
    return min(timedelta(days=365), timedelta(seconds=min(length.seconds, 10**7))) + timedelta(
        microseconds=length.nanos // 1000
    )


def _final_job_config(config: pb.SessionConfig) -> transcript_pb2.RecognitionConfig:
    final = transcript_pb2.RecognitionConfig()
    final.CopyFrom(config.final_job_config)
    if not final.language_code and not final.multilingual:
        final.language_code = config.language_code
    return final


def parse_chunk(chunk: pb.Chunk) -> d.Chunk:
    """Reads a chunk. Raises InvalidArgument if its digest is another."""
    digest = hashlib.sha256(chunk.content)
    if chunk.sha256 and chunk.sha256 != digest.hexdigest():
        raise InvalidArgument.of(
            "chunk.sha256", f"is not that of the bytes of chunk {chunk.sequence}; send it again"
        )
    return d.Chunk(chunk.sequence, chunk.content, digest.digest())


def parse_states(request: pb.ListSessionsRequest) -> list[d.SessionState]:
    """Reads which sessions to list."""
    names = (pb.SessionState.Name(state) for state in request.states if state)
    return sorted({d.SessionState(name.removeprefix("SESSION_STATE_")) for name in names})


def render_config(config: d.SessionConfig) -> pb.SessionConfig:
    """Renders what a session is made for."""
    container = config.is_container
    rendered = pb.SessionConfig(
        encoding=pb.AudioEncoding.Value(f"AUDIO_ENCODING_{config.encoding}"),
        sample_rate_hertz=0 if container else config.sample_rate_hertz,
        channel_count=0 if container else config.channel_count,
        chunk_form=(
            pb.ChunkForm.Value(f"CHUNK_FORM_{config.chunk_form}")
            if container
            else pb.CHUNK_FORM_UNSPECIFIED
        ),
        language_code=config.language_code,
        live_results=config.live_results,
        interim_results=config.interim_results,
        final_job=config.final_job,
        final_job_config=transcript_pb2.RecognitionConfig.FromString(config.final_job_config),
        recording_format=render_recording_format(config.recording_format),
    )
    for name in d.TIMES:
        getattr(rendered, name).FromTimedelta(getattr(config, name))
    return rendered


def render_recording_format(
    recording_format: d.RecordingFormat,
) -> pb.RecordingFormat.ValueType:
    """Renders what kind of file a recording is."""
    return pb.RecordingFormat.Value(f"RECORDING_FORMAT_{recording_format}")


def render_session(session: d.Session) -> pb.Session:
    """Renders a session."""
    seconds = session.format.seconds
    rendered = pb.Session(
        session_id=str(session.session_id),
        display_name=session.display_name,
        labels=session.labels,
        tenant=session.tenant,
        config=render_config(session.config),
        state=pb.SessionState.Value(f"SESSION_STATE_{session.state}"),
        epoch=session.epoch,
        next_sequence=session.next_sequence,
        free_sequence=session.max_sequence + 1,
        duration=duration_of(seconds(session.frame_count)),
        gap_duration=duration_of(seconds(session.gap_frame_count)),
        transcribed_duration=duration_of(seconds(session.live_frame_count)),
        live_error=session.live_error,
        audio_id=str(session.audio_id or ""),
        job_id=str(session.job_id or ""),
        job_error=session.job_error,
        revision=session.revision,
        create_time=timestamp_of(session.create_time),
        end_time=timestamp_of(session.end_time),
        update_time=timestamp_of(session.update_time),
        parking=_render_parking(session.parking),
    )
    if session.error is not None:
        rendered.error.reason = session.error.reason
        rendered.error.message = session.error.message
    return rendered


def _render_parking(parking: d.Parking | None) -> pb.SessionParking | None:
    if parking is None:
        return None
    return pb.SessionParking(
        reason=parking.reason,
        message=parking.message,
        failure_count=parking.failure_count,
        next_attempt_time=timestamp_of(parking.next_attempt_time),
    )


def render_gap(gap: d.Gap, of: d.PcmFormat) -> pb.RecordingGap:
    """Renders a gap."""
    return pb.RecordingGap(
        first_sequence=gap.first_sequence,
        last_sequence=gap.last_sequence,
        span=render_span(
            of.seconds(gap.start_frame), of.seconds(gap.start_frame + gap.frame_count)
        ),
        cause=pb.GapCause.Value(f"GAP_CAUSE_{gap.cause}"),
    )


def render_event(session: d.Session, revision: int, event: Event) -> pb.SessionEvent:
    """Renders one row of a session's event log, of the session as it was saved with the event."""
    rendered = pb.SessionEvent(
        session_id=str(session.session_id),
        revision=revision,
        time=timestamp_of(session.update_time),
    )
    match event:
        case d.StateChanged():
            rendered.state_changed.CopyFrom(render_session(session))
        case d.WriterChanged():
            rendered.writer_changed = event.epoch
        case d.Gap():
            rendered.gap_added.CopyFrom(render_gap(event, session.format))
        case pb.LiveResult():
            rendered.result_added.CopyFrom(event)
    return rendered


def render_status(session: d.Session) -> pb.SessionStatus:
    """Renders how far a session is."""
    seconds = session.format.seconds
    return pb.SessionStatus(
        duration=duration_of(seconds(session.frame_count)),
        transcribed_duration=duration_of(seconds(session.live_frame_count)),
    )
