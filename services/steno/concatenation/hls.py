"""A recording for players: an HLS playlist (RFC 8216) of FLAC in fragmented MP4.

Segments are made when somebody asks for them and never change, so a recording that nobody plays
costs nothing. FLAC keeps every sample: what is played while the recording grows is the beginning
of what is there in the end.
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import takewhile
from typing import Any
from uuid import UUID

import av
import numpy as np
from numpy.typing import NDArray

from steno.concatenation.domain import PcmFormat, Session
from steno.concatenation.keys import hls_prefix
from steno.concatenation.metrics import SEGMENTS
from steno.concatenation.recording import Recordings
from steno.concatenation.samples import to_numbers
from steno.platform.objects import ObjectStore

SEGMENT_SECONDS = 6

MOST_NEW_SEGMENTS = 600
"""Segments that one call makes: an hour. The playlist of a long recording that was never asked
for grows with each call."""

MOST_LINES = 100_000
"""Lines of playlists that are remembered: some 25 MB, or 40 hours of sound."""

_AT_ONCE = 4
_INIT = "init.mp4"
_TYPE = "audio/mp4"
_MOVFLAGS = "empty_moov+default_base_moof+skip_trailer"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording that is played as one."""

    start_frame: int
    end_frame: int

    @property
    def name(self) -> str:
        """Last part of its object's key."""
        return f"{self.start_frame}-{self.end_frame}.m4s"


@dataclass
class _Playlist:
    """What of a playlist never changes, with URLs that were signed after `signed`."""

    signed: datetime
    lines: list[str] = field(default_factory=list)
    segment_count: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Playlists:
    """Makes playlists, and the segments that they lack.

    Players ask for theirs again every few seconds. What they were sent is remembered, so that only
    what was added since has to be made and signed: MOST_LINES of all playlists.
    """

    def __init__(self, recordings: Recordings, store: ObjectStore) -> None:
        self._recordings = recordings
        self._store = store
        self._recent: OrderedDict[UUID, _Playlist] = OrderedDict()

    async def playlist(self, session: Session, lifetime: timedelta) -> tuple[str, datetime]:
        """Returns a playlist, and when its URLs stop working.

        Raises:
            ObjectNotFound: the recording was deleted before a segment was made of it.
        """
        known = self._recent.get(session.session_id)
        if known is None or datetime.now(UTC) - known.signed > lifetime / 4:
            known = self._recent[session.session_id] = _Playlist(datetime.now(UTC))
        self._recent.move_to_end(session.session_id)
        async with known.changing:
            segments = segments_of(session, known.segment_count)
            there = await self._made(session, segments, anew=not known.segment_count)
            # To sign the URLs of a long recording takes a second.
            lines = await asyncio.to_thread(self._signed, session, there, lifetime)
            if lines and not known.lines:  # before there is a segment there is no map either
                known.lines.append(self._map(session, lifetime))
            known.lines += lines
            known.segment_count += len(there)
        self._forget()
        ended = session.drained and len(there) == len(segments)
        return render(known.lines, ended=ended), known.signed + lifetime

    async def _made(
        self, session: Session, segments: Sequence[Segment], *, anew: bool
    ) -> Sequence[Segment]:
        """Makes segments that are not there; returns those that follow one another."""
        prefix = hls_prefix(session.session_id)
        there = set[str]()
        if anew:
            there |= {key.removeprefix(prefix) for key in await self._store.list_prefix(prefix)}
        missing = [each for each in segments if each.name not in there][:MOST_NEW_SEGMENTS]
        if anew and missing and _INIT not in there:
            init, _ = await asyncio.to_thread(encode, session.format, b"", 0)
            await self._store.put(prefix + _INIT, init, _TYPE)
        making = asyncio.Semaphore(_AT_ONCE)

        async def make(segment: Segment) -> str:
            async with making:
                read = self._recordings.read
                pcm = await read(session, segment.start_frame, segment.end_frame)
                _, media = await asyncio.to_thread(encode, session.format, pcm, segment.start_frame)
                await self._store.put(prefix + segment.name, media, _TYPE)
                SEGMENTS.inc()
                return segment.name

        there |= set(await asyncio.gather(*map(make, missing)))
        return list(takewhile(lambda segment: segment.name in there, segments))

    def _signed(
        self, session: Session, segments: Sequence[Segment], lifetime: timedelta
    ) -> list[str]:
        prefix = hls_prefix(session.session_id)
        lines = []
        for segment in segments:
            seconds = session.format.seconds(segment.end_frame - segment.start_frame)
            url = self._store.presigned_get(prefix + segment.name, lifetime)
            lines += [f"#EXTINF:{seconds:.6f},", url]
        return lines

    def _map(self, session: Session, lifetime: timedelta) -> str:
        key = hls_prefix(session.session_id) + _INIT
        return f'#EXT-X-MAP:URI="{self._store.presigned_get(key, lifetime)}"'

    def _forget(self) -> None:
        lines = sum(len(playlist.lines) for playlist in self._recent.values())
        while lines > MOST_LINES and len(self._recent) > 1:
            _, oldest = self._recent.popitem(last=False)
            lines -= len(oldest.lines)


