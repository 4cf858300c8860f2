"""What the chart has the processes listen at is every address, of IPv4 and of IPv6."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from steno.local.health import Health, grpc_health
from steno.local.ports import free_port
from steno.platform.server import GrpcServer
from steno.platform.settings import ProcessSettings
from steno.platform.telemetry import start_metrics_server


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


HOSTS = ["127.0.0.1", *(["[::1]"] if has_ipv6() else [])]


@pytest.mark.parametrize("host", HOSTS)
async def test_calls_are_answered_at(host: str) -> None:
    settings = ProcessSettings(listen="0.0.0.0:0", shutdown_grace_seconds=1)
    async with GrpcServer(settings, [], {}) as server:
        assert await grpc_health(f"{host}:{server.port}") is Health.READY


@pytest.mark.parametrize("host", HOSTS)
def test_metrics_are_told_at(host: str) -> None:
    port = free_port()
    start_metrics_server(ProcessSettings(metrics_listen=f"0.0.0.0:{port}"))

    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        assert b"python_info" in answer.read()
