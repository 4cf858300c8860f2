"""Room for chunks: in order, never more than there is, and none lost by who goes away."""

from __future__ import annotations

import asyncio

import pytest

from steno.concatenation import room as module
from steno.concatenation.room import Arrivals, Room
from steno.platform.errors import ResourceExhausted


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_first_has_room_first_though_others_need_less() -> None:
    room, order = Room(10), list[int]()

    async def use(size: int) -> None:
        taken = await room.take(size)
        order.append(taken)

    await use(6)
    waiting = [asyncio.create_task(use(size)) for size in (8, 2, 12)]
    await settle()
    assert order == [6]

    room.give(6)
    await settle()
    assert order == [6, 8, 2]
    room.give(10)
    await asyncio.gather(*waiting)
    assert order == [6, 8, 2, 10]  # no one needs more than all


async def test_who_goes_away_leaves_the_room_to_others() -> None:
    room = Room(10)
    await room.take(10)
    first, second, third = (asyncio.create_task(room.take(10)) for _ in range(3))
    await settle()

    first.cancel()  # while it waits
    room.give(10)
    second.cancel()  # in the moment in which it has its turn
    await settle()

    assert await asyncio.wait_for(third, 5) == 10
    assert first.cancelled()
    assert second.cancelled()


async def test_a_call_that_finds_no_room_is_told_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    room = Room(10)
    async with room.taken(7):
        with pytest.raises(ResourceExhausted) as refused:
            async with room.taken(7):
                raise AssertionError("there is no room")
        async with room.taken(3):
            assert room.used == 10

    assert refused.value.retry_delay.total_seconds() > 0
    assert room.used == 0


async def test_who_arrives_slowly_leaves_its_room_to_others_but_only_when_they_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HURRIED_SECONDS", 0.0)
    arrivals, ended = Arrivals(20), list[str]()

    async def slow() -> None:
        try:
            async with arrivals.turn(10):
                await asyncio.Event().wait()
        except ResourceExhausted as error:
            ended.append(error.reason)

    slow_ones = [asyncio.create_task(slow()) for _ in range(2)]
    await settle()
    assert not ended

    async with asyncio.timeout(5), arrivals.turn(10):
        pass
    await asyncio.gather(*slow_ones)
    assert ended == ["TOO_SLOW", "TOO_SLOW"]
