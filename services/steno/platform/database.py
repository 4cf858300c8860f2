"""Postgres.

What costs is the way there and back, so a transaction makes few of them: see `Pool`.
"""

from __future__ import annotations

import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

from prometheus_client import Gauge, Histogram
from psycopg import AsyncConnection, OperationalError
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from steno.platform.settings import PostgresSettings

AWAY = (OperationalError,)
"""What says that the server is not to be reached; a pool's timeout is one of them."""

TRUSTED_SECONDS = 1.0
"""A connection that was used so short a time ago, and on which nothing came since, is alive."""

_STATISTICS = {
    "pool_size": Gauge("steno_postgres_connections", "Connections of the pool."),
    "pool_available": Gauge("steno_postgres_connections_idle", "Connections nobody uses."),
    "requests_waiting": Gauge("steno_postgres_waiting", "Requests that wait for a connection."),
}


SECONDS = Histogram(
    "steno_postgres_seconds", "Length of transactions, with the wait for a connection."
)


class Connection(AsyncConnection[DictRow]):
    """A connection that knows when it was used last."""

    used = 0.0

    @property
    def has_news(self) -> bool:
        """Whether the server has said something unasked, such as that it goes away."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class Pool(AsyncConnectionPool[Connection]):
    """A pool that tells how long its connections are asked for and used."""

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        """Hands out a connection on which each statement is a transaction."""
        with SECONDS.time():
            async with super().connection(timeout) as connection:
                yield connection
                connection.used = time.monotonic()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Hands out a connection for one transaction.

        Statements whose rows are not fetched are sent with the next one whose rows are, or with
        the COMMIT; what is wrong with them is raised there.
        """
        async with self.connection() as connection:
            try:
                async with connection.pipeline(), connection.transaction():
                    yield connection
            except BaseException:
                # After an error the pipeline takes nothing more, not even the ROLLBACK.
                if connection.info.transaction_status is TransactionStatus.INERROR:
                    await connection.rollback()
                raise


@asynccontextmanager
async def open_pool(settings: PostgresSettings) -> AsyncIterator[Pool]:
    """Opens the process's pool. Rows come as dicts; times as aware datetimes.

    Connections are checked before use, so a restarted server or a killed backend is noticed by
    nobody but the pool. A server that is away is waited for, up to the pool's timeout of 10 s.
    """
    pool = Pool(
        settings.postgres_url.get_secret_value(),
        connection_class=Connection,
        kwargs={"autocommit": True, "row_factory": dict_row, "connect_timeout": 5},
        min_size=1,
        max_size=settings.postgres_pool_size,
        timeout=10,
        reconnect_timeout=5,
        check=_check,
        open=False,
    )
    for name, gauge in _STATISTICS.items():
        gauge.set_function(_statistic(pool, name))
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


async def _check(connection: Connection) -> None:
    idle = time.monotonic() - connection.used
    if idle > TRUSTED_SECONDS or connection.has_news:
        await Pool.check_connection(connection)


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
