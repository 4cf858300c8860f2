"""Everything at once, on two replicas: nothing is lost, nothing is done twice, nobody deadlocks."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import grpc
import pytest

from steno.platform.loops import running
from steno.platform.messaging import TASKS, Messaging, settle, tasks_subject
from steno.v1 import job_pb2 as pb
from steno.v1.events_pb2 import TaskMessage
from steno.v1.transcript_pb2 import RecognitionConfig

from .conftest import Recording, Replica, StartReplica, Upload, Work, announce

JOBS, SLICES, WORKERS = 20, 5, 6

EXPECTED = {grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION}


async def work(
    replica: Replica,
    messaging: Messaging,
    dice: random.Random,
    unexpected: list[grpc.aio.AioRpcError],
) -> None:
    """A worker that reports, fails, vanishes and repeats itself."""
    queue = messaging.work_queue(
        TASKS, "workers-builtin", tasks_subject("builtin", "*"), TaskMessage
    )

    async def do(message: TaskMessage) -> None:
        request = pb.LeaseTaskRequest(task_id=message.task_id, worker_id="storm")
        lease = await replica.tasks.LeaseTask(request)
        work = Work(message.task_id, lease)
        luck = dice.random()
        if luck < 0.1:
            return  # as if killed: the lease runs out
        await replica.tasks.RenewTask(
            pb.RenewTaskRequest(
                task_id=work.task_id,
                attempt=lease.attempt,
                transcribed_sample_count=dice.randrange(480_000),
                language_code="en",
            )
        )
        if luck < 0.2:
            failure = dice.choice([pb.TASK_FAILURE_RETRYABLE, pb.TASK_FAILURE_HANDED_BACK])
            await replica.tasks.FailTask(
                pb.FailTaskRequest(task_id=work.task_id, attempt=lease.attempt, failure=failure)
            )
        else:
            for _ in range(dice.choice([1, 1, 2])):
                await replica.tasks.CompleteTask(work.result())

    async def forgiving(message: TaskMessage) -> None:
        try:
            await do(message)
        except grpc.aio.AioRpcError as error:
            if error.code() not in EXPECTED:
                unexpected.append(error)

    while True:
        delivery = await queue.next(timeout=0.2)
        if delivery is not None:
            await settle(delivery, forgiving)


async def prepare(recording: Recording, messaging: Messaging, dice: random.Random) -> None:
    for _ in range(SLICES):
        await asyncio.sleep(dice.random() / 10)
        recording.cut()
        await announce(messaging, recording)
    recording.finish()
    if dice.random() < 0.5:  # the news may be lost
        await announce(messaging, recording)


@pytest.mark.long
async def test_whatever_happens_at_once_every_job_ends_and_every_log_is_whole(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    dice = random.Random(2)
    replicas = [await start_replica(task_lease_seconds=1) for _ in range(2)]
    recordings = [upload.record(ready=False) for _ in range(JOBS)]
    unexpected: list[grpc.aio.AioRpcError] = []
    workers = [work(replicas[n % 2], messaging, dice, unexpected) for n in range(WORKERS)]

    async with running(*workers):
        preparing = [asyncio.create_task(prepare(each, messaging, dice)) for each in recordings]
        jobs = await asyncio.gather(
            *(
                replicas[n % 2].create(recording, config=RecognitionConfig())
                for n, recording in enumerate(recordings)
            )
        )
        watching = [
            asyncio.create_task(replicas[(n + 1) % 2].log(job)) for n, job in enumerate(jobs)
        ]
        await asyncio.gather(*preparing)
        for job in jobs[::5]:
            with suppress(grpc.aio.AioRpcError):  # it may have ended already
                await replicas[0].jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
        logs = await asyncio.wait_for(asyncio.gather(*watching), 90)

    assert not unexpected
    for n, (job, log) in enumerate(zip(jobs, logs, strict=True)):
        assert [event.revision for event in log] == list(range(1, len(log) + 1))
        said = [s.text for event in log for s in event.segments_added.segments]
        assert said == [f" Slice {index}." for index in range(len(said))]
        end = log[-1].state_changed
        if end.state == pb.JOB_STATE_CANCELLED:
            assert n % 5 == 0
            continue
        assert end.state == pb.JOB_STATE_SUCCEEDED
        assert len(said) == SLICES
        response = await replicas[0].transcript(job)
        assert [segment.text for segment in response.transcript.segments] == said
