"""Whose turn it is among the recordings that one process prepares."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from steno.upload.turns import LONG_SAMPLES, LongPlaces, Place, TurnOver, Turns


class Line:
    """Recordings that take turns, and the order in which they had them."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.had: list[str] = []

    async def prepare(self, name: str, seconds: int, tenant: str = "") -> None:
        with self.turns.place(tenant) as place:
            for _ in range(seconds):
                await self.second(name, place)

    async def second(self, name: str, place: Place) -> None:
        async with self.turns.turn(place, 1):
            self.had.append(name)
            await asyncio.sleep(0)


async def test_recordings_have_turns_of_equal_length() -> None:
    line = Line()

    await asyncio.gather(*(line.prepare(name, 10) for name in "abc"))

    assert [Counter(line.had[at : at + 3]) for at in range(0, 30, 3)] == [Counter("abc")] * 10


async def test_a_short_recording_ends_before_a_long_one_that_began_before_it() -> None:
    line = Line()
    long = asyncio.create_task(line.prepare("long", 1000))
    for _ in range(100):
        await asyncio.sleep(0)

    begun = len(line.had)
    await line.prepare("short", 10)

    assert not long.done()
    assert len(line.had) - begun <= 10 + 12
    await long


async def test_a_tenant_with_many_recordings_has_no_more_turns_than_one_with_few() -> None:
    line = Line()

    tasks = [asyncio.create_task(line.prepare("many", 100, "many")) for _ in range(9)]
    await line.prepare("few", 50, "few")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert Counter(line.had)["many"] <= 50 + 2 * 9


@pytest.mark.parametrize("called", [False, True])
async def test_who_is_cancelled_in_line_holds_nobody_up(called: bool) -> None:
    line = Line()
    with line.turns.place("") as first, line.turns.place("") as second:
        async with line.turns.turn(first, 1):
            waiting = asyncio.create_task(line.second("cancelled", second))
            await asyncio.sleep(0)
            if not called:
                waiting.cancel()
                await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    await asyncio.wait_for(line.prepare("next", 1), 10)

    assert line.had == ["next"]


def test_a_recording_that_turns_out_to_be_long_takes_a_place_or_its_turn_is_over() -> None:
    places = LongPlaces(1)
    with places.place() as first, places.place() as second:
        first.reach(LONG_SAMPLES - 1)
        assert places.free == 1

        first.reach(LONG_SAMPLES)
        first.reach(2 * LONG_SAMPLES)

        assert places.free == 0
        second.reach(LONG_SAMPLES - 1)
        with pytest.raises(TurnOver):
            second.reach(LONG_SAMPLES)
    assert places.free == 1
