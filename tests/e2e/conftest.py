"""A platform that the tests of a process share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from platform_client import Client
from running_platform import RunningPlatform, run_platform


@pytest.fixture(scope="session")
async def platform() -> AsyncIterator[RunningPlatform]:
    """A platform that tests leave as they found it."""
    async with AsyncExitStack() as stack:
        yield await run_platform(stack, workers=1)


@pytest.fixture(scope="session")
def client(platform: RunningPlatform) -> Client:
    return platform.client
