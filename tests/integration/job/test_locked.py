"""Whoever holds a job's lock may be frozen: nothing else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from rows import Rows
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb
from waiting import eventually

from .conftest import Replica, StartReplica, Upload, Worker, announce, comes, run_out
from .test_gaps import in_seconds


@asynccontextmanager
async def locked(environment: dict[str, str], job: pb.Job) -> AsyncIterator[None]:
    """As a replica that stands still in the midst of a transaction."""
    async with await psycopg.AsyncConnection.connect(environment["STENO_POSTGRES_URL"]) as db:
        await db.execute("SELECT FROM job.jobs WHERE job_id = %s FOR UPDATE", (job.job_id,))
        yield
        await db.rollback()


async def test_workers_of_other_jobs_go_on_while_one_job_is_locked(
    replica: Replica,
    upload: Upload,
    worker: Worker,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A call waits for a locked job until that is free again, however long the others take.
    monkeypatch.setattr("steno.job.store.LOCKED_PAUSES", [0.05] * 10_000)
    stuck, free = [await replica.create(upload.record(slices=1)) for _ in range(2)]
    works = {work.lease.job_id: work for work in [await worker.take(), await worker.take()]}

    async with locked(environment, stuck):
        waiting = asyncio.create_task(worker.renew(works[stuck.job_id]))
        for second in range(10):
            await worker.renew(works[free.job_id], seconds=second)
        await worker.complete(works[free.job_id])
        await replica.in_state(free, pb.JOB_STATE_SUCCEEDED)
    await waiting
    await worker.complete(works[stuck.job_id])

    await replica.in_state(stuck, pb.JOB_STATE_SUCCEEDED)


async def test_leases_of_other_jobs_end_while_one_job_is_locked(
    leasing: Replica, upload: Upload, messaging: Messaging, environment: dict[str, str], rows: Rows
) -> None:
    worker = Worker(leasing.tasks, messaging)
    stuck, free = [await leasing.create(upload.record(slices=1)) for _ in range(2)]
    works = {work.lease.job_id: work for work in [await worker.take(), await worker.take()]}

    async with locked(environment, stuck):
        await run_out(rows, works[stuck.job_id], works[free.job_id])
        again = await worker.take()
        await worker.complete(again)
        await leasing.in_state(free, pb.JOB_STATE_SUCCEEDED)
    await worker.do(1)

    await leasing.in_state(stuck, pb.JOB_STATE_SUCCEEDED)


async def test_other_late_jobs_end_and_other_slices_come_while_one_job_is_locked(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    environment: dict[str, str],
    rows: Rows,
) -> None:
    before = await start_replica()
    recording = upload.record(ready=False)
    stuck, late = [await before.create(recording, deadline=in_seconds(3600)) for _ in range(2)]
    growing = upload.record(ready=False)
    job = await before.create(growing)
    await before.stop()
    await comes(rows, stuck, "deadline")  # while nobody is there to end it

    async with locked(environment, stuck):
        replica = await start_replica()
        await comes(rows, late, "deadline")
        for each in (recording, growing):
            each.cut()
            await announce(messaging, each)

        async def grown() -> bool:
            return (await replica.get(job)).progress.audio_duration.seconds == 30

        await eventually(grown)
        await replica.in_state(late, pb.JOB_STATE_FAILED)

    await replica.in_state(stuck, pb.JOB_STATE_FAILED)


async def test_other_old_jobs_are_deleted_while_one_job_is_locked(
    start_replica: StartReplica, upload: Upload, environment: dict[str, str], rows: Rows
) -> None:
    before = await start_replica()
    jobs = [await before.create(upload.record()) for _ in range(3)]
    await before.stop()

    def left() -> list[str]:
        return [str(row["job_id"]) for row in rows("SELECT job_id FROM job.jobs")]

    async with locked(environment, jobs[0]):
        await start_replica(job_retention_hours=1e-9)
        await eventually(lambda: left() == [jobs[0].job_id])
