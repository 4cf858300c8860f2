"""What a producer is told stays true, though others go away while they are being answered."""

from __future__ import annotations

import asyncio

from leaving_callers import callers_that_leave
from live_sessions import ServiceProcess
from steno.v1 import concatenation_pb2 as pb

from .conftest import StartService

SESSIONS = 4
CHUNKS = 20


async def test_chunks_that_were_acknowledged_are_in_the_recording(
    start_service: StartService,
) -> None:
    service = await start_service(
        STENO_POSTGRES_POOL_SIZE="3",
        # AppendChunk counts each chunk as the longest: there is room for one of each session.
        STENO_SESSION_MAX_BYTES_IN_FLIGHT=str(64 * 2**20),
    )
    theirs = await service.open()
    sessions = [await service.open() for _ in range(SESSIONS)]

    async def close() -> None:
        await service.stub.CloseSession(pb.CloseSessionRequest(session_id=theirs.session_id))

    async def open_another() -> None:
        await service.open()

    async with callers_that_leave(close, open_another):
        await asyncio.gather(*(produce(service, session.session_id) for session in sessions))

    for session in sessions:
        await service.close(session.session_id)
        file = await service.file(session.session_id)
        assert file.endswith(b"".join(content(sequence) for sequence in range(CHUNKS)))


async def produce(service: ServiceProcess, session_id: str) -> None:
    for sequence in range(CHUNKS):
        assert await service.append(session_id, sequence, content(sequence)) == sequence + 1


def content(sequence: int) -> bytes:
    return sequence.to_bytes(2, "little") * 1600
