"""Small files that unfold to much."""

from __future__ import annotations

import gzip
import io
import random
import struct
from collections.abc import Callable, Sequence

import av
import numpy as np

from corpus.answers import Ready, Rejected
from corpus.files import File, constant
from corpus.sizes import whole
from corpus.waves import data, format_chunk, wave
from encoding import RATE, chirp
from steno.audio import Reason

LAYOUTS = {1: "mono", 8: "7.1"}


def silent_flac(
    seconds: int, rate: int = RATE, channels: int = 1, *, announced: bool = True
) -> bytes:
    """Silence, a hundredth of its size; it need not say how much it is."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate, layout=LAYOUTS[channels])
        silence = np.zeros((1, rate * channels), np.int16)
        for second in range(seconds):
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout=LAYOUTS[channels])
            frame.sample_rate, frame.pts = rate, second * rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = bytearray(file.getvalue())
    if not announced:
        content[21] &= 0xF0
        content[22:26] = bytes(4)
    return bytes(content)


def jumping(starts: Sequence[int], tracks: int = 1) -> bytes:
    """A Matroska with a second of sound at each of these seconds, on each track."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        streams = [
            container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(tracks)
        ]
        for start in starts:
            for stream in streams:
                sound = chirp(1.0).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
                frame.sample_rate, frame.pts = RATE, start * RATE
                container.mux(stream.encode(frame))
    return file.getvalue()


def made(make: Callable[[], bytes]) -> Callable[[random.Random], bytes]:
    """What is made when it is needed, and by no chance."""
    return lambda _: make()


FILES = (
    File(
        "ten minutes of silence in 115 KB",
        made(lambda: silent_flac(600)),
        Rejected(Reason.TOO_LONG),
    ),
    File(
        "ten minutes of silence in 115 KB that do not say so",
        made(lambda: silent_flac(600, announced=False)),
        Rejected(Reason.TOO_MANY_SAMPLES),
    ),
    File(
        "eight channels of 192 kHz, 61 MB in 16 KB",
        made(lambda: silent_flac(20, 192_000, 8)),
        Ready(20.0),
    ),
    File(
        "a container whose clock jumps by 100 s, which become silence",
        made(lambda: jumping([0, 100])),
        Ready(101.0),
    ),
    File(
        "a container whose clock jumps by hours",
        made(lambda: jumping([0, 4 * 3600])),
        Rejected(Reason.TOO_LONG),
    ),
    File(
        "a container with 200 tracks, of which one is heard",
        made(lambda: jumping([0], tracks=200)),
        Ready(1.0),
    ),
    File(
        "a Matroska with segments in segments, 5,000 deep",
        lambda _: whole("webm opus")[:40] + (b"\x18\x53\x80\x67\x01" + b"\xff" * 7) * 5000,
        Rejected(Reason.UNREADABLE),
    ),
    File(
        "a gzip of 20 MB of zeros in a WAV",
        constant(gzip.compress(wave(format_chunk(), data(bytes(20_000_000))), mtime=0)),
        Rejected(Reason.UNSUPPORTED_FORMAT),
    ),
    File(
        "an XML document with a billion laughs",
        constant(b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><l/>'),
        Rejected(Reason.UNSUPPORTED_FORMAT),
    ),
    File(
        "an MP3 behind a tag of 256 MB that is not there",
        lambda _: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + whole("mp3"),
        Rejected(Reason.NO_SAMPLES),
    ),
    File(
        "an MP3 behind 1,000 empty tags",
        lambda _: b"ID3\x04\0\0\0\0\0\0" * 1000 + whole("mp3"),
        Ready(6.0, tolerance=0.06),
    ),
    File(
        "an MP3 before a tag that says it has 4 GiB",
        lambda _: whole("mp3") + b"APETAGEX" + struct.pack("<IIIIQ", 2000, 2**32 - 1, 9, 0, 0),
        Ready(6.0, tolerance=0.06),
    ),
)
