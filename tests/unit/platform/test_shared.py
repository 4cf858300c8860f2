"""One question for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
import gc

import pytest

from steno.platform.shared import Shared
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
