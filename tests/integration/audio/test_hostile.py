"""What a file can cost ends at its limits, and no bytes do worse than to be refused.

The files that strangers send, and how each is answered, are in `tests/corpus`.
"""

from __future__ import annotations

import ctypes
import random
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from corpus.bombs import jumping, silent_flac
from corpus.containers import PNG
from steno.audio import AudioRejected, Limits, Reason, encode_slice

from .conftest import Chirp, Decode, Make


async def test_a_recording_that_announces_too_much_is_rejected_before_it_is_decoded(
    decoded: Decode,
) -> None:
    with pytest.raises(AudioRejected) as rejection:
        await decoded(silent_flac(120), Limits(max_duration_seconds=60))

    assert rejection.value.reason == Reason.TOO_LONG
    assert "120 s" in rejection.value.message


async def test_a_bomb_that_announces_nothing_stops_at_the_limit(decoded: Decode) -> None:
    bomb = silent_flac(120, announced=False)
    assert len(bomb) < 50_000

    with pytest.raises(AudioRejected) as rejection:
        await decoded(bomb, Limits(max_duration_seconds=60))

    assert rejection.value.reason == Reason.TOO_MANY_SAMPLES


async def test_a_bomb_of_many_channels_stops_at_the_limit(decoded: Decode) -> None:
    bomb = silent_flac(20, 192_000, 8)

    with pytest.raises(AudioRejected) as rejection:
        await decoded(bomb, Limits(max_decoded_samples=10 * 192_000 * 8))

    assert rejection.value.reason == Reason.TOO_MANY_SAMPLES


async def test_eight_channels_at_192_khz_are_decoded_in_bounded_memory(decoded: Decode) -> None:
    result = await decoded(silent_flac(20, 192_000, 8))

    assert len(result.pcm) == 20 * 16_000
    assert result.summary.peak_memory_bytes < 150 << 20


async def test_a_clock_that_jumps_by_hours_makes_no_silence(decoded: Decode) -> None:
    assert len((await decoded(jumping([0, 4 * 3600]))).pcm) == 2 * 16_000


async def test_memory_ends(decoded: Decode, make: Make) -> None:
    with pytest.raises(AudioRejected) as rejection:
        await decoded(make("mp3"), Limits(memory_bytes=64 << 10))

    assert rejection.value.reason == Reason.MEMORY_LIMIT


async def test_no_file_of_python_itself_is_a_recording(decoded: Decode) -> None:
    """Programs, archives, compiled code, text."""
    folder = Path(ctypes.__file__).parents[1]
    files = [Path(sys.executable), *sorted(folder.glob("lib-dynload/*.so"))[:40]]
    files += [*sorted(folder.glob("__pycache__/*.pyc"))[:40], *sorted(folder.glob("*.py"))[:10]]

    for file in files:
        with pytest.raises(AudioRejected):
            await decoded(file.read_bytes()[:200_000])


@pytest.mark.parametrize("seed", range(3))
async def test_flipped_bits_never_do_worse_than_a_rejection(
    seed: int, make: Make, each_format: str, decoded: Decode
) -> None:
    dice = random.Random(seed)
    data = bytearray(make(each_format, 1.0))
    for _ in range(30):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)

    with suppress(AudioRejected):  # and never DecoderFailed
        await decoded(bytes(data), Limits(max_duration_seconds=1000))


async def test_the_next_recording_works_after_a_rejection(chirp: Chirp, decoded: Decode) -> None:
    with pytest.raises(AudioRejected):
        await decoded(PNG)

    assert len((await decoded(encode_slice(chirp(1.0)))).pcm) == 16_000
