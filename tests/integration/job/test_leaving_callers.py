"""What a caller is told stays true, though others go away while they are being answered."""

from __future__ import annotations

import asyncio
import uuid

from leaving_callers import callers_that_leave
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb

from .conftest import StartReplica, Upload, Worker

ROUNDS = 6
AT_ONCE = 5


async def test_jobs_and_results_that_were_taken_in_stay(
    upload: Upload, start_replica: StartReplica, messaging: Messaging
) -> None:
    replica = await start_replica(postgres_pool_size=3)
    worker = Worker(replica.tasks, messaging)
    done = await replica.create(upload.record(1))
    await worker.do(1)
    await replica.in_state(done, pb.JOB_STATE_SUCCEEDED)
    empty = upload.record(0)

    async def read() -> None:
        await replica.transcript(done)

    async def create() -> None:
        request = pb.CreateJobRequest(audio_id=empty.audio_id, request_id=str(uuid.uuid4()))
        await replica.jobs.BatchCreateJobs(pb.BatchCreateJobsRequest(requests=[request]))

    jobs: list[pb.Job] = []
    async with callers_that_leave(read, read, create):
        for _ in range(ROUNDS):
            created = await asyncio.gather(
                *(replica.create(upload.record(1)) for _ in range(AT_ONCE))
            )
            for job in created:
                await replica.get(job)
            await worker.do(AT_ONCE)
            jobs += created

    states = {(await replica.get(job)).state for job in jobs}
    assert states == {pb.JOB_STATE_SUCCEEDED}
    assert len(jobs) == ROUNDS * AT_ONCE
