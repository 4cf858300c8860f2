"""Postgres.

What costs is the way there and back, so a transaction makes few of them: see `Pool`. A statement
that has begun runs to its end, even if whoever asked for it goes away: see `Connection`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache, partial
from importlib.resources import files
from typing import Any, LiteralString, TypeVar

from prometheus_client import Gauge, Histogram
from psycopg import AsyncConnection, AsyncPipeline, OperationalError
from psycopg.abc import PQGen
from psycopg.errors import (
    DeadlockDetected,
    IdleInTransactionSessionTimeout,
    InFailedSqlTransaction,
    LockNotAvailable,
    QueryCanceled,
    ReadOnlySqlTransaction,
    TransactionTimeout,
    UndefinedTable,
)
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Json
from psycopg.waiting import wait_async
from psycopg_pool import AsyncConnectionPool

from steno.platform import errors
from steno.platform.settings import PostgresSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

AWAY = (
    # Deadlocks, locks that were not to be had, and an exhausted pool are its subclasses.
    OperationalError,
    # A failover that keeps connections leaves them with a server that only reads.
    ReadOnlySqlTransaction,
    IdleInTransactionSessionTimeout,
    TransactionTimeout,
)
"""What says that the server is not to be reached, or not for this: a retry may help."""

OF_ONE = (LockNotAvailable, QueryCanceled, DeadlockDetected)
"""Those of them with which a server that is there ends one statement: another one may do."""

errors.AWAY_MESSAGES.update(dict.fromkeys(AWAY, "the database does not answer; try again"))

TRUSTED_SECONDS = 1.0
"""A connection that was used so short a time ago, and on which nothing came since, is alive."""

SESSION = {
    # Whoever holds a row's lock for longer hangs, or is on a node that is lost.
    "lock_timeout": "3s",
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "10s",
    # Postgres 17 and newer: also between two statements of which nobody has read the answers.
    "transaction_timeout": "60s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""What the server ends, so that one process that stands still does not hold up the others."""

NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""libpq's times after which a server that can't be reached any more is noticed."""

CHECK_SECONDS = 2.0
"""Patience with a connection that was not used for a while; then another is made."""

WRITE_SECONDS = 5.0
"""Patience with a commit that tells whether this process is ready."""

ANSWER_SECONDS = 30.0
"""Patience with a server that is silent, though connected; above all times in SESSION."""

CANCELLED_SECONDS = 5.0
"""How long a statement goes on whose caller was cancelled, before its connection is closed."""

_LOOK_SECONDS = 0.1
"""Between two looks at the clock while the server is silent."""

_STATISTICS = {
    "pool_size": Gauge("steno_postgres_connections", "Connections of the pool."),
    "pool_available": Gauge("steno_postgres_connections_idle", "Connections nobody uses."),
    "requests_waiting": Gauge("steno_postgres_waiting", "Requests that wait for a connection."),
}


SECONDS = Histogram(
    "steno_postgres_seconds", "Length of transactions, with the wait for a connection."
)


class Connection(AsyncConnection[DictRow]):
    """A connection on which a cancelled caller leaves nothing half done.

    psycopg leaves a pipeline where the cancellation met it. The connection then stands in a
    transaction that nobody knows of, and what its next user says is rolled back with it.
    """

    used = 0.0
    """When it was used last, by the monotonic clock."""

    patience = ANSWER_SECONDS
    """How long the server may be silent, in seconds."""

    sent: AsyncPipeline | None = None
    """In a transaction, the statements that were sent."""

    @property
    def has_news(self) -> bool:
        """Whether the server has said something unasked, such as that it goes away."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def idle(self) -> bool:
        """Whether it is in no transaction, and nothing is asked that is not answered."""
        return (
            self.pgconn.transaction_status == TransactionStatus.IDLE
            and self.pgconn.pipeline_status == PipelineStatus.OFF
        )

    async def wait(
        self, gen: PQGen[T], interval: float = _LOOK_SECONDS, timeout: float | None = None
    ) -> T:
        """Runs one of psycopg's exchanges with the server to its end.

        All that psycopg awaits goes through here, but for connecting.

        Raises:
            CancelledError: the caller was cancelled meanwhile. What was asked is done; or it was
                not in CANCELLED_SECONDS, and the connection is closed.
            OperationalError: the server was silent for `timeout`, or for `patience`; the connection
                is closed.
        """
        patience = self.patience if timeout is None else timeout
        silent_since = time.monotonic()
        cancelled: tuple[asyncio.CancelledError, float] | None = None
        try:
            wanted = next(gen)
            while True:
                ready = 0
                try:
                    ready = await wait_async(_once(wanted), self.fileno(), interval)
                except asyncio.CancelledError as error:
                    cancelled = cancelled or (error, time.monotonic())
                now = time.monotonic()
                if ready:
                    silent_since = now
                elif now - silent_since > patience or (
                    cancelled and now - cancelled[1] > CANCELLED_SECONDS
                ):
                    self.pgconn.finish()
                    raise OperationalError(f"no answer in {now - silent_since:.1f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
        except OSError as error:
            raise OperationalError("the connection's socket is closed") from error
        finally:
            with suppress(OperationalError):  # of one that is left, and would say something more
                gen.close()
            if cancelled:
                raise cancelled[0]
        return result

    async def settle(self) -> None:
        """Waits for the answers to all that was sent.

        The server then knows that it is asked nothing: idle_in_transaction_session_timeout counts.
        """
        if self.sent is not None:
            await self.sent.sync()


def _once(wanted: Any) -> PQGen[int]:
    """Waits for the socket once, and returns what it is ready for: 0 if the time is over."""
    return (yield wanted)


class Pool(AsyncConnectionPool[Connection]):
    """A pool that tells how long its connections are asked for and used.

    A connection comes back to it idle, or is closed and replaced.
    """

    async def getconn(self, timeout: float | None = None) -> Connection:
        """See psycopg. Whoever is cancelled meanwhile learns of it, and gets no connection.

        Before Python 3.12 `asyncio.wait_for` forgets a cancellation that comes with its result.
        """
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            connection = await super().getconn(timeout)
        except Exception as error:
            if task.cancelling() > before:
                raise asyncio.CancelledError from error
            raise
        if task.cancelling() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        """Hands out a connection on which each statement is a transaction."""
        with SECONDS.time():
            async with super().connection(timeout) as connection:
                try:
                    yield connection
                except ReadOnlySqlTransaction:
                    await connection.close()  # the next one may be to the server that writes
                    raise
                connection.used = time.monotonic()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Hands out a connection for one transaction, which is committed after the block.

        Statements whose rows are not fetched are sent with the next one whose rows are, or with
        the COMMIT; what is wrong with them is raised there.
        """
        async with self.connection() as connection:
            try:
                async with connection.pipeline() as connection.sent:
                    await connection.execute("BEGIN")
                    yield connection
                    ending = await connection.execute("COMMIT")
                if ending.statusmessage != "COMMIT":
                    raise InFailedSqlTransaction("an error was passed over in a transaction")
            finally:
                connection.sent = None
                if not connection.closed and not connection.idle:
                    # After an error, a pipeline does not even take the ROLLBACK.
                    await connection.rollback()


async def _returned(connection: Connection) -> None:
    """What the pool asks of a connection that comes back: else the pool closes it."""
    if not connection.idle:
        raise OperationalError("the connection came back in the middle of something")


@asynccontextmanager
async def open_pool(settings: PostgresSettings) -> AsyncIterator[Pool]:
    """Opens the process's pool. Rows come as dicts; times as aware datetimes.

    Connections are checked before use, so a restarted server or a killed backend is noticed by
    nobody but the pool. A server that is away is waited for, up to the pool's timeout of 10 s.
    """
    pool = Pool(
        settings.postgres_url.get_secret_value(),
        connection_class=Connection,
        kwargs={"autocommit": True, "row_factory": dict_row, **NETWORK},
        min_size=1,
        max_size=settings.postgres_pool_size,
        timeout=10,
        reconnect_timeout=5,
        configure=_configure,
        check=_check,
        reset=_returned,
        open=False,
    )
    for name, gauge in _STATISTICS.items():
        gauge.set_function(_statistic(pool, name))
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


# Not all servers have all of them.
CONFIGURE = """
SELECT set_config(name, value, false)
FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
WHERE name IN (SELECT name FROM pg_settings)
"""


async def _configure(connection: Connection) -> None:
    await every(connection, CONFIGURE, names=[*SESSION], values=[*SESSION.values()])


async def _check(connection: Connection) -> None:
    idle = time.monotonic() - connection.used
    if idle > TRUSTED_SECONDS or connection.has_news:
        with _hurried(connection, CHECK_SECONDS):
            await Pool.check_connection(connection)


@contextmanager
def _hurried(connection: Connection, seconds: float) -> Iterator[None]:
    """Inside, the server may not be silent for longer."""
    connection.patience = seconds
    try:
        yield
    finally:
        del connection.patience


def _statistic(pool: Pool, name: str) -> Any:
    return lambda: pool.get_stats().get(name, 0)


# What a commit needs: the log on disk, and at a standby too if the server waits for one.
WRITE = """
SELECT pg_logical_emit_message(true, 'steno', 'ready') AS written,
    current_setting('transaction_read_only')::boolean AS only_reads
"""


async def check_database(pool: Pool) -> None:
    """Raises if the database does not answer in time, or does not take what is written."""
    async with pool.connection(timeout=CHECK_SECONDS) as db:
        with _hurried(db, WRITE_SECONDS):
            row = await one(db, WRITE)
        assert row is not None
        if row["only_reads"]:
            raise ReadOnlySqlTransaction("the database takes nothing that is written")


def checks(pool: Pool, service: LiteralString) -> list[Callable[[], Awaitable[None]]]:
    """What must not raise for a service that has a schema to be ready."""
    return [partial(check_database, pool), partial(check_schema, pool, service)]


async def check_schema(pool: Pool, service: LiteralString) -> None:
    """Raises if a service's schema is older than its code: a migration has not ended, or not begun.

    A newer one will do, as after a rollback.
    """
    async with pool.connection(timeout=CHECK_SECONDS) as db:
        with _hurried(db, WRITE_SECONDS), suppress(UndefinedTable):
            row = await one(db, f"SELECT version_num FROM {service}.schema_version")
            if row is not None and row["version_num"] >= _newest_revision(service):
                return
    raise errors.Unavailable(f"the schema {service} waits for its migration")


@cache
def _newest_revision(service: str) -> str:
    versions = files(f"steno.{service}") / "migrations" / "versions"
    numbers = [file.name.partition("_")[0] for file in versions.iterdir()]
    return f"{service}_{max(number for number in numbers if number.isdecimal())}"


async def one(db: Connection, statement: LiteralString, **parameters: Any) -> DictRow | None:
    """Runs a statement and returns its first row."""
    cursor = await db.execute(statement, parameters)
    await db.settle()
    return await cursor.fetchone()


async def every(db: Connection, statement: LiteralString, **parameters: Any) -> list[DictRow]:
    """Runs a statement and returns all its rows."""
    cursor = await db.execute(statement, parameters)
    await db.settle()
    return await cursor.fetchall()


def listed(columns: Iterable[str]) -> str:
    """Columns as INSERT and SELECT name them."""
    return ", ".join(columns)


def placeholders(columns: Iterable[str]) -> str:
    """The parameters of the same names, as VALUES takes them."""
    return ", ".join(f"%({name})s" for name in columns)


def assignments(columns: Iterable[str], row: str = "") -> str:
    """The same, as SET takes them: parameters, or the columns of another row."""
    return ", ".join(f"{name} = {f'{row}.{name}' if row else f'%({name})s'}" for name in columns)


def recordset(rows: Iterable[Mapping[str, Any]]) -> Json:
    """Rows as json_populate_recordset takes them: any number with one statement."""
    return Json([*rows], dumps=partial(json.dumps, default=_as_text))


def _as_text(value: Any) -> str:
    """A value that JSON has not, as Postgres reads it from text."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
