"""One question for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
import gc
from itertools import count

import pytest

from steno.platform import shared as module
from steno.platform.shared import Recent, Shared
from waiting import eventually


class Library:
    """Looks answers up when it is told to."""

    def __init__(self) -> None:
        self.looked = 0
        self.open = asyncio.Event()

    async def look(self, key: str) -> str:
        self.looked += 1
        await self.open.wait()
        if key == "missing":
            raise KeyError(key)
        return f"{key} {self.looked}"


async def test_those_who_ask_together_get_one_answer_and_who_comes_later_another() -> None:
    library = Library()
    shared = Shared(library.look)

    together = [asyncio.create_task(shared.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    library.open.set()

    assert await asyncio.gather(*together) == ["a 1"] * 3
    assert await shared.get("a") == "a 2"


async def test_whoever_goes_away_does_not_take_the_answer_from_the_others() -> None:
    library = Library()
    shared = Shared(library.look)
    first, second = (asyncio.create_task(shared.get("a")) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    library.open.set()

    assert await second == "a 1"
    assert first.cancelled()


async def test_what_goes_wrong_is_told_to_all_and_not_kept() -> None:
    library = Library()
    library.open.set()
    shared = Shared(library.look)

    for _ in range(2):
        with pytest.raises(KeyError):
            await shared.get("missing")

    assert library.looked == 2


async def test_what_goes_wrong_when_all_have_gone_is_nobodys_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = asyncio.Event()

    async def look(key: str) -> str:
        await away.wait()
        raise ConnectionError("away")

    shared: Shared[str, str] = Shared(look)
    asking = asyncio.create_task(shared.get("a"))
    await asyncio.sleep(0)
    asking.cancel()
    away.set()
    await eventually(lambda: not shared._looking)
    gc.collect()

    assert "never retrieved" not in caplog.text


async def test_what_is_small_is_looked_up_for_each_who_asks() -> None:
    numbers = count(1)

    async def look() -> int:
        return next(numbers)

    recent = Recent(look, lambda answer: False)

    assert [await recent.get() for _ in range(3)] == [1, 2, 3]


async def test_who_asks_while_an_answer_is_looked_up_gets_a_later_one() -> None:
    library = Library()
    recent = Recent(lambda: library.look("a"), lambda answer: False)
    first = asyncio.create_task(recent.get())
    await asyncio.sleep(0.001)  # the clock goes on
    later = [asyncio.create_task(recent.get()) for _ in range(3)]
    await asyncio.sleep(0)

    library.open.set()

    assert await first == "a 1"
    assert await asyncio.gather(*later) == ["a 2"] * 3


async def test_what_is_large_is_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 1e9)
    library = Library()
    library.open.set()
    recent = Recent(lambda: library.look("a"), lambda answer: True)

    assert [await recent.get() for _ in range(3)] == ["a 1"] * 3

    monkeypatch.setattr(module, "REST", 0.0)
    again = Recent(lambda: library.look("b"), lambda answer: True)
    assert [await again.get() for _ in range(2)] == ["b 2", "b 3"]


async def test_an_answer_that_could_not_be_had_is_looked_up_again() -> None:
    library = Library()
    library.open.set()
    wanted = ["missing", "a"]
    recent = Recent(lambda: library.look(wanted.pop(0)), lambda answer: False)

    with pytest.raises(KeyError):
        await recent.get()
    assert await recent.get() == "a 2"


async def test_none_of_many_gets_an_answer_that_is_older_than_its_question() -> None:
    looked = 0

    async def look() -> int:
        nonlocal looked
        looked += 1
        number = looked
        await asyncio.sleep(0.001)
        return number

    recent = Recent(look, lambda answer: False)

    async def ask() -> None:
        for _ in range(20):
            before = looked
            assert await recent.get() >= before

    async with asyncio.timeout(60):
        await asyncio.gather(*(ask() for _ in range(8)))
