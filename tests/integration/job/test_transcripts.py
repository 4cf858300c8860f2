"""A transcript that takes long to write keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from steno.job import transcripts
from steno.v1 import job_pb2 as pb

from .conftest import Replica, Upload, Worker


async def test_calls_are_answered_while_a_transcript_is_written(
    replica: Replica, upload: Upload, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await replica.create(upload.record(slices=1))
    await worker.do(1)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    writing, answered = threading.Event(), threading.Event()
    in_time = []
    stitch = transcripts.stitch

    def slow(*slices: Any, **options: Any) -> Any:
        writing.set()
        in_time.append(answered.wait(10))
        return stitch(*slices, **options)

    monkeypatch.setattr(transcripts, "stitch", slow)
    reading = asyncio.create_task(replica.transcript(job))
    await asyncio.to_thread(writing.wait)
    await replica.get(job)
    answered.set()

    assert (await reading).transcript.text == "Slice 0."
    assert all(in_time)


async def test_a_transcript_is_read_in_pieces_and_is_whole(
    replica: Replica, upload: Upload, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steno.job.store.RESULTS_AT_ONCE", 2)
    job = await replica.create(upload.record(slices=5))
    await worker.do(5)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)

    text = (await replica.transcript(job)).transcript.text

    assert text == " ".join(f"Slice {index}." for index in range(5))
