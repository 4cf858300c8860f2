"""The gRPC server of a service, with health and reflection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from steno.platform.access import Resource
from steno.platform.client import PING_TIMEOUT_MS
from steno.platform.errors import StatusTable
from steno.platform.interceptors import CallInterceptor
from steno.platform.settings import ProcessSettings
from steno.platform.tls import server_credentials

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[object]]
"""Raises while something that the service needs is away."""

LIVENESS = "liveness"
"""Name in the health protocol that says only that this process answers.

The services' own names say whether they are ready, which they are not while a server behind them is
away; to restart them would help nobody then.
"""

_CHECK_SECONDS = 2.0
_ANSWER_SECONDS = 4.0
"""Who has not answered a check in this time is away."""


class GrpcServer:
    """A server that says ready when it is, and ends its calls before it ends.

    Add servicers to `server`, then enter: inside, it serves. Leaving it, health turns
    NOT_SERVING, streams end with UNAVAILABLE so that clients go to another replica, and unary
    calls get the grace period. What is served as a stream, to read its request by itself, ends as
    one: a retry of it must be safe.
    """

    def __init__(
        self,
        settings: ProcessSettings,
        service_names: Sequence[str],
        status_of: StatusTable,
        checks: Sequence[Check] = (),
        options: Sequence[tuple[str, int]] = (),
        resources: Mapping[str, Resource] | None = None,
    ) -> None:
        """Prepares the server.

        Args:
            settings: address and limits.
            service_names: full names, such as `steno.v1.JobService`.
            status_of: statuses of the service's own errors.
            checks: what must not raise for the service to be ready.
            options: channel arguments of gRPC, beside those that all servers have.
            resources: what its requests name, by the name of the field.
        """
        self.port = self.health_port = 0
        self._probed: grpc.aio.Server | None = None
        self._settings = settings
        self._names = ("", *service_names)
        self._checks = checks
        self._health = health_aio.HealthServicer()
        self._watching: asyncio.Task[None] | None = None
        self._unanswered: dict[Check, asyncio.Task[None]] = {}
        age = settings.max_connection_age_seconds * 1000
        self._calls = CallInterceptor(status_of, settings.max_concurrent_calls, resources or {})
        self.server = grpc.aio.server(
            interceptors=[self._calls],
            # Those of clients, those of services, and room to say no to more of either.
            maximum_concurrent_rpcs=4 * settings.max_concurrent_calls,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # A burst of thousands of streams is cancelled with the defaults.
                ("grpc.server.max_pending_requests", settings.max_concurrent_calls),
                ("grpc.server.max_pending_requests_hard_limit", 2 * settings.max_concurrent_calls),
                # So is what waits for half a minute in such a burst; that is the client's matter.
                ("grpc.server_max_unrequested_time_in_server", 3600),
                # Notice clients that have vanished; allow clients to notice us.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                *([("grpc.max_connection_age_ms", age)] if age else []),
                *([("grpc.max_connection_age_grace_ms", 3_600_000)] if age else []),
                *options,
            ],
        )

    async def __aenter__(self) -> GrpcServer:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(
            [
                *self._names[1:],
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ],
            self.server,
        )
        self.port = self._listen()
        if self._settings.health_listen:
            self._probed = grpc.aio.server()
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probed)
            self.health_port = self._probed.add_insecure_port(self._settings.health_listen)
            await self._probed.start()
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._set_health(await self._is_ready())
        await self.server.start()
        self._watching = asyncio.create_task(self._watch_health())
        log.info("serving", extra={"action": "serve", "port": self.port})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
        for asking in self._unanswered.values():
            asking.cancel()
        await self._health.enter_graceful_shutdown()
        await self._calls.end_streams(self._settings.shutdown_grace_seconds)
        await self.server.stop(self._settings.shutdown_grace_seconds)
        if self._probed is not None:
            await self._probed.stop(0)

    def _listen(self) -> int:
        settings = self._settings
        if not settings.tls_certificate:
            return self.server.add_insecure_port(settings.listen)
        credentials = server_credentials(settings.tls_certificate, settings.tls_key)
        return self.server.add_secure_port(settings.listen, credentials)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self._set_health(await self._is_ready())

    async def _is_ready(self) -> bool:
        return all(await asyncio.gather(*map(self._passes, self._checks)))

    async def _passes(self, check: Check) -> bool:
        """Asks one; what hangs is not asked again before it has answered."""

        async def ask() -> None:
            await check()

        if check not in self._unanswered:
            self._unanswered[check] = asyncio.create_task(ask())
        asking = self._unanswered[check]
        await asyncio.wait([asking], timeout=_ANSWER_SECONDS)
        error: BaseException | None
        if not asking.done():
            error = TimeoutError(f"no answer in {_ANSWER_SECONDS:.0f} s")
        else:
            del self._unanswered[check]
            error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if error is not None:
            log.warning("not ready: %s", error or repr(error), extra={"action": "health"})
        return error is None

    async def _set_health(self, ready: bool) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in self._names:
            await self._health.set(name, status)
