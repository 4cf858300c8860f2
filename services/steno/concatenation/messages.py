"""The domain's values as protobuf messages, and back."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from steno.concatenation import domain as d
from steno.platform.errors import InvalidArgument, Violation
from steno.platform.tenancy import tenant
from steno.platform.wellknown import duration_of, timestamp_of
from steno.speech import parse_language, render_span
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import transcript_pb2

Change = d.Session | d.Gap | pb.LiveResult | int
"""What a row of the event log tells: the session, a gap, a final result, or a stream's epoch."""

LEAST_HERTZ = 4000
"""Least rate of raw samples: a recording with a lower one would not become an audio."""

_SECOND, _MINUTE, _HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

_TIMES = {
    # field: default, least, greatest
    "endpointing_silence": (0.7 * _SECOND, 0.1 * _SECOND, 5 * _SECOND),
    "idle_timeout": (5 * _MINUTE, _SECOND, 24 * _HOUR),
    "max_duration": (12 * _HOUR, _SECOND, 24 * _HOUR),
    "gap_timeout": (10 * _SECOND, 0 * _SECOND, _HOUR),
}


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
        **{name: _time(config, name) for name in _TIMES},
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
        if config.sample_rate_hertz < LEAST_HERTZ:
            wrong.append(
                Violation(at + "sample_rate_hertz", f"must be {LEAST_HERTZ} or more for {encoding}")
            )
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
        Violation(f"config.{name}", f"must be between {_in_words(least)} and {_in_words(greatest)}")
        for name, (_, least, greatest) in _TIMES.items()
        if not least <= _time(config, name) <= greatest
    ]


def _in_words(time: timedelta) -> str:
    return f"{time.total_seconds():g} s"


def _unless(config: pb.SessionConfig, name: str) -> bool:
    return not config.HasField(name) or bool(getattr(config, name))  # type: ignore[arg-type]


def _time(config: pb.SessionConfig, name: str) -> timedelta:
    if not config.HasField(name):  # type: ignore[arg-type]
        return _TIMES[name][0]
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
    container = config.encoding is d.Encoding.CONTAINER
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
    for name in _TIMES:
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


def render_event(session: d.Session, change: Change, time: datetime) -> pb.SessionEvent:
    """Renders one row of a session's event log."""
    event = pb.SessionEvent(
        session_id=str(session.session_id), revision=session.revision, time=timestamp_of(time)
    )
    match change:
        case d.Session():
            event.state_changed.CopyFrom(render_session(change))
        case d.Gap():
            event.gap_added.CopyFrom(render_gap(change, session.format))
        case pb.LiveResult():
            event.result_added.CopyFrom(change)
        case int():
            event.writer_changed = change
    return event


def render_status(session: d.Session) -> pb.SessionStatus:
    """Renders how far a session is."""
    seconds = session.format.seconds
    return pb.SessionStatus(
        duration=duration_of(seconds(session.frame_count)),
        transcribed_duration=duration_of(seconds(session.live_frame_count)),
    )
