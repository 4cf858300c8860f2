"""Every bad call gets its error, while others are served, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest

from all_services import Services, Things
from corpus import CALLS, BadCall
from steno.platform.objects import open_store
from steno.platform.settings import S3Settings
from waiting import eventually


@pytest.fixture(scope="module")
def things(services: Services) -> Things:
    """What the calls are about."""
    return Things(services)


def placed(path: str) -> str:
    """A path without the places inside lists and maps."""
    return re.sub(r"\[.*?\]", "", path)


@pytest.mark.parametrize("bad", CALLS, ids=lambda bad: bad.name)
async def test_each_call_gets_its_error(services: Services, things: Things, bad: BadCall) -> None:
    failure = await bad.call.make(services.channels, things)

    if failure is None:
        assert bad.code is grpc.StatusCode.OK
        return
    assert (failure.code, failure.reason) == (bad.code, bad.reason), failure
    if bad.field:
        fields = [violation.field for violation in failure.violations]
        assert bad.field in fields or bad.field in map(placed, fields), failure


async def test_others_are_served_while_all_of_them_are_made(
    services: Services, things: Things
) -> None:
    turns = asyncio.Semaphore(8)

    async def make(bad: BadCall) -> None:
        async with turns:
            await bad.call.make(services.channels, things)

    async with asyncio.TaskGroup() as tasks:
        making = [tasks.create_task(make(bad)) for bad in CALLS]
        served = 0
        while not all(task.done() for task in making):
            served += await services.ready() == list(services.channels)
            await asyncio.sleep(0.01)

    assert served


async def test_no_upload_of_theirs_is_left(services: Services) -> None:
    async def only_open_ones_are_there() -> bool:  # what was cancelled is undone soon
        async with services.pool.connection() as db:
            rows = await (await db.execute(OPEN)).fetchall()
        async with open_store(S3Settings()) as objects:
            found = await asyncio.to_thread(objects._client._list_multipart_uploads, "steno")
        return {each.object_name for each in found.uploads} == {row["object_key"] for row in rows}

    await eventually(only_open_ones_are_there)


OPEN = "SELECT object_key FROM upload.uploads WHERE state = 'OPEN'"
