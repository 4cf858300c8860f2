"""Links between processes: a TCP proxy that passes everything on, until it is told to behave badly.

A link stands for one arrow of the architecture's picture, such as `job->postgres`. It tells whether
a request is unanswered on it, and a fault on it tells whether it touched any bytes: faults that
nobody felt are not counted.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from steno.local.ports import HOST

_BYTES = 65536
_JUST_SECONDS = 0.5
_COMMIT = re.compile(rb"(_pg3_\d+)\0COMMIT\0")
"""How psycopg makes a prepared statement of COMMIT."""


class Cut(Exception):
    """This connection is to be reset, or ended after the last bytes that its caller gets."""

    def __init__(self, last: bytes = b"") -> None:
        super().__init__()
        self.last = last


class Turns:
    """Whose turn it is on a connection: here of whoever has not spoken last, as with HTTP/1.1."""

    unanswered = False

    def up(self, data: bytes) -> None:
        """The caller has said this."""
        self.unanswered = True

    def down(self, data: bytes) -> None:
        """The server has said this."""
        self.unanswered = False


class Messages(Turns):
    """Both speak whenever they like, as with NATS: nobody waits for an answer."""

    def up(self, data: bytes) -> None:
        """See Turns."""

    down = up


class Calls(Turns):
    """Many calls at once, as with gRPC: HTTP/2's frames tell which are open."""

    _PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    _DATA, _HEADERS, _RESET = 0, 1, 3
    _END_STREAM = 1

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._up, self._down = bytearray(), bytearray()
        self._begun = False

    @property
    def unanswered(self) -> bool:  # type: ignore[override]
        """Whether a call is open."""
        return bool(self._open)

    def up(self, data: bytes) -> None:
        self._up += data
        if not self._begun and len(self._up) >= len(self._PREFACE):
            del self._up[: len(self._PREFACE)]
            self._begun = True
        for kind, _, stream in self._frames(self._up) if self._begun else ():
            if kind == self._HEADERS:
                self._open.add(stream)
            elif kind == self._RESET:
                self._open.discard(stream)

    def down(self, data: bytes) -> None:
        self._down += data
        for kind, flags, stream in self._frames(self._down):
            ends = kind in (self._DATA, self._HEADERS) and flags & self._END_STREAM
            if ends or kind == self._RESET:
                self._open.discard(stream)

    @staticmethod
    def _frames(data: bytearray) -> Iterator[tuple[int, int, int]]:
        """Takes whole frames away: kind, flags, stream."""
        while len(data) >= 9 and len(data) >= (length := 9 + int.from_bytes(data[:3], "big")):
            yield data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7FFFFFFF
            del data[:length]


class Connection:
    """A caller, and the server that it speaks to."""

    def __init__(
        self, caller: asyncio.StreamWriter, server: asyncio.StreamWriter, turns: Turns
    ) -> None:
        self.caller = caller
        self.turns = turns
        self._server = server
        self.port: int = server.get_extra_info("sockname")[1]
        """By which the server knows the caller."""
        self.spoke = time.monotonic()
        """When bytes passed last."""
        self.lossy = False
        """Bytes are missing: it can't go on once the fault is over."""
        self.commits: set[bytes] = set()
        """Prepared statements that commit."""

    @property
    def unanswered(self) -> bool:
        """Whether somebody waits for an answer on it."""
        return self.turns.unanswered

    def reset(self) -> None:
        """Ends it at both sides at once, with RST: what is on its way is lost."""
        _reset(self.caller)
        _reset(self._server)

    async def end(self, last: bytes) -> None:
        """Ends it after its caller has got some last bytes; without any, resets it."""
        if last:
            with suppress(OSError):
                self.caller.write(last)
                await self.caller.drain()
                self.caller.write_eof()
                self._server.transport.abort()
        else:
            self.reset()


def _reset(writer: asyncio.StreamWriter) -> None:
    connected = writer.get_extra_info("socket")
    with suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Passing:
    """What a link does to the bytes: this one passes them on; see `faults.harm` for others.

    Attributes:
        bites: how often it has done something to bytes, or to a connection with an open request.
    """

    bites = 0

    def begin(self, connections: set[Connection]) -> None:
        """It begins, with these connections open."""

    def opened(self) -> None:
        """Somebody connects. May raise Cut."""

    async def up(self, connection: Connection, data: bytes) -> bytes:
        """What of a caller's bytes goes on to the server. May raise Cut."""
        return data

    async def down(self, connection: Connection, data: bytes) -> bytes:
        """What of a server's bytes goes on to the caller. May raise Cut."""
        return data


class Link:
    """One arrow: enter to listen on `port` and pass on to `target`, leave to end all of it."""

    def __init__(
        self, name: str, port: int, target: int, turns: Callable[[], Turns] = Turns
    ) -> None:
        self.name = name
        self.port = port
        self.target = target
        self.connections: set[Connection] = set()
        self._turns = turns
        self._clear = Passing()
        self._fault: Passing = self._clear
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where callers find it."""
        return f"{HOST}:{self.port}"

    @property
    def unanswered(self) -> bool:
        """Whether somebody waits for an answer."""
        return any(connection.unanswered for connection in self.connections)

    @property
    def busy(self) -> bool:
        """Whether bytes have just passed."""
        since = time.monotonic() - _JUST_SECONDS
        return any(connection.spoke > since for connection in self.connections)

    def harm(self, fault: Passing) -> None:
        """Behaves badly from now on."""
        self._fault = fault
        fault.begin(self.connections)

    def heal(self) -> None:
        """Passes everything on again; connections of which bytes are missing end."""
        self._fault = self._clear
        for connection in list(self.connections):
            if connection.lossy:
                connection.reset()

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.reset()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._fault.opened()
            there, back = await asyncio.open_connection(HOST, self.target)
        except (Cut, OSError):
            _reset(writer)
            return
        connection = Connection(writer, back, self._turns())
        self.connections.add(connection)
        try:
            await asyncio.gather(
                self._pump(connection, reader, back, self._up),
                self._pump(connection, there, writer, self._down),
            )
        except Cut as cut:
            await connection.end(cut.last)
        except OSError:
            connection.reset()
        finally:
            self.connections.discard(connection)
            for side in (writer, back):
                side.close()

    async def _up(self, connection: Connection, data: bytes) -> bytes:
        connection.commits.update(match[1] for match in _COMMIT.finditer(data))
        passed = await self._fault.up(connection, data)
        connection.turns.up(data)
        connection.spoke = time.monotonic()
        return passed

    async def _down(self, connection: Connection, data: bytes) -> bytes:
        passed = await self._fault.down(connection, data)
        connection.turns.down(data)
        connection.spoke = time.monotonic()
        return passed

    async def _pump(
        self,
        connection: Connection,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        handle: Callable[[Connection, bytes], Awaitable[bytes]],
    ) -> None:
        while data := await source.read(_BYTES):
            if passed := await handle(connection, data):
                sink.write(passed)
                await sink.drain()
        with suppress(OSError, RuntimeError):
            sink.write_eof()
