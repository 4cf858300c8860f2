"""Two platforms that the tests share: one that they leave as they found it, and one to harm.

The tests of each run in one process (see tests/conftest.py).
"""

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
async def two_workers() -> AsyncIterator[RunningPlatform]:
    """A platform with two workers, for tests that kill what they like.

    What a killed process held is free again after seconds, not after the usual half a minute.
    """
    settings = {
        "STENO_TASK_LEASE_SECONDS": "3",
        "STENO_PREPARE_LEASE_SECONDS": "3",
        "STENO_PREPARE_POLL_SECONDS": "1",
        "STENO_JOB_AUDIO_POLL_SECONDS": "1",
        "STENO_JOB_MESSAGE_CHECK_SECONDS": "2",
        "STENO_SESSION_LEASE_SECONDS": "2",
    }
    async with AsyncExitStack() as stack:
        yield await run_platform(stack, workers=2, **settings)


@pytest.fixture
async def harmed(two_workers: RunningPlatform) -> RunningPlatform:
    """The same, once all of it runs again that the test before this one has killed."""
    await two_workers.all_ready()
    return two_workers


@pytest.fixture(scope="session")
def client(platform: RunningPlatform) -> Client:
    return platform.client
