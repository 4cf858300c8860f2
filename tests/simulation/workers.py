"""Workers that do what workers do: work, fall silent, come late, give back, and are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from simulation.audio import SLICE_SAMPLES, Upload
from simulation.bus import Bus
from simulation.calls import Calls, Lost
from simulation.history import Call, History, recorded
from simulation.job_service import LEASE, Replica
from simulation.loop import Loop, Process
from steno.job.domain import StaleLease, TaskLeased, TaskNotFound, TaskNotPending
from steno.v1 import job_pb2 as pb
from steno.v1 import transcript_pb2
from steno.v1.events_pb2 import TaskMessage

DEADLINE = 2.0
RENEW_SECONDS = LEASE / 3
TRIES = 5

NO_CONTEXT: Any = None
"""Of a call: TaskServicer asks nothing of it."""


@dataclass(frozen=True, slots=True)
class Manners:
    """Probabilities of what a worker does with a task.

    Attributes:
        slow: it works for longer than a lease lasts.
        silent: it does not renew its lease, and goes on all the same.
        late: it renews its lease when that is about to end, or just over.
        gives_back: it hands the task back.
        forgets: it takes the lease and does nothing more.
        repeats: it tells its result twice.
        wrong: it tells of a lease that it does not hold.
    """

    slow: float = 0.0
    silent: float = 0.0
    late: float = 0.0
    gives_back: float = 0.0
    forgets: float = 0.0
    repeats: float = 0.0
    wrong: float = 0.0


class LeaseOver(Exception):
    """The task is not this worker's any more."""


