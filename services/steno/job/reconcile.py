"""Finds what got lost: workers, messages, and news of audio.

All of it may run on several replicas at once, each taking other rows; and all of it only brings
the store closer to what is true, so doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

from steno.job.audio import AudioSource
from steno.job.domain import AudioNotFound, JobNotFound
from steno.job.hearing import Hearing
from steno.job.outbox import AudioToCheck, Outbox
from steno.job.settings import Settings
from steno.job.store import Store
from steno.platform.database import AWAY
from steno.platform.loops import Signal
from steno.platform.messaging import TASKS, Messaging
from steno.v1.events_pb2 import AudioEvent, TaskMessage

log = logging.getLogger(__name__)

BATCH = 100
AT_ONCE = 8


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
        self._hearing = Hearing(settings.task_lease_seconds, settings.job_sweep_seconds)

    async def expire_leases(self) -> None:
        """Takes tasks back from workers that fell silent; to be begun when they can be heard."""
        try:
            leases = await self._store.past_leases(BATCH)
            while self._hearing.answered() and leases:
                for task_id, attempt in leases:
                    await self._store.expire(task_id, attempt)
                log.warning("%d leases expired", len(leases), extra={"action": "expire_leases"})
                leases = await self._store.past_leases(BATCH)
        except AWAY:
            self._hearing.interrupted()
            raise

    async def end_late(self) -> None:
        """Fails jobs that have not ended by their deadline."""
        while ended := await self._store.end_late(BATCH):
            log.warning("%d jobs missed their deadline", ended, extra={"action": "end_late"})

    async def delete_old(self) -> None:
        """Deletes jobs that ended longer ago than they are kept."""
        deleted = BATCH
        while self._retention and deleted == BATCH:
            deleted = await self._store.delete_old(self._retention, BATCH)
            if deleted:
                log.info("%d old jobs deleted", deleted, extra={"action": "delete_old"})

    async def check_messages(self) -> None:
        """Has a new message sent for each waiting task whose message the work queue has not."""
        await self._messaging.check()
        lost = True
        while lost:
            waiting = await self._outbox.messages_to_check(self._message_age, BATCH)
            lost = False
            for task_id, sequence in waiting:
                if not await self._has(task_id, sequence):
                    log.warning("a task's message was lost", extra={"task_id": str(task_id)})
                    await self._outbox.message_lost(task_id, sequence)
                    lost = True
            self._lost()

    async def _has(self, task_id: UUID, sequence: int) -> bool:
        message = await self._messaging.stored(TASKS, sequence, TaskMessage)
        return message is not None and message.task_id == str(task_id)

    async def check_audio(self) -> None:
        """Asks for audio of which nothing was heard for a while."""
        await self._check(
            await self._outbox.audio_to_check(self._preparing_age, self._ready_age, BATCH)
        )

    async def hear_audio(self) -> None:
        """Asks for audio as soon as the upload service says that it changed. Does not return."""
        async with self._messaging.subscribe("steno.events.audio.>", AudioEvent) as events:
            async for event in events:
                await self._check(await self._outbox.jobs_of_audio(UUID(event.audio_id)))

    async def _check(self, jobs: list[AudioToCheck]) -> None:
        limit = asyncio.Semaphore(AT_ONCE)

        async def check(job: AudioToCheck) -> None:
            async with limit:
                await self._check_job(job)

        await asyncio.gather(*map(check, jobs))

    async def _check_job(self, job: AudioToCheck) -> None:
        try:
            audio = await self._audio.look(job.audio_id, job.task_count)
        except AudioNotFound:
            audio = None
        try:
            await self._store.audio_changed(job.job_id, audio)
        except JobNotFound:
            log.debug("job %s was deleted meanwhile", job.job_id)
