"""How a process starts and stops."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError

from steno.platform.ending import ended
from steno.platform.settings import ProcessSettings
from steno.platform.telemetry import configure_logging, configure_tracing, start_metrics_server

log = logging.getLogger(__name__)

S = TypeVar("S", bound=ProcessSettings)

_LAST_SECONDS = 5.0
"""What a process has beyond its calls' grace period before it is cancelled."""
_LARGE_BYTES = 512 * 1024
_M_MMAP_THRESHOLD = -3
"""glibc's name of the option; see mallopt(3)."""


def run(
    name: str, settings_type: type[S], main: Callable[[S, asyncio.Event], Awaitable[None]]
) -> None:
    """Runs a process until it is told to stop, then exits.

    Exit status: 0 after SIGTERM or SIGINT, 2 when the environment is wrong, 1 after an error.

    Args:
        name: of the process, for logs, metrics and traces.
        settings_type: its settings, read from the environment here and nowhere else.
        main: does the work; returns soon after the event, `stopping`, is set.
    """
    try:
        settings = settings_type()
    except ValidationError as error:
        for problem in error.errors():
            variable = "STENO_" + "_".join(map(str, problem["loc"])).upper()
            print(f"{name}: {variable}: {problem['msg']}", file=sys.stderr)
        sys.exit(2)
    configure_logging(name, settings)
    configure_tracing(name, settings.otlp_endpoint)
    start_metrics_server(settings)
    gc.freeze()  # what was imported stays: looking through it for garbage is in vain
    try:
        asyncio.run(_until_stopped(name, main, settings))
    except Exception:
        log.exception("the process failed", extra={"action": "exit"})
        sys.exit(1)


def return_large_blocks() -> None:
    """Gives blocks of half a MiB and more back to the system as soon as they are free.

    For processes through which files flow. Left alone, glibc raises that limit with the blocks it
    meets, keeps them in its heaps, and these grow by tens of MiB with a long file. Not for the
    transcription worker, whose model takes and frees large blocks with each layer. Does nothing
    without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


async def _until_stopped(
    name: str, main: Callable[[S, asyncio.Event], Awaitable[None]], settings: S
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    log.info("starting", extra={"action": "start"})
    running = asyncio.ensure_future(main(settings, stopping))
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not running.done():
        # While it starts, it may wait for a server that is away and not look at the event.
        await asyncio.wait([running], timeout=settings.shutdown_grace_seconds + _LAST_SECONDS)
    if not running.done():
        log.warning("not ended in time", extra={"action": "stop"})
        await ended(running)
    if not running.cancelled():
        running.result()
    log.info("stopped", extra={"action": "stop"})
