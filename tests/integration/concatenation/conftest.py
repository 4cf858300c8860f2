"""Concatenation services beside a real upload service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from live_sessions import CLOSE_SECONDS, Service, ServiceProcess
from steno.concatenation import __main__ as concatenation
from steno.concatenation.settings import Settings
from steno.local.ports import HOST, free_port
from steno.platform.objects import ObjectStore, open_store
from steno.platform.settings import S3Settings
from steno.upload.__main__ import main as upload_main
from steno.upload.settings import Settings as UploadSettings
from steno.v1 import upload_pb2_grpc
from waiting import eventually, impatient_channel

StartService = Callable[..., Awaitable[ServiceProcess]]


@pytest.fixture
async def uploads(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[upload_pb2_grpc.UploadServiceAsyncStub]:
    """An upload service in this process."""
    address, stopping = f"{HOST}:{free_port()}", asyncio.Event()
    settings = UploadSettings(listen=address, shutdown_grace_seconds=1)
    serving = asyncio.create_task(upload_main(settings, stopping))
    async with impatient_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        monkeypatch.setenv("STENO_UPLOAD_ADDRESS", address)
        yield upload_pb2_grpc.UploadServiceStub(channel)
    stopping.set()
    await serving


@pytest.fixture
async def start_service(
    uploads: upload_pb2_grpc.UploadServiceAsyncStub, tmp_path: Path
) -> AsyncIterator[StartService]:
    """Starts a service in a process of its own, with its own settings, until the test ends."""
    started: list[ServiceProcess] = []

    async def start(**settings: str) -> ServiceProcess:
        common = {
            "STENO_SESSION_LEASE_SECONDS": "2",
            "STENO_SESSION_CLOSE_SECONDS": str(CLOSE_SECONDS),
        }
        settings = common | settings
        started.append(ServiceProcess(settings, tmp_path / f"concatenation-{len(started)}.log"))
        await eventually(started[-1].serves, within=60)
        return started[-1]

    yield start
    for service in started:
        await service.channel.close()
        service.kill()
        assert "handler failed" not in service.log, service.log
        assert "failed, will try again" not in service.log, service.log


@pytest.fixture
def own_settings() -> dict[str, Any]:
    """Settings of a module's services, beside those that all have."""
    return {}


@pytest.fixture
async def service(
    uploads: upload_pb2_grpc.UploadServiceAsyncStub,
    own_settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    """A service in this process: short leases and intervals, a patient close, else defaults."""
    service, stopping = Service(f"{HOST}:{free_port()}"), asyncio.Event()
    monkeypatch.setattr(concatenation, "REMOVE_SECONDS", 0.2)
    settings = Settings(
        **own_settings,
        listen=service.address,
        session_lease_seconds=2,
        session_sweep_seconds=0.1,
        session_poll_seconds=0.1,
        session_close_seconds=CLOSE_SECONDS,
        shutdown_grace_seconds=1,
    )
    serving = asyncio.create_task(concatenation.main(settings, stopping))
    await eventually(lambda: serving.done() or service.serves(), every=0.01)
    yield service
    await service.channel.close()
    stopping.set()
    await serving
    logged = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    lines = "\n".join(record.getMessage() for record in logged)
    assert "handler failed" not in lines, lines
    assert "failed, will try again" not in lines, lines


@pytest.fixture
async def objects(environment: dict[str, str]) -> AsyncIterator[ObjectStore]:
    async with open_store(S3Settings()) as objects:
        await objects.ensure_bucket()
        yield objects
