"""What can go wrong with a recording.

AudioError                  has a `reason` for machines; its text is one sentence for people
├── AudioRejected           the bytes are at fault: no retry can help
└── DecoderFailed           the decoder is at fault: another try may succeed

MalformedSlice              a stored slice is not what `encode_slice` writes
"""

from __future__ import annotations

from steno.audio.decoder.wire import Reason

__all__ = ["AudioError", "AudioRejected", "DecoderFailed", "MalformedSlice", "Reason"]


class AudioError(Exception):
    """A recording could not be decoded."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class AudioRejected(AudioError):
    """The recording can't be transcribed, whoever tries and however often."""


class DecoderFailed(AudioError):
    """The decoder died, fell silent or could not be started; the recording may be sound.

    With DECODER_UNAVAILABLE it has not seen a byte of the recording: that says nothing about it.
    """


class MalformedSlice(Exception):
    """The stored slice is not 16 kHz mono 16-bit PCM in a WAV, or is not whole."""
