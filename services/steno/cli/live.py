"""`steno live`: streams a recording while it happens, over as many connections as it takes."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from uuid import uuid4

from steno.cli.connection import PATIENCE_SECONDS, Services, connect
from steno.cli.failures import CliError, Exit
from steno.cli.following import follow_session, get_session
from steno.cli.reading import in_reader, sendable
from steno.cli.rendering import print_json, say
from steno.cli.sessions import end, shower
from steno.v1.concatenation_pb2 import (
    AUDIO_ENCODING_ALAW,
    AUDIO_ENCODING_CONTAINER,
    AUDIO_ENCODING_FLOAT32,
    AUDIO_ENCODING_LINEAR16,
    AUDIO_ENCODING_MULAW,
    CHUNK_FORM_FILES,
    AudioEncoding,
    Chunk,
    CreateSessionRequest,
    RecordingFormat,
    SessionConfig,
    StreamAudioRequest,
    StreamAudioResponse,
    StreamAudioStart,
)

if TYPE_CHECKING:
    import grpc

    from steno.cli.microphone import Microphone

    Call = grpc.aio.StreamStreamCall[StreamAudioRequest, StreamAudioResponse]

STDIN = "-"
SHUFFLED = 50
"""Chunks among which the troublesome producer changes the order."""

_MOST_UNANSWERED = 500
"""Chunks that are sent ahead of their acknowledgement."""
_GUESSED_BYTES_PER_SECOND = 16_000
_UNTOLD = 0x7FFF_F000
"""From here on a WAV's length means that its writer, as sox or ffmpeg into a pipe, knew none."""
_WAV = {
    # (format tag, bits)
    (1, 16): AUDIO_ENCODING_LINEAR16,
    (3, 32): AUDIO_ENCODING_FLOAT32,
    (6, 8): AUDIO_ENCODING_ALAW,
    (7, 8): AUDIO_ENCODING_MULAW,
}


