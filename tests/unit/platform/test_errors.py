"""What errors say reaches the caller."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from steno.local.ports import HOST
from steno.platform.errors import (
    Failure,
    InvalidArgument,
    Violation,
    abort,
    read_failure,
    to_status,
)

METHOD = "/test.Test/Fail"
LETTERS = {"ascii": "x", "percent": "%", "umlaut": "ä", "kana": "あ", "emoji": "🎙"}


@asynccontextmanager
async def server_that_fails(error: Exception) -> AsyncIterator[grpc.aio.Channel]:
    async def fail(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        await abort(context, to_status(error, {}))

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Fail": grpc.unary_unary_rpc_method_handler(fail)
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", handlers)])
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


async def failure_of(error: Exception) -> Failure:
    async with server_that_fails(error) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
    return read_failure(caught.value)


@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
@pytest.mark.parametrize("count", [1, 999])
async def test_whatever_is_wrong_with_a_request_its_sender_learns_of_it(
    letter: str, count: int
) -> None:
    long = letter * 100_000

    failure = await failure_of(InvalidArgument([Violation(long, long)] * count))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failure.violations
    for told in failure.violations:
        assert told.field.endswith("…")
        assert long.startswith(told.field.removesuffix("…"))
        assert long.startswith(told.description.removesuffix("…"))
    if count > 1:
        assert failure.message.endswith("; and more")


async def test_what_is_short_is_told_whole() -> None:
    violations = tuple(Violation(f"labels['{c}']", "must be short") for c in string.digits)

    failure = await failure_of(InvalidArgument(violations))

    assert failure.violations == violations
