"""Faults of the preparation's machine, which no recording has to pay for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from recordings import samples_of
from steno.audio import Limits, VadModel, encode_slice, fork_server, sandbox
from steno.local.servers import LocalServers
from steno.platform import ending, loops
from steno.platform.database import Pool
from steno.platform.messaging import connect
from steno.platform.objects import ObjectStore
from steno.platform.settings import NatsSettings
from steno.upload import prepare
from steno.upload.domain import Audio, Lease, Slice, Source
from steno.upload.events import Announcer
from steno.upload.keys import slice_prefix
from steno.upload.prepare import Preparation
from steno.upload.settings import PrepareSettings
from steno.upload.store import PreparationStore, Store
from steno.upload.worker import DecoderBroken, Worker
from waiting import eventually

from .conftest import Client


@pytest.fixture
def store(pool: Pool) -> PreparationStore:
    return PreparationStore(pool)


@pytest.fixture
async def announcer(environment: dict[str, str]) -> AsyncIterator[Announcer]:
    async with connect(NatsSettings(), "test") as nats:
        yield Announcer(nats)


@pytest.fixture
def preparation(store: PreparationStore, objects: ObjectStore, announcer: Announcer) -> Preparation:
    return Preparation(store, objects, announcer, VadModel(), PrepareSettings())


@pytest.fixture
def worker(store: PreparationStore, announcer: Announcer, preparation: Preparation) -> Worker:
    """A worker in this process, which takes no messages by itself."""
    return Worker(store, announcer, preparation.prepare, PrepareSettings())


@pytest.fixture
async def audio_id(service: Client) -> str:
    """Three spoken minutes that wait: some slices."""
    content = encode_slice(samples_of("ten-minutes.opus")[: 180 * 16_000])
    chunks = (content[begin : begin + 2**20] for begin in range(0, len(content), 2**20))
    return (await service.send(*chunks)).audio_id


class Midway:
    """Holds a preparation once its first slice is stored, until the test lets it go on."""

    def __init__(self, store: PreparationStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reached, self._go_on = asyncio.Event(), asyncio.Event()
        record_slice = store.record_slice

        async def held(lease: Lease, piece: Slice) -> None:
            await record_slice(lease, piece)
            self._reached.set()
            await self._go_on.wait()

        monkeypatch.setattr(store, "record_slice", held)

    async def reached(self) -> None:
        await asyncio.wait_for(self._reached.wait(), 60)

    def go_on(self) -> None:
        self._go_on.set()


@pytest.fixture
def midway(store: PreparationStore, monkeypatch: pytest.MonkeyPatch) -> Midway:
    return Midway(store, monkeypatch)


async def standing(pool: Pool, audio_id: str) -> tuple[str, int]:
    """Its state, and how often it has failed."""
    async with pool.connection() as db:
        found = await db.execute(
            "SELECT state, failure_count FROM upload.audio WHERE audio_id = %s", [audio_id]
        )
        row = await found.fetchone()
    assert row is not None
    return row["state"], row["failure_count"]


@contextmanager
def database_only_reads(servers: LocalServers, url: str) -> Iterator[None]:
    """The test's database takes no writes inside, as after a failover to a standby."""
    name = sql.Identifier(url.rpartition("/")[2])
    read = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on")
    write = sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(servers.postgres.url, autocommit=True) as db:
        for change in (read, write):
            db.execute(change.format(name))
            db.execute(end, [url.rpartition("/")[2]])
            if change is read:
                yield


@contextmanager
def database_away(servers: LocalServers, url: str) -> Iterator[None]:
    """Nobody reaches the test's database inside; those of other tests go on."""
    name = url.rpartition("/")[2]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(servers.postgres.url, autocommit=True) as db:
        db.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        yield
        db.execute(allow.format(sql.Identifier(name), sql.Literal(True)))


