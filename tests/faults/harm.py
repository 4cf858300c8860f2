"""What a link may do to bytes, but pass them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from faults.proxy import Connection, Cut, Passing


class Severed(Passing):
    """All connections are reset, and new ones refused."""

    def begin(self, connections: set[Connection]) -> None:
        for connection in list(connections):
            self.bites += connection.unanswered
            connection.reset()

    def opened(self) -> None:
        self.bites += 1
        raise Cut


class HalfOpen(Passing):
    """Bytes vanish, one way or both, and nobody is told."""

    def __init__(self, *, up: bool, down: bool) -> None:
        self._up, self._down = up, down

    async def up(self, connection: Connection, data: bytes) -> bytes:
        return self._lose(connection) if self._up else data

    async def down(self, connection: Connection, data: bytes) -> bytes:
        return self._lose(connection) if self._down else data

    def _lose(self, connection: Connection) -> bytes:
        self.bites += 1
        connection.lossy = True
        return b""


class Late(Passing):
    """Bytes come late. With `up` false only answers do: what was asked is done long before."""

    def __init__(self, seconds: float, *, up: bool = True) -> None:
        self._seconds, self._up = seconds, up

    async def up(self, connection: Connection, data: bytes) -> bytes:
        return await self._wait(data) if self._up else data

    async def down(self, connection: Connection, data: bytes) -> bytes:
        return await self._wait(data)

    async def _wait(self, data: bytes) -> bytes:
        self.bites += 1
        await asyncio.sleep(self._seconds)
        return data


class Slow(Passing):
    """A narrow link: so many bytes a second, each way and connection."""

    def __init__(self, bytes_per_second: int) -> None:
        self._speed = bytes_per_second

    async def up(self, connection: Connection, data: bytes) -> bytes:
        self.bites += 1
        await asyncio.sleep(len(data) / self._speed)
        return data

    down = up


class AnswerLost(Passing):
    """What is asked is done, and some answers are lost, with their connections."""

    def __init__(self, chance: Callable[[], bool]) -> None:
        self._chance = chance

    async def down(self, connection: Connection, data: bytes) -> bytes:
        if connection.unanswered and self._chance():
            self.bites += 1
            raise Cut
        return data


class CommitUnknown(Passing):
    """Postgres gets a COMMIT, and whoever sent it loses the connection before the answer."""

    def __init__(self, chance: Callable[[], bool]) -> None:
        self._chance = chance
        self._committing: set[Connection] = set()

    async def up(self, connection: Connection, data: bytes) -> bytes:
        named = (b"\0" + name + b"\0" in data for name in connection.commits)
        if (b"\0COMMIT\0" in data or any(named)) and self._chance():
            self._committing.add(connection)
        return data

    async def down(self, connection: Connection, data: bytes) -> bytes:
        if connection in self._committing and b"COMMIT\0" in data:
            self.bites += 1
            raise Cut
        return data


class Refusing(Passing):
    """An S3 store that answers 503: before it has done the work, or after."""

    _BODY = b"<Error><Code>ServiceUnavailable</Code></Error>"
    ANSWER = (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
    )

    def __init__(self, chance: Callable[[], bool], *, after: bool) -> None:
        self._chance, self._after = chance, after

    async def up(self, connection: Connection, data: bytes) -> bytes:
        if not self._after and not connection.unanswered and self._chance():
            self.bites += 1
            raise Cut(self.ANSWER)
        return data

    async def down(self, connection: Connection, data: bytes) -> bytes:
        if self._after and connection.unanswered and self._chance():
            self.bites += 1
            raise Cut(self.ANSWER)
        return data


class Truncated(Passing):
    """Of some long answers only the first half comes, then the connection ends."""

    SHORTEST = 4096

    def __init__(self, chance: Callable[[], bool]) -> None:
        self._chance = chance

    async def down(self, connection: Connection, data: bytes) -> bytes:
        if len(data) >= self.SHORTEST and self._chance():
            self.bites += 1
            raise Cut(data[: len(data) // 2])
        return data