def segments_of(session: Session, first: int = 0) -> list[Segment]:
    """The segments of what is recorded, from one on; one that is not whole only at the very end."""
    step = SEGMENT_SECONDS * session.format.rate_hertz
    starts = range(first * step, session.frame_count, step)
    segments = [Segment(start, min(start + step, session.frame_count)) for start in starts]
    if (
        segments
        and not session.drained
        and segments[-1].end_frame < segments[-1].start_frame + step
    ):
        segments.pop()
    return segments


def render(lines: Sequence[str], *, ended: bool) -> str:
    """Writes a playlist of its map and its segments."""
    head = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{SEGMENT_SECONDS}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}",
    ]
    tail = ["#EXT-X-ENDLIST"] if ended else []
    return "\n".join([*head, *lines, *tail, ""])


def encode(of: PcmFormat, pcm: bytes, start_frame: int) -> tuple[bytes, bytes]:
    """Encodes samples; returns what all segments begin with, and this segment."""
    numbers: NDArray[Any] = to_numbers(of, pcm)
    if numbers.dtype == np.float32:
        # 24 bits: all that a float has, but for what is louder than full scale.
        whole = np.rint(np.nan_to_num(numbers).clip(-1, 1) * (2.0**23 - 1)).astype(np.int32) << 8
        numbers, sample_format = whole, "s32"
    else:
        sample_format = "s16"
    layout = _LAYOUTS[of.channels]
    out = BytesIO()
    with av.open(out, "w", format="mp4", options={"movflags": _MOVFLAGS}) as container:
        stream = container.add_stream("flac", rate=of.rate_hertz, layout=layout)
        stream.codec_context.format = sample_format
        stream.codec_context.options = {"strict": "experimental"}
        container.start_encoding()
        size = stream.codec_context.frame_size
        for at in range(0, len(numbers), size):
            block = np.ascontiguousarray(numbers[at : at + size]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format=sample_format, layout=layout)
            frame.sample_rate = of.rate_hertz
            frame.pts = at
            container.mux(stream.encode(frame))
        if len(numbers):
            container.mux(stream.encode(None))
    made = out.getvalue()
    number = start_frame // (SEGMENT_SECONDS * of.rate_hertz)
    init_size = _size_before(made, b"moof")
    return made[:init_size], _placed(made[init_size:], number, start_frame)


def _placed(media: bytes, number: int, start_frame: int) -> bytes:
    """Moves a fragment, which was made as if it were the first, to its place in the recording."""
    placed = bytearray(media)
    if at := placed.find(b"mfhd") + 1:
        struct.pack_into(">I", placed, at + 7, number + 1)  # sequence_number
    if at := placed.find(b"tfdt") + 1:
        struct.pack_into(">Q", placed, at + 7, start_frame)  # baseMediaDecodeTime, version 1
    return bytes(placed)


_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def _size_before(boxes: bytes, name: bytes) -> int:
    """Length of the boxes (ISO 14496-12) before the first of a name."""
    at = 0
    while at + 8 <= len(boxes) and boxes[at + 4 : at + 8] != name:
        at += int.from_bytes(boxes[at : at + 4], "big")
    return at
