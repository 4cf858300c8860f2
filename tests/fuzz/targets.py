"""What is fuzzed: each target takes any bytes, and fails where our code does what it must not."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from contract import methods, request_type
from corpus.calls import FORGED_TOKENS
from corpus.waves import EXTENSIBLE, chunk, data, format_chunk, wave
from steno.audio import AudioError, Limits, MalformedSlice, decode_slice, in_memory, wav_header
from steno.audio.decoder import wire
from steno.audio.decoder.containers import Rejected, identify, is_ogg_whole, wav_data
from steno.audio.decoder.remote import RemoteFile
from steno.audio.decoder.wire import Kind, pack
from steno.audio.sandbox import Decoding
from steno.concatenation.container import wave_of
from steno.platform.errors import InvalidArgument, to_status
from steno.platform.paging import read_token
from steno.platform.validation import validate
from steno.transcript import FORMATS, Model, Segment, Transcript, Word
from steno.upload import library


@dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
        parse: takes any bytes.
        seeds: bytes in order, to begin with.
    """

    parse: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def wave_header(content: bytes) -> None:
    """The header of a live session's WAV is read, or is none."""
    found = wave_of(content)
    if found is not None:
        assert 0 < found.first_byte <= len(content)
        assert found.frame_at(found.first_byte + found.frame_bytes) >= 0


class _Parent:
    """The other end of a decoder's channel: it has a recording, and is asked for ranges."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._asked = (0, 0)

    def send(self, kind: Kind, payload: bytes) -> None:
        offset, size = self._asked = wire.READ_REQUEST.unpack(payload)
        assert kind is Kind.READ
        assert size <= wire.MAX_READ_BYTES
        assert offset + size <= len(self._content)

    def receive(self, expected: Kind) -> bytes:
        offset, size = self._asked
        return self._content[offset : offset + size]


def signature(content: bytes) -> None:
    """A container is told by its signature, and a WAV's samples are found, or it is refused."""
    parent: Any = _Parent(content)
    file = RemoteFile(parent, len(content))
    is_ogg_whole(file)
    with suppress(Rejected):
        identify(file)
    offset, size = wav_data(file)
    assert offset >= 0
    assert size is None or size >= 0


