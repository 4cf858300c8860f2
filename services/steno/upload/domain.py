"""Uploads, audio and slices: what they are, how they may change, what can be wrong with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from steno.transcript import SAMPLE_RATE, Span
from steno.upload.keys import is_import

MIN_PART_BYTES = 8 * 2**20
"""Length of the parts of a small file. S3 refuses less than 5 MiB."""

MAX_PARTS = 1000
"""S3 allows 10,000. Far fewer, so that an answer with a URL for each part is one gRPC message."""

FIRST_PAUSE = timedelta(seconds=2)
"""How long an audio waits after a preparation that failed; each one more doubles it."""

LONGEST_PAUSE = timedelta(hours=1)


class UploadState(StrEnum):
    """Where an upload stands."""

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"
    EXPIRED = "EXPIRED"


class AudioState(StrEnum):
    """Where an audio stands."""

    PREPARING = "PREPARING"
    READY = "READY"
    REJECTED = "REJECTED"


@dataclass(frozen=True)
class NewUpload:
    """A file as its sender announces it. `size_bytes` is None for a stream, which tells no size."""

    filename: str
    content_type: str
    sha256: str
    request_id: UUID | None
    size_bytes: int | None = None

    def fingerprint(self) -> str:
        """Two announcements with one `request_id` are the same if this is."""
        return hashlib.sha256(json.dumps(self.body(), sort_keys=True).encode()).hexdigest()

    def body(self) -> dict[str, object]:
        """What the fingerprint is taken of."""
        return dataclasses.asdict(self) | {"request_id": None}


@dataclass(frozen=True, kw_only=True)
class NewImport(NewUpload):
    """A recording that another service has left in the bucket.

    `gaps` are silence in place of audio that never came, in samples at 16 kHz from the start.
    """

    object_key: str
    gaps: tuple[Span, ...]

    def body(self) -> dict[str, object]:
        """What the fingerprint is taken of. The gaps are named as earlier versions named them."""
        gaps = [{"start_sample": gap.start, "end_sample": gap.end} for gap in self.gaps]
        return super().body() | {"gaps": gaps}

    def announcement(self) -> NewUpload:
        """What earlier versions took the fingerprint of: neither the object nor the gaps."""
        return NewUpload(self.filename, self.content_type, self.sha256, self.request_id)


@dataclass(frozen=True)
class Part:
    """A stretch of a file that is sent by itself. Numbers count from 1."""

    number: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Upload:
    """A file on its way in.

    `object_key` and `multipart_id` name where its parts land now; both change when the parts have
    to be sent again. An empty file has no parts, and so no `multipart_id`.
    """

    upload_id: UUID
    filename: str
    size_bytes: int
    content_type: str
    sha256: str
    state: UploadState
    part_size_bytes: int
    object_key: str
    multipart_id: str | None
    audio_id: UUID | None
    create_time: datetime
    expire_time: datetime

    def parts(self) -> list[Part]:
        """All parts, in order: equally long, but for the last. An empty file has none."""
        return [
            Part(number, offset, min(self.part_size_bytes, self.size_bytes - offset))
            for number, offset in enumerate(range(0, self.size_bytes, self.part_size_bytes), 1)
        ]

    def check_open(self) -> None:
        """Raises UploadNotOpen if the upload has ended."""
        if self.state is not UploadState.OPEN:
            raise UploadNotOpen(self.upload_id, self.state)

    def takes_too_much(self, landed: dict[int, int]) -> bool:
        """Whether more bytes have landed than were announced, for any part."""
        planned = {part.number: part.size_bytes for part in self.parts()}
        return any(size > planned.get(number, 0) for number, size in landed.items())

    def check_parts(self, landed: dict[int, int]) -> None:
        """Accepts only what was announced, given the length in bytes of each part that has landed.

        Raises:
            PartsMissing: some have not landed.
            SizeMismatch: some are longer or shorter than announced, or were never asked for.
        """
        planned = {part.number: part.size_bytes for part in self.parts()}
        if missing := planned.keys() - landed.keys():
            raise PartsMissing(self.upload_id, missing)
        if wrong := {number for number, size in landed.items() if planned.get(number) != size}:
            raise SizeMismatch(self.upload_id, wrong)


@dataclass(frozen=True)
class PartStatus:
    """A part, and where to PUT it unless it has landed."""

    part: Part
    landed: bool
    url: str


@dataclass(frozen=True)
class UploadStatus:
    """An upload, its parts, and the time when their URLs stop working."""

    upload: Upload
    parts: list[PartStatus]
    url_expire_time: datetime


@dataclass(frozen=True)
class Audio:
    """A stored recording.

    `sample_count` samples at 16 kHz are cut into `slice_count` slices so far. What the decoder
    tells (`container`, `codec`, ...) is empty or 0 until the audio is READY. `failure_count`
    tries to prepare it have failed since its last slice; the next comes at `next_attempt_time`.
    """

    audio_id: UUID
    tenant: str
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    object_key: str
    state: AudioState
    rejection_reason: str | None
    rejection_message: str | None
    container: str
    codec: str
    sample_rate_hertz: int
    channel_count: int
    truncated: bool
    slice_count: int
    sample_count: int
    create_time: datetime
    update_time: datetime
    failure_reason: str
    failure_message: str
    failure_count: int
    next_attempt_time: datetime
    purge_time: datetime | None

    @property
    def failure(self) -> Failure | None:
        """Why its preparation does not go on, if it does not."""
        if self.state is not AudioState.PREPARING or not self.failure_reason:
            return None
        return Failure(self.failure_reason, self.failure_message)

    def has_bytes(self, now: datetime) -> bool:
        """Whether the original file is kept: if it was uploaded and rejected, for a while."""
        if self.state is not AudioState.REJECTED or is_import(self.object_key):
            return True
        return self.purge_time is not None and now < self.purge_time

    @property
    def rejection(self) -> Rejection | None:
        """Why it was rejected, if it was."""
        if self.rejection_reason is None:
            return None
        return Rejection(self.rejection_reason, self.rejection_message or "")

    @property
    def duration(self) -> timedelta:
        """Length of what is prepared so far."""
        return timedelta(microseconds=self.sample_count * 1_000_000 // SAMPLE_RATE)


@dataclass(frozen=True)
class Slice:
    """A piece of a recording, in samples at 16 kHz from its start.

    What is cut out of speech has a second object, with the context around it. `gaps` are what of
    the piece is silence in place of audio that never came.
    """

    index: int
    start_sample: int
    sample_count: int
    speech_sample_count: int
    object_key: str
    left_context_sample_count: int = 0
    right_context_sample_count: int = 0
    context_object_key: str = ""
    gaps: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Source:
    """What the decoder found out about a file."""

    container: str
    codec: str
    sample_rate_hertz: int
    channel_count: int
    truncated: bool


@dataclass(frozen=True)
class Rejection:
    """Why an audio can't be used: a machine-readable reason, and one sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Failure:
    """Why an audio could not be prepared this time, by no proven fault of its bytes.

    A machine-readable reason, and one sentence for people.
    """

    reason: str
    message: str


