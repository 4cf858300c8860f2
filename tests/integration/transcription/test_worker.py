"""A worker on real NATS and S3: one task after the other, none lost, none done twice."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from steno.platform.errors import ResourceExhausted, Unavailable
from steno.transcript import SAMPLE_RATE, Options, Segment
from steno.transcription import lease
from steno.transcription.engine import Samples
from steno.transcription.whisper import FasterWhisper
from steno.transcription.worker import ModelBroken
from steno.v1 import job_pb2 as pb
from steno.v1.transcript_pb2 import RECOGNITION_TASK_TRANSLATE, RecognitionConfig
from waiting import eventually

from .conftest import Platform, SteppedEngine


async def test_a_task_is_transcribed(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    task = await platform.offer(
        speech[: 30 * SAMPLE_RATE], RecognitionConfig(enable_word_time_offsets=True)
    )

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    (transcript,) = task.transcripts
    assert "November" in task.text
    assert transcript.language_code == "en"
    assert transcript.model.name == platform.model
    assert transcript.model.revision == engine.model.revision
    assert transcript.config.model == platform.model
    assert transcript.config.language_code == "en"
    assert transcript.config.vad_filter
    assert transcript.model_time.ToTimedelta().total_seconds() > 0
    assert [segment.index for segment in transcript.segments] == [*range(len(transcript.segments))]
    assert all(segment.words for segment in transcript.segments)
    coverage = transcript.coverage
    parts = (coverage.speech_duration, coverage.silence_duration, coverage.gap_duration)
    assert sum(part.ToTimedelta().total_seconds() for part in parts) == 30
    assert coverage.speech_duration.seconds > 15


async def test_what_a_worker_does_is_counted_for_its_model(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    def sample(name: str, **labels: str) -> float:
        value = REGISTRY.get_sample_value(name, {"model": platform.model, **labels})
        assert value is not None
        return value

    async with platform.worker(engine):
        assert sample("steno_audio_seconds_total") == 0
        assert sample("steno_task_seconds_count") == 0
        done = await platform.offer(speech[: 5 * SAMPLE_RATE])
        failed = await platform.offer(None)
        await eventually(lambda: sample("steno_task_seconds_count") == 2)

    assert done.state == "DONE"
    assert failed.failures
    assert sample("steno_audio_seconds_total") == 5
    assert sample("steno_task_seconds_sum") > 0
    assert sample("steno_tasks_total", how="done") == 1
    assert sample("steno_tasks_total", how="failed") == 1
    assert sample("steno_real_time_factor") > 0


async def test_the_same_slice_gives_the_same_text_whatever_was_decoded_before(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    said = speech[: 20 * SAMPLE_RATE]
    noise = np.random.default_rng(1).normal(0, 0.2, 10 * SAMPLE_RATE).astype(np.float32)
    without_filter = RecognitionConfig(language_code="en", vad_filter=False)

    async with platform.worker(engine):
        first, _, second = [
            await platform.offer(samples, without_filter) for samples in (said, noise, said)
        ]
        await eventually(lambda: second.state == "DONE")

    assert list(first.transcripts[0].segments) == list(second.transcripts[0].segments)


async def test_slices_that_share_batches_have_the_text_they_have_alone(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    slices = [speech[start * SAMPLE_RATE :][: 10 * SAMPLE_RATE] for start in (0, 14, 28, 42)]
    alone = [await platform.offer(samples) for samples in slices]
    async with platform.worker(engine, slices_in_hand=1):
        await eventually(lambda: all(task.state == "DONE" for task in alone))

    together = [await platform.offer(samples) for samples in slices]
    async with platform.worker(engine, slices_in_hand=4):
        await eventually(lambda: all(task.state == "DONE" for task in together))

    assert [task.transcripts[0].segments for task in together] == [
        task.transcripts[0].segments for task in alone
    ]


async def test_a_slice_without_speech_has_no_segments(
    platform: Platform, engine: FasterWhisper
) -> None:
    task = await platform.offer(np.zeros(5 * SAMPLE_RATE, np.float32))

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert not task.transcripts[0].segments


async def test_the_job_hears_of_progress_and_language_while_a_slice_runs(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    task = await platform.offer(speech, RecognitionConfig())

    async with platform.worker(stepped):
        await eventually(lambda: stepped.steps_begun == 1)
        stepped.go_on(2)  # a window that repeats itself is decoded twice
        await eventually(lambda: task.renewals[-1].transcribed_sample_count > 0)

    assert any(renewal.language_code == "en" for renewal in task.renewals)
    assert task.renewals[-1].transcribed_sample_count <= len(speech)


async def test_the_only_task_of_a_job_tells_its_language_with_the_result(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    task = await platform.offer(speech, RecognitionConfig())
    task.is_only = True

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert not any(renewal.language_code for renewal in task.renewals)
    assert task.transcripts[0].language_code == "en"


async def test_a_cancelled_task_stops_at_its_next_window(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    cancelled = await platform.offer(speech)
    async with platform.worker(stepped):
        await eventually(lambda: stepped.steps_begun == 1)
        renewed = len(cancelled.renewals)
        cancelled.state = "CANCELLED"
        next_task = await platform.offer(speech[: 5 * SAMPLE_RATE])
        await eventually(lambda: len(cancelled.renewals) > renewed)
        stepped.go_on(1)  # the step that runs; no other follows it
        await eventually(lambda: stepped.steps_begun == 2)
        stepped.go_on(100)
        await eventually(lambda: next_task.state == "DONE")

    assert not cancelled.transcripts


async def test_a_worker_that_lost_its_lease_changes_nothing(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    lost = await platform.offer(speech)
    async with platform.worker(stepped):
        await eventually(lambda: stepped.steps_begun == 1)
        lost.attempt += 1  # another worker has it
        next_task = await platform.offer(speech[: 5 * SAMPLE_RATE])
        stepped.go_on(100)
        await eventually(lambda: next_task.state == "DONE")

    assert not lost.transcripts
    assert not lost.failures


async def test_the_next_slice_is_leased_while_one_runs(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    tasks = [await platform.offer(speech[: 5 * SAMPLE_RATE]) for _ in range(3)]

    async with platform.worker(stepped):
        await eventually(lambda: stepped.steps_begun == 1)
        await eventually(lambda: [task.state for task in tasks].count("LEASED") == 2)
        third_waits = tasks[2].state == "PENDING"
        stepped.go_on(10_000)
        await eventually(lambda: all(task.state == "DONE" for task in tasks))

    assert third_waits


async def test_a_result_waits_for_a_job_service_that_restarts(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    platform.jobs.lease_seconds = 60
    task = await platform.offer(speech[: 20 * SAMPLE_RATE])
    async with platform.worker(stepped):
        await eventually(lambda: stepped.steps_begun == 1)
        await platform.jobs.stop()
        stepped.go_on(100)
        await asyncio.sleep(1)  # it is away for a while
        await platform.jobs.start()
        await eventually(lambda: task.state == "DONE")

    assert task.attempt == 1


async def test_a_result_waits_for_a_job_service_that_has_too_much_to_do(
    platform: Platform, engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []

    def refusing(answer: Any) -> Any:
        async def refuse(request: Any, context: Any) -> Any:
            if refused.count(answer) < 2:
                refused.append(answer)
                raise ResourceExhausted("too many calls at once", timedelta(seconds=1))
            return await answer(request, context)

        return refuse

    for name in ("LeaseTask", "RenewTask", "CompleteTask"):
        monkeypatch.setattr(platform.jobs, name, refusing(getattr(platform.jobs, name)))
    await platform.jobs.stop()
    await platform.jobs.start()
    task = await platform.offer(speech[: 5 * SAMPLE_RATE], RecognitionConfig())

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert (task.attempt, task.failures) == (1, [])


async def test_a_lease_whose_answer_was_lost_is_answered_again(
    platform: Platform, engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.jobs.lease_seconds = 60
    lease_task, lost = platform.jobs.LeaseTask, list[pb.LeaseTaskResponse]()

    async def answer(request: pb.LeaseTaskRequest, context: object) -> pb.LeaseTaskResponse:
        response = await lease_task(request, context)
        if not lost:
            lost.append(response)
            raise Unavailable("the server died")
        return response

    monkeypatch.setattr(platform.jobs, "LeaseTask", answer)
    await platform.jobs.stop()
    await platform.jobs.start()
    task = await platform.offer(speech[: 5 * SAMPLE_RATE])

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert lost
    assert task.attempt == 1


async def test_a_worker_that_stops_finishes_what_runs_and_gives_back_what_waits(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    platform.jobs.lease_seconds = 60
    running = await platform.offer(speech[: 20 * SAMPLE_RATE])
    waiting = await platform.offer(speech)
    async with platform.worker(stepped, grace_seconds=60) as worker:
        await eventually(lambda: stepped.steps_begun == 1 and waiting.state == "LEASED")
        worker.stopping.set()
        await eventually(lambda: waiting.failures)
        stepped.go_on(100)
        await worker.stop()

    assert running.state == "DONE"
    assert [each.failure for each in waiting.failures] == [pb.TASK_FAILURE_HANDED_BACK]


async def test_a_slice_that_outlasts_the_grace_period_is_given_back_and_done_by_another(
    platform: Platform, stepped: SteppedEngine, engine: FasterWhisper, speech: Samples
) -> None:
    platform.jobs.lease_seconds = 60
    task = await platform.offer(speech[: 20 * SAMPLE_RATE])
    async with platform.worker(stepped, grace_seconds=0.2) as worker:
        await eventually(lambda: stepped.steps_begun == 1)
        await worker.stop()
        stepped.go_on(100)
    assert [each.failure for each in task.failures] == [pb.TASK_FAILURE_HANDED_BACK]

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert task.attempt == 2


async def test_a_missing_slice_is_a_failure_that_another_try_may_cure(
    platform: Platform, engine: FasterWhisper
) -> None:
    task = await platform.offer(None)

    async with platform.worker(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_RETRYABLE
    assert "ObjectNotFound" in task.failures[0].message


async def test_a_slice_waits_for_a_store_that_is_away(
    platform: Platform, engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tries = platform.store.get, []

    async def get(key: str) -> bytes:
        tries.append(key)
        if len(tries) < 3:
            raise Unavailable("the object store does not answer; try again")
        return await read(key)

    monkeypatch.setattr(platform.store, "get", get)
    task = await platform.offer(speech[: 5 * SAMPLE_RATE])

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert task.attempt == 1


async def test_a_slice_that_the_store_does_not_give_is_handed_back_while_the_store_is_up(
    platform: Platform, engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steno.transcription.worker.READ_SECONDS", 0)
    read, check, store_is_up, checks = platform.store.get, platform.store.check, False, []
    unreadable = await platform.offer(speech[: 5 * SAMPLE_RATE])

    async def get(key: str) -> bytes:
        if key == unreadable.slice.object_key:
            raise Unavailable("the object store refused: InternalError")
        return await read(key)

    async def asked() -> None:
        checks.append(store_is_up)
        if not store_is_up:
            raise Unavailable("the object store does not answer; try again")
        await check()

    monkeypatch.setattr(platform.store, "get", get)
    monkeypatch.setattr(platform.store, "check", asked)
    async with platform.worker(engine):
        await eventually(lambda: len(checks) > 1)
        assert not unreadable.failures
        store_is_up = True
        await eventually(lambda: unreadable.failures)

    [failure] = unreadable.failures
    assert failure.failure == pb.TASK_FAILURE_UNREADABLE
    assert failure.message == "it can't be read: the object store refused: InternalError"


async def test_an_option_that_the_model_cannot_honour_fails_for_good(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    task = await platform.offer(speech, RecognitionConfig(task=RECOGNITION_TASK_TRANSLATE))

    async with platform.worker(engine):
        await eventually(lambda: task.failures)

    assert task.failures[0].failure == pb.TASK_FAILURE_PERMANENT
    assert "config.task" in task.failures[0].message


async def test_a_task_that_another_worker_holds_is_looked_at_again(
    platform: Platform, engine: FasterWhisper, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASED_ELSEWHERE_SECONDS", 0.2)
    platform.jobs.lease_seconds = 1
    task = await platform.offer(speech[: 5 * SAMPLE_RATE])
    await platform.jobs.LeaseTask(
        pb.LeaseTaskRequest(task_id=task.task_id, worker_id="killed"), None
    )

    async with platform.worker(engine):
        await eventually(lambda: task.state == "DONE")

    assert task.workers == ["killed", "worker"]


async def test_a_message_of_a_task_that_is_done_does_nothing(
    platform: Platform, engine: FasterWhisper, speech: Samples
) -> None:
    async with platform.worker(engine):
        task = await platform.offer(speech[: 5 * SAMPLE_RATE])
        await eventually(lambda: task.state == "DONE")
        await platform.send(task)
        following = await platform.offer(speech[: 5 * SAMPLE_RATE])
        await eventually(lambda: following.state == "DONE")

    assert len(task.transcripts) == 1


async def test_a_worker_with_a_broken_model_ends_and_uses_up_no_try(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failed with error an illegal memory access was encountered")

    stepped.transcribe = fail  # type: ignore[method-assign,assignment]
    stepped.warm_up = fail  # type: ignore[method-assign]
    task = await platform.offer(speech)

    async with platform.worker(stepped) as worker:
        await eventually(worker.running.done)

        assert isinstance(worker.running.exception(), ModelBroken)
    assert [each.failure for each in task.failures] == [pb.TASK_FAILURE_HANDED_BACK]


async def test_a_slice_that_failed_before_is_tried_alone(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    platform.jobs.lease_seconds = 60
    before = await platform.offer(speech[: 20 * SAMPLE_RATE])
    failed = await platform.offer(speech[: 19 * SAMPLE_RATE])
    failed.failures.append(pb.FailTaskRequest(failure=pb.TASK_FAILURE_RETRYABLE))
    after = await platform.offer(speech[: 18 * SAMPLE_RATE])
    tasks = {20: before, 19: failed, 18: after}
    running: set[int] = set()
    seen_together: list[set[int]] = []
    transcribe = stepped.transcribe

    def noting(samples: Samples, options: Options) -> Iterator[Segment]:
        seconds = len(samples) // SAMPLE_RATE
        running.add(seconds)
        seen_together.append({*running})
        try:
            yield from transcribe(samples, options)
        finally:
            running.discard(seconds)

    stepped.transcribe = noting  # type: ignore[method-assign]
    async with platform.worker(stepped, slices_in_hand=3):
        await eventually(lambda: all(task.state == "LEASED" for task in tasks.values()))
        stepped.go_on(1000)
        await eventually(lambda: all(task.state == "DONE" for task in tasks.values()))

    assert [each for each in seen_together if 19 in each] == [{19}]


async def test_a_slice_that_takes_too_much_of_the_models_time_is_a_failure(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    task = await platform.offer(speech)

    async with platform.worker(stepped) as worker:
        await eventually(lambda: stepped.steps_begun == 1)
        worker.worker._max_model_factor = 1e-6  # only now: to encode takes time, too
        stepped.go_on(1)
        await eventually(lambda: task.failures)
        stepped.go_on(100)

    assert task.failures[0].failure == pb.TASK_FAILURE_RETRYABLE
    assert "model time" in task.failures[0].message


async def test_a_worker_whose_model_hangs_ends_and_only_the_slice_in_it_is_to_blame(
    platform: Platform, stepped: SteppedEngine, speech: Samples
) -> None:
    platform.jobs.lease_seconds = 60
    in_model = await platform.offer(speech[: 20 * SAMPLE_RATE])

    async with platform.worker(stepped) as worker:
        await eventually(lambda: stepped.steps_begun == 1)
        waiting = await platform.offer(speech)
        await eventually(lambda: waiting.state == "LEASED")
        worker.worker._max_call_seconds = 0.1  # only now: a busy machine's model is slow, too
        await eventually(worker.running.done)
        assert isinstance(worker.running.exception(), ModelBroken)
        stepped.go_on(100)

    assert [each.failure for each in in_model.failures] == [pb.TASK_FAILURE_RETRYABLE]
    assert [each.failure for each in waiting.failures] == [pb.TASK_FAILURE_HANDED_BACK]
