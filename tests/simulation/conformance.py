"""How the simulation's database is held against Postgres: the same calls, and what came of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Any, LiteralString, Protocol, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from simulation import database
from simulation.database import Schema
from simulation.links import Link
from simulation.loop import Loop, Process
from steno.platform.database import open_pool
from steno.platform.settings import PostgresSettings

T = TypeVar("T")

Call = tuple[str, dict[str, Any]]
"""A method of a side, and its arguments."""
Step = tuple[Call, Any, Any]
"""A call, what it came to, and now and then what the tables held then."""
Rows = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]
"""The rows of a table."""


class Side(Protocol):
    """A store on one of the two databases. What it tells is the same on both."""

    async def make(self, call: Call) -> Any:
        """Makes a call, and answers what it comes to."""

    async def tables(self) -> Any:
        """All rows of all tables."""


class Writer(Protocol):
    """Draws calls that mostly make sense, from what is there."""

    async def next(self) -> Call:
        """The next one."""


def a_server(seed: int, schema: Schema) -> tuple[Loop, database.Server]:
    loop = Loop(seed)  # type: ignore[abstract]
    return loop, database.Server(loop, Link(loop), schema)


def simulated(
    loop: Loop,
    server: database.Server,
    side_of: Callable[[Any, Rows, Callable[[], datetime]], T],
    writer_of: Callable[[T], Writer],
    *,
    count: int,
    look_every: int,
) -> list[Step]:
    """Draws a sequence of calls, and makes them on the simulation's database."""
    steps: list[Step] = []

    async def rows(table: str) -> Sequence[Mapping[str, Any]]:
        return [*server.tables[table].values()]

    async def run() -> None:
        side: Any = side_of(database.Pool(server, 5), rows, lambda: loop.now)
        writer = writer_of(side)
        for _ in range(count):
            await asyncio.sleep(0.001)
            call = await writer.next()
            answer = await side.make(call)
            tables = await side.tables() if len(steps) % look_every == 0 else None
            steps.append((call, answer, tables))

    loop.run(run(), Process("a store"))
    assert not loop.problems
    return steps


async def hold_against_postgres(
    steps: Sequence[Step],
    url: str,
    schema: LiteralString,
    side_of: Callable[[Any, Rows, Callable[[], datetime]], Side],
) -> None:
    """Makes the same calls on Postgres, in a schema of it. All must come to the same."""
    async with (
        open_pool(PostgresSettings()) as pool,
        await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row) as db,
    ):

        async def rows(table: str) -> Sequence[Mapping[str, Any]]:
            cursor = await db.execute(f"SELECT * FROM {schema}.{table}")
            return await cursor.fetchall()

        side = side_of(pool, rows, lambda: datetime.now(UTC))
        for number, (call, answer, tables) in enumerate(steps):
            where = f"call {number}: {call}"
            assert await side.make(call) == answer, where
            assert tables is None or await side.tables() == tables, where


def beside(work: Callable[[], T]) -> T:
    """Does work in a thread of its own, since this one has a loop that runs."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def told(answer: Any, names: Mapping[UUID, str]) -> str:
    """What both sides say of an answer: ids have names, and times are all the same."""
    text = repr(_plain(answer))
    for each, name in names.items():
        text = text.replace(str(each), name)
    # What comes in any order is put in one.
    return re.sub(r"<(.*?)>", lambda found: str(sorted(found[1].split("; "))), text)


def _plain(value: Any) -> Any:
    """A value without its types, and without times."""
    if isinstance(value, datetime):
        return "a time"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return f"<{'; '.join(map(str, value))}>"
    if isinstance(value, Mapping):
        return {str(name): _plain(value[name]) for name in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool | int | float | None):
        return value if value is None else float(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "a time", str(value))


class Transaction:
    """A transaction that goes on as it is told, beside others."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._open = AsyncExitStack()
        self._db: Any = None

    async def begin(self) -> Transaction:
        self._db = await self._open.enter_async_context(self._pool.transaction())
        return self

    async def rows(self, statement: LiteralString, **parameters: Any) -> int:
        """Runs a statement, and tells how many rows it answers."""
        cursor = await self._db.execute(statement, parameters)
        await self._db.settle()
        return len(await cursor.fetchall())

    async def does(self, statement: LiteralString, **parameters: Any) -> None:
        await self._db.execute(statement, parameters)
        await self._db.settle()

    async def commit(self) -> None:
        await self._open.aclose()

    async def roll_back(self) -> None:
        error = ZeroDivisionError("it is given up")
        with suppress(ZeroDivisionError):
            await self._open.__aexit__(type(error), error, None)


async def waits(
    seen: list[Any],
    work: Coroutine[Any, Any, Any],
    then: Transaction,
    ends: str,
    refusals: tuple[type[Exception], ...] = (psycopg.Error,),
) -> None:
    """Begins what must wait for a transaction, ends that, and notes what came of it."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0.3)
    seen.append(("waits", not task.done()))
    await getattr(then, ends)()
    try:
        seen.append(await task)
    except refusals as error:
        seen.append(type(error).__name__)


async def meet_alike(
    scenes: Callable[[Any, Callable[[], datetime]], Coroutine[Any, Any, list[Any]]], schema: Schema
) -> None:
    """What transactions that meet see of each other must be the same on both."""

    def simulate() -> list[Any]:
        loop, server = a_server(1, schema)
        return loop.run(scenes(database.Pool(server, 5), lambda: loop.now), Process("a store"))

    expected = beside(simulate)
    async with open_pool(PostgresSettings()) as pool:
        assert await scenes(pool, lambda: datetime.now(UTC)) == expected
