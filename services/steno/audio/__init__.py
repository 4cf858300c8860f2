"""Audio: from untrusted bytes to clean 16 kHz mono slices.

    bytes --decode()--> PCM blocks --Slicer(SpeechDetector)--> slices --encode_slice()--> storage

`decode` runs libav in a locked-in child process (`sandbox`, `decoder`); `SpeechDetector` tells
speech from silence (`vad`); `Slicer` cuts in silence, to the sample (`slicer`); `encode_slice` and
`decode_slice` are how slices are stored (`pcm`). Each of them streams: memory does not grow with
the recording.

    async with decode(read_at, size_bytes) as decoding:
        slicer = Slicer(SpeechDetector(model))
        async for block in decoding:
            for piece in slicer.push(block):
                await store(piece)
        for piece in slicer.finish():
            await store(piece)
    decoding.summary.truncated

The room imports no service and nothing of the platform. Its errors are in `errors`.
"""

from steno.audio.errors import AudioError, AudioRejected, DecoderFailed, MalformedSlice, Reason
from steno.audio.pcm import (
    SAMPLE_BYTES,
    SAMPLE_RATE_HERTZ,
    decode_slice,
    duration_seconds,
    encode_slice,
    from_float,
    to_float,
    wav_header,
)
from steno.audio.sandbox import (
    Decoding,
    Limits,
    MediaInfo,
    ReadAt,
    Summary,
    decode,
    in_memory,
    require_walls,
    tell_walls,
)
from steno.audio.slicer import Slice, Slicer, SliceSettings
from steno.audio.vad import WINDOW_SAMPLES, SpeechDetector, VadModel, speech_spans

__all__ = [
    "SAMPLE_BYTES",
    "SAMPLE_RATE_HERTZ",
    "WINDOW_SAMPLES",
    "AudioError",
    "AudioRejected",
    "DecoderFailed",
    "Decoding",
    "Limits",
    "MalformedSlice",
    "MediaInfo",
    "ReadAt",
    "Reason",
    "Slice",
    "SliceSettings",
    "Slicer",
    "SpeechDetector",
    "Summary",
    "VadModel",
    "decode",
    "decode_slice",
    "duration_seconds",
    "encode_slice",
    "from_float",
    "in_memory",
    "require_walls",
    "speech_spans",
    "tell_walls",
    "to_float",
    "wav_header",
]
