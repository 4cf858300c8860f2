"""Slices that were cut in the midst of speech are joined by the words that both heard."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from steno.v1 import job_pb2 as pb
from steno.v1 import transcript_pb2

from .conftest import Recording, Replica, Upload, Work, Worker

CONTEXT = 3 * 16_000


def spoken(words: str, start: float) -> list[tuple[str, float]]:
    """Words, each with its begin in seconds; one lasts 0.4 s."""
    return [(f" {word}", start + 0.4 * number) for number, word in enumerate(words.split())]


HEARD = {
    0: spoken("the train has stopped", 28.8),  # the cut, at 30 s, falls into "stopped"
    1: [*spoken("has stopped", -0.4), *spoken("at the door", 28.9)],
    2: spoken("the door is open", -0.5),
}
SAID = "the train has stopped at the door is open"


def recorded(upload: Upload) -> Recording:
    """Three slices without a pause between them."""
    recording = upload.record(slices=3)
    first, second, third = recording.slices
    first.right_context_sample_count = second.right_context_sample_count = CONTEXT
    second.left_context_sample_count = third.left_context_sample_count = CONTEXT
    return recording


def at(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def result(work: Work) -> pb.CompleteTaskRequest:
    words = HEARD[work.index]
    request = work.result("".join(word for word, _ in words))
    [segment] = request.transcript.segments
    segment.start_offset.CopyFrom(at(words[0][1]))
    segment.end_offset.CopyFrom(at(words[-1][1] + 0.4))
    for word, begin in words:
        segment.words.add(word=word, start_offset=at(begin), end_offset=at(begin + 0.4))
    return request


async def segments_told(replica: Replica, job: pb.Job) -> list[transcript_pb2.Segment]:
    """What watchers are told."""
    return [
        segment for event in await replica.log(job) for segment in event.segments_added.segments
    ]


async def test_watchers_and_readers_get_each_word_once_whoever_is_done_first(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    config = transcript_pb2.RecognitionConfig(language_code="en")
    job = await replica.create(recorded(upload), config=config)
    works = [await worker.take() for _ in range(3)]

    for index in (2, 0, 1):
        await worker.tasks.CompleteTask(result(works[index]))

    transcript = (await replica.transcript(job)).transcript
    assert transcript.text == SAID
    assert await segments_told(replica, job) == list(transcript.segments)
    assert not any(segment.words for segment in transcript.segments)  # nobody asked for them


async def test_a_retry_goes_on_behind_the_words_of_the_slice_that_was_done_before(
    replica: Replica, upload: Upload, worker: Worker
) -> None:
    job = await replica.create(recorded(upload))
    await worker.tasks.CompleteTask(result(await worker.take()))
    await worker.fail(await worker.take(), pb.TASK_FAILURE_PERMANENT, "no memory")
    await replica.in_state(job, pb.JOB_STATE_FAILED)

    retry = (await replica.jobs.RetryJob(pb.RetryJobRequest(job_id=job.job_id))).job
    for _ in range(2):
        await worker.tasks.CompleteTask(result(await worker.take()))
    await replica.in_state(retry, pb.JOB_STATE_SUCCEEDED)

    transcript = (await replica.transcript(retry)).transcript
    assert transcript.text == SAID
    assert await segments_told(replica, retry) == list(transcript.segments)
