"""What a subscriber has not read yet is bounded, and wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steno.platform.subscriber import MAX_UNREAD, Subscriber


async def test_a_reader_that_stands_still_holds_a_bounded_number_of_events() -> None:
    subscriber: Subscriber[int, str] = Subscriber()

    for number in range(10_000):
        subscriber.notify(number)

    events, _, _ = await subscriber.read()
    # The oldest are gone; the hole makes the reader read the log.
    assert events == list(range(10_000 - MAX_UNREAD, 10_000))


async def test_a_reader_that_waits_is_woken_by_an_event_and_by_the_state() -> None:
    subscriber: Subscriber[int, str] = Subscriber()

    happenings: list[tuple[Callable[[], None], object]] = [
        (lambda: subscriber.notify(1), ([1], None, False)),
        (lambda: subscriber.update("here"), ([], "here", False)),
        (lambda: subscriber.update(None), ([], None, True)),
    ]
    for happen, expected in happenings:
        waiting = asyncio.create_task(subscriber.read())
        await asyncio.sleep(0)
        happen()
        assert await asyncio.wait_for(waiting, 10) == expected


async def test_a_reader_that_went_away_while_it_waited_may_come_back() -> None:
    subscriber: Subscriber[int, str] = Subscriber()
    waiting = asyncio.create_task(subscriber.read())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    subscriber.notify(1)

    assert await subscriber.read() == ([1], None, False)
