"""A job ends by its deadline; one that allows gaps leaves out what can't be transcribed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rows import Rows
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb

from .conftest import Replica, StartReplica, Upload, Worker, comes, refusal


def in_seconds(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return stamp


async def test_a_slice_that_always_fails_becomes_a_gap_where_gaps_are_allowed(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=2)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=3), allow_gaps=True)

    for _ in range(2 + 2 + 2):  # two slices, and one that fails beside others and alone
        work = await worker.take()
        if work.index == 1:
            await worker.fail(work, pb.TASK_FAILURE_RETRYABLE, "out of memory")
        else:
            await worker.complete(work)
    ended = (await replica.log(job))[-1].state_changed

    assert ended.state == pb.JOB_STATE_SUCCEEDED
    assert ended.failed_slice_count == 1
    assert ended.error.reason == "SLICE_FAILED"
    assert ended.error.message == "slice 1 could not be transcribed: out of memory"
    assert ended.coverage.gap_duration.seconds == 30
    transcript = (await replica.transcript(job)).transcript
    assert transcript.text == "Slice 0. Slice 2."
    [gap] = transcript.coverage.gaps
    assert (gap.start_offset.seconds, gap.end_offset.seconds) == (30, 60)


async def test_lost_workers_leave_no_slice_out_though_gaps_are_allowed(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=1, task_lease_seconds=0.1)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=1), allow_gaps=True)

    for _ in range(2 + 2):  # beside others, and alone
        await worker.take()  # and falls silent
    again = await worker.take()

    assert again.lease.alone
    running = await replica.get(job)
    assert (running.state, running.failed_slice_count) == (pb.JOB_STATE_RUNNING, 0)


async def test_a_retry_tries_only_what_was_left_out(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=1)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=2), allow_gaps=True)
    while (await replica.get(job)).state != pb.JOB_STATE_SUCCEEDED:
        work = await worker.take()
        if work.index == 0:
            await worker.fail(work, pb.TASK_FAILURE_RETRYABLE, "out of memory")
        else:
            await worker.complete(work)

    retry = (await replica.jobs.RetryJob(pb.RetryJobRequest(job_id=job.job_id))).job
    await worker.do(1)

    assert (await replica.in_state(retry, pb.JOB_STATE_SUCCEEDED)).failed_slice_count == 0
    assert (await replica.transcript(retry)).transcript.text == "Slice 0. Slice 1."
    failure = await refusal(replica.jobs.RetryJob(pb.RetryJobRequest(job_id=retry.job_id)))
    assert failure.reason == "JOB_NOT_RETRYABLE"


async def test_a_job_of_which_nothing_can_be_transcribed_fails_though_gaps_are_allowed(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(task_max_failures=1)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=2), allow_gaps=True)

    for _ in range(2 * (2 + 1)):  # beside others, and alone
        await worker.fail(await worker.take(), pb.TASK_FAILURE_RETRYABLE, "out of memory")

    assert (await replica.in_state(job, pb.JOB_STATE_FAILED)).error.reason == "SLICE_FAILED"


async def test_what_the_model_refuses_fails_the_job_though_gaps_are_allowed(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=2), allow_gaps=True)

    await worker.fail(await worker.take(), pb.TASK_FAILURE_PERMANENT, "task: can't translate")

    failed = await replica.in_state(job, pb.JOB_STATE_FAILED)
    assert failed.error.message == "slice 0 could not be transcribed: task: can't translate"


async def test_a_job_that_has_not_ended_by_its_deadline_fails_and_keeps_what_is_done(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    job = await replica.create(upload.record(slices=2), deadline=in_seconds(3600))
    await worker.do(1)
    held = await worker.take()

    await comes(rows, job, "deadline")
    failed = (await replica.log(job))[-1].state_changed

    assert (failed.state, failed.error.reason) == (pb.JOB_STATE_FAILED, "DEADLINE_EXCEEDED")
    deadline = (await replica.get(job)).deadline
    assert job.deadline.ToDatetime() > failed.end_time.ToDatetime() >= deadline.ToDatetime()
    assert (await worker.renew(held)).cancelled
    partial = await replica.transcript(job, allow_partial=True)
    assert partial.transcript.text == "Slice 0."


async def test_a_job_that_ends_in_time_is_not_touched_by_its_deadline(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    early = await replica.create(upload.record(slices=1), deadline=in_seconds(3600))
    await worker.do(1)
    await replica.in_state(early, pb.JOB_STATE_SUCCEEDED)
    late = await replica.create(upload.record(slices=1), deadline=in_seconds(3600))

    rows(
        "SET session_replication_role = replica;"  # the job has ended, so triggers refuse it
        f"UPDATE job.jobs SET deadline = now() WHERE job_id = '{early.job_id}'"
    )
    await comes(rows, late, "deadline")
    await replica.in_state(late, pb.JOB_STATE_FAILED)

    assert (await replica.get(early)).state == pb.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("deadline", "not_before"),
    [(in_seconds(-1), None), (in_seconds(3600), in_seconds(7200))],
    ids=["over", "before the start"],
)
async def test_a_deadline_that_can_not_be_met_is_refused(
    replica: Replica, upload: Upload, deadline: Timestamp, not_before: Timestamp | None
) -> None:
    recording = upload.record(slices=1)

    failure = await refusal(replica.create(recording, deadline=deadline, not_before=not_before))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in failure.violations] == ["deadline"]
