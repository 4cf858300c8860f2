"""The bytes of a container that is streamed, as its decoder reads them.

Most formats have marks by which a decoder goes on behind missing bytes. A WAV has none: a sample
would be cut in two, all after it would be noise, and come too early. So in a WAV of plain samples
there is silence in the place of chunks that never came, each as long as the chunk before it; behind
the first chunk, which holds a header too, as long as the one after.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from steno.concatenation.domain import CONTAINER_RATE_HERTZ, Gap, GapCause, Session
from steno.concatenation.latest import Latest
from steno.concatenation.recent import RecentObjects
from steno.concatenation.store import Store

_LONGEST_HEAD = 2**16
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_QUIET = {(_PCM, 8): b"\x80", (_ALAW, 8): b"\xd5", (_MULAW, 8): b"\xff"}


@dataclass(frozen=True, slots=True)
class Wave:
    """How plain samples lie in a WAV.

    Attributes:
        first_byte: where they begin.
        frame_bytes: length of one sample of each channel.
        rate_hertz: of the samples.
        quiet: a byte of silence.
    """

    first_byte: int
    frame_bytes: int
    rate_hertz: int
    quiet: bytes

    def frame_at(self, offset: int) -> int:
        """The frame of the recording that is made of what is at an offset."""
        seconds = (offset - self.first_byte) / self.frame_bytes / self.rate_hertz
        return max(0, round(seconds * CONTAINER_RATE_HERTZ))


def wave_of(head: bytes) -> Wave | None:
    """Reads the header of a WAV. None: this is none, or has no plain samples, or begins later."""
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    at, about = 12, b""
    while len(head) >= at + 8:
        name, size = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            return _plain(about, at)
        if name == b"fmt ":
            about = head[at : at + size]
        at += size + size % 2
    return None


def _plain(about: bytes, first_byte: int) -> Wave | None:
    if len(about) < 16:
        return None
    tag, _, rate_hertz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", about)
    if tag == _EXTENSIBLE and len(about) >= 26:
        (tag,) = struct.unpack_from("<H", about, 24)  # the first bytes of its GUID
    if tag not in (_PCM, _FLOAT, _ALAW, _MULAW) or not (rate_hertz and frame_bytes):
        return None
    return Wave(first_byte, frame_bytes, rate_hertz, _QUIET.get((tag, bits), b"\x00"))


class ContainerStream:
    """Reads the container of one session."""

    def __init__(self, store: Store, objects: RecentObjects, latest: Latest) -> None:
        self._store = store
        self._objects = objects
        self._latest = latest
        self._head = b""
        self._next = 0
        """Sequence behind the last chunk that was read."""
        self._silences: list[range] = []
        """Where nothing came, in bytes of the container."""
        self._quiet = b""
        self._gaps: deque[Gap] = deque()

    async def read_at(self, offset: int, size: int) -> bytes:
        """Reads what is there; waits where nothing is, unless the session has ended."""
        byte = offset  # of what came
        for silence in self._silences:
            if offset in silence:
                return self._quiet * min(size, silence.stop - offset)
            if offset >= silence.stop:
                byte -= len(silence)
        session = await self._latest.until(lambda s: s.byte_count > byte or s.state.ended)
        found = await self._store.chunk_at(session.session_id, byte)
        if found is None:
            return b""
        chunk, start = found
        if chunk.sequence > self._next:
            await self._find_missing(session, chunk.sequence)
            return await self.read_at(offset, size)
        self._next = max(self._next, chunk.sequence + 1)
        within = byte - start
        data = await self._objects.get_range(
            chunk.object_key, chunk.object_offset + within, min(size, chunk.size_bytes - within)
        )
        if offset == len(self._head) < _LONGEST_HEAD:
            self._head += data
        return data

    def gaps_before(self, frame: int) -> Iterator[Gap]:
        """Yields the gaps that end before a frame of the recording, each once."""
        while self._gaps and self._gaps[0].start_frame + self._gaps[0].frame_count <= frame:
            yield self._gaps.popleft()

    async def _find_missing(self, session: Session, before: int) -> None:
        """Finds what never came of the chunks from the next to be read up to another."""
        wave = wave_of(self._head)
        for missing in await self._store.missing(session.session_id, self._next, before):
            start, frames = session.frame_count, 0
            if wave is not None:
                begin = missing.start_byte + sum(map(len, self._silences))
                silence = range(begin, begin + missing.count * missing.usual_bytes)
                self._silences.append(silence)
                self._quiet = wave.quiet
                start = wave.frame_at(silence.start)
                frames = wave.frame_at(silence.stop) - start
            self._gaps.append(
                Gap(missing.first_sequence, missing.last_sequence, start, frames, GapCause.MISSING)
            )
        self._next = before
