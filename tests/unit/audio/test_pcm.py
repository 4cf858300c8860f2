"""PCM: how samples become bytes and floats, and come back."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from steno.audio import (
    MalformedSlice,
    decode_slice,
    duration_seconds,
    encode_slice,
    from_float,
    to_float,
    wav_header,
)


def test_a_stored_slice_comes_back_to_the_sample() -> None:
    pcm = np.array([0, 1, -1, 32767, -32768], np.int16)

    assert np.array_equal(decode_slice(encode_slice(pcm)), pcm)


def test_a_stored_slice_is_a_wav_that_anyone_can_play() -> None:
    pcm = np.arange(1000, dtype=np.int16)

    with wave.open(io.BytesIO(encode_slice(pcm))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.readframes(2000) == pcm.astype("<i2").tobytes()


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        wav_header(0)[:-1],
        encode_slice(np.zeros(10, np.int16))[:-1],
        encode_slice(np.zeros(10, np.int16))[:-2],
        encode_slice(np.zeros(10, np.int16)) + b"\0\0",
        b"RIFX" + encode_slice(np.zeros(10, np.int16))[4:],
    ],
    ids=["empty", "half a header", "half a sample", "too few", "too many", "another format"],
)
def test_anything_else_is_no_slice(stored: bytes) -> None:
    with pytest.raises(MalformedSlice):
        decode_slice(stored)


def test_floats_keep_every_sample_and_clip_what_is_too_loud() -> None:
    every = np.arange(-32768, 32768, dtype=np.int16)

    assert to_float(every).dtype == np.float32
    assert to_float(every).min() == -1.0
    assert to_float(every).max() < 1.0
    assert np.array_equal(from_float(to_float(every)), every)
    assert from_float(np.array([-2.0, 2.0])).tolist() == [-32768, 32767]


def test_samples_last_a_16000th_of_a_second() -> None:
    assert duration_seconds(24_000) == 1.5
