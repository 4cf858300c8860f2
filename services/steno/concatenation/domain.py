"""Sessions, chunks and the recording they make: what they are, and what can be wrong with them.

Lengths of sound are in frames: one sample of each channel, at the recording's own rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

WINDOW_CHUNKS = 10_000
"""How far ahead of the first missing chunk a chunk may be."""

CONTAINER_RATE_HERTZ = 16_000
"""What containers are decoded to, mono."""


class SessionState(StrEnum):
    """Where a session stands."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"
    EXPIRED = "EXPIRED"

    @property
    def ended(self) -> bool:
        """The state is final."""
        return self not in SESSION_MOVES


SESSION_MOVES: Mapping[SessionState, frozenset[SessionState]] = {
    SessionState.OPEN: frozenset({SessionState.CLOSED, SessionState.EXPIRED})
}
"""The only moves of a session; a state that is no key is final. The database refuses others."""


class Encoding(StrEnum):
    """What the bytes of chunks are."""

    LINEAR16 = "LINEAR16"
    FLOAT32 = "FLOAT32"
    MULAW = "MULAW"
    ALAW = "ALAW"
    CONTAINER = "CONTAINER"


class ChunkForm(StrEnum):
    """How a container is cut into chunks. Raw samples are a STREAM."""

    STREAM = "STREAM"
    FILES = "FILES"


class GapCause(StrEnum):
    """Why there is silence in the place of chunks."""

    MISSING = "MISSING"
    UNDECODABLE = "UNDECODABLE"


