"""Services that run in the process of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

from steno.platform.settings import ProcessSettings
from waiting import impatient_channel

S = TypeVar("S", bound=ProcessSettings)


@asynccontextmanager
async def serving(
    main: Callable[[S, asyncio.Event], Awaitable[None]], settings: S
) -> AsyncIterator[grpc.aio.Channel]:
    """Runs a service until the end of the context; gives a channel to it once it answers."""
    stopping = asyncio.Event()
    service = asyncio.ensure_future(main(settings, stopping))
    try:
        async with impatient_channel(settings.listen) as channel:
            ready = asyncio.ensure_future(channel.channel_ready())
            await asyncio.wait([ready, service], return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            yield channel
    finally:
        stopping.set()
        await service
