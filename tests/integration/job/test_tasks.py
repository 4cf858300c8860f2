"""What the job service promises to workers, and how it stands their failures."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import grpc
import pytest

from rows import Rows
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb
from waiting import eventually

from .conftest import Replica, StartReplica, Upload, Work, Worker, refusal, run_out


async def lease_again(worker: Worker, work: Work) -> Work:
    """Leases the task once more, past the queue."""
    lease = await worker.tasks.LeaseTask(
        pb.LeaseTaskRequest(task_id=work.task_id, worker_id="another")
    )
    return Work(work.task_id, lease)


async def test_a_lease_tells_what_to_do(replica: Replica, upload: Upload, worker: Worker) -> None:
    recording = upload.record(slices=1)
    job = await replica.create(recording)

    lease = (await worker.take()).lease

    assert lease.job_id == job.job_id
    assert lease.attempt == 1
    assert lease.lease_duration.seconds == 30
    assert lease.slice == recording.slices[0]
    assert (lease.config.model, lease.config.language_code) == ("builtin", "en")
    running = await replica.get(job)
    assert running.state == pb.JOB_STATE_RUNNING
    assert running.HasField("start_time")


async def test_a_worker_that_lost_its_lease_changes_nothing(
    leasing: Replica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    worker = Worker(leasing.tasks, messaging)
    job = await leasing.create(upload.record(slices=1))
    lost = await worker.take()

    await run_out(rows, lost)
    held = await worker.take()  # another worker got the task
    before = await leasing.get(job)
    for call in (
        worker.renew(lost, seconds=20, language="fr"),
        worker.complete(lost, text="from the dead"),
        worker.fail(lost, pb.TASK_FAILURE_PERMANENT),
    ):
        failure = await refusal(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "STALE_LEASE")

    assert held.lease.attempt == 2
    assert await leasing.get(job) == before
    await worker.complete(held)
    assert (await leasing.transcript(job)).transcript.text == "Slice 0."


async def test_a_lease_that_is_renewed_stays(
    leasing: Replica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    worker = Worker(leasing.tasks, messaging)
    job = await leasing.create(upload.record(slices=1))
    work = await worker.take()
    older = "UPDATE job.tasks SET lease_expire_time = lease_expire_time - interval '400 s'"

    for _ in range(4):
        # As if most of a lease of ten minutes had passed; together it is more than one.
        await asyncio.to_thread(rows, older)
        assert await worker.is_idle()  # nobody else is given the task meanwhile
        await worker.renew(work)
    await worker.complete(work)

    await leasing.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_a_task_is_leased_to_one_worker_at_a_time(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    await replica.create(upload.record(slices=1))
    work = await worker.take()

    while_held = await refusal(lease_again(worker, work))
    await worker.complete(work)
    when_done = await refusal(lease_again(worker, work))

    assert (while_held.code, while_held.reason) == (grpc.StatusCode.ABORTED, "TASK_LEASED")
    assert (when_done.code, when_done.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TASK_NOT_PENDING",
    )


async def test_a_lease_is_answered_again_to_the_call_that_took_it(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    await replica.create(upload.record(slices=1))
    [row] = rows("SELECT task_id FROM job.tasks")

    def lease(worker_id: str, request_id: str) -> Any:
        return replica.tasks.LeaseTask(
            pb.LeaseTaskRequest(
                task_id=str(row["task_id"]), worker_id=worker_id, request_id=request_id
            )
        )

    call, another = str(uuid.uuid4()), str(uuid.uuid4())
    first = await lease("worker", call)
    again = await lease("worker", call)
    refusals = [
        await refusal(lease("another", another)),
        await refusal(lease("another", call)),
        await refusal(lease("worker", another)),
    ]

    assert again == first
    assert again.attempt == 1
    assert {failure.reason for failure in refusals} == {"TASK_LEASED"}


async def test_a_task_that_failed_twice_is_to_be_tried_alone(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    await replica.create(upload.record(slices=1))

    alone = []
    for failure in (
        pb.TASK_FAILURE_HANDED_BACK,
        pb.TASK_FAILURE_RETRYABLE,
        pb.TASK_FAILURE_RETRYABLE,
        pb.TASK_FAILURE_HANDED_BACK,
    ):
        work = await worker.take()
        alone.append(work.lease.alone)
        await worker.fail(work, failure)

    assert alone == [False, False, False, True]


async def test_a_task_that_is_not_there_is_said_so(replica: Replica) -> None:
    task_id = str(uuid.uuid4())

    lease = await refusal(
        replica.tasks.LeaseTask(pb.LeaseTaskRequest(task_id=task_id, worker_id="w"))
    )
    renewal = await refusal(
        replica.tasks.RenewTask(pb.RenewTaskRequest(task_id=task_id, attempt=1))
    )

    assert (lease.code, lease.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert (renewal.code, renewal.reason) == (grpc.StatusCode.ABORTED, "STALE_LEASE")


async def test_completing_a_task_again_changes_nothing(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=2))
    work = await worker.take()
    await worker.complete(work)
    before = await replica.get(job)

    await worker.complete(work, text="something else")

    assert await replica.get(job) == before
    partial = await replica.transcript(job, allow_partial=True)
    assert partial.transcript.text == "Slice 0."


async def test_a_task_that_failed_is_tried_again(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=1))

    await worker.fail(await worker.take(), pb.TASK_FAILURE_RETRYABLE, "out of memory")
    await worker.do(1)

    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_a_task_that_fails_too_often_fails_its_job(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=3)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=2))
    other = None
    for _ in range(2 + 3):  # beside others, and alone
        work = await worker.take()
        if work.index == 1:
            other, work = work, await worker.take()
        await worker.fail(work, pb.TASK_FAILURE_RETRYABLE, "out of memory")

    failed = await replica.in_state(job, pb.JOB_STATE_FAILED)

    assert failed.error.reason == "SLICE_FAILED"
    assert failed.error.message == "slice 0 could not be transcribed: out of memory"
    assert other is not None
    assert (await worker.renew(other)).cancelled


async def test_workers_that_keep_dying_fail_no_job_and_it_is_said_why_it_waits(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=1, task_lease_seconds=0.1)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=1))

    async def tries() -> pb.RetriedSlices:
        return (await replica.get(job)).progress.retried

    for count in range(1, 5):
        lost = await worker.take()

        async def lost_again(count: int = count) -> bool:
            return (await tries()).failure_count == count

        await eventually(lost_again)
    told = await tries()
    async for response in replica.watch(job):
        if response.status.HasField("retried"):
            break

    assert lost.lease.alone
    assert "fell silent" in told.last_error
    assert (told.slice_count, told.slice_index, told.HasField("next_attempt_time")) == (1, 0, True)
    assert response.status.retried.failure_count >= told.failure_count
    cancelled = (await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))).job
    assert cancelled.state == pb.JOB_STATE_CANCELLED


async def test_a_task_that_waits_for_its_next_try_is_not_leased_by_an_old_message(
    start_replica: StartReplica,
    upload: Upload,
    messaging: Messaging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steno.job.domain.FIRST_PAUSE", timedelta(hours=1))
    replica = await start_replica(task_max_pause_seconds=3600)
    worker = Worker(replica.tasks, messaging)
    await replica.create(upload.record(slices=1))
    for _ in range(2):
        work = await worker.take()
        await worker.fail(work, pb.TASK_FAILURE_RETRYABLE)

    early = await refusal(lease_again(worker, work))

    assert (early.code, early.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TASK_NOT_PENDING",
    )


async def test_a_task_that_is_handed_back_has_not_failed(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=1)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=1))

    for _ in range(3):
        await worker.fail(await worker.take(), pb.TASK_FAILURE_HANDED_BACK)
    await worker.do(1)

    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_failing_a_task_again_counts_once(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=1)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=1))
    work = await worker.take()

    for _ in range(5):
        await worker.fail(work, pb.TASK_FAILURE_RETRYABLE)
    await worker.do(1)

    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_no_progress_is_lost_when_a_slice_begins_anew(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=1))
    first = await worker.take()
    await worker.renew(first, seconds=24)
    await worker.fail(first, pb.TASK_FAILURE_HANDED_BACK)

    second = await worker.take()
    await worker.renew(second, seconds=3)

    assert (await replica.get(job)).progress.fraction == pytest.approx(0.8)


async def test_a_language_that_is_none_is_refused_and_the_task_stays_with_its_worker(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=1))
    work = await worker.take()

    failure = await refusal(replica.tasks.CompleteTask(work.result(language="\0")))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {v.field for v in failure.violations} == {"transcript.language_code"}
    await worker.complete(work)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
