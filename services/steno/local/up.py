"""`steno up`: the platform in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from steno.local.child import StartError
from steno.local.data_dir import FolderInUse
from steno.local.ports import PortTaken
from steno.local.servers import MissingServers
from steno.local.supervisor import Platform, services, split_model
from steno.models import ModelError, store_at

INTERRUPTED = 130
"""Exit status of work that a signal has cut short."""


def up(folder: Path, *, models: Sequence[str], workers: int, port_base: int | None) -> int:
    """Runs the platform until SIGINT, SIGTERM or SIGHUP, and returns an exit status.

    Args:
        folder: for everything it keeps; the next `up` on it goes on where this one stopped.
        models: what is served: names, or `NAME=FOLDER`. What is not on this machine is fetched.
        workers: number of processes that transcribe, for each model.
        port_base: first port to use, 0 for free ones, None for the usual ones.
    """
    try:
        fetch_missing(models)  # nothing runs yet: a signal simply ends it
    except (ModelError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    begun = time.monotonic()

    async def run() -> int:
        platform = Platform(folder, services(models, workers), port_base=port_base, say=say)
        async with platform:
            print(table(platform))
            print(f"ready after {time.monotonic() - begun:.1f} s; Ctrl-C stops it", flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                say("stopping")
        return 0

    return until_told_to_stop(run(), stopped=0)


def fetch_missing(models: Sequence[str]) -> None:
    """Fetches models that are not on this machine; a worker would not. Raises ModelError."""
    from steno.models.pull import pull

    store = store_at()
    for _, model in map(split_model, models):
        if store.find(model) is None:
            pull(store, model, say=say, bars=sys.stderr.isatty())


def until_told_to_stop(work: Coroutine[Any, Any, int], *, stopped: int = INTERRUPTED) -> int:
    """Runs work that uses a platform and returns its exit status, or `stopped` after a signal.

    A platform that can't start is one line on stderr and the status 1. The first signal cancels
    the work, which stops its platform; a second one ends this process at once, and the kernel ends
    its children.
    """
    try:
        return asyncio.run(_cancelled_by_signals(work, stopped))
    except (StartError, FolderInUse, PortTaken, MissingServers) as error:
        say(str(error))
        return 1


async def _cancelled_by_signals(work: Coroutine[Any, Any, int], stopped: int) -> int:
    task = asyncio.ensure_future(work)

    def stop() -> None:
        if task.cancelling():
            os._exit(INTERRUPTED)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return stopped


def table(platform: Platform) -> str:
    """Where everything is, for people."""
    servers = {server.name: platform.address_of(server.name) for server in platform.servers.all}
    rows = platform.addresses | servers | {"data": str(platform.folder), "logs": str(platform.logs)}
    width = max(map(len, rows))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items())


def say(line: str) -> None:
    """Tells a person at the terminal."""
    print(f"steno: {line}", file=sys.stderr, flush=True)
