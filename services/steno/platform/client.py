"""gRPC channels to other services. Trace, tenant and deadline of a call pass down to its calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import grpc

from steno.platform import tenancy
from steno.platform.telemetry import trace_headers

# UNAVAILABLE: the call did not reach a handler, or the handler asks for a repeat. CANCELLED, though
# we did not: gRPC says so of calls that reach a server in the moment in which it stops.
_RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
)


PING_TIMEOUT_MS = 10_000
"""For the answer to a ping, of gRPC's own too. Its `keepalive_timeout_ms` does not count: whoever
sends a ping waits for this one, which is a minute unless it is set (grpcio 1.85, measured)."""


@asynccontextmanager
async def open_channel(
    address: str,
    *,
    retries: bool = True,
    tls: grpc.ChannelCredentials | None = None,
    proxied: bool = False,
) -> AsyncIterator[grpc.aio.Channel]:
    """Opens a channel; one for each address and process is enough.

    Args:
        address: `host:port`, or `dns:///name:port` to spread calls over all addresses of a name.
        retries: repeat calls that came back UNAVAILABLE, a few times within their deadline.
        tls: whom to believe; without, the channel is plain HTTP/2.
        proxied: go through the proxy that the environment names (`https_proxy`, `no_proxy`).
    """
    interceptors = [_Unary(), _ServerStream(), _ClientStream(), _BothStreams()]
    options = [
        ("grpc.service_config", _RETRIES),
        ("grpc.enable_retries", int(retries)),
        ("grpc.enable_http_proxy", int(proxied)),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A server that stands still is left for another after 25 s; servers allow a ping in 10 s.
        ("grpc.keepalive_time_ms", 15_000),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),  # else a quiet stream pings once a minute
        # A server that was restarted is found again within this time.
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        # So is one that came back at another address.
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ]
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options, interceptors=interceptors)
    else:
        channel = grpc.aio.secure_channel(address, tls, options, interceptors=interceptors)
    try:
        yield channel
    finally:
        await channel.close()


# When the call that is being served must be answered, on the event loop's clock.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_in(seconds: float | None) -> Iterator[None]:
    """Calls made inside get no more time than this; None sets no limit."""
    now = asyncio.get_running_loop().time()
    token = _deadline.set(None if seconds is None else now + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _passed_down(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    """Adds trace, tenant, and the time that is left of the call being served."""
    metadata = details.metadata if details.metadata is not None else grpc.aio.Metadata()
    for key, value in trace_headers().items():
        metadata.add(key, value)
    if tenancy.tenant() != tenancy.DEFAULT:
        metadata.add(tenancy.HEADER, tenancy.tenant())
    timeout, deadline = details.timeout, _deadline.get()
    if deadline is not None:
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        timeout = left if timeout is None else min(timeout, left)
    # The class is a named tuple, which its type stubs do not say.
    return details._replace(metadata=metadata, timeout=timeout)  # type: ignore[attr-defined,no-any-return]


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_passed_down(details), request)


class _ServerStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_passed_down(details), request)


class _ClientStream(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await continuation(_passed_down(details), requests)


class _BothStreams(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await continuation(_passed_down(details), requests)