INTERRUPTED = Failure(
    "PREPARATION_INTERRUPTED", "The process that prepared the recording died or fell silent."
)

EMPTY = Rejection("EMPTY", "The file is empty.")


def verdict_on(size_bytes: int) -> Rejection | None:
    """Why a file of a length can't be used; None if that is still to be seen.

    An empty file is taken in like any other and rejected at once: one way to learn of bad audio.
    """
    return None if size_bytes else EMPTY


@dataclass(frozen=True)
class Lease:
    """The right to prepare an audio until the lease ends.

    `attempt` is the fencing token: whoever leases next holds a higher one, and nothing is written
    under a lower. What earlier attempts recorded stays, and this one goes on after it. `trace` are
    the headers of the call that made the audio.
    """

    audio_id: UUID
    tenant: str
    attempt: int
    object_key: str
    size_bytes: int
    slice_count: int
    sample_count: int
    trace: Mapping[str, str]


def part_size(size_bytes: int) -> int:
    """Chooses the length of the parts: the least power of two that makes no more than MAX_PARTS."""
    size = MIN_PART_BYTES
    while size * MAX_PARTS < size_bytes:
        size *= 2
    return size


def in_ranges(numbers: Iterable[int]) -> str:
    """Writes numbers in short: `1-3,7`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


class UploadError(Exception):
    """Root of what can be wrong here. `reason` is for machines, the text for people."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata


