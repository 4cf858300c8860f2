"""Samples of any of the raw encodings as numbers. Nothing here guesses: the format is known."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

from steno.audio import SAMPLE_RATE_HERTZ
from steno.concatenation.domain import Encoding, PcmFormat

Samples = NDArray[np.int16]
"""Samples at 16 kHz, mono, of shape (n,)."""


def _mulaw_table() -> NDArray[np.int16]:
    """ITU-T G.711, mu-law."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = ((mantissa << 3) + 132 << exponent) - 132
    return np.where(code & 128, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> NDArray[np.int16]:
    """ITU-T G.711, A-law."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    low = (mantissa << 4) + 8
    magnitude = np.where(exponent > 0, low + 256 << np.maximum(exponent - 1, 0), low)
    return np.where(code & 128, magnitude, -magnitude).astype(np.int16)


_TABLES = {Encoding.MULAW: _mulaw_table(), Encoding.ALAW: _alaw_table()}


def to_numbers(of: PcmFormat, data: bytes) -> NDArray[np.int16] | NDArray[np.float32]:
    """Returns samples of shape (frames, channels): int16, or float32 where they are stored so."""
    if of.encoding is Encoding.FLOAT32:
        return np.frombuffer(data, dtype="<f4").reshape(-1, of.channels)
    if of.encoding is Encoding.LINEAR16:
        return np.frombuffer(data, dtype="<i2").reshape(-1, of.channels)
    return _TABLES[of.encoding][np.frombuffer(data, dtype=np.uint8)].reshape(-1, of.channels)


def to_mono(of: PcmFormat, data: bytes) -> NDArray[np.float32]:
    """Returns samples of shape (frames,), -1 to 1. All channels have the same weight."""
    numbers = to_numbers(of, data)
    scale = np.float32(1 if numbers.dtype == np.float32 else 1 / 32768)
    mean: NDArray[np.float32] = numbers.mean(axis=1, dtype=np.float32) * scale
    # What is no number, or beyond the scale, must not get into a model.
    return np.nan_to_num(mean, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1)


class Resampler:
    """Turns samples of any format into 16 kHz mono."""

    def __init__(self, of: PcmFormat) -> None:
        self._of = of
        self._resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HERTZ)

    def push(self, data: bytes) -> Samples:
        """Takes the next samples; returns them at 16 kHz, the last few of them with the next."""
        mono = to_mono(self._of, data)
        if not len(mono):
            return np.zeros(0, np.int16)
        frame = av.AudioFrame.from_ndarray(mono.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = self._of.rate_hertz
        return self._joined(self._resampler.resample(frame))

    def finish(self) -> Samples:
        """Returns the rest."""
        return self._joined(self._resampler.resample(None))

    def _joined(self, frames: Sequence[av.AudioFrame]) -> Samples:
        parts = [frame.to_ndarray().reshape(-1) for frame in frames]
        return np.concatenate([np.zeros(0, np.int16), *parts])
