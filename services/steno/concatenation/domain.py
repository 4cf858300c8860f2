"""Sessions, chunks and the recording they make: what they are, and what can be wrong with them.

Everything here is a value: a change answers a new one. The store saves it, and writes into the
session's event log what `events_between` finds between the two.

Lengths of sound are in frames: one sample of each channel, at the recording's own rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import ClassVar, TypeVar
from uuid import UUID

T = TypeVar("T")

WINDOW_CHUNKS = 10_000
"""How far ahead of the first missing chunk a chunk may be."""

CONTAINER_RATE_HERTZ = 16_000
"""What containers are decoded to, mono."""

LEAST_HERTZ = 4000
"""Least rate of raw samples: a recording with a lower one would not become an audio."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A time that a session is opened with: what it is unless it is given, and its limits."""

    default: timedelta
    least: timedelta
    greatest: timedelta


_SECOND, _MINUTE, _HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

TIMES: Mapping[str, TimeRange] = {
    "endpointing_silence": TimeRange(0.7 * _SECOND, 0.1 * _SECOND, 5 * _SECOND),
    "idle_timeout": TimeRange(5 * _MINUTE, _SECOND, 24 * _HOUR),
    "max_duration": TimeRange(12 * _HOUR, _SECOND, 24 * _HOUR),
    "gap_timeout": TimeRange(10 * _SECOND, 0 * _SECOND, _HOUR),
}
"""The times of a SessionConfig, by the names of its fields."""


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
        """File-name extension, with its dot."""
        return ".w64" if self is RecordingFormat.W64 else ".wav"

    @property
    def content_type(self) -> str:
        """MIME type."""
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
    def is_container(self) -> bool:
        """Chunks are (parts of) files that must be decoded; else they hold raw samples."""
        return self.encoding is Encoding.CONTAINER

    @property
    def format(self) -> PcmFormat:
        """Format of the recording. Containers are decoded to 16 bits, at the rate of the models."""
        if self.is_container:
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
        producer_id: whose stream that is, if the producer has named itself.
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
        live_error: why, if they end before the recording does.
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
        """Format of the recording."""
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
    def waits(self) -> bool:
        """A chunk is there that waits for one before it."""
        return self.max_sequence >= self.next_sequence

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

    def accepted(
        self, epoch: int | None, chunks: Sequence[StoredChunk], known: Mapping[int, bytes]
    ) -> Accepted:
        """Tells which of some chunks are taken.

        Args:
            epoch: of the stream that they came with; None if they came by themselves.
            chunks: sequences may repeat what is there, and each other.
            known: digests of those of the sequences that are there already.

        Raises:
            WriterReplaced: another stream has taken over.
            SessionNotOpen: the session has ended, and not all of the chunks are there.
        """
        if epoch is not None and epoch != self.epoch:
            raise WriterReplaced(epoch, self.epoch)
        digests = dict(known)
        fresh, sequences, refusals = list[StoredChunk](), list[int](), list[Refusal]()
        for chunk in chunks:
            digest = digests.get(chunk.sequence)
            try:
                if digest is None:
                    if self.state.ended:
                        raise SessionNotOpen(self)
                    self.check_sequence(chunk.sequence)
                    digests[chunk.sequence] = chunk.sha256
                    fresh.append(chunk)
                elif digest != chunk.sha256:
                    raise SequenceReused(chunk.sequence)
            except ChunkRefused as error:
                refusals.append(Refusal(chunk.sequence, error))
            else:
                sequences.append(chunk.sequence)
        return Accepted(fresh, sequences, refusals)

    def appended(self, fresh: Sequence[StoredChunk], held_bytes: int) -> Session:
        """New chunks are there; `ordered` puts them in order.

        Args:
            fresh: the chunks, at least one.
            held_bytes: length of the raw samples that wait for a chunk before them. Nobody knows
                yet how long a container sounds: 0.

        Raises:
            SessionTooLong: what is recorded, with what waits, is max_duration long already.
        """
        if self.room_frames <= held_bytes // self.format.frame_bytes:
            raise SessionTooLong(self.config.max_duration)
        greatest = max(chunk.sequence for chunk in fresh)
        return replace(self, max_sequence=max(self.max_sequence, greatest))

    def ordered(self, chunks: Sequence[StoredChunk]) -> Ordered:
        """Puts in order those of the next chunks that follow without a hole.

        Raw samples become part of the recording with it; a container must be decoded first.
        """
        run = [
            chunk
            for place, chunk in enumerate(chunks)
            if chunk.sequence == self.next_sequence + place
        ]
        if not run:
            return Ordered(self, 0)
        starts = [*accumulate((chunk.size_bytes for chunk in run), initial=self.byte_count)]
        session = replace(self, next_sequence=run[-1].sequence + 1, byte_count=starts.pop())
        if not self.config.is_container:
            pieces = _pieces_of(self, run)
            frames = run[-1].size_bytes // self.format.frame_bytes
            session = replace(session, frame_count=pieces[-1].end_frame, chunk_frame_count=frames)
            return Ordered(session, len(run), pieces)
        if self.config.chunk_form is ChunkForm.FILES:
            return Ordered(session, len(run))
        sequences = (chunk.sequence for chunk in run)
        return Ordered(session, len(run), start_bytes=dict(zip(sequences, starts, strict=True)))

    def passed_over(self, sequence: int, size_bytes: int) -> tuple[Session, Gap | Unplaced]:
        """Waits no longer for the missing chunks: silence takes their place.

        Each counts as long as the chunk before them, or as the one after where there is none.

        Args:
            sequence: first chunk after them that is there.
            size_bytes: its length.
        """
        first, last = self.next_sequence, sequence - 1
        passed = replace(self, next_sequence=sequence)
        if self.config.is_container:
            return passed, Unplaced(first, last)
        usual = self.chunk_frame_count or size_bytes // self.format.frame_bytes
        return passed._silent(first, last, usual, GapCause.MISSING)

    def decoded(
        self, sounds: Sequence[Sound], next_sequence: int
    ) -> tuple[Session, Sequence[Piece]]:
        """Adds the sound of a container to the recording.

        Args:
            sounds: its samples, in order.
            next_sequence: first chunk that is not decoded yet.
        """
        pieces, end = list[Piece](), self.frame_count
        for sound in sounds:
            pieces.append(Piece(end, sound.frame_count, sound.object_key, 0))
            end = pieces[-1].end_frame
        session = replace(
            self,
            frame_count=end,
            chunk_frame_count=end - self.frame_count or self.chunk_frame_count,
            decoded_sequence=next_sequence,
        )
        return session, pieces

    def undecoded(self, last: int, usual_frames: int, cause: GapCause) -> tuple[Session, Gap]:
        """Puts silence in the place of the files that come next to be decoded.

        Args:
            last: sequence of the last of them.
            usual_frames: how long each counts.
            cause: why there is nothing to decode.
        """
        done = replace(self, decoded_sequence=last + 1)
        return done._silent(self.decoded_sequence, last, usual_frames, cause)

    def placed(self, gap: Gap) -> tuple[Session, Gap]:
        """Gives the gap of a streamed container its place: its silence is recorded already."""
        start = min(gap.start_frame, self.frame_count)
        frames = min(gap.frame_count, self.frame_count - start)
        session = replace(self, gap_frame_count=self.gap_frame_count + frames)
        return session, replace(gap, start_frame=start, frame_count=frames)

    def _silent(
        self, first: int, last: int, usual_frames: int, cause: GapCause
    ) -> tuple[Session, Gap]:
        """Adds silence in the place of chunks, as far as the recording may grow."""
        frames = min((last - first + 1) * usual_frames, self.room_frames)
        session = replace(
            self,
            frame_count=self.frame_count + frames,
            gap_frame_count=self.gap_frame_count + frames,
        )
        return session, Gap(first, last, self.frame_count, frames, cause)

    def ended(self, state: SessionState) -> Session:
        """Takes no more chunks; one that has ended already stays as it is.

        Of raw samples, all is recorded then; a container may still have to be decoded.
        """
        if self.state.ended:
            return self
        drained = not self.config.is_container or not self.next_sequence
        return replace(self._moved(state), drained=self.drained or drained)

    def completed(self, error: DecodingError | None = None) -> Session:
        """All is recorded that will be. What can't be decoded to its end ends the session, too."""
        session = self
        if error is not None:
            session = replace(session.ended(SessionState.CLOSED), error=error)
        return replace(session, drained=True)

    def joined(self, part: Part) -> Session:
        """The next part is there."""
        return replace(self, part_count=part.number + 1, joined_frame_count=part.end_frame)

    def transcribed(self, result_count: int, frame_count: int, language_code: str) -> Session:
        """More final live results are there.

        Args:
            result_count: how many came.
            frame_count: length of what all of them are made of.
            language_code: that was detected; the first one stays.
        """
        return replace(
            self,
            live_frame_count=max(self.live_frame_count, frame_count),
            live_segment_count=self.live_segment_count + result_count,
            live_language_code=self.live_language_code or language_code,
        )

    def live_ended(self, error: str) -> Session:
        """There will be no more live results; `error` says why if something went wrong."""
        return replace(self, live_done=True, live_error=error)

    def adopted(self, frame_count: int, why: str) -> Session:
        """What the recording was made of is gone, but its file is there.

        Args:
            frame_count: length of the file.
            why: what there will be no more live results for.
        """
        session = self if self.live_done else self.live_ended(why)
        if self.drained:
            return session
        return replace(session, drained=True, frame_count=max(frame_count, self.frame_count))

    def _moved(self, state: SessionState) -> Session:
        if state not in SESSION_MOVES.get(self.state, ()):
            raise IllegalMove(f"session {self.session_id}: {self.state} -> {state}")
        return replace(self, state=state)


