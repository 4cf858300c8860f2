"""Postgres in memory: what `steno.platform.database.Pool` offers, on a server that a seed commands.

Transactions are READ COMMITTED: a statement sees what is committed when it runs, and what its own
transaction wrote. Rows are locked until their transaction ends; who waits for one runs its
statement again when it is free, and gives up after `LOCK_TIMEOUT`. What a statement does is a
Python function: see `job_statements` and `session_statements`. There is no isolation that Postgres
does not give: between any two statements, and before a COMMIT, the seed may let others go on.

The server is no part of a caller: what was sent is done, whether its caller was cancelled, killed
or cut off meanwhile. A caller that is cut off does not learn what became of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import psycopg
from psycopg.errors import (
    CheckViolation,
    DeadlockDetected,
    ForeignKeyViolation,
    IdleInTransactionSessionTimeout,
    InFailedSqlTransaction,
    LockNotAvailable,
    UniqueViolation,
)
from psycopg_pool import PoolTimeout

from simulation.links import Link
from simulation.loop import Loop, Process, running_process

LOCK_TIMEOUT = 1.0
"""Seconds that a statement waits for a row."""
IDLE_TIMEOUT = 3.0
"""Seconds that a transaction stays open whose client stands still."""
POOL_TIMEOUT = 3.0
"""Seconds that a caller waits for a connection."""

Row = Mapping[str, Any]
Place = tuple[str, Any]
"""A table and a primary key."""


class Blocked(Exception):
    """Another transaction holds a row that a statement must lock."""

    def __init__(self, place: Place) -> None:
        self.place = place


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction that took effect, and what each row was and has become; None is no row."""

    time: float
    client: str
    rows: Mapping[Place, tuple[Row | None, Row | None]]


class Transaction:
    """What one transaction sees, and has written."""

    __slots__ = ("_locked", "_written", "now", "server", "session")

    def __init__(self, server: Server, session: Session) -> None:
        self.server = server
        self.session = session
        self.now = server.loop.now
        self._written: dict[str, dict[Any, Row | None]] = {}
        self._locked: dict[Place, None] = {}

    @property
    def clock(self) -> datetime:
        """clock_timestamp()"""
        return self.server.loop.now

    def get(self, table: str, key: Any) -> Row | None:
        written = self._written.get(table)
        if written is not None and key in written:
            return written[key]
        return self.server.tables[table].get(key)

    def rows(self, table: str) -> Iterable[Row]:
        """All rows, in the order in which they were first written."""
        written = self._written.get(table)
        if written is None:
            return self.server.tables[table].values()
        merged = {**self.server.tables[table], **written}
        return [row for row in merged.values() if row is not None]

    def lock(self, table: str, key: Any) -> None:
        """FOR UPDATE. Raises Blocked while another transaction holds the row."""
        if not self.lock_if_free(table, key):
            raise Blocked((table, key))

    def lock_if_free(self, table: str, key: Any) -> bool:
        """FOR UPDATE SKIP LOCKED, for one row."""
        place = (table, key)
        holder = self.server.locks.setdefault(place, self)
        if holder is self:
            self._locked[place] = None
        return holder is self

    def insert(self, table: str, key: Any, row: Row) -> None:
        """Raises Blocked while another transaction inserts the same key."""
        self.lock(table, key)
        if self.get(table, key) is not None:
            raise UniqueViolation(f"{table}: there is {key} already")
        self._write(table, key, None, row)

    def update(self, table: str, key: Any, old: Row, changes: Row) -> Row:
        """Changes a row that is locked."""
        new = {**old, **changes}
        self._write(table, key, old, new)
        return new

    def delete(self, table: str, key: Any) -> None:
        """Removes a row that is locked."""
        self._write(table, key, self.get(table, key), None)

    def _write(self, table: str, key: Any, old: Row | None, new: Row | None) -> None:
        assert (table, key) in self._locked
        broken = self.server.rules(self, table, old, new)
        if broken:
            raise CheckViolation(f"{table}: {broken}")
        self._written.setdefault(table, {})[key] = new

    def commit(self) -> None:
        missing = self.server.missing_at_commit(self)
        if missing:
            self.roll_back()
            raise ForeignKeyViolation(missing)
        changed = {}
        for table, written in self._written.items():
            rows = self.server.tables[table]
            for key, row in written.items():
                changed[table, key] = (rows.get(key), row)
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        if changed:
            self.server.log.append(
                Committed(self.server.loop.time(), self.session.client.name, changed)
            )
        self._release()

    def roll_back(self) -> None:
        self._release()

    def written(self, table: str) -> Iterable[Row]:
        """What it has written of a table, but for what it has removed."""
        return [row for row in self._written.get(table, {}).values() if row is not None]

    def _release(self) -> None:
        self._written = {}
        for place in self._locked:
            del self.server.locks[place]
            for waiter in self.server.waiting.pop(place, ()):
                waiter.wake()
        self._locked.clear()


