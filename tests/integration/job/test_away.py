"""Who could not renew a lease, because nobody was there to hear it, has not fallen silent."""

from __future__ import annotations

import asyncio

from rows import Rows
from steno.local.servers import LocalServers
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb
from waiting import answered, eventually

from .conftest import Replica, StartReplica, Upload, Work, Worker

PAST = "SELECT task_id FROM job.tasks WHERE lease_expire_time < now()"
SWEEPS = 1.0
"""Seconds in which the service looks at the leases several times."""


async def finish(worker: Worker, work: Work, replica: Replica, job: pb.Job, rows: Rows) -> None:
    """Goes on with a task as if nothing had been."""
    await asyncio.sleep(SWEEPS)
    await worker.renew(work, seconds=20)
    await worker.complete(work)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    tasks = await asyncio.to_thread(rows, "SELECT attempt, failures FROM job.tasks")
    assert tasks == [{"attempt": 1, "failures": 0}]


async def test_a_worker_goes_on_though_the_service_was_away_for_longer_than_a_lease(
    start_replica: StartReplica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    before = await start_replica(task_lease_seconds=1)
    job = await before.create(upload.record(slices=1))
    work = await Worker(before.tasks, messaging).take()
    await before.stop()
    await eventually(lambda: rows(PAST))

    after = await start_replica(task_lease_seconds=10)

    await finish(Worker(after.tasks, messaging), work, after, job, rows)


async def test_a_worker_goes_on_though_postgres_was_away_for_longer_than_a_lease(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    servers: LocalServers,
    rows: Rows,
) -> None:
    lease = 4
    replica = await start_replica(task_lease_seconds=lease)
    job = await replica.create(upload.record(slices=1))
    await asyncio.sleep(lease)  # by now it takes leases back
    worker = Worker(replica.tasks, messaging)
    work = await worker.take()

    await servers.postgres.kill()
    await asyncio.sleep(lease)
    await servers.postgres.start()

    await answered(lambda: replica.get(job))
    assert rows(PAST)
    await finish(worker, work, replica, job, rows)