class RecordingFormat(StrEnum):
    """What kind of file holds a recording."""

    WAV = "WAV"
    W64 = "W64"
    RF64 = "RF64"
    """What a WAV becomes that is too long for one."""

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return ".w64" if self is RecordingFormat.W64 else ".wav"

    @property
    def content_type(self) -> str:
        """Of the file."""
        return "audio/x-w64" if self is RecordingFormat.W64 else "audio/wav"


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """How the samples of a recording lie one after another."""

    encoding: Encoding
    rate_hertz: int
    channels: int

    @property
    def sample_bytes(self) -> int:
        """Length of one sample."""
        return {Encoding.LINEAR16: 2, Encoding.FLOAT32: 4}.get(self.encoding, 1)

    @property
    def frame_bytes(self) -> int:
        """Length of one frame: a sample of each channel."""
        return self.sample_bytes * self.channels

    def silence(self, frames: int) -> bytes:
        """So many frames without sound."""
        quiet = {Encoding.MULAW: b"\xff", Encoding.ALAW: b"\xd5"}.get(self.encoding, b"\x00")
        return quiet * (frames * self.frame_bytes)

    def frames_in(self, length: timedelta) -> int:
        """How many frames sound so long."""
        return round(length.total_seconds() * self.rate_hertz)

    def seconds(self, frames: int) -> float:
        """How long so many frames sound."""
        return frames / self.rate_hertz


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session is made for. `final_job_config` is for the job service, and not read here."""

    encoding: Encoding
    sample_rate_hertz: int
    channel_count: int
    chunk_form: ChunkForm
    language_code: str
    live_results: bool
    interim_results: bool
    endpointing_silence: timedelta
    idle_timeout: timedelta
    max_duration: timedelta
    gap_timeout: timedelta
    final_job: bool
    final_job_config: bytes
    recording_format: RecordingFormat

    @property
    def format(self) -> PcmFormat:
        """Of the recording. Containers are decoded to 16 bits, at the rate that models hear."""
        if self.encoding is Encoding.CONTAINER:
            return PcmFormat(Encoding.LINEAR16, CONTAINER_RATE_HERTZ, 1)
        return PcmFormat(self.encoding, self.sample_rate_hertz, self.channel_count)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session as it is asked for."""

    config: SessionConfig
    display_name: str
    labels: Mapping[str, str]
    tenant: str
    request_id: UUID | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DecodingError:
    """Why a session's sound could not be decoded."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Parking:
    """Why the work behind a session waits, and for how long.

    Attributes:
        reason: for machines.
        message: one sentence for people.
        failure_count: tries in a row that came to nothing.
        next_attempt_time: None while it is being tried.
    """

    reason: str
    message: str
    failure_count: int
    next_attempt_time: datetime | None


@dataclass(frozen=True, slots=True)
class Session:
    """A recording that is made, or was made, while it happened.

    Attributes:
        epoch: number of the stream that writes.
        producer_id: whose stream that is, if it said so.
        next_sequence: first chunk that is not in order yet.
        max_sequence: greatest that has come; -1 if none has.
        byte_count: length of the chunks in order.
        decoded_sequence: first chunk of a container that is not decoded yet.
        frame_count: length of the recording.
        chunk_frame_count: length of the chunk before the first missing one.
        gap_frame_count: how much of the recording is silence in place of chunks.
        drained: nothing more will be recorded.
        part_count: parts that are joined.
        joined_frame_count: where the last of them ends.
        live_frame_count: what live results are made of.
        live_segment_count: final live results.
        live_language_code: that was detected.
        live_done: there will be no more live results.
        live_error: why, if not because all was heard.
        job_error: why no job makes the final transcript, though one was wanted.
        finished: there is nothing left to do for it.
        parking: why its work waits, if the last try came to nothing.
    """

    session_id: UUID
    config: SessionConfig
    display_name: str
    labels: Mapping[str, str]
    tenant: str
    state: SessionState
    error: DecodingError | None
    epoch: int
    producer_id: UUID | None
    next_sequence: int
    max_sequence: int
    byte_count: int
    decoded_sequence: int
    frame_count: int
    chunk_frame_count: int
    gap_frame_count: int
    drained: bool
    part_count: int
    joined_frame_count: int
    live_frame_count: int
    live_segment_count: int
    live_language_code: str
    live_done: bool
    live_error: str
    audio_id: UUID | None
    job_id: UUID | None
    job_error: str
    finished: bool
    parking: Parking | None
    revision: int
    create_time: datetime
    update_time: datetime
    end_time: datetime | None

    @property
    def format(self) -> PcmFormat:
        """Of the recording."""
        return self.config.format

    def is_behind(self, other: Session) -> bool:
        """It was read before the other: what only rises has not risen so far."""
        return any(
            mine < theirs for mine, theirs in zip(_rising(self), _rising(other), strict=True)
        )

    @property
    def room_frames(self) -> int:
        """How much more may be recorded."""
        return max(0, self.format.frames_in(self.config.max_duration) - self.frame_count)

    @property
    def settled(self) -> bool:
        """It has ended, and become what it becomes."""
        if not self.state.ended:
            return False
        if self.finished:
            return True
        return self.audio_id is not None and not self.wants_job

    @property
    def wants_job(self) -> bool:
        """A job is to make the final transcript, and none is known yet."""
        return self.config.final_job and self.job_id is None and not self.job_error

    def taken_over(self, epoch: int, producer_id: UUID | None) -> Session:
        """A new stream writes from now on.

        Args:
            epoch: of the caller's stream that broke off; 0 takes over from anybody.
            producer_id: tells the caller's own streams from those of others.

        Raises:
            SessionNotOpen: the session has ended.
            WriterReplaced: another producer has taken over since.
        """
        if self.state.ended:
            raise SessionNotOpen(self)
        own = producer_id is not None and producer_id == self.producer_id
        if epoch not in (0, self.epoch) and not own:
            raise WriterReplaced(epoch, self.epoch)
        return replace(self, epoch=self.epoch + 1, producer_id=producer_id)

    def check_sequence(self, sequence: int) -> None:
        """Accepts a chunk that is not there yet.

        Raises:
            ChunkLate: it was waited for in vain.
            TooFarAhead: too many before it are missing.
        """
        if sequence < self.next_sequence:
            raise ChunkLate(sequence, self.next_sequence)
        if sequence >= self.next_sequence + WINDOW_CHUNKS:
            raise TooFarAhead(sequence, self.next_sequence)


def _rising(session: Session) -> tuple[int, ...]:
    """What never falls, whatever happens to a session."""
    return (
        *(session.revision, session.epoch, session.next_sequence, session.max_sequence),
        *(session.decoded_sequence, session.frame_count, session.gap_frame_count),
        *(session.part_count, session.live_frame_count, session.live_segment_count),
        *(session.state.ended, session.drained, session.live_done, session.finished),
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it was sent."""

    sequence: int
    content: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk, and where its bytes are in the object store."""

    sequence: int
    sha256: bytes
    size_bytes: int
    object_key: str
    object_offset: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Chunks of a container's stream that never came.

    Attributes:
        first_sequence: of the first.
        last_sequence: of the last.
        start_byte: where what comes after them lies in what came.
        usual_bytes: length of the chunk before them, or of the one after them where the chunk
            before is the first, which holds more than sound, or there is none.
    """

    first_sequence: int
    last_sequence: int
    start_byte: int
    usual_bytes: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last_sequence + 1 - self.first_sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of the recording, and where its bytes are; without a key it is silence."""

    start_frame: int
    frame_count: int
    object_key: str | None
    object_offset: int

    @property
    def end_frame(self) -> int:
        """Where the next begins."""
        return self.start_frame + self.frame_count


@dataclass(frozen=True, slots=True)
class Sound:
    """Decoded samples in one object, which have no place in the recording yet."""

    object_key: str
    frame_count: int


@dataclass(frozen=True, slots=True)
class Part:
    """A long run of the recording in one object, for joining without reading it."""

    number: int
    start_frame: int
    frame_count: int
    object_key: str

    @property
    def end_frame(self) -> int:
        """Where the next begins."""
        return self.start_frame + self.frame_count


@dataclass(frozen=True, slots=True)
class Gap:
    """Silence in the place of chunks."""

    first_sequence: int
    last_sequence: int
    start_frame: int
    frame_count: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do the work behind a session.

    `attempt` is its fencing token; `trace` holds the headers of the call that opened the session.
    """

    session_id: UUID
    attempt: int
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A chunk that was not taken, and why."""

    sequence: int
    error: ChunkRefused


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of chunks.

    Attributes:
        session: as it is now.
        sequences: those that are durable now.
        refusals: those that were not taken.
    """

    session: Session
    sequences: Sequence[int] = ()
    refusals: Sequence[Refusal] = field(default_factory=list)


