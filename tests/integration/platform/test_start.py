"""Services start though what they need is away, and go on by themselves when it comes."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from rows import Rows
from steno.local.child import Child, Command
from steno.local.health import Health, grpc_health, must_be_ready
from steno.local.ports import HOST, free_port
from steno.local.servers import LocalServers
from steno.platform.client import open_channel
from steno.platform.migrate import SCHEMAS, migrate
from steno.v1 import upload_pb2 as pb
from steno.v1.upload_pb2_grpc import UploadServiceStub
from waiting import answered, eventually

Start = Callable[[str], tuple[Child, str]]
NEW = pb.CreateUploadRequest(filename="talk.wav", size_bytes=100)


@pytest.fixture
async def start(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a module as a process; returns it and its address. It is killed after the test."""
    children: list[Child] = []

    def run(module: str) -> tuple[Child, str]:
        address = f"{HOST}:{free_port()}"
        child = Child(
            module,
            Command(
                [sys.executable, "-m", module],
                environment | {"STENO_LISTEN": address, "STENO_S3_BUCKET": "not-there-yet"},
                tmp_path / f"{module}.log",
            ),
        )
        children.append(child)
        child.start()
        return child, address

    yield run
    for child in children:
        await child.kill()


async def test_services_serve_though_they_started_without_nats_and_s3(
    start: Start, servers: LocalServers
) -> None:
    await servers.nats.kill()
    await servers.s3.kill()
    try:
        serving = [start(f"steno.{name}") for name in ("upload", "job", "concatenation")]
        working = [start(f"steno.{name}") for name in ("transcription", "upload.prepare")]
        for child, address in serving:
            await child.ready(must_be_ready(grpc_health, address), 120)
        async with open_channel(serving[0][1], retries=False) as channel:
            upload = UploadServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await upload.GetAudio(pb.GetAudioRequest(audio_id=str(uuid.uuid4())))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await upload.CreateUpload(NEW)
            assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

            await servers.s3.start()
            await answered(lambda: upload.CreateUpload(NEW))
        for child, address in working:  # the preparation needs S3 for all that it does
            await child.ready(must_be_ready(grpc_health, address), 120)
    finally:
        await servers.nats.start()
        if not servers.s3.child.running:
            await servers.s3.start()


async def test_services_are_ready_when_their_schemas_are(
    start: Start, environment: dict[str, str], rows: Rows
) -> None:
    for schema in SCHEMAS:
        rows(f"DROP SCHEMA {schema} CASCADE")
    started = [start(f"steno.{name}") for name in ("upload", "upload.prepare", "job")]
    started.append(start("steno.concatenation"))
    for _, address in started:
        await eventually(partial(serves, address), within=120)

    for schema in SCHEMAS:
        migrate(environment["STENO_POSTGRES_URL"], schema)

    for child, address in started:
        await child.ready(must_be_ready(grpc_health, address), 120)


async def serves(address: str) -> bool:
    health = await grpc_health(address)
    if health is Health.READY:
        raise ValueError("it is ready without a schema")
    return health is Health.NOT_READY
