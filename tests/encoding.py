"""Recordings in the formats that libav writes, from samples."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000


@dataclass(frozen=True)
class Format:
    """How a recording is written."""

    container: str
    codec: str
    rate: int = 48_000
    layout: str = "stereo"
    sample_format: str = "s16"
    options: dict[str, str] = field(default_factory=dict)


FORMATS = {
    "wav": Format("wav", "pcm_s16le"),
    "wav 8 bit": Format("wav", "pcm_u8"),
    "wav 24 bit": Format("wav", "pcm_s24le"),
    "wav 32 bit": Format("wav", "pcm_s32le"),
    "wav float": Format("wav", "pcm_f32le"),
    "wav mu-law": Format("wav", "pcm_mulaw", rate=8000, layout="mono"),
    "wav a-law": Format("wav", "pcm_alaw", rate=8000, layout="mono"),
    "wav adpcm": Format("wav", "adpcm_ms", rate=22050),
    "rf64": Format("wav", "pcm_s16le", options={"rf64": "always"}),
    "w64": Format("w64", "pcm_s16le"),
    "mp3": Format("mp3", "libmp3lame", rate=44100),
    "mp3 without a frame count": Format(
        "mp3", "libmp3lame", rate=22050, layout="mono", options={"write_xing": "0"}
    ),
    "flac": Format("flac", "flac"),
    "m4a": Format("ipod", "aac", rate=44100),
    "m4a fragmented": Format(
        "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "m4a faststart": Format("mp4", "aac", options={"movflags": "faststart"}),
    "alac": Format("ipod", "alac"),
    "aac": Format("adts", "aac"),
    "ogg vorbis": Format("ogg", "vorbis"),
    "ogg opus": Format("ogg", "libopus"),
    "webm opus": Format("webm", "libopus"),
    "mkv vorbis": Format("matroska", "vorbis"),
    "mkv aac": Format("matroska", "aac"),
    "mov": Format("mov", "aac"),
    "amr nb": Format("amr", "libopencore_amrnb", rate=8000, layout="mono"),
    "aiff": Format("aiff", "pcm_s16be"),
    "au": Format("au", "pcm_s16be"),
    "caf": Format("caf", "pcm_s16le"),
}


def chirp(seconds: float, rate: int = RATE) -> NDArray[np.int16]:
    """A sound that is nowhere like itself: every 0.1 s glides to another random pitch."""
    size = int(seconds * rate)
    pitches = np.random.default_rng(7).uniform(300, 2500, int(seconds * 10) + 2)
    hertz = np.interp(np.arange(size) / rate * 10, np.arange(len(pitches)), pitches)
    return (np.sin(2 * np.pi * np.cumsum(hertz) / rate) * 12_000).astype(np.int16)


def encode(
    pcm: NDArray[np.int16], rate: int, form: Format, *, video: bool = False, silent: bool = False
) -> bytes:
    """Encodes mono samples; every channel of the result carries them.

    Args:
        pcm: the samples.
        rate: of the samples.
        form: how they are written.
        video: there is a picture beside them.
        silent: there is no track of sound.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        _write(path, pcm, rate, form, video=video, silent=silent)
        return path.read_bytes()


def _write(
    path: Path, pcm: NDArray[np.int16], rate: int, form: Format, *, video: bool, silent: bool
) -> None:
    options = {"fflags": "+bitexact", **form.options}  # the same bytes each time
    with av.open(str(path), "w", format=form.container, options=options) as container:
        picture = None
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        sound = None
        if not silent:
            sound = container.add_stream(form.codec, rate=form.rate, layout=form.layout)
            sound.codec_context.options = {"strict": "experimental"}  # libav's own Vorbis
        if picture:
            for number in range(int(len(pcm) / rate * 10)):
                image = av.VideoFrame(64, 64, "yuv420p")
                for plane in image.planes:
                    plane.update(bytes(plane.buffer_size))
                image.pts, image.time_base = number, Fraction(1, 10)
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        if sound:
            assert isinstance(sound, av.AudioStream)
            resampler = av.AudioResampler(format=sound.format, layout=form.layout, rate=form.rate)
            taken = 0
            for begin in range(0, len(pcm), 4096):
                part = pcm[begin : begin + 4096]
                frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout="mono")
                frame.sample_rate, frame.pts = rate, taken
                frame.time_base = Fraction(1, rate)
                taken += len(part)
                for resampled in resampler.resample(frame):
                    container.mux(sound.encode(resampled))
            for resampled in resampler.resample(None):
                container.mux(sound.encode(resampled))
            container.mux(sound.encode(None))
