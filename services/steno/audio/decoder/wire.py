"""What parent and child say to each other: frames of one kind byte, a length and a payload.

The child asks, the parent answers; but for its answers to `READ` the parent says one thing only,
the job. The parent trusts nothing that it reads here.

    parent                                 child
      JOB    {size_bytes, limits}    -->
                                     <--   READY  {protections}
                                     <--   READ   offset, size      (any number of times)
      DATA   bytes                   -->
                                     <--   INFO   {container, codec, ...}
                                     <--   PCM    samples           (any number of times)
                                     <--   END    {...}, or REJECTED or FAILED {reason, message}
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum, StrEnum

HEADER = struct.Struct("<BI")
"""Kind, then the payload's length in bytes."""

READ_REQUEST = struct.Struct("<QI")
"""Offset, then size, both in bytes."""

_PIPE_BYTES = 1 << 16
"""What a pipe holds at most, unless told otherwise."""

MAX_READ_BYTES = 4 << 20
"""Largest range the child asks for at once."""

SAMPLE_RATE_HERTZ = 16_000
"""Rate of the decoded recording: what Whisper and Silero VAD hear."""

BLOCK_SAMPLES = SAMPLE_RATE_HERTZ
"""Most samples in one `PCM` frame: one second."""

MAX_PAYLOAD_BYTES = 64 * 1024
"""Largest payload that a parent accepts from its child."""


COMMAND = struct.Struct("<BI")
"""To the fork server: kind, then the child's number. With FORK comes the socket that the child has
as its standard input and output."""

ANSWER = struct.Struct("<BIi")
"""From the fork server: kind, the child's number, then its process id or its exit status."""


class Command(IntEnum):
    """What the fork server is told."""

    FORK = 1
    KILL = 2


class Answer(IntEnum):
    """What the fork server tells."""

    FORKED = 1
    ENDED = 2
    """The status of a child that signal n has killed is -n."""


class Kind(IntEnum):
    """Kinds of frames."""

    JOB = 1
    DATA = 2
    READY = 3
    READ = 4
    INFO = 5
    PCM = 6
    END = 7
    REJECTED = 8
    FAILED = 9


class Reason(StrEnum):
    """Why a recording gave no transcript, for machines."""

    EMPTY = "EMPTY"
    """The file has no bytes."""
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    """The bytes are no container of the list: text, an image, a playlist, a program, noise."""
    UNSUPPORTED_CODEC = "UNSUPPORTED_CODEC"
    """The container is known, the codec in it is not."""
    UNSUPPORTED_SAMPLE_RATE = "UNSUPPORTED_SAMPLE_RATE"
    """The sample rate is under 4 kHz or over 192 kHz."""
    UNSUPPORTED_CHANNELS = "UNSUPPORTED_CHANNELS"
    """There are more than 8 channels."""
    UNREADABLE = "UNREADABLE"
    """The signature is right, but what follows can't be read."""
    NO_AUDIO_TRACK = "NO_AUDIO_TRACK"
    """The container is sound and holds no audio, such as a video without sound."""
    NO_SAMPLES = "NO_SAMPLES"
    """There is an audio track, and not one sample in it."""
    TOO_LONG = "TOO_LONG"
    """The header announces more than the longest duration allowed."""
    TOO_MANY_SAMPLES = "TOO_MANY_SAMPLES"
    """More came out while decoding than is allowed, whatever the header says."""
    MEMORY_LIMIT = "MEMORY_LIMIT"
    """Decoding needs more memory than the child may have."""
    DECODE_TIMEOUT = "DECODE_TIMEOUT"
    """The child used up its CPU time; of a decoder that failed: it fell silent for too long."""
    DECODER_CRASHED = "DECODER_CRASHED"
    """The child died, or spoke nonsense."""
    DECODER_UNAVAILABLE = "DECODER_UNAVAILABLE"
    """The child could not be started, or did not get ready for its recording."""


def pack(kind: Kind, payload: bytes) -> bytes:
    """Returns one frame."""
    return HEADER.pack(kind, len(payload)) + payload


class Channel:
    """The child's end: blocking reads and writes of whole frames on two file descriptors.

    Raises `EOFError` when the parent is gone.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd

    def send(self, kind: Kind, payload: bytes) -> None:
        """Writes one frame; blocks while the parent has no room for it."""
        frame = memoryview(pack(kind, payload))
        while frame:
            frame = frame[os.write(self._write_fd, frame) :]

    def receive(self, expected: Kind) -> bytes:
        """Reads one frame and returns its payload."""
        kind, length = HEADER.unpack(self._read_exactly(HEADER.size))
        if kind != expected:
            raise EOFError(f"expected {expected.name}, got frame kind {kind}")
        return self._read_exactly(length)

    def _read_exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._read_fd, min(size, _PIPE_BYTES))
            if not part:
                raise EOFError("the parent closed the channel")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
