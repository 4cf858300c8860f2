"""Watching: each revision once and in order, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc

from rows import Rows
from steno.job.watch import WATCHERS
from steno.local.servers import LocalServers
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb
from steno.v1.events_pb2 import JobEventMessage
from waiting import eventually

from .conftest import Replica, StartReplica, Upload, Worker, refusal


async def revisions(replica: Replica, job: pb.Job, after: int = 0) -> list[int]:
    return [event.revision for event in await replica.log(job, after)]


async def first_event(stream: Any) -> pb.JobEvent:
    async for response in stream:
        if response.HasField("event"):
            return response.event  # type: ignore[no-any-return]
    raise AssertionError("the stream ended")


async def test_a_watcher_sees_state_progress_and_segments_in_order(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=2))
    watching = asyncio.create_task(replica.log(job))
    await worker.do(2)

    log = await watching

    assert [event.WhichOneof("change") for event in log] == [
        "state_changed",  # QUEUED
        "state_changed",  # RUNNING
        "segments_added",
        "progressed",
        "segments_added",
        "state_changed",  # SUCCEEDED
    ]
    assert [event.revision for event in log] == [1, 2, 3, 4, 5, 6]
    times = [event.time.ToNanoseconds() for event in log]
    assert times == sorted(times)
    assert log[-1].state_changed.revision == 6


async def test_segments_come_in_order_though_slices_are_done_in_any(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3))
    works = [await worker.take() for _ in range(3)]
    for work in reversed(works):
        await worker.complete(work)

    log = await replica.log(job)

    said = [s.text for event in log for s in event.segments_added.segments]
    assert said == [" Slice 0.", " Slice 1.", " Slice 2."]
    assert [s.index for event in log for s in event.segments_added.segments] == [0, 1, 2]


async def test_what_is_not_in_the_log_is_told_to_nobody(
    replica: Replica, upload: Upload, worker: Worker, messaging: Messaging
) -> None:
    job = await replica.create(upload.record(slices=1))
    watching = asyncio.create_task(replica.log(job))
    work = await worker.take()
    await eventually(lambda: WATCHERS._value.get() == 1)
    await replica.in_state(job, pb.JOB_STATE_RUNNING)

    for revision in (3, 4, 99):
        forged = pb.JobEvent(job_id=job.job_id, revision=revision)
        forged.segments_added.segments.add(text=" Forged.")
        subject = f"steno.events.job.{job.job_id}"
        await messaging.publish(subject, JobEventMessage(event=forged))
    await messaging.publish(subject, JobEventMessage(event=pb.JobEvent(job_id="none", revision=1)))
    await worker.complete(work)
    log = await watching

    assert [event.revision for event in log] == [1, 2, 3, 4]
    assert [s.text for event in log for s in event.segments_added.segments] == [" Slice 0."]


async def test_a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice(
    start_replica: StartReplica, upload: Upload, messaging: Any
) -> None:
    here, there = await start_replica(), await start_replica()
    worker = Worker(here.tasks, messaging)
    job = await here.create(upload.record(slices=6))
    seen: list[int] = []
    work = asyncio.create_task(worker.do(6))

    # Watch one event at a time, each time on the other replica.
    replicas = [here, there] * 20
    while not seen or (await here.get(job)).revision != seen[-1]:
        stream = replicas[len(seen)].watch(job, seen[-1] if seen else 0)
        seen.append((await first_event(stream)).revision)
        stream.cancel()
    await work
    seen += await revisions(there, job, seen[-1])

    assert seen == list(range(1, len(seen) + 1))
    assert (await there.get(job)).revision == seen[-1]


async def test_a_watcher_misses_nothing_while_nats_is_away_and_wiped(
    replica: Replica, upload: Upload, worker: Worker, servers: LocalServers
) -> None:
    job = await replica.create(upload.record(slices=4))
    works = [await worker.take() for _ in range(4)]
    watching = asyncio.create_task(revisions(replica, job))
    await worker.complete(works[0])

    await servers.nats.kill()
    await worker.complete(works[1])
    servers.nats.wipe()
    await servers.nats.start()
    await worker.complete(works[2])
    await worker.complete(works[3])

    seen = await watching
    assert seen == list(range(1, len(seen) + 1))
    assert (await replica.get(job)).revision == len(seen)


async def test_a_watcher_of_a_dead_nats_is_only_slower(
    replica: Replica, upload: Upload, worker: Worker, servers: LocalServers
) -> None:
    job = await replica.create(upload.record(slices=1))
    work = await worker.take()
    await servers.nats.kill()

    watching = asyncio.create_task(replica.log(job))
    await worker.complete(work)
    log = await watching
    await servers.nats.start()

    assert log[-1].state_changed.state == pb.JOB_STATE_SUCCEEDED


async def test_events_come_at_once_and_not_with_the_next_look_at_the_database(
    start_replica: StartReplica, upload: Upload, messaging: Any
) -> None:
    replica = await start_replica(job_status_seconds=3600)
    worker = Worker(replica.tasks, messaging)
    job = await replica.create(upload.record(slices=2))
    watching = asyncio.create_task(replica.log(job))
    await worker.do(2)

    log = await asyncio.wait_for(watching, 60)

    assert log[-1].state_changed.state == pb.JOB_STATE_SUCCEEDED


async def test_a_job_that_has_ended_is_replayed_and_the_stream_ends(
    replica: Replica, upload: Upload
) -> None:
    job = await replica.create(upload.record(slices=0))

    assert await revisions(replica, job) == [1, 2]
    assert await revisions(replica, job, after=1) == [2]
    assert await revisions(replica, job, after=2) == []


async def test_many_watchers_of_one_job_see_the_same(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3))
    watching = [asyncio.create_task(revisions(replica, job)) for _ in range(100)]
    await worker.do(3)

    seen = await asyncio.gather(*watching)

    assert all(each == seen[0] for each in seen)
    assert seen[0] == list(range(1, len(seen[0]) + 1))


async def test_between_events_a_watcher_learns_its_place_in_the_queue(
    replica: Replica, upload: Upload
) -> None:
    ahead = await replica.create(upload.record(slices=1))
    job = await replica.create(upload.record(slices=1))
    stream = replica.watch(job)
    statuses: list[pb.JobProgress] = []

    async def read() -> None:
        async for response in stream:
            if response.HasField("status"):
                statuses.append(response.status)

    reading = asyncio.create_task(read())
    await eventually(lambda: statuses)
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=ahead.job_id))
    await eventually(lambda: len(statuses) > 1)
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
    await reading

    # Only what has changed is sent.
    assert [status.queue_position for status in statuses] == [1, 0]


async def test_a_job_that_is_deleted_while_watched_ends_the_stream(
    replica: Replica, upload: Upload, rows: Rows
) -> None:
    job = await replica.create(upload.record(slices=1))
    stream = replica.watch(job)
    assert (await first_event(stream)).revision == 1

    # In one transaction, so that the watcher has no chance to see the job's end. In a thread: the
    # service, which runs in this one, may just hold a lock on the row.
    delete = "UPDATE job.jobs SET state = 'CANCELLED', end_time = now(); DELETE FROM job.jobs"
    await asyncio.to_thread(rows, delete)

    failure = await refusal(first_event(stream))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_only_jobs_and_revisions_that_are_there_can_be_watched(
    replica: Replica, upload: Upload
) -> None:
    job = await replica.create(upload.record(slices=1))

    unknown = await refusal(first_event(replica.watch(pb.Job(job_id=str(uuid.uuid4())))))
    beyond = await refusal(first_event(replica.watch(job, after_revision=99)))

    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert beyond.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in beyond.violations] == ["after_revision"]
