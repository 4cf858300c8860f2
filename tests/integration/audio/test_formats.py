"""What comes in, in whatever format, comes out as the same 16 kHz mono recording."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest

from steno.audio import AudioRejected, Reason, decode, encode_slice, in_memory

from .conftest import Chirp, Decode, Lag, Make

LAG_MILLISECONDS = {"amr nb": 6, "m4a fragmented": 22}
"""Formats that say nothing of their codec's delay, or are written without saying it."""


async def test_every_format_gives_the_same_sound_at_the_same_time(
    each_format: str, make: Make, decoded: Decode, chirp: Chirp, lag_milliseconds: Lag
) -> None:
    result = await decoded(make(each_format))

    assert result.pcm.dtype == np.int16
    assert len(result.pcm) == pytest.approx(4 * 16_000, abs=1000)
    lag = lag_milliseconds(chirp(4.0), result.pcm)
    assert abs(lag) <= LAG_MILLISECONDS.get(each_format, 2)
    assert result.summary.sample_count == len(result.pcm)
    assert not result.summary.truncated, result.summary.truncation
    assert result.summary.damaged_packets == 0


async def test_a_recording_cut_in_the_middle_gives_its_readable_part_and_says_so(
    each_format_read_in_order: str, make: Make, decoded: Decode, chirp: Chirp, lag_milliseconds: Lag
) -> None:
    data = make(each_format_read_in_order)

    result = await decoded(data[: int(len(data) * 0.6) + 5])

    assert result.summary.truncated
    assert "2." in result.summary.truncation
    assert len(result.pcm) == pytest.approx(0.6 * 4 * 16_000, rel=0.25)
    assert abs(lag_milliseconds(chirp(4.0)[: len(result.pcm)], result.pcm)) <= 30


@pytest.mark.parametrize("name", ["m4a", "alac", "mov"])
async def test_an_mp4_whose_index_is_cut_off_is_unreadable(
    name: str, make: Make, decoded: Decode
) -> None:
    data = make(name)

    with pytest.raises(AudioRejected) as rejection:
        await decoded(data[: len(data) // 2])

    assert rejection.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("name", ["m4a", "mkv aac", "mov"])
async def test_the_sound_of_a_video_is_taken(
    name: str, make: Make, decoded: Decode, chirp: Chirp, lag_milliseconds: Lag
) -> None:
    result = await decoded(make(name, video=True))

    assert abs(lag_milliseconds(chirp(4.0), result.pcm)) <= 2


async def test_info_tells_what_the_recording_was(make: Make, decoded: Decode) -> None:
    info = (await decoded(make("mp3"))).info

    assert (info.container, info.codec) == ("mp3", "mp3")
    assert (info.sample_rate_hertz, info.channel_count) == (44_100, 2)
    assert info.declared_duration_seconds == pytest.approx(4.0, abs=0.1)
    assert info.bit_rate is not None


async def test_16_khz_mono_passes_unchanged_to_the_sample(chirp: Chirp, decoded: Decode) -> None:
    pcm = chirp(2.5)

    assert np.array_equal((await decoded(encode_slice(pcm))).pcm, pcm)


def wav(pcm: np.ndarray, *, channels: int, rate: int, data_bytes: int | None = None) -> bytes:
    data = pcm.astype("<i2").tobytes()
    size = len(data) if data_bytes is None else data_bytes
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        min(36 + size, 0xFFFFFFFF),
        b"WAVE",
        b"fmt ",
        16,
        1,
        channels,
        rate,
        rate * channels * 2,
        channels * 2,
        16,
        b"data",
        size,
    )
    return header + data


async def test_every_channel_is_heard_with_the_same_weight(decoded: Decode) -> None:
    pcm = np.zeros((48_000, 8), np.int16)
    for channel in range(8):
        pcm[channel * 6000 : (channel + 1) * 6000, channel] = 8000

    result = await decoded(wav(pcm, channels=8, rate=48_000))

    middles = result.pcm[1000::2000]
    assert len(middles) == 8
    assert np.all(np.abs(middles - 1000) <= 2)


@pytest.mark.parametrize("channels", range(1, 9))
async def test_a_recorder_may_have_up_to_eight_channels(
    channels: int, decoded: Decode, chirp: Chirp
) -> None:
    pcm = np.repeat(chirp(1.0)[:, None], channels, axis=1)

    result = await decoded(wav(pcm, channels=channels, rate=16_000))

    assert np.max(np.abs(result.pcm.astype(int) - chirp(1.0))) <= 1
    assert result.info.channel_count == channels


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 96_000, 192_000])
async def test_sample_rates_from_4_to_192_khz_are_heard(
    rate: int, decoded: Decode, chirp: Chirp
) -> None:
    result = await decoded(wav(chirp(1.0, rate), channels=1, rate=rate))

    assert len(result.pcm) == pytest.approx(16_000, abs=2)


