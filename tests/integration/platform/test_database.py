"""What a pool's callers may rely on, whatever happens to other callers."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from pydantic import SecretStr

from rows import Rows
from steno.platform import database
from steno.platform.database import (
    Connection,
    Pool,
    check_database,
    check_schema,
    every,
    one,
    open_pool,
)
from steno.platform.errors import Unavailable, to_status
from steno.platform.settings import PostgresSettings
from waiting import eventually

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
KEEP = "INSERT INTO kept VALUES (%(id)s) RETURNING id"
CHANGE = "UPDATE kept SET id = id WHERE id = %(id)s RETURNING id"
BACKENDS = """
SELECT pid FROM pg_stat_activity WHERE application_name = 'pool' AND datname = current_database()
"""


class Refused(Exception):
    """What a caller says of its own transaction."""


class Cancelling(Coroutine[Any, Any, Any]):
    """A coroutine whose task is cancelled at one of the places where it waits.

    Args:
        work: the coroutine.
        at: the place, counted from 1.
        how: "at once": while it waits; "late": as what it waits for comes; "twice": while it waits,
            and once more where it waits next.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], at: int, how: str) -> None:
        self._work, self._at, self._how = work, at, how
        self.waited = 0

    @property
    def cancelled(self) -> bool:
        return self.waited >= self._at

    def send(self, value: Any) -> Any:
        return self._waits(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waits(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        raise NotImplementedError

    def _waits(self, awaited: Any) -> Any:
        self.waited += 1
        task = asyncio.current_task()
        assert task is not None
        if self.waited == self._at and self._how == "late" and awaited is not None:
            awaited.add_done_callback(lambda _: task.cancel())
        elif self.waited == self._at or (self.waited == self._at + 1 and self._how == "twice"):
            asyncio.get_running_loop().call_soon(task.cancel)
        return awaited


Call = Callable[[Pool, uuid.UUID], Coroutine[Any, Any, Any]]


async def reads(pool: Pool, row: uuid.UUID) -> None:
    async with pool.transaction() as db:
        await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await one(db, "SELECT id FROM kept WHERE id = %(id)s", id=row)
        await every(db, "SELECT generate_series(1, 3)")


async def writes(pool: Pool, row: uuid.UUID) -> None:
    async with pool.transaction() as db:
        await one(db, KEEP, id=row)
        await db.execute(CHANGE, {"id": row})
        async with db.cursor() as cursor:
            await cursor.executemany("UPDATE kept SET id = id WHERE id = %s", [(row,)] * 3)


async def writes_one_statement(pool: Pool, row: uuid.UUID) -> None:
    async with pool.connection() as db:
        await one(db, KEEP, id=row)


async def refuses(pool: Pool, row: uuid.UUID) -> None:
    async with pool.transaction() as db:
        await one(db, KEEP, id=row)
        raise Refused


async def is_refused(pool: Pool, row: uuid.UUID) -> None:
    async with pool.transaction() as db:
        await db.execute(KEEP, {"id": row})
        await db.execute("UPDATE kept SET id = NULL")
        await one(db, "SELECT 1")


async def changes(db: Connection, row: uuid.UUID) -> None:
    await one(db, CHANGE, id=row)


@asynccontextmanager
async def pool_of(url: str, size: int) -> AsyncIterator[Pool]:
    named = SecretStr(f"{url}{'&' if '?' in url else '?'}application_name=pool")
    settings = PostgresSettings(postgres_url=named, postgres_pool_size=size)
    async with open_pool(settings) as pool:
        yield pool


@pytest.fixture
async def url(environment: dict[str, str]) -> str:
    return environment["STENO_POSTGRES_URL"]


@pytest.fixture
async def other(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection of somebody else."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE kept (id uuid PRIMARY KEY)")
        yield connection


async def is_kept(other: AsyncConnection[Any], row: uuid.UUID) -> bool:
    found = await other.execute("SELECT 1 FROM kept WHERE id = %s", (row,))
    return await found.fetchone() is not None


async def column(other: AsyncConnection[Any], statement: Any) -> set[Any]:
    return {value for (value,) in await (await other.execute(statement)).fetchall()}


async def ended(work: Awaitable[Any]) -> BaseException | None:
    try:
        await work
    except (Exception, asyncio.CancelledError) as error:
        return error
    return None


@asynccontextmanager
async def all_taken(pool: Pool) -> AsyncIterator[asyncio.Event]:
    """Somebody has the pool's only connection, and gives it back when the event is set."""
    given_back, taken = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with pool.connection():
            taken.set()
            await given_back.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        await taken.wait()
        yield given_back
        given_back.set()


async def call_cancelled(pool: Pool, call: Call, row: uuid.UUID, at: int, how: str) -> bool:
    """Makes a call that is cancelled where it waits; returns whether it waited there."""
    work = Cancelling(call(pool, row), at, how)
    error = await ended(asyncio.get_running_loop().create_task(work))
    if work.cancelled:
        assert isinstance(error, asyncio.CancelledError), "a call went on though cancelled"
    return work.cancelled


@pytest.mark.parametrize("how", ["at once", "late", "twice"])
@pytest.mark.parametrize("call", [reads, writes, writes_one_statement, refuses, is_refused])
@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
async def test_a_call_that_is_cancelled_wherever_it_waits_takes_nothing_from_others(
    url: str, other: AsyncConnection[Any], taken: bool, call: Call, how: str
) -> None:
    async with pool_of(url, 1) as pool:
        await writes_one_statement(pool, uuid.uuid4())
        backends = await column(other, BACKENDS)
        for place in itertools.count(1):
            mine, theirs, behind = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
            async with AsyncExitStack() as scene:
                given_back = await scene.enter_async_context(all_taken(pool)) if taken else None
                calling = asyncio.create_task(call_cancelled(pool, call, mine, place, how))
                await asyncio.sleep(0)
                beside = asyncio.create_task(writes(pool, theirs))
                if given_back is not None:
                    given_back.set()
                cancelled = await calling
            await writes_one_statement(pool, behind)
            await beside

            assert await is_kept(other, theirs)
            assert await is_kept(other, behind)
            if call in (refuses, is_refused):
                assert not await is_kept(other, mine)
            elif call is not reads and not cancelled:
                assert await is_kept(other, mine)
            await eventually(lambda: pool.get_stats()["pool_available"] == 1, every=0.001)
            if not cancelled:
                break
        assert await column(other, BACKENDS) == backends, "a connection was lost"
        assert place > 1 or not taken, "nobody was cancelled"


async def test_a_statement_that_outlives_its_cancelled_caller_costs_one_connection(
    url: str, other: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CANCELLED_SECONDS", 0.2)
    async with pool_of(url, 1) as pool:

        async def sleeps() -> None:
            async with pool.transaction() as db:
                await one(db, "SELECT pg_sleep(60)")

        calling = asyncio.create_task(sleeps())
        await eventually(lambda: column(other, f"{BACKENDS} AND wait_event = 'PgSleep'"))
        calling.cancel()

        assert isinstance(await ended(calling), asyncio.CancelledError)
        await writes(pool, row := uuid.uuid4())
        assert await is_kept(other, row)


async def test_a_server_that_is_silent_is_away(
    url: str, other: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(url, 1) as pool:
        await writes(pool, uuid.uuid4())
        [backend] = await column(other, BACKENDS)
        os.kill(backend, signal.SIGSTOP)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "patience", 0.2)
                error = await ended(writes(pool, uuid.uuid4()))
        finally:
            os.kill(backend, signal.SIGCONT)

        assert isinstance(error, database.AWAY)
        await writes(pool, row := uuid.uuid4())
        assert await is_kept(other, row)


TIMEOUTS = [name for name in database.SESSION if name.endswith("_timeout")]


@pytest.mark.parametrize("setting", TIMEOUTS)
async def test_whoever_stands_still_holds_up_others_for_a_bounded_time(
    url: str, other: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    for name in TIMEOUTS:
        monkeypatch.setitem(database.SESSION, name, "200ms" if name == setting else "60s")
    async with pool_of(url, 2) as pool:
        await other.execute(KEEP, {"id": (row := uuid.uuid4())})

        async def both() -> None:
            async with pool.transaction() as still, pool.transaction() as waiting:
                await changes(still, row)
                await changes(waiting, row)

        assert isinstance(await ended(both()), database.AWAY)
        await other.execute(CHANGE, {"id": row})


async def test_a_database_that_only_reads_is_away_until_it_writes_again(
    url: str, other: AsyncConnection[Any]
) -> None:
    name = urlsplit(url).path.strip("/")
    async with pool_of(url, 1) as pool:
        await check_database(pool)
        async with pool.connection() as db:
            # As after a failover that keeps connections: this one can't write any more.
            await db.execute("SET default_transaction_read_only = on")

        with pytest.raises(database.AWAY):
            await writes(pool, uuid.uuid4())
        await writes(pool, uuid.uuid4())

        await other.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(
                sql.Identifier(name)
            )
        )
        async with pool.connection() as db:
            await db.close()
        with pytest.raises(database.AWAY):
            await check_database(pool)
        error = await ended(writes(pool, uuid.uuid4()))
        assert isinstance(error, Exception)
        assert to_status(error, {}).code == UNAVAILABLE


async def test_a_schema_will_do_that_is_as_new_as_the_code_or_newer(
    environment: dict[str, str], rows: Rows
) -> None:
    async with pool_of(environment["STENO_POSTGRES_URL"], 1) as pool:
        await check_schema(pool, "job")
        rows("UPDATE job.schema_version SET version_num = 'job_9999'")
        await check_schema(pool, "job")

        rows("UPDATE job.schema_version SET version_num = 'job_0001'")
        with pytest.raises(Unavailable, match="the schema job waits for its migration"):
            await check_schema(pool, "job")
        rows("DROP SCHEMA job CASCADE")
        with pytest.raises(Unavailable):
            await check_schema(pool, "job")


async def test_a_transaction_that_passes_over_an_error_is_not_taken_for_committed(
    url: str, other: AsyncConnection[Any]
) -> None:
    async with pool_of(url, 1) as pool:
        row = uuid.uuid4()

        async def passes_over() -> None:
            async with pool.transaction() as db:
                await one(db, KEEP, id=row)
                with suppress(psycopg.Error):
                    await one(db, KEEP, id=row)

        assert isinstance(await ended(passes_over()), psycopg.Error)
        assert not await is_kept(other, row)