Statement = Callable[[Transaction, Mapping[str, Any]], Sequence[Row]]
"""What a statement does; the rows that it returns, or has removed."""


class Schema(Protocol):
    """What a database consists of: a module such as `job_statements`."""

    @property
    def TABLES(self) -> Sequence[str]:
        """Names of its tables."""

    @property
    def STATEMENTS(self) -> Mapping[str, tuple[str, Statement]]:
        """Name and function of each statement, by its SQL."""

    @property
    def rules(self) -> Callable[[Transaction, str, Row | None, Row | None], str]:
        """What is wrong with a change of a row, or ""."""

    @property
    def missing_at_commit(self) -> Callable[[Transaction], str]:
        """What deferred foreign keys lack, or ""."""


class Server:
    """The database, and what it has committed."""

    def __init__(
        self,
        loop: Loop,
        link: Link,
        schema: Schema,
    ) -> None:
        """Takes what it consists of.

        Args:
            loop: runs it.
            link: the way between it and its clients.
            schema: its tables, and what statements do with them.
        """
        self.loop = loop
        self.link = link
        self.tables: dict[str, dict[Any, Row]] = {name: {} for name in schema.TABLES}
        self.statements = schema.STATEMENTS
        self.rules = schema.rules
        self.missing_at_commit = schema.missing_at_commit
        self.locks: dict[Place, Transaction] = {}
        self.waiting: dict[Place, list[Session]] = {}
        self.log: list[Committed] = []
        self.context = Process("postgres").context
        self.sessions: dict[Session, None] = {}

    def client_halted(self, client: Process) -> None:
        """A client stands still, maybe in the midst of a transaction."""
        for session in self.sessions:
            if session.client is client:
                session.begin_idle()

    def restart(self) -> None:
        """All connections break, and what was not committed is gone."""
        for session in list(self.sessions):
            session.end("the server was restarted")


class Cursor:
    """A statement that was sent, and its rows once they have come."""

    __slots__ = ("parameters", "rows", "sql", "statusmessage")

    def __init__(self, sql: str, parameters: Mapping[str, Any] | None) -> None:
        self.sql = sql
        self.parameters = parameters or {}
        self.rows: Sequence[Row] | None = None
        self.statusmessage = ""

    @property
    def rowcount(self) -> int:
        """How many rows it has returned, or removed."""
        assert self.rows is not None, "its rows were not waited for"
        return len(self.rows)

    async def fetchone(self) -> Row | None:
        rows = await self.fetchall()
        return rows[0] if rows else None

    async def fetchall(self) -> list[Row]:
        assert self.rows is not None, "its rows were not waited for"
        return [*self.rows]


class _Answer:
    """What the server says; whoever is cancelled learns of it when it has come."""

    __slots__ = ("_come", "_waiter", "error")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._come = False
        self._waiter: asyncio.Future[None] | None = None

    def come(self, error: Exception | None) -> None:
        self.error = error
        self._come = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def arrived(self, loop: Loop) -> None:
        cancelled: asyncio.CancelledError | None = None
        while not self._come:
            self._waiter = loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as error:
                if loop.ending:
                    raise
                cancelled = error
        if cancelled is not None:
            raise cancelled


_WAITS_FOR_LOCK = -1.0