async def test_an_outage_of_postgres_is_no_failure_of_the_recording(
    servers: LocalServers,
    environment: dict[str, str],
    worker: Worker,
    midway: Midway,
    pool: Pool,
    audio_id: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steno.upload.worker.ANSWER_PAUSE", timedelta(milliseconds=50))
    monkeypatch.setattr("steno.upload.worker.AWAY_PAUSE", timedelta(milliseconds=50))
    working = asyncio.create_task(worker.next())
    await midway.reached()
    pool.timeout = 0.3

    with database_away(servers, environment["STENO_POSTGRES_URL"]):
        midway.go_on()
        await eventually(lambda: caplog.text.count("no answer yet") >= 2)
    await working

    pool.timeout = 10
    assert await standing(pool, audio_id) == ("PREPARING", 0)
    lease = await eventually(lambda: PreparationStore(pool).lease(timedelta(minutes=1)))
    assert lease.attempt == 2


async def test_a_database_that_only_reads_is_no_failure_of_the_recording(
    servers: LocalServers,
    environment: dict[str, str],
    worker: Worker,
    midway: Midway,
    pool: Pool,
    audio_id: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steno.upload.worker.ANSWER_PAUSE", timedelta(milliseconds=50))
    worker._lease = timedelta(seconds=1)
    working = asyncio.create_task(worker.next())
    await midway.reached()

    with database_only_reads(servers, environment["STENO_POSTGRES_URL"]):
        midway.go_on()
        await eventually(lambda: caplog.text.count("no answer yet") >= 2)
        with pytest.raises(loops.AWAY):
            await worker.next()
    await working

    assert await standing(pool, audio_id) == ("PREPARING", 0)


async def test_a_renewal_that_fails_is_tried_again(
    worker: Worker,
    preparation: Preparation,
    store: PreparationStore,
    pool: Pool,
    audio_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker._lease = timedelta(seconds=0.3)
    renew, failed = store.renew, [ValueError("a fault of ours")]

    async def faulty(lease: Lease, duration: timedelta) -> None:
        if failed:
            raise failed.pop()
        await renew(lease, duration)
        renewed.set()

    renewed = asyncio.Event()
    monkeypatch.setattr(store, "renew", faulty)
    monkeypatch.setattr(preparation._objects, "get_range", never)
    working = asyncio.create_task(worker.next())

    await asyncio.wait_for(renewed.wait(), 30)

    working.cancel()
    assert "not renewed: a fault of ours" in caplog.text


@pytest.mark.parametrize("with_fork_server", [False, True])
async def test_a_decoder_that_is_halted_costs_a_try_and_not_the_recording(
    with_fork_server: bool,
    worker: Worker,
    preparation: Preparation,
    midway: Midway,
    pool: Pool,
    objects: ObjectStore,
    audio_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = preparation._limits = Limits()
    working = asyncio.create_task(worker.next())
    await midway.reached()
    object.__setattr__(limits, "stall_seconds", 0.5)  # only now: busy machines take longer
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "START_SECONDS", 0.5)
        patch.setattr(fork_server, "END_SECONDS", 0.5)
        server = fork_server.fork_server()._process.pid
        for process in [*children_of(server), *[server] * with_fork_server]:
            os.kill(process, signal.SIGSTOP)
        midway.go_on()
        await working

    assert await standing(pool, audio_id) == ("PREPARING", 1)
    assert len(await objects.list_prefix("uploads/")) == 1
    preparation._limits = Limits()
    await Store(pool).retry_audio(UUID(audio_id))
    await worker.next()
    assert (await standing(pool, audio_id))[0] == "READY"


async def test_an_attempt_that_makes_no_progress_is_given_up(
    worker: Worker,
    preparation: Preparation,
    pool: Pool,
    audio_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepare, "PROGRESS_SECONDS", 0.1)
    monkeypatch.setattr(preparation._objects, "get_range", never)

    await worker.next()

    assert await standing(pool, audio_id) == ("PREPARING", 1)


async def test_who_is_told_to_end_more_than_once_hands_the_recording_back_all_the_same(
    worker: Worker,
    store: PreparationStore,
    midway: Midway,
    audio_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on, handed_back = asyncio.Event(), asyncio.Event(), []

    async def slow(lease: Lease) -> None:
        begun.set()
        await go_on.wait()
        handed_back.append(lease)

    monkeypatch.setattr(store, "hand_back", slow)
    working = asyncio.create_task(worker.next())
    await midway.reached()

    working.cancel()
    await begun.wait()
    working.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert [str(lease.audio_id) for lease in handed_back] == [audio_id]


async def test_a_preparation_ends_though_it_is_deaf_to_the_first_cancellation(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stopping = asyncio.Event(), asyncio.Event()

    async def deaf(*_: object) -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    monkeypatch.setattr(Worker, "run", deaf)
    monkeypatch.setattr(ending, "CANCEL_AGAIN_SECONDS", 0.05)
    running = asyncio.create_task(prepare.main(PrepareSettings(), stopping))
    await begun.wait()

    stopping.set()

    await asyncio.wait_for(running, 15)


async def never(*_: object) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


def children_of(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.fixture
def no_fork(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No decoder can be forked in this process."""
    refuse = "import os\ndef fork(): raise BlockingIOError\nos.fork = fork\n"
    fork_server.close()
    monkeypatch.setattr(fork_server, "BOOTSTRAP", refuse + fork_server.BOOTSTRAP)
    yield
    fork_server.close()


async def test_where_no_decoder_can_be_started_the_process_ends_and_the_recording_waits(
    no_fork: None, pool: Pool, objects: ObjectStore, audio_id: str
) -> None:
    with pytest.raises(ExceptionGroup) as group:
        await asyncio.wait_for(prepare.main(PrepareSettings(), asyncio.Event()), 30)

    assert group.group_contains(DecoderBroken)
    assert await standing(pool, audio_id) == ("PREPARING", 0)
    assert len(await objects.list_prefix("uploads/")) == 1


class Torn:
    """An object store whose answers are cut short, or a machine out of memory."""

    def __init__(self, objects: ObjectStore, error: Exception | None) -> None:
        self._objects = objects
        self._error = error

    async def get_range(self, key: str, offset: int, size: int) -> bytes:
        if self._error is not None:
            raise self._error
        return b"<html>come back later</html>"


@pytest.mark.parametrize(
    ("error", "reason", "failures"),
    [
        (None, "DEPENDENCY_UNAVAILABLE", 0),
        (MemoryError(), "PREPARATION_FAILED", 6),
        (ValueError("a fault of ours"), "PREPARATION_FAILED", 6),
    ],
)
async def test_six_faults_of_the_machine_or_of_s3_cost_neither_the_recording_nor_its_bytes(
    worker: Worker,
    preparation: Preparation,
    pool: Pool,
    objects: ObjectStore,
    audio_id: str,
    error: Exception | None,
    reason: str,
    failures: int,
) -> None:
    preparation._objects = cast(ObjectStore, Torn(objects, error))
    audios = Store(pool)

    for _ in range(6):
        await audios.retry_audio(UUID(audio_id))
        await worker.next()

    audio = await audios.get_audio(UUID(audio_id))
    assert (audio.state, audio.failure_count) == ("PREPARING", failures)
    assert audio.failure is not None
    assert audio.failure.reason == reason
    assert len(await objects.list_prefix("uploads/")) == 1


async def test_audio_is_ready_when_nothing_is_left_of_attempts_that_died(
    worker: Worker,
    store: PreparationStore,
    pool: Pool,
    objects: ObjectStore,
    audio_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pool.connection() as db:
        await db.execute("UPDATE upload.audio SET attempt = 1")
    prefix = slice_prefix(UUID(audio_id))
    died, later = f"{prefix}1/0.wav", f"{prefix}3/0.wav"
    for key in (died, later):
        await objects.put(key, b"a slice", "audio/wav")
    there: list[str] = []
    finish = store.finish

    async def finished(lease: Lease, source: Source) -> Audio:
        there.extend(await objects.list_prefix(prefix))
        return await finish(lease, source)

    monkeypatch.setattr(store, "finish", finished)

    assert await worker.next()

    assert died not in there
    assert later in there  # its lease may be over, and that be the next one's
    assert f"{prefix}2/0.wav" in there
