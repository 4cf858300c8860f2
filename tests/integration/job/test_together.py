"""Calls of the same moment share transactions, and nothing else."""

from __future__ import annotations

import asyncio
import uuid

import grpc

from rows import Rows
from steno.v1 import job_pb2 as pb

from .conftest import Replica, Upload, Work, refusal

JOBS = 60


async def jobs_with_tasks(replica: Replica, upload: Upload, rows: Rows) -> list[str]:
    """Jobs of one slice, made at once; returns the ids of their tasks."""
    recording = upload.record(slices=1)
    await asyncio.gather(*(replica.create(recording) for _ in range(JOBS)))
    return [str(row["task_id"]) for row in rows("SELECT task_id FROM job.tasks")]


async def lease(replica: Replica, task_id: str) -> Work:
    request = pb.LeaseTaskRequest(task_id=task_id, worker_id="worker")
    return Work(task_id, await replica.tasks.LeaseTask(request))


def transactions(rows: Rows) -> int:
    """How many there were that wrote the jobs as they are now: as many as jobs if none is shared.

    How few depends on how closely the calls follow one another, and so on the machine.
    """
    [row] = rows("SELECT count(DISTINCT xmin::text) AS count FROM job.jobs")
    return int(row["count"])


async def test_jobs_leases_and_completions_of_a_moment_share_transactions(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    tasks = await jobs_with_tasks(replica, upload, rows)
    assert transactions(rows) < JOBS

    leased = await asyncio.gather(*(lease(replica, task_id) for task_id in tasks))
    assert transactions(rows) < JOBS

    await asyncio.gather(*(replica.tasks.CompleteTask(work.result()) for work in leased))
    assert transactions(rows) < JOBS
    done = rows("SELECT state, count(*) FROM job.jobs GROUP BY state")
    assert done == [{"state": "SUCCEEDED", "count": JOBS}]


async def test_a_call_that_is_refused_spoils_none_of_the_others(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    taken, *free = await jobs_with_tasks(replica, upload, rows)
    await lease(replica, taken)

    (refused, unknown), leased = await asyncio.gather(
        asyncio.gather(refusal(lease(replica, taken)), refusal(lease(replica, str(uuid.uuid4())))),
        asyncio.gather(*(lease(replica, task_id) for task_id in free)),
    )

    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "TASK_LEASED")
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert {work.task_id for work in leased} == {*free}


async def test_slices_of_one_job_are_leased_and_completed_at_once(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    job = await replica.create(upload.record(slices=12))
    tasks = [str(row["task_id"]) for row in rows("SELECT task_id FROM job.tasks")]

    leased = await asyncio.gather(*(lease(replica, task_id) for task_id in tasks))
    await asyncio.gather(*(replica.tasks.CompleteTask(work.result()) for work in leased))

    assert sorted(work.index for work in leased) == [*range(12)]
    text = (await replica.transcript(job)).transcript.text
    assert text.split("Slice ")[1:] == [f"{index}. " for index in range(11)] + ["11."]
    log = await replica.log(job)
    assert [event.revision for event in log] == [*range(1, len(log) + 1)]
