"""What a reader has not looked at yet is bounded, and wakes it."""

from __future__ import annotations

import asyncio

from steno.platform.listener import MOST_UNREAD, Listener


async def test_a_reader_that_stands_still_holds_a_bounded_number_of_events() -> None:
    listener: Listener[int, str] = Listener()

    for number in range(10_000):
        listener.hear(number)

    events, _, _ = await listener.news()
    # The oldest are gone; the hole makes the reader look into the log.
    assert events == list(range(10_000 - MOST_UNREAD, 10_000))


async def test_a_reader_that_waits_is_woken_by_an_event_and_by_the_state() -> None:
    listener: Listener[int, str] = Listener()

    for tell, news in (
        (lambda: listener.hear(1), ([1], None, False)),
        (lambda: listener.see("here"), ([], "here", False)),
        (lambda: listener.see(None), ([], None, True)),
    ):
        waiting = asyncio.create_task(listener.news())
        await asyncio.sleep(0)
        tell()
        assert await asyncio.wait_for(waiting, 10) == news


async def test_a_reader_that_went_away_while_it_waited_may_come_back() -> None:
    listener: Listener[int, str] = Listener()
    waiting = asyncio.create_task(listener.news())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    listener.hear(1)

    assert await listener.news() == ([1], None, False)
