"""Chunks take room from when they have come until they are written, whatever happens to streams."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from steno.concatenation import ingest as module
from steno.concatenation.domain import (
    Appended,
    Chunk,
    Encoding,
    SessionNotOpen,
    SessionState,
    StoredChunk,
)
from steno.concatenation.ingest import Ingest, _Inbox, _Unread
from steno.concatenation.recent import RecentObjects
from steno.concatenation.room import Room
from steno.concatenation.store import Store
from steno.concatenation.watch import Watchers
from steno.platform.errors import Unavailable

from .conftest import CONFIG, SESSION

RAW = replace(CONFIG, encoding=Encoding.LINEAR16, sample_rate_hertz=16_000, channel_count=1)
OPEN = replace(SESSION, config=RAW, state=SessionState.OPEN)


def chunk(sequence: int, size: int = 10) -> Chunk:
    return Chunk(sequence, bytes(size), b"")


class Behind:
    """A database that knows nothing, watchers that hear nothing, and an object store."""

    def __init__(self) -> None:
        self.open = asyncio.Event()  # set while the object store takes what it is given
        self.open.set()
        self.put_count = 0
        self.error: Exception | None = None
        """What the object store says in the end."""

    async def known(self, session_id: UUID, sequences: Sequence[int]) -> dict[int, bytes]:
        return {}

    async def append(self, session_id: UUID, epoch: int, chunks: Sequence[StoredChunk]) -> Appended:
        return Appended(OPEN, [chunk.sequence for chunk in chunks])

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        self.put_count += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error

    async def watch(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        await asyncio.Event().wait()
        yield


def taking(behind: Behind, room: Room) -> Ingest:
    return Ingest(
        cast(Store, behind),
        cast(RecentObjects, behind),
        cast(Watchers, behind),
        lambda _: None,
        room,
    )


async def sent(*chunks: Chunk, then: asyncio.Event | None = None) -> AsyncIterator[Chunk]:
    for each in chunks:
        yield each
    if then is not None:
        await then.wait()


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_chunks_that_are_written_while_another_waits_for_room_are_given_back_once() -> None:
    room = Room(100)
    others = await room.take(85)
    inbox = _Inbox(room)
    receiving = asyncio.create_task(inbox.receive(sent(chunk(0), chunk(1)), _Unread()))
    group = await inbox.take()
    await settle()  # the second waits for room
    inbox.written(group)
    inbox.written(await inbox.take())
    await receiving

    inbox.close()
    room.give(others)

    assert room.used == 0


async def test_a_stream_that_is_cancelled_once_more_while_it_ends_gives_its_room_back() -> None:
    behind, room = Behind(), Room(100)
    behind.open.clear()
    stuck = asyncio.Event()

    async def stubborn() -> AsyncIterator[Chunk]:
        yield chunk(0)
        yield chunk(1)
        while not stuck.is_set():
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                await stuck.wait()

    ingest = taking(behind, room)
    task = asyncio.create_task(ingest._take(OPEN, stubborn(), _Unread()))
    await settle()
    for _ in range(2):
        task.cancel()
        await settle()
    stuck.set()
    behind.open.set()
    await asyncio.gather(task, return_exceptions=True)
    await settle()

    assert room.used == 0


async def test_bytes_of_a_stream_that_has_gone_take_room_while_they_are_written() -> None:
    behind, room = Behind(), Room(100)
    behind.open.clear()
    ingest = taking(behind, room)
    task = asyncio.create_task(ingest._take(OPEN, sent(chunk(0), then=asyncio.Event()), _Unread()))
    await settle()
    assert behind.put_count == 1

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    used = room.used
    behind.open.set()
    await settle()

    assert (used, room.used) == (10, 0)


async def test_a_write_that_fails_after_its_stream_has_gone_is_no_error_of_the_service(
    unseen_errors: list[dict[str, object]],
) -> None:
    behind = Behind()
    behind.open.clear()
    behind.error = Unavailable("the object store does not answer; try again")
    ingest = taking(behind, Room(100))
    task = asyncio.create_task(ingest._take(OPEN, sent(chunk(0), then=asyncio.Event()), _Unread()))
    await settle()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    behind.open.set()
    await settle()
    del task
    gc.collect()

    assert unseen_errors == []


async def test_a_producer_that_reads_nothing_takes_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "UNREAD_UPDATES", 3)
    monkeypatch.setattr(module, "GROUP_CHUNKS", 1)
    behind, room = Behind(), Room(100)
    asked = 0

    async def many() -> AsyncIterator[Chunk]:
        nonlocal asked
        for asked in range(20):
            yield chunk(asked)

    updates = taking(behind, room).stream(OPEN, many())
    sent_back = [await anext(updates)]
    await settle()
    used, unread = room.used, asked

    sent_back += [update async for update in updates]

    assert used == 0
    assert unread < 10
    sequences = [
        s for update in sent_back if isinstance(update, Appended) for s in update.sequences
    ]
    assert sequences == list(range(20))


async def test_what_comes_after_the_end_is_refused_before_it_is_written() -> None:
    behind = Behind()
    closed = replace(OPEN, state=SessionState.CLOSED)

    with pytest.raises(SessionNotOpen):
        await taking(behind, Room(100)).write(closed, None, [chunk(0)])

    assert behind.put_count == 0
