"""Calls of the same moment, done in groups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from steno.platform.errors import ResourceExhausted, Unavailable
from steno.platform.group_commit import GroupCommit


class Clerk:
    """Doubles numbers when it is let; 13 is wrong, -1 spoils all that is done with it.

    At -2 the database is away. Of numbers that come twice, the second is left for the next group.
    """

    def __init__(self, most: int = 10, most_waiting: int = 100, timeout: float = 60.0) -> None:
        self.goes: list[list[int]] = []
        self.began = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.double = GroupCommit(
            self._work,
            most,
            away=(ConnectionError,),
            max_waiting=most_waiting,
            timeout=timeout,
        )

    async def _work(self, numbers: Sequence[int]) -> Mapping[int, int | Exception]:
        self.goes.append([*numbers])
        self.began.set()
        await self.may_go_on.wait()
        if -2 in numbers:
            raise ConnectionError
        if -1 in numbers:
            raise RuntimeError("spoilt")
        return {
            place: ValueError("13") if number == 13 else 2 * number
            for place, number in enumerate(numbers)
            if number not in numbers[:place]
        }

    async def called(self, *numbers: int) -> list[asyncio.Task[int]]:
        """Calls that have all come before the first is done."""
        calls = [asyncio.create_task(self.double(number)) for number in numbers]
        await self.began.wait()
        self.may_go_on.set()
        return calls


async def test_calls_that_come_while_one_is_being_done_are_done_together_after_it() -> None:
    clerk = Clerk()

    first = asyncio.create_task(clerk.double(1))
    await clerk.began.wait()
    others = await clerk.called(2, 3, 4)

    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert clerk.goes == [[1], [2, 3, 4]]


async def test_no_more_than_so_many_are_done_at_once() -> None:
    clerk = Clerk(most=2)

    assert await asyncio.gather(*await clerk.called(1, 2, 3, 4, 5)) == [2, 4, 6, 8, 10]
    assert clerk.goes == [[1, 2], [3, 4], [5]]


async def test_what_is_wrong_with_one_call_is_told_to_its_caller_alone() -> None:
    right, wrong, other = await Clerk().called(1, 13, 3)

    assert (await right, await other) == (2, 6)
    with pytest.raises(ValueError, match="13"):
        await wrong


async def test_calls_that_are_left_out_are_first_in_the_next_group() -> None:
    clerk = Clerk(most=3)

    assert await asyncio.gather(*await clerk.called(1, 1, 1, 4, 5)) == [2, 2, 2, 8, 10]
    assert clerk.goes == [[1, 1, 1], [1, 1, 4], [1, 5]]


async def test_a_caller_that_was_left_out_and_has_gone_costs_nothing() -> None:
    clerk = Clerk()
    first = asyncio.create_task(clerk.double(1))
    await clerk.began.wait()
    twice, gone, last = [asyncio.create_task(clerk.double(number)) for number in (2, 2, 3)]
    twice.add_done_callback(lambda _: gone.cancel())
    clerk.may_go_on.set()

    assert [*await asyncio.gather(first, twice, last)] == [2, 4, 6]
    assert await clerk.double(7) == 14
    assert clerk.goes[:2] == [[1], [2, 2, 3]]


async def test_when_a_group_fails_each_is_tried_by_itself() -> None:
    clerk = Clerk()
    right, spoilt, other = await clerk.called(1, -1, 3)

    assert (await right, await other) == (2, 6)
    with pytest.raises(RuntimeError, match="spoilt"):
        await spoilt
    assert clerk.goes == [[1, -1, 3], [1], [-1], [3]]


async def test_when_the_database_is_away_all_learn_of_it_at_once() -> None:
    clerk = Clerk()

    for call in await clerk.called(1, -2, 3):
        with pytest.raises(ConnectionError):
            await call
    assert clerk.goes == [[1, -2, 3]]


async def test_a_caller_that_gives_up_has_been_heard_and_holds_up_nobody() -> None:
    clerk = Clerk()
    gone, stays = [asyncio.create_task(clerk.double(number)) for number in (1, 2)]
    await clerk.began.wait()
    gone.cancel()
    clerk.may_go_on.set()

    assert await stays == 4
    assert clerk.goes == [[1, 2]]
    assert await clerk.double(5) == 10


async def test_a_caller_that_has_gone_before_its_turn_costs_nothing() -> None:
    clerk = Clerk()
    first = asyncio.create_task(clerk.double(1))
    await clerk.began.wait()
    gone, stays = [asyncio.create_task(clerk.double(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    gone.cancel()
    clerk.may_go_on.set()

    assert (await first, await stays) == (2, 6)
    assert clerk.goes == [[1], [3]]


async def test_more_calls_than_may_wait_are_refused_and_the_others_are_done() -> None:
    clerk = Clerk(most=1, most_waiting=2)
    first = asyncio.create_task(clerk.double(1))
    await clerk.began.wait()
    waiting = [asyncio.create_task(clerk.double(number)) for number in (2, 3)]
    await asyncio.sleep(0)

    with pytest.raises(ResourceExhausted):
        await clerk.double(4)
    clerk.may_go_on.set()
    assert await asyncio.gather(first, *waiting) == [2, 4, 6]
    assert await clerk.double(4) == 8


async def test_callers_that_have_gone_take_no_place_of_those_who_wait() -> None:
    clerk = Clerk(most=1, most_waiting=2)
    first = asyncio.create_task(clerk.double(1))
    await clerk.began.wait()
    gone = [asyncio.create_task(clerk.double(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    for caller in gone:
        caller.cancel()
    await asyncio.sleep(0)
    stays = asyncio.create_task(clerk.double(4))
    clerk.may_go_on.set()

    assert (await first, await stays) == (2, 8)
    assert clerk.goes == [[1], [4]]


async def test_work_that_hangs_is_given_up_and_what_comes_after_it_is_done() -> None:
    clerk = Clerk(timeout=0.01)

    with pytest.raises(Unavailable):
        await clerk.double(1)
    clerk.may_go_on.set()
    assert await clerk.double(2) == 4
