"""Live sessions for tests: the service, and what producers and viewers do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from platform_client import Client, fetched
from recordings import RATE, decoded
from scoring import words_of
from steno.local.ports import HOST, free_port
from steno.platform.errors import Failure, read_failure
from steno.platform.wellknown import duration_of
from steno.v1 import concatenation_pb2 as pb
from steno.v1 import upload_pb2, upload_pb2_grpc
from steno.v1.concatenation_pb2_grpc import ConcatenationServiceStub
from waiting import eventually, impatient_channel

if TYPE_CHECKING:
    from steno.v1.concatenation_pb2_grpc import ConcatenationServiceAsyncStub

Samples = NDArray[np.int16]

CHUNK_BYTES = RATE // 5 * 2
"""A fifth of a second, 16 bits a sample."""

CLOSE_SECONDS = 150
"""For which a service under test waits for a recording to become an audio: longer than that takes
on a busy machine."""


class Service:
    """A client of a concatenation service."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = impatient_channel(address)
        self.stub = ConcatenationServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    async def serves(self) -> bool:
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def open(self, **config: object) -> pb.Session:
        """Opens a session that is only recorded, unless told otherwise.

        What is missing is waited for, however slow the machine: tests of gaps say for how long.
        """
        values = {
            "encoding": pb.AUDIO_ENCODING_LINEAR16,
            "sample_rate_hertz": RATE,
            "live_results": False,
            "final_job": False,
            "gap_timeout": duration_of(600),
        } | config
        if values["encoding"] == pb.AUDIO_ENCODING_CONTAINER:
            del values["sample_rate_hertz"]
        request = pb.CreateSessionRequest(
            config=pb.SessionConfig(**values),  # type: ignore[arg-type]
            request_id=str(uuid.uuid4()),
        )
        return (await self.stub.CreateSession(request)).session

    async def append(self, session_id: str, sequence: int, content: bytes) -> int:
        """Sends one chunk; returns the sequence that is wanted next."""
        chunk = pb.Chunk(sequence=sequence, content=content)
        request = pb.AppendChunkRequest(session_id=session_id, chunk=chunk)
        return (await self.stub.AppendChunk(request, timeout=20)).next_sequence

    async def get(self, session_id: str) -> pb.Session:
        request = pb.GetSessionRequest(session_id=session_id)
        return (await self.stub.GetSession(request, timeout=20)).session

    async def close(self, session_id: str) -> pb.Session:
        """Ends a session; returns it once it has become what it becomes."""
        request = pb.CloseSessionRequest(session_id=session_id)
        return (await self.stub.CloseSession(request, timeout=CLOSE_SECONDS + 20)).session

    async def recording(
        self, session_id: str, form: pb.RecordingForm.ValueType = pb.RECORDING_FORM_FILE
    ) -> pb.GetRecordingResponse:
        request = pb.GetRecordingRequest(session_id=session_id, form=form)
        return await self.stub.GetRecording(request, timeout=60)

    async def file(self, session_id: str) -> bytes:
        """The recording as one file."""
        return await fetched((await self.recording(session_id)).url)

    async def events(self, session_id: str, after_revision: int = 0) -> list[pb.SessionEvent]:
        """The log of a session that comes to its end."""
        request = pb.WatchSessionRequest(session_id=session_id, after_revision=after_revision)
        return [
            told.event
            async for told in self.stub.WatchSession(request, timeout=60)
            if told.HasField("event")
        ]


