"""Finds what got lost: workers, messages, and news of audio.

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

from steno.job.aside import Aside
from steno.job.audio import AudioSource
from steno.job.domain import Audio, AudioNotFound, AudioState, Job, JobNotFound
from steno.job.outbox import AudioToCheck, Outbox
from steno.job.settings import Settings
from steno.job.store import JobLocked, Store
from steno.platform import loops
from steno.platform.database import AWAY
from steno.platform.hearing import Hearing
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
    """Compares the store with the workers' leases, the work queue, and the upload service."""

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
            settings: how often to look.
            lost: called when a task needs another message.
        """
        self._store = store
        self._outbox = outbox
        self._messaging = messaging
        self._audio = audio
        self._message_age = timedelta(seconds=settings.job_message_check_seconds)
        self._preparing_age = timedelta(seconds=settings.job_audio_poll_seconds)
        self._ready_age = timedelta(seconds=settings.job_deleted_poll_seconds)
        self._retention = timedelta(hours=settings.job_retention_hours)
        self._lost = lost
        self._news: dict[UUID, AudioEvent] = {}
        self._created: deque[AudioToCheck] = deque()
        self.heard = Signal()
        """Wakes those who `follow_audio`."""
        self._hearing = Hearing(settings.task_lease_seconds, settings.job_sweep_seconds)
        self._leases: Aside[UUID] = Aside("expire_leases")
        self._unjoined: Aside[UUID] = Aside("join")
        self._late: Aside[UUID] = Aside("end_late")
        self._old: Aside[UUID] = Aside("delete_old")

    async def expire_leases(self) -> None:
        """Takes tasks back from workers that fell silent; to be begun when they can be heard."""
        while leases := await self._past_leases():
            expired = 0
            for task_id, attempt in leases:
                with self._leases.tried(task_id, JobLocked):
                    expired += await self._store.expire(task_id, attempt)
                    self._hearing.answered()
            if expired:
                log.warning("%d leases expired", expired, extra={"action": "expire_leases"})

    async def _past_leases(self) -> list[tuple[UUID, int]]:
        """Leases past their time, if whoever holds them could have renewed them."""
        try:
            leases = await self._store.past_leases(BATCH, self._leases.keys)
        except AWAY:
            self._hearing.interrupted()
            raise
        return leases if self._hearing.answered() else []

    async def join(self) -> None:
        """Joins slices that were too many to be joined with the one that came last."""
        while unjoined := await self._store.unjoined_jobs(BATCH, self._unjoined.keys):
            for job_id in unjoined:
                with self._unjoined.tried(job_id, JobLocked), suppress(JobNotFound):
                    await self._store.join(job_id)

    async def end_late(self) -> None:
        """Fails jobs that have not ended by their deadline."""
        while late := await self._store.late(BATCH, self._late.keys):
            ended = 0
            for job_id in late:
                # Some are deleted meanwhile.
                with self._late.tried(job_id, JobLocked), suppress(JobNotFound):
                    ended += await self._store.end_late(job_id)
            if ended:
                log.warning("%d jobs missed their deadline", ended, extra={"action": "end_late"})

    async def delete_old(self) -> None:
        """Deletes jobs that ended longer ago than they are kept."""
        while self._retention and (
            old := await self._store.old(self._retention, BATCH, self._old.keys)
        ):
            deleted = 0
            for job_id in old:
                # Another replica may be faster.
                with self._old.tried(job_id, JobLocked), suppress(JobNotFound):
                    await self._store.delete(job_id, wait=False)
                    deleted += 1
            if deleted:
                log.info("%d old jobs deleted", deleted, extra={"action": "delete_old"})

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
        with _looked_at("check_messages", task_id):
            if not await self._has(task_id, sequence):
                log.warning("a task's message was lost", extra={"task_id": str(task_id)})
                await self._outbox.message_lost(task_id, sequence)
                return True
        return False

    async def _has(self, task_id: UUID, sequence: int) -> bool:
        message = await self._messaging.stored(TASKS, sequence, TaskMessage)
        return message is not None and message.task_id == str(task_id)

    async def check_audio(self) -> None:
        """Asks for audio of which nothing was heard for a while."""
        jobs = await self._outbox.audio_to_check(self._preparing_age, self._ready_age, BATCH)
        await _each(jobs, self._check_job)

    async def hear_audio(self) -> None:
        """Hears from the upload service which audio has changed. Does not return."""
        async with self._messaging.subscribe("steno.events.audio.>", AudioEvent) as events:
            async for event in events:
                with suppress(ValueError):  # it is no id of ours
                    self._news[UUID(event.audio_id)] = event
                    self.heard()

    def created(self, job: Job) -> None:
        """Has a new job's audio looked at once more, if more of it is to come.

        What it became between the first look and the job's commit was news to nobody.
        """
        if job.audio_state is AudioState.PREPARING:
            self._created.append(AudioToCheck(job.job_id, job.audio_id, job.task_count))
            self.heard()

    async def follow_audio(self) -> None:
        """Asks for audio that has changed, unless its jobs know already what is new of it.

        What changes several times meanwhile is asked for once. To be run several times at once, so
        that audio of which nothing is answered keeps only itself waiting.
        """
        while self._created:
            await self._check_job(self._created.popleft())
        while self._news:
            audio_id = next(iter(self._news))
            event = self._news.pop(audio_id)
            for job in await self._outbox.jobs_of_audio(audio_id):
                grows = event.state == AUDIO_STATE_PREPARING and not event.deleted
                if not grows or event.slice_count > job.task_count:
                    await self._check_job(job)

    async def _check_job(self, job: AudioToCheck) -> None:
        with _looked_at("check_audio", job.job_id), suppress(JobNotFound):  # deleted meanwhile
            try:
                audio = await self._audio.look(job.audio_id, job.task_count)
            except AudioNotFound:
                audio = None
            await self._take_in(job.job_id, audio)

    async def _take_in(self, job_id: UUID, audio: Audio | None) -> None:
        """Tries for a while to have a job that others change; the next look is another try."""
        for _ in range(LOCKED_TRIES):
            with suppress(JobLocked):
                await self._store.audio_changed(job_id, audio)
                return
            await asyncio.sleep(LOCKED_PAUSE_SECONDS)
        log.warning("job %s stays locked", job_id, extra={"action": "check_audio"})


@contextmanager
def _looked_at(action: str, key: UUID) -> Iterator[None]:
    """Inside, a row is looked at that is behind all others now. What is wrong with it is logged.

    What says that a server is away is raised.
    """
    try:
        yield
    except loops.AWAY:
        raise
    except Exception:
        log.exception("%s can't be looked at", key, extra={"action": action})


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
