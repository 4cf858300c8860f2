"""Takes tasks from the queue and transcribes their slices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from steno.audio import decode_slice, to_float
from steno.platform.errors import InvalidArgument, Unavailable
from steno.platform.messaging import (
    TASKS,
    Delivery,
    Messaging,
    Postponed,
    model_token,
    settle,
    tasks_subject,
)
from steno.platform.objects import ObjectStore
from steno.platform.telemetry import log_context
from steno.speech import render_coverage, render_options
from steno.transcript import SAMPLE_RATE, Options, Span
from steno.transcription.domain import InputRefused, NotReady, spoken_language
from steno.transcription.engine import Engine, Line, Recognition, Samples
from steno.transcription.isolation import Isolation
from steno.transcription.lease import HAND_BACK_SECONDS, Lease, LeaseLost, take_lease
from steno.transcription.wire import parse_config, render_found, render_model
from steno.v1 import job_pb2, transcript_pb2
from steno.v1.events_pb2 import TaskMessage

if TYPE_CHECKING:
    from steno.v1.job_pb2_grpc import TaskServiceAsyncStub

log = logging.getLogger(__name__)

OUTCOMES = Counter(
    "steno_tasks", "Tasks that this worker was given, by how they ended.", ["model", "how"]
)
TASK_SECONDS = Histogram(
    "steno_task_seconds",
    "Time from the lease of a task until it is done or has failed.",
    ["model"],
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900),
)
AUDIO_SECONDS = Counter(
    "steno_audio_seconds", "Length of the audio that was transcribed.", ["model"]
)
GAP_SECONDS = Counter("steno_gap_seconds", "Length of the speech that gave no text.", ["model"])
DROPPED = Counter(
    "steno_dropped_segments", "Segments that were dropped as heard in silence.", ["model"]
)
REAL_TIME_FACTOR = Gauge(
    "steno_real_time_factor", "Model time by audio length, last slice.", ["model"]
)


READ_SECONDS = 60.0
"""Patience with a slice that can't be read though the store answers; others get its place then."""

NOT_READY_SECONDS = 2.0
"""Time until an engine that is not ready is looked at again."""


class Unreadable(Exception):
    """The store answers, but does not give the slice."""


class ModelBroken(Exception):
    """The model fails even on silence: this process is of no use any more."""


