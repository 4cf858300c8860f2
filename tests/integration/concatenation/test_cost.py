"""A chunk costs the same in the first minute and in the last."""

from __future__ import annotations

import statistics
import time

from live_sessions import Producer, Service, cut
from recordings import samples_of
from steno.platform.objects import ObjectStore
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

CHUNK_BYTES = 6400


async def test_each_byte_is_written_twice_and_no_more(
    service: Service, objects: ObjectStore
) -> None:
    pcm = samples_of("ten-minutes.opus").tobytes()
    session = await service.open()
    own = f"sessions/{session.session_id}/"
    chunks = list(enumerate(cut(pcm, CHUNK_BYTES)))
    again = [chunk for chunk in chunks if chunk[0] % 10 == 0]

    await Producer([service.stub], session.session_id).send([*chunks[:-1], *again])

    async def written(prefix: str) -> int:
        return sum([await objects.stat(key) for key in await objects.list_prefix(prefix)])

    # The head waits for the header: all parts but that are joined while the session is open.
    part = 5 * 2**20
    joined = (len(pcm) - CHUNK_BYTES) // part - 1

    async def parts() -> bool:
        return await written(own + "parts/") == joined * part

    await eventually(parts)
    assert await written(own + "chunks/") == len(pcm) - len(chunks[-1][1])
    await service.append(session.session_id, *chunks[-1])
    await service.close(session.session_id)

    file = await objects.stat(f"recordings/{session.session_id}.wav")
    # Chunks, parts, and of the file what is not copied from parts: its head and its tail.
    total = len(pcm) + joined * part + (file - joined * part)
    assert total <= 2.1 * len(pcm)


async def test_a_chunk_costs_the_same_after_3000_as_after_30(service: Service) -> None:
    session = await service.open()
    times: list[float] = []
    for sequence in range(3100):
        begun = time.perf_counter()
        request = pb.AppendChunkRequest(
            session_id=session.session_id,
            chunk=pb.Chunk(sequence=sequence, content=bytes([sequence % 251]) * CHUNK_BYTES),
        )
        await service.stub.AppendChunk(request)
        times.append(time.perf_counter() - begun)

    early, late = statistics.median(times[30:130]), statistics.median(times[-100:])
    print(f"append 30: {early * 1e3:.2f} ms, append 3000: {late * 1e3:.2f} ms")
    # Twice leaves room for what else this machine does meanwhile.
    assert late <= 2 * early
