"""Tells a container by its signature.

libav would try the probes of some 300 formats on hostile bytes, playlists and scripts among them.
Here a short list is looked for, and libav is told which demuxer to use.

Sources: the formats' own specifications; frame lengths of MPEG audio from ISO 11172-3 2.4.2.3 and
13818-3, of ADTS from ISO 14496-3 1.A.2.2.1.
"""

from __future__ import annotations

from collections.abc import Callable

from .remote import RemoteFile
from .wire import Reason

SIGNATURE_BYTES = 12
"""Where all signatures are."""

HEAD_BYTES = 64 * 1024
"""How far behind its tags the first frame of an MP3 or ADTS stream is looked for."""

SIGNATURES = (
    # (offset, bytes, name, libav's demuxer)
    (4, b"ftyp", "mp4", "mov"),
    (4, b"styp", "mp4", "mov"),
    (4, b"moov", "mp4", "mov"),
    (4, b"mdat", "mp4", "mov"),
    (4, b"wide", "mp4", "mov"),
    (4, b"free", "mp4", "mov"),
    (4, b"skip", "mp4", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska", "matroska"),
    (0, b"OggS", "ogg", "ogg"),
    (0, b"fLaC", "flac", "flac"),
    (0, b"riff\x2e\x91\xcf\x11", "w64", "w64"),
    (0, b"#!AMR", "amr", "amr"),
    (0, b".snd", "au", "au"),
    (0, b"caff", "caf", "caf"),
)

RIFF_SIGNATURES = (b"RIFF", b"RIFX", b"RF64", b"BW64")

REFUSED = (
    # (bytes at the start, what they are)
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a concat script"),
    (b"<?xml", "an XML document"),
    (b"[playlist]", "a playlist"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"#!/", "a script"),
)

FRAMES_IN_A_ROW = 5
"""Frame headers that must follow one another before bytes without a signature are believed, for
the time being: the tables of a program may look so, too."""


class Rejected(Exception):
    """The recording can't be decoded; no retry can help."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def identify(file: RemoteFile) -> tuple[str, str]:
    """Returns the container's name and libav's demuxer for it.

    Raises `Rejected` for bytes that are none of the supported containers.
    """
    # First a few bytes: more of a recording that is still growing would have to be waited for.
    head = file.read_at(0, SIGNATURE_BYTES)
    if not head:
        raise Rejected(Reason.EMPTY, "The file is empty.")
    if signed := _by_signature(head):
        return signed
    head = file.read_at(0, HEAD_BYTES)
    for signature, what in REFUSED:
        if head.startswith(signature):
            raise Rejected(
                Reason.UNSUPPORTED_FORMAT, f"The file is {what}, not an audio or video recording."
            )
    start = after_id3(head)
    if start:
        head = file.read_at(start, HEAD_BYTES)
        if head[:4] == b"fLaC":
            return "flac", "flac"
    framing = _framing(head)
    if framing:
        return framing, framing
    if start:
        raise Rejected(Reason.NO_SAMPLES, "The file holds tags but no audio.")
    raise Rejected(
        Reason.UNSUPPORTED_FORMAT,
        "The file is text, not an audio or video recording."
        if _is_text(head)
        else "The file is not in a supported audio or video format.",
    )


def _by_signature(head: bytes) -> tuple[str, str] | None:
    if head[:4] in RIFF_SIGNATURES and head[8:12] == b"WAVE":
        return "wav", "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff", "aiff"
    for offset, signature, name, demuxer in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name, demuxer
    return None


def after_id3(head: bytes) -> int:
    """Where the ID3 tag ends with which a file begins; 0 if it has none."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = head[6:10]
    return 10 + (a << 21 | b << 14 | c << 7 | d)


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 32 for byte in head[:1024])


def _framing(head: bytes) -> str:
    """Returns "mp3" or "aac", whichever has frames first, or "" if neither has."""
    at = head.find(b"\xff")
    while 0 <= at < len(head) - 7:
        for name, frame_bytes in (("mp3", mpeg_frame_bytes), ("aac", _adts_frame_bytes)):
            if _frames_follow(head, at, frame_bytes):
                return name
        at = head.find(b"\xff", at + 1)
    return ""