class Worker:
    """Works on several slices at once, until it is told to stop."""

    def __init__(
        self,
        worker_id: str,
        engine: Engine,
        messaging: Messaging,
        tasks: TaskServiceAsyncStub,
        store: ObjectStore,
        *,
        report_seconds: float,
        grace_seconds: float,
        max_model_factor: float,
        max_call_seconds: float,
    ) -> None:
        """Prepares the worker.

        Args:
            worker_id: name for the job service's logs.
            engine: recognises.
            messaging: has the queue.
            tasks: the job service.
            store: has the slices.
            report_seconds: time between two reports to the job service.
            grace_seconds: time that a running slice has when the worker is told to stop.
            max_model_factor: model time by audio length at which a slice is stopped.
            max_call_seconds: time after which a call of the model is taken for hung.
        """
        self._worker_id = worker_id
        self._engine = engine
        self._messaging = messaging
        self._tasks = tasks
        self._store = store
        self._report_seconds = report_seconds
        self._grace_seconds = grace_seconds
        self._max_model_factor = max_model_factor
        self._max_call_seconds = max_call_seconds
        self._model = engine.model.name
        self._isolation = Isolation()
        self._hands = asyncio.Semaphore(engine.slices_at_once)
        self._held: set[asyncio.Task[None]] = set()
        self._unfinished: dict[asyncio.Task[None], Recognition | None] = {}
        self._too_long: dict[asyncio.Task[None], str] = {}
        self._ending = asyncio.Event()
        self._broken = False
        # From 0 on: a counter whose first value is its first slice hides that slice from `rate`.
        for metric in (TASK_SECONDS, AUDIO_SECONDS, GAP_SECONDS, DROPPED):
            metric.labels(self._model)

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping` is set; then finishes, or gives back, what it holds.

        Raises:
            ModelBroken: it can't go on; what it held is given back.
        """
        queue = self._messaging.work_queue(
            TASKS,
            f"transcription-{model_token(self._model)}",
            tasks_subject(self._model, "*"),
            TaskMessage,
        )
        followers = [
            asyncio.create_task(self._follow(stopping)),
            asyncio.create_task(self._watch_times()),
        ]
        try:
            while not self._ending.is_set():
                await self._hands.acquire()
                delivery = None
                while delivery is None and not self._ending.is_set():
                    if await self._engine_is_ready():
                        delivery = await queue.next(timeout=1.0)
                if delivery is not None:
                    self._take(delivery)
        finally:
            await self._give_up()
            for follower in followers:
                follower.cancel()
        if self._broken:
            raise ModelBroken("the model does not work any more")

    async def _engine_is_ready(self) -> bool:
        """Waits a moment where it is not: other workers may have the tasks meanwhile."""
        try:
            await self._engine.ready()
        except NotReady:
            await asyncio.sleep(NOT_READY_SECONDS)
            return False
        return True

    async def _follow(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._end()

    async def _watch_times(self) -> None:
        """Stops slices that take too long, and the worker when its model hangs."""
        while not self._broken:
            await asyncio.sleep(self._report_seconds)
            hangs = self._engine.call_seconds > self._max_call_seconds
            for task, recognition in self._unfinished.items():
                if recognition is None:
                    continue
                limit = self._max_model_factor * recognition.audio_seconds
                if hangs and recognition.in_model:
                    self._stop(task, f"the model did not answer in {self._max_call_seconds:g} s")
                elif not self._engine.bounds_itself and recognition.model_seconds > limit:
                    self._stop(task, f"it took more than {limit:.0f} s of model time")
            if hangs:
                log.error("the model hangs", extra={"action": "watch"})
                self._broken = True
                self._end()
            elif self._ending.is_set():
                self._stop_what_waits()

    def _stop(self, task: asyncio.Task[None], why: str) -> None:
        if task not in self._too_long:
            self._too_long[task] = why
            task.cancel()

    def _end(self) -> None:
        """Nothing new is begun from now on; what waits for the model is given back at once."""
        self._ending.set()
        self._stop_what_waits()
        self._hands.release()  # the loop may wait for it

    def _stop_what_waits(self) -> None:
        """Stops what the model does not work on: also what it has turned away meanwhile."""
        for task, recognition in self._unfinished.items():
            waits = recognition is None or not recognition.begun
            if (waits or self._broken) and not task.cancelling():
                task.cancel()

    @contextmanager
    def _unless_ending(self) -> Iterator[Callable[[Recognition], None]]:
        """Inside, the running task is stopped when the worker is to end before it has begun.

        Gives a function that takes the recognition which tells that.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._ending.is_set():
            task.cancel()
        self._unfinished[task] = None
        try:
            yield lambda recognition: self._unfinished.update({task: recognition})
        finally:
            del self._unfinished[task]

    def _take(self, delivery: Delivery[TaskMessage]) -> None:
        task = asyncio.create_task(settle(delivery, self._work))
        self._held.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._held.discard(task)
            self._hands.release()

        task.add_done_callback(done)

    async def _give_up(self) -> None:
        if self._held:
            await asyncio.wait(self._held, timeout=self._grace_seconds)
        for task in self._held:
            task.cancel()
        if self._held:
            await asyncio.wait(self._held, timeout=HAND_BACK_SECONDS + 1)

    async def _work(self, message: TaskMessage) -> None:
        """The work of one message: it ends with the task done, given back, or not ours."""
        if self._ending.is_set():
            raise Postponed("this worker stops", 0)
        with log_context(job_id=message.job_id, task_id=message.task_id):
            lease = await take_lease(self._tasks, message, self._worker_id, self._report_seconds)
            how = await self._see_through(lease) if lease else "gone"
            OUTCOMES.labels(self._model, how).inc()
            log.info("task %s", how, extra={"action": "task"})

    async def _see_through(self, lease: Lease) -> str:
        """Works on a leased task until that has an end; returns which."""
        leased = monotonic()
        try:
            async with lease.held():
                how = await self._try(lease)
            TASK_SECONDS.labels(self._model).observe(monotonic() - leased)
            return how
        except LeaseLost as loss:
            return loss.why
        except asyncio.CancelledError:
            await lease.hand_back()
            OUTCOMES.labels(self._model, "handed_back").inc()
            raise

    async def _try(self, lease: Lease) -> str:
        try:
            await self._transcribe(lease)
            return "done"
        except LeaseLost:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            if task not in self._too_long:
                raise
            task.uncancel()
            await lease.fail(job_pb2.TASK_FAILURE_RETRYABLE, self._too_long.pop(task))
            return "stopped"
        except Unreadable as error:
            await lease.fail(job_pb2.TASK_FAILURE_UNREADABLE, f"it can't be read: {error}")
            return "unreadable"
        except (InvalidArgument, InputRefused) as error:
            await lease.fail(job_pb2.TASK_FAILURE_PERMANENT, str(error))
            return "refused"
        except NotReady as error:
            await lease.hand_back()
            raise Postponed(f"the engine is not ready: {error}", NOT_READY_SECONDS) from error
        except Exception as error:
            log.exception("the slice failed", extra={"action": "task"})
            await self._check_model(lease)
            await lease.fail(job_pb2.TASK_FAILURE_RETRYABLE, f"{type(error).__name__}: {error}")
            return "failed"

    async def _transcribe(self, lease: Lease) -> None:
        options = parse_config(lease.config, self._engine)
        with self._unless_ending() as recognizing:
            # One that can't be read keeps nobody from the model.
            samples = await self._read(lease)
            async with self._isolation.entered(alone=lease.alone):
                recognition = self._engine.recognition(samples, Line.JOB, lease.job_id)
                recognizing(recognition)
                transcript = await self._recognize(lease, recognition, options)
        lease.transcribed_sample_count = lease.slice.sample_count
        await lease.complete(transcript)
        seconds = recognition.audio_seconds
        AUDIO_SECONDS.labels(self._model).inc(lease.slice.sample_count / SAMPLE_RATE)
        DROPPED.labels(self._model).inc(len(transcript.dropped_segments))
        gaps = transcript.coverage.gap_duration.ToTimedelta().total_seconds()
        GAP_SECONDS.labels(self._model).inc(gaps)
        factor = recognition.model_seconds / seconds if seconds else 0
        REAL_TIME_FACTOR.labels(self._model).set(factor)

    async def _recognize(
        self, lease: Lease, recognition: Recognition, options: Options
    ) -> transcript_pb2.SliceTranscript:
        left, length = lease.slice.left_context_sample_count, lease.slice.sample_count
        # Only by its words the job service finds what is said at a cut in the midst of speech.
        words = options.word_time_offsets or bool(left or lease.slice.right_context_sample_count)
        asked = replace(options, word_time_offsets=words)
        if not options.language_code and not options.multilingual:
            detected = await recognition.detect_language(asked)
            if detected and not lease.only_task:
                detected = await lease.agree_on_language(detected)
            if detected:
                options, asked = (
                    replace(each, language_code=detected) for each in (options, asked)
                )
        segments = []
        async for segment in recognition.segments(asked):
            segments.append(segment)
            lease.transcribed_sample_count = max(0, int(segment.end * SAMPLE_RATE) - left)
        segments, coverage = await recognition.cover(asked, segments, Span(left, left + length))
        kept, dropped = render_found(
            [each.retimed(lambda offset: offset - left / SAMPLE_RATE) for each in segments]
        )
        transcript = transcript_pb2.SliceTranscript(
            segments=kept,
            dropped_segments=dropped,
            language_code=spoken_language(options, segments),
            model=render_model(self._engine.model),
            config=render_options(options),
            coverage=render_coverage(coverage.moved(-left)),
        )
        transcript.model_time.FromTimedelta(timedelta(seconds=recognition.model_seconds))
        return transcript

    async def _read(self, lease: Lease) -> Samples:
        """Reads the slice; waits for a store that is away, since other workers have no other.

        Raises:
            Unreadable: the store is there, and has not given it in READ_SECONDS.
        """
        key = lease.slice.context_object_key or lease.slice.object_key
        pause, began = 0.5, monotonic()
        while True:
            try:
                return to_float(decode_slice(await self._store.get(key)))
            except Unavailable as error:
                log.warning("the slice can't be read: %s", error, extra={"action": "read"})
                if monotonic() - began > READ_SECONDS and await self._store_answers():
                    raise Unreadable(str(error)) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _store_answers(self) -> bool:
        try:
            await self._store.check()
        except Unavailable:
            return False
        return True

    async def _check_model(self, lease: Lease) -> None:
        """Tells a slice that can't be transcribed from a model that can't transcribe.

        A GPU that failed once may fail for ever, in this process: without this, one such worker
        would use up the tries of every task in the queue.

        Raises:
            Postponed: it is the model; the task is given back, and the worker ends.
        """
        try:
            await self._engine.check()
        except Exception as error:
            log.exception("the model is broken", extra={"action": "check_model"})
            self._broken = True
            self._end()
            await lease.hand_back()
            raise Postponed("the model of this worker is broken", 0) from error
