"""What the header of a WAV tells of the samples behind it."""

from __future__ import annotations

import struct

import pytest

from steno.concatenation.container import Wave, wave_of

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def head(tag: int, bits: int, extra: bytes = b"", before: bytes = b"") -> bytes:
    """Of a WAV of 8 kHz stereo."""
    frame_bytes = 2 * bits // 8
    about = struct.pack("<HHIIHH", tag, 2, 8000, 8000 * frame_bytes, frame_bytes, bits) + extra
    chunks = before + struct.pack("<4sI", b"fmt ", len(about)) + about
    return b"RIFF" + bytes(4) + b"WAVE" + chunks + struct.pack("<4sI", b"data", 2**32 - 1)


@pytest.mark.parametrize(
    ("tag", "bits", "quiet"),
    [(1, 16, b"\x00"), (1, 24, b"\x00"), (1, 8, b"\x80"), (3, 32, b"\x00"), (6, 8, b"\xd5"),
     (7, 8, b"\xff")],
)  # fmt: skip
def test_each_kind_of_plain_samples_has_its_silence(tag: int, bits: int, quiet: bytes) -> None:
    wave = wave_of(head(tag, bits) + b"samples")

    assert wave == Wave(44, 2 * bits // 8, 8000, quiet)


def test_what_stands_before_the_samples_is_passed_over() -> None:
    odd = struct.pack("<4sI", b"LIST", 3) + b"abc\x00"
    extra = struct.pack("<HHIH", 22, 24, 3, 1) + GUID_TAIL

    wave = wave_of(head(0xFFFE, 24, extra, before=odd))

    assert wave == Wave(44 + 24 + 12, 6, 8000, b"\x00")
    # A second of the recording, which has 16 kHz, is a second of the WAV.
    assert wave.frame_at(wave.first_byte + 6 * 8000) == 16_000


@pytest.mark.parametrize(
    "other",
    [b"", b"ID3", head(1, 16)[:40], head(2, 4), head(0xFFFE, 16), b"RIFF0000AVI " + bytes(99)],
)
def test_what_is_no_wav_of_plain_samples_or_not_all_there_tells_nothing(other: bytes) -> None:
    assert wave_of(other) is None
