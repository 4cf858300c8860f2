"""Leases: the right to work on something until a moment, renewed while the work goes on.

Everything that is written under a lease carries its fencing token, so work that goes on after the
lease has passed to another process changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

log = logging.getLogger(__name__)

T = TypeVar("T")


@asynccontextmanager
async def kept(
    renew: Callable[[], Awaitable[object]],
    every: float,
    lost: type[Exception],
    *,
    stops_work: bool,
) -> AsyncIterator[None]:
    """Renews a lease while the body runs.

    Only `lost` says that the lease is over. After any other error the renewal is tried again, and
    the work goes on: else it would be taken away because of an answer that was lost.

    Args:
        renew: renews the lease once.
        every: seconds before each renewal.
        lost: what `renew` raises when the lease is over.
        stops_work: what a loss means for the body. True: the body is cancelled, and the loss is
            raised in place of the cancellation. False: the body goes on to its next write, which
            the fencing token refuses.

    Raises:
        Exception: the one of type `lost` that `renew` has raised, if that stops the work.
    """
    body = asyncio.current_task()
    assert body is not None
    loss: Exception | None = None

    async def keep() -> None:
        nonlocal loss
        error = await _loss(renew, every, lost)
        if stops_work:
            loss = error
            body.cancel()

    keeper = asyncio.create_task(keep())
    try:
        yield
    except asyncio.CancelledError:
        # If somebody else has cancelled the body, too, then that goes first.
        if loss is not None and body.uncancel() == 0:
            raise loss from None
        raise
    finally:
        keeper.cancel()


async def _loss(
    renew: Callable[[], Awaitable[object]], every: float, lost: type[Exception]
) -> Exception:
    """Renews a lease until it is lost; returns what was raised then."""
    while True:
        await asyncio.sleep(every)
        try:
            await renew()
        except lost as error:
            return error
        except Exception as error:
            log.warning("the lease was not renewed: %s", _brief(error), extra={"action": "renew"})


async def until_answered(
    call: Callable[[], Awaitable[T]],
    is_away: Callable[[Exception], bool],
    *,
    first_pause: float = 0.2,
    longest_pause: float = 5.0,
) -> T:
    """Repeats a call until its server answers.

    Args:
        call: is safe to repeat.
        is_away: whether an error says only that the server was not reached, or could not do it just
            now. All other errors are answers, and are raised.
        first_pause: seconds before the first repeat; each later pause is twice as long.
        longest_pause: seconds.
    """
    pause = first_pause
    while True:
        try:
            return await call()
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("no answer yet: %s", _brief(error), extra={"action": "wait"})
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest_pause)


def _brief(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error.details() if isinstance(error, grpc.aio.AioRpcError) else error)