class Session:
    """The server's end of a connection."""

    def __init__(self, server: Server, client: Process) -> None:
        self._server = server
        self._loop = server.loop
        self.client = client
        self._transaction: Transaction | None = None
        self._failed = False
        self._work: Generator[float, None, None] | None = None
        self._answer: _Answer | None = None
        self._waits_for: Place | None = None
        self._timed_out = False
        self._served = 0
        self._gone = False
        self.closed = ""
        """Why it is over, if it is."""
        self._over: type[psycopg.Error] = psycopg.OperationalError
        server.sessions[self] = None
        client.at_death(self.abandoned)

    @property
    def in_transaction(self) -> bool:
        """Something was begun that is neither committed nor rolled back."""
        return self._transaction is not None

    @property
    def idle(self) -> bool:
        """It is in no transaction, and nothing is asked that is not answered."""
        return self._transaction is None and self._work is None

    def check_open(self) -> None:
        """Raises what has ended it, if it is over."""
        if self.closed:
            raise self._over(self.closed)

    def serve(self, batch: Sequence[Cursor]) -> _Answer:
        """Does what a client sends; statements after one that fails are not done."""
        assert self._work is None, "a client sends when it has the last answer"
        answer = self._answer = _Answer()
        self._work = self._exchange(batch, answer)
        self._served += 1
        self._go_on_after(self._server.link.delay())
        return answer

    def abandoned(self) -> None:
        """The client's process is gone. What it sent is done to its end."""
        self._gone = True
        if self._work is None:
            self.end("the client is gone")

    def end(self, why: str, error: type[psycopg.Error] = psycopg.OperationalError) -> None:
        """Ends the connection; what was not committed is gone."""
        if self.closed:
            return
        self.closed, self._over = why, error
        self._roll_back()
        self._server.sessions.pop(self, None)
        self.client.not_at_death(self.abandoned)
        if self._work is not None:
            self._work.close()
            self._work = None
            if self._waits_for is not None:
                self._server.waiting[self._waits_for].remove(self)
                self._waits_for = None
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.come(error(why))

    def wake(self) -> None:
        """A row that it waits for is free."""
        self._waits_for = None
        self._go_on_after(0.0)

    def _go_on_after(self, delay: float) -> None:
        if delay:
            self._loop.call_later(delay, self._step, self._work, context=self._server.context)
        else:
            self._loop.call_soon(self._step, self._work, context=self._server.context)

    def _step(self, work: Generator[float, None, None] | None) -> None:
        if work is None or work is not self._work or self._waits_for is not None:
            return
        try:
            pause = next(work)
        except StopIteration:
            return
        if pause != _WAITS_FOR_LOCK:
            self._go_on_after(pause)

    def _exchange(self, batch: Sequence[Cursor], answer: _Answer) -> Generator[float, None, None]:
        link = self._server.link
        if link.loses():
            self._work = None
            self.end("the connection broke before the server had it")
            return
        error: Exception | None = None
        for number, cursor in enumerate(batch):
            if error is not None and cursor.sql != "ROLLBACK":
                continue  # the rest of the pipeline
            if number and link.pauses():
                yield link.pause()
            try:
                yield from self._do(cursor)
            except Exception as wrong:
                error = wrong
                if self._transaction is not None:
                    self._failed = True
                    self._transaction.roll_back()  # its locks are free before anybody says so
        if link.loses():
            self._work = None
            self.end("the connection broke before the answer came")
            return
        if delay := link.delay():
            yield delay
        self._work = self._answer = None
        answer.come(error)
        if self._gone:
            self.end("the client is gone")
        elif self.client.halted:
            self.begin_idle()

    def begin_idle(self) -> None:
        """Its client stands still: the time of an open transaction counts."""
        if self._transaction is not None and self._work is None:
            self._loop.call_later(
                IDLE_TIMEOUT, self._idle, self._served, context=self._server.context
            )

    def _idle(self, served: int) -> None:
        if self._served == served and self._transaction is not None:
            self._say("is idle in a transaction for too long")
            self.end("idle in a transaction", IdleInTransactionSessionTimeout)

    def _do(self, cursor: Cursor) -> Generator[float, None, None]:
        if cursor.sql == "BEGIN":
            self._transaction = Transaction(self._server, self)
            self._failed = False
        elif cursor.sql == "ROLLBACK":
            self._say("ROLLBACK")
            self._roll_back()
        elif cursor.sql == "COMMIT":
            if self._failed or self._transaction is None:
                self._roll_back()
                cursor.statusmessage = "ROLLBACK"
                return
            if self._server.link.pauses():
                yield self._server.link.pause()
            cursor.statusmessage = "COMMIT"
            self._commit()
        elif self._failed:
            raise InFailedSqlTransaction("commands are ignored until the end of the transaction")
        elif self._transaction is not None:
            yield from self._run(cursor, self._transaction)
        else:
            transaction = self._transaction = Transaction(self._server, self)
            try:
                yield from self._run(cursor, transaction)
                if self._server.link.pauses():
                    yield self._server.link.pause()
                self._commit()
            finally:
                self._roll_back()

    def _run(self, cursor: Cursor, transaction: Transaction) -> Generator[float, None, None]:
        if cursor.sql not in self._server.statements:
            raise NotImplementedError(f"the simulation does not know the statement {cursor.sql}")
        name, function = self._server.statements[cursor.sql]
        while True:
            try:
                cursor.rows = function(transaction, cursor.parameters)
            except Blocked as blocked:
                self._say(f"{name} waits for {blocked.place}")
                yield from self._wait(blocked.place)
            else:
                if self._loop.trace is not None:
                    self._say(f"{name} {_told(cursor.parameters)}-> {len(cursor.rows)}")
                return

    def _wait(self, place: Place) -> Generator[float, None, None]:
        if self._waits_in_circle(place):
            raise DeadlockDetected(f"two transactions wait for each other at {place}")
        self._waits_for = place
        self._timed_out = False
        self._server.waiting.setdefault(place, []).append(self)
        timer = self._loop.call_later(
            LOCK_TIMEOUT, self._time_out, place, context=self._server.context
        )
        yield _WAITS_FOR_LOCK
        timer.cancel()
        if self._timed_out:
            raise LockNotAvailable(f"{place} was not to be had in time")

    def _time_out(self, place: Place) -> None:
        if self._waits_for == place:
            self._timed_out = True
            self._server.waiting[place].remove(self)
            self.wake()

    def _waits_in_circle(self, place: Place | None) -> bool:
        while place is not None and place in self._server.locks:
            holder = self._server.locks[place].session
            if holder is self:
                return True
            place = holder._waits_for
        return False

    def _commit(self) -> None:
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        self._say("COMMIT")
        transaction.commit()

    def _roll_back(self) -> None:
        transaction, self._transaction = self._transaction, None
        self._failed = False
        if transaction is not None:
            transaction.roll_back()

    def _say(self, what: str) -> None:
        if self._loop.trace is not None:
            self._loop.trace(f"postgres, for {self.client.name}: {what}")


