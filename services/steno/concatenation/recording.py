"""The recording: read anywhere, at any moment, and made one file without reading it all.

A recording is a header and the bytes of its pieces, in order. In the background, runs of pieces
are joined into parts of at least 5 MiB, which the object store can put together by itself. Only
the head, which begins with the header that tells the length, and the tail behind the last part are
written when a file is made; so it takes a moment, however long the recording is.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from steno.concatenation.domain import (
    Encoding,
    Lease,
    Part,
    PcmFormat,
    Piece,
    RecordingExists,
    RecordingFormat,
    Session,
)
from steno.concatenation.keys import file_key, part_key, snapshots_prefix
from steno.concatenation.recent import RecentObjects
from steno.concatenation.room import Room
from steno.concatenation.store import Store
from steno.platform.objects import ObjectNotFound, UploadedPart
from steno.platform.shared import Shared

PART_BYTES = 5 * 2**20
"""Least length of what is joined. S3 takes nothing shorter in the middle of a file."""

MOST_PARTS = 9000
"""Of a file that is as long as its session may become, beside its head. S3 takes 10,000 in all."""

JOINING_BYTES = 128 * 2**20
"""What joins of all sessions hold in memory at once: what they read, and what they write."""

_READS = 8
"""Objects that are read at once."""

_SNAPSHOTS_TOGETHER = timedelta(hours=1)
"""Snapshots that were made within the same hour go together, once no URL of them works any more."""

_SHORT = timedelta(minutes=1)
_SNAPSHOT_AGE = 100
"""A snapshot may lack one in so many of the frames that a recording has beyond _SHORT: else all who
ask again and again would make a copy each time."""

_FORMAT_TAGS = {
    Encoding.LINEAR16: 1,
    Encoding.FLOAT32: 3,
    Encoding.ALAW: 6,
    Encoding.MULAW: 7,
}
_LONGEST_WAV = 2**32 - 1
_W64_RIFF = bytes.fromhex("2e91cf11a5d628db04c10000")
_W64_CHUNK = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""What follows the four letters of a chunk's name in a Wave64."""


def header(file: RecordingFormat, of: PcmFormat, frames: int) -> bytes:
    """What makes frames behind it a file of this format."""
    if file is RecordingFormat.W64:
        return _w64_header(of, frames)
    return _wav_header(of, frames)


def file_format(session: Session) -> RecordingFormat:
    """What kind of file all that is recorded now makes."""
    is_rf64 = _header_of(session).startswith(b"RF64")
    return RecordingFormat.RF64 if is_rf64 else session.config.recording_format


def _header_of(session: Session) -> bytes:
    return header(session.config.recording_format, session.format, session.frame_count)


def _wav_header(of: PcmFormat, frames: int) -> bytes:
    """Of a WAV, or of an RF64 (EBU Tech 3306) where a WAV would be too long."""
    data_bytes = frames * of.frame_bytes
    format_ = _format(of)
    fmt = struct.pack("<4sI", b"fmt ", len(format_)) + format_
    if of.encoding is not Encoding.LINEAR16:
        fmt += struct.pack("<4sII", b"fact", 4, min(frames, _LONGEST_WAV))
    behind = 4 + len(fmt) + 8 + data_bytes
    if behind <= _LONGEST_WAV:
        return struct.pack("<4sI4s", b"RIFF", behind, b"WAVE") + fmt + _data(data_bytes)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, behind + 36, data_bytes, frames, 0)
    return struct.pack("<4sI4s", b"RF64", _LONGEST_WAV, b"WAVE") + ds64 + fmt + _data(_LONGEST_WAV)


def _data(size: int) -> bytes:
    return struct.pack("<4sI", b"data", size)


def _w64_header(of: PcmFormat, frames: int) -> bytes:
    """Of a Sony Wave64. Its chunks begin at multiples of 8; each length counts its own head."""
    data_bytes = frames * of.frame_bytes
    chunks = _w64_chunk(b"fmt ", _format(of))
    if of.encoding is not Encoding.LINEAR16:
        chunks += _w64_chunk(b"fact", struct.pack("<Q", frames))
    head = b"wave" + _W64_CHUNK + chunks + _w64_chunk(b"data", b"", data_bytes)
    return b"riff" + _W64_RIFF + struct.pack("<Q", 24 + len(head) + data_bytes) + head