@dataclass
class Source:
    """Where the sound comes from: what it is, how much of it is a second, and its first bytes.

    left: bytes that are sound; others may come behind it.
    """

    file: BinaryIO | Microphone
    config: SessionConfig
    bytes_per_second: float
    frame_bytes: int = 1
    head: bytes = b""
    left: int = sys.maxsize

    async def chunks(self, seconds: float) -> AsyncIterator[bytes]:
        """Its bytes, in pieces of about so many seconds."""
        frames = max(1, round(self.bytes_per_second * seconds / self.frame_bytes))
        size = frames * self.frame_bytes
        rest = self.head
        while True:
            while len(rest) < size:
                more = await in_reader(_read_some, self.file, min(size - len(rest), self.left))
                if not more:
                    break
                self.left -= len(more)
                rest += more
            chunk, rest = rest[:size], rest[size:]
            chunk = chunk[: len(chunk) // self.frame_bytes * self.frame_bytes]
            if not chunk:
                return
            yield chunk


def _read_some(file: BinaryIO | Microphone, size: int) -> bytes:
    # What a pipe has, as soon as it has it.
    read = getattr(file, "read1", file.read)
    return cast(bytes, read(size))


def open_source(path: str, realtime: bool) -> Source:
    """Opens a file or stdin. Raises CliError."""
    try:
        file = sys.stdin.buffer if path == STDIN else Path(path).open("rb")  # noqa: SIM115
        head = file.read(12)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CliError(why, Exit.USAGE, subject=path) from error
    if not head:
        raise CliError("the file is empty", Exit.REFUSED, subject=path, reason="EMPTY")
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _wav(file, head, path, realtime)
    return _container(file, head, path, realtime)


def _wav(file: BinaryIO, head: bytes, path: str, realtime: bool) -> Source:
    """A WAV's samples, if a session can take them as they are; else the file as it is."""
    seen, config, rate = head, None, 0.0
    frame_bytes = 1
    while len(chunk := file.read(8)) == 8:
        seen += chunk
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            if config is not None:
                # Who writes a WAV while it grows can't tell its length.
                left = size if 0 < size < _UNTOLD else sys.maxsize
                return Source(file, config, rate, frame_bytes, left=left)
            break
        body = file.read(min(size + size % 2, 2**20))
        seen += body
        if name == b"fmt " and len(body) >= 16:
            tag, channels, hertz, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if (tag, bits) in _WAV and channels:
                frame_bytes = channels * bits // 8
                rate = float(hertz * frame_bytes)
                config = SessionConfig(
                    encoding=_WAV[tag, bits], sample_rate_hertz=hertz, channel_count=channels
                )
    return _container(file, seen, path, realtime)


def _container(file: BinaryIO, head: bytes, path: str, realtime: bool) -> Source:
    config = SessionConfig(encoding=AUDIO_ENCODING_CONTAINER)
    rate = float(_GUESSED_BYTES_PER_SECOND)
    if path != STDIN and realtime:
        seconds = _duration(path)
        rate = Path(path).stat().st_size / seconds
    return Source(file, config, rate, head=head)


def _duration(path: str) -> float:
    try:
        import av

        with av.open(path) as container:
            microseconds = container.duration
    except ImportError as error:
        hint = "install Steno with its extra 'transcription'"
        raise CliError("--realtime needs PyAV for this format", Exit.USAGE, hint=hint) from error
    except (OSError, ValueError) as error:
        raise CliError(f"can't be read: {error}", Exit.REFUSED, subject=path) from error
    if not microseconds:
        raise CliError("does not tell how long it is", Exit.USAGE, subject=path)
    return microseconds / 1e6


class Producer:
    """Sends chunks until each is acknowledged or refused. Keeps those that are not."""

    def __init__(self, services: Services, session_id: str, disconnect_every: float | None) -> None:
        self._services = services
        self._session_id = session_id
        self._disconnect_every = disconnect_every
        self._id = str(uuid4())
        self._epoch = 0
        self._waiting: dict[int, bytes] = {}
        self._ended = False
        self._changed = asyncio.Condition()

    async def send(self, sequence: int, content: bytes) -> None:
        """Has a chunk sent; waits while too many are not acknowledged."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) < _MOST_UNANSWERED)
            # Sent again, it goes to the end of the line.
            self._waiting.pop(sequence, None)
            self._waiting[sequence] = content
            self._changed.notify_all()

    async def end(self) -> None:
        """No chunk comes any more."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def run(self) -> None:
        """Keeps a stream open until all is acknowledged. Raises CliError."""
        stub = await self._services.sessions()
        while not (self._ended and not self._waiting):
            call = stub.StreamAudio()
            timer = None
            if self._disconnect_every:
                loop = asyncio.get_running_loop()
                timer = loop.call_later(self._disconnect_every, call.cancel)
            try:
                await self._talk(call)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            except Exception as error:
                pause = self._services.pause_after("concatenation", error)
                await asyncio.sleep(pause)
                await get_session(self._services, self._session_id)
            finally:
                if timer is not None:
                    timer.cancel()
                call.cancel()

    async def _talk(self, call: Call) -> None:
        import grpc

        start = StreamAudioStart(
            session_id=self._session_id, epoch=self._epoch, producer_id=self._id
        )
        with suppress(asyncio.InvalidStateError):  # it has failed; reading tells why
            await call.write(StreamAudioRequest(start=start))
        response = cast(StreamAudioResponse, await call.read())
        self._services.answered = True
        self._epoch = response.ready.epoch
        writing = asyncio.create_task(self._write(call))
        try:
            while (answer := await call.read()) is not grpc.aio.EOF:
                response = cast(StreamAudioResponse, answer)
                async with self._changed:
                    for sequence in response.ack.sequences:
                        self._waiting.pop(sequence, None)
                    if response.HasField("refusal"):
                        self._waiting.pop(response.refusal.sequence, None)
                        say(response.refusal.message)
                    self._changed.notify_all()
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(self, call: Call) -> None:
        sent: set[int] = set()
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._ended or any(s not in sent for s in self._waiting)
                )
                fresh = [each for each in self._waiting.items() if each[0] not in sent]
            for sequence, content in fresh:
                chunk = Chunk(sequence=sequence, content=content)
                await call.write(StreamAudioRequest(chunk=chunk))
                sent.add(sequence)
            if self._ended and not fresh:
                await call.done_writing()
                return


async def run(options: argparse.Namespace) -> int:
    """Streams a recording, shows what is heard, and closes the session."""
    if options.microphone:
        source = _listen()
    else:
        source = await in_reader(open_source, options.file, options.realtime)
    async with connect(options, PATIENCE_SECONDS) as services:
        return await stream(services, source, options)


