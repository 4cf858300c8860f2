"""Containers become sound: hostile bytes, so in the sandbox, by whoever holds the session's lease.

Of FILES each chunk is decoded by itself. A STREAM is decoded by one child process, which waits
where the container is not there yet. A replica that takes over decodes it again from its start,
and passes over what is recorded already: the same bytes give the same samples.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import numpy as np

from steno.audio import (
    SAMPLE_BYTES,
    AudioRejected,
    Decoding,
    Limits,
    Reason,
    decode,
    in_memory,
)
from steno.concatenation.container import ContainerStream
from steno.concatenation.domain import (
    ChunkForm,
    DecodingError,
    GapCause,
    Lease,
    Session,
    StoredChunk,
)
from steno.concatenation.progress import Progress
from steno.concatenation.recent import RecentObjects
from steno.concatenation.store import Store, prefix_of

log = logging.getLogger(__name__)

_PCM = "application/octet-stream"


class Decoder:
    """Decodes the chunks of one session."""

    def __init__(
        self, lease: Lease, store: Store, objects: RecentObjects, progress: Progress
    ) -> None:
        self._lease = lease
        self._store = store
        self._objects = objects
        self._progress = progress
        self._undecodable = -1
        """No file from the start up to this one can be decoded, as far as was looked."""

    async def run(self) -> None:
        """Decodes until the session has ended and all of it is decoded.

        Raises:
            StaleLease: another replica does it.
            DecoderFailed: the decoder died; another try may succeed.
        """
        if self._progress.session.drained:
            return
        if self._progress.session.config.chunk_form is ChunkForm.FILES:
            await self._files()
        else:
            await self._stream()

    # Files

    async def _files(self) -> None:
        while True:
            session = self._progress.session
            last = await self._store.missing_from(session)
            if last is not None:
                self._progress.see(await self._silence(session, last, GapCause.MISSING))
                continue
            chunks = await self._store.chunks_from(session, session.decoded_sequence, limit=1)
            if chunks:
                self._progress.see(await self._file(session, chunks[0]))
            elif session.state.ended:
                self._progress.see(await self._store.drain(self._lease))
                return
            else:
                done = session.decoded_sequence
                await self._progress.until(
                    lambda s, done=done: s.next_sequence > done or s.state.ended  # type: ignore[misc]
                )

    async def _file(self, session: Session, chunk: StoredChunk) -> Session:
        try:
            pcm = await self._decoded(session, chunk)
        except AudioRejected as error:
            log.warning("chunk %d: %s", chunk.sequence, error, extra={"action": "decode_chunk"})
            return await self._silence(session, chunk.sequence, GapCause.UNDECODABLE)
        return await self._keep(session, pcm, chunk.sequence + 1)

    async def _decoded(self, session: Session, chunk: StoredChunk) -> bytes:
        content = await self._objects.get_range(
            chunk.object_key, chunk.object_offset, chunk.size_bytes
        )
        room = session.format.seconds(session.room_frames)
        async with decode(in_memory(content), len(content), _limits(room)) as decoding:
            return b"".join([block.tobytes() async for block in decoding])

    async def _silence(self, session: Session, last: int, cause: GapCause) -> Session:
        """Puts silence in the place of the next chunks: as long as the one before, or after."""
        usual = session.chunk_frame_count or await self._length_after(session, last)
        return await self._store.add_silence(self._lease, last, usual, cause)

    async def _length_after(self, session: Session, sequence: int) -> int:
        """The length of the first chunk after one that can be decoded; waits for it."""
        sequence = max(sequence, self._undecodable)
        while True:
            chunks = await self._store.chunks_from(session, sequence + 1, limit=1)
            if chunks:
                with suppress(AudioRejected):
                    return len(await self._decoded(session, chunks[0])) // SAMPLE_BYTES
                sequence = self._undecodable = chunks[0].sequence
            elif session.state.ended:
                return 0
            else:
                session = await self._progress.until(
                    lambda s, done=sequence: s.next_sequence > done + 1 or s.state.ended  # type: ignore[misc]
                )

    # One container

    async def _stream(self) -> None:
        recorded = self._progress.session.frame_count
        seconds = self._progress.session.config.max_duration.total_seconds()
        stream = ContainerStream(self._store, self._objects, self._progress)
        error_of_session = None
        try:
            async with decode(stream.read_at, None, _limits(seconds)) as decoding:
                await self._record(decoding, stream, recorded)
        except AudioRejected as error:
            if error.reason not in (Reason.EMPTY, Reason.TOO_MANY_SAMPLES):
                error_of_session = DecodingError(error.reason, error.message)
        await self._note_gaps(stream, sys.maxsize)
        self._progress.see(await self._store.drain(self._lease, error_of_session))

    async def _record(self, decoding: Decoding, stream: ContainerStream, recorded: int) -> None:
        at = 0
        async for block in decoding:
            fresh = block[max(0, recorded - at) :]
            at += len(block)
            if len(fresh):
                session = self._progress.session
                data = np.ascontiguousarray(fresh).tobytes()
                self._progress.see(await self._keep(session, data, session.next_sequence))
            await self._note_gaps(stream, at)

    async def _note_gaps(self, stream: ContainerStream, before_frame: int) -> None:
        for gap in stream.gaps_before(before_frame):
            self._progress.see(await self._store.note_gap(self._lease, gap))

    async def _keep(self, session: Session, pcm: bytes, next_sequence: int) -> Session:
        key = (
            f"{prefix_of(session.session_id)}decoded/{self._lease.attempt}/{session.frame_count}"
            f"-{next_sequence}"
        )
        if pcm:
            await self._objects.put(key, pcm, _PCM)
        frames = len(pcm) // SAMPLE_BYTES
        return await self._store.add_decoded(
            self._lease, frames, key if frames else None, next_sequence
        )


def _limits(seconds: float) -> Limits:
    # A stream is decoded while it happens: what it may take of the processor grows with it.
    return Limits(
        max_duration_seconds=max(1.0, seconds), cpu_seconds=60 + round(max(1.0, seconds) / 4)
    )