def _pieces_of(session: Session, run: Sequence[StoredChunk]) -> list[Piece]:
    """The pieces that chunks in order add to a recording: neighbours in one object are one."""
    pieces: list[Piece] = []
    at, end_of_last = session.frame_count, ("", 0)
    for chunk in run:
        frames = chunk.size_bytes // session.format.frame_bytes
        if end_of_last == (chunk.object_key, chunk.object_offset):
            last = pieces.pop()
            pieces.append(replace(last, frame_count=last.frame_count + frames))
        else:
            pieces.append(Piece(at, frames, chunk.object_key, chunk.object_offset))
        at += frames
        end_of_last = (chunk.object_key, chunk.object_offset + chunk.size_bytes)
    return pieces


@dataclass(frozen=True, slots=True)
class WriterChanged:
    """Another stream writes."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session was opened, has ended or failed, or has become an audio or a job."""


def events_between(
    before: Session | None, after: Session, added: Sequence[T] = ()
) -> tuple[Session, list[T | WriterChanged | StateChanged]]:
    """Tells what happened between two versions of a session, and gives it its new revision.

    Args:
        before: None if the session has just been opened.
        after: what it has become.
        added: gaps and final live results that are new.

    Returns:
        The session as of its last event, and the events in order. A change of its state comes last:
        whoever has seen the end has seen all before it.
    """
    events: list[T | WriterChanged | StateChanged] = [*added]
    if before is not None and after.epoch != before.epoch:
        events.append(WriterChanged(after.epoch))
    if before is None or _shown(after) != _shown(before):
        events.append(StateChanged())
    return replace(after, revision=after.revision + len(events)), events


