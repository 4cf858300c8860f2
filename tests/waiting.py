"""Waiting for what must become true, instead of sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import grpc

T = TypeVar("T")


@overload
async def eventually(
    look: Callable[[], Awaitable[T | None]], *, within: float = 60.0, every: float = 0.05
) -> T: ...
@overload
async def eventually(
    look: Callable[[], T | None], *, within: float = 60.0, every: float = 0.05
) -> T: ...
async def eventually(look: Callable[[], Any], *, within: float = 60.0, every: float = 0.05) -> Any:
    """Looks again and again until what it sees is true, and returns that.

    Args:
        look: returns something false, or raises AssertionError, while it is too early.
        within: seconds after which the last look's failure is the test's.
        every: seconds between looks.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            seen = look()
            if inspect.isawaitable(seen):
                seen = await seen
            if seen:
                return seen
            problem: Exception = AssertionError(f"still {seen!r} after {within} s")
        except AssertionError as error:
            problem = error
        if time.monotonic() > deadline:
            raise problem
        await asyncio.sleep(every)


async def answered(call: Callable[[], Awaitable[object]]) -> None:
    """Makes a call again and again until it succeeds."""

    async def answers() -> bool:
        try:
            await call()
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(answers)


async def listening(address: str) -> None:
    """Waits until somebody listens: a channel that is opened before waits longer."""
    host, _, port = address.rpartition(":")

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        return True

    await eventually(answers, every=0.005)


def impatient_channel(address: str) -> grpc.aio.Channel:
    """A channel that finds a server at most a fifth of a second after it listens.

    Left alone, gRPC waits a second before it tries again.
    """
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.max_receive_message_length", -1),
        ],
    )
