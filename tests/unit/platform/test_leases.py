"""Leases that are kept, and what their loss means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from steno.platform.leases import kept, until_answered

OFTEN = 0.001


class Lost(Exception):
    """The lease is over."""


class Away(Exception):
    """The server can't be reached."""


def answering(*answers: Exception | None) -> Callable[[], Awaitable[int]]:
    """Raises each error in turn, and then succeeds for ever; returns how often it was called."""
    calls = 0

    async def answer() -> int:
        nonlocal calls
        calls += 1
        error = answers[calls - 1] if calls <= len(answers) else None
        if error is not None:
            raise error
        return calls

    return answer


async def test_a_loss_stops_the_work_and_is_raised_in_its_place() -> None:
    loss = Lost("another has it")

    with pytest.raises(Lost) as caught:
        async with kept(answering(None, loss), OFTEN, Lost, stops_work=True):
            await asyncio.Event().wait()

    assert caught.value is loss
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_loss_that_does_not_stop_the_work_ends_the_renewal_only() -> None:
    renew = answering(Lost())

    async with kept(renew, OFTEN, Lost, stops_work=False):
        await asyncio.sleep(20 * OFTEN)

    assert await renew() == 2


async def test_what_fails_otherwise_is_tried_again_and_the_work_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renewed, renew = asyncio.Event(), answering(Away("refused"), ValueError("a fault of ours"))

    async def noted() -> None:
        await renew()
        renewed.set()

    async with kept(noted, OFTEN, Lost, stops_work=True):
        await asyncio.wait_for(renewed.wait(), 10)

    assert "not renewed: refused" in caplog.text
    assert "not renewed: a fault of ours" in caplog.text


@pytest.mark.parametrize("stops_work", [True, False])
async def test_who_is_cancelled_beside_a_loss_learns_of_the_cancellation(stops_work: bool) -> None:
    async def lose() -> None:
        if stops_work:
            working.cancel()
        raise Lost

    async def work() -> None:
        async with kept(lose, OFTEN, Lost, stops_work=stops_work):
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await asyncio.sleep(20 * OFTEN)
    working.cancel()

    with pytest.raises(asyncio.CancelledError):
        await working


@pytest.mark.parametrize("stops_work", [True, False])
async def test_nothing_is_renewed_any_more_after_the_work(stops_work: bool) -> None:
    renew = answering()

    async with kept(renew, OFTEN, Lost, stops_work=stops_work):
        await asyncio.sleep(20 * OFTEN)
    count = await renew()
    await asyncio.sleep(20 * OFTEN)

    assert await renew() == count + 1


async def test_a_call_is_repeated_while_its_server_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = answering(Away("refused"), Away("refused"))

    answer = await until_answered(
        call, lambda error: isinstance(error, Away), first_pause=OFTEN, longest_pause=OFTEN
    )

    assert answer == 3
    assert caplog.text.count("no answer yet: refused") == 2


async def test_an_answer_is_not_asked_for_again() -> None:
    with pytest.raises(Lost):
        await until_answered(answering(Away(), Lost()), lambda e: isinstance(e, Away))
