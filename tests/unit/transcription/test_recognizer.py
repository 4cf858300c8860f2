"""One model, many callers: one step at a time, who waits on the line first."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from steno.transcription.recognizer import Recognizer
from waiting import eventually


@pytest.fixture
async def recognizer() -> AsyncIterator[Recognizer]:
    async with Recognizer(engine=None) as recognizer:  # type: ignore[arg-type]
        yield recognizer


class Gate:
    """A step that takes as long as the test wants."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        self.opened.wait(30)


async def test_a_step_gives_its_result_or_its_error(recognizer: Recognizer) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    assert await recognizer.run(lambda: 7, urgent=False) == 7
    with pytest.raises(RuntimeError, match="out of memory"):
        await recognizer.run(fail, urgent=False)


async def test_steps_run_in_order_of_arrival_and_urgent_ones_first(recognizer: Recognizer) -> None:
    gate, ran = Gate(), list[str]()

    async def step(name: str, urgent: bool) -> None:
        await recognizer.run(lambda: ran.append(name), urgent=urgent)

    async with asyncio.TaskGroup() as group:
        group.create_task(recognizer.run(gate, urgent=False))
        await eventually(gate.entered.is_set)
        for name, urgent in [("a", False), ("b", False), ("c", True), ("d", True)]:
            group.create_task(step(name, urgent))
        await eventually(lambda: recognizer.waiting == 4)
        gate.opened.set()

    assert ran == ["c", "d", "a", "b"]


async def test_a_step_that_is_cancelled_while_it_waits_never_runs(recognizer: Recognizer) -> None:
    gate, ran = Gate(), list[str]()
    running = asyncio.create_task(recognizer.run(gate, urgent=False))
    await eventually(gate.entered.is_set)
    cancelled = asyncio.create_task(recognizer.run(lambda: ran.append("a"), urgent=False))
    await eventually(lambda: recognizer.waiting == 1)

    cancelled.cancel()
    await eventually(lambda: recognizer.waiting == 0)
    gate.opened.set()
    await running
    await recognizer.run(lambda: None, urgent=False)

    assert ran == []
