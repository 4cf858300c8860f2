"""All services, for tests of their whole surface."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from all_services import Services, all_services


@pytest.fixture(scope="module")
async def services(shared_environment: dict[str, str]) -> AsyncIterator[Services]:
    async with all_services() as services:
        yield services
