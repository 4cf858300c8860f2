"""A row that can't be dealt with stops none of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rows import Rows
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb
from steno.v1.events_pb2 import JobEventMessage, TaskMessage
from waiting import eventually

from .conftest import Replica, StartReplica, Upload, Worker, comes, run_out
from .test_gaps import in_seconds


async def poison(
    rows: Rows,
    table: str,
    condition: str,
    when: str = "UPDATE",
    refuse: str = "job.refuse('poison')",
) -> None:
    """Makes the database refuse to change a row."""
    statement = (
        f"CREATE TRIGGER poison BEFORE {when} ON {table} FOR EACH ROW"
        f" WHEN ({condition}) EXECUTE FUNCTION {refuse}"
    )
    # In a thread: the service, which runs in this one, may just be changing the table.
    await asyncio.to_thread(rows, statement)


def set_aside(loop: str) -> float:
    return REGISTRY.get_sample_value("steno_job_rows_set_aside_total", {"loop": loop}) or 0


async def test_an_option_of_a_newer_version_stops_nothing_and_stays(
    leasing: Replica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    worker = Worker(leasing.tasks, messaging)
    job = await leasing.create(upload.record(slices=1))
    newer = "UPDATE job.jobs SET config = config - 'hotwords' || '{\"diarize\": true}'"
    await asyncio.to_thread(rows, newer)
    await run_out(rows, await worker.take())

    await worker.do(1)

    ended = await leasing.in_state(job, pb.JOB_STATE_SUCCEEDED)
    listed = (await leasing.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert [each.job_id for each in listed] == [ended.job_id]


async def test_a_retry_keeps_an_option_of_a_newer_version(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    job = await replica.create(upload.record(slices=1))
    newer = "UPDATE job.jobs SET config = config || '{\"diarize\": true}'"
    await asyncio.to_thread(rows, newer)
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))

    retry = (await replica.jobs.RetryJob(pb.RetryJobRequest(job_id=job.job_id))).job

    [row] = rows("SELECT config FROM job.jobs WHERE job_id = %s", retry.job_id)
    assert row["config"]["diarize"] is True
    assert row["config"]["model"] == "builtin"


async def test_a_lease_that_can_not_be_taken_back_leaves_the_others_theirs(
    leasing: Replica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    worker = Worker(leasing.tasks, messaging)
    for _ in range(3):
        await leasing.create(upload.record(slices=1))
    lost = [await worker.take() for _ in range(3)]
    stuck = f"OLD.task_id = '{lost[0].task_id}' AND NEW.state = 'PENDING'"
    await poison(rows, "job.tasks", stuck)
    before = set_aside("expire_leases")

    await run_out(rows, *lost)  # first the one that can't be taken back
    again = [await worker.take() for _ in range(2)]

    assert {work.task_id for work in again} == {work.task_id for work in lost[1:]}
    await eventually(lambda: set_aside("expire_leases") > before)


async def test_a_lease_that_makes_the_database_seem_away_leaves_the_others_theirs(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Were workers to be heard anew each time, the lease would be first again each time.
    monkeypatch.setattr("steno.job.aside.LONGEST_PAUSE_SECONDS", 2)
    await start_replica(task_lease_seconds=3)  # takes the leases back
    leasing = await start_replica(task_lease_seconds=600)
    worker = Worker(leasing.tasks, messaging)
    for _ in range(2):
        await leasing.create(upload.record(slices=1))
    lost = [await worker.take() for _ in range(2)]
    rows(
        "CREATE FUNCTION job.take_too_long() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'it takes too long' USING ERRCODE = 'query_canceled'; END $$"
    )
    condition = f"OLD.task_id = '{lost[0].task_id}' AND NEW.state = 'PENDING'"
    await poison(rows, "job.tasks", condition, refuse="job.take_too_long()")

    await run_out(rows, *lost)  # first the one that can't be taken back
    again = await worker.take()

    assert again.task_id == lost[1].task_id


async def test_a_late_job_that_can_not_be_ended_leaves_the_others_to_end(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    stuck, late = [
        await replica.create(upload.record(slices=1), deadline=in_seconds(3600)) for _ in range(2)
    ]
    await poison(rows, "job.jobs", f"OLD.job_id = '{stuck.job_id}' AND NEW.state = 'FAILED'")

    for job in (stuck, late):
        await comes(rows, job, "deadline")
    await replica.in_state(late, pb.JOB_STATE_FAILED)

    assert (await replica.get(stuck)).state == pb.JOB_STATE_QUEUED


async def test_an_old_job_that_can_not_be_deleted_leaves_the_others_to_go(
    start_replica: StartReplica, upload: Upload, rows: Rows
) -> None:
    before = await start_replica()
    jobs = [await before.create(upload.record()) for _ in range(3)]
    await before.stop()
    await poison(rows, "job.jobs", f"OLD.job_id = '{jobs[0].job_id}'", "DELETE")

    await start_replica(job_retention_hours=1e-9)

    def left() -> list[str]:
        return [str(row["job_id"]) for row in rows("SELECT job_id FROM job.jobs")]

    await eventually(lambda: left() == [jobs[0].job_id])


async def test_an_event_that_can_not_be_sent_leaves_the_others_to_go(
    replica: Replica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    await replica.create(upload.record())
    rows(
        "INSERT INTO job.events (job_id, revision, payload)"
        " SELECT job_id, revision + 1, 'no event' FROM job.jobs"
    )
    heard: set[str] = set()

    async def listen(messages: Any) -> None:
        async for message in messages:
            heard.add(message.event.job_id)

    async with messaging.subscribe("steno.events.job.>", JobEventMessage) as messages:
        listening = asyncio.create_task(listen(messages))
        await eventually(lambda: set_aside("relay"))
        job = await replica.create(upload.record())
        await eventually(lambda: job.job_id in heard)
        listening.cancel()


async def test_a_task_that_can_not_be_sent_leaves_the_others_to_go(
    replica: Replica, upload: Upload, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck: list[str] = []
    publish = Messaging.publish

    async def refusing(self: Messaging, subject: str, message: Any, **more: Any) -> int:
        if isinstance(message, TaskMessage):
            stuck[:] = stuck or [message.task_id]
            if message.task_id in stuck:
                raise ValueError("no such subject")
        return await publish(self, subject, message, **more)

    monkeypatch.setattr(Messaging, "publish", refusing)
    await replica.create(upload.record(slices=1))
    await eventually(lambda: stuck)
    job = await replica.create(upload.record(slices=12))

    await worker.do(12)

    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
