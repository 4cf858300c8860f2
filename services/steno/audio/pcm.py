"""PCM as Steno keeps it: 16 kHz, mono, signed 16 bit, little endian.

A stored slice is a WAV: its 44-byte header costs nothing next to 30 s of samples, anyone can play
it, and the samples behind it can be read in place. FLAC would halve it at the cost of processor
time on both sides of every slice.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from steno.audio.decoder.wire import SAMPLE_RATE_HERTZ
from steno.audio.errors import MalformedSlice

__all__ = [
    "SAMPLE_BYTES",
    "SAMPLE_RATE_HERTZ",
    "WAV_HEADER_BYTES",
    "decode_slice",
    "duration_seconds",
    "encode_slice",
    "from_float",
    "to_float",
    "wav_header",
]

SAMPLE_BYTES = 2
WAV_HEADER_BYTES = 44

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCM = 1


def duration_seconds(sample_count: int) -> float:
    """Returns how long `sample_count` samples sound."""
    return sample_count / SAMPLE_RATE_HERTZ


def to_float(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Returns samples of any shape as float32 in [-1, 1), as models take them."""
    return pcm.astype(np.float32) / np.float32(32768)


def from_float(samples: NDArray[np.floating]) -> NDArray[np.int16]:
    """Returns float samples of any shape as int16; what lies outside [-1, 1) is clipped."""
    scaled: NDArray[np.floating] = np.rint(samples * 32768.0)
    return scaled.clip(-32768, 32767).astype(np.int16)


def wav_header(sample_count: int) -> bytes:
    """Returns the 44 bytes that make `sample_count` samples behind them a WAV."""
    data_bytes = sample_count * SAMPLE_BYTES
    return _HEADER.pack(
        b"RIFF",
        WAV_HEADER_BYTES - 8 + data_bytes,
        b"WAVE",
        b"fmt ",
        16,
        _PCM,
        1,  # channel
        SAMPLE_RATE_HERTZ,
        SAMPLE_RATE_HERTZ * SAMPLE_BYTES,
        SAMPLE_BYTES,
        8 * SAMPLE_BYTES,
        b"data",
        data_bytes,
    )


def encode_slice(pcm: NDArray[np.int16]) -> bytes:
    """Returns a slice, int16 of shape (samples,), as it is stored."""
    return wav_header(len(pcm)) + pcm.astype("<i2", copy=False).tobytes()


def decode_slice(stored: bytes) -> NDArray[np.int16]:
    """Returns the samples of a stored slice, int16 of shape (samples,), read-only.

    Raises `MalformedSlice` for anything but what `encode_slice` writes.
    """
    sample_count, odd = divmod(len(stored) - WAV_HEADER_BYTES, SAMPLE_BYTES)
    if sample_count < 0 or odd or stored[:WAV_HEADER_BYTES] != wav_header(sample_count):
        raise MalformedSlice(f"{len(stored)} bytes are no whole slice")
    return np.frombuffer(stored, dtype="<i2", offset=WAV_HEADER_BYTES)
