"""Whether a process is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class Health(StrEnum):
    """What a process says of itself, if it says anything."""

    READY = "ready"
    NOT_READY = "not ready"
    UNREACHABLE = "unreachable"


async def grpc_health(
    address: str, timeout: float = 3.0, tls: grpc.ChannelCredentials | None = None
) -> Health:
    """Asks a gRPC server by the standard health protocol."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    channel = grpc.aio.secure_channel(address, tls) if tls else grpc.aio.insecure_channel(address)
    async with channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.aio.AioRpcError as error:
            busy = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            return Health.NOT_READY if busy else Health.UNREACHABLE
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Health.READY if serving else Health.NOT_READY


async def metrics_health(address: str, timeout: float = 3.0) -> Health:
    """Asks a process that serves nothing but its metrics."""
    host, port = address.rsplit(":", 1)
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return Health.NOT_READY
    except OSError:
        return Health.UNREACHABLE
    return Health.READY if b" 200 " in status else Health.NOT_READY


def must_be_ready(
    health: Callable[[str], Awaitable[Health]], address: str
) -> Callable[[], Awaitable[None]]:
    """Returns a check that raises while the process is not ready."""

    async def check(ask: Callable[[], Awaitable[Health]]) -> None:
        if (seen := await ask()) is not Health.READY:
            raise ConnectionError(seen.value)

    return partial(check, partial(health, address))
