"""Upload services and preparations: in this process where that will do, else in their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import nats
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes import memory_of
from steno.local.ports import HOST, free_port
from steno.platform.database import Pool, open_pool
from steno.platform.errors import Failure, read_failure
from steno.platform.objects import ObjectStore, open_store
from steno.platform.settings import PostgresSettings, S3Settings
from steno.upload import prepare
from steno.upload.__main__ import main as upload_main
from steno.upload.settings import PrepareSettings, Settings
from steno.v1 import upload_pb2 as pb
from steno.v1 import upload_pb2_grpc
from waiting import eventually, impatient_channel


class Client:
    """Calls an upload service."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = impatient_channel(address)
        self.uploads = upload_pb2_grpc.UploadServiceStub(self.channel)
        self.slices = upload_pb2_grpc.SliceServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    async def send(self, *chunks: bytes, traceparent: str = "", **fields: str) -> pb.Audio:
        """Uploads in one stream; fields are those of the header."""
        header = pb.UploadAudioHeader(**{"filename": "a.wav", **fields})

        async def requests() -> AsyncIterator[pb.UploadAudioRequest]:
            yield pb.UploadAudioRequest(header=header)
            for chunk in chunks:
                yield pb.UploadAudioRequest(chunk=chunk)

        metadata = (("traceparent", traceparent),) if traceparent else ()
        return (await self.uploads.UploadAudio(requests(), metadata=metadata)).audio

    async def failure_of(self, call: Awaitable[object]) -> Failure:
        """How a call fails."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return read_failure(caught.value)

    async def is_ready(self) -> bool:
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Process:
    """A process, and ways to end it."""

    def __init__(self, module: str, settings: dict[str, str], log: Path) -> None:
        self._command = [sys.executable, "-m", module]
        self._settings = settings
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._command, env={**os.environ, **self._settings}, stdout=log, stderr=log
            )

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory now."""
        return memory_of(self.process.pid)

    @property
    def peak_memory_bytes(self) -> int:
        """The most that it has held in memory."""
        return memory_of(self.process.pid, "VmHWM")

    @property
    def peak_memory_of_children(self) -> int:
        """The most that any process under it has held in memory."""
        most, processes = 0, [self.process.pid]
        for pid in processes:
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):  # it has just ended
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                processes += map(int, children)
                most = max([most, *(memory_of(int(child), "VmHWM") for child in children)])
        return most

    @property
    def log(self) -> str:
        return self._log.read_text()


class ServiceProcess(Process, Client):
    """`python -m steno.upload`, and a client of it."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        Client.__init__(self, f"{HOST}:{free_port()}")
        settings = {**settings, "STENO_LISTEN": self.address}
        Process.__init__(self, "steno.upload", settings, log)

    async def serves(self) -> bool:
        assert self.process.poll() is None, self.log
        return await self.is_ready()


StartHere = Callable[..., Awaitable[Client]]
StartService = Callable[..., Awaitable[ServiceProcess]]
PrepareHere = Callable[..., Awaitable[None]]
StartPreparation = Callable[..., Process]


@pytest.fixture
async def start_here(environment: dict[str, str]) -> AsyncIterator[StartHere]:
    """Starts a service in this process, with its own settings, until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Client:
            return await stack.enter_async_context(_service(settings))

        yield start


@asynccontextmanager
async def _service(settings: dict[str, Any]) -> AsyncIterator[Client]:
    client, stopping = Client(f"{HOST}:{free_port()}"), asyncio.Event()
    own = Settings(**settings, listen=client.address, shutdown_grace_seconds=1)
    serving = asyncio.create_task(upload_main(own, stopping))
    await eventually(client.is_ready, every=0.01)
    yield client
    await client.channel.close()
    stopping.set()
    await serving


@pytest.fixture
async def service(start_here: StartHere) -> Client:
    """An upload service with default settings, in this process."""
    return await start_here()


@pytest.fixture
async def prepare_here(environment: dict[str, str]) -> AsyncIterator[PrepareHere]:
    """Starts a preparation in this process, with its own settings, until the test ends."""
    stopping, running = asyncio.Event(), list[asyncio.Task[None]]()

    async def start(**settings: Any) -> None:
        running.append(asyncio.create_task(prepare.main(PrepareSettings(**settings), stopping)))

    yield start
    stopping.set()
    await asyncio.gather(*running)


@pytest.fixture
async def start_service(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[StartService]:
    """Starts a service in a process of its own, with its own settings, until the test ends."""
    started: list[ServiceProcess] = []

    async def start(**settings: str) -> ServiceProcess:
        started.append(ServiceProcess(settings, tmp_path / f"upload-{len(started)}.log"))
        await eventually(started[-1].serves)
        return started[-1]

    yield start
    for service in started:
        await service.channel.close()
        service.kill()


@pytest.fixture
def start_preparation(environment: dict[str, str], tmp_path: Path) -> Iterator[StartPreparation]:
    """Starts a preparation with its own settings, until the test ends."""
    started: list[Process] = []

    def start(**settings: str) -> Process:
        log = tmp_path / f"prepare-{len(started)}.log"
        started.append(Process("steno.upload.prepare", settings, log))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
async def objects(environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as objects:
        await objects.ensure_bucket()
        yield objects


@pytest.fixture
async def pool(environment: dict[str, str]) -> AsyncIterator[Pool]:
    async with open_pool(PostgresSettings()) as pool:
        yield pool


@pytest.fixture
def wipe_nats(environment: dict[str, str]) -> Callable[[], Awaitable[None]]:
    """Deletes all streams, with their messages and consumers."""

    async def wipe() -> None:
        connection = await nats.connect(environment["STENO_NATS_URL"])
        for stream in await connection.jetstream().streams_info():
            assert stream.config.name is not None
            await connection.jetstream().delete_stream(stream.config.name)
        await connection.close()

    return wipe
