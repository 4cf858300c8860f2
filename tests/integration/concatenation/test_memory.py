"""Memory is bounded by bytes, however many producers send at once."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from live_sessions import Producer
from processes import memory_of
from steno.platform.errors import read_failure
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

from .conftest import StartService

pytestmark = pytest.mark.long

LONGEST = bytes(10 * 2**20)
LIMIT = 512 * 2**20
"""Of the chart, for each process."""


async def test_many_longest_chunks_at_once_take_no_more_memory_than_some(
    start_service: StartService,
) -> None:
    service = await start_service()
    sessions = [await service.open() for _ in range(24)]
    refusals = []

    async def append(session_id: str) -> None:
        async def is_taken() -> bool:
            try:
                return bool(await service.append(session_id, 0, LONGEST))
            except grpc.aio.AioRpcError as error:
                failure = read_failure(error)
                assert failure.reason == "TOO_MANY_BYTES", failure
                assert failure.retry_delay is not None
                refusals.append(failure)
                return False

        await eventually(is_taken)

    await asyncio.gather(*(append(session.session_id) for session in sessions))

    assert memory_of(service.process.pid, "VmHWM") < LIMIT
    for session in sessions:
        assert (await service.get(session.session_id)).next_sequence == 1


async def test_streams_wait_for_room_and_all_is_acknowledged(start_service: StartService) -> None:
    service = await start_service(STENO_SESSION_MAX_BYTES_IN_FLIGHT=str(10 * 2**20))
    producers = [Producer([service.stub], (await service.open()).session_id) for _ in range(4)]
    chunks = [(sequence, LONGEST[: 3 * 2**20]) for sequence in range(4)]

    await asyncio.gather(*(producer.send(chunks) for producer in producers))
    broken = asyncio.create_task(producers[0].send([(99, LONGEST)]))
    await asyncio.sleep(0)
    broken.cancel()
    await asyncio.gather(broken, return_exceptions=True)

    # All room is free again, whoever has gone.
    session = await service.open()
    request = pb.AppendChunkRequest(
        session_id=session.session_id, chunk=pb.Chunk(sequence=0, content=LONGEST)
    )
    assert (await service.stub.AppendChunk(request, timeout=30)).next_sequence == 1
