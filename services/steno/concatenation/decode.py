"""Containers become sound: hostile bytes, so in the sandbox, by whoever holds the session's lease.

Of FILES each chunk is decoded by itself. A small one can hold hours, so what comes out is stored
minute by minute; it is recorded all at once when it is all there. A STREAM is decoded by one child
process, which waits where the container is not there yet. A replica that takes over decodes it
again from its start, and passes over what is recorded: the same bytes give the same samples.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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
    CONTAINER_RATE_HERTZ,
    ChunkForm,
    DecodingError,
    GapCause,
    Lease,
    Session,
    Sound,
    StoredChunk,
)
from steno.concatenation.keys import decoded_key
from steno.concatenation.latest import Latest
from steno.concatenation.recent import RecentObjects
from steno.concatenation.store import Store

log = logging.getLogger(__name__)

_PCM = "application/octet-stream"

_MOST_BYTES = 60 * CONTAINER_RATE_HERTZ * SAMPLE_BYTES
"""Most of a file's sound that is in memory, or in one object: a minute."""

_FILE_CPU_SECONDS = 45
"""Less than a decoder may be silent: whose bytes keep it busy for so long is undecodable."""


class Decoder:
    """Decodes the chunks of one session."""

    def __init__(self, lease: Lease, store: Store, objects: RecentObjects, latest: Latest) -> None:
        self._lease = lease
        self._store = store
        self._objects = objects
        self._latest = latest
        self._undecodable = -1
        """No file from the start up to this one can be decoded, as far as is known."""

    async def run(self) -> None:
        """Decodes until the session has ended and all of it is decoded.

        Raises:
            StaleLease: another replica does it.
            DecoderFailed: the decoder died; another try may succeed.
        """
        if self._latest.session.drained:
            return
        if self._latest.session.config.chunk_form is ChunkForm.FILES:
            await self._files()
        else:
            await self._stream()

    async def _files(self) -> None:
        while True:
            session = self._latest.session
            last = await self._store.missing_from(session)
            if last is not None:
                self._latest.update(await self._silence(session, last, GapCause.MISSING))
                continue
            chunks = await self._store.chunks_from(session, session.decoded_sequence, limit=1)
            if chunks:
                self._latest.update(await self._file(session, chunks[0]))
            elif session.state.ended:
                self._latest.update(await self._store.drain(self._lease))
                return
            else:
                done = session.decoded_sequence
                await self._latest.until(
                    lambda s, done=done: s.next_sequence > done or s.state.ended  # type: ignore[misc]
                )

    async def _file(self, session: Session, chunk: StoredChunk) -> Session:
        sounds: list[Sound] = []
        end, done = session.frame_count, chunk.sequence + 1
        try:
            async with self._decoding(session, chunk) as decoding:
                async for pcm in _gathered(decoding):
                    sounds.append(await self._put(end, pcm, done))
                    end += sounds[-1].frame_count
        except AudioRejected as error:
            log.warning("chunk %d: %s", chunk.sequence, error, extra={"action": "decode_chunk"})
            for sound in sounds:  # of a file that can't be decoded to its end
                await self._objects.store.remove(sound.object_key)
            return await self._silence(session, chunk.sequence, GapCause.UNDECODABLE)
        return await self._store.add_decoded(self._lease, sounds, done)

    @asynccontextmanager
    async def _decoding(self, session: Session, chunk: StoredChunk) -> AsyncIterator[Decoding]:
        content = await self._objects.get_range(
            chunk.object_key, chunk.object_offset, chunk.size_bytes
        )
        room = session.format.seconds(session.room_frames)
        limits = Limits(max_duration_seconds=max(1.0, room), cpu_seconds=_FILE_CPU_SECONDS)
        async with decode(in_memory(content), len(content), limits) as decoding:
            yield decoding

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
                    async with self._decoding(session, chunks[0]) as decoding:
                        return sum([len(block) async for block in decoding])
                sequence = self._undecodable = chunks[0].sequence
            elif session.state.ended:
                return 0
            else:
                session = await self._latest.until(
                    lambda s, done=sequence: s.next_sequence > done + 1 or s.state.ended  # type: ignore[misc]
                )

    async def _stream(self) -> None:
        recorded = self._latest.session.frame_count
        seconds = self._latest.session.config.max_duration.total_seconds()
        stream = ContainerStream(self._store, self._objects, self._latest)
        error_of_session = None
        try:
            async with decode(stream.read_at, None, _limits(seconds)) as decoding:
                await self._record(decoding, stream, recorded)
        except AudioRejected as error:
            if error.reason not in (Reason.EMPTY, Reason.TOO_MANY_SAMPLES):
                error_of_session = DecodingError(error.reason, error.message)
        await self._note_gaps(stream, sys.maxsize)
        self._latest.update(await self._store.drain(self._lease, error_of_session))

    async def _record(self, decoding: Decoding, stream: ContainerStream, recorded: int) -> None:
        at = 0
        async for block in decoding:
            fresh = block[max(0, recorded - at) :]
            at += len(block)
            if len(fresh):
                session = self._latest.session
                data = np.ascontiguousarray(fresh).tobytes()
                done = session.next_sequence
                sound = await self._put(session.frame_count, data, done)
                self._latest.update(await self._store.add_decoded(self._lease, [sound], done))
            await self._note_gaps(stream, at)

    async def _note_gaps(self, stream: ContainerStream, before_frame: int) -> None:
        for gap in stream.gaps_before(before_frame):
            self._latest.update(await self._store.note_gap(self._lease, gap))

    async def _put(self, start_frame: int, pcm: bytes, next_sequence: int) -> Sound:
        key = decoded_key(self._lease, start_frame, next_sequence)
        await self._objects.put(key, pcm, _PCM)
        return Sound(key, len(pcm) // SAMPLE_BYTES)


async def _gathered(decoding: Decoding) -> AsyncIterator[bytes]:
    """Joins what comes out of a file into runs of a minute; the last is shorter."""
    run = bytearray()
    async for block in decoding:
        run += block.tobytes()
        if len(run) >= _MOST_BYTES:
            yield bytes(run)
            run.clear()
    if run:
        yield bytes(run)


def _limits(seconds: float) -> Limits:
    # A stream is decoded while it happens: what it may take of the processor grows with it.
    return Limits(
        max_duration_seconds=max(1.0, seconds), cpu_seconds=60 + round(max(1.0, seconds) / 4)
    )
