"""A chunk costs the same in the first minute and in the last."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.rows import dict_row

from live_sessions import Producer, Service, cut
from recordings import RATE, samples_of
from steno.platform.objects import ObjectStore
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

from .conftest import StartService

CHUNK_BYTES = 6400

ROWS_READ = """
SELECT
    sum(n_tup_ins) FILTER (WHERE relname = 'chunks') AS chunks,
    sum(seq_tup_read + idx_tup_fetch) AS rows_read
FROM pg_stat_user_tables
WHERE schemaname = 'concatenation' AND relname IN ('chunks', 'pieces', 'parts', 'gaps')
"""


@pytest.mark.long
async def test_each_byte_is_written_twice_and_no_more(
    start_service: StartService, objects: ObjectStore
) -> None:
    service = await start_service(STENO_SESSION_LEASE_SECONDS="600")  # no part is made twice
    pcm = samples_of("ten-minutes.opus")[: 360 * RATE].tobytes()
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


async def test_what_nobody_has_joined_before_the_end_is_joined_then_and_not_held_in_memory(
    service: Service, environment: dict[str, str]
) -> None:
    session = await service.open()
    part = 5 * 2**20
    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        # As if another replica had died that had the work.
        db.execute("UPDATE concatenation.sessions SET lease_until = now() + interval '1 hour'")
        for sequence in range(3):
            await service.append(session.session_id, sequence, bytes(2 * part))
        closing = asyncio.create_task(service.close(session.session_id))
        await eventually(lambda: has_ended(service, session.session_id))
        db.execute("UPDATE concatenation.sessions SET lease_until = now()")
        closed = await closing
        row = db.execute("SELECT part_count FROM concatenation.sessions").fetchone()

    assert row == (5,)  # all but the head
    assert closed.duration.ToMilliseconds() == 6 * part // 32


async def has_ended(service: Service, session_id: str) -> bool:
    return (await service.get(session_id)).state == pb.SESSION_STATE_CLOSED


@pytest.mark.long
async def test_a_chunk_costs_the_same_after_3000_as_after_30(
    start_service: StartService, environment: dict[str, str]
) -> None:
    service = await start_service(STENO_SESSION_LEASE_SECONDS="600")
    session = await service.open()
    chunks = list(enumerate(cut(bytes(3090 * CHUNK_BYTES), CHUNK_BYTES)))
    producer = Producer([service.stub], session.session_id)

    async def rows_read(count: int) -> int:
        """Counted by the database, a second late: once it knows of all chunks, it knows all."""
        found = await eventually(lambda: counted(environment, count))
        return found["rows_read"]

    # What the work on the first chunks reads may be counted among what follows: hence three rounds.
    counts: dict[int, list[int]] = {30: [], 3000: []}
    for begin, read in counts.items():
        await producer.send(chunks[:begin])
        for first in range(begin, begin + 90, 30):
            before = await rows_read(first)
            for sequence, content in chunks[first : first + 30]:
                await service.append(session.session_id, sequence, content)
            read.append(await rows_read(first + 30) - before)

    early, late = max(counts[30]), min(counts[3000])
    assert 30 <= late <= 2 * early


def counted(environment: dict[str, str], chunks: int) -> dict[str, int] | None:
    with psycopg.connect(environment["STENO_POSTGRES_URL"], row_factory=dict_row) as db:
        row = db.execute(ROWS_READ).fetchone()
    return row if row is not None and row["chunks"] == chunks else None


async def test_chunks_of_one_burst_share_what_they_cost_and_a_lone_one_waits_for_no_other(
    start_service: StartService, objects: ObjectStore
) -> None:
    service = await start_service()
    session = await service.open()
    call = service.stub.StreamAudio()
    start = pb.StreamAudioStart(session_id=session.session_id)
    await call.write(pb.StreamAudioRequest(start=start))
    acks: list[pb.ChunkAck] = []

    async def send(sequences: range) -> None:
        """Sends chunks, and nothing behind them; returns when all are acknowledged."""
        wanted = set(sequences)
        for sequence in sequences:
            chunk = pb.Chunk(sequence=sequence, content=bytes(CHUNK_BYTES))
            await call.write(pb.StreamAudioRequest(chunk=chunk))
        while wanted:
            response = await call.read()
            assert isinstance(response, pb.StreamAudioResponse)
            if response.HasField("ack"):
                acks.append(response.ack)
                wanted -= set(response.ack.sequences)

    async with asyncio.timeout(30):
        await send(range(1))
        await send(range(1, 201))
    call.cancel()

    assert len(acks) < 201
    assert len(await objects.list_prefix(f"sessions/{session.session_id}/chunks/")) == len(acks)