async def stream(
    services: Services, source: Source, options: argparse.Namespace, *, lasting: bool = True
) -> int:
    """Streams sound into a session on running services; returns the exit code.

    Args:
        services: where to.
        source: of the sound.
        options: of the command line.
        lasting: whether the services are there still when this has ended.
    """
    session_id, first = await _session(services, source, options)
    if options.json:
        print_json({"session_id": session_id}, indent=None)
    elif lasting:
        say(f"session {session_id}; watch it with: steno sessions watch {session_id}")
    show = shower(options.json)

    async def follow() -> None:
        async for response in follow_session(services, session_id):
            show(response)

    following = asyncio.create_task(follow())
    producer = Producer(services, session_id, options.disconnect_every)
    producing = asyncio.create_task(producer.run())
    feeding = asyncio.create_task(_feed(producer, source, first, options))
    try:
        await asyncio.wait({producing, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if producing.done():
            producing.result()
        await feeding
        await producing
        session = await end(services, session_id)
        await following
    finally:
        for task in (following, producing, feeding):
            task.cancel()
        await asyncio.gather(following, producing, feeding, return_exceptions=True)
    if session.error.message:
        raise CliError(session.error.message, Exit.REFUSED, reason=session.error.reason)
    return 0


def _listen() -> Source:
    """The microphone, until Ctrl-C. Raises CliError."""
    from steno.cli.microphone import RATE_HERTZ, SAMPLE_BYTES, Microphone

    microphone, loop = Microphone(), asyncio.get_running_loop()

    def stop() -> None:
        microphone.stop()
        loop.remove_signal_handler(signal.SIGINT)  # who presses it once more means it

    loop.add_signal_handler(signal.SIGINT, stop)
    say("listening; Ctrl-C ends the session")
    config = SessionConfig(encoding=AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE_HERTZ)
    return Source(microphone, config, float(RATE_HERTZ * SAMPLE_BYTES), SAMPLE_BYTES)


async def _session(
    services: Services, source: Source, options: argparse.Namespace
) -> tuple[str, int]:
    """The session to go on with, and the first sequence to send."""
    if options.session:
        session = await get_session(services, options.session)
        takes, has = _sound(session.config), _sound(source.config)
        if takes != has:
            why = f"the session takes {takes}, and this is {has}"
            raise CliError(why, Exit.USAGE, subject=options.file)
        # What is missing before it is not here. A server that does not tell it is an older one.
        return options.session, session.free_sequence or session.next_sequence
    source.config.language_code = options.language or ""
    source.config.recording_format = RecordingFormat.Value(
        f"RECORDING_FORMAT_{options.recording_format.upper()}"
    )
    stub = await services.sessions()
    if options.microphone:
        name = "microphone"
    else:
        name = "stdin" if options.file == STDIN else sendable(Path(options.file).name)
    request = CreateSessionRequest(
        config=source.config,
        display_name=options.name or name,
        labels=dict(options.labels),
        request_id=str(uuid4()),
    )
    created = await services.call("concatenation", stub.CreateSession, request)
    return created.session.session_id, 0


def _sound(config: SessionConfig) -> str:
    """What kind of sound a session takes, for people."""
    encoding = AudioEncoding.Name(config.encoding).removeprefix("AUDIO_ENCODING_")
    if config.encoding == AUDIO_ENCODING_CONTAINER:
        return "whole files" if config.chunk_form == CHUNK_FORM_FILES else "a container"
    return f"{encoding} at {config.sample_rate_hertz} Hz, channels: {config.channel_count or 1}"


async def _feed(
    producer: Producer, source: Source, first: int, options: argparse.Namespace
) -> None:
    """Hands the source's chunks to the producer, as troublesome as was asked for."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    seconds = options.chunk_ms / 1000
    held: list[tuple[int, bytes]] = []
    sequence = first - 1
    async for content in source.chunks(seconds):
        sequence += 1
        if options.realtime:
            await asyncio.sleep(max(0.0, begun + (sequence - first + 1) * seconds - clock()))
        if random.random() < options.drop:
            continue
        held.append((sequence, content))
        if random.random() < options.duplicate:
            held.append((sequence, content))
        if not options.shuffle or len(held) >= SHUFFLED:
            await _send_all(producer, held, options.shuffle)
    await _send_all(producer, held, options.shuffle)
    await producer.end()


async def _send_all(producer: Producer, held: list[tuple[int, bytes]], shuffle: bool) -> None:
    if shuffle:
        random.shuffle(held)
    for sequence, content in held:
        await producer.send(sequence, content)
    held.clear()
