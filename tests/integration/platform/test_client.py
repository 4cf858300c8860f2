"""What callers are told when the way to a server breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from steno.platform.client import open_channel
from steno.platform.errors import read_failure
from steno.v1 import concatenation_pb2 as pb
from steno.v1.concatenation_pb2_grpc import (
    ConcatenationServiceServicer,
    ConcatenationServiceStub,
    add_ConcatenationServiceServicer_to_server,
)

CHUNK = pb.StreamAudioRequest(chunk=pb.Chunk(content=bytes(10**6)))


class Sessions(ConcatenationServiceServicer):
    """Says that it is ready, and reads nothing of a stream."""

    def __init__(self) -> None:
        self.callers: set[str] = set()

    async def StreamAudio(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.StreamAudioResponse(ready=pb.StreamAudioReady(epoch=1))
        await asyncio.Event().wait()

    async def GetSession(self, request: Any, context: Any) -> Any:
        self.callers.add(context.peer())
        return pb.GetSessionResponse()


class Wire:
    """A way to a server that can be cut, and stopped up."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._connections: set[asyncio.Task[Any]] = set()
        self.open = asyncio.Event()
        """Unset, it takes bytes and passes none on, as if the other side stood still."""
        self.open.set()

    async def __aenter__(self) -> Wire:
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._listener.close()
        await self.cut()

    async def cut(self) -> None:
        """Breaks all connections, as the death of the other side does."""
        connections = [*self._connections]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        ends = [writer]
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._to_port)
            ends.append(forth)
            await asyncio.gather(self._pump(reader, forth), self._pump(back, writer))
        except (asyncio.CancelledError, OSError):
            return
        finally:
            for end in ends:
                end.transport.abort()
            self._connections.discard(connection)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            await self.open.wait()
            writer.write(data)
            await writer.drain()


@pytest.fixture
async def wire(port: int) -> AsyncIterator[Wire]:
    async with Wire(port) as wire:
        yield wire


@pytest.fixture
def service() -> Sessions:
    return Sessions()


@pytest.fixture
async def port(service: Sessions) -> AsyncIterator[int]:
    """Of a server."""
    server = grpc.aio.server()
    add_ConcatenationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


async def test_a_connection_that_breaks_under_a_message_means_that_the_server_is_away(
    port: int,
) -> None:
    for _ in range(5):  # it is a race which failure grpc.aio sees first
        # Each time by a way of its own: on one that broke, a channel may still hold a connection.
        async with (
            Wire(port) as wire,
            open_channel(f"127.0.0.1:{wire.port}", retries=False) as channel,
        ):
            call = ConcatenationServiceStub(channel).StreamAudio()
            await call.write(pb.StreamAudioRequest(start=pb.StreamAudioStart()))
            answer = await call.read()
            assert isinstance(answer, pb.StreamAudioResponse)
            assert answer.ready.epoch == 1
            # Nobody reads what is written: soon a message is on its way, and stays there.
            writing = asyncio.create_task(flood(call))
            await asyncio.wait([writing], timeout=0.1)
            await wire.cut()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            await asyncio.gather(writing, return_exceptions=True)

        assert read_failure(caught.value).code is grpc.StatusCode.UNAVAILABLE


async def test_a_call_to_a_server_that_stands_still_is_answered_by_another(
    wire: Wire, port: int, service: Sessions
) -> None:
    address = f"ipv4:127.0.0.1:{wire.port},127.0.0.1:{port}"
    async with open_channel(address) as channel:
        sessions = ConcatenationServiceStub(channel)
        while len(service.callers) < 2:  # calls go both ways
            await sessions.GetSession(pb.GetSessionRequest())
        wire.open.clear()

        for _ in range(20):
            await sessions.GetSession(pb.GetSessionRequest(), timeout=40)


async def flood(call: Any) -> None:
    while True:
        await call.write(CHUNK)


async def test_services_are_called_past_a_proxy_that_the_environment_names(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("no_grpc_proxy", "")
    server = grpc.aio.server()
    add_ConcatenationServiceServicer_to_server(Sessions(), server)
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    await server.start()
    try:
        answered = []
        for proxied in (False, True):
            async with open_channel(address, retries=False, proxied=proxied) as channel:
                asked = ConcatenationServiceStub(channel).GetSession(pb.GetSessionRequest())
                try:
                    await asked
                    answered.append(True)
                except grpc.aio.AioRpcError:
                    answered.append(False)
        assert answered == [True, False]
    finally:
        await server.stop(0)
