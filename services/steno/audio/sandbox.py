"""Decodes untrusted audio in a child process: streaming, in bounded memory.

The child has no network, no files, no secrets and no privileges (`steno.audio.decoder.jail`), and
gets at the recording only by asking this side for ranges of its bytes. This side believes nothing
that the child says: it checks every length and counts every sample itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from steno.audio.decoder import wire
from steno.audio.decoder.wire import Kind, Reason
from steno.audio.errors import AudioError, AudioRejected, DecoderFailed
from steno.audio.fork_server import START_SECONDS, Child, fork_server

log = logging.getLogger(__name__)

T = TypeVar("T")

WALLS = Gauge(
    "steno_sandbox_walls", "1 for each wall around decoders that stands, else 0.", ["wall"]
)

ReadAt = Callable[[int, int], Awaitable[bytes]]
"""Reads up to `size` bytes from `offset` on: `await read_at(offset, size)`.

Fewer bytes than asked for mean that the recording ends there.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may cost."""

    max_duration_seconds: float = 24 * 3600
    """Longest recording; beyond it, TOO_LONG or TOO_MANY_SAMPLES."""
    max_decoded_samples: int = 1 << 35
    """Most samples over all channels at their own rate; 24 h of 8 channels at 48 kHz fit."""
    memory_bytes: int = 512 << 20
    """Address space the child may take beyond its libraries. What it really holds is less."""
    cpu_seconds: int = 3600
    """Processor time of the child; decoding an hour takes some 5 to 15 s."""
    stall_seconds: float = 60.0
    """Longest time without a word from the child while it has all that it asked for."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a recording was before it became 16 kHz mono."""

    container: str
    codec: str
    sample_rate_hertz: int
    channel_count: int
    bit_rate: int | None
    """Bits per second, if the container tells."""
    declared_duration_seconds: float | None
    """Duration from the header; the truth is `Summary.sample_count`."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came out of a recording."""

    sample_count: int
    """Samples at 16 kHz."""
    truncation: str
    """One sentence that says how the end of the recording is missing; empty if it is all there."""
    damaged_packets: int
    """Packets that could not be decoded and were passed over."""
    cpu_seconds: float
    """Processor time of the child."""
    peak_memory_bytes: int
    """Most memory that the child ever held."""

    @property
    def truncated(self) -> bool:
        """True if the recording's end is missing."""
        return bool(self.truncation)


