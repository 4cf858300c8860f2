"""A job from its creation to its transcript, over gRPC."""

from __future__ import annotations

from steno.v1 import job_pb2 as pb

from .conftest import Replica, Upload, Worker


async def test_a_job_goes_from_queued_to_a_transcript(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    recording = upload.record(slices=2)

    job = await replica.create(recording)
    assert job.state == pb.JOB_STATE_QUEUED
    assert job.display_name == "talk.mp3"
    await worker.do(2)
    log = await replica.log(job)

    assert log[-1].state_changed.state == pb.JOB_STATE_SUCCEEDED
    assert [event.revision for event in log] == list(range(1, len(log) + 1))
    response = await replica.jobs.GetTranscript(pb.GetTranscriptRequest(job_id=job.job_id))
    assert response.transcript.text == "Slice 0. Slice 1."
    assert response.transcript.segments[1].start_offset.seconds == 31
