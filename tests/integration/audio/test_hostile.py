"""Bytes that are no recording, or a recording that wants to do harm, are refused and say why."""

from __future__ import annotations

import ctypes
import io
import random
import struct
import sys
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from steno.audio import AudioRejected, Limits, Reason, encode_slice, wav_header

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)

NOISE = random.Random(1).randbytes(1 << 20)

# A program's table of jumps: each fourth looks like the header of an MPEG frame of 64 bytes.
JUMPS = (
    bytes(9000)
    + b"".join(
        struct.pack("<HiBIBi", 0x25FF, 80_000 - 8 * entry, 0x68, entry, 0xE9, -16 * entry - 32)
        for entry in range(400)
    )
    + random.Random(2).randbytes(60_000)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", Reason.EMPTY, id="empty"),
        pytest.param(b"R", Reason.UNSUPPORTED_FORMAT, id="one byte"),
        pytest.param(wav_header(0), Reason.NO_SAMPLES, id="header only"),
        pytest.param(wav_header(0)[:30], Reason.UNREADABLE, id="half a header"),
        pytest.param(b"These are the words.\n" * 500, Reason.UNSUPPORTED_FORMAT, id="text"),
        pytest.param(PNG, Reason.UNSUPPORTED_FORMAT, id="image"),
        pytest.param(
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1/a.ts\n",
            Reason.UNSUPPORTED_FORMAT,
            id="playlist",
        ),
        pytest.param(
            b"ffconcat version 1.0\nfile /etc/passwd\n",
            Reason.UNSUPPORTED_FORMAT,
            id="concat script",
        ),
        pytest.param(b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10), Reason.NO_SAMPLES, id="tags"),
        pytest.param(bytes(100_000), Reason.UNSUPPORTED_FORMAT, id="zeros"),
        pytest.param(NOISE, Reason.UNSUPPORTED_FORMAT, id="noise"),
        pytest.param(b"OggS" + NOISE[:5000], Reason.UNREADABLE, id="broken ogg"),
        pytest.param(b"fLaC" + NOISE[:5000], Reason.UNREADABLE, id="broken flac"),
        pytest.param(b"%PDF-1.7\n" + NOISE, Reason.UNSUPPORTED_FORMAT, id="PDF"),
        pytest.param(b"PK\x03\x04" + NOISE, Reason.UNSUPPORTED_FORMAT, id="ZIP"),
        pytest.param(b"\x7fELF" + JUMPS, Reason.UNSUPPORTED_FORMAT, id="program"),
        pytest.param(JUMPS, Reason.UNSUPPORTED_FORMAT, id="code"),
        pytest.param(b"ID3\x04\0\0\0\0\0\x0a" + JUMPS, Reason.UNSUPPORTED_FORMAT, id="tagged code"),
    ],
)
async def test_what_is_no_recording_is_rejected_with_its_reason(data, reason, decoded):
    with pytest.raises(AudioRejected) as rejection:
        await decoded(data)

    assert rejection.value.reason == reason
    assert rejection.value.message.endswith(".")
    assert "\n" not in rejection.value.message


async def test_a_video_without_sound_is_rejected(make, decoded):
    with pytest.raises(AudioRejected) as rejection:
        await decoded(make("m4a", video=True, silent=True))

    assert rejection.value.reason == Reason.NO_AUDIO_TRACK


async def test_a_codec_that_is_not_on_the_list_is_rejected(chirp, decoded):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("wavpack", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(chirp(1.0).reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    with pytest.raises(AudioRejected) as rejection:
        await decoded(file.getvalue())

    assert rejection.value.reason == Reason.UNSUPPORTED_CODEC


def flac_of_silence(seconds: int, rate: int, channels: int, *, announced: bool) -> bytes:
    layouts = {1: "mono", 8: "7.1"}
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate, layout=layouts[channels])
        silence = np.zeros((1, rate * channels), np.int16)
        for second in range(seconds):
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout=layouts[channels])
            frame.sample_rate, frame.pts = rate, second * rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(file.getvalue())
    if not announced:
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    return bytes(data)


async def test_a_recording_that_announces_too_much_is_rejected_before_it_is_decoded(decoded):
    with pytest.raises(AudioRejected) as rejection:
        await decoded(
            flac_of_silence(120, 16_000, 1, announced=True), Limits(max_duration_seconds=60)
        )

    assert rejection.value.reason == Reason.TOO_LONG
    assert "120 s" in rejection.value.message


async def test_a_bomb_that_announces_nothing_stops_at_the_limit(decoded):
    bomb = flac_of_silence(120, 16_000, 1, announced=False)
    assert len(bomb) < 50_000

    with pytest.raises(AudioRejected) as rejection:
        await decoded(bomb, Limits(max_duration_seconds=60))

    assert rejection.value.reason == Reason.TOO_MANY_SAMPLES


async def test_a_bomb_of_many_channels_stops_at_the_limit(decoded):
    bomb = flac_of_silence(20, 192_000, 8, announced=True)

    with pytest.raises(AudioRejected) as rejection:
        await decoded(bomb, Limits(max_decoded_samples=10 * 192_000 * 8))

    assert rejection.value.reason == Reason.TOO_MANY_SAMPLES


async def test_eight_channels_at_192_khz_are_decoded_in_bounded_memory(decoded):
    result = await decoded(flac_of_silence(20, 192_000, 8, announced=True))

    assert len(result.pcm) == 20 * 16_000
    assert result.summary.peak_memory_bytes < 150 << 20


async def test_a_clock_that_jumps_by_hours_makes_no_silence(decoded, chirp):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in (0, 4 * 3600):
            frame = av.AudioFrame.from_ndarray(
                chirp(1.0).reshape(1, -1), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 16_000, start * 16_000
            container.mux(stream.encode(frame))

    assert len((await decoded(file.getvalue())).pcm) == 2 * 16_000


async def test_memory_ends(decoded, make):
    with pytest.raises(AudioRejected) as rejection:
        await decoded(make("mp3"), Limits(memory_bytes=64 << 10))

    assert rejection.value.reason == Reason.MEMORY_LIMIT


async def test_no_file_of_python_itself_is_a_recording(decoded):
    """Programs, archives, compiled code, text."""
    folder = Path(ctypes.__file__).parents[1]
    files = [Path(sys.executable), *sorted(folder.glob("lib-dynload/*.so"))[:40]]
    files += [*sorted(folder.glob("__pycache__/*.pyc"))[:40], *sorted(folder.glob("*.py"))[:10]]

    for file in files:
        with pytest.raises(AudioRejected):
            await decoded(file.read_bytes()[:200_000])


@pytest.mark.parametrize("seed", range(3))
async def test_flipped_bits_never_do_worse_than_a_rejection(seed, make, each_format, decoded):
    dice = random.Random(seed)
    data = bytearray(make(each_format, 1.0))
    for _ in range(30):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)

    with suppress(AudioRejected):  # and never DecoderFailed
        await decoded(bytes(data), Limits(max_duration_seconds=1000))


async def test_the_next_recording_works_after_a_rejection(chirp, decoded):
    with pytest.raises(AudioRejected):
        await decoded(PNG)

    assert len((await decoded(encode_slice(chirp(1.0)))).pcm) == 16_000