class _Child:
    """A decoder that says what it likes."""

    def __init__(self, said: bytes) -> None:
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(said)
        self.stdout.feed_eof()
        self.stdin = self
        self.pid = 0

    def write(self, frame: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    async def wait(self) -> int:
        return 1


def decoder(said: bytes) -> None:
    """A decoder that was taken over can make its recording fail, and no more."""

    async def listen() -> None:
        child: Any = _Child(said)
        decoding = Decoding(child, in_memory(bytes(100)), 100, Limits(max_duration_seconds=5))
        await decoding.start()
        taken = sum([len(block) async for block in decoding])
        assert taken == decoding.summary.sample_count <= 5 * wire.SAMPLE_RATE_HERTZ

    with suppress(AudioError):
        asyncio.run(listen())


def stored_slice(content: bytes) -> None:
    """A slice from the store is one that we wrote, or is refused."""
    with suppress(MalformedSlice):
        samples = decode_slice(content)
        assert content == wav_header(len(samples)) + samples.tobytes()


def page_token(content: bytes) -> None:
    """A page token names a place, or is refused."""
    token = content.decode(errors="replace")
    with suppress(InvalidArgument):
        read_token(token, ["default", [], []])


METHODS = methods()


def request(content: bytes) -> None:
    """A request of any RPC keeps its rules, or is refused in an answer that a client can read.

    The first byte chooses the RPC.
    """
    kind = request_type(METHODS[content[0] % len(METHODS)] if content else METHODS[0])
    refusal = None
    try:
        validate(kind.FromString(content[1:]))
    except DecodeError:
        return
    except InvalidArgument as error:
        refusal = error
    if refusal is not None:
        assert len(to_status(refusal, {}).SerializeToString()) < 4096


def attachment(content: bytes) -> None:
    """The name of a file is a header's value that ends nothing and begins nothing."""
    header = library.attachment(content.decode(errors="replace"))
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


def transcript(content: bytes) -> None:
    """Whatever was said, each format has as many entries as there are segments.

    Four numbers stand before each text; texts are parted by zeros.
    """
    segments = []
    for text in content.split(b"\0\0"):
        start, length, logprob, probability = struct.unpack("<HHef", text[:10].ljust(10, b"\0"))
        said = text[10:].decode(errors="replace")
        times = (start / 100, (start + length) / 100)
        segments.append(
            Segment(*times, said, (Word(*times, said, probability),), avg_logprob=logprob)
        )
    said_all = Transcript(
        segments=tuple(segments),
        language="en",
        duration=1.0,
        model=Model("builtin", "", ""),
    )
    count = len(segments)
    for line in (rows := FORMATS["tsv"].write(said_all).split("\n"))[:-1]:
        assert line.count("\t") == 2
    assert len(rows) == count + 2
    assert FORMATS["txt"].write(said_all).count("\n") == count
    assert FORMATS["srt"].write(said_all).count(" --> ") == count
    assert FORMATS["vtt"].write(said_all).count("-->") == count
    document = json.loads(FORMATS["json"].write(said_all), parse_constant=_no_json)
    assert len(document["segments"]) == count


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


WAVES = (
    wave(format_chunk(), data(bytes(64))),
    wave(chunk(b"LIST", b"INFO"), format_chunk(bits=8), data(bytes(9), size=0)),
    wave(format_chunk(tag=EXTENSIBLE, more=b"\x16\0" + bytes(22)), data(bytes(64))),
    wave(chunk(b"ds64", bytes(28)), format_chunk(), data(bytes(9), size=2**32 - 1), form=b"RF64"),
)

_INFO = (
    b'{"container": "wav", "codec": "pcm", "sample_rate_hertz": 1, "channel_count": 1, '
    b'"bit_rate": null, "declared_duration_seconds": null}'
)
_END = (
    b'{"sample_count": 8, "truncation": "", "damaged_packets": 0, "cpu_seconds": 1, '
    b'"peak_memory_bytes": 1}'
)
_READY = pack(Kind.READY, b'{"seccomp": true, "unprivileged": true, "dies_with_parent": true}')
_READ = pack(Kind.READ, wire.READ_REQUEST.pack(0, 100))

SAID = (
    _READY + _READ + pack(Kind.INFO, _INFO) + pack(Kind.PCM, bytes(16)) + pack(Kind.END, _END),
    _READY + pack(Kind.REJECTED, b'{"reason": "UNREADABLE", "message": "It is."}'),
    pack(Kind.FAILED, b'{"reason": "DECODER_CRASHED", "message": "It has."}'),
)

TARGETS = {
    "wave_header": Target(wave_header, WAVES),
    "signature": Target(
        signature,
        (*WAVES, b"OggS\0\4" + bytes(20) + b"\1\2xx", b"ID3\4\0\0\0\0\0\1x\xff\xfb\x90\0" * 9),
    ),
    "decoder": Target(decoder, SAID),
    "stored_slice": Target(stored_slice, (wav_header(8) + bytes(16),)),
    "page_token": Target(page_token, tuple(map(str.encode, FORGED_TOKENS.values()))),
    "request": Target(
        request,
        tuple(
            bytes([number]) + request_type(method)().SerializeToString() + b"\x0a\x01x"
            for number, method in enumerate(METHODS)
        ),
    ),
    "attachment": Target(attachment, (b"a.wav", b'"\r\nX: y', b"\xf0\x9f\x8e\x99")),
    "transcript": Target(
        transcript,
        (
            struct.pack("<HHef", 1, 2, -0.5, 0.5) + b"Words --> & <b>\n" + b"\0\0" + b"more",
            struct.pack("<HHef", 1, 2, float("nan"), float("inf")) + b"x\ty\r\n\xe2\x80\xa8z",
        ),
    ),
}
