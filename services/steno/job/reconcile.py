"""Finds what got lost: messages in the work queue, and changes of audio.

All of it may run on several replicas at once, each taking other rows; and all of it only brings
the store closer to what is true, so doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from steno.job.audio import AudioSource
from steno.job.domain import Audio, AudioNotFound, AudioState, Job, JobNotFound
from steno.job.outbox import AudioToCheck, Outbox
from steno.job.settings import Settings
from steno.job.store import JobLocked, Store
from steno.platform import loops
from steno.platform.loops import Signal
from steno.platform.messaging import TASKS, Messaging
from steno.v1.events_pb2 import AudioEvent, TaskMessage
from steno.v1.upload_pb2 import AUDIO_STATE_PREPARING

log = logging.getLogger(__name__)

BATCH = 100
AT_ONCE = 8

LOCKED_TRIES = 20
LOCKED_PAUSE_SECONDS = 0.05

R = TypeVar("R")
T = TypeVar("T")


class Reconciler:
    """Compares the store with the work queue and the upload service."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        messaging: Messaging,
        audio: AudioSource,
        settings: Settings,
        lost: Signal,
    ) -> None:
        """Takes what it compares.

        Args:
            store: where jobs are kept.
            outbox: what others should know.
            messaging: the work queue.
            audio: the upload service.
            settings: how often to compare.
            lost: called when a task needs another message.
        """
        self._store = store
        self._outbox = outbox
        self._messaging = messaging
        self._audio = audio
        self._message_age = timedelta(seconds=settings.job_message_check_seconds)
        self._preparing_age = timedelta(seconds=settings.job_audio_poll_seconds)
        self._ready_age = timedelta(seconds=settings.job_deleted_poll_seconds)
        self._lost = lost
        self._audio_events: dict[UUID, AudioEvent] = {}
        self._created: deque[AudioToCheck] = deque()
        self.audio_changed = Signal()
        """Wakes the loops that `refresh_audio`."""

    async def check_messages(self) -> None:
        """Has a new message sent for each waiting task whose message the work queue has not."""
        await self._messaging.check()
        lost = True
        while lost:
            waiting = await self._outbox.messages_to_check(self._message_age, BATCH)
            lost = any(await _each(waiting, self._check_message))
            self._lost()

    async def _check_message(self, message: tuple[UUID, int]) -> bool:
        """Returns whether it is lost."""
        task_id, sequence = message
        with _checked("check_messages", task_id):
            if not await self._has(task_id, sequence):
                log.warning("a task's message was lost", extra={"task_id": str(task_id)})
                await self._outbox.message_lost(task_id, sequence)
                return True
        return False

    async def _has(self, task_id: UUID, sequence: int) -> bool:
        message = await self._messaging.stored(TASKS, sequence, TaskMessage)
        return message is not None and message.task_id == str(task_id)

    async def poll_audio(self) -> None:
        """Asks for audio that was not asked for in a while."""
        jobs = await self._outbox.audio_to_check(self._preparing_age, self._ready_age, BATCH)
        await _each(jobs, self._check_job)

    async def receive_audio(self) -> None:
        """Notes the audio of which the upload service says that it has changed. Does not return."""
        async with self._messaging.subscribe("steno.events.audio.>", AudioEvent) as events:
            async for event in events:
                with suppress(ValueError):  # it is no id of ours
                    self._audio_events[UUID(event.audio_id)] = event
                    self.audio_changed()

    def created(self, job: Job) -> None:
        """Has a new job's audio asked for once more, if more of it is to come.

        Nobody was notified of a change between the first answer and the job's commit.
        """
        if job.audio_state is AudioState.PREPARING:
            self._created.append(AudioToCheck(job.job_id, job.audio_id, job.task_count))
            self.audio_changed()

    async def refresh_audio(self) -> None:
        """Asks for audio that has changed, unless its jobs know the change already.

        What changes several times meanwhile is asked for once. To be run several times at once, so
        that audio of which nothing is answered keeps only itself waiting.
        """
        while self._created:
            await self._check_job(self._created.popleft())
        while self._audio_events:
            audio_id = next(iter(self._audio_events))
            event = self._audio_events.pop(audio_id)
            for job in await self._outbox.jobs_of_audio(audio_id):
                grows = event.state == AUDIO_STATE_PREPARING and not event.deleted
                if not grows or event.slice_count > job.task_count:
                    await self._check_job(job)

    async def _check_job(self, job: AudioToCheck) -> None:
        with _checked("poll_audio", job.job_id), suppress(JobNotFound):  # deleted meanwhile
            try:
                audio = await self._audio.fetch(job.audio_id, job.task_count)
            except AudioNotFound:
                audio = None
            await self._take_in(job.job_id, audio)

    async def _take_in(self, job_id: UUID, audio: Audio | None) -> None:
        """Tries for a while to lock a job that others change; the next poll is another try."""
        for _ in range(LOCKED_TRIES):
            with suppress(JobLocked):
                await self._store.audio_changed(job_id, audio)
                return
            await asyncio.sleep(LOCKED_PAUSE_SECONDS)
        log.warning("job %s stays locked", job_id, extra={"action": "poll_audio"})


@contextmanager
def _checked(action: str, key: UUID) -> Iterator[None]:
    """Inside, a row is checked, whose next check comes after those of all others.

    An error is logged, unless it says that a server is away: then it is raised.
    """
    try:
        yield
    except loops.AWAY:
        raise
    except Exception:
        log.exception("%s can't be checked", key, extra={"action": action})


async def _each(rows: Sequence[R], do: Callable[[R], Awaitable[T]]) -> list[T]:
    """Does something for each row, some at once. What one raises is raised after all are done."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(row: R) -> T:
        async with limit:
            return await do(row)

    ends = await asyncio.gather(*map(one, rows), return_exceptions=True)
    done = [end for end in ends if not isinstance(end, BaseException)]
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return done
