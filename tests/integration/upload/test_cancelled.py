"""Callers that give up, at each moment at which they can."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest

from steno.platform import ending
from steno.platform.database import Pool
from steno.platform.messaging import connect
from steno.platform.objects import ObjectStore, UploadedPart
from steno.platform.removals import Removals, Remover
from steno.platform.settings import NatsSettings
from steno.upload.domain import NewUpload
from steno.upload.events import Announcer
from steno.upload.settings import Settings
from steno.upload.store import Store
from steno.upload.streams import Streams
from steno.upload.uploads import Uploads
from waiting import eventually

T = TypeVar("T")


@pytest.fixture
async def announcer(environment: dict[str, str]) -> AsyncIterator[Announcer]:
    async with connect(NatsSettings(), "test") as nats:
        yield Announcer(nats)


@pytest.fixture
def uploads(pool: Pool, objects: ObjectStore, announcer: Announcer) -> Uploads:
    """What serves uploads, in this process."""
    remover = Remover(Removals(pool, "upload"), objects)
    return Uploads(Store(pool), objects, remover, announcer, Settings())


@pytest.fixture
def streams(pool: Pool, objects: ObjectStore, announcer: Announcer) -> Streams:
    """What serves streams, in this process."""
    remover = Remover(Removals(pool, "upload"), objects)
    return Streams(Store(pool), objects, remover, announcer, Settings())


@types.coroutine
def cancelled_at(
    number: int, work: Coroutine[Any, Any, T], ended: list[bool]
) -> Generator[Any, Any, T]:
    """Awaits something, and has the task cancelled at its n-th suspension, if it comes to that."""
    step, suspended = partial(work.send, None), 0
    while True:
        try:
            future = step()
        except StopIteration as end:
            ended.append(suspended <= number)
            result: T = end.value
            return result
        if suspended == number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        suspended += 1
        try:
            step = partial(work.send, (yield future))
        except BaseException as error:
            step = partial(work.throw, error)


async def at_each_suspension(make: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Does work again and again, each time cancelled a suspension later; returns how many."""
    number, ended = 0, [False]
    while not ended[-1]:
        with suppress(asyncio.CancelledError):
            await asyncio.create_task(run(number, make(), ended))
        number += 1
    return number


async def run(number: int, work: Coroutine[Any, Any, object], ended: list[bool]) -> None:
    await cancelled_at(number, work, ended)


async def unnamed(objects: ObjectStore, pool: Pool) -> tuple[set[str], set[str]]:
    """Multipart uploads, and objects, that no row names."""
    async with pool.connection() as db:
        found = await db.execute(
            "SELECT object_key FROM upload.uploads WHERE state = 'OPEN'"
            " UNION SELECT object_key FROM upload.removals"
            " UNION SELECT object_key FROM upload.audio"
        )
        named = {row["object_key"] for row in await found.fetchall()}
    listed = await asyncio.to_thread(objects._client._list_multipart_uploads, objects._bucket)
    begun = {each.object_name for each in listed.uploads}
    return begun - named, set(await objects.list_prefix("uploads/")) - named


async def test_a_cancelled_create_leaves_nothing_that_nobody_names(
    uploads: Uploads, objects: ObjectStore, pool: Pool
) -> None:
    tries = await at_each_suspension(lambda: uploads.create(NewUpload("a", "", "", None, 5)))
    await eventually(lambda: not ending._going_on)

    assert tries > 1
    assert await unnamed(objects, pool) == (set(), set())


async def test_an_audio_has_all_bytes_of_its_stream_whatever_the_store_lists(
    streams: Streams, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(8 * 2**20)
        yield b"the end"

    async def forgetful(key: str, upload: str) -> list[UploadedPart]:
        return (await listed(key, upload))[:1]

    listed = objects.list_parts
    monkeypatch.setattr(objects, "list_parts", forgetful)

    audio = await streams.receive(NewUpload("a", "", "", None), chunks())

    assert await objects.stat(audio.object_key) == audio.size_bytes == 8 * 2**20 + 7


async def test_a_cancelled_stream_leaves_nothing_that_nobody_names(
    streams: Streams, objects: ObjectStore, pool: Pool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"some"
        yield b" bytes"

    tries = await at_each_suspension(
        lambda: streams.receive(NewUpload("a", "", "", None), chunks())
    )
    await eventually(lambda: not ending._going_on)

    assert tries > 1
    assert await unnamed(objects, pool) == (set(), set())
    assert streams._open == 0
