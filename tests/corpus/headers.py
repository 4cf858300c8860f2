"""Recordings whose headers lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from corpus.answers import Answer, Ready, Rejected
from corpus.files import File, constant
from corpus.sizes import SECONDS, whole
from corpus.waves import EXTENSIBLE, FLOAT, MP3, SECOND, chunk, data, format_chunk, wave
from steno.audio import Reason

MOST = 2**32 - 1

HEARD = Ready(1.0)
UNREADABLE = Rejected(Reason.UNREADABLE)
NO_SAMPLES = Rejected(Reason.NO_SAMPLES)
TOO_LONG = Rejected(Reason.TOO_LONG)
UNKNOWN_CODEC = Rejected(Reason.UNSUPPORTED_CODEC)
UNKNOWN_RATE = Rejected(Reason.UNSUPPORTED_SAMPLE_RATE)
STILL_HEARD = Ready(SECONDS, tolerance=0.05)


def sizes(count: int) -> bytes:
    """The chunk with the long sizes of an RF64."""
    return chunk(b"ds64", struct.pack("<QQQI", count, count, count, 0))


def long_wave(count: int) -> bytes:
    """An RF64 that says how long it is in 64 bits."""
    return wave(sizes(count), format_chunk(), data(size=MOST), form=b"RF64")


WAVES: dict[str, tuple[bytes, Answer]] = {
    "announces twice its samples": (
        wave(format_chunk(), data(size=2 * len(SECOND))),
        Ready(1.0, truncated=True),
    ),
    "announces half its samples": (wave(format_chunk(), data(size=len(SECOND) // 2)), HEARD),
    "announces no samples": (wave(format_chunk(), data(size=0)), HEARD),
    "announces an unknown length": (wave(format_chunk(), data(size=MOST)), HEARD),
    "says that it is 4 GiB long": (wave(format_chunk(), data(), size=MOST), HEARD),
    "has no channels": (wave(format_chunk(channels=0, frame_bytes=2), data()), UNREADABLE),
    "has 9 channels": (
        wave(format_chunk(channels=9), data()),
        Rejected(Reason.UNSUPPORTED_CHANNELS),
    ),
    "has 0 samples a second": (wave(format_chunk(hertz=0), data()), UNREADABLE),
    "has 1 sample a second": (wave(format_chunk(hertz=1), data()), UNKNOWN_RATE),
    "has 3,999 samples a second": (wave(format_chunk(hertz=3999), data()), UNKNOWN_RATE),
    "has 192,001 samples a second": (wave(format_chunk(hertz=192_001), data()), UNKNOWN_RATE),
    "has 2^32 - 1 samples a second": (wave(format_chunk(hertz=MOST), data()), UNREADABLE),
    "has samples of 0 bits": (wave(format_chunk(bits=0, frame_bytes=2), data()), UNKNOWN_CODEC),
    "has samples of 65,535 bits": (
        wave(format_chunk(bits=65_535, frame_bytes=2), data()),
        UNKNOWN_CODEC,
    ),
    "has frames of 0 bytes": (wave(format_chunk(frame_bytes=0), data()), HEARD),
    "does not say how samples lie": (wave(data()), UNREADABLE),
    "says behind its samples how they lie": (wave(data(), format_chunk()), HEARD),
    "says in 4 GiB how samples lie": (
        wave(chunk(b"fmt ", format_chunk()[8:], size=MOST), data()),
        UNREADABLE,
    ),
    "says twice how samples lie": (
        wave(format_chunk(), format_chunk(hertz=48_000, channels=2), data()),
        HEARD,
    ),
    "has a codec that nobody knows": (wave(format_chunk(tag=0x1234), data()), UNKNOWN_CODEC),
    "says that its samples are an MP3": (wave(format_chunk(tag=MP3), data()), UNREADABLE),
    "says that its floats have 16 bits": (wave(format_chunk(tag=FLOAT), data()), UNKNOWN_CODEC),
    "has an extension of zeros": (
        wave(format_chunk(tag=EXTENSIBLE, more=b"\x16\0" + bytes(22)), data()),
        UNKNOWN_CODEC,
    ),
    "has 1,000 lists before its samples": (
        wave(*[chunk(b"LIST", b"INFO")] * 1000, format_chunk(), data()),
        UNREADABLE,
    ),
    "has a list of 4 GiB before its samples": (
        wave(format_chunk(), chunk(b"LIST", b"INFO", size=MOST), data()),
        UNREADABLE,
    ),
    "has its samples twice": (wave(format_chunk(), data(), data()), HEARD),
    "ends in half a sample": (wave(format_chunk(), data(SECOND + b"x")), HEARD),
    "says in 64 bits that it is 2^63 bytes long": (long_wave(2**63), UNREADABLE),
    "says in 64 bits that it is empty": (long_wave(0), HEARD),
    "says that its numbers are big-endian": (
        wave(format_chunk(), data(), form=b"RIFX"),
        UNREADABLE,
    ),
}


def aiff(rate: str, channels: int = 1, frames: int = 16_000, bits: int = 16) -> bytes:
    """An AIFF; its sample rate is a float of 80 bits, in hex."""
    common = struct.pack(">hIh", channels, frames, bits) + bytes.fromhex(rate)
    sound = struct.pack(">II", 0, 0) + SECOND
    chunks = b"COMM" + struct.pack(">I", len(common)) + common
    chunks += b"SSND" + struct.pack(">I", len(sound)) + sound
    return b"FORM" + struct.pack(">I", 4 + len(chunks)) + b"AIFF" + chunks


def au(offset: int = 24, size: int = len(SECOND), channels: int = 1, encoding: int = 3) -> bytes:
    """An AU of 16 kHz."""
    return b".snd" + struct.pack(">5I", offset, size, encoding, 16_000, channels) + SECOND


HERTZ_16000 = "400cfa00000000000000"

OTHERS: dict[str, tuple[bytes, Answer]] = {
    "an AIFF with NaN samples a second": (aiff("7fffc000000000000000"), UNREADABLE),
    "an AIFF with infinitely many samples a second": (aiff("7fff8000000000000000"), UNREADABLE),
    "an AIFF with -1 channels": (aiff(HERTZ_16000, channels=-1), UNREADABLE),
    "an AIFF with samples of 32,767 bits": (aiff(HERTZ_16000, bits=32_767), UNREADABLE),
    "an AIFF with 2^32 - 1 frames": (aiff(HERTZ_16000, frames=MOST), UNREADABLE),
    "an AU whose samples begin behind 4 GiB": (au(offset=MOST), HEARD),
    "an AU of nearly 4 GiB": (au(size=MOST - 1), UNREADABLE),
    "an AU with 2^32 - 1 channels": (au(channels=MOST), UNREADABLE),
    "an AU with a codec that nobody knows": (au(encoding=12_345), UNREADABLE),
    "an MP4 with boxes in boxes, 5,000 deep": (
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
        + b"".join(struct.pack(">I4s", 8 * (5000 - depth), b"moov") for depth in range(5000)),
        UNREADABLE,
    ),
}


def altered(form: str, mark: bytes, offset: int, new: bytes) -> Callable[[random.Random], bytes]:
    """A recording in which bytes are others, so far behind the first place of a mark."""

    def make(_: random.Random) -> bytes:
        content = bytearray(whole(form))
        at = content.index(mark) + offset
        content[at : at + len(new)] = new
        return bytes(content)

    return make


FOUR = b"\xff" * 4
LARGE = b"\x7f\xff\xff\xff"

ALTERED: dict[str, tuple[tuple[str, bytes, int, bytes], Answer]] = {
    # what is wrong: (the recording, a mark in it, how far behind it, bytes that take the place)
    "a FLAC that announces 2^36 samples": (("flac", b"fLaC", 21, b"\xff" * 5), TOO_LONG),
    "a FLAC that says nothing of its samples": (("flac", b"fLaC", 8, bytes(34)), UNREADABLE),
    "a FLAC whose first block has 16 MiB": (("flac", b"fLaC", 5, b"\xff" * 3), UNREADABLE),
    "an MP3 that announces 2^32 - 1 frames": (("mp3", b"Info", 8, FOUR), TOO_LONG),
    "an Ogg whose first page lies about its time": (
        ("ogg opus", b"OggS", 6, b"\xff" * 7 + b"\x7f"),
        UNREADABLE,
    ),
    "an Ogg whose first page has a wrong checksum": (
        ("ogg opus", b"OggS", 22, bytes(4)),
        UNREADABLE,
    ),
    "a WebM whose first element has 32 GiB": (
        ("webm opus", b"\x1a\x45\xdf\xa3", 4, b"\x08" + FOUR),
        UNREADABLE,
    ),
    "a WebM of unknown length": (
        ("webm opus", b"\x18\x53\x80\x67", 4, b"\x01" + b"\xff" * 7),
        STILL_HEARD,
    ),
    "a WebM whose clock stands": (("webm opus", b"\x2a\xd7\xb1", 3, b"\x83\0\0\0"), STILL_HEARD),
    "an MP4 whose samples have 4 GiB": (("m4a", b"mdat", -4, FOUR), UNREADABLE),
    "an MP4 whose index has 4 GiB": (("m4a", b"moov", -4, FOUR), STILL_HEARD),
    "an MP4 whose index has 7 bytes": (("m4a", b"moov", -4, b"\0\0\0\7"), UNREADABLE),
    "an MP4 that announces 27 hours": (("m4a", b"mdhd", 20, FOUR), STILL_HEARD),
    "an MP4 with sizes of 2^32 - 1 packets": (("m4a", b"stsz", 12, FOUR), UNREADABLE),
    "an MP4 of 2^31 packets of a byte": (("m4a", b"stsz", 8, b"\0\0\0\1" + LARGE), NO_SAMPLES),
    "an MP4 whose packets lie behind 4 GiB": (("m4a", b"stco", 12, FOUR), NO_SAMPLES),
    "an MP4 with 2^32 - 1 runs of packets": (("m4a", b"stco", 8, FOUR), STILL_HEARD),
    "an MP4 whose track lies in another file": (("m4a", b"url ", 4, bytes(4)), STILL_HEARD),
}

FILES = (
    *(File(f"a WAV that {name}", constant(content), to) for name, (content, to) in WAVES.items()),
    *(File(name, constant(content), answer) for name, (content, answer) in OTHERS.items()),
    *(File(name, altered(*change), answer) for name, (change, answer) in ALTERED.items()),
)
