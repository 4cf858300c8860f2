"""A transcript that takes long to write keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rows import Rows
from steno.job import transcripts
from steno.platform.messaging import Messaging
from steno.transcript import stitch
from steno.v1 import job_pb2 as pb

from .conftest import Replica, StartReplica, Upload, Worker


async def test_calls_are_answered_while_a_transcript_is_written(
    replica: Replica, upload: Upload, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await replica.create(upload.record(slices=1))
    await worker.do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    writing, answered = threading.Event(), threading.Event()
    in_time = []

    def slow(*slices: Any, **options: Any) -> Any:
        writing.set()
        in_time.append(answered.wait(60))
        return stitch(*slices, **options)

    monkeypatch.setattr(transcripts, "stitch", slow)
    reading = asyncio.create_task(replica.transcript(job))
    await asyncio.to_thread(writing.wait)
    await replica.get(job)
    answered.set()

    assert (await reading).transcript.text == "Slice 0."
    assert all(in_time)


async def test_many_slices_that_waited_for_the_first_are_joined_in_pieces(
    replica: Replica, upload: Upload, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steno.job.store.RESULTS_AT_ONCE", 2)
    job = await replica.create(upload.record(slices=7))
    watching = asyncio.create_task(replica.log(job))
    works = [await worker.take() for _ in range(7)]
    for work in reversed(works):
        await worker.complete(work)

    log = await watching

    said = [s.text for event in log for s in event.segments_added.segments]
    assert said == [f" Slice {index}." for index in range(7)]
    assert log[-1].state_changed.state == pb.JOB_STATE_SUCCEEDED


async def test_what_a_replica_that_died_had_to_join_is_joined(
    start_replica: StartReplica, upload: Upload, messaging: Messaging, rows: Rows
) -> None:
    before = await start_replica()
    job = await before.create(upload.record(slices=3))
    await Worker(before.tasks, messaging).do(2)
    await before.stop()
    # As if the last one had been completed, and the death had come before the join.
    rows(
        "UPDATE job.tasks SET state = 'LEASED', attempt = 1, worker_id = 'w', lease_time = now(),"
        " lease_expire_time = now() WHERE state = 'PENDING'"
    )
    rows(
        "UPDATE job.tasks SET state = 'DONE', result = '', lease_expire_time = NULL,"
        " transcribed_sample_count = sample_count WHERE state = 'LEASED'"
    )

    after = await start_replica()

    await after.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_a_transcript_is_read_in_pieces_and_is_whole(
    replica: Replica, upload: Upload, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steno.job.store.RESULTS_AT_ONCE", 2)
    job = await replica.create(upload.record(slices=5))
    await worker.do(5)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)

    text = (await replica.transcript(job)).transcript.text

    assert text == " ".join(f"Slice {index}." for index in range(5))