class ServiceProcess(Service):
    """`python -m steno.concatenation`, a client of it, and ways to end it."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        super().__init__(f"{HOST}:{free_port()}")
        self._settings = {**settings, "STENO_LISTEN": self.address}
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "steno.concatenation"],
                env={**os.environ, **self._settings},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def serves(self) -> bool:
        assert self.process.poll() is None, self.log
        return await super().serves()


async def failure_of(call: Awaitable[object]) -> Failure:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_failure(caught.value)


def chunks_of(samples: Samples) -> list[tuple[int, bytes]]:
    """Chunks with their sequences."""
    return list(enumerate(cut(samples.tobytes(), CHUNK_BYTES)))


def cut(data: bytes, size: int) -> list[bytes]:
    """Bytes in pieces."""
    return [data[at : at + size] for at in range(0, len(data), size)]


class Producer:
    """Streams chunks until all are acknowledged, over as many connections as it takes."""

    def __init__(self, stubs: Sequence[ConcatenationServiceAsyncStub], session_id: str) -> None:
        self._stubs = stubs
        self._session_id = session_id
        self._epoch = 0
        self._id = str(uuid.uuid4())
        self.connections = 0
        self.acked: set[int] = set()
        self.told: list[pb.StreamAudioResponse] = []

    async def send(
        self,
        chunks: Sequence[tuple[int, bytes]],
        *,
        breaks_after: float | None = None,
        pause: float = 0,
        until: Callable[[], object] = lambda: True,
        within: float = 90,
    ) -> None:
        """Sends chunks in the order given; those that are not acknowledged, again.

        Args:
            chunks: sequences may repeat.
            breaks_after: seconds after which each connection breaks off.
            pause: seconds between two chunks.
            until: what must be true before the stream ends; what is heard is told to it till then.
            within: seconds after which the sending has failed.
        """
        deadline = asyncio.get_running_loop().time() + within
        while left := [chunk for chunk in chunks if chunk[0] not in self.acked]:
            assert asyncio.get_running_loop().time() < deadline, f"{len(left)} chunks are left"
            try:
                await self._connect(left, pause, breaks_after, until)
            except grpc.aio.AioRpcError as error:
                if read_failure(error).code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)

    async def _connect(
        self,
        chunks: Iterable[tuple[int, bytes]],
        pause: float,
        breaks_after: float | None,
        until: Callable[[], object],
    ) -> None:
        stub = self._stubs[self.connections % len(self._stubs)]
        self.connections += 1
        call = stub.StreamAudio()
        start = pb.StreamAudioStart(
            session_id=self._session_id, epoch=self._epoch, producer_id=self._id
        )
        await call.write(pb.StreamAudioRequest(start=start))
        ready = await call.read()
        assert isinstance(ready, pb.StreamAudioResponse)
        self._epoch = ready.ready.epoch

        async def write() -> None:
            for sequence, content in chunks:
                chunk = pb.Chunk(sequence=sequence, content=content)
                await call.write(pb.StreamAudioRequest(chunk=chunk))
                if pause:
                    await asyncio.sleep(pause)
            await eventually(until)
            await call.done_writing()

        writing = asyncio.create_task(write())
        if breaks_after is not None:
            asyncio.get_running_loop().call_later(breaks_after, call.cancel)
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                assert isinstance(response, pb.StreamAudioResponse)
                self.told.append(response)
                self.acked.update(response.ack.sequences)
        except asyncio.CancelledError:
            if breaks_after is None:
                raise
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def acknowledged(
    producer: Producer, more_than: int, sending: asyncio.Task[None], within: float = 60
) -> None:
    """Waits until a producer has so many acknowledgements; fails at once if its sending does."""

    def enough() -> bool:
        if sending.done():
            sending.result()
        return len(producer.acked) > more_than

    await eventually(enough, within=within)


async def audio_of(
    uploads: upload_pb2_grpc.UploadServiceAsyncStub, audio_id: str
) -> tuple[upload_pb2.Audio, bytes]:
    """An audio, and its original file."""
    about = upload_pb2.GetAudioRequest(audio_id=audio_id)
    audio = (await uploads.GetAudio(about)).audio
    request = upload_pb2.GetDownloadUrlRequest(audio_id=audio_id)
    return audio, await fetched((await uploads.GetDownloadUrl(request)).url)


async def opened(client: Client, **config: object) -> str:
    """Opens a session on a whole platform."""
    values = {"encoding": pb.AUDIO_ENCODING_LINEAR16, "sample_rate_hertz": RATE} | config
    request = pb.CreateSessionRequest(config=pb.SessionConfig(**values))  # type: ignore[arg-type]
    return (await client.sessions.CreateSession(request, timeout=20)).session.session_id


async def closed(client: Client, session_id: str) -> pb.Session:
    request = pb.CloseSessionRequest(session_id=session_id)
    return (
        await client.patiently(lambda: client.sessions.CloseSession(request, timeout=60))
    ).session


async def told(
    client: Client, session_id: str, into: list[pb.WatchSessionResponse], within: float = 120
) -> list[pb.WatchSessionResponse]:
    """All that a viewer is told, over as many connections as it takes."""
    seen = 0

    async def watch() -> None:
        nonlocal seen
        request = pb.WatchSessionRequest(session_id=session_id, after_revision=seen)
        async for response in client.sessions.WatchSession(request):
            seen = response.event.revision or seen
            into.append(response)

    await client.patiently(watch, within)
    return into


def finals(responses: list[pb.WatchSessionResponse]) -> list[pb.LiveResult]:
    return [r.event.result_added for r in responses if r.event.HasField("result_added")]


def text_in(results: list[pb.LiveResult]) -> list[str]:
    """The words, as they are compared."""
    return words_of(" ".join(result.segment.text for result in results))


async def file_of(client: Client, session_id: str) -> Samples:
    """What was recorded."""
    request = pb.GetRecordingRequest(session_id=session_id, form=pb.RECORDING_FORM_FILE)
    url = (await client.sessions.GetRecording(request, timeout=60)).url
    return decoded(await fetched(url))
