"""TLS between services, and to clients, with real certificates."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import make_certificate, needs_openssl
from steno.local.health import Health, grpc_health
from steno.platform.client import open_channel
from steno.platform.server import LIVENESS, GrpcServer
from steno.platform.settings import ProcessSettings
from steno.platform.tls import channel_credentials

pytestmark = needs_openssl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `tls.crt`, which is its own authority, and `tls.key`."""
    make_certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    return tmp_path


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[GrpcServer]:
    settings = ProcessSettings(
        listen="127.0.0.1:0",
        health_listen="127.0.0.1:0",
        tls_certificate=str(folder / "tls.crt"),
        tls_key=str(folder / "tls.key"),
        shutdown_grace_seconds=1,
    )
    async with GrpcServer(settings, [], {}) as server:
        yield server


async def is_served(server: GrpcServer, authorities: Path | None) -> bool:
    """Whether a client that believes these authorities, or none and speaks plainly, is answered."""
    tls = channel_credentials(str(authorities)) if authorities else None
    address = f"127.0.0.1:{server.port}"
    async with open_channel(address, retries=False, tls=tls) as channel:
        asked = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=LIVENESS), timeout=5
        )
        try:
            return bool((await asked).status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


async def test_who_knows_the_authority_is_served(server: GrpcServer, folder: Path) -> None:
    assert await is_served(server, folder / "tls.crt")


async def test_who_speaks_plainly_or_knows_another_authority_is_not(
    server: GrpcServer, tmp_path: Path
) -> None:
    make_certificate(tmp_path / "other.crt", tmp_path / "other.key")

    assert not await is_served(server, None)
    assert not await is_served(server, tmp_path / "other.crt")


async def test_a_renewed_certificate_is_used_without_a_restart(
    server: GrpcServer, folder: Path
) -> None:
    assert await is_served(server, folder / "tls.crt")
    make_certificate(folder / "new.crt", folder / "new.key")

    os.replace(folder / "new.key", folder / "tls.key")
    os.replace(folder / "new.crt", folder / "tls.crt")

    assert await is_served(server, folder / "tls.crt")


async def test_probes_ask_for_health_without_tls_and_for_nothing_else(server: GrpcServer) -> None:
    address = f"127.0.0.1:{server.health_port}"

    assert await grpc_health(address) is Health.READY
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.reflection.v1alpha.ServerReflection/Info"
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
