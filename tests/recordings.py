"""Recordings for tests: the examples as PCM, parts of them, and every format made from them."""

from __future__ import annotations

import io
import re
import wave
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples" / "audio"
RATE = 16_000

Samples = NDArray[np.int16]


@cache
def samples_of(name: str) -> Samples:
    """An example, decoded to 16 kHz mono: once in a process, so it can't be written to."""
    with av.open(str(EXAMPLES / name)) as container:
        resampler = av.AudioResampler("s16", "mono", RATE)
        frames = [
            resampled.to_ndarray()[0]
            for frame in [*container.decode(audio=0), None]
            for resampled in resampler.resample(frame)
        ]
    samples = np.concatenate(frames)
    samples.flags.writeable = False
    return samples


def urls_in(playlist: str) -> list[str]:
    """What a player fetches: the part that all segments share, then the segments."""
    shared = re.findall(r'#EXT-X-MAP:URI="(.*)"', playlist)
    return shared + [line for line in playlist.splitlines() if not line.startswith("#")]


def decoded(file: bytes) -> Samples:
    """The samples of a mono file, by libav."""
    with av.open(io.BytesIO(file), "r") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames)


def text_of(name: str) -> str:
    """What is said in an example."""
    return (EXAMPLES / name).with_suffix(".txt").read_text()


def wav(samples: Samples) -> bytes:
    """A WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(samples.tobytes())
    return out.getvalue()


FORMATS = {
    # name: container, codec, sample rate
    "mp3": ("mp3", "libmp3lame", 16_000),
    "flac": ("flac", "flac", 16_000),
    "m4a": ("ipod", "aac", 16_000),
    "ogg": ("ogg", "vorbis", 44_100),
    "opus": ("ogg", "libopus", 48_000),
    "webm": ("webm", "libopus", 48_000),
    "aac": ("adts", "aac", 16_000),
}


def encoded(samples: Samples, name: str) -> bytes:
    """The same recording in another format; `wav` too."""
    if name == "wav":
        return wav(samples)
    container_format, codec, rate = FORMATS[name]
    out = io.BytesIO()
    with av.open(out, "w", format=container_format) as container:
        # FFmpeg's own Vorbis encoder is experimental: stereo only, and poor at low bit rates.
        layout = "stereo" if codec == "vorbis" else "mono"
        stream: Any = container.add_stream(
            codec,
            rate=rate,
            layout=layout,
            bit_rate=256_000 if codec == "vorbis" else 96_000,
            options={"strict": "experimental"},
        )
        resampler = av.AudioResampler(stream.format, layout, rate, stream.frame_size or 0)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return out.getvalue()


def without_pauses(samples: Samples) -> Samples:
    """The same speech, as if nobody took breath: quiet stretches of 60 ms are cut out."""
    frame = RATE // 50
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    quiet = np.abs(frames).max(axis=1) < 600
    pauses = np.convolve(quiet, np.ones(3), "full")[2:] == 3  # it and the next two are quiet
    spoken: Samples = frames[
        ~np.convolve(pauses, np.ones(3), "full")[: len(quiet)].astype(bool)
    ].ravel()
    return spoken
