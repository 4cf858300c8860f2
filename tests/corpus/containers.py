"""Containers that hold no recording, or one that is not taken."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable

import av

from corpus.answers import Ready, Rejected
from corpus.files import File, constant
from corpus.sizes import whole
from corpus.waves import data, format_chunk, wave
from encoding import FORMATS, RATE, chirp, encode
from steno.audio import Reason

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)

# A program's table of jumps: each fourth looks like the header of an MPEG frame of 64 bytes.
JUMPS = (
    bytes(9000)
    + b"".join(
        struct.pack("<HiBIBi", 0x25FF, 80_000 - 8 * entry, 0x68, entry, 0xE9, -16 * entry - 32)
        for entry in range(400)
    )
    + random.Random(2).randbytes(60_000)
)

NO_FORMAT = Rejected(Reason.UNSUPPORTED_FORMAT)
UNREADABLE = Rejected(Reason.UNREADABLE)


def muxed(container_format: str, codec: str) -> Callable[[random.Random], bytes]:
    """A second of sound in a container that libav knows."""

    def make(_: random.Random) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=container_format, options={"fflags": "+bitexact"}) as out:
            stream = out.add_stream(codec, rate=RATE, layout="mono")
            assert isinstance(stream, av.AudioStream)
            sound = chirp(1.0).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            resampler = av.AudioResampler(stream.format, "mono", RATE)
            for part in resampler.resample(frame):
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))
        return file.getvalue()

    return make


def pictures(form: str, *, silent: bool = True) -> Callable[[random.Random], bytes]:
    """A second of video."""
    return lambda _: encode(chirp(1.0), RATE, FORMATS[form], video=True, silent=silent)


def begun(signature: bytes, size: int = 5000) -> Callable[[random.Random], bytes]:
    """A signature, and noise behind it."""
    return lambda dice: signature + dice.randbytes(size)


def zipped(_: random.Random) -> bytes:
    """A recording in a ZIP archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("recording.wav"), wave(format_chunk(), data()))
    return file.getvalue()


FILES = (
    File("100,000 zeros", constant(bytes(100_000)), NO_FORMAT),
    File("a megabyte of noise", begun(b"", 1 << 20), NO_FORMAT),
    File("noise behind the signature of an Ogg", begun(b"OggS"), UNREADABLE),
    File("noise behind the signature of a FLAC", begun(b"fLaC"), UNREADABLE),
    File("noise behind the signature of a WebM", begun(b"\x1a\x45\xdf\xa3"), UNREADABLE),
    File("noise behind the signature of an MP4", begun(b"\0\0\0\x18ftypM4A "), UNREADABLE),
    File("noise behind the signature of a WAV", begun(b"RIFF\0\0\0\0WAVE"), UNREADABLE),
    File(
        "a tag, and no MP3 behind it",
        constant(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)),
        Rejected(Reason.NO_SAMPLES),
    ),
    File("a picture", constant(PNG), NO_FORMAT, "picture.mp3"),
    File("a PDF", begun(b"%PDF-1.7\n", 1 << 20), NO_FORMAT, "minutes.mp3"),
    File("a recording in a ZIP archive", zipped, NO_FORMAT),
    File("a program for Linux", constant(b"\x7fELF" + JUMPS), NO_FORMAT),
    File("a program for Windows", begun(b"MZ"), NO_FORMAT, "setup.wav"),
    File("a table of jumps that looks like frames of MP3", constant(JUMPS), NO_FORMAT),
    File(
        "a table of jumps behind a tag of MP3",
        constant(b"ID3\x04\0\0\0\0\0\x0a" + JUMPS),
        NO_FORMAT,
    ),
    File("a database", constant(b"SQLite format 3\0" + bytes(4000)), NO_FORMAT),
    File("notes, not samples: MIDI", constant(b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk"), NO_FORMAT),
    File("a RIFF that holds a video", begun(b"RIFF\x64\0\0\0AVI "), NO_FORMAT),
    File("sound in an AVI", muxed("avi", "pcm_s16le"), NO_FORMAT),
    File("sound in an MPEG transport stream", muxed("mpegts", "aac"), NO_FORMAT),
    File("sound in a Flash video", muxed("flv", "aac"), NO_FORMAT),
    File("sound in a WavPack", muxed("wv", "wavpack"), NO_FORMAT),
    File(
        "a codec that is not taken, in a container that is",
        muxed("matroska", "wavpack"),
        Rejected(Reason.UNSUPPORTED_CODEC),
    ),
    File("an MP4 with a picture and no sound", pictures("m4a"), Rejected(Reason.NO_AUDIO_TRACK)),
    File(
        "a Matroska with a picture and no sound",
        pictures("mkv aac"),
        Rejected(Reason.NO_AUDIO_TRACK),
    ),
    File(
        "a video, of which the sound is heard",
        pictures("mov", silent=False),
        Ready(1.0, tolerance=0.05),
    ),
    File(
        "an MP3 that is a ZIP archive too",
        lambda dice: whole("mp3") + b"PK\x03\x04" + dice.randbytes(2000),
        Ready(6.0, tolerance=0.06, truncated=True),
    ),
)
