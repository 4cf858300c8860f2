"""What callers can do with jobs, over gRPC."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from steno.job import jobs
from steno.platform.messaging import Messaging
from steno.v1 import job_pb2 as pb
from steno.v1.transcript_pb2 import (
    RECOGNITION_TASK_TRANSCRIBE,
    Coverage,
    RecognitionConfig,
    TimeSpan,
)
from waiting import answered, eventually

from .conftest import Recording, Replica, StartReplica, Upload, Worker, announce, refusal

AUTO = RecognitionConfig()


async def test_a_job_goes_from_queued_to_a_transcript(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=2))
    assert job.state == pb.JOB_STATE_QUEUED
    await worker.do(2)
    log = await replica.log(job)

    assert log[-1].state_changed.state == pb.JOB_STATE_SUCCEEDED
    assert log[-1].state_changed.progress.fraction == 1
    transcript = (await replica.transcript(job)).transcript
    assert transcript.text == "Slice 0. Slice 1."
    assert [s.start_offset.seconds for s in transcript.segments] == [1, 31]
    assert [s.index for s in transcript.segments] == [0, 1]
    assert transcript.audio_duration.seconds == 60
    assert (transcript.model.name, transcript.model.revision) == ("builtin", "abc")
    assert transcript.language_code == "en"


async def test_what_is_not_set_gets_its_default(replica: Replica, upload: Upload) -> None:
    recording = upload.record(slices=1, truncated=True)

    job = await replica.create(recording, config=AUTO, labels={"team": "a"})

    assert job.display_name == "talk.mp3"
    assert job.labels == {"team": "a"}
    assert job.config.model == "builtin"
    assert job.config.task == RECOGNITION_TASK_TRANSCRIBE
    assert job.config.vad_filter
    assert job.audio_truncated
    assert job.progress.audio_duration.seconds == 30
    job.progress.queue_position = 0  # only GetJob tells
    assert job == await replica.get(job)


async def test_a_job_may_come_before_its_audio_is_ready(
    replica: Replica, upload: Upload, worker: Worker, messaging: Messaging
) -> None:
    recording = upload.record(ready=False)
    job = await replica.create(recording)

    recording.cut()
    await announce(messaging, recording)
    await worker.do(1)
    assert (await replica.get(job)).state == pb.JOB_STATE_RUNNING
    assert (await replica.get(job)).progress.fraction == 0  # nobody knows the length yet
    recording.cut()
    recording.finish()
    await worker.do(1)

    ended = await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    assert ended.progress.audio_duration.seconds == 60
    assert (await replica.transcript(job)).transcript.text == "Slice 0. Slice 1."


async def test_audio_without_any_slice_gives_an_empty_transcript(
    replica: Replica, upload: Upload
) -> None:
    job = await replica.create(upload.record(slices=0))

    assert job.state == pb.JOB_STATE_SUCCEEDED
    response = await replica.transcript(job)
    assert response.transcript.text == ""
    assert response.transcript.model.name == "builtin"


async def test_audio_that_is_not_there_makes_no_job(replica: Replica, upload: Upload) -> None:
    request = pb.CreateJobRequest(audio_id=str(uuid.uuid4()))

    failure = await refusal(replica.jobs.CreateJob(request))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "AUDIO_NOT_FOUND")


async def test_audio_that_was_rejected_makes_no_job_and_says_why(
    replica: Replica, upload: Upload
) -> None:
    recording = upload.record(ready=False)
    recording.reject()

    failure = await refusal(replica.create(recording))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "AUDIO_REJECTED"
    assert failure.metadata is not None
    assert failure.metadata["rejection_reason"] == "UNSUPPORTED_FORMAT"


async def test_audio_that_is_rejected_later_fails_the_job(replica: Replica, upload: Upload) -> None:
    recording = upload.record(slices=1, ready=False)
    job = await replica.create(recording)

    recording.reject()

    failed = await replica.in_state(job, pb.JOB_STATE_FAILED)
    assert (failed.error.reason, failed.error.message) == ("AUDIO_REJECTED", "it is a picture")


async def test_audio_that_is_deleted_fails_the_job(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    recording = upload.record(slices=2)
    job = await replica.create(recording)
    work = await worker.take()

    upload.delete(recording)

    failed = await replica.in_state(job, pb.JOB_STATE_FAILED)
    assert failed.error.reason == "AUDIO_DELETED"
    assert (await worker.renew(work)).cancelled


async def test_deleted_audio_leaves_the_jobs_that_have_ended(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    recording = upload.record(slices=1)
    job = await replica.create(recording)
    await worker.do(1)

    upload.delete(recording)

    assert (await replica.transcript(job)).transcript.text == "Slice 0."


async def test_the_same_request_id_and_body_is_the_same_job(
    replica: Replica, upload: Upload
) -> None:
    recording = upload.record(slices=1)
    request_id = str(uuid.uuid4())

    jobs = await asyncio.gather(
        *(replica.create(recording, request_id=request_id) for _ in range(5))
    )
    upload.delete(recording)
    later = await replica.create(recording, request_id=request_id)

    assert {job.job_id for job in jobs} == {later.job_id}


async def test_the_same_request_id_with_another_body_is_refused(
    replica: Replica, upload: Upload
) -> None:
    recording = upload.record(slices=1)
    request_id = str(uuid.uuid4())
    await replica.create(recording, request_id=request_id)

    failure = await refusal(replica.create(recording, request_id=request_id, display_name="x"))

    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    assert failure.reason == "REQUEST_ID_REUSED"


def batch(recordings: list[Recording], **fields: Any) -> pb.BatchCreateJobsRequest:
    config = RecognitionConfig(language_code="en")
    return pb.BatchCreateJobsRequest(
        requests=[
            pb.CreateJobRequest(
                audio_id=each.audio_id, config=config, request_id=str(uuid.uuid4()), **fields
            )
            for each in recordings
        ]
    )


@pytest.mark.long
async def test_a_thousand_jobs_are_made_at_once_and_in_order(
    replica: Replica, upload: Upload
) -> None:
    request = batch([upload.record(slices=1) for _ in range(1000)])

    jobs = (await replica.jobs.BatchCreateJobs(request)).jobs

    assert [job.audio_id for job in jobs] == [each.audio_id for each in request.requests]
    assert len({job.job_id for job in jobs}) == 1000


async def test_a_batch_is_as_large_as_what_it_makes(replica: Replica, upload: Upload) -> None:
    request = batch([upload.record(slices=1000)] * 11)

    failure = await refusal(replica.jobs.BatchCreateJobs(request))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.message == (
        "requests: have 11000 slices to transcribe, of at most 10000; make fewer jobs at once"
    )
    assert not (await replica.jobs.ListJobs(pb.ListJobsRequest())).jobs


async def test_the_limit_of_a_batch_holds_for_one_job_too(
    replica: Replica, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_SLICES_AT_ONCE", 2)
    long = upload.record(slices=3)

    failure = await refusal(replica.jobs.BatchCreateJobs(batch([long])))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in failure.violations] == ["requests"]
    assert (await replica.create(long)).job_id  # CreateJob has no such limit


async def test_a_repeated_batch_answers_what_is_there_and_makes_the_rest(
    replica: Replica, upload: Upload
) -> None:
    request = batch([upload.record(slices=1) for _ in range(3)])
    first = (await replica.jobs.CreateJob(request.requests[1])).job

    jobs = (await replica.jobs.BatchCreateJobs(request)).jobs
    again = (await replica.jobs.BatchCreateJobs(request)).jobs

    assert jobs[1].job_id == first.job_id
    assert [job.job_id for job in again] == [job.job_id for job in jobs]


@pytest.mark.parametrize("wrong", ["audio", "model", "twice"])
async def test_one_wrong_request_makes_no_job_of_its_batch(
    replica: Replica, upload: Upload, wrong: str
) -> None:
    recordings = [upload.record(slices=1) for _ in range(3)]
    request = batch(recordings)
    if wrong == "audio":
        upload.delete(recordings[2])
    elif wrong == "model":
        request.requests[2].config.model = "none"
    else:
        request.requests[2].request_id = request.requests[0].request_id

    failure = await refusal(replica.jobs.BatchCreateJobs(request))

    if wrong == "audio":
        assert failure.reason == "AUDIO_NOT_FOUND"
    else:
        field = {"model": "requests[2].config.model", "twice": "requests[0].request_id"}[wrong]
        assert [violation.field for violation in failure.violations] == [field]
    assert not (await replica.jobs.ListJobs(pb.ListJobsRequest())).jobs


async def test_a_cancelled_job_keeps_what_is_done_and_stops_what_runs(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3))
    await worker.do(1)
    work = await worker.take()

    response = await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
    again = await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))

    assert response.job.state == again.job.state == pb.JOB_STATE_CANCELLED
    assert response.job.revision == again.job.revision
    assert (await worker.renew(work, seconds=10)).cancelled
    failure = await refusal(worker.complete(work))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "STALE_LEASE")
    partial = await replica.transcript(job, allow_partial=True)
    assert partial.transcript.text == "Slice 0."


async def test_a_job_that_has_succeeded_can_not_be_cancelled(
    replica: Replica, upload: Upload
) -> None:
    job = await replica.create(upload.record(slices=0))

    failure = await refusal(replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_ENDED")


async def test_a_retry_does_only_what_was_left_undone(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=4), labels={"team": "a"})
    done = [await worker.take() for _ in range(4)]
    for work in (done[0], done[1], done[3]):
        await worker.complete(work)
    await worker.fail(done[2], pb.TASK_FAILURE_PERMANENT, "no such luck")
    failed = await replica.in_state(job, pb.JOB_STATE_FAILED)
    assert failed.error.reason == "SLICE_FAILED"
    assert "no such luck" in failed.error.message

    retry = (await replica.jobs.RetryJob(pb.RetryJobRequest(job_id=job.job_id))).job
    assert retry.retry_of_job_id == job.job_id
    assert retry.labels == {"team": "a"}
    assert retry.progress.transcribed_duration.seconds == 90
    work = await worker.take()
    assert work.index == 2
    await worker.complete(work)

    log = await replica.log(retry)
    said = [s.text for event in log for s in event.segments_added.segments]
    assert said == [" Slice 0.", " Slice 1.", " Slice 2.", " Slice 3."]
    whole = await replica.transcript(retry)
    assert whole.transcript.text == "Slice 0. Slice 1. Slice 2. Slice 3."
    assert (await replica.get(job)).state == pb.JOB_STATE_FAILED


async def test_a_retry_keeps_the_language_that_was_found(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3), config=AUTO)
    await worker.complete(await worker.take(), language="de")
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))

    retry = (await replica.jobs.RetryJob(pb.RetryJobRequest(job_id=job.job_id))).job

    assert retry.language_code == "de"
    works = [await worker.take(), await worker.take()]
    assert {work.lease.config.language_code for work in works} == {"de"}


async def test_a_retry_is_idempotent_too(replica: Replica, upload: Upload) -> None:
    job = await replica.create(upload.record(slices=1))
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
    request = pb.RetryJobRequest(job_id=job.job_id, request_id=str(uuid.uuid4()))

    first, second = await replica.jobs.RetryJob(request), await replica.jobs.RetryJob(request)

    assert first.job.job_id == second.job.job_id


@pytest.mark.parametrize("why", ["it has not failed", "its audio is gone"])
async def test_a_job_that_can_not_be_retried_says_so(
    replica: Replica, upload: Upload, why: str
) -> None:
    recording = upload.record(slices=1)
    job = await replica.create(recording)
    if why == "its audio is gone":
        await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
        upload.delete(recording)

    failure = await refusal(replica.jobs.RetryJob(pb.RetryJobRequest(job_id=job.job_id)))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "JOB_NOT_RETRYABLE"


async def test_a_deleted_job_is_gone_with_its_transcript(replica: Replica, upload: Upload) -> None:
    job = await replica.create(upload.record(slices=0))
    request = pb.DeleteJobRequest(job_id=job.job_id)

    await replica.jobs.DeleteJob(request)

    for call in (replica.get(job), replica.transcript(job), replica.jobs.DeleteJob(request)):
        failure = await refusal(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_a_job_that_has_not_ended_is_not_deleted(replica: Replica, upload: Upload) -> None:
    job = await replica.create(upload.record(slices=1))

    failure = await refusal(replica.jobs.DeleteJob(pb.DeleteJobRequest(job_id=job.job_id)))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "JOB_NOT_ENDED",
    )


async def test_a_part_of_the_transcript_is_given_only_when_asked_for(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3))
    works = [await worker.take() for _ in range(3)]
    await worker.complete(works[0])
    await worker.complete(works[2])

    failure = await refusal(replica.transcript(job))
    partial = await replica.transcript(job, allow_partial=True)
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
    later = await refusal(replica.transcript(job))

    assert (failure.reason, later.reason) == ("JOB_NOT_ENDED", "JOB_NOT_SUCCEEDED")
    # Only the part from the start on: what follows a hole is not final yet.
    assert partial.transcript.text == "Slice 0."


@pytest.mark.parametrize(
    ("name", "content_type", "start"),
    [
        ("TXT", "text/plain", "Slice 0.\n"),
        ("SRT", "application/x-subrip", "1\n00:00:01,000 --> 00:00:02,000\nSlice 0.\n"),
        ("VTT", "text/vtt", "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nSlice 0.\n"),
        ("TSV", "text/tab-separated-values", "start\tend\ttext\n1000\t2000\tSlice 0.\n"),
    ],
)
async def test_a_transcript_is_rendered_in_each_format(
    replica: Replica, upload: Upload, worker: Worker, name: str, content_type: str, start: str
) -> None:
    job = await replica.create(upload.record(slices=1))
    await worker.do(1)

    response = await replica.transcript(job, format=f"TRANSCRIPT_FORMAT_{name}")

    assert response.rendered == start
    assert response.content_type.startswith(content_type)
    assert not response.HasField("transcript")


async def test_the_json_transcript_says_what_made_it(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=1, truncated=True))
    await worker.do(1)

    response = await replica.transcript(job, format=pb.TRANSCRIPT_FORMAT_JSON)

    document = json.loads(response.rendered)
    assert document["text"] == "Slice 0."
    assert document["truncated"] is True
    assert document["model"] == {"name": "builtin", "revision": "abc", "compute_type": "int8"}
    assert document["options"]["task"] == "transcribe"
    assert document["segments"][0]["avg_logprob"] == -0.25


async def test_a_transcript_says_where_every_second_went(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    def found(speech: int, silence: int, gap: TimeSpan | None = None) -> Coverage:
        return Coverage(
            speech_duration=Duration(seconds=speech),
            silence_duration=Duration(seconds=silence),
            gaps=[gap] if gap else [],
        )

    job = await replica.create(upload.record(slices=2))
    gap = TimeSpan(start_offset=Duration(seconds=5), end_offset=Duration(seconds=8))
    await worker.complete(await worker.take(), coverage=found(30, 0))
    await worker.complete(await worker.take(), coverage=found(20, 7, gap))
    job = await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)
    coverage = (await replica.transcript(job)).transcript.coverage

    assert coverage.speech_duration.seconds == job.coverage.speech_duration.seconds == 50
    assert coverage.silence_duration.seconds == job.coverage.silence_duration.seconds == 7
    assert coverage.gap_duration.seconds == job.coverage.gap_duration.seconds == 3
    (moved,) = coverage.gaps
    assert (moved.start_offset.seconds, moved.end_offset.seconds) == (35, 38)


async def test_jobs_are_listed_newest_first_in_pages(replica: Replica, upload: Upload) -> None:
    recording = upload.record(slices=1)
    made = [(await replica.create(recording)).job_id for _ in range(5)]

    seen, request = [], pb.ListJobsRequest(page_size=2)
    for _ in range(3):
        page = await replica.jobs.ListJobs(request)
        seen.append([job.job_id for job in page.jobs])
        request.page_token = page.next_page_token

    assert seen == [[made[4], made[3]], [made[2], made[1]], [made[0]]]
    assert request.page_token == ""


async def test_jobs_of_several_states_come_in_one_order_in_pages(
    replica: Replica, upload: Upload
) -> None:
    slices = [0, 1, 1, 0, 0, 1]  # without any, it is done at once
    made = [(await replica.create(upload.record(slices=each))).job_id for each in slices]

    seen: list[str] = []
    request = pb.ListJobsRequest(
        states=[pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_QUEUED, pb.JOB_STATE_FAILED], page_size=2
    )
    while len(seen) < len(made):
        page = await replica.jobs.ListJobs(request)
        seen += [job.job_id for job in page.jobs]
        request.page_token = page.next_page_token

    assert seen == made[::-1]


async def test_jobs_are_found_by_state_label_and_time(replica: Replica, upload: Upload) -> None:
    before = datetime.now(UTC)
    done = await replica.create(upload.record(slices=0), labels={"team": "a", "kind": "x"})
    waiting = await replica.create(upload.record(slices=1), labels={"team": "a"})

    def at(time: datetime) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(time)
        return stamp

    async def ids(**where: object) -> list[str]:
        page = await replica.jobs.ListJobs(pb.ListJobsRequest(**where))  # type: ignore[arg-type]
        return [job.job_id for job in page.jobs]

    both = [waiting.job_id, done.job_id]
    assert await ids(states=[pb.JOB_STATE_SUCCEEDED]) == [done.job_id]
    assert await ids(states=[pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_QUEUED]) == both
    assert await ids(labels={"team": "a"}) == both
    assert await ids(labels={"team": "a", "kind": "x"}) == [done.job_id]
    assert await ids(labels={"team": "b"}) == []
    assert await ids(create_time_from=at(before)) == both
    assert await ids(create_time_to=waiting.create_time) == [done.job_id]
    assert await ids(create_time_from=at(before + timedelta(hours=1))) == []


async def test_a_page_token_belongs_to_its_filter(replica: Replica, upload: Upload) -> None:
    recording = upload.record(slices=1)
    for _ in range(2):
        await replica.create(recording)
    token = (await replica.jobs.ListJobs(pb.ListJobsRequest(page_size=1))).next_page_token

    for request in (
        pb.ListJobsRequest(page_token=token, labels={"a": "b"}),
        pb.ListJobsRequest(page_token="nonsense"),
        pb.ListJobsRequest(page_token="bm9uc2Vuc2U="),
    ):
        failure = await refusal(replica.jobs.ListJobs(request))
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in failure.violations] == ["page_token"]


async def test_only_the_first_slice_goes_out_until_the_language_is_known(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3), config=AUTO)

    first = await worker.take()
    assert await worker.is_idle()
    answer = await worker.renew(first, seconds=5, language="de")
    others = [await worker.take(), await worker.take()]

    assert answer.language_code == "de"
    assert {work.lease.config.language_code for work in others} == {"de"}
    assert (await replica.get(job)).language_code == "de"
    # A second opinion changes nothing.
    assert (await worker.renew(others[0], language="fr")).language_code == "de"


async def test_a_task_without_others_is_leased_as_such(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    for recording, only in (
        (upload.record(slices=1), True),
        (upload.record(slices=2), False),
        (upload.record(slices=1, ready=False), False),
    ):
        await replica.create(recording, config=AUTO)
        assert (await worker.take()).lease.only_task == only


async def test_jobs_on_one_audio_that_are_made_at_once_ask_for_it_once(
    replica: Replica, upload: Upload
) -> None:
    recordings = [upload.record(), upload.record()]

    await replica.jobs.BatchCreateJobs(batch([*recordings, *recordings]))

    assert sorted(upload.asked) == sorted(each.audio_id for each in recordings)


async def test_silence_tells_no_language_so_the_next_slice_is_asked(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=3), config=AUTO)

    await worker.complete(await worker.take(), text="", language="")
    second = await worker.take()
    assert second.index == 1
    assert await worker.is_idle()
    await worker.complete(second, language="fr")
    third = await worker.take()

    assert third.lease.config.language_code == "fr"
    await worker.complete(third)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)


async def test_slices_that_come_after_the_language_is_known_go_out_at_once(
    replica: Replica, upload: Upload, worker: Worker, messaging: Messaging
) -> None:
    recording = upload.record(slices=1, ready=False)
    await replica.create(recording, config=AUTO)
    first = await worker.take()
    await worker.renew(first, language="de")

    recording.cut(2)
    await announce(messaging, recording)

    assert [(await worker.take()).index, (await worker.take()).index] == [1, 2]


async def test_a_multilingual_job_goes_out_at_once_and_fixes_no_language(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    await replica.create(upload.record(slices=2), config=RecognitionConfig(multilingual=True))

    first, second = await worker.take(), await worker.take()
    await worker.complete(first, language="de")

    assert first.lease.config.language_code == second.lease.config.language_code == ""


async def test_the_queue_tells_how_many_jobs_are_ahead_and_the_time_left(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    first = await replica.get(await replica.create(upload.record(slices=2)))
    second = await replica.get(await replica.create(upload.record(slices=2)))
    assert first.progress.queue_position == 0
    assert second.progress.queue_position == 1
    assert not second.progress.HasField("remaining_duration")

    await worker.do(1)

    running, waiting = await replica.get(first), await replica.get(second)
    assert not running.progress.HasField("queue_position")
    assert waiting.progress.queue_position == 0
    assert waiting.progress.HasField("remaining_duration")
    assert running.progress.fraction == pytest.approx(0.5)


async def test_progress_moves_while_a_slice_runs_and_is_whole_only_at_the_end(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=1))
    work = await worker.take()
    for seconds in (3, 3.1, 15, 9, 30, 1000):
        await worker.renew(work, seconds=seconds)
    await worker.complete(work)

    log = await replica.log(job)

    fractions = [e.progressed.fraction for e in log if e.HasField("progressed")]
    assert fractions == pytest.approx([0.1, 0.5, 0.999])
    assert log[-1].state_changed.progress.fraction == 1


async def test_the_upload_service_away_makes_callers_try_again(
    replica: Replica, upload: Upload
) -> None:
    recording = upload.record(slices=1)
    await upload.stop()

    failure = await refusal(replica.create(recording))
    await upload.start()

    assert failure.code is grpc.StatusCode.UNAVAILABLE

    await answered(lambda: replica.create(recording))


async def test_too_much_audio_in_the_queue_says_when_to_come_again(
    start_replica: StartReplica, upload: Upload, messaging: Messaging
) -> None:
    replica = await start_replica(job_max_queued_hours=1 / 60)
    job = await replica.create(upload.record(slices=3))

    failure = await refusal(replica.create(upload.record(slices=1)))
    await Worker(replica.tasks, messaging).do(3)
    await replica.in_state(job, pb.JOB_STATE_SUCCEEDED)

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_delay is not None
    assert await replica.create(upload.record(slices=1))


async def test_a_job_that_ended_long_ago_is_deleted(
    start_replica: StartReplica, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steno.job.__main__.RETENTION_SECONDS", 0.2)
    replica = await start_replica(job_retention_hours=1 / 3600)
    old = await replica.create(upload.record(slices=0))
    waiting = await replica.create(upload.record(slices=1))

    async def gone() -> bool:
        jobs = (await replica.jobs.ListJobs(pb.ListJobsRequest())).jobs
        return [job.job_id for job in jobs] == [waiting.job_id]

    await eventually(gone)
    assert (await refusal(replica.get(old))).reason == "JOB_NOT_FOUND"


async def test_a_full_queue_says_when_to_come_again(
    start_replica: StartReplica, upload: Upload
) -> None:
    replica = await start_replica(job_max_unfinished=1)
    recording = upload.record(slices=1)
    job = await replica.create(recording)

    failure = await refusal(replica.create(recording))
    await replica.jobs.CancelJob(pb.CancelJobRequest(job_id=job.job_id))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_delay is not None
    await replica.create(recording)


async def test_what_was_dropped_is_told_only_to_who_asks(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(upload.record(slices=2))
    for _ in range(2):
        work = await worker.take()
        result = work.result()
        dropped = result.transcript.dropped_segments.add(text=" Thanks.", no_speech_prob=0.9)
        dropped.avg_logprob = -1.5
        dropped.start_offset.seconds, dropped.end_offset.seconds = 5, 6
        await worker.tasks.CompleteTask(result)

    plain = (await replica.transcript(job)).transcript
    full = (await replica.transcript(job, include_dropped=True)).transcript
    written = await replica.transcript(job, format=pb.TRANSCRIPT_FORMAT_JSON, include_dropped=True)

    assert not plain.dropped_segments
    assert plain.text == full.text == "Slice 0. Slice 1."
    assert [s.start_offset.seconds for s in full.dropped_segments] == [5, 35]
    assert full.dropped_segments[1].no_speech_prob == pytest.approx(0.9)
    assert [s["text"] for s in json.loads(written.rendered)["dropped_segments"]] == [" Thanks."] * 2
