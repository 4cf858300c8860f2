"""Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

from prometheus_client import Gauge, Histogram
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from steno.platform.settings import PostgresSettings

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]

_STATISTICS = {
    "pool_size": Gauge("steno_postgres_connections", "Connections of the pool."),
    "pool_available": Gauge("steno_postgres_connections_idle", "Connections nobody uses."),
    "requests_waiting": Gauge("steno_postgres_waiting", "Requests that wait for a connection."),
}


SECONDS = Histogram(
    "steno_postgres_seconds", "Length of transactions, with the wait for a connection."
)


class TimedPool(AsyncConnectionPool[Connection]):
    """A pool that tells how long its connections are asked for and used."""

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        """See AsyncConnectionPool."""
        with SECONDS.time():
            async with super().connection(timeout) as connection:
                yield connection


@asynccontextmanager
async def open_pool(settings: PostgresSettings) -> AsyncIterator[Pool]:
    """Opens the process's pool. Rows come as dicts; times as aware datetimes.

    Connections are checked before use, so a restarted server or a killed backend is noticed by
    nobody but the pool. A server that is away is waited for, up to the pool's timeout of 10 s.
    """
    pool: Pool = TimedPool(
        settings.postgres_url.get_secret_value(),
        connection_class=AsyncConnection[DictRow],
        kwargs={"row_factory": dict_row, "connect_timeout": 5},
        min_size=1,
        max_size=settings.postgres_pool_size,
        timeout=10,
        reconnect_timeout=5,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    for name, gauge in _STATISTICS.items():
        gauge.set_function(_statistic(pool, name))
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


def _statistic(pool: Pool, name: str) -> Any:
    return lambda: pool.get_stats().get(name, 0)


async def check_database(pool: Pool) -> None:
    """Raises if the database does not answer."""
    async with pool.connection(timeout=2) as db:
        await db.execute("SELECT 1")


async def one(db: Connection, statement: LiteralString, **parameters: Any) -> DictRow | None:
    """Runs a statement and returns its first row."""
    return await (await db.execute(statement, parameters)).fetchone()


async def every(db: Connection, statement: LiteralString, **parameters: Any) -> list[DictRow]:
    """Runs a statement and returns all its rows."""
    return await (await db.execute(statement, parameters)).fetchall()
