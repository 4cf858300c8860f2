"""Sessions, and what stands in for the database and the object store behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from steno.concatenation.domain import (
    ChunkForm,
    Encoding,
    Gap,
    GapCause,
    Lease,
    Part,
    Piece,
    RecordingFormat,
    Session,
    SessionConfig,
    SessionState,
    Sound,
    StoredChunk,
)
from steno.platform.objects import ObjectNotFound, UploadedPart

NOW = datetime(2026, 1, 1, tzinfo=UTC)

CONFIG = SessionConfig(
    encoding=Encoding.CONTAINER,
    sample_rate_hertz=0,
    channel_count=0,
    chunk_form=ChunkForm.FILES,
    language_code="en",
    live_results=True,
    interim_results=False,
    endpointing_silence=timedelta(seconds=0.7),
    idle_timeout=timedelta(minutes=5),
    max_duration=timedelta(hours=12),
    gap_timeout=timedelta(seconds=10),
    final_job=True,
    final_job_config=b"",
    recording_format=RecordingFormat.WAV,
)

SESSION = Session(
    session_id=UUID(int=1),
    config=CONFIG,
    display_name="",
    labels={},
    tenant="default",
    state=SessionState.CLOSED,
    error=None,
    epoch=1,
    producer_id=None,
    next_sequence=0,
    max_sequence=-1,
    byte_count=0,
    decoded_sequence=0,
    frame_count=0,
    chunk_frame_count=0,
    gap_frame_count=0,
    drained=False,
    part_count=0,
    joined_frame_count=0,
    live_frame_count=0,
    live_segment_count=0,
    live_language_code="",
    live_done=False,
    live_error="",
    audio_id=None,
    job_id=None,
    job_error="",
    finished=False,
    parking=None,
    revision=1,
    create_time=NOW,
    update_time=NOW,
    end_time=NOW,
)
"""It was closed before anybody worked on it."""

LEASE = Lease(SESSION.session_id, attempt=1)


class Shelf:
    """An object store in memory, and how large what was written at once was."""

    def __init__(self) -> None:
        self.store = self
        self.objects: dict[str, bytes] = {}
        self.written: list[int] = []

    async def put(self, key: str, data: bytes, content_type: str = "") -> None:
        self.objects[key] = data
        self.written.append(len(data))

    async def get_range(self, key: str, offset: int, size: int) -> bytes:
        return self.objects[key][offset : offset + size]

    async def stat(self, key: str) -> int:
        if key not in self.objects:
            raise ObjectNotFound(key)
        return len(self.objects[key])

    async def remove(self, key: str) -> None:
        del self.objects[key]

    async def create_multipart(self, key: str, content_type: str) -> str:
        return key

    async def upload_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        await self.put(f"{key}#{number}", data)
        return UploadedPart(number, len(data), "")

    async def copy_part(
        self, key: str, upload: str, number: int, source_key: str, size: int
    ) -> UploadedPart:
        self.objects[f"{key}#{number}"] = self.objects[source_key]
        return UploadedPart(number, size, "")

    async def complete_multipart(self, key: str, upload: str, parts: list[UploadedPart]) -> None:
        pieces = [self.objects.pop(f"{key}#{part.part_number}") for part in parts]
        assert [part.size_bytes for part in parts] == [len(piece) for piece in pieces]
        assert all(len(piece) >= 5 * 2**20 for piece in pieces[:-1])  # S3 takes no others
        self.objects[key] = b"".join(pieces)


class Ledger:
    """What the work behind one session writes down."""

    def __init__(self, session: Session, chunks: Sequence[StoredChunk] = ()) -> None:
        self.session = session
        self.chunks = chunks
        self.sounds: list[Sound] = []
        self.gaps: list[Gap] = []
        self.results: list[Any] = []
        self.joined: list[Part] = []

    async def pieces(self, session_id: UUID, start_frame: int, end_frame: int) -> list[Piece]:
        pieces, start = [], 0
        for sound in self.sounds:
            pieces.append(Piece(start, sound.frame_count, sound.object_key, 0))
            start += sound.frame_count
        return pieces

    async def parts(self, session_id: UUID) -> list[Part]:
        return self.joined

    async def add_part(self, lease: Lease, part: Part) -> Session:
        self.joined.append(part)
        return self._saved(part_count=part.number + 1, joined_frame_count=part.end_frame)

    async def missing_from(self, session: Session) -> int | None:
        return None

    async def chunks_from(self, session: Session, sequence: int, limit: int) -> list[StoredChunk]:
        return [chunk for chunk in self.chunks if chunk.sequence >= sequence][:limit]

    async def add_decoded(
        self, lease: Lease, sounds: Sequence[Sound], next_sequence: int
    ) -> Session:
        self.sounds += sounds
        frames = sum(sound.frame_count for sound in sounds)
        return self._saved(
            frame_count=self.session.frame_count + frames,
            chunk_frame_count=frames,
            decoded_sequence=next_sequence,
        )

    async def add_silence(
        self, lease: Lease, last: int, usual_frames: int, cause: GapCause
    ) -> Session:
        self.gaps.append(
            Gap(self.session.decoded_sequence, last, self.session.frame_count, usual_frames, cause)
        )
        return self._saved(
            frame_count=self.session.frame_count + usual_frames, decoded_sequence=last + 1
        )

    async def drain(self, lease: Lease, error: object = None) -> Session:
        return self._saved(drained=True)

    async def add_results(
        self, lease: Lease, results: Sequence[Any], frame_count: int, language_code: str
    ) -> Session:
        self.results += results
        return self._saved(live_frame_count=max(frame_count, self.session.live_frame_count))

    async def end_live(self, lease: Lease, error: str = "") -> Session:
        return self._saved(live_done=True, live_error=error)

    def _saved(self, **changes: Any) -> Session:
        self.session = replace(self.session, **changes)
        return self.session