def _w64_chunk(name: bytes, body: bytes, behind: int = 0) -> bytes:
    return name + _W64_CHUNK + struct.pack("<Q", 24 + len(body) + behind) + body


def _format(of: PcmFormat) -> bytes:
    """WAVEFORMAT: 16 bytes."""
    return struct.pack(
        "<HHIIHH",
        _FORMAT_TAGS[of.encoding],
        of.channels,
        of.rate_hertz,
        of.rate_hertz * of.frame_bytes,
        of.frame_bytes,
        8 * of.sample_bytes,
    )


class Recordings:
    """Reads and joins recordings."""

    def __init__(self, store: Store, objects: RecentObjects) -> None:
        self._store = store
        self._objects = objects
        self._room = Room(JOINING_BYTES)
        self._snapshots = Shared(self._snapshot)

    async def read(self, session: Session, start_frame: int, end_frame: int) -> bytes:
        """Returns the samples of a stretch, as they lie in the recording's format.

        Raises:
            ObjectNotFound: what it was made of is gone; the finished file is there.
        """
        if session.finished:
            return await self._read_file(session, start_frame, end_frame)
        pieces = await self._store.pieces(session.session_id, start_frame, end_frame)
        return await self._read_pieces(session.format, pieces, start_frame, end_frame)

    async def _read_file(self, session: Session, start_frame: int, end_frame: int) -> bytes:
        of = session.format
        begin = len(_header_of(session)) + start_frame * of.frame_bytes
        size = (min(end_frame, session.frame_count) - start_frame) * of.frame_bytes
        return await self._objects.store.get_range(file_key(session), begin, size)

    async def _read_pieces(
        self, of: PcmFormat, pieces: list[Piece], start_frame: int, end_frame: int
    ) -> bytes:
        reading = asyncio.Semaphore(_READS)

        async def read(piece: Piece) -> bytes:
            first, last = max(piece.start_frame, start_frame), min(piece.end_frame, end_frame)
            if piece.object_key is None:
                return of.silence(last - first)
            offset = piece.object_offset + (first - piece.start_frame) * of.frame_bytes
            size = (last - first) * of.frame_bytes
            async with reading:
                data = await self._objects.get_range(piece.object_key, offset, size)
            if len(data) != size:
                raise ObjectNotFound(f"{piece.object_key} has not the {size} bytes at {offset}")
            return data

        inside = [p for p in pieces if p.end_frame > start_frame and p.start_frame < end_frame]
        data = b"".join(await asyncio.gather(*map(read, inside)))
        if len(data) != (end_frame - start_frame) * of.frame_bytes:
            raise ObjectNotFound(f"there are no pieces of all from {start_frame} to {end_frame}")
        return data

    async def join(self, lease: Lease, session: Session) -> Session:
        """Joins the next part, if there is enough for one. The head is left for the header.

        Raises:
            StaleLease: another replica does it.
        """
        step = part_frames(session)
        start = max(session.joined_frame_count, head_frames(session.format))
        if session.frame_count < start + step:
            return session
        part = Part(
            number=session.part_count,
            start_frame=start,
            frame_count=step,
            object_key=part_key(lease, session.part_count),
        )
        async with self._reading(session, step):
            data = await self.read(session, part.start_frame, part.end_frame)
            await self._objects.store.put(part.object_key, data)
        return await self._store.add_part(lease, part)

    def _reading(self, session: Session, frames: int) -> AbstractAsyncContextManager[None]:
        """Room for what is read, and once more for what is written of it."""
        return self._room.taken(2 * frames * session.format.frame_bytes, patience=None)

    async def snapshot(self, session: Session, lifetime: timedelta) -> tuple[str, int]:
        """Returns a URL of one file with all that is recorded, and how many frames that are.

        Of a long recording, it may lack the last seconds: each file is a copy of all.
        """
        if session.finished or session.audio_id is not None:
            await self.check_file(session)
            key, frames = file_key(session), session.frame_count
        else:
            key, frames = await self._snapshots.get((session.session_id, lifetime))
        return self._objects.store.presigned_get(key, lifetime), frames

    async def _snapshot(self, of: tuple[UUID, timedelta]) -> tuple[str, int]:
        """Makes a file of what is recorded now, unless there is one that is new enough."""
        session_id, lifetime = of
        session = await self._store.get(session_id)
        suffix = session.config.recording_format.suffix
        prefix = snapshots_prefix(session_id, datetime.now(UTC))
        age = session.frame_count - session.format.frames_in(_SHORT)
        oldest = session.frame_count - max(0, age // _SNAPSHOT_AGE)
        for key in await self._objects.store.list_prefix(prefix):
            frames = int(key.removeprefix(prefix).removesuffix(suffix))
            if oldest <= frames <= session.frame_count:
                return key, frames
        await self._store.remove_later(prefix, _SNAPSHOTS_TOGETHER + lifetime)
        key = f"{prefix}{session.frame_count}{suffix}"
        await self.make_file(session, key)
        return key, session.frame_count

    async def check_file(self, session: Session) -> None:
        """Raises ObjectNotFound if the finished file was deleted, as the audio that it became."""
        await self._objects.store.stat(file_key(session))

    async def frames_of_file(self, session: Session) -> int:
        """How much is in the finished file. Raises ObjectNotFound."""
        size = await self._objects.store.stat(file_key(session))
        frame_bytes = session.format.frame_bytes
        head = header(session.config.recording_format, session.format, size // frame_bytes)
        return max(0, size - len(head)) // frame_bytes

    async def make_file(self, session: Session, key: str) -> None:
        """Makes one file of the recording, unless it is there. Twice makes the same bytes.

        Raises:
            RecordingExists: another file is there, which may be all that is left of what it holds.
        """
        store = self._objects.store
        of = session.format
        before = _header_of(session)
        content_type = session.config.recording_format.content_type
        try:
            if await store.stat(key) == len(before) + session.frame_count * of.frame_bytes:
                return
            raise RecordingExists(key)
        except ObjectNotFound:
            pass
        parts = [
            part
            for part in await self._store.parts(session.session_id)
            if part.end_frame <= session.frame_count
        ]
        head = head_frames(of)
        if session.frame_count < 2 * head:
            async with self._reading(session, session.frame_count):
                whole = before + await self.read(session, 0, session.frame_count)
                await store.put(key, whole, content_type)
            return
        upload = await store.create_multipart(key, content_type)
        try:
            async with self._reading(session, head):
                first = before + await self.read(session, 0, head)
                made = [await store.upload_part(key, upload, 1, first)]
            del first  # while parts are copied
            made += await self._copied(key, upload, parts, of.frame_bytes)
            # The tail. Where much is not joined yet it is long, and never in memory whole.
            step, tail = part_frames(session), parts[-1].end_frame if parts else head
            for start in range(tail, session.frame_count, step):
                async with self._reading(session, step):
                    data = await self.read(session, start, min(start + step, session.frame_count))
                    made.append(await store.upload_part(key, upload, len(made) + 1, data))
            await store.complete_multipart(key, upload, made)
        except BaseException:
            await asyncio.shield(store.abort_multipart(key, upload))
            raise

    async def _copied(
        self, key: str, upload: str, parts: list[Part], frame_bytes: int
    ) -> list[UploadedPart]:
        store = self._objects.store
        copying = asyncio.Semaphore(_READS)

        async def copy(number: int, part: Part) -> UploadedPart:
            async with copying:
                size = part.frame_count * frame_bytes
                return await store.copy_part(key, upload, number, part.object_key, size)

        return list(await asyncio.gather(*(copy(n, part) for n, part in enumerate(parts, 2))))


def head_frames(of: PcmFormat) -> int:
    """Length of what stands before the first part: the least that S3 takes, in whole frames."""
    return -(-PART_BYTES // of.frame_bytes)


def part_frames(session: Session) -> int:
    """Length of a part: the more, the longer the recording may become."""
    longest = session.format.frames_in(session.config.max_duration)
    return max(head_frames(session.format), -(-longest // MOST_PARTS))