class Decoding:
    """A recording that is being decoded: iterate over its PCM, then read its summary.

    Blocks are int16 arrays of shape (samples,) with at most one second at 16 kHz. The child waits
    while nobody takes them.
    """

    def __init__(
        self,
        child: Child,
        read_at: ReadAt,
        size_bytes: int | None,
        limits: Limits,
    ) -> None:
        self._child = child
        self._read_at = read_at
        self._size_bytes = size_bytes
        self._limits = limits
        self._sample_count = 0
        self._info: MediaInfo | None = None
        self._summary: Summary | None = None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def info(self) -> MediaInfo:
        """What the recording is; known from the start."""
        assert self._info is not None
        return self._info

    @property
    def summary(self) -> Summary:
        """What came out; known once the blocks have all been taken."""
        if self._summary is None:
            raise RuntimeError("the recording has not been decoded to its end yet")
        return self._summary

    async def __aiter__(self) -> AsyncIterator[NDArray[np.int16]]:
        while self._summary is None:
            kind, payload = await self._next()
            if kind == Kind.PCM:
                yield self._block(payload)
            elif kind == Kind.END:
                self._summary = self._parse_summary(payload)
            else:
                raise _nonsense(f"frame of kind {kind}")

    async def start(self) -> None:
        """Hands over the job and waits until the child knows what the recording is."""
        await self.lock_in()
        kind, payload = await self._next()
        if kind != Kind.INFO:
            raise _nonsense(f"frame of kind {kind} before INFO")
        self._info = _parse(MediaInfo, _record(payload))

    async def lock_in(self) -> None:
        """Hands over the job and waits until the child has locked itself in."""
        job = {
            "size_bytes": self._size_bytes,
            "max_samples": int(self._limits.max_duration_seconds * wire.SAMPLE_RATE_HERTZ),
            "max_decoded_samples": self._limits.max_decoded_samples,
            "memory_bytes": self._limits.memory_bytes,
            "cpu_seconds": self._limits.cpu_seconds,
        }
        try:
            await self._say(Kind.JOB, json.dumps(job).encode())
            kind, payload = await self._next(START_SECONDS)
            if kind != Kind.READY:
                raise _nonsense(f"frame of kind {kind} before READY")
        except DecoderFailed as error:  # whatever it was: the child has not seen a byte yet
            raise DecoderFailed(Reason.DECODER_UNAVAILABLE, error.message) from error
        _look_at(_record(payload))

    async def _next(self, patience_seconds: float | None = None) -> tuple[int, bytes]:
        """Returns the child's next frame that is no `READ`; answers those."""
        while True:
            kind, payload = await self._hear(patience_seconds or self._limits.stall_seconds)
            if kind == Kind.READ:
                await self._answer(payload)
            elif kind == Kind.REJECTED:
                raise AudioRejected(*_verdict(payload))
            elif kind == Kind.FAILED:
                raise DecoderFailed(*_verdict(payload))
            else:
                return kind, payload

    async def _hear(self, patience_seconds: float) -> tuple[int, bytes]:
        stdout = self._child.stdout
        try:
            async with asyncio.timeout(patience_seconds):
                kind, length = wire.HEADER.unpack(await stdout.readexactly(wire.HEADER.size))
                if length > wire.MAX_PAYLOAD_BYTES:
                    raise _nonsense(f"a payload of {length} bytes")
                return kind, await stdout.readexactly(length)
        except TimeoutError:
            # A machine that is busy or was halted looks the same: that is no verdict on the bytes.
            raise DecoderFailed(
                Reason.DECODE_TIMEOUT,
                f"Decoding made no progress for {patience_seconds:.0f} s and was stopped.",
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._death() from None

    async def _death(self) -> AudioError:
        status = await self._child.wait()
        if status == -signal.SIGXCPU:
            return AudioRejected(
                Reason.DECODE_TIMEOUT,
                f"Decoding took more than {self._limits.cpu_seconds} s of processor time.",
            )
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return DecoderFailed(Reason.DECODER_CRASHED, f"The decoder died ({how}).")

    async def _answer(self, payload: bytes) -> None:
        if len(payload) != wire.READ_REQUEST.size:
            raise _nonsense("a malformed request")
        offset, size = wire.READ_REQUEST.unpack(payload)
        if size > wire.MAX_READ_BYTES:
            raise _nonsense(f"a request for {size} bytes")
        if self._size_bytes is not None and offset + size > self._size_bytes:
            raise _nonsense(f"a request beyond the end, at {offset}")
        await self._say(Kind.DATA, (await self._read_at(offset, size))[:size])

    async def _say(self, kind: Kind, payload: bytes) -> None:
        stdin = self._child.stdin
        try:
            async with asyncio.timeout(max(START_SECONDS, self._limits.stall_seconds)):
                stdin.write(wire.pack(kind, payload))
                await stdin.drain()
        except TimeoutError:
            raise DecoderFailed(
                Reason.DECODE_TIMEOUT, "Decoding stopped taking data and was stopped."
            ) from None
        except ConnectionError:
            raise await self._death() from None

    def _block(self, payload: bytes) -> NDArray[np.int16]:
        if not payload or len(payload) % 2 or len(payload) > 2 * wire.BLOCK_SAMPLES:
            raise _nonsense(f"a block of {len(payload)} bytes")
        block = np.frombuffer(payload, dtype="<i2")
        self._sample_count += len(block)
        if self._sample_count > self._limits.max_duration_seconds * wire.SAMPLE_RATE_HERTZ:
            raise _nonsense("more samples than allowed")
        return block

    def _parse_summary(self, payload: bytes) -> Summary:
        summary = _parse(Summary, _record(payload))
        if summary.sample_count != self._sample_count:
            raise _nonsense("a wrong count of samples")
        return summary


@asynccontextmanager
async def decode(
    read_at: ReadAt, size_bytes: int | None, limits: Limits | None = None
) -> AsyncIterator[Decoding]:
    """Decodes a recording in a child process that ends with the context.

    Args:
        read_at: reads a range of the recording. What it raises comes out of here unchanged.
        size_bytes: the recording's size; None if it is still growing, and then it is read from
            front to back until `read_at` returns nothing.
        limits: what the recording may cost.

    Raises:
        AudioRejected: the bytes can't be transcribed. On entry, or while iterating.
        DecoderFailed: the child died, fell silent, or could not be started.
    """
    if size_bytes == 0:
        raise AudioRejected(Reason.EMPTY, "The file is empty.")
    async with fork_server().child() as child:
        decoding = Decoding(child, read_at, size_bytes, limits or Limits())
        await decoding.start()
        yield decoding


def in_memory(data: bytes) -> ReadAt:
    """Returns a `ReadAt` over bytes that are already here."""

    async def read_at(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    return read_at


_reported: set[str] = set()
_walls_required = True


def require_walls(required: bool) -> None:
    """Says what happens in this process where the system does not filter the decoder's calls.

    Args:
        required: no recording is decoded then: DecoderFailed with DECODER_UNAVAILABLE. Else they
            are, and the log tells it once.
    """
    global _walls_required
    _walls_required = required


async def tell_walls() -> None:
    """Tells at a process's start what the system lacks to lock decoders in: by log and by metric.

    A decoder is started for it that decodes nothing. Never raises: what can't be decoded here is
    refused when it comes.
    """
    try:
        async with fork_server().child() as child:
            await Decoding(child, in_memory(b""), 0, Limits()).lock_in()
    except DecoderFailed as error:
        log.error("no recording will be decoded here: %s", error.message, extra={"action": "start"})


def _look_at(protections: dict[str, Any]) -> None:
    """Refuses to decode without the one wall to files and network; warns once for each missing."""
    missing = [name for name, standing in protections.items() if not standing]
    for name in _WALLS:
        WALLS.labels(name).set(name not in missing)
    if "seccomp" in missing and _walls_required:
        raise DecoderFailed(
            Reason.DECODER_UNAVAILABLE,
            "This system can't lock the decoder in (no seccomp filter), so nothing is decoded; "
            "STENO_SANDBOX=warn would decode without.",
        )
    for name in set(missing) - _reported:
        _reported.add(name)
        log.warning(
            "recordings are decoded without %s: a file that breaks the decoder has what this "
            "process has; STENO_SANDBOX=require refuses",
            _WALLS.get(name, name),
        )


_WALLS = {
    "seccomp": "a filter of system calls (seccomp)",
    "unprivileged": "giving up root",
    "dies_with_parent": "the kernel's word to end them with us",
}


def _record(payload: bytes) -> dict[str, Any]:
    try:
        record = json.loads(payload)
    except ValueError:
        raise _nonsense("a malformed record") from None
    if not isinstance(record, dict):
        raise _nonsense("a malformed record")
    return record


def _parse(kind: type[T], record: dict[str, Any]) -> T:
    try:
        return kind(**record)
    except TypeError:
        raise _nonsense("a malformed record") from None


def _verdict(payload: bytes) -> tuple[Reason, str]:
    record = _record(payload)
    try:
        return Reason(record["reason"]), str(record["message"])[:500]
    except (KeyError, ValueError):
        raise _nonsense("a malformed verdict") from None


def _nonsense(what: str) -> DecoderFailed:
    return DecoderFailed(Reason.DECODER_CRASHED, f"The decoder misbehaved: {what}.")
