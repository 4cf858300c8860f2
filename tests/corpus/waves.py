"""WAV files put together by hand, so that any field of them can lie."""

from __future__ import annotations

import struct

PCM, FLOAT, MP3, EXTENSIBLE = 1, 3, 0x55, 0xFFFE

SECOND = (b"\x00\x10" * 40 + b"\x00\xf0" * 40) * 200
"""A second of a buzz: 16 kHz, mono, 16 bit."""


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """A chunk of RIFF, which may lie about its length."""
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + b"\x00" * (len(content) % 2)


def format_chunk(
    tag: int = PCM,
    channels: int = 1,
    hertz: int = 16_000,
    bits: int = 16,
    frame_bytes: int | None = None,
    more: bytes = b"",
) -> bytes:
    """The chunk that says how samples lie."""
    frame = (channels * bits // 8 if frame_bytes is None else frame_bytes) % 2**16
    bytes_a_second = min(hertz * frame, 2**32 - 1)
    fields = struct.pack("<HHIIHH", tag, channels, hertz, bytes_a_second, frame, bits)
    return chunk(b"fmt ", fields + more)


def data(samples: bytes = SECOND, size: int | None = None) -> bytes:
    """The chunk of samples."""
    return chunk(b"data", samples, size)


def wave(*chunks: bytes, form: bytes = b"RIFF", size: int | None = None) -> bytes:
    """A file of these chunks."""
    content = b"WAVE" + b"".join(chunks)
    return form + struct.pack("<I", len(content) if size is None else size) + content