def _frames_follow(head: bytes, start: int, frame_bytes: Callable[[bytes, int], int]) -> bool:
    at = start
    for _ in range(FRAMES_IN_A_ROW):
        if at + 7 > len(head):
            return start == 0 and at > 0  # a file that is nothing but a few frames
        length = frame_bytes(head, at)
        if not length or _fixed_bits(head, at) != _fixed_bits(head, start):
            return False
        at += length
    return True


def _fixed_bits(head: bytes, at: int) -> tuple[int, int]:
    """What all frames of a recording have in common: version, layer, sample rate."""
    return head[at + 1] & 0xFE, head[at + 2] & 0x0C


MPEG_KILOBITS = {
    # (version is 1, layer): kbit/s by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def mpeg_frame_bytes(head: bytes, at: int) -> int:
    """Length of the MPEG audio frame at `at`, 0 if there is none."""
    sync, second, third = head[at], head[at + 1], head[at + 2]
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bitrate_index, rate_index, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if sync != 0xFF or second & 0xE0 != 0xE0 or version == 1 or layer == 4:
        return 0
    if bitrate_index in (0, 15) or rate_index == 3:
        return 0
    bits = MPEG_KILOBITS[version == 3, layer][bitrate_index] * 1000
    hertz = MPEG_HERTZ[version][rate_index]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def _adts_frame_bytes(head: bytes, at: int) -> int:
    """Length of the ADTS frame at `at`, 0 if there is none."""
    if head[at] != 0xFF or head[at + 1] & 0xF6 != 0xF0 or head[at + 2] >> 2 & 15 > 12:
        return 0
    length = (head[at + 3] & 3) << 11 | head[at + 4] << 3 | head[at + 5] >> 5
    return length if length > 7 else 0


def is_ogg_whole(file: RemoteFile) -> bool:
    """True if the file's last Ogg page is complete and marked as the stream's last (RFC 3533)."""
    assert file.size_bytes is not None
    begin = max(0, file.size_bytes - 2 * 65_307)  # the longest page is 65,307 bytes
    tail = file.read_at(begin, file.size_bytes - begin)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    length = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) >= length and bool(page[5] & 4)


MP3_DELAY_SAMPLES = 1105
"""What an MP3 starts with before its first real sample: 576 of LAME's encoder, 529 of any
decoder. libav takes it off where a Xing header says so."""


def has_frame_count(file: RemoteFile) -> bool:
    """True if an MP3 carries a Xing, Info or VBRI header, so that its duration is no guess."""
    start = after_id3(file.read_at(0, 10))
    head = file.read_at(start, 4096)
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


UNKNOWN_SIZE = 0x7FFF_0000
"""Sizes from here on are what streaming writers put for "not known yet"."""


def wav_data(file: RemoteFile) -> tuple[int, int | None]:
    """Finds a WAV's samples.

    Returns:
        The offset of the samples, and how many bytes the header announces; None if it does not
        know (0, or a streaming writer's huge number) or can't be right (too small: what follows
        is no chunk). Offset 0 if there is no `data` chunk.
    """
    head = file.read_at(0, 12)
    big_endian = head[:4] == b"RIFX"
    long_size: int | None = None
    offset = 12
    for _ in range(64):
        chunk = file.read_at(offset, 8)
        if len(chunk) < 8:
            break
        name = chunk[:4]
        size = int.from_bytes(chunk[4:], "big" if big_endian else "little")
        offset += 8
        if name == b"ds64":
            long_size = int.from_bytes(file.read_at(offset + 8, 8), "little")
        if name == b"data":
            if size == 0xFFFF_FFFF and long_size:
                size = long_size
            elif size == 0 or size >= UNKNOWN_SIZE:
                return offset, _if_inside(offset, size, file.size_bytes)
            known = file.size_bytes is None or _ends_at_a_chunk(file, offset + size)
            return offset, size if known else None
        offset += size + size % 2
    return 0, None


def _if_inside(offset: int, size: int, size_bytes: int | None) -> int | None:
    return size if size and size_bytes is not None and offset + size <= size_bytes else None


def _ends_at_a_chunk(file: RemoteFile, end: int) -> bool:
    """True if at `end` the file ends, or lacks, or has another chunk."""
    following = file.read_at(end + end % 2, 8)
    return len(following) < 8 or all(32 <= byte < 127 for byte in following[:4])
