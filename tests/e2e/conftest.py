"""A platform that the tests of a process share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from platform_client import Client
from running_platform import RunningPlatform, run_platform
from spans import Receiver, receiving


@pytest.fixture(scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    """Gets the traces of the shared platform."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
async def platform(receiver: Receiver) -> AsyncIterator[RunningPlatform]:
    """A platform that tests leave as they found it: rejected bytes have no grace there."""
    settings = {
        "STENO_LOG_FORMAT": "json",
        "STENO_AUDIO_GRACE_HOURS": "0",
        "STENO_UPLOAD_SWEEP_SECONDS": "1",
        **receiver.environment,
    }
    async with AsyncExitStack() as stack:
        yield await run_platform(stack, workers=1, **settings)


@pytest.fixture(scope="session")
def client(platform: RunningPlatform) -> Client:
    return platform.client
