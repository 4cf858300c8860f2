"""A database that was restored may be older than the bucket: each session comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from live_sessions import Producer, Samples, Service, audio_of, cut
from recordings import RATE, decoded, encoded, samples_of
from steno.concatenation import recent
from steno.platform.objects import ObjectStore
from steno.v1 import concatenation_pb2 as pb
from waiting import eventually

if TYPE_CHECKING:
    from steno.v1.upload_pb2_grpc import UploadServiceAsyncStub

TABLES = ("sessions", "chunks", "pieces", "parts", "gaps", "events")


@pytest.fixture(scope="session")
def speech() -> Samples:
    return samples_of("demo.opus")[: 12 * RATE]


@pytest.fixture
def own_settings() -> dict[str, Any]:
    """What failed is tried again soon."""
    return {"session_max_pause_seconds": 0.3}


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is restored is in no process' memory."""
    monkeypatch.setattr(recent, "MOST_BYTES", 0)


@pytest.fixture
def dump(environment: dict[str, str]) -> Iterator[Dump]:
    with psycopg.connect(environment["STENO_POSTGRES_URL"], autocommit=True) as db:
        yield Dump(db)


class Dump:
    """What the tables held at a moment."""

    def __init__(self, db: psycopg.Connection) -> None:
        self._db = db

    def take(self) -> None:
        for table in map(sql.Identifier, TABLES):
            self._db.execute(
                sql.SQL("CREATE TABLE {} AS SELECT * FROM concatenation.{}").format(table, table)
            )

    def restore(self) -> None:
        # As if nobody had worked on it since: a lease of the dump has run out.
        self._db.execute("UPDATE sessions SET lease_until = NULL, attempt = attempt + 9")
        with self._db.transaction():
            self._db.execute("DELETE FROM concatenation.sessions")
            for table in map(sql.Identifier, TABLES):
                self._db.execute(
                    sql.SQL("INSERT INTO concatenation.{} SELECT * FROM {}").format(table, table)
                )


async def recorded(service: Service, speech: Samples, **config: object) -> str:
    session = await service.open(**config)
    file = encoded(speech, "flac") if config else speech.tobytes()
    chunks = list(enumerate(cut(file, len(file) // 10 + 2 & ~1)))
    await Producer([service.stub], session.session_id).send(chunks)
    return session.session_id


async def has_audio(service: Service, session_id: str) -> pb.Session | None:
    session = await service.get(session_id)
    return session if session.audio_id else None


async def test_a_session_that_ended_while_a_backup_was_taken_finds_its_chunks(
    service: Service, uploads: UploadServiceAsyncStub, dump: Dump, speech: Samples
) -> None:
    session_id = await recorded(service, speech)
    await asyncio.to_thread(dump.take)
    await service.close(session_id)
    await service.events(session_id)  # until nothing is left to do

    await asyncio.to_thread(dump.restore)
    played = decoded(await service.file(session_id))
    closed = await service.close(session_id)

    assert np.array_equal(played, speech)
    _, file = await audio_of(uploads, closed.audio_id)
    assert np.array_equal(decoded(file), speech)


@pytest.mark.parametrize("config", [{}, {"encoding": pb.AUDIO_ENCODING_CONTAINER}])
async def test_a_session_whose_chunks_are_gone_becomes_an_audio_of_its_file(
    service: Service,
    uploads: UploadServiceAsyncStub,
    objects: ObjectStore,
    dump: Dump,
    speech: Samples,
    config: dict[str, object],
) -> None:
    session_id = await recorded(service, speech, **config)
    await asyncio.to_thread(dump.take)
    await service.close(session_id)
    await service.events(session_id)
    await objects.remove_prefix(f"sessions/{session_id}/")

    await asyncio.to_thread(dump.restore)
    await service.close(session_id)
    closed = await eventually(lambda: has_audio(service, session_id))

    assert not closed.error.reason
    _, file = await audio_of(uploads, closed.audio_id)
    assert np.array_equal(decoded(file), speech)
    assert np.array_equal(decoded(await service.file(session_id)), speech)


async def test_a_session_whose_bytes_are_gone_says_so_and_goes_on_when_they_are_back(
    service: Service, objects: ObjectStore, speech: Samples, dump: Dump
) -> None:
    session_id = await recorded(service, speech)
    keys = await objects.list_prefix(f"sessions/{session_id}/")
    kept = {key: await objects.get(key) for key in keys}
    await asyncio.to_thread(dump.take)
    await service.close(session_id)
    await service.events(session_id)
    await objects.remove_prefix("")

    await asyncio.to_thread(dump.restore)
    closing = asyncio.create_task(service.close(session_id))

    async def is_parked() -> pb.SessionParking | None:
        session = await service.get(session_id)
        return session.parking if session.parking.failure_count >= 2 else None

    parking = await eventually(is_parked)
    for key, content in kept.items():
        await objects.put(key, content)
    await closing
    await service.close(session_id)
    await eventually(lambda: has_audio(service, session_id))

    assert parking.reason == "OBJECT_NOT_FOUND"
    assert "Restore it" in parking.message
    assert np.array_equal(decoded(await service.file(session_id)), speech)


async def test_a_restored_session_writes_over_no_longer_recording(
    service: Service,
    uploads: UploadServiceAsyncStub,
    objects: ObjectStore,
    dump: Dump,
    speech: Samples,
) -> None:
    half = len(speech) // 2
    session_id = await recorded(service, speech[:half])
    await asyncio.to_thread(dump.take)
    following = (await service.get(session_id)).next_sequence
    await service.append(session_id, following, speech[half:].tobytes())
    await service.close(session_id)
    await service.events(session_id)
    key = f"recordings/{session_id}.wav"
    whole = await objects.get(key)

    await asyncio.to_thread(dump.restore)
    closing = asyncio.create_task(service.close(session_id))

    async def is_parked() -> pb.SessionParking | None:
        session = await service.get(session_id)
        return session.parking if session.parking.failure_count else None

    parking = await eventually(is_parked)
    kept = await objects.get(key)
    await objects.remove(key)
    await closing
    await service.close(session_id)
    await eventually(lambda: has_audio(service, session_id))

    assert parking.reason == "RECORDING_EXISTS"
    assert key in parking.message
    assert kept == whole
    assert np.array_equal(decoded(await service.file(session_id)), speech[:half])