@pytest.mark.parametrize(
    ("rate", "channels", "reason"),
    [
        (1, 1, Reason.UNSUPPORTED_SAMPLE_RATE),
        (3_999, 1, Reason.UNSUPPORTED_SAMPLE_RATE),
        (192_001, 1, Reason.UNSUPPORTED_SAMPLE_RATE),
        (16_000, 9, Reason.UNSUPPORTED_CHANNELS),
        (16_000, 64, Reason.UNSUPPORTED_CHANNELS),
    ],
)
async def test_what_nobody_records_is_refused_with_what_is_supported(
    rate: int, channels: int, reason: Reason, decoded: Decode
) -> None:
    with pytest.raises(AudioRejected) as rejection:
        await decoded(wav(np.zeros(32_000, np.int16), channels=channels, rate=rate))

    assert rejection.value.reason == reason
    assert "are supported" in rejection.value.message


@pytest.mark.parametrize("data_bytes", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 1000])
async def test_a_wav_whose_size_was_never_filled_in_is_read_to_its_end(
    data_bytes: int, decoded: Decode, chirp: Chirp
) -> None:
    pcm = chirp(2.0)

    result = await decoded(wav(pcm, channels=1, rate=16_000, data_bytes=data_bytes))

    assert np.array_equal(result.pcm, pcm)
    assert not result.summary.truncated


async def test_a_wav_that_announces_more_than_it_has_is_truncated(
    decoded: Decode, chirp: Chirp
) -> None:
    pcm = chirp(2.0)

    result = await decoded(wav(pcm, channels=1, rate=16_000, data_bytes=2_000_000))

    assert np.array_equal(result.pcm, pcm)
    assert result.summary.truncated


async def test_what_follows_a_wavs_samples_is_not_played(decoded: Decode, chirp: Chirp) -> None:
    pcm = chirp(1.0)
    data = wav(pcm, channels=1, rate=16_000) + b"LIST" + struct.pack("<I", 400) + b"INFO" * 100

    assert np.array_equal((await decoded(data)).pcm, pcm)


async def test_tags_in_front_of_an_mp3_do_not_matter(
    make: Make, decoded: Decode, chirp: Chirp, lag_milliseconds: Lag
) -> None:
    tag = b"ID3\x04\x00\x00\x00\x10\x00\x00" + bytes(0x10 << 14)  # 256 KiB of padding

    result = await decoded(tag + make("mp3"))

    assert abs(lag_milliseconds(chirp(4.0), result.pcm)) <= 2


async def test_damaged_packets_are_passed_over_and_what_follows_keeps_its_time(
    make: Make, decoded: Decode, chirp: Chirp, lag_milliseconds: Lag
) -> None:
    data = bytearray(make("ogg opus", 12.0))
    middle = len(data) // 2
    data[middle - 4000 : middle + 4000] = bytes(8000)

    result = await decoded(bytes(data))

    assert not result.summary.truncated
    assert len(result.pcm) == pytest.approx(12 * 16_000, abs=2000)
    tail = slice(-3 * 16_000, None)
    assert abs(lag_milliseconds(chirp(12.0)[tail], result.pcm[: 12 * 16_000][tail])) <= 100


async def test_a_hole_in_the_clock_of_a_container_becomes_silence(
    chirp: Chirp, decoded: Decode
) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in (0, 3 * 16_000):  # one second, two seconds of nothing, one second
            for at in range(0, 16_000, 1600):
                part = chirp(1.0)[at : at + 1600].reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start + at
                container.mux(stream.encode(frame))

    result = await decoded(file.getvalue())

    assert len(result.pcm) == 4 * 16_000
    assert np.array_equal(result.pcm[3 * 16_000 :], chirp(1.0))
    assert not result.pcm[16_000 : 3 * 16_000].any()


async def test_a_file_with_fewer_bytes_than_announced_is_truncated(chirp: Chirp) -> None:
    data = encode_slice(chirp(3.0))

    async with decode(in_memory(data[:50_000]), len(data)) as decoding:
        samples = sum([len(block) async for block in decoding])

    assert samples == (50_000 - 44) // 2
    assert decoding.summary.truncated


@pytest.mark.parametrize("name", ["wav", "mp3", "ogg opus", "webm opus", "aac", "flac"])
async def test_a_recording_of_unknown_size_is_read_until_nothing_comes(
    name: str, make: Make
) -> None:
    data = make(name)

    async with decode(in_memory(data), None) as decoding:
        samples = sum([len(block) async for block in decoding])

    assert samples == pytest.approx(4 * 16_000, abs=1000)