def _told(parameters: Mapping[str, Any]) -> str:
    ids = ("job_id", "task_id", "session_id", "state", "attempt", "revision")
    return "".join(f"{name}={parameters[name]} " for name in ids if name in parameters)


class Connection:
    """See `steno.platform.database.Connection`."""

    def __init__(self, server: Server, client: Process) -> None:
        self.session = Session(server, client)
        self._loop = server.loop
        self._sent: list[Cursor] = []
        self.pipelined = False

    async def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Cursor:
        cursor = Cursor(sql, parameters)
        self._sent.append(cursor)
        if not self.pipelined:
            await self.ask()
        return cursor

    async def settle(self) -> None:
        if self._sent:
            await self.ask()

    @asynccontextmanager
    async def cursor(self) -> AsyncIterator[Connection]:
        yield self

    async def executemany(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            await self.execute(sql, row)

    def forget(self) -> None:
        """Drops what was not sent yet."""
        self._sent = []

    async def rollback(self) -> None:
        self.forget()
        await self.execute("ROLLBACK")
        await self.settle()

    async def ask(self) -> None:
        """Sends what is to be sent, and waits until it is answered."""
        batch, self._sent = self._sent, []
        self.session.check_open()
        if self._loop.ending:
            raise psycopg.OperationalError("the schedule is over")
        answer = self.session.serve(batch)
        await answer.arrived(self._loop)
        if answer.error is not None:
            raise answer.error


class Pool:
    """See `steno.platform.database.Pool`: the connections of one process."""

    def __init__(self, server: Server, size: int) -> None:
        self._server = server
        self._loop = server.loop
        self._size = size
        self._idle: list[Connection] = []
        self._used = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        connection = await self._take(POOL_TIMEOUT if timeout is None else timeout)
        try:
            yield connection
        finally:
            self._give_back(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        connection = await self._take(POOL_TIMEOUT)
        try:
            connection.pipelined = True
            try:
                await connection.execute("BEGIN")
                yield connection
                ending = await connection.execute("COMMIT")
                await connection.settle()
                if ending.statusmessage != "COMMIT":
                    raise InFailedSqlTransaction("an error was passed over in a transaction")
            finally:
                connection.pipelined = False
                if connection.session.in_transaction and not connection.session.closed:
                    await connection.rollback()
                connection.forget()
        finally:
            self._give_back(connection)

    async def _take(self, timeout: float) -> Connection:
        while self._used >= self._size:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout(timeout):
                    await waiter
            except BaseException as error:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                else:
                    self._wake()  # the turn was ours, and is another's now
                if isinstance(error, TimeoutError):
                    raise PoolTimeout(f"couldn't get a connection after {timeout} s") from None
                raise
        self._used += 1
        while self._idle:
            connection = self._idle.pop()
            if not connection.session.closed:
                return connection
        return Connection(self._server, running_process())

    def _give_back(self, connection: Connection) -> None:
        self._used -= 1
        if not connection.session.closed:
            if connection.session.idle:
                self._idle.append(connection)
            else:
                connection.session.end("it came back in the middle of something")
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self._used < self._size:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
