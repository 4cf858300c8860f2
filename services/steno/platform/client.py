"""gRPC channels to other services."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from steno.platform.telemetry import trace_headers

# Only UNAVAILABLE is retried: the call did not reach a handler, or the handler asks for it.
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
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
)


@asynccontextmanager
async def open_channel(address: str, *, retries: bool = True) -> AsyncIterator[grpc.aio.Channel]:
    """Opens a channel; one for each address and process is enough.

    Args:
        address: `host:port`, or `dns:///name:port` to spread calls over all addresses of a name.
        retries: repeat calls that came back UNAVAILABLE, a few times within their deadline.
    """
    channel = grpc.aio.insecure_channel(
        address,
        interceptors=_traced(),
        options=[
            ("grpc.service_config", _RETRIES),
            ("grpc.enable_retries", int(retries)),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # A server that was restarted is found again within this time.
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
        ],
    )
    try:
        yield channel
    finally:
        await channel.close()


def _traced() -> list[grpc.aio.ClientInterceptor]:
    return [_UnaryTrace(), _StreamTrace(), _ClientStreamTrace(), _BothStreamTrace()]


def _with_trace(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    headers = trace_headers()
    if headers:
        metadata = details.metadata if details.metadata is not None else grpc.aio.Metadata()
        for key, value in headers.items():
            metadata.add(key, value)
        # The class is a named tuple, which its type stubs do not say.
        return details._replace(metadata=metadata)  # type: ignore[attr-defined,no-any-return]
    return details


class _UnaryTrace(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_with_trace(details), request)


class _StreamTrace(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_with_trace(details), request)


class _ClientStreamTrace(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await continuation(_with_trace(details), requests)


class _BothStreamTrace(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await continuation(_with_trace(details), requests)