def _shown(session: Session) -> tuple[object, ...]:
    """What is a change of state if it changes."""
    return (
        *(session.state, session.error, session.live_error),
        *(session.audio_id, session.job_id, session.job_error),
    )


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
class Accepted:
    """Which of some chunks are taken.

    Attributes:
        fresh: those that were not there yet, each once.
        sequences: those that are durable once the fresh ones are.
        refusals: those that are not taken.
    """

    fresh: Sequence[StoredChunk]
    sequences: Sequence[int]
    refusals: Sequence[Refusal]


@dataclass(frozen=True, slots=True)
class Ordered:
    """What chunks become that are put in order.

    Attributes:
        session: as it is then.
        count: how many chunks they are.
        pieces: what they add to the recording.
        start_bytes: where each lies in the container that is streamed, by sequence.
    """

    session: Session
    count: int
    pieces: Sequence[Piece] = ()
    start_bytes: Mapping[int, int] = field(default_factory=dict)


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
class Unplaced:
    """Chunks of a container that never came.

    Where their gap lies, and how long it is, shows when the chunks before it are decoded.
    """

    first_sequence: int
    last_sequence: int


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


class IllegalMove(ConcatenationError):
    """A change that SESSION_MOVES does not know: a bug, never a caller's fault."""

    reason = "ILLEGAL_MOVE"


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
            f"the recording has reached max_duration ({seconds:.0f} s); close the session",
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
