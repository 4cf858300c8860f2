"""Tenants share the workers, and none can fill the queue for the others."""

from __future__ import annotations

import grpc
import pytest

from rows import Rows
from steno.platform.messaging import Messaging
from steno.platform.tenancy import tenant_in
from steno.v1 import job_pb2 as pb
from waiting import eventually

from .conftest import Replica, StartReplica, Upload, Worker, refusal

WAITING = 8
"""Messages that the queue holds already when a job comes: see dispatch.py."""


async def queue_is_full(rows: Rows) -> None:
    """Waits until the queue holds as many messages as it may."""
    queued = (
        "SELECT task_id FROM job.tasks WHERE state = 'PENDING' AND message_sequence IS NOT NULL"
    )
    await eventually(lambda: len(rows(queued)) == WAITING)


async def test_a_tenant_with_one_job_gets_half_of_the_workers_beside_one_with_many(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    with tenant_in("hoarder"):
        for _ in range(6):
            await replica.create(upload.record(slices=5))
    await queue_is_full(rows)
    with tenant_in("modest"):
        job = await replica.create(upload.record(slices=8))

    owners = []
    for _ in range(WAITING + 16):
        work = await worker.take()
        owners.append(work.lease.job_id == job.job_id)
        await worker.complete(work)

    # The first ones were in the queue before, and count: what comes then is hers until she is even.
    assert not any(owners[:WAITING])
    assert sum(owners[WAITING:]) == 8
    assert (await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)).tenant == "modest"


async def test_a_priority_goes_before_the_shares_of_tenants_but_for_its_own_share(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    with tenant_in("first"):
        await replica.create(upload.record(slices=2 * WAITING))
    await queue_is_full(rows)
    with tenant_in("second"):
        low = await replica.create(upload.record(slices=4), priority=pb.JOB_PRIORITY_LOW)

    taken = []
    for _ in range(2 * WAITING + 4):
        work = await worker.take()
        taken.append(work.lease.job_id)
        await worker.complete(work)

    assert taken[:WAITING].count(low.job_id) == 0
    assert taken[-1] == low.job_id


async def test_a_tenant_at_its_limit_is_told_when_to_come_again_and_others_go_on(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(job_tenant_max_unfinished=2)
    recording = upload.record(slices=1)
    with tenant_in("eager"):
        accepted = [await replica.create(recording) for _ in range(2)]
        failure = await refusal(replica.create(recording))
    with tenant_in("patient"):
        other = await replica.create(recording)

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.message == "too many jobs wait already for tenant eager"
    assert failure.retry_delay is not None
    await Worker(replica.tasks, messaging).do(3)
    for job in (*accepted, other):
        await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_a_tenant_with_too_many_hours_waits_alone(
    start_replica: StartReplica, upload: Upload
) -> None:
    replica = await start_replica(job_tenant_max_queued_hours=0.01)  # 36 s
    with tenant_in("eager"):
        await replica.create(upload.record(slices=2))
        failure = await refusal(replica.create(upload.record(slices=1)))

    assert failure.message == "too many hours of audio wait already for tenant eager"
    assert (await replica.create(upload.record(slices=1))).tenant == "default"


async def test_jobs_are_listed_and_repeated_within_their_tenant(
    replica: Replica, upload: Upload
) -> None:
    recording = upload.record(slices=1)
    request_id = "0b8a4d5c-3a0e-4d6c-9a5e-2f1d6f3f7c11"
    made = {}
    for name in ("one", "two"):
        with tenant_in(name):
            made[name] = await replica.create(recording, request_id=request_id)
            assert await replica.create(recording, request_id=request_id) == made[name]

    assert made["one"].job_id != made["two"].job_id
    for name, job in made.items():
        with tenant_in(name):
            listed = (await replica.jobs.ListJobs(pb.ListJobsRequest())).jobs
        assert [each.job_id for each in listed] == [job.job_id]
    assert not (await replica.jobs.ListJobs(pb.ListJobsRequest())).jobs


@pytest.mark.parametrize("name", ["", "Capital", "two words", "x" * 64, "-dash"])
async def test_what_is_no_name_of_a_tenant_is_refused(replica: Replica, name: str) -> None:
    call = replica.jobs.ListJobs(pb.ListJobsRequest(), metadata=[("x-steno-tenant", name)])

    failure = await refusal(call)

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in failure.violations] == ["x-steno-tenant"]
