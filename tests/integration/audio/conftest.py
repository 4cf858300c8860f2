"""Recordings made when they are needed, from numpy arrays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from encoding import FORMATS, RATE, chirp, encode
from steno.audio import Limits, MediaInfo, Summary, decode, in_memory


@dataclass(frozen=True)
class Decoded:
    """All that came out of a recording."""

    pcm: NDArray[np.int16]
    info: MediaInfo
    summary: Summary


async def decoded(data: bytes, limits: Limits | None = None) -> Decoded:
    """Decodes bytes in memory to their end."""
    async with decode(in_memory(data), len(data), limits) as decoding:
        blocks = [block async for block in decoding]
    return Decoded(np.concatenate(blocks), decoding.info, decoding.summary)


def lag_milliseconds(reference: NDArray[np.int16], pcm: NDArray[np.int16]) -> float:
    """How much later the same sound comes in `pcm`, from the peak of their correlation."""
    size = 1 << (len(reference) + len(pcm)).bit_length()
    spectrum = np.fft.rfft(pcm.astype(float), size)
    spectrum *= np.conj(np.fft.rfft(reference.astype(float), size))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return (peak if peak < size // 2 else peak - size) * 1000 / RATE


Make = Callable[..., bytes]
Decode = Callable[..., Awaitable[Decoded]]
Chirp = Callable[..., NDArray[np.int16]]
Lag = Callable[[NDArray[np.int16], NDArray[np.int16]], float]

INDEX_AT_THE_END = ("m4a", "alac", "mov")


@pytest.fixture(params=FORMATS)
def each_format(request: pytest.FixtureRequest) -> str:
    """The name of each format in turn."""
    return str(request.param)


@pytest.fixture(params=[name for name in FORMATS if name not in INDEX_AT_THE_END])
def each_format_read_in_order(request: pytest.FixtureRequest) -> str:
    """The name of each format in turn that can be read without its end."""
    return str(request.param)


@pytest.fixture
def make() -> Make:
    """Makes a recording of some seconds in one of `FORMATS`."""

    def recording(name: str, seconds: float = 4.0, **how: bool) -> bytes:
        return encode(chirp(seconds), RATE, FORMATS[name], **how)

    return recording


@pytest.fixture(name="decoded")
def decoded_fixture() -> Decode:
    """Decodes bytes in memory to their end."""
    return decoded


@pytest.fixture(name="chirp")
def chirp_fixture() -> Chirp:
    """What the recordings of `make` sound like."""
    return chirp


@pytest.fixture(name="lag_milliseconds")
def lag_fixture() -> Lag:
    """How much later the same sound comes in another recording."""
    return lag_milliseconds