class ConcatenationError(Exception):
    """Root of what can be wrong here. `reason` is for machines, the text for people."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.metadata = {key: str(value) for key, value in metadata.items()}


class SessionNotFound(ConcatenationError):
    """No session has this id."""

    reason = "SESSION_NOT_FOUND"

    def __init__(self, session_id: UUID) -> None:
        super().__init__(f"no session {session_id}", session_id=session_id)


class SessionNotOpen(ConcatenationError):
    """The session has ended."""

    reason = "SESSION_NOT_OPEN"

    def __init__(self, session: Session) -> None:
        why = f": {session.error.message}" if session.error else ""
        super().__init__(
            f"session {session.session_id} is {session.state.lower()}{why}",
            session_id=session.session_id,
            state=session.state,
        )


class WriterReplaced(ConcatenationError):
    """Another stream has taken over."""

    reason = "WRITER_REPLACED"

    def __init__(self, epoch: int, current: int) -> None:
        super().__init__(
            f"stream {current} of this session has taken over from stream {epoch}",
            epoch=epoch,
            current_epoch=current,
        )
        self.epoch = epoch
        self.current = current


class OwnStreamReplaced(ConcatenationError):
    """A stream of the same producer has taken over: mostly an older one that came in late."""

    reason = "OWN_STREAM_REPLACED"

    def __init__(self, error: WriterReplaced) -> None:
        super().__init__(
            f"stream {error.current} of this session is of the same producer, and has taken over"
            f" from stream {error.epoch}: begin another one",
            epoch=error.epoch,
            current_epoch=error.current,
        )


class SessionTooLong(ConcatenationError):
    """The recording has its longest duration."""

    reason = "SESSION_TOO_LONG"

    def __init__(self, max_duration: timedelta) -> None:
        seconds = max_duration.total_seconds()
        super().__init__(
            f"the recording has {seconds:.0f} s, the session's max_duration; close it",
            max_seconds=seconds,
        )


class RequestIdReused(ConcatenationError):
    """The request_id was used with another body."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: UUID) -> None:
        super().__init__(
            f"request_id {request_id} was used with another body", request_id=request_id
        )


class NothingRecorded(ConcatenationError):
    """There is no sound yet, or there never was."""

    reason = "NOTHING_RECORDED"

    def __init__(self, session_id: UUID) -> None:
        super().__init__(f"session {session_id} has no sound", session_id=session_id)


class RecordingDeleted(ConcatenationError):
    """The audio that the recording became was deleted."""

    reason = "RECORDING_DELETED"

    def __init__(self, session_id: UUID) -> None:
        super().__init__(
            f"the recording of session {session_id} was deleted", session_id=session_id
        )


class RecordingExists(ConcatenationError):
    """There is another recording of the session than the one that the database knows."""

    reason = "RECORDING_EXISTS"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The bucket has {key} already, of another length, as after a restore of an older"
            " database. Move that object away, and the session becomes an audio; or delete the"
            " session.",
            object_key=key,
        )


class StaleLease(ConcatenationError):
    """Another replica works on the session by now, or it is gone."""

    reason = "STALE_LEASE"

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"lease {lease.attempt} of session {lease.session_id} is over")


class ChunkRefused(ConcatenationError):
    """One chunk can't be taken; others can."""


class ChunkLate(ChunkRefused):
    """It was waited for in vain; silence stands in its place."""

    reason = "CHUNK_LATE"

    def __init__(self, sequence: int, next_sequence: int) -> None:
        super().__init__(
            f"chunk {sequence} comes too late: silence stands in its place",
            sequence=sequence,
            next_sequence=next_sequence,
        )


class SequenceReused(ChunkRefused):
    """The sequence is there with other bytes."""

    reason = "SEQUENCE_REUSED"

    def __init__(self, sequence: int) -> None:
        super().__init__(f"chunk {sequence} is there with other bytes", sequence=sequence)


class TooFarAhead(ChunkRefused):
    """Too many chunks before it are missing."""

    reason = "TOO_FAR_AHEAD"

    def __init__(self, sequence: int, next_sequence: int) -> None:
        super().__init__(
            f"chunk {sequence} is {WINDOW_CHUNKS} or more ahead of {next_sequence}, the first that "
            "is missing; send that first",
            sequence=sequence,
            next_sequence=next_sequence,
        )