class UploadNotFound(UploadError):
    """No upload has this id."""

    reason = "UPLOAD_NOT_FOUND"

    def __init__(self, upload_id: UUID) -> None:
        super().__init__(f"no upload {upload_id}", upload_id=str(upload_id))


class UploadNotOpen(UploadError):
    """The upload has ended."""

    reason = "UPLOAD_NOT_OPEN"

    def __init__(self, upload_id: UUID, state: UploadState) -> None:
        super().__init__(
            f"upload {upload_id} is {state.lower()}", upload_id=str(upload_id), state=state.value
        )


class PartsMissing(UploadError):
    """Not all parts have landed."""

    reason = "PARTS_MISSING"

    def __init__(self, upload_id: UUID, numbers: Collection[int]) -> None:
        super().__init__(
            f"{len(numbers)} parts of upload {upload_id} have not landed",
            upload_id=str(upload_id),
            part_numbers=in_ranges(numbers),
        )


class SizeMismatch(UploadError):
    """Parts are not as long as announced."""

    reason = "SIZE_MISMATCH"

    def __init__(self, upload_id: UUID, numbers: Collection[int]) -> None:
        super().__init__(
            f"{len(numbers)} parts of upload {upload_id} are not as long as announced",
            upload_id=str(upload_id),
            part_numbers=in_ranges(numbers),
        )


class ChecksumMismatch(UploadError):
    """The bytes do not have the SHA-256 that was announced."""

    reason = "CHECKSUM_MISMATCH"

    def __init__(self, announced: str, actual: str) -> None:
        super().__init__(
            f"the SHA-256 of the bytes is {actual}, announced was {announced}",
            announced=announced,
            actual=actual,
        )


class FileTooLong(UploadError):
    """A stream brought more bytes than a file may have."""

    reason = "FILE_TOO_LONG"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the file exceeds the limit of {limit_bytes} bytes", limit_bytes=str(limit_bytes)
        )


class StreamExpired(UploadError):
    """A stream took longer than an upload may be open; its bytes were removed."""

    reason = "STREAM_EXPIRED"

    def __init__(self) -> None:
        super().__init__("the stream took too long, its bytes were removed")


class ObjectMissing(UploadError):
    """There is no object to take over."""

    reason = "OBJECT_NOT_FOUND"

    def __init__(self, object_key: str) -> None:
        super().__init__(f"no object {object_key}", object_key=object_key)


class ObjectTaken(UploadError):
    """The object belongs to an audio already, which another request has made of it."""

    reason = "OBJECT_TAKEN"

    def __init__(self, object_key: str) -> None:
        super().__init__(f"{object_key} belongs to another audio", object_key=object_key)


class RequestIdReused(UploadError):
    """The request_id was used with another body."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: UUID) -> None:
        super().__init__(
            f"request_id {request_id} was used with another body", request_id=str(request_id)
        )


class AudioNotFound(UploadError):
    """No audio has this id."""

    reason = "AUDIO_NOT_FOUND"

    def __init__(self, audio_id: UUID) -> None:
        super().__init__(f"no audio {audio_id}", audio_id=str(audio_id))


class AudioRejected(UploadError):
    """The audio was rejected: it is not prepared any more, and in the end its bytes are gone."""

    reason = "AUDIO_REJECTED"

    def __init__(self, audio_id: UUID, rejection: Rejection) -> None:
        super().__init__(
            f"audio {audio_id} was rejected: {rejection.message}",
            audio_id=str(audio_id),
            rejection_reason=rejection.reason,
        )


class StaleLease(UploadError):
    """The lease has passed to another process, or the audio is no longer being prepared."""

    reason = "STALE_LEASE"

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"lease {lease.attempt} of audio {lease.audio_id} is over")
