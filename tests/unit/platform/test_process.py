"""How a process ends."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from steno.platform import process
from steno.platform.settings import ProcessSettings

SETTINGS = ProcessSettings(metrics_listen="", log_format="text", shutdown_grace_seconds=0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LAST_SECONDS", 0.01)
    monkeypatch.setattr("steno.platform.ending.CANCEL_AGAIN_SECONDS", 0.01)


async def test_a_process_that_is_told_to_stop_while_it_starts_ends() -> None:
    cancelled = 0

    async def main(settings: ProcessSettings, stopping: asyncio.Event) -> None:
        nonlocal cancelled
        os.kill(os.getpid(), signal.SIGTERM)
        while cancelled < 3:
            try:
                await asyncio.Event().wait()  # for a server that is away
            except asyncio.CancelledError:  # some clients drop one now and then
                cancelled += 1

    async with asyncio.timeout(30):
        await process._until_stopped("test", main, SETTINGS)

    assert cancelled == 3


async def test_what_ends_a_process_by_itself_is_raised() -> None:
    async def main(settings: ProcessSettings, stopping: asyncio.Event) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await process._until_stopped("test", main, SETTINGS)
