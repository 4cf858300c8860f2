"""What the job service says of its queue is what is in its tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY

from rows import Rows
from steno.job.outbox import Outbox
from steno.platform.database import open_pool
from steno.platform.messaging import Messaging
from steno.platform.settings import PostgresSettings
from steno.v1 import job_pb2 as pb
from waiting import eventually

from .conftest import Replica, StartReplica, Upload, Worker


async def test_what_waits_is_counted_and_how_long_the_oldest_does(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    async with open_pool(PostgresSettings()) as pool:
        outbox = Outbox(pool)
        assert (await outbox.statistics()).oldest_task == 0
        await replica.create(upload.record(slices=2))

        waiting = await outbox.statistics()
        assert waiting.tasks == {"PENDING": 2}
        assert waiting.queued == {"builtin": 60}
        assert waiting.oldest_task > 0

        await worker.do(2)

        async def nothing_waits() -> bool:
            statistics = await outbox.statistics()
            return not statistics.tasks and not statistics.queued and statistics.oldest_task == 0

        await eventually(nothing_waits)


async def test_a_job_that_is_put_off_waits_for_nobody(replica: Replica, upload: Upload) -> None:
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    await replica.create(upload.record(slices=2), not_before=later)

    async with open_pool(PostgresSettings()) as pool:
        statistics = await Outbox(pool).statistics()

    assert statistics.tasks == {"PENDING": 2}
    assert (statistics.queued, statistics.oldest_task) == ({}, 0)


async def test_what_is_tried_again_waits_since_it_may_be(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    await replica.create(upload.record(slices=1))
    work = await worker.take()
    rows("UPDATE job.tasks SET create_time = create_time - interval '1 hour'")

    await worker.fail(work, pb.TASK_FAILURE_RETRYABLE)

    async with open_pool(PostgresSettings()) as pool:
        assert 0 < (await Outbox(pool).statistics()).oldest_task < 1800


async def test_attempts_are_counted_by_their_end_and_the_wait_for_the_first_is_measured(
    start_replica: StartReplica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    # No lease ends before the service has been there for the time of one.
    replica = await start_replica(task_lease_seconds=3)
    worker = Worker(replica.tasks, messaging)

    def attempts(end: str) -> float:
        labels = {"model": "builtin", "end": end}
        return REGISTRY.get_sample_value("steno_job_attempts_total", labels) or 0

    def waits(of: str) -> float:
        name = f"steno_job_task_wait_seconds_{of}"
        return REGISTRY.get_sample_value(name, {"model": "builtin"}) or 0

    ends = ("done", "failed", "refused", "expired", "handed_back")
    before = {end: attempts(end) for end in ends}
    waits_before, waited_before = waits("count"), waits("sum")

    def more() -> dict[str, float]:
        return {end: attempts(end) - before[end] for end in ends}

    job = await replica.create(upload.record(slices=1))
    rows("UPDATE job.tasks SET create_time = create_time - interval '1 hour'")
    failed = await worker.take()
    for _ in range(2):  # a repeat counts once
        await worker.fail(failed, pb.TASK_FAILURE_RETRYABLE)
    await worker.fail(await worker.take(), pb.TASK_FAILURE_HANDED_BACK)
    await worker.take()
    await eventually(lambda: more()["expired"] == 1)
    await worker.do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    await replica.create(upload.record(slices=1))
    await worker.fail(await worker.take(), pb.TASK_FAILURE_PERMANENT)

    assert more() == dict.fromkeys(ends, 1)
    assert waits("count") == waits_before + 2
    assert 3600 <= waits("sum") - waited_before < 3600 + 60


async def test_the_wait_of_a_task_begins_when_its_job_may(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    def waited() -> float:
        labels = {"model": "builtin"}
        return REGISTRY.get_sample_value("steno_job_task_wait_seconds_sum", labels) or 0

    before = waited()
    await replica.create(upload.record(slices=1))
    rows("UPDATE job.jobs SET not_before = now()")
    rows("UPDATE job.tasks SET create_time = create_time - interval '1 hour'")
    await worker.take()

    assert 0 <= waited() - before < 60


async def test_transactions_are_timed_also_those_that_fail(environment: dict[str, str]) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("steno_postgres_seconds_count") or 0

    async with open_pool(PostgresSettings()) as pool:
        before = count()
        async with pool.connection() as db:
            await db.execute("SELECT 1")
        with pytest.raises(psycopg.errors.SyntaxError):
            async with pool.connection() as db:
                await db.execute("SELECT FROM WHERE")

        assert count() == before + 2
