"""What schedules rest on: a seed's loop, its clock and its processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from simulation.loop import Loop, Process, Stuck


def a_loop(seed: int = 1) -> Loop:
    return Loop(seed)  # type: ignore[abstract]


async def appends(found: list[str], name: str) -> None:
    for number in range(3):
        found.append(f"{name}{number}")
        await asyncio.sleep(0)


def order_of(seed: int) -> list[str]:
    found: list[str] = []

    async def main() -> None:
        await asyncio.gather(appends(found, "a"), appends(found, "b"))

    a_loop(seed).run(main(), Process("main"))
    return found


def test_a_seed_orders_what_is_ready_always_the_same_way() -> None:
    assert order_of(7) == order_of(7)


def test_other_seeds_order_it_in_other_ways() -> None:
    assert len({tuple(order_of(seed)) for seed in range(50)}) > 10


def test_an_hour_takes_no_time() -> None:
    loop = a_loop()
    loop.run(asyncio.sleep(3600), Process("main"))
    assert loop.time() == 3600


def test_who_waits_for_nothing_is_named() -> None:
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match=r"main in .*waits_for_ever at .*test_loop.py"):
        a_loop().run(waits_for_ever(), Process("main"))


def test_work_without_end_and_without_time_is_named() -> None:
    async def works_for_ever() -> None:
        while True:  # noqa: ASYNC110 (it is what is looked for)
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match=r"main in .*works_for_ever"):
        a_loop().run(works_for_ever(), Process("main"))


def beside_a(process: Process, does: Callable[[Loop, Process], None]) -> list[float]:
    """When a process ticks to which something happens after 2.5 s, of 10."""
    loop = a_loop()
    ticks: list[float] = []

    async def tick() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                ticks.append(loop.time())
        finally:
            if not loop.ending:
                ticks.append(-1)

    async def main() -> None:
        loop.create_task(tick(), context=process.context.copy())
        await asyncio.sleep(2.5)
        does(loop, process)
        await asyncio.sleep(6.8)

    loop.run(main(), Process("main"))
    return ticks


def test_a_killed_process_does_nothing_more_not_even_clear_up() -> None:
    assert beside_a(Process("victim"), lambda loop, process: process.kill()) == [1, 2]


def test_a_halted_process_goes_on_where_it_stood() -> None:
    def halt(loop: Loop, process: Process) -> None:
        process.halt()
        loop.call_later(4, loop.resume, process)

    assert beside_a(Process("victim"), halt) == [1, 2, 6.5, 7.5, 8.5]
