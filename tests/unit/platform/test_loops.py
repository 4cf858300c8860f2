"""Work that is done again and again."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from steno.platform.errors import Unavailable
from steno.platform.loops import LONGEST_REST, REST, Signal, once, repeat, running
from waiting import eventually


async def test_work_that_fails_is_done_again() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise Unavailable("away") if tries % 2 else ValueError("a bug")

    async with running(repeat("test", work, every=0.001)):
        await eventually(lambda: tries > 3)


async def test_work_in_which_something_was_cancelled_is_done_again() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        other: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        other.cancel()
        await other

    async with running(repeat("test", work, every=0.001)):
        await eventually(lambda: tries > 3)


async def test_work_that_hangs_is_ended_and_done_again() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        await asyncio.Event().wait()

    async with running(repeat("test", work, every=0.001, within=0.01)):
        await eventually(lambda: tries > 3)


async def test_what_is_done_once_is_done_until_it_succeeds() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("away")

    await once("test", work, every=0.001)

    assert tries == 3


async def test_a_signal_wakes_at_once_and_none_is_missed() -> None:
    done: list[int] = []
    begun, go_on = asyncio.Event(), asyncio.Event()
    signal = Signal()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.append(1)

    async with running(repeat("test", work, every=3600, woken=signal.waiter())):
        await begun.wait()
        signal()  # while the work is being done: it must be done once more
        go_on.set()
        await eventually(lambda: len(done) == 2)
        signal()
        await eventually(lambda: len(done) == 3)


async def test_loops_end_with_their_block() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async with running(repeat("test", work, every=3600)):
        await asyncio.sleep(0)

    assert ended.is_set()


async def test_work_that_loses_a_cancellation_ends_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steno.platform.ending.CANCEL_AGAIN_SECONDS", 0.01)
    begun = asyncio.Event()
    lost = 0

    async def work() -> None:
        nonlocal lost
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:  # as asyncio.wait_for does now and then
            lost += 1

    async with running(repeat("test", work, every=3600)):
        await begun.wait()

    assert lost == 1


async def test_a_paced_loop_that_is_woken_all_the_time_leaves_time_to_others() -> None:
    clock = asyncio.get_running_loop().time
    passes: list[tuple[float, float]] = []
    signal = Signal()

    async def work() -> None:
        began = clock()
        await asyncio.sleep(0.01)
        passes.append((began, clock()))
        signal()

    async with running(repeat("test", work, every=3600, woken=signal.waiter(), paced=True)):
        await eventually(lambda: len(passes) > 3)

    rests = [later[0] - earlier[1] for earlier, later in pairwise(passes)]
    assert min(rests) >= 0.9 * min(REST * 0.01, LONGEST_REST)


async def test_a_paced_loop_that_has_rested_is_woken_at_once() -> None:
    done: list[float] = []
    signal, clock = Signal(), asyncio.get_running_loop().time

    async def work() -> None:
        done.append(clock())

    async with running(repeat("test", work, every=3600, woken=signal.waiter(), paced=True)):
        await eventually(lambda: done)
        signal()
        await eventually(lambda: len(done) == 2, every=0.001)
