"""Which task is started next: by priority, and fairly between jobs."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rows import Rows
from steno.platform.tenancy import tenant_in
from steno.v1 import job_pb2 as pb
from waiting import eventually

from .conftest import Replica, Upload, Worker, comes, refusal

BEFORE_THEM = 8
"""Messages that the queue holds at most before a worker has done anything."""


async def order(worker: Worker, count: int) -> list[str]:
    """Takes and completes so many tasks; returns their jobs."""
    jobs = []
    for _ in range(count):
        work = await worker.take()
        jobs.append(work.lease.job_id)
        await worker.complete(work)
    return jobs


async def test_a_short_recording_does_not_wait_for_a_long_one_to_end(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    long = await replica.create(upload.record(slices=40))
    short = await replica.create(upload.record(slices=1))

    assert short.job_id in await order(worker, 2 * BEFORE_THEM)
    assert (await replica.get(long)).state == pb.JOB_STATE_RUNNING


async def test_jobs_that_wait_together_advance_at_one_pace(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    first = await replica.create(upload.record(slices=24))
    second = await replica.create(upload.record(slices=24))

    taken = await order(worker, 32)

    assert abs(taken.count(first.job_id) - taken.count(second.job_id)) <= BEFORE_THEM


async def test_a_job_that_comes_while_nothing_of_its_line_is_started_joins_the_one_that_waits(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    old = await replica.create(upload.record(slices=BEFORE_THEM + 24))
    await order(worker, BEFORE_THEM)
    await replica.create(upload.record(slices=40), priority=pb.JOB_PRIORITY_HIGH)
    sent = (
        "SELECT task_id FROM job.tasks WHERE priority = 2"
        " AND (state = 'LEASED' OR state = 'PENDING' AND message_sequence IS NOT NULL)"
    )
    urgent = 40
    while await asyncio.to_thread(rows, sent):
        urgent -= (await order(worker, 1))[0] != old.job_id

    new = await replica.create(upload.record(slices=BEFORE_THEM))
    taken = (await order(worker, urgent + 2 * BEFORE_THEM))[urgent:]

    assert urgent > 0, "the line waited behind what goes before it"
    assert abs(taken[:BEFORE_THEM].count(old.job_id) - BEFORE_THEM / 2) <= 1
    assert taken.count(new.job_id) >= BEFORE_THEM - 1


async def test_a_high_priority_goes_before_all_and_a_low_one_after_all_but_for_its_share(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    low = await replica.create(upload.record(slices=8), priority=pb.JOB_PRIORITY_LOW)
    normal = await replica.create(upload.record(slices=24))
    high = await replica.create(upload.record(slices=4), priority=pb.JOB_PRIORITY_HIGH)

    taken = await order(worker, 36)

    # What the queue held already when the job came is not called back.
    assert max(place for place, job in enumerate(taken) if job == high.job_id) < BEFORE_THEM + 6
    last = max(place for place, job in enumerate(taken) if job == normal.job_id)
    beside_others = taken[BEFORE_THEM:last].count(low.job_id)
    assert beside_others <= (last + BEFORE_THEM) / 8 + 1
    assert taken.count(normal.job_id) == 24
    assert [job.priority for job in (low, normal, high)] == [
        pb.JOB_PRIORITY_LOW, pb.JOB_PRIORITY_NORMAL, pb.JOB_PRIORITY_HIGH,
    ]  # fmt: skip


async def test_a_low_priority_advances_however_much_there_is_of_a_high_one(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    await replica.create(upload.record(slices=100), priority=pb.JOB_PRIORITY_HIGH)
    low = await replica.create(upload.record(slices=4), priority=pb.JOB_PRIORITY_LOW)

    taken = await order(worker, 4 * 8 + 2 * BEFORE_THEM)

    assert taken.count(low.job_id) >= 3
    assert taken[:BEFORE_THEM].count(low.job_id) == 0


async def test_a_low_priority_advances_though_its_slices_are_longer_than_its_share(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    short, long = upload.record(), upload.record()
    short.cut(60, seconds=10)
    long.cut(2, seconds=60)
    await replica.create(short, priority=pb.JOB_PRIORITY_HIGH)
    low = await replica.create(long, priority=pb.JOB_PRIORITY_LOW)

    taken = await order(worker, 3 * BEFORE_THEM)

    assert taken.count(low.job_id) == 1


async def test_nothing_is_started_before_its_time(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    deferred, _ = [
        await replica.create(upload.record(slices=1), not_before=in_an_hour) for _ in range(2)
    ]

    assert await worker.is_idle()
    assert not (await replica.get(deferred)).progress.HasField("queue_position")
    await comes(rows, deferred, "not_before")
    assert (await worker.take()).lease.job_id == deferred.job_id
    assert await worker.is_idle()


async def test_a_job_does_not_take_room_for_longer_than_is_allowed(
    replica: Replica, upload: Upload
) -> None:
    recording = upload.record(slices=1)
    far = Timestamp()
    far.FromDatetime(datetime.now(UTC) + timedelta(days=31))
    request = pb.CreateJobRequest(audio_id=recording.audio_id, not_before=far)

    alone = await refusal(replica.jobs.CreateJob(request))
    among_others = await refusal(
        replica.jobs.BatchCreateJobs(
            pb.BatchCreateJobsRequest(
                requests=[pb.CreateJobRequest(audio_id=recording.audio_id), request]
            )
        )
    )

    assert alone.message == "not_before: must be at most 30 days ahead; make the job later"
    assert [violation.field for violation in among_others.violations] == ["requests[1].not_before"]


async def test_the_time_left_of_one_priority_is_on_average_within_a_quarter_of_what_then_happens(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    await replica.create(upload.record(slices=2))
    await order(worker, 2)
    slow = "UPDATE job.tasks SET lease_time = end_time - interval '10 s' WHERE state = 'DONE'"
    await asyncio.to_thread(rows, slow)
    dice = random.Random(4)
    lengths = [dice.choice([1, 3, 8, 15, 25]) for _ in range(14)]
    jobs = []
    for length in lengths:
        with tenant_in(dice.choice(["one", "two", "three"])):
            jobs.append(await replica.create(upload.record(slices=length)))

    estimates = {
        job.job_id: (await replica.get(job)).progress.remaining_duration.ToTimedelta()
        / timedelta(seconds=10)
        for job in jobs
    }
    taken = await order(worker, sum(lengths))

    ends = {job_id: place for place, job_id in enumerate(taken, 1)}
    errors = [abs(estimates[job_id] - end) for job_id, end in ends.items()]
    assert sum(errors) / sum(ends.values()) < 0.25, (estimates, ends)


async def test_the_time_left_counts_what_other_jobs_get_meanwhile(
    replica: Replica, upload: Upload, worker: Worker, rows: Rows
) -> None:
    long = await replica.create(upload.record(slices=20))
    await order(worker, 2)
    slow = "UPDATE job.tasks SET lease_time = end_time - interval '10 s' WHERE state = 'DONE'"
    await asyncio.to_thread(rows, slow)
    sent = "SELECT count(*) AS sent FROM job.tasks WHERE state = 'PENDING' AND message_sequence > 0"
    await eventually(lambda: rows(sent)[0]["sent"] == BEFORE_THEM)
    short = await replica.create(upload.record(slices=1))
    urgent = await replica.create(upload.record(slices=1), priority=pb.JOB_PRIORITY_HIGH)

    unprepared = await replica.create(upload.record(slices=0, ready=False))

    left = {
        job.job_id: (await replica.get(job)).progress.remaining_duration.ToTimedelta()
        for job in (long, short, urgent, unprepared)
    }

    # The urgent one has what was sent before it came, the short one that too and a slice of both
    # the others, the long one all.
    slices = {job_id: time / timedelta(seconds=10) for job_id, time in left.items()}
    assert 1 <= slices[urgent.job_id] <= BEFORE_THEM + 1
    assert slices[urgent.job_id] + 1 <= slices[short.job_id] <= BEFORE_THEM + 3
    assert slices[long.job_id] == pytest.approx(20, rel=0.1)
    assert slices[unprepared.job_id] >= BEFORE_THEM