class Worker:
    """A process of the transcription service."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        bus: Bus,
        upload: Upload,
        calls: Calls,
        replicas: Sequence[Replica],
        history: History,
        manners: Callable[[], Manners],
    ) -> None:
        self.process = Process(name)
        self._loop = loop
        self._bus = bus
        self._upload = upload
        self._calls = calls
        self._replicas = replicas
        self._history = history
        self._manners = manners

    def start(self) -> None:
        self._loop.create_task(
            self._run(), name=self.process.name, context=self.process.context.copy()
        )

    async def _run(self) -> None:
        while True:
            taken = await self._bus.next(1.0)
            if taken is not None:
                number, message = taken
                try:
                    delay = await self._work(number, message)
                except (Lost, TimeoutError):
                    delay = 0.5
                if delay is None:
                    self._bus.ack(number)
                else:
                    self._bus.nak(number, delay)

    async def _work(self, number: int, message: TaskMessage) -> float | None:
        """Returns None when the message is done with, else when it is to come again."""
        request_id = str(UUID(int=self._loop.random.getrandbits(128), version=4))
        try:
            lease: pb.LeaseTaskResponse = await self._until_answered(
                "lease",
                lambda replica: replica.tasks.LeaseTask(
                    pb.LeaseTaskRequest(
                        task_id=message.task_id,
                        worker_id=self.process.name,
                        request_id=request_id,
                    ),
                    NO_CONTEXT,
                ),
                task_id=UUID(message.task_id),
                worker=self.process.name,
                request_id=request_id,
            )
        except (TaskNotFound, TaskNotPending):
            return None
        except TaskLeased:
            return 1.0
        try:
            return await self._see_through(number, message, lease)
        except (LeaseOver, StaleLease):
            return None

    async def _see_through(
        self, number: int, message: TaskMessage, lease: pb.LeaseTaskResponse
    ) -> float | None:
        manners, chance = self._manners(), self._loop.chance
        recording = self._upload.recordings[UUID(lease.slice.object_key.partition("/")[0])]
        index = lease.slice.index
        if chance(manners.forgets):
            return None
        silent, late = chance(manners.silent), chance(manners.late)
        seconds = 0.3 * self._loop.random.random()
        if late:
            seconds += 1.4 * LEASE
        elif chance(manners.slow):
            seconds += 2 * LEASE * self._loop.random.random()
        if not lease.config.language_code:
            await self._renew(message, lease.attempt, 0, "en")
        while seconds > 0:
            pause = LEASE * (1 + 0.3 * self._loop.random.random()) if late else RENEW_SECONDS
            part = min(seconds, pause)
            await asyncio.sleep(part)
            seconds -= part
            self._bus.in_progress(number)
            if seconds > 0 and not silent:
                await self._renew(message, lease.attempt, SLICE_SAMPLES // 2, "")
        if chance(manners.wrong):
            await self._wrong(message, lease.attempt)
        if chance(manners.gives_back):
            await self._fail(message, lease.attempt, pb.TASK_FAILURE_HANDED_BACK)
            return 0.0
        if index in recording.hopeless:
            await self._fail(message, lease.attempt, pb.TASK_FAILURE_PERMANENT)
            return None
        if index in recording.stubborn or recording.moody.get(index, 0) > 0:
            recording.moody[index] = recording.moody.get(index, 0) - 1
            await self._fail(message, lease.attempt, pb.TASK_FAILURE_RETRYABLE)
            return None
        for _ in range(1 + chance(manners.repeats)):
            await self._complete(message, lease.attempt, recording.text(index))
        return None

    async def _renew(self, message: TaskMessage, attempt: int, samples: int, language: str) -> None:
        try:
            renewed: pb.RenewTaskResponse = await self._call(
                "renew",
                lambda replica: replica.tasks.RenewTask(
                    pb.RenewTaskRequest(
                        task_id=message.task_id,
                        attempt=attempt,
                        transcribed_sample_count=samples,
                        language_code=language,
                    ),
                    NO_CONTEXT,
                ),
                task_id=UUID(message.task_id),
                attempt=attempt,
            )
        except Lost:
            return
        if renewed.cancelled:
            raise LeaseOver

    async def _complete(self, message: TaskMessage, attempt: int, text: str) -> None:
        segment = transcript_pb2.Segment(text=text)
        segment.end_offset.FromMilliseconds(1000)
        transcript = transcript_pb2.SliceTranscript(
            segments=[segment],
            language_code="en",
            model=transcript_pb2.ModelInfo(name="builtin", revision=str(attempt)),
        )
        await self._until_answered(
            "complete",
            lambda replica: replica.tasks.CompleteTask(
                pb.CompleteTaskRequest(
                    task_id=message.task_id, attempt=attempt, transcript=transcript
                ),
                NO_CONTEXT,
            ),
            task_id=UUID(message.task_id),
            attempt=attempt,
        )

    async def _fail(
        self, message: TaskMessage, attempt: int, failure: pb.TaskFailure.ValueType
    ) -> None:
        await self._until_answered(
            "fail",
            lambda replica: replica.tasks.FailTask(
                pb.FailTaskRequest(
                    task_id=message.task_id, attempt=attempt, failure=failure, message="it failed"
                ),
                NO_CONTEXT,
            ),
            task_id=UUID(message.task_id),
            attempt=attempt,
            failure=failure,
        )

    async def _wrong(self, message: TaskMessage, attempt: int) -> None:
        """Tells of a lease that was before, or never will be."""
        other = attempt + self._loop.random.choice((-1, 100) if attempt > 1 else (100,))
        try:
            match self._loop.random.choice(("renew", "complete", "fail")):
                case "renew":
                    await self._renew(message, other, SLICE_SAMPLES, "")
                case "complete":
                    await self._complete(message, other, "what nobody said")
                case _:
                    await self._fail(message, other, pb.TASK_FAILURE_PERMANENT)
        except (StaleLease, LeaseOver, Lost):
            return

    async def _until_answered(
        self, kind: str, work: Callable[[Replica], Coroutine[Any, Any, Any]], **about: Any
    ) -> Any:
        for _ in range(TRIES):
            try:
                return await self._call(kind, work, **about)
            except Lost:
                await asyncio.sleep(0.3)
        raise Lost(f"{kind} is not answered")

    async def _call(
        self, kind: str, work: Callable[[Replica], Coroutine[Any, Any, Any]], **about: Any
    ) -> Any:
        replica = self._loop.random.choice(self._replicas)
        return await recorded(
            self._history,
            Call(self.process.name, kind, about, self._loop.time()),
            self._calls.unary(replica.process, lambda: work(replica), DEADLINE),
        )
