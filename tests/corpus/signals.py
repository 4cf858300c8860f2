"""Recordings that are in order, but for the numbers in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.answers import Answer, Ready, Rejected
from corpus.files import File, constant
from corpus.waves import FLOAT, data, format_chunk, wave
from steno.audio import Reason

SECOND = 16_000
ODD = np.arange(SECOND) % 2 == 1
TONE = np.sin(np.arange(SECOND) * 0.2)


def floats(samples: NDArray[Any], bits: int = 32) -> bytes:
    """A WAV of floating point samples."""
    return wave(
        format_chunk(tag=FLOAT, bits=bits), data(samples.astype(f"<f{bits // 8}").tobytes())
    )


def of(value: float, bits: int = 32) -> bytes:
    """A second of one number."""
    return floats(np.full(SECOND, value), bits)


def numbers(samples: bytes, hertz: int = SECOND, channels: int = 1) -> bytes:
    """A WAV of 16-bit samples."""
    return wave(format_chunk(hertz=hertz, channels=channels), data(samples))


HEARD = Ready(1.0)

SIGNALS: dict[str, tuple[bytes, Answer]] = {
    "a second of NaN": (of(np.nan), HEARD),
    "a tone in which each second sample is NaN": (floats(np.where(ODD, np.nan, TONE)), HEARD),
    "a second of infinity": (of(np.inf), HEARD),
    "infinity and minus infinity in turns": (floats(np.where(ODD, np.inf, -np.inf)), HEARD),
    "a second of the least number there is": (of(1e-45), HEARD),
    "a second of the least number of 64 bits": (of(5e-324, 64), HEARD),
    "a second of the greatest number there is": (of(3.4e38), HEARD),
    "one sample": (numbers(b"\1\0"), Ready(1 / 16_000, tolerance=0)),
    "one sample of 192 kHz, less than one of 16 kHz": (
        numbers(b"\1\0", hertz=192_000),
        Rejected(Reason.NO_SAMPLES),
    ),
    "half a sample": (numbers(b"\1"), Rejected(Reason.UNREADABLE)),
    "a second of the loudest there is": (numbers(b"\xff\x7f" * SECOND), HEARD),
    "full scale up and down with each sample": (numbers(b"\xff\x7f\0\x80" * (SECOND // 2)), HEARD),
    "a second of silence": (numbers(bytes(2 * SECOND)), HEARD),
    "4,000 samples a second, the least there may be": (numbers(bytes(8000), hertz=4000), HEARD),
    "192,000 samples a second, the most there may be": (
        numbers(bytes(2 * 192_000), hertz=192_000),
        HEARD,
    ),
    "eight channels, of which one is loud": (
        numbers((b"\xff\x7f" + bytes(14)) * SECOND, channels=8),
        HEARD,
    ),
}

FILES = tuple(File(name, constant(content), to) for name, (content, to) in SIGNALS.items())
