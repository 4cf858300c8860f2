"""Containers become sound: hostile bytes, so in the sandbox, by whoever holds the session's lease.

Of FILES each chunk is decoded by itself. A STREAM is decoded by one child process, which waits
where the container is not there yet. A replica that takes over decodes it again from its start,
and passes over what is recorded already: the same bytes give the same samples.
"""

from __future__ import annotations

import logging

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
from steno.concatenation.domain import ChunkForm, DecodingError, Lease, Session, StoredChunk
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
            if passed := await self._store.pass_gap(self._lease):
                self._progress.see(passed)
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
        content = await self._objects.get_range(
            chunk.object_key, chunk.object_offset, chunk.size_bytes
        )
        room = session.format.seconds(session.room_frames)
        try:
            async with decode(in_memory(content), len(content), _limits(room)) as decoding:
                pcm = b"".join([block.tobytes() async for block in decoding])
        except AudioRejected as error:
            log.warning("chunk %d: %s", chunk.sequence, error, extra={"action": "decode_chunk"})
            return await self._store.add_undecodable(self._lease, chunk.sequence)
        return await self._keep(session, pcm, chunk.sequence + 1)

    # One container

    async def _stream(self) -> None:
        recorded = self._progress.session.frame_count
        seconds = self._progress.session.config.max_duration.total_seconds()
        try:
            async with decode(self._read_at, None, _limits(seconds)) as decoding:
                await self._record(decoding, recorded)
        except AudioRejected as error:
            if error.reason in (Reason.EMPTY, Reason.TOO_MANY_SAMPLES):
                error_of_session = None
            else:
                error_of_session = DecodingError(error.reason, error.message)
            self._progress.see(await self._store.drain(self._lease, error_of_session))
        else:
            self._progress.see(await self._store.drain(self._lease))

    async def _record(self, decoding: Decoding, recorded: int) -> None:
        at = 0
        async for block in decoding:
            fresh = block[max(0, recorded - at) :]
            at += len(block)
            if len(fresh):
                session = self._progress.session
                data = np.ascontiguousarray(fresh).tobytes()
                self._progress.see(await self._keep(session, data, session.next_sequence))

    async def _read_at(self, offset: int, size: int) -> bytes:
        """Reads what is there of the container; waits where nothing is, unless it has ended."""
        session = await self._progress.until(lambda s: s.byte_count > offset or s.state.ended)
        found = await self._store.chunk_at(session.session_id, offset)
        if found is None:
            return b""
        chunk, start = found
        within = offset - start
        return await self._objects.get_range(
            chunk.object_key, chunk.object_offset + within, min(size, chunk.size_bytes - within)
        )

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
